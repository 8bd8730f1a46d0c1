"""What a source is: samples in picture files, or arrays that come with their pixels.

Owns the two values that packing takes, and what is asked of every source. Knows no layout of files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlens.data.image.decode import Pixels
from convlens.errors import DataError
from convlens.text import listed, shown

SPLITS = ("train", "val", "test")
MAX_CLASSES = 65_535  # labels are kept as uint16
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class FileSample:
    """One picture file: where it lies, its path relative to the source's root (POSIX), label, split and group."""

    path: Path
    relative: str
    label: str
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class FileSource:
    """Picture files with labels. `notes` say what a person should know (a wrapper folder, files passed over)."""

    name: str
    location: str
    samples: tuple[FileSample, ...]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def has_splits(self) -> bool:
        """Whether the source says itself which samples are test."""
        return any(sample.split == "test" for sample in self.samples)

    @property
    def num_samples(self) -> int:
        """Samples listed."""
        return len(self.samples)

    def identity(self) -> list[Any]:
        """What changes when the source does: each file's name, size and time, and what is said of it."""
        rows = []
        for s in self.samples:
            try:
                status = s.path.stat()
                rows.append([s.relative, status.st_size, status.st_mtime_ns, s.label, s.split, s.group])
            except (OSError, ValueError):
                rows.append([s.relative, None, None, s.label, s.split, s.group])
        return [self.location, list(self.class_names), rows]


@dataclass(frozen=True)
class ArraySplit:
    """uint8 images (N, H, W, C) and their class numbers (N,)."""

    images_NHWC: Pixels
    labels_N: NDArray[np.int64]


@dataclass(frozen=True)
class ArraySource:
    """Pictures that come as arrays; `splits` may be train, val and test, or `None` for those without a split."""

    name: str
    location: str
    splits: dict[str | None, ArraySplit]
    class_names: tuple[str, ...]
    hashes: dict[str, str]  # what the arrays came from -> its SHA-256
    notes: tuple[str, ...] = ()

    @property
    def has_splits(self) -> bool:
        """Whether the source says itself which samples are test."""
        return "test" in self.splits

    @property
    def num_samples(self) -> int:
        """Samples in all splits."""
        return sum(len(split.labels_N) for split in self.splits.values())

    def identity(self) -> list[Any]:
        """What changes when the source does."""
        return [self.name, list(self.class_names), self.hashes]


Source = FileSource | ArraySource


def name_of(path: Path) -> str:
    """A short name for a source."""
    return clean_name(path.resolve().stem if path.is_file() else path.resolve().name)


def clean_name(name: str) -> str:
    """`name` as part of a file name: letters, digits, dots, dashes, at most 60."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:60].strip("-.") or "data"


def need_classes(counts: NDArray[np.integer], names: Sequence[str], where: str) -> None:
    """Raises DataError unless there are two classes or more, each with images."""
    if len(names) > MAX_CLASSES:
        raise DataError(f"{where} has {len(names):,} classes; {MAX_CLASSES:,} is the limit")
    if len(names) < 2:
        raise DataError(f"{where} has one class only ({shown(names[0])!r}): a classifier needs at least two")
    empty = [name for name, count in zip(names, counts, strict=True) if count == 0]
    if empty:
        raise DataError(f"{where} has no images of class {listed(empty)}")
