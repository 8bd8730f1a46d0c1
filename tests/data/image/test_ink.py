"""Handwriting is framed as MNIST is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from convlens.data.image.decode import decode
from convlens.data.image.framing import InputSpec, fit
from convlens.data.image.ink import is_framed_ink
from convlens.data.packed.pack import open_data

INK = InputSpec(28, 28, 1, "ink")


def test_mnist_passes_ink_unchanged() -> None:
    """At least 99.9 % of MNIST's own images (a third of train, all of val) come back as they were."""
    mnist = open_data("mnist")
    images = np.concatenate([mnist.images("train")[::3], mnist.images("val")])
    same = [np.array_equal(fit(image, INK), image) for image in images]
    assert np.mean(same) >= 0.999


def drawing(side: int, width: int, ink: int, ground: int, at: tuple[float, float] = (0.5, 0.5)) -> NDArray[np.uint8]:
    image = Image.new("L", (side, side), ground)
    x, y, r = at[0] * side, at[1] * side, side * 0.2
    draw = ImageDraw.Draw(image)
    draw.line((x, y - 1.5 * r, x, y + 1.5 * r), fill=ink, width=width)
    draw.line((x - r / 2, y - r, x, y - 1.5 * r), fill=ink, width=width)
    return np.asarray(image)


@pytest.mark.parametrize(("ink", "ground"), [(0, 255), (255, 0), (60, 200), (230, 120)])
@pytest.mark.parametrize(
    ("side", "width"), [(28, 2), (200, 4), (600, 1), (900, 1), (900, 12), (900, 80), (3000, 1), (3000, 3), (3000, 30)]
)
@pytest.mark.parametrize("at", [(0.5, 0.5), (0.3, 0.35), (0.7, 0.6)])
def test_ink_meets_the_convention(side: int, width: int, ink: int, ground: int, at: tuple[float, float]) -> None:
    """Whatever its polarity, size, pen and place, ink comes out bright on 0, 20 px long, centred, and idempotent."""
    framed = fit(drawing(side, width, ink, ground, at), INK)[:, :, 0]
    assert is_framed_ink(framed)
    assert framed.max() == 255 and np.median(framed) == 0
    assert np.array_equal(fit(framed, INK)[:, :, 0], framed)


def test_ink_sees_through_even_shade() -> None:
    """A sheet that darkens from corner to corner gives the same ink as an evenly lit one."""
    sheet = drawing(400, 10, 0, 255).astype(np.float64)
    y, x = np.mgrid[0:400, 0:400] / 400
    shaded = (sheet / 255 * (220 - 70 * x - 50 * y)).clip(0, 255).astype(np.uint8)
    plain, seen = fit(drawing(400, 10, 0, 255), INK), fit(shaded, INK)
    assert np.abs(plain.astype(int) - seen).mean() < 6


def test_an_empty_sheet_is_empty() -> None:
    """A picture without ink becomes an empty one, not an error and not noise blown up."""
    assert fit(np.full((50, 60), 255, np.uint8), INK).max() == 0


def test_a_large_photograph_costs_bounded_memory() -> None:
    """Ink is found on a reduced copy: a 16-megapixel sheet needs no array of doubles of its size."""
    import tracemalloc

    sheet = drawing(4000, 60, 20, 240)
    tracemalloc.start()
    framed = fit(sheet, INK)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert is_framed_ink(framed[:, :, 0])
    assert peak_bytes < 150e6


def test_own_digits_are_framed_like_mnist(tmp_path: Path) -> None:
    """All of the digits drawn by people meet MNIST's convention after framing."""
    from tests.conftest import shared

    for path in sorted(shared("drawn_digits", tmp_path).rglob("*.*")):
        framed = fit(decode(path.read_bytes()), INK)[:, :, 0]
        assert is_framed_ink(framed), path.name
