"""How fast this machine trains: the one answer of the clock."""

from __future__ import annotations

from pathlib import Path

import pytest

import convlens
from convlens import files
from convlens.architecture import parse, plan
from convlens.choosing.probe import material_of
from convlens.choosing.speed import FINE, rate_of, remembered
from convlens.network.compute import Compute, resolve_compute
from convlens.recipe import Recipe
from convlens.training.plan import TrainingPlan
from tests.helpers import TINY_COLOUR

CPU = Compute("cpu", "float32", 1)


def test_rates_are_coarse_and_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was measured once is not measured again, and small differences are rounded away; other work, another
    machine and a damaged file are measured anew."""
    monkeypatch.setenv("CONVLENS_STATE", str(tmp_path))
    assert remembered(["a"], CPU, lambda: 110.0) == remembered(["b"], CPU, lambda: 118.0)
    first = remembered(["a"], CPU, lambda: pytest.fail("it is known"))
    assert 0.84 * 110 < first <= 110
    assert 0.97 * 110 < remembered(["a"], CPU, lambda: 1.0, FINE) <= 110
    assert remembered(["a"], Compute("cpu", "float32", 2), lambda: 10.0) <= 10
    (tmp_path / "speeds.json").write_text("{", encoding="utf-8")
    assert remembered(["a"], CPU, lambda: 64.0) == 64
    assert remembered(["a"], CPU, lambda: pytest.fail("it is known again")) == 64


def test_a_state_folder_that_cannot_be_written_is_not_missed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Then everything is measured each time."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("CONVLENS_STATE", str(tmp_path / "file"))
    assert remembered(["a"], CPU, lambda: 64.0) == 64
    assert remembered(["a"], CPU, lambda: 32.0) == 32


def test_the_rate_is_what_a_training_does(folders: Path) -> None:
    """Images a second of some steps: a positive number, higher where images begin smaller."""
    dataset = convlens.pack(folders)
    network = plan(parse(TINY_COLOUR), dataset.input_spec.shape, 2)
    compute = resolve_compute("cpu", "float32")
    timed = TrainingPlan(dataset=dataset, network=network, recipe=Recipe(batch_size=8), seed=0, compute=compute)
    assert 1 < rate_of(material_of(dataset), timed) < 1e7
    assert 1 < rate_of(material_of(dataset), timed, by_clock=True) < 1e7
    assert (files.state_folder() / "speeds.json").is_file()
