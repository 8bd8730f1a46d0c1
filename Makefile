# Each target works as the first command ever run: it makes .venv and installs what it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)

.PHONY: install train test test-all battery check lint types format bench pictures clean help

help:
	@echo "make install set everything up: the virtual environment .venv, with convlens in it"
	@echo "make train   set everything up, train on the embedded MNIST, evaluate on its test images"
	@echo "make check   style, types and the tests without browser and training: a minute and a half"
	@echo "make test    set everything up, run the tests: six minutes on two cores;   make test-all   the slow proofs too"
	@echo "make battery   what happens when things go wrong, row by row: a quarter of an hour; writes docs/reliability.md"
	@echo "make lint    ruff, import-linter;   make types   mypy;   make format   ruff format;   make clean   remove .venv"
	@echo "make pictures   every picture of the documents anew, by the commands that stand there"
	@echo "make bench   the speed ladder on this machine, about half an hour; make bench BENCH=--quick, three minutes"

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "convlens needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing convlens and torch into $(VENV): the first time this takes minutes"
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

install: $(VENV)/.installed

train: $(VENV)/.installed
	$(BIN)/convlens train mnist --test --keep-filters

# Tests side by side, each with one thread of torch's: two with two threads each on two cores wait for one another.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

# Against the wheel, as it is built and installed, not against the source.
test-all: $(VENV)/.installed-dev
	rm -rf $(VENV)/wheel $(VENV)/dist
	$(BIN)/python -m build --no-isolation --outdir $(VENV)/dist . >/dev/null
	$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/wheel $(VENV)/dist/convlens-*.whl
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/$(VENV)/wheel $(BIN)/python -m pytest -n auto -m ""

battery: $(VENV)/.installed-dev
	$(BIN)/python -m tests.battery

check: lint types
	$(BIN)/python -m pytest -n auto -m "not slow and not training"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(VENV)/.installed-dev
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)

bench: $(VENV)/.installed
	$(BIN)/python bench/ladder.py $(BENCH)

pictures: $(VENV)/.installed-dev
	$(BIN)/python docs/make_pictures.py
	$(BIN)/python docs/rooms.py
