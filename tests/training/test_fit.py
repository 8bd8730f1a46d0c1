"""The one assembly of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import convlens
from convlens.errors import TrainingError
from convlens.training import fit
from tests.conftest import QUICK, TINY, shapes


@pytest.mark.parametrize("where", ["fold", "probe"])
def test_memory_that_runs_out_in_a_fold_or_probe_is_one_line(
    where: str, workplace: Path, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's own error becomes a TrainingError there as in a run."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(fit, "train_steps", fail)
    options: dict[str, Any] = {"folds": 3, "architecture": TINY, "recipe": QUICK} if where == "fold" else {"time": 9}
    with pytest.raises(TrainingError, match="not enough memory on cpu"):
        convlens.train(shapes(90) if where == "fold" else folders, progress="none", **options)


def test_training_leaves_the_callers_torch_alone(arrays: Any, workplace: Path) -> None:
    """Threads and the global random state are as before."""
    torch.manual_seed(1)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    convlens.train(arrays, architecture=TINY, recipe=QUICK.replace(epochs=0.2), threads=1)
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads
