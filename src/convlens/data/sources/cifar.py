"""CIFAR's binary archives: records of one or two label bytes and 3,072 of a picture, red, green and blue one after the
other (cs.toronto.edu/~kriz/cifar.html).

Owns the format and its checks. The pickled archives are not read.
"""

import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convlens.data.image.decode import Pixels
from convlens.data.sources.base import ArraySource, ArraySplit
from convlens.errors import DataError
from convlens.files import sha256_of_file
from convlens.text import shown

_SIDE = 32
_MOST_BYTES = 1 << 30


def from_cifar(path: Path, name: str, names_file: str, num_label_bytes: int) -> ArraySource:
    """The pictures of a `.tar.gz`, train and test; the last of the label bytes is the class, named by its line in
    `names_file`. Raises DataError."""
    where = shown(path, 200)
    found: dict[str, list[bytes]] = {"train": [], "test": []}
    names: tuple[str, ...] = ()
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in sorted(archive, key=lambda member: member.name):
                base = member.name.rpartition("/")[2]
                if not member.isfile() or member.size > _MOST_BYTES:
                    continue
                file = archive.extractfile(member)
                content = b"" if file is None else file.read()
                if base == names_file:
                    names = tuple(line.strip() for line in content.decode().splitlines() if line.strip())
                elif base.endswith(".bin"):
                    found["test" if base.startswith("test") else "train"].append(content)
    except (tarfile.TarError, EOFError, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{where} cannot be read as {name}'s archive: {shown(error, 120)}") from error
    missing = [what for what, one in (("classes", names), *found.items()) if not one]
    if missing:
        raise DataError(f"{where} is not {name}'s binary archive: it has no {missing[0]}")
    splits: dict[str | None, ArraySplit] = {
        split: ArraySplit(*_records(b"".join(parts), num_label_bytes, len(names), where))
        for split, parts in found.items()
    }
    return ArraySource(name, name, splits, names, {path.name: sha256_of_file(path)})


def _records(content: bytes, num_label_bytes: int, num_classes: int, where: str) -> tuple[Pixels, NDArray[np.int64]]:
    """uint8 images (N, 32, 32, 3) and class numbers (N,)."""
    length = num_label_bytes + 3 * _SIDE**2
    if len(content) % length:
        raise DataError(f"{where} is damaged: {len(content):,} bytes are no whole number of records of {length:,}")
    records = np.frombuffer(content, np.uint8).reshape(-1, length)
    labels_N = records[:, num_label_bytes - 1].astype(np.int64)
    if labels_N.max(initial=0) >= num_classes:
        raise DataError(f"{where} is damaged: class number {labels_N.max()}, of {num_classes} classes")
    images_NCHW = records[:, num_label_bytes:].reshape(-1, 3, _SIDE, _SIDE)
    return np.ascontiguousarray(images_NCHW.transpose(0, 2, 3, 1)), labels_N
