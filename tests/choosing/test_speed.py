"""How fast this machine trains: the one answer of the clock."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import convlens
from convlens import files
from convlens.architecture import parse, plan
from convlens.choosing import choose as choosing
from convlens.choosing.choose import Choices, choose
from convlens.choosing.probe import material_of
from convlens.choosing.speed import FINE, coarse, rate_of, remembered
from convlens.network.compute import Compute, resolve_compute
from convlens.progress import Progress
from convlens.recipe import Recipe
from convlens.training.plan import TrainingPlan
from convlens.training.request import TrainRequest
from tests.helpers import TINY_COLOUR

CPU = Compute("cpu", "float32", 1)


def test_rates_are_coarse() -> None:
    """Small differences are rounded away, by at most half a step."""
    assert coarse(100) == coarse(110) and 0.91 * 110 < coarse(110) < 1.1 * 110
    assert 0.98 * 110 < coarse(110, FINE) < 1.02 * 110


def test_rates_are_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was measured once is not measured again; other work, another machine and a damaged file are."""
    monkeypatch.setenv("CONVLENS_STATE", str(tmp_path))
    assert remembered(["a"], CPU, lambda: 110.0) == 110 and remembered(["b"], CPU, lambda: 118.0) == 118
    assert remembered(["a"], CPU, lambda: pytest.fail("it is known")) == 110
    assert remembered(["a"], Compute("cpu", "float32", 2), lambda: 10.0) == 10
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
    for grow_from in (0.5, 0.99):  # of 20 pixels 12, and all of them: nothing is left to grow
        growing = replace(timed, recipe=timed.recipe.replace(grow_from=grow_from))
        assert 1 < rate_of(material_of(dataset), growing) < 1e7


@pytest.mark.slow
def test_a_busy_machine_gives_the_same_plan(folders: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Beside as many busy processes as there are cores the choices are those of the idle machine, word for word; and
    what is measured anew there is within one coarse step."""
    monkeypatch.setattr(choosing, "rate_of", rate_of)  # which the tests beside this one replace
    monkeypatch.setenv("CONVLENS_STATE", str(tmp_path / "state"))

    def chosen() -> Choices:
        request = TrainRequest(data=folders).with_defaults()
        return choose(request, request.draft(None), Progress())

    idle = chosen()
    loads = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        busy = chosen()
        monkeypatch.setenv("CONVLENS_STATE", str(tmp_path / "other"))
        anew = chosen()
    finally:
        for load in loads:
            load.kill()
            load.wait()
    assert busy.draft == idle.draft and busy.reasons == idle.reasons
    epochs = [choices.draft.recipe.epochs for choices in (idle, anew)]
    assert anew.draft.architecture == idle.draft.architecture
    assert max(epochs) <= 1.2 * min(epochs)
