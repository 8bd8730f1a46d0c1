"""Which input size is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from convlens.choosing.previews import is_grey_inside
from convlens.choosing.sizes import Tried, best_of
from convlens.data.sources.recognise import open_source
from convlens.training.trial import Trial


def trial(losses: list[float]) -> Trial:
    values = np.array(losses)
    return Trial(np.zeros((len(losses), 2), np.float32), values, values < 0.7)


def test_the_smallest_size_that_is_not_clearly_worse_is_taken() -> None:
    """A larger input must be better by more than a standard error of the paired difference."""
    rng = np.random.default_rng(1)
    base = rng.normal(0.6, 0.2, 100)
    same, better = base + rng.normal(0, 0.2, 100), base - 0.3
    assert best_of([Tried(32, trial(base.tolist()), 1), Tried(64, trial(same.tolist()), 4)]).side == 32
    assert best_of([Tried(32, trial(base.tolist()), 1), Tried(64, trial(better.tolist()), 4)]).side == 64


def test_grey_inside_colour_is_seen(tmp_path: Path) -> None:
    """Colour files without colour are grey; one coloured picture among them is enough to keep colour."""
    for i in range(6):
        (tmp_path / "d" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 20), 40 * i, np.uint8)).convert("RGB").save(
            tmp_path / "d" / "ab"[i % 2] / f"{i}.jpg"
        )
    assert is_grey_inside(open_source(tmp_path / "d"))
    Image.new("RGB", (20, 20), (200, 30, 30)).save(tmp_path / "d" / "a" / "red.png")
    assert not is_grey_inside(open_source(tmp_path / "d"))
