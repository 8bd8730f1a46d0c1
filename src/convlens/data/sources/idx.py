"""IDX, MNIST's own format, in any tree of names, read so that a header can promise nothing that it does not hold.

Owns the format and its checks. The format is as described with MNIST (yann.lecun.com/exdb/mnist): two zero bytes, a
type byte (8 = uint8), the number of dimensions, each dimension as a big-endian uint32, the values.
"""

import gzip
import math
import posixpath
import re
import struct
import zipfile
import zlib
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from convlens.data.sources.base import SPLITS, ArraySource, ArraySplit, limit_classes
from convlens.data.sources.layouts import NO_LABEL, NO_PICTURE, unused_note
from convlens.data.sources.listing import Folder
from convlens.data.sources.split_words import split_of, words_of
from convlens.data.sources.tree import Tree
from convlens.errors import DataError
from convlens.files import sha256_of
from convlens.text import listed, shown

Array = NDArray[np.uint8]
MAX_DEFLATE_RATIO = 1040  # deflate cannot shrink further than 1 : 1032
ANOTHER = "another file of the same name is read"
# train-images-idx3-ubyte, t10k-labels.idx1-ubyte.gz, emnist-letters-test-images-idx3-ubyte
_NAME = re.compile(r"(?i)(.*?)[-_.]?(image|label)s?[-_.]?idx([13])(?:[-_.]ubyte)?(\.gz)?$")


class _File(NamedTuple):
    """An IDX file by what its name says: the set (`emnist-letters`, mostly empty), split, images or labels."""

    of_set: str
    split: str
    what: str
    path: str

    @property
    def rank(self) -> tuple[bool, int, str]:
        """Which of two is read: the plain one, then the one less deep."""
        return self.path.endswith(".gz"), self.path.count("/"), self.path


def _files_in(root: Folder) -> list[_File]:
    found = []
    for path in [path for folder in root.every() for path in folder.others]:
        match = _NAME.match(path.rpartition("/")[2])
        if match is not None:
            before = re.sub("(?i)t10k", "test", match.group(1))
            split = split_of(before)
            words = [word for word in words_of(before) if split_of(word) is None]
            found.append(_File("-".join(words), split or "train", match.group(2).lower(), path))
    return found


def has_idx_files(root: Folder) -> bool:
    """Whether a tree holds a file named as MNIST's are."""
    return bool(_files_in(root))


def from_idx(tree: Tree, name: str, root: Folder) -> ArraySource:
    """A tree of IDX files: train, and val and test where they are there. Raises DataError."""
    where, files = tree.where(""), sorted(_files_in(root), key=lambda file: file.rank)
    every = files
    sets = {file.of_set for file in files}
    if len(sets) > 1:
        raise DataError(f"{where} has the files of several sets ({listed(sorted(sets))}): leave those of one there")
    files = _of_one_set(files, where)
    first = {(file.split, file.what): file.path for file in reversed(files)}
    unused = {ANOTHER: [file.path for file in every if file.path not in first.values()]}
    if ("test", "image") in first and ("test", "label") not in first:
        unused[NO_LABEL] = [first.pop(("test", "image"))]
    found = {
        split: _read_split(tree, split, first.get((split, "image")), first.get((split, "label")))
        for split in SPLITS
        if split == "train" or {(split, "image"), (split, "label")} & first.keys()
    }
    shapes = {images.shape[1:] for images, _ in found.values()}
    if len(shapes) > 1:
        raise DataError(f"{where}: images of the splits differ in size: {' and '.join(map(str, sorted(shapes)))}")
    classes = np.unique(np.concatenate([labels for _, labels in found.values()]))
    names = tuple(map(str, classes.tolist()))
    limit_classes(names, where)
    splits: dict[str | None, ArraySplit] = {
        (split if len(found) > 1 else None): ArraySplit(images[..., None], np.searchsorted(classes, labels))
        for split, (images, labels) in found.items()
    }
    hashes = {
        first[split, what]: sha256_of(array.data)
        for split, two in found.items()
        for what, array in zip(("image", "label"), two, strict=True)
    }
    rest = {file.path for file in every}
    unused[NO_PICTURE] = [path for folder in root.every() for path in folder.others if path not in rest]
    unused["pictures beside IDX files"] = list(root.pictures())
    left = {reason: tuple(paths) for reason, paths in unused.items() if paths}
    notes = [unused_note(reason, paths) for reason, paths in left.items()]
    if next(iter(sets)).startswith("emnist"):
        notes.append("EMNIST's files hold their pictures with rows and columns exchanged; they are read as they are")
    return ArraySource(name, tree.resolved(), splits, names, hashes, tuple(notes), left)


def _of_one_set(files: list[_File], where: str) -> list[_File]:
    """Images and labels lie in one folder: of several that each have both for train, none is taken for another. Those
    of one folder, and of folders of other splits; all of them where none has both. Raises DataError."""
    folders: dict[str, set[tuple[str, str]]] = {}
    for file in files:
        folders.setdefault(posixpath.dirname(file.path), set()).add((file.split, file.what))
    whole = [folder for folder, has in folders.items() if {("train", "image"), ("train", "label")} <= has]
    if len(whole) > 1:
        raise DataError(f"{where} has several sets of IDX files ({listed(sorted(whole))}): name the folder of one")
    if not whole:
        return files
    beside = {folder for folder in folders if split_of(posixpath.basename(folder)) is not None}
    return [file for file in files if posixpath.dirname(file.path) in {whole[0], *beside}]


def _read_split(tree: Tree, split: str, images_path: str | None, labels_path: str | None) -> tuple[Array, Array]:
    if images_path is None or labels_path is None:
        missing = f"{split}-{'images-idx3' if images_path is None else 'labels-idx1'}-ubyte"
        raise DataError(f"{tree.where('')} has no {missing} (plain or .gz)")
    images, labels = read_idx(tree, images_path, 3), read_idx(tree, labels_path, 1)
    if len(images) != len(labels):
        raise DataError(f"{tree.where(images_path)} has {len(images):,} images, its labels file {len(labels):,} labels")
    if images.size == 0:
        raise DataError(f"{tree.where(images_path)} is empty")
    return images, labels


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
