"""Parquet files of pictures, as Hugging Face lays them out: a column of {bytes, path}, and one of class numbers.

Owns which columns are meant, and reading one picture without holding a file's: batches are decoded in order, and the
last few kept, for packing reads in order.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import normalize

from convlens.data.image.decode import MAX_FILE_BYTES
from convlens.data.sources.arrays import IMAGES, LABELS
from convlens.data.sources.base import ReadOptions, Row
from convlens.data.sources.layouts import NO_LABEL
from convlens.data.sources.shards import Shards, ShardSource, source_of
from convlens.data.sources.tree import DiskTree
from convlens.errors import DataError, ImageError, RecordError, UsageError
from convlens.records import json_value
from convlens.text import listed, shown

SUFFIX = ".parquet"
_BATCH, _KEPT = 1024, 4  # rows a batch, and batches that are kept
_MOST_OPEN = 3  # files at a time: pictures are read in order, by several threads
_MOST_LABELS = 65_536  # rows of labels at once


class Columns(NamedTuple):
    """Which columns of a file have the pictures, the labels and the groups, the names of the classes by number, and the
    types of the first two: all files must have the same."""

    image: str
    label: str
    group: str | None
    names: tuple[str, ...]
    types: tuple[str, ...]


class ParquetShards(Shards):
    """The rows of some Parquet files."""

    kind = "Parquet"

    def __init__(self, disk: DiskTree, shards: Sequence[str], location: str, read: ReadOptions) -> None:
        super().__init__(disk, shards, location, (read.path_column, read.label_column, read.group))
        self.unlabelled: list[str] = []
        found = {shard: self._columns(shard, read) for shard in self.shards}
        self.columns = found[self.shards[0]]
        for shard, columns in found.items():
            if columns != self.columns:
                raise DataError(
                    f"{self.where_in(shard)} has other columns than {self.where_in(self.shards[0])}: "
                    f"{_differing(columns, self.columns)}"
                )
        self._cursors = {shard: _Cursor(Path(self.disk.resolved(shard)), self.columns.image) for shard in self.shards}
        self._open: list[str] = []  # shards that a cursor holds open, the one used last behind
        self._lock = threading.Lock()

    def _columns(self, shard: str, read: ReadOptions) -> Columns:
        with _reading(self.where_in(shard)) as parquet:
            schema = parquet.ParquetFile(self.disk.resolved(shard)).schema_arrow
            features = _features(schema, self.where_in(shard))
            return _columns_of(schema, features, read, self.where_in(shard))

    def rows(self) -> Iterator[Row]:
        self.unlabelled = []
        label, group, names = self.columns.label, self.columns.group, self.columns.names
        wanted = [label] if group is None else [label, group]
        for shard in self.shards:
            split, number = self.splits[shard], 0
            with _reading(self.where_in(shard)) as parquet:
                file = parquet.ParquetFile(self.disk.resolved(shard))
                for batch in file.iter_batches(batch_size=_MOST_LABELS, columns=wanted):
                    groups = [None] * batch.num_rows if group is None else batch.column(group).to_pylist()
                    for value, of in zip(batch.column(label).to_pylist(), groups, strict=True):
                        text = _label_of(value, names, f"{self.where_in(shard)}, row {number:,}")
                        if text is None:
                            self.unlabelled.append(f"{shard}/{number}")
                        else:
                            yield Row(f"{shard}/{number}", text, split, None if of is None else str(of))
                        number += 1

    def read(self, path: str) -> bytes:
        shard, _, row = path.rpartition("/")
        with self._lock:
            if shard not in self._open:
                self._open.append(shard)
                if len(self._open) > _MOST_OPEN:
                    self._cursors[self._open.pop(0)].close()
        value = self._cursors[shard].at(int(row))
        if isinstance(value, dict):
            value = value.get("bytes")
            if value is None:
                raise ImageError("the row has no bytes of a picture (a path alone is not followed)")
        if not isinstance(value, bytes):
            raise ImageError("the row has no picture")
        if len(value) > MAX_FILE_BYTES:
            raise ImageError(f"{len(value):,} bytes is more than the limit of {MAX_FILE_BYTES:,}")
        return value


class _Cursor:
    """The values of one column, read in order; going back begins at the row group anew."""

    def __init__(self, path: Path, column: str) -> None:
        self.path, self.column = path, column
        self._lock = threading.Lock()
        self._file: Any = None
        self._starts: list[int] = []
        self._batches: Iterator[Any] = iter(())
        self._next = -1  # nothing is open
        self._kept: deque[tuple[int, Any]] = deque(maxlen=_KEPT)

    def at(self, row: int) -> Any:
        """The value of a row. Raises ImageError where the file cannot be read there."""
        try:
            with self._lock:
                return self._at(row)
        except (OSError, ValueError, MemoryError) as error:  # pyarrow's errors are these
            raise ImageError(f"cannot be read from the Parquet file: {shown(error)}") from error

    def close(self) -> None:
        """Hold nothing any more; the next value opens the file anew."""
        with self._lock:
            self._file, self._batches, self._next = None, iter(()), -1
            self._kept.clear()

    def _at(self, row: int) -> Any:
        for first, column in self._kept:
            if first <= row < first + len(column):
                return column[row - first].as_py()
        self._open()
        group = next(number for number in reversed(range(len(self._starts))) if self._starts[number] <= row)
        if row < self._next or self._starts[group] > self._next:
            groups = range(group, len(self._starts))
            self._batches = self._file.iter_batches(batch_size=_BATCH, row_groups=list(groups), columns=[self.column])
            self._next = self._starts[group]
            self._kept.clear()
        for batch in self._batches:
            first, self._next = self._next, self._next + batch.num_rows
            self._kept.append((first, batch.column(0)))
            if row < self._next:
                return batch.column(0)[row - first].as_py()
        raise ValueError(f"it has {self._next:,} rows")

    def _open(self) -> None:
        if self._file is None:
            import pyarrow.parquet

            self._file = pyarrow.parquet.ParquetFile(self.path, memory_map=False, pre_buffer=False)
            self._starts = [0]
            for number in range(self._file.num_row_groups):
                self._starts.append(self._starts[-1] + self._file.metadata.row_group(number).num_rows)
            self._starts.pop()


def from_parquet(disk: DiskTree, shards: Sequence[str], name: str, location: str, read: ReadOptions) -> ShardSource:
    """The pictures of some Parquet files in a folder. `path_column` names the column of pictures where several could be
    meant, `label_column` that of labels, `group` one of groups. Raises DataError, UsageError."""
    if read.layout is not None or read.label is not None:
        raise DataError("`layout` and `label` are for picture files; Parquet has columns (`label_column`)")
    tree = ParquetShards(disk, shards, location, read)
    list(tree.rows())  # which of them have no label
    unused = {NO_LABEL: tuple(tree.unlabelled)} if tree.unlabelled else {}
    columns = tree.columns
    notes = [f"pictures from column {shown(columns.image, 40)}, labels from {shown(columns.label, 40)}"]
    notes += [] if columns.group is None else [f"groups from {shown(columns.group, 40)}"]
    return source_of(tree, name, columns.names, unused, notes)


@contextmanager
def _reading(where: str) -> Iterator[Any]:
    """Within it, `pyarrow.parquet`, of which what it raises of a file is a DataError. Raises UsageError where it is
    missing."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError("Parquet is read by pyarrow: pip install 'convlens[parquet]'") from error
    try:
        yield pyarrow.parquet
    except (OSError, ValueError) as error:  # pyarrow's errors are these
        raise DataError(f"{where} cannot be read as Parquet: {shown(error)}") from error


