"""Array files: IDX (MNIST's own format) and .npz, read so that a header can promise nothing it does not hold.

Owns both formats' checks. Formats: IDX as described with MNIST (yann.lecun.com/exdb/mnist): two zero bytes, a type
byte (8 = uint8), the number of dimensions, each dimension as a big-endian uint32, the values.
"""

from __future__ import annotations

import gzip
import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from convlens.errors import DataError
from convlens.files import sha256_of
from convlens.text import shown

Array = NDArray[np.uint8]
_MAX_DEFLATE_RATIO = 1040  # deflate cannot shrink further than 1 : 1032
_SPLIT_PREFIXES = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class IdxSplit:
    """uint8 images (N, H, W), uint8 labels (N,), and the SHA-256 of each file's uncompressed bytes."""

    images_NHW: Array
    labels_N: Array
    hashes: dict[str, str]


def _find(folder: Path, prefix: str, what: str, dims: int) -> Path | None:
    for middle in (f"{what}-idx{dims}-ubyte", f"{what}.idx{dims}-ubyte"):
        for suffix in ("", ".gz"):
            path = folder / f"{prefix}-{middle}{suffix}"
            if path.is_file():
                return path
    return None


def has_idx_files(folder: Path) -> bool:
    """Whether a folder holds at least one of MNIST's file names."""
    return any(
        _find(folder, prefix, what, dims)
        for prefix in _SPLIT_PREFIXES.values()
        for what, dims in (("images", 3), ("labels", 1))
    )


def read_folder(folder: Path) -> dict[str, IdxSplit]:
    """The splits in a folder of IDX files: train, and test where it is there. Raises DataError."""
    splits = {}
    for split, prefix in _SPLIT_PREFIXES.items():
        images_path, labels_path = _find(folder, prefix, "images", 3), _find(folder, prefix, "labels", 1)
        if images_path is None and labels_path is None and split == "test":
            continue
        if images_path is None or labels_path is None:
            missing = f"{prefix}-{'images-idx3' if images_path is None else 'labels-idx1'}-ubyte"
            raise DataError(f"{shown(folder, 200)} has no {missing} (plain or .gz)")
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if len(images) != len(labels):
            raise DataError(
                f"{shown(images_path, 200)} has {len(images):,} images, its labels file {len(labels):,} labels"
            )
        if images.size == 0:
            raise DataError(f"{shown(images_path, 200)} is empty")
        hashes = {images_path.name: sha256_of(images.data), labels_path.name: sha256_of(labels.data)}
        splits[split] = IdxSplit(images, labels, hashes)
    shapes = {split.images_NHW.shape[1:] for split in splits.values()}
    if len(shapes) > 1:
        raise DataError(
            f"{shown(folder, 200)}: train and test images differ in size: {' and '.join(map(str, sorted(shapes)))}"
        )
    return splits


def read_idx(path: Path, num_dims: int) -> Array:
    """One IDX file of uint8 with `num_dims` dimensions, plain or .gz. Raises DataError."""
    where = shown(path, 200)
    try:
        num_stored = path.stat().st_size
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as file:
                return parse_idx(cast(BinaryIO, file), num_dims, num_stored * _MAX_DEFLATE_RATIO, where)
        with path.open("rb") as file:
            return parse_idx(file, num_dims, num_stored, where)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{where} cannot be read: {shown(error)}") from error


def parse_idx(file: BinaryIO, num_dims: int, max_bytes: int, where: str) -> Array:
    """uint8 with `num_dims` dimensions from an open IDX file that can hold at most `max_bytes`.

    The header is believed only as far as the file can bear it out; nothing is allocated before. Raises DataError.
    """
    magic, wanted = file.read(4), bytes((0, 0, 8, num_dims))
    if magic != wanted:
        raise DataError(
            f"{where} is no IDX file of {num_dims}-dimensional uint8: it begins {magic.hex()}, not {wanted.hex()}"
        )
    raw_sizes = file.read(4 * num_dims)
    if len(raw_sizes) != 4 * num_dims:
        raise DataError(f"{where} is truncated within its header")
    shape = struct.unpack(f">{num_dims}I", raw_sizes)
    expected = math.prod(shape)
    held = max_bytes - 4 - 4 * num_dims
    if expected > held:
        raise DataError(f"{where} promises {expected:,} bytes ({'×'.join(map(str, shape))}) but holds at most {held:,}")
    values = file.read(expected)
    if len(values) < expected:
        raise DataError(f"{where} is truncated: {len(values):,} of {expected:,} bytes")
    if file.read(1):
        raise DataError(f"{where} has bytes after its last value")
    return np.frombuffer(values, np.uint8).reshape(shape)


def read_npz(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Those of the arrays `names` that an .npz holds; nothing pickled is read. Raises DataError."""
    where = shown(path, 200)
    try:
        with zipfile.ZipFile(path) as archive:
            found = {}
            for name in names:
                if f"{name}.npy" in archive.namelist():
                    found[name] = _npz_member(archive, archive.getinfo(f"{name}.npy"), where)
            return found
    except DataError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # zip, its codecs and NumPy's reading of headers raise whatever they run into
        raise DataError(f"{where} cannot be read as .npz: {shown(error)}") from error


def _npz_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> NDArray[Any]:
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise DataError(f"{where}: {info.filename} has .npy version {version}, which is not read")
        shape, _, dtype = read_header[version](file)
        if dtype.hasobject:
            raise DataError(f"{where}: {info.filename} holds pickled objects, which are never read")
        expected = math.prod(shape) * dtype.itemsize
        if expected > info.file_size or info.file_size > _MAX_DEFLATE_RATIO * max(1, info.compress_size):
            raise DataError(
                f"{where}: {info.filename} promises {expected:,} bytes and holds at most {info.file_size:,}"
            )
    with archive.open(info) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
