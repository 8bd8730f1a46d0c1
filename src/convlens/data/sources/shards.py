"""Pictures that lie in shards: files that hold thousands of them each, with their labels.

Owns what Parquet files and tar shards have in common: their names speak of splits, each picture is known by its shard
and its place in it, and the source has changed when a shard has. How one kind is read is `parquet.py`'s and
`tar_shards.py`'s business.
"""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from convlens.data.sources.base import FileSource, Row, clean_name, limit_classes
from convlens.data.sources.class_names import alike, in_order
from convlens.data.sources.layouts import unused_note
from convlens.data.sources.split_words import split_of
from convlens.data.sources.tree import DiskTree, Entry, Tree
from convlens.errors import DataError
from convlens.text import counted, listed


class Shards(Tree, ABC):
    """The pictures in some files of a folder, each a picture's path up to its last slash; `kind` is what they are
    called, `said` how they are read where a person said so."""

    kind: str

    def __init__(self, disk: DiskTree, shards: Sequence[str], location: str, said: Sequence[str | None] = ()) -> None:
        self.disk, self.shards, self.location, self.said = disk, tuple(sorted(shards)), location, tuple(said)
        self.splits = splits_of(self.shards, self.where(""))

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """Every picture with a label, shard by shard."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """A picture's bytes, in whichever thread. Raises ImageError."""

    def resolved(self, path: str = "") -> str:
        return self.disk.resolved(path)

    def listed(self, path: str) -> list[Entry]:
        return []  # what lies in shards is listed with its labels

    def open(self, path: str) -> BinaryIO:
        raise DataError(f"{self.where(path)} lies in a shard")

    def stat(self, path: str) -> tuple[int | None, tuple[int, ...]]:
        return self.disk.stat(path)  # of a shard

    def is_file(self, path: str) -> bool:
        return False

    def where_in(self, shard: str) -> str:
        """A shard as a message shows it."""
        return self.disk.where(shard)


@dataclass(frozen=True)
class ShardSource(FileSource):
    """Pictures in shards."""

    def _shards(self) -> Shards:
        assert isinstance(self.tree, Shards)
        return self.tree

    def typical_bytes(self) -> float:
        """The mean size of a picture."""
        sizes = (self._shards().stat(shard)[0] or 0 for shard in self._shards().shards)
        return sum(sizes) / max(1, self.num_samples)

    def identity(self) -> Iterator[str]:
        """What changes when the source does: each shard's name, size and time, and how they are read."""
        shards = self._shards()
        facts = [[shard, *shards.stat(shard)] for shard in shards.shards]
        yield json.dumps([self.location, list(self.class_names), list(shards.said), facts])


def splits_of(shards: Sequence[str], where: str) -> dict[str, str | None]:
    """The split that the name of each shard speaks of, or that of the folder it lies in. Raises DataError where some
    speak of one and others do not."""
    found = {}
    for shard in shards:
        folder, _, name = shard.rpartition("/")
        found[shard] = split_of(name) or split_of(folder.rpartition("/")[2])
    silent = [shard for shard, split in found.items() if split is None]
    if silent and len(silent) < len(shards):
        raise DataError(
            f"{where}: the name of {listed(silent, 3)} says no split (train, val, test), as those of others do: rename "
            "it, or name one file alone"
        )
    return found


def source_of(
    shards: Shards,
    name: str,
    known: Sequence[str] = (),
    unused: Mapping[str, tuple[str, ...]] | None = None,
    notes: Sequence[str] = (),
) -> ShardSource:
    """The source of some shards. `known` are the classes in the order that the data has them; others follow in order.
    Raises DataError where there is no picture with a label."""
    labels, counts, unused = Counter[str](), Counter[str | None](), dict(unused or {})
    for row in shards.rows():
        labels[row.label] += 1
        counts[row.split] += 1
    where = shards.where("")
    if not labels:
        why = f" ({unused_note(*next(iter(unused.items())))})" if unused else ""
        raise DataError(f"{where} has no picture with a label{why}")
    names = [name for name in known if name in labels]
    names += in_order(set(labels) - set(names))
    limit_classes(names, where)
    notes = (f"read as {shards.kind}: {counted(len(shards.shards), 'file')}", *notes, *alike(names))
    if missing := [name for name in known if name not in labels]:
        notes += (f"classes without a picture, which are left out: {listed(missing, 3)}",)
    return ShardSource(
        clean_name(name),
        shards.location,
        shards,
        shards.rows,
        dict(counts),
        tuple(names),
        (*notes, *(unused_note(reason, paths) for reason, paths in unused.items())),
        unused,
    )
