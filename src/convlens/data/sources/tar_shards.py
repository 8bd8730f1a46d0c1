"""Tar shards by WebDataset's convention: files that share a key are one sample, key.jpg its picture, and key.cls (a
class number or name) or key.json (an object with a label) say what it shows.

Owns what such an archive may be: nothing is unpacked, nothing in it leads elsewhere, and each picture is read where it
lies.
"""

import tarfile
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple
from unicodedata import normalize

from convlens.data.image.decode import MAX_FILE_BYTES, SUFFIXES
from convlens.data.sources.arrays import LABELS
from convlens.data.sources.base import ReadOptions, Row
from convlens.data.sources.layouts import NO_LABEL, NO_PICTURE
from convlens.data.sources.shards import Shards, ShardSource, source_of
from convlens.data.sources.tree import DiskTree, is_litter
from convlens.errors import DataError, ImageError, RecordError
from convlens.records import json_value
from convlens.text import listed, shown

SUFFIX = ".tar"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_BLOCK = 512  # of zeros: the end of an archive
_MOST_LABEL_BYTES = 1 << 20
_FIELDS = ("cls", *LABELS, "category")


class _Place(NamedTuple):
    """Where a picture lies in its shard, with its label and group."""

    name: str
    offset: int
    num_bytes: int
    label: str
    group: str | None


class _Places:
    """The places of a shard's pictures, some 30 bytes each besides their names. They are found in order, from the one
    that was found before on."""

    def __init__(self, places: Sequence[_Place]) -> None:
        self._texts = list(dict.fromkeys(text for place in places for text in (place.label, place.group)))
        numbers = {text: number for number, text in enumerate(self._texts)}
        names = [place.name.encode("utf-8", "surrogateescape") for place in places]
        self._names, self._ends = b"".join(names), array("Q", accumulate(map(len, names)))
        self._offsets, self._sizes = array("Q", (p.offset for p in places)), array("Q", (p.num_bytes for p in places))
        self._labels = array("L", (numbers[place.label] for place in places))
        self._groups = array("L", (numbers[place.group] for place in places))
        self._next = 0

    def __len__(self) -> int:
        return len(self._ends)

    def _name(self, number: int) -> bytes:
        return self._names[self._ends[number - 1] if number else 0 : self._ends[number]]

    def __iter__(self) -> Iterator[_Place]:
        for number in range(len(self)):
            name = self._name(number).decode("utf-8", "surrogateescape")
            label, group = self._texts[self._labels[number]], self._texts[self._groups[number]]
            assert label is not None, "every sample has one"
            yield _Place(name, self._offsets[number], self._sizes[number], label, group)

    def find(self, name: str) -> tuple[int, int]:
        """Where a picture begins, and how many bytes it has."""
        wanted = name.encode("utf-8", "surrogateescape")
        around = chain(range(self._next, len(self)), range(self._next))
        number = next(number for number in around if self._name(number) == wanted)
        self._next = number + 1
        return self._offsets[number], self._sizes[number]


