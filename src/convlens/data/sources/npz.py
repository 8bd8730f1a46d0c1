"""Arrays in an .npz, read so that a header can promise nothing that it does not hold.

Owns the reading. What is pickled is never unpickled: of arrays of strings the strings alone are taken out of the
stream."""

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from convlens.data.sources.arrays import array_source, named_pairs
from convlens.data.sources.base import ArraySource, name_of
from convlens.data.sources.idx import MAX_DEFLATE_RATIO
from convlens.data.sources.strings import strings_of
from convlens.errors import DataError
from convlens.text import shown


def from_npz(path: Path) -> ArraySource:
    """An .npz whose names speak of images and labels: x_train y_train x_test y_test, x y, MedMNIST's train_images,
    scikit-learn's data and target, np.savez's arr_0 … Raises DataError."""
    where = shown(path, 200)
    splits, names, notes = named_pairs(_read(path), where)
    return array_source(splits, name_of(path), str(path.resolve()), where, names, notes)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays that an .npz holds. Raises DataError."""
    where = shown(path, 200)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            return {name: _member(archive, info, where) for name, info in members.items()}
    except DataError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # zip, its codecs and NumPy's reading of headers raise whatever they run into
        raise DataError(f"{where} cannot be read as .npz: {shown(error)}") from error


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> NDArray[Any]:
    if info.file_size > MAX_DEFLATE_RATIO * max(1, info.compress_size):
        raise DataError(f"{where}: {shown(info.filename)} promises more bytes than it can hold")
    with archive.open(info) as file:
        shape, dtype = _header(file, f"{where}: {shown(info.filename)}")
        if dtype.hasobject:
            return _strings(file.read(info.file_size), shape, f"{where}: {shown(info.filename)}")
        expected = math.prod(shape) * dtype.itemsize
        if expected > info.file_size:
            raise DataError(
                f"{where}: {shown(info.filename)} promises {expected:,} bytes and holds at most {info.file_size:,}"
            )
    with archive.open(info) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type as the header has them; the file stands behind it then. Raises DataError."""
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise DataError(f"{where} has .npy version {version}, which is not read")
    shape, _, dtype = read_header[version](file)
    return shape, dtype


def _strings(stream: bytes, shape: tuple[int, ...], where: str) -> NDArray[Any]:
    try:
        return np.array(strings_of(stream), str).reshape(shape)
    except ValueError as error:
        raise DataError(
            f"{where} holds pickled objects, which are never read ({shown(error)}): save them as text"
        ) from error
