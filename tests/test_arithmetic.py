"""Where the compute is done: choices and their notes, memory, dropout, presets on images they cannot take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import convlens
from convlens.architecture import parse, plan
from convlens.cli import main
from convlens.data.packed.image_rows import ImageRows
from convlens.errors import RunError, SentenceError, TrainingError, UsageError
from convlens.files import read_lines
from convlens.network import compute as device
from convlens.network import memory
from convlens.network.build import DropoutModule
from convlens.network.compute import Compute, resolve_compute
from convlens.presets import PRESETS
from convlens.recipe import Recipe
from convlens.run import update_record
from convlens.training import fit
from tests.conftest import QUICK, TINY


def test_the_choices_are_one_line() -> None:
    """What is automatic and what was asked for can be read off one line, and round-trips through JSON."""
    chosen = resolve_compute("cpu", "float32", 1, "contiguous")
    assert str(chosen) == "cpu, float32, 1 thread, contiguous"
    assert Compute(**chosen.to_json()) == chosen
    assert "channels last" in str(resolve_compute("cpu"))
    with pytest.raises(UsageError, match="did you mean 'channels_last'"):
        resolve_compute("cpu", memory_format="channel_last")


def test_bfloat16_without_the_hardware_is_honoured_with_a_warning(
    arrays: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is emulated, said to be slow, and done."""
    monkeypatch.setattr(device, "has_fast_bfloat16", lambda _: False)
    recipe = QUICK.replace(precision="bfloat16", epochs=0.2)
    run = convlens.train(arrays, architecture=TINY, recipe=recipe, progress="lines")
    assert run.record["compute"]["precision"] == "bfloat16"
    assert "emulated, and slower than float32" in capsys.readouterr().err
    assert resolve_compute("cpu").precision == "float32"


def test_a_run_that_was_begun_compiled_is_not_continued(arrays: Any, workplace: Path) -> None:
    """Earlier versions could compile the step; such a run's bits cannot be kept: one line says so."""
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, stop=lambda: True)
    update_record(run.path, compute={**run.record["compute"], "compile": True})
    with pytest.raises(RunError, match="begun compiled"):
        convlens.train(resume=run.path)


def test_memory_formats_train_alike(arrays: Any, workplace: Path) -> None:
    """Contiguous and channels-last give the same losses up to rounding."""
    losses = []
    for memory_format in ("channels_last", "contiguous"):
        run = convlens.train(arrays, architecture=TINY, recipe=QUICK, memory_format=memory_format)
        losses.append([line["loss"] for line in read_lines(run.path / "log.jsonl")])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


# ---------------------------------------------------------------- memory


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
    assert run.record["recipe"]["batch_size"] == 57


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


# ---------------------------------------------------------------- images, dropout


def test_mapped_images() -> None:
    """Rows are read when asked for, as NumPy would pick them, and never the others."""
    everything = np.arange(7 * 2 * 2, dtype=np.uint8).reshape(7, 2, 2, 1)
    images = ImageRows(everything, np.array([5, 1, 3]))
    assert len(images) == 3 and images.shape == (3, 2, 2, 1) and images.nbytes == 12
    wanted = everything[[5, 1, 3]]
    assert np.array_equal(np.asarray(images), wanted) and np.array_equal(np.stack(list(images)), wanted)
    assert np.array_equal(images[1], wanted[1]) and np.array_equal(images[1:], wanted[1:])
    assert np.array_equal(images[np.array([2, 0, 2])], wanted[[2, 0, 2]])
    assert np.array_equal(images.only(np.array([True, False, True]))[:], wanted[[0, 2]])


def test_opening_a_set_reads_no_image(arrays: Any, workplace: Path) -> None:
    """Training and validation images are the mapped file, not a copy of it."""
    dataset = convlens.pack(arrays)
    base: Any = dataset.images("train").mapped
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap) and dataset.images("val").mapped is dataset.images("train").mapped


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout(p: float) -> None:
    """About p are zeroed, the mean stays, the gradient has the same mask, torch's seed repeats it; eval passes."""
    module, x = DropoutModule(p), torch.ones(400, 500, requires_grad=True)
    torch.manual_seed(5)
    y = module(x)
    y.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, y.detach())
    assert abs(float((y == 0).float().mean()) - p) < 0.01 and abs(float(y.detach().mean()) - 1) < 0.03
    assert len(y.detach().unique()) == 2
    assert not torch.equal(module(x), y)
    torch.manual_seed(5)
    assert torch.equal(module(x), y)
    assert torch.equal(module.eval()(x), x)


# ---------------------------------------------------------------- presets and their images


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_preset_says_what_images_it_needs(preset: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images too small for it: one line with the sizes that it takes, exit code 2, no run."""
    rng = np.random.default_rng(0)
    np.savez("small.npz", x=rng.integers(0, 255, (60, 3, 3), dtype=np.uint8), y=np.arange(60) % 3)
    assert main(["train", "small.npz", "--preset", preset]) == 2
    error = capsys.readouterr().err
    assert f"preset '{preset}' cannot take images of 3×3 pixels with 1 channel: it needs" in error
    needed = int(error.partition("it needs ")[2].partition("×")[0])
    fits = plan(parse(PRESETS[preset].architecture), (1, needed, needed), 3)
    assert fits.num_parameters and not Path("runs").exists()
    with pytest.raises(SentenceError):
        plan(parse(PRESETS[preset].architecture), (1, needed - 1, needed - 1), 3)
