"""NumPy files and arrays."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlens.data.packed.pack import pack
from convlens.errors import DataError


def test_npz_and_arrays_and_folder_agree(tmp_path: Path, arrays: Any) -> None:
    """An .npz, floats in 0..1, and arrays in Python are the same data set."""
    x, y, x_test, y_test = arrays
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    np.savez_compressed(tmp_path / "b.npz", x_train=x / 255, y_train=y, x_test=x_test[..., None] / 255, y_test=y_test)
    prints = {pack(tmp_path / "a.npz").fingerprint, pack(tmp_path / "b.npz").fingerprint, pack(arrays).fingerprint}
    assert len(prints) == 1
    np.savez(tmp_path / "c.npz", x=x, y=np.array(["a", "b", "c"])[y])
    assert pack(tmp_path / "c.npz").class_names == ("a", "b", "c")


BAD_ARRAYS: list[tuple[Any, str]] = [
    ((np.zeros((4, 8, 8), np.uint8),), "arrays come as"),
    ((np.zeros((4, 8, 8), np.uint8), np.zeros(3, int)), "4 images, y 3 labels"),
    ((np.zeros((4, 8, 8), np.int32), np.arange(4)), "uint8 in 0..255 or floats"),
    ((np.full((4, 8, 8), 2.0), np.arange(4)), "must lie in 0..1"),
    ((np.full((4, 8, 8), np.nan), np.arange(4)), "must lie in 0..1"),
    ((np.zeros((4, 3, 8, 8), np.uint8), np.arange(4)), "channels last"),
    ((np.zeros((4, 8), np.uint8), np.arange(4)), "must be"),
    ((np.zeros((4, 8, 8), np.uint8), np.zeros(4, int)), "one class only"),
    ((np.zeros((4, 8, 8), np.uint8), np.zeros(4, float)), "whole numbers or names"),
    ((np.zeros((0, 8, 8), np.uint8), np.zeros(0, int)), "empty"),
    ({"train": (np.zeros((4, 8, 8), np.uint8), np.arange(4)), "exam": ()}, "keyed train, val and test"),
]


@pytest.mark.parametrize(("data", "words"), BAD_ARRAYS)
def test_arrays_that_cannot_be(data: Any, words: str) -> None:
    """Shape, type, range and length are checked, and the message says which."""
    with pytest.raises(DataError, match=words):
        pack(data)


def test_npz_that_cannot_be(tmp_path: Path) -> None:
    """Missing keys, pickled objects, no zip at all, and a header that promises more than is there."""
    x, y = np.zeros((4, 8, 8), np.uint8), np.arange(4)
    cases = {
        "keys.npz": ({"images": x, "y": y}, "must have x_train"),
        "half.npz": ({"x_train": x, "y_train": y, "x_test": x}, "has no y_test"),
        "object.npz": ({"x": x, "y": np.array([1, "a", None, 2], dtype=object)}, "pickled"),
    }
    for name, (content, words) in cases.items():
        np.savez(tmp_path / name, **content)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=words):
            pack(tmp_path / name)
    (tmp_path / "text.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match="cannot be read"):
        pack(tmp_path / "text.npz")
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999, 999, 999), }".ljust(117)
        + b"\n"
    )
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("x.npy", header)
        archive.writestr("y.npy", header)
    with pytest.raises(DataError, match="promises"):
        pack(tmp_path / "bomb.npz")
