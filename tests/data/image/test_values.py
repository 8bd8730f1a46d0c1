"""What the numbers of a picture stand for, in whichever type they are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convlens
from convlens.data.image.values import check_range_of_set, to_uint8
from convlens.errors import ImageError
from tests.conftest import shapes

BYTES = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("kind", ["int16", "int64", "float32", "float64"])
def test_bytes_are_bytes_in_any_type(kind: str) -> None:
    """Whole numbers of 0..255, and what is divided by 255."""
    assert np.array_equal(to_uint8(BYTES.astype(kind)), BYTES)
    if kind.startswith("float"):
        assert np.array_equal(to_uint8((BYTES / 255).astype(kind)), BYTES)


@pytest.mark.parametrize("value", [256, 260, 4_000, 70_000])
def test_integers_above_a_byte_are_not_read_darker(value: int) -> None:
    """Among pictures of 0..255 one pixel above does not make a quarter of all others: one line says what to do."""
    picture = BYTES.astype(np.int64)
    picture[3, 3] = value
    with pytest.raises(ImageError, match=r"clip them|range nobody knows"):
        to_uint8(picture)


def test_a_mask_of_floats_is_no_black_picture() -> None:
    """Zeros and ones are black and white, as booleans are; a picture of zeros alone stays black."""
    mask = BYTES > 128
    assert np.array_equal(to_uint8(mask.astype(float)), to_uint8(mask))
    assert to_uint8(np.zeros((4, 4))).max() == 0


def test_a_set_of_twelve_bits_is_not_read_as_sixteen() -> None:
    """Many pictures up to 4,080 kept in 16 bits, for a model of bytes: refused, in the place of being nearly black."""
    with pytest.raises(ImageError, match="scale them"):
        check_range_of_set(np.dtype(np.uint16), (0, 4_095), (0, 255))
    check_range_of_set(np.dtype(np.uint16), (0, 65_535), (0, 255))
    check_range_of_set(np.dtype(np.uint16), (0, 255), (0, 255))


def test_the_split_does_not_depend_on_the_type() -> None:
    """The same pixels as bytes, integers and floats are test and validation alike, and one data set."""
    x, y = shapes(600)
    kinds: list[Any] = [x, x.astype(np.int64), x.astype(np.float32), x / 255.0]
    sets = [convlens.pack((kind, y), progress="none") for kind in kinds]
    assert len({dataset.fingerprint for dataset in sets}) == 1
    assert all(np.array_equal(dataset.rows("test"), sets[0].rows("test")) for dataset in sets)
    assert all(np.array_equal(dataset.rows("val"), sets[0].rows("val")) for dataset in sets)
