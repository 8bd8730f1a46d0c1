"""The film of the first filters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import convlens
from convlens.errors import ConvlensError, RunError, UsageError
from convlens.lens.film import frames_of
from convlens.network.build import tensors_of
from convlens.training.trainer import frames_between
from tests.conftest import QUICK, TINY


def test_film(toy: convlens.Run, tmp_path: Path) -> None:
    """Frames from the first step to the last; the last are the model's own filters; animations move."""
    film = convlens.film(toy)
    weights = tensors_of(convlens.load(toy.path).network)["0.weight"]
    assert film.steps[0] == 0 and film.steps[-1] == toy.record.num_steps and list(film.steps) == sorted(set(film.steps))
    assert np.array_equal(film.kernels[-1], weights.detach().numpy())
    assert not np.array_equal(film.kernels[0], film.kernels[-1])
    assert len({frame.tobytes() for frame in frames_of(film)}) == len(film.steps)
    for suffix in (".gif", ".webp", ".png"):
        film.save(tmp_path / f"film{suffix}")
        assert getattr(Image.open(tmp_path / f"film{suffix}"), "n_frames", 1) == (
            1 if suffix == ".png" else len(film.steps)
        )
    with pytest.raises(UsageError, match="must end in"):
        film.save(tmp_path / "film.mp4")


def test_frames_are_many_early_on() -> None:
    """Each training has its last step as a frame, and half of the frames in its first quarter."""
    for num_steps in (1, 7, 100, 10_000):
        frames = [step for step in range(1, num_steps + 1) if frames_between(step - 1, step, num_steps)]
        assert frames[-1] == num_steps and len(frames) <= 60
    assert sum(1 for step in frames if step <= 2500) >= 29


def test_resumed_run_keeps_the_same_filters(arrays: tuple[NDArray[Any], ...], tmp_path: Path) -> None:
    """Stopped and resumed, a run has the film and the curve of one that was never stopped."""

    def run(name: str, stop_at: int | None) -> convlens.Run:
        asked = iter(range(10_000))
        stop = None if stop_at is None else (lambda: next(asked) >= stop_at)
        options: dict[str, Any] = {"recipe": QUICK, "architecture": TINY, "progress": "none", "keep_filters": True}
        data = {"train": arrays[:2], "test": arrays[2:]}
        done = convlens.train(data, out=tmp_path / name, stop=stop, **options)
        if stop_at is not None:
            assert done.status == "interrupted"
            done = convlens.train(data, resume=done, progress="none")
        return done

    whole, resumed = run("whole", None), run("resumed", 7)
    assert whole.curve == resumed.curve and len(whole.curve) == whole.record.num_steps
    assert [step for step, _ in whole.filters()] == [step for step, _ in resumed.filters()]
    for (_, a), (_, b) in zip(whole.filters(), resumed.filters(), strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert all("epoch" in line for line in whole.history)


def test_no_film(toy: convlens.Run, arrays: tuple[NDArray[Any], ...], tmp_path: Path) -> None:
    """A run that kept no filters, one that has none to keep, and damaged ones: one line each."""
    x, y, *_ = arrays
    options: dict[str, Any] = {"recipe": QUICK.replace(epochs=0.1), "progress": "none"}
    plain = convlens.train((x, y), out=tmp_path / "a", architecture=TINY, **options)
    with pytest.raises(RunError, match="keep_filters"):
        convlens.film(plain)
    with pytest.raises(UsageError, match="has none"):
        convlens.train((x, y), architecture="flatten linear(classes)", keep_filters=True, **options)
    with pytest.raises(RunError, match="keep_filters"):
        convlens.train(resume=plain, keep_filters=True, progress="none")
    (plain.path / "filters").mkdir()
    for step in (0, 1):
        (plain.path / "filters" / f"step-{step:09d}.npy").write_bytes(b"damaged")
    with pytest.raises(ConvlensError, match="damaged filters"):
        convlens.film(plain)
    (plain.path / "filters" / "step-000000000.npy").write_bytes(b"PK\3\4garbage")
    with pytest.raises(ConvlensError, match="damaged filters"):
        convlens.film(plain)
    for step in (0, 1):
        np.save(plain.path / "filters" / f"step-{step:09d}.npy", np.zeros((0, 1, 3, 3), np.float32))
    with pytest.raises(ConvlensError, match="damaged filters"):
        convlens.film(plain)