class TarShards(Shards):
    """The samples of some tar files."""

    kind = "tar shards (WebDataset)"

    def __init__(self, disk: DiskTree, shards: Sequence[str], location: str, read: ReadOptions) -> None:
        super().__init__(disk, shards, location, (read.label_column, read.group))
        self.unused: dict[str, list[str]] = defaultdict(list)
        self._places = {shard: _Places(self._listed(shard, read)) for shard in self.shards}
        self._last = self.shards[0]

    def rows(self) -> Iterator[Row]:
        for shard in self.shards:
            split = self.splits[shard]
            for place in self._places[shard]:
                yield Row(f"{shard}/{place.name}", place.label, split, place.group)

    def read(self, path: str) -> bytes:
        shard = self._last  # pictures are read in order, by several threads
        if not path.startswith(f"{shard}/"):
            shard = self._last = next(one for one in self.shards if path.startswith(f"{one}/"))
        offset, num_bytes = self._places[shard].find(path[len(shard) + 1 :])
        if num_bytes > MAX_FILE_BYTES:
            raise ImageError(f"{num_bytes:,} bytes is more than the limit of {MAX_FILE_BYTES:,}")
        try:
            with self.disk.open(shard) as file:
                file.seek(offset)
                found = file.read(num_bytes)
        except OSError as error:
            raise ImageError(f"cannot be read from the tar file: {error.strerror or error}") from error
        if len(found) < num_bytes:
            raise ImageError("the tar file ends before it does")
        return found

    def _listed(self, shard: str, read: ReadOptions) -> list[_Place]:
        """The samples of a shard, in its order."""
        where = self.where_in(shard)
        samples: dict[str, dict[str, tuple[str, int, int]]] = {}
        try:
            with self.disk.open(shard) as file, tarfile.TarFile(fileobj=file) as archive:
                for member in archive:
                    if member.isdir() or is_litter(PurePosixPath(member.name).name):
                        continue
                    key, kind = _key_of(member, where)
                    parts = samples.setdefault(key, {})
                    if kind in parts:
                        raise DataError(f"{where} has {shown(member.name)!r} twice: make it anew")
                    parts[kind] = member.name.removeprefix("./"), member.offset_data, member.size
                file.seek(archive.offset)
                if file.read(_BLOCK) != bytes(_BLOCK):
                    raise DataError(f"{where} ends too early: it has no end mark; make or fetch it anew")
                found = []
                for key, parts in samples.items():
                    if (place := self._sample(file, shard, key, parts, read)) is not None:
                        found.append(place)
                return found
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise DataError(f"{where} cannot be read as a tar file: {shown(error)}") from error
        except OSError as error:
            raise DataError(f"{where} cannot be read: {error.strerror or error}") from error

    def _sample(
        self, file: BinaryIO, shard: str, key: str, parts: dict[str, tuple[str, int, int]], read: ReadOptions
    ) -> _Place | None:
        """A key's picture with its label; None where it lacks one of them, which is noted."""
        where = self.where_in(shard)
        pictures = [kind for kind in parts if f".{kind.rpartition('.')[2]}" in SUFFIXES]
        if len(pictures) > 1:
            raise DataError(f"{where} has several pictures of one key: {listed([parts[kind][0] for kind in pictures])}")
        about = "cls" if "cls" in parts and read.label_column is None else "json" if "json" in parts else None
        if not pictures or about is None:
            reason = NO_PICTURE if not pictures else NO_LABEL
            self.unused[reason].append(f"{shard}/{next(iter(parts.values()))[0]}")
            return None
        name, offset, num_bytes = parts[about]
        if num_bytes > _MOST_LABEL_BYTES:
            raise DataError(f"{where}: {shown(name)!r} is no label ({num_bytes:,} bytes)")
        file.seek(offset)
        content = file.read(num_bytes)
        label, group = _label_of(content, about, read, f"{where}, {shown(name)!r}")
        label = normalize("NFC", label)
        name, offset, num_bytes = parts[pictures[0]]
        return _Place(name, offset, num_bytes, label, group)


def from_tar(disk: DiskTree, shards: Sequence[str], name: str, location: str, read: ReadOptions) -> ShardSource:
    """The pictures of some tar shards in a folder. `label_column` and `group` name fields of key.json. Raises
    DataError."""
    if read.layout is not None or read.label is not None or read.path_column is not None:
        raise DataError("`layout`, `label` and `path_column` are for other data; tar shards have key.cls and key.json")
    tree = TarShards(disk, shards, location, read)
    return source_of(tree, name, (), {reason: tuple(paths) for reason, paths in tree.unused.items()})


def _key_of(member: tarfile.TarInfo, where: str) -> tuple[str, str]:
    """A member's key, up to the first dot of its name, and what follows, in lower case. Raises DataError for what is no
    file, or leads out of the archive."""
    parts = PurePosixPath(member.name).parts
    if member.islnk() or member.issym():
        link = f"{shown(member.name)!r} to {shown(member.linkname)!r}"
        raise DataError(f"{where} has a link ({link}), which is not followed")
    if not member.isfile():
        raise DataError(f"{where} has a member that is no file: {shown(member.name)!r}")
    if member.name.startswith("/") or ".." in parts or "\\" in member.name:
        raise DataError(f"{where} has a member whose name leads out of it: {shown(member.name)!r}")
    folder, _, name = member.name.rpartition("/")
    stem, _, kind = name.partition(".")
    return f"{folder}/{stem}", kind.lower()


def _label_of(content: bytes, about: str, read: ReadOptions, where: str) -> tuple[str, str | None]:
    """The label and the group. Raises DataError."""
    if about == "cls":
        try:
            text = content.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{where} is no text") from error
        if not text or "\n" in text:
            raise DataError(f"{where} is no class: one number or name")
        if read.group is not None:
            raise DataError(f"{where}: `group` names a field of key.json, and there is key.cls")
        return text, None
    try:
        value = json_value(content, where)
    except RecordError as error:
        raise DataError(str(error)) from error
    if not isinstance(value, dict):
        raise DataError(f"{where} is no object with a label")
    names = [read.label_column] if read.label_column else [name for name in _FIELDS if name in value]
    label = value.get(names[0]) if names else None
    if isinstance(label, bool | dict | list | float) or label in (None, ""):
        what = "no label" if label in (None, "") else f"the label {shown(label, 40)}, which is no number or text"
        raise DataError(f"{where} has {what}; its fields are {listed(value)}: say which with `label_column`")
    group = None if read.group is None else value.get(read.group)
    if read.group is not None and not isinstance(group, str | int):
        raise DataError(f"{where} has no field {shown(read.group)!r} with a group; it has {listed(value)}")
    return str(label), None if group is None else str(group)