def _features(schema: Any, where: str) -> dict[str, Any]:
    """What Hugging Face says of the columns; nothing where it does not."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    with suppress(RecordError, AttributeError, KeyError, TypeError):
        found = json_value(text, where)["info"]["features"]
        return {str(name): value for name, value in found.items() if isinstance(value, dict)}
    return {}


def _columns_of(schema: Any, features: dict[str, Any], read: ReadOptions, where: str) -> Columns:
    """The columns that are meant. Raises DataError."""
    names = list(schema.names)
    for option in ("path_column", "label_column", "group"):
        value = getattr(read, option)
        if value is not None and value not in names:
            raise DataError(f"{where} has no column {shown(value)!r} (`{option}`); it has {listed(names)}")
    image = read.path_column or _one(
        [n for n in names if features.get(n, {}).get("_type") == "Image"]
        or [n for n in names if _holds_bytes(schema.field(n).type)],
        IMAGES,
        "pictures ({bytes, path}, or bytes)",
        "path_column",
        where,
        names,
    )
    if not _holds_bytes(schema.field(image).type):
        raise DataError(f"{where}: column {shown(image)!r} holds {schema.field(image).type}, no pictures")
    classes = [n for n in names if features.get(n, {}).get("_type") == "ClassLabel"]
    likely = [n for n in names if n != image and n.lower() in (*LABELS, "fine_label")]
    label = read.label_column or _one(classes or likely, (), "labels", "label_column", where, names)
    kind = str(schema.field(label).type)
    if not kind.startswith(("int", "uint", "string", "large_string", "bool", "dictionary<values=string")):
        raise DataError(f"{where}: column {shown(label)!r} holds {shown(kind, 60)}; a label is a number or a text")
    known = features.get(label, {}).get("names")
    known = tuple(normalize("NFC", str(one)) for one in known) if isinstance(known, list) else ()
    return Columns(image, label, read.group, known, (str(schema.field(image).type), kind))


def _holds_bytes(kind: Any) -> bool:
    text = str(kind)
    return text in ("binary", "large_binary", "binary_view") or (text.startswith("struct<") and "bytes: " in text)


def _one(found: list[str], likely: Sequence[str], what: str, option: str, where: str, names: list[str]) -> str:
    """The one column that is meant. Raises DataError."""
    if len(found) > 1:
        found = [name for name in found if name.lower() in likely] or found
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(f"{where} has no column of {what}; its columns are {listed(names)}: say which with `{option}`")
    raise DataError(f"{where} has several columns of {what}: {listed(found)}; say which with `{option}`")


def _differing(one: Columns, other: Columns) -> str:
    names = [name for name in Columns._fields if getattr(one, name) != getattr(other, name)]
    both = ((name, shown(getattr(one, name), 80), shown(getattr(other, name), 80)) for name in names)
    return "; ".join(f"{name} {here}, there {there}" for name, here, there in both)


def _label_of(value: str | int | None, names: tuple[str, ...], where: str) -> str | None:
    """A label as text; None where there is none: null, empty, or the -1 of Hugging Face's hidden test labels."""
    if value is None or (names and value == -1):
        return None
    if not names or isinstance(value, str):
        return normalize("NFC", str(value)) or None
    if not 0 <= value < len(names):
        raise DataError(f"{where}: class number {value}, of {len(names):,} classes")
    return names[value]
