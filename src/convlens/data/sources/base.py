"""What a source is: labelled samples, iterated over, with what is known of all of them before any is read.

Owns the sample, and the two kinds of sources: files in a tree, and arrays that come with their pixels. Whoever packs,
surveys or checks asks a source and not what kind it is. Knows no layout of files.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from convlens.data.image.values import BYTES, Range
from convlens.data.sources.tree import Tree
from convlens.errors import DataError
from convlens.text import shown

SPLITS = ("train", "val", "test")
MAX_CLASSES = 65_535  # labels are kept as uint16


class Sample(NamedTuple):
    """One labelled image. `name` is a file's path relative to the source's root (POSIX), or an array's split/number;
    `read` gives the bytes of its file, or its values (H, W, C), and raises ImageError where it cannot."""

    name: str
    label: str
    split: str | None
    group: str | None
    read: Callable[[], bytes | NDArray[Any]]


class Row(NamedTuple):
    """What a layout says of one file: its name, which is its path in the tree, and its label, split and group."""

    name: str
    label: str
    split: str | None = None
    group: str | None = None


class ReadOptions(NamedTuple):
    """What a person says of how names are read; None: as found. `group` and `label` are expressions on paths (`group`
    also `parent`, or a column), `layout` what each level of folders stands for, the columns those of a table."""

    group: str | None = None
    layout: str | None = None
    label: str | None = None
    path_column: str | None = None
    label_column: str | None = None


@dataclass(frozen=True)
class FileSource:
    """Image files with labels, in a tree; `rows` lists them anew whenever it is called.

    `counts` has the samples of each split, None for those without one; `notes` say what a person should know (how the
    names were read, what is not used); `unused` has the files that are not read, by reason (a folder's path ends with a
    slash); `folder` is where the names lie on a disk, None where they lie in an archive.
    """

    name: str
    location: str
    tree: Tree
    rows: Callable[[], Iterator[Row]]
    counts: Mapping[str | None, int]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hint: str = ""  # why the tables beside it say nothing, where somebody wonders

    shape = None  # sizes differ, and stand in the files
    value_range = None  # so do values
    hashes = None
    lengths = None

    @property
    def folder(self) -> Path | None:
        """The folder that the names are relative to, if there is one."""
        return self.tree.folder

    @property
    def num_samples(self) -> int:
        """Samples listed."""
        return sum(self.counts.values())

    @property
    def has_splits(self) -> bool:
        """Whether the source says itself which samples are test."""
        return self.counts.get("test", 0) > 0

    def samples(self, *, step: int = 1, but: str = "") -> Iterator[Sample]:
        """Every sample, or each `step`-th, but those of a split, in a fixed order."""
        rows = islice((row for row in self.rows() if row.split != but), None, None, step)
        return (Sample(*row, partial(self.tree.read, row.name)) for row in rows)

    def every(self, step: int) -> Self:
        """Each `step`-th sample, the first among them."""
        counts: dict[str | None, int] = {}
        for row in islice(self.rows(), None, None, step):
            counts[row.split] = counts.get(row.split, 0) + 1
        return replace(self, rows=lambda: islice(self.rows(), None, None, step), counts=counts)

    def typical_bytes(self) -> float:
        """The median size of up to 33 files, evenly spread."""
        rows = islice(self.rows(), None, None, max(1, self.num_samples // 32))
        sizes = [size for row in rows if (size := self.tree.stat(row.name)[0]) is not None]
        return median(sizes) if sizes else 0

    def identity(self) -> Iterator[str]:
        """What changes when the source does, as pieces of JSON: each file's name, size and time, and what is said of
        it."""
        yield f"[{json.dumps(self.location)}, {json.dumps(list(self.class_names))}, ["
        for number, row in enumerate(self.rows()):
            line = [row.name, *self.tree.stat(row.name), row.label, row.split, row.group]
            yield (", " if number else "") + json.dumps(line)
        yield "]]"


# Values (N, H, W, C) in one array, or images that are handed out one by one: values (H, W, C), or the bytes of a file.
Images = NDArray[Any] | Sequence[Any]


@dataclass(frozen=True)
class ArraySplit:
    """Images, and their class numbers (N,)."""

    images_NHWC: Images
    labels_N: NDArray[np.int64]


@dataclass(frozen=True)
class ArraySource:
    """Images that come as arrays; `splits` may be train, val and test, or `None` for those without a split.

    `digests` has the SHA-256 of what the arrays came from, by name; `value_range` is what black and white are in them.
    """

    name: str
    location: str
    splits: Mapping[str | None, ArraySplit]
    class_names: tuple[str, ...]
    digests: Mapping[str, str]
    notes: tuple[str, ...] = ()
    unused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    value_range: Range | None = BYTES

    hint = ""
    folder = None
    tree = None

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(H, W, C) of all of them; None where images come one by one."""
        images = next(iter(self.splits.values())).images_NHWC
        if not isinstance(images, np.ndarray):
            return None
        height, width, channels = images.shape[1:]
        return height, width, min(channels, 3)

    @property
    def hashes(self) -> Mapping[str, str] | None:
        """The digests where they say all that is to be said: of images one by one, each has a line of its own."""
        return None if self.shape is None else self.digests

    @property
    def lengths(self) -> list[tuple[str, int]] | None:
        """How many samples each array has, in order: what their names number. None as for `hashes`."""
        if self.shape is None:
            return None
        return [(split or "all", len(part.labels_N)) for split, part in self.splits.items()]

    @property
    def counts(self) -> dict[str | None, int]:
        """Samples of each split, None for those without one."""
        return {split: len(part.labels_N) for split, part in self.splits.items()}

    @property
    def num_samples(self) -> int:
        """Samples in all splits."""
        return sum(self.counts.values())

    @property
    def has_splits(self) -> bool:
        """Whether the source says itself which samples are test."""
        return "test" in self.splits

    def samples(self, *, step: int = 1, but: str = "") -> Iterator[Sample]:
        """Every sample, or each `step`-th, but those of a split, in the order of the arrays."""
        begun = 0
        for split, part in self.splits.items():
            if split == but:
                continue
            numbers, begun = range(-begun % step, len(part.labels_N), step), begun + len(part.labels_N)
            names = map(f"{split or 'all'}/{{}}".format, numbers)
            labels = map(self.class_names.__getitem__, part.labels_N[numbers.start :: step].tolist())
            reads = map(partial, repeat(part.images_NHWC.__getitem__), numbers)
            yield from map(Sample, names, labels, repeat(split), repeat(None), reads)  # faster than a loop

    def every(self, step: int) -> Self:
        """Each `step`-th sample of each array."""
        parts = {s: ArraySplit(p.images_NHWC[::step], p.labels_N[::step]) for s, p in self.splits.items()}
        return replace(self, splits=parts)

    def typical_bytes(self) -> float:
        """Nothing has to be read."""
        return 0

    def identity(self) -> Iterator[str]:
        """What changes when the source does, as JSON."""
        yield json.dumps([self.name, list(self.class_names), dict(self.digests)])


Source = FileSource | ArraySource


def some(source: Source, most: int) -> Iterator[Sample]:
    """About `most` samples, evenly spread, none of them test unless all are."""
    num = source.num_samples - source.counts.get("test", 0)
    return source.samples(step=max(1, (num or source.num_samples) // most), but="test" if num else "")


def name_of(path: Path) -> str:
    """A short name for a source."""
    return clean_name(path.resolve().stem if path.is_file() else path.resolve().name)


def clean_name(name: str) -> str:
    """`name` as part of a file name: letters, digits, dots, dashes, at most 60."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:60].strip("-.") or "data"


def limit_classes(names: Sequence[str], where: str) -> None:
    """Raises DataError where there are more classes than labels can tell."""
    if len(names) > MAX_CLASSES:
        raise DataError(f"{where} has {len(names):,} classes; {MAX_CLASSES:,} is the limit")


def need_two_classes(source: Source) -> None:
    """Raises DataError unless there is something to tell apart. To measure a model on, one class is enough."""
    names = source.class_names
    if len(names) < 2:
        where = shown(source.location, 200)
        hint = f". {source.hint}" if source.hint else ""
        raise DataError(f"{where} has one class only ({shown(names[0])!r}): a classifier needs at least two{hint}")
