"""Arrays in an .npz, read so that a header can promise nothing that it does not hold.

Owns the names that arrays must have there, and the reading. Nothing pickled is read.
"""

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlens.data.sources.arrays import array_source
from convlens.data.sources.base import SPLITS, ArraySource, name_of
from convlens.data.sources.idx import MAX_DEFLATE_RATIO
from convlens.errors import DataError
from convlens.text import shown


def from_npz(path: Path) -> ArraySource:
    """An .npz of x_train y_train x_test y_test (x_val y_val), or x y. Raises DataError."""
    where = shown(path, 200)
    known = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test", "x", "y")
    arrays = _read(path, known)
    if {"x_train", "y_train"} <= arrays.keys():
        pairs = {s: (arrays[f"x_{s}"], arrays[f"y_{s}"]) for s in SPLITS if {f"x_{s}", f"y_{s}"} <= arrays.keys()}
        missing = [
            f"{b}_{s}"
            for s in SPLITS
            for a, b in (("x", "y"), ("y", "x"))
            if f"{a}_{s}" in arrays and f"{b}_{s}" not in arrays
        ]
        if missing:
            raise DataError(f"{where} has no {missing[0]}")
        splits: dict[str | None, tuple[Any, Any]] = {s if len(pairs) > 1 else None: pair for s, pair in pairs.items()}
    elif {"x", "y"} <= arrays.keys():
        splits = {None: (arrays["x"], arrays["y"])}
    else:
        has = ", ".join(arrays) or "none of them"
        raise DataError(f"{where} must have x_train, y_train, x_test and y_test, or x and y; it has {has}")
    return array_source(splits, name_of(path), str(path.resolve()), where)


def _read(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Those of the arrays `names` that an .npz holds; nothing pickled is read. Raises DataError."""
    where = shown(path, 200)
    try:
        with zipfile.ZipFile(path) as archive:
            found = {}
            for name in names:
                if f"{name}.npy" in archive.namelist():
                    found[name] = _member(archive, archive.getinfo(f"{name}.npy"), where)
            return found
    except DataError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # zip, its codecs and NumPy's reading of headers raise whatever they run into
        raise DataError(f"{where} cannot be read as .npz: {shown(error)}") from error


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> NDArray[Any]:
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise DataError(f"{where}: {info.filename} has .npy version {version}, which is not read")
        shape, _, dtype = read_header[version](file)
        if dtype.hasobject:
            raise DataError(f"{where}: {info.filename} holds pickled objects, which are never read")
        expected = math.prod(shape) * dtype.itemsize
        if expected > info.file_size or info.file_size > MAX_DEFLATE_RATIO * max(1, info.compress_size):
            raise DataError(
                f"{where}: {info.filename} promises {expected:,} bytes and holds at most {info.file_size:,}"
            )
    with archive.open(info) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
