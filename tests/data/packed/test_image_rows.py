"""Images that stay in their file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import convlens
from convlens.data.packed.image_rows import ImageRows


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
