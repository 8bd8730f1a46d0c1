"""IDX, MNIST's own format, in any tree of names, read so that a header can promise nothing that it does not hold.

Owns the format and its checks. The format is as described with MNIST (yann.lecun.com/exdb/mnist): two zero bytes, a
type byte (8 = uint8), the number of dimensions, each dimension as a big-endian uint32, the values.
"""

import gzip
import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from convlens.data.sources.base import ArraySource, ArraySplit, need_classes
from convlens.data.sources.tree import Tree
from convlens.errors import DataError
from convlens.files import sha256_of
from convlens.text import shown

Array = NDArray[np.uint8]
MAX_DEFLATE_RATIO = 1040  # deflate cannot shrink further than 1 : 1032
_SPLIT_PREFIXES = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class IdxSplit:
    """uint8 images (N, H, W), uint8 labels (N,), and the SHA-256 of each file's uncompressed bytes."""

    images_NHW: Array
    labels_N: Array
    hashes: dict[str, str]


def _find(tree: Tree, prefix: str, what: str, dims: int) -> str | None:
    for middle in (f"{what}-idx{dims}-ubyte", f"{what}.idx{dims}-ubyte"):
        for suffix in ("", ".gz"):
            name = f"{prefix}-{middle}{suffix}"
            if tree.is_file(name):
                return name
    return None


def has_idx_files(tree: Tree) -> bool:
    """Whether a tree holds at least one of MNIST's file names."""
    return any(
        _find(tree, prefix, what, dims)
        for prefix in _SPLIT_PREFIXES.values()
        for what, dims in (("images", 3), ("labels", 1))
    )


def from_idx(tree: Tree, name: str) -> ArraySource:
    """A tree of IDX files. Raises DataError."""
    found = _read_splits(tree)
    labels = np.concatenate([split.labels_N for split in found.values()])
    num_classes = int(labels.max()) + 1
    names = tuple(map(str, range(num_classes)))
    need_classes(np.bincount(labels, minlength=num_classes), names, tree.where(""))
    splits: dict[str | None, ArraySplit] = {
        (split if len(found) > 1 else None): ArraySplit(f.images_NHW[..., None], f.labels_N.astype(np.int64))
        for split, f in found.items()
    }
    hashes = {file: digest for f in found.values() for file, digest in f.hashes.items()}
    return ArraySource(name, tree.resolved(), splits, names, hashes)


def _read_splits(tree: Tree) -> dict[str, IdxSplit]:
    """The splits in a tree of IDX files: train, and test where it is there. Raises DataError."""
    splits = {}
    for split, prefix in _SPLIT_PREFIXES.items():
        images_path, labels_path = _find(tree, prefix, "images", 3), _find(tree, prefix, "labels", 1)
        if images_path is None and labels_path is None and split == "test":
            continue
        if images_path is None or labels_path is None:
            missing = f"{prefix}-{'images-idx3' if images_path is None else 'labels-idx1'}-ubyte"
            raise DataError(f"{tree.where('')} has no {missing} (plain or .gz)")
        images, labels = read_idx(tree, images_path, 3), read_idx(tree, labels_path, 1)
        if len(images) != len(labels):
            raise DataError(
                f"{tree.where(images_path)} has {len(images):,} images, its labels file {len(labels):,} labels"
            )
        if images.size == 0:
            raise DataError(f"{tree.where(images_path)} is empty")
        hashes = {images_path: sha256_of(images.data), labels_path: sha256_of(labels.data)}
        splits[split] = IdxSplit(images, labels, hashes)
    shapes = {split.images_NHW.shape[1:] for split in splits.values()}
    if len(shapes) > 1:
        raise DataError(
            f"{tree.where('')}: train and test images differ in size: {' and '.join(map(str, sorted(shapes)))}"
        )
    return splits


def read_idx(tree: Tree, path: str, num_dims: int) -> Array:
    """One IDX file of uint8 with `num_dims` dimensions, plain or .gz. Raises DataError."""
    where = tree.where(path)
    try:
        num_stored = tree.stat(path)[0] or 0
        with tree.open(path) as file:
            if path.endswith(".gz"):
                with gzip.open(file, "rb") as unzipped:
                    return parse_idx(cast(BinaryIO, unzipped), num_dims, num_stored * MAX_DEFLATE_RATIO, where)
            return parse_idx(file, num_dims, num_stored, where)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
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
