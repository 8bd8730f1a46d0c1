"""Device, precision, threads and memory format: chosen, written down, honoured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import convlens
from convlens.errors import (
    DeviceError,
    RunError,
    UsageError,
)
from convlens.network import compute as device
from convlens.network.compute import Compute, has_fast_bfloat16, resolve_compute
from convlens.run import update_record
from tests.conftest import QUICK, TINY
from tests.helpers import read_lines


def test_the_choices_are_one_line() -> None:
    """What is automatic and what was asked for can be read off one line, and round-trips through JSON."""
    chosen = resolve_compute("cpu", "float32", 1, "contiguous")
    assert str(chosen) == "cpu, float32, 1 thread, contiguous"
    assert Compute(**chosen.to_json()) == chosen
    assert "channels last" in str(resolve_compute("cpu"))
    with pytest.raises(UsageError, match="did you mean 'channels_last'"):
        resolve_compute("cpu", memory_format="channel_last")


def test_gpus_that_idle_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process uses one GPU: where there are more, the command that uses them is said."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert "4 GPUs are here and one of them works: `processes=4`" in Compute("cuda:0", "float32", 1).notes[0]
    assert not Compute("cuda:0", "float32", 1, processes=4).notes and not Compute("cpu", "float32", 1).notes


def test_bfloat16_without_the_hardware_is_honoured_with_a_warning(
    arrays: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said to be slow, and done."""
    monkeypatch.setattr(device, "has_fast_bfloat16", lambda _: False)
    recipe = QUICK.replace(precision="bfloat16", epochs=0.2)
    run = convlens.train(arrays, architecture=TINY, recipe=recipe, progress="lines")
    assert run.record.compute.precision == "bfloat16"
    assert "slower than float32" in capsys.readouterr().err
    assert resolve_compute("cpu").precision == "float32"


def test_a_run_that_was_begun_compiled_is_not_continued(arrays: Any, workplace: Path) -> None:
    """Earlier versions could compile the step; such a run's bits cannot be kept: one line says so."""
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, stop=lambda: True)
    update_record(run.path, compute=run.record.compute.replace(compile=True))
    with pytest.raises(RunError, match="begun compiled"):
        convlens.train(resume=run.path)


def test_memory_formats_train_alike(arrays: Any, workplace: Path) -> None:
    """Contiguous and channels-last give the same losses up to rounding."""
    losses = []
    for memory_format in ("channels_last", "contiguous"):
        run = convlens.train(arrays, architecture=TINY, recipe=QUICK, memory_format=memory_format)
        losses.append([line["loss"] for line in read_lines(run.path / "log.jsonl")])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_devices() -> None:
    """Unknown and absent devices are named; auto finds one; threads are checked."""
    assert resolve_compute("cpu", "float32", 1).threads == 1
    with pytest.raises(DeviceError, match="did you mean 'cuda'"):
        resolve_compute("cuba")
    if not torch.cuda.is_available():
        assert resolve_compute().device in ("cpu", "mps")
        with pytest.raises(DeviceError, match="no CUDA device"):
            resolve_compute("cuda")
    for threads in (0, -1, True, 10_000):
        with pytest.raises(UsageError, match="threads"):
            resolve_compute("cpu", threads=threads)
    assert has_fast_bfloat16("mps") is False
