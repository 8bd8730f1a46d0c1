"""Stopped, killed and resumed: the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convlens
from convlens.errors import RunError
from convlens.presets import PRESETS
from convlens.training import checkpoint, fit
from tests.conftest import QUICK, TINY
from tests.helpers import same, weights


@pytest.mark.parametrize("stop_at", [1, 3, 9, 16])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_stopped_and_resumed_is_uninterrupted(arrays: Any, workplace: Path, stop_at: int, optimizer: str) -> None:
    """Stopped after any step and resumed, tensors and log are those of the run that went through."""
    recipe = QUICK.replace(optimizer=optimizer, ema=0.8, flip=True)
    architecture = TINY.replace("flatten", "flatten dropout(0.3)")
    whole = convlens.train(arrays, architecture=architecture, recipe=recipe, out="whole")
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > stop_at

    part = convlens.train(arrays, architecture=architecture, recipe=recipe, out="part", stop=stop)
    assert part.status == "interrupted" and part.record.step == stop_at
    resumed = convlens.train(resume="part")
    assert resumed.status == "complete" and same(weights(resumed), weights(whole))
    assert [(line["step"], line["loss"]) for line in resumed.history] == [
        (line["step"], line["loss"]) for line in whole.history
    ]


KILLED = """
import os, signal, sys
import convlens
from convlens.recipe import Recipe
real, seen = os.fsync, 0
def fsync(descriptor):
    global seen
    seen += 1
    if seen == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = fsync
recipe = Recipe.from_json(eval(sys.argv[3]))
convlens.train("toy.npz", architecture=sys.argv[2], recipe=recipe, out="killed", checkpoint_every=0)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("at", [12, 26, 27, 29, 31, 150])
def test_killed_while_writing_and_resumed(arrays: Any, workplace: Path, at: int) -> None:
    """SIGKILL before the n-th fsync, so in the middle of writing a run, a checkpoint's state or its manifest:
    either there is no run at all, or resuming it gives the bits of the run that went through."""
    x, y, x_test, y_test = arrays
    np.savez("toy.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    whole = convlens.train("toy.npz", architecture=TINY, recipe=QUICK, out="whole")
    done = subprocess.run([sys.executable, "-c", KILLED, str(at), TINY, repr(QUICK.to_json())], check=False)
    assert done.returncode in (-signal.SIGKILL, 0)
    if done.returncode == 0:
        pytest.fail(f"the training ended before its {at}. fsync")
    if not Path("killed").exists():
        assert at < 20 and list(Path().glob(".killed*.partial")), "killed while the run folder was being made"
        return
    resumed = convlens.train(resume="killed")
    assert same(weights(resumed), weights(whole))
    assert [line["step"] for line in resumed.history] == [line["step"] for line in whole.history]


PRESET_KILLED = """
import os, signal, sys
import convlens
from convlens.presets import PRESETS
steps = 0
def stop():
    global steps
    steps += 1
    if steps == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return False
recipe = PRESETS[sys.argv[1]].recipe.replace(epochs=0.03)
convlens.train("mnist", preset=sys.argv[1], recipe=recipe, out=sys.argv[1], stop=stop, checkpoint_every=0)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
@pytest.mark.slow
@pytest.mark.parametrize("preset", [name for name, preset in PRESETS.items() if preset.parent is None])
def test_each_preset_killed_and_resumed(workplace: Path, preset: str) -> None:
    """For each preset, on MNIST, in its own precision: killed and resumed is uninterrupted, bit for bit."""
    recipe = PRESETS[preset].recipe.replace(epochs=0.03)
    whole = convlens.train("mnist", preset=preset, recipe=recipe, out="whole")
    done = subprocess.run([sys.executable, "-c", PRESET_KILLED, preset, "5"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert same(weights(convlens.train(resume=preset)), weights(whole))


def test_a_damaged_checkpoint_is_passed_over(arrays: Any, workplace: Path) -> None:
    """If the newest checkpoint is damaged, the one before serves, and the bits are the same."""
    whole = convlens.train(arrays, architecture=TINY, recipe=QUICK)
    calls = iter([False] * 9 + [True] * 9)
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, stop=lambda: next(calls), checkpoint_every=0)
    newest = sorted((run.path / "checkpoints").iterdir())[-1] / "state.safetensors"
    data = bytearray(newest.read_bytes())
    data[-5] ^= 1
    newest.write_bytes(bytes(data))
    assert same(weights(convlens.train(resume=run)), weights(whole))


def test_what_killed_processes_left_is_removed(arrays: Any, workplace: Path) -> None:
    """Half-written files and checkpoints of a killed process are gone after resuming."""
    calls = iter([False] * 3 + [True] * 9)
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, stop=lambda: next(calls))
    (run.path / ".model.safetensors.abcd.partial").write_bytes(b"half")
    (run.path / "checkpoints" / ".step-000000009.abcd.partial").mkdir()
    convlens.train(resume=run)
    assert not list(run.path.rglob("*.partial"))


def test_resuming_without_a_whole_checkpoint_says_so(
    arrays: Any, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If every checkpoint is damaged, training begins anew, says so, and comes to the same bits."""
    whole = convlens.train(arrays, architecture=TINY, recipe=QUICK)
    calls = iter([False] * 3 + [True] * 9)
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, stop=lambda: next(calls))
    for path in (run.path / "checkpoints").glob("*/manifest.json"):
        path.write_text("{}", encoding="utf-8")
    resumed = convlens.train(resume=run, progress="lines")
    assert "no checkpoint of this run is whole" in capsys.readouterr().err
    assert same(weights(resumed), weights(whole))


def test_interrupted_before_the_first_state(arrays: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the network is being made is a KeyboardInterrupt, nothing else, and the run can be resumed."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as early:
        early.setattr(fit, "build", interrupted)
        with pytest.raises(KeyboardInterrupt):
            convlens.train(arrays, architecture=TINY, recipe=QUICK, out="run")
    assert convlens.train(resume="run").status == "complete"


def test_checkpoints_of_another_version_are_not_continued(
    arrays: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their bits would not be those of an uninterrupted run: one line says so, and the run stays as it is."""
    calls = iter([False] * 6 + [True] * 9)
    with monkeypatch.context() as earlier:
        earlier.setattr(checkpoint, "FORMAT_VERSION", 1)
        run = convlens.train(arrays, architecture=TINY, recipe=QUICK, stop=lambda: next(calls))
    before = weights(run)
    with pytest.raises(RunError, match="another version of convlens"):
        convlens.train(resume=run)
    assert same(weights(run), before)
