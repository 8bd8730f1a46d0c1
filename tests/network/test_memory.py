"""Too little memory is found before, or named after, and never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import convlens
from convlens.architecture import parse, plan
from convlens.errors import TrainingError
from convlens.network import memory
from convlens.recipe import Recipe
from convlens.training import fit
from tests.conftest import QUICK, TINY


def test_a_batch_that_cannot_fit_is_refused_before_anything_is_written(
    arrays: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the batch size, what it needs and what would fit; that size is then taken, not less."""
    network_plan = plan(parse(TINY), (1, 16, 16), 3)
    each, fixed = memory.bytes_per_image(network_plan, "float32"), memory.fixed_bytes(network_plan, QUICK)
    monkeypatch.setattr(memory, "free_bytes", lambda _: int((fixed + 57.5 * each) / (1 - memory._KEPT_FREE)))
    with pytest.raises(TrainingError, match=r"batches of 64 images.*would fit: use `batch_size=57`$"):
        convlens.train(arrays, architecture=TINY, recipe=QUICK.replace(batch_size=64))
    assert not Path("runs").exists() or not [p for p in Path("runs").iterdir() if p.name != ".lock"]
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK.replace(batch_size=57, epochs=0.5))
    assert run.record.recipe["batch_size"] == 57


def test_running_out_in_spite_of_the_estimate_names_a_smaller_batch(
    arrays: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's own errors become one line that proposes half of the batch; other errors stay what they are."""

    def fails_with(words: str) -> None:
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError(words)

        monkeypatch.setattr(fit, "train_steps", fail)

    for words in (
        "[enforce fail] DefaultCPUAllocator: can't allocate memory",
        "MPS backend out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED",
    ):
        fails_with(words)
        with pytest.raises(TrainingError, match=r"not enough memory on cpu for batches of 32 images.*`batch_size=16`$"):
            convlens.train(arrays, architecture=TINY, recipe=QUICK)
    fails_with("something else")
    with pytest.raises(RuntimeError, match="something else"):
        convlens.train(arrays, architecture=TINY, recipe=QUICK)


LIMITED = """
import resource, sys
import convlens.cli, numpy as np, torch
torch.ones(64, 64) @ torch.ones(64, 64)
used = 1024 * int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1])
resource.setrlimit(resource.RLIMIT_AS, (used + 600_000_000, used + 600_000_000))
sys.exit(convlens.cli.main(["train", "mnist", "--batch-size", sys.argv[1], "--epochs", "0.2", "--out", "run"]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_out_of_memory_for_real(workplace: Path) -> None:
    """With 600 MB left, a batch of 50,000 is refused in one line with exit code 2 and leaves no run."""
    done = subprocess.run([sys.executable, "-c", LIMITED, "50000"], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "batches of 50,000 images" in done.stderr and "use --batch-size" in done.stderr
    assert "Traceback" not in done.stderr and not Path("run").exists()


def test_estimates_count_what_training_keeps() -> None:
    """By hand: a convolution and a pooling of a 4×4 image, in float32."""
    tiny = plan(parse("conv(2, 3, padding=1) maxpool(2) flatten linear(classes)"), (1, 4, 4), 3)
    inputs, conv, pooled, flat, logits = 16 * (1 + 4 + 4), 32 * 4, 8 * (4 + 8), 8 * 4, 3 * 4
    assert memory.bytes_per_image(tiny, "float32") == inputs + conv + pooled + flat + logits + 2 * 32 * 4
    parameters = 2 * 9 + 2 + 8 * 3 + 3
    assert memory.fixed_bytes(tiny, Recipe()) == 4 * 4 * parameters
    assert memory.fixed_bytes(tiny, Recipe(optimizer="sgd", ema=0.9)) == 4 * 4 * parameters
