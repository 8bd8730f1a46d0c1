"""Tables: a CSV that names image files with their labels, in any tree of names.

Owns reading the table, finding which column is what (by its name, else by what it holds), and finding the files: by
path, by name, without a suffix, or under another folder."""

import csv
import io
import math
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from convlens.data.image.decode import SUFFIXES as PICTURES
from convlens.data.sources.base import FileSource, ReadOptions, Row, limit_classes
from convlens.data.sources.class_names import alike, in_order
from convlens.data.sources.layouts import NO_LABEL, group_of, other_files, same_classes, unused_note
from convlens.data.sources.listing import Folder, list_tree
from convlens.data.sources.split_words import split_of
from convlens.data.sources.tree import Tree, join, stem_of, suffix_of
from convlens.errors import DataError
from convlens.text import counted, listed, shown

SUFFIXES = (".csv", ".tsv")
NOT_NAMED = "not named in the table"
MAX_TABLE_BYTES = 1 << 30

# Names of columns as people write them, without marks and case; the first that is there counts.
_PATH = (
    "path filepath filepaths imagepath file filename filenames image images imagefile imageid imagename img imgpath "
)
_PATH += "imgid imgname id picture photo name uuid"
_LABEL = "label labels class classname category target breed species diagnosis y type classid labelid categoryid"
_SPLIT = "split subset set partition dataset phase usage fold"
_GROUP = "group"
_NOTHING = frozenset({"", "nan", "?", "n/a", "null", "<na>"})
_MOST_GONE = 0.05  # of a table's files may be missing: removed since, where more were never where it says
_MOST_FOLDERS = 1_000  # of a table's files, in which others are looked for
_ABSENT = "NA"  # as R writes it; `Na` may be a class


@dataclass
class Table:
    """A table as it lies in its file: columns, and rows with the number of the line that each ends in."""

    where: str
    columns: list[str]
    rows: list[tuple[int, list[str]]]
    notes: list[str] = field(default_factory=list)

    def column(self, name: str) -> list[str]:
        """The values of a column."""
        place = self.columns.index(name)
        return [row[place].strip() for _, row in self.rows]

    def named(self, names: str) -> list[str]:
        """The columns that are called one of these, in the order of `names`."""
        plain = {column: _plain(column) for column in self.columns}
        return [column for name in names.split() for column in self.columns if plain[column] == name]


def _plain(column: str) -> str:
    return "".join(c for c in column.lower() if c.isalnum())


def is_label_name(column: str) -> bool:
    """Whether a column is called as those of labels are."""
    return _plain(column) in _LABEL.split()


class NoLabelsError(DataError):
    """A table that says no labels of pictures; `names_files`: though it names them."""

    names_files = False


class UnclearLabelsError(NoLabelsError):
    """A table that names pictures, and does not say plainly which class each has."""

    names_files = True


def table(tree: Tree, file: str, name: str, read: ReadOptions, problems: list[str] | None = None) -> FileSource:
    """A table of paths and labels, perhaps of splits and groups. Raises DataError, or for classes that are missing in
    train adds a line to `problems`."""
    return table_source(tree, file, name, labelled(tree, file, read, Files(tree)), problems)


@dataclass(frozen=True)
class Labelled:
    """The rows of a table, or of several (`files`), and how they were read."""

    where: str
    files: tuple[str, ...]
    rows: list[Row]
    notes: list[str]


def labelled(tree: Tree, file: str, read: ReadOptions, files: "Files") -> Labelled:
    """What a table says of files. Raises DataError; NoLabelsError where it is no table of pictures and labels."""
    base = posixpath.dirname(file)
    find = files.of(base, _split_of_table(file))
    found, group = read_table(tree, file, find), read.group
    where = found.where
    path_column = _path_column(found, find, read.path_column, files.are_several)
    label_columns, labels = _labels(found, path_column, read.label_column, group)
    split_column = _split_column(found, [path_column, *label_columns])
    named = found.named(_GROUP) if group is None else [group] if group in found.columns else []
    group_column = named[0] if named else None
    rows: list[Row] = []
    every = set(labels)
    first_seen: dict[str, int] = {}
    gone, elsewhere = list[str](), list[str]()
    folders = {posixpath.dirname(said.replace("\\", "/")) for said in found.column(path_column)}
    splits = found.column(split_column) if split_column else None
    groups = found.column(group_column) if group_column else None
    for place, ((number, _), said, label) in enumerate(zip(found.rows, found.column(path_column), labels, strict=True)):
        label = unicodedata.normalize("NFC", label)
        if not said or label.lower() in _NOTHING or label == _ABSENT:
            raise DataError(f"{where}, line {number}: path and label must not be empty{f' ({label})' if label else ''}")
        if _are_several(label, every):
            raise DataError(
                f"{where}, line {number}: {shown(label)!r} are several labels; a picture has one class here"
            )
        path = find(said)
        if path is None:
            gone.append(said)
            path = posixpath.normpath(posixpath.join(base, said.replace("\\", "/")))
        elif not _agree(said, path, folders):
            elsewhere.append(said)
        if path in first_seen:
            raise UnclearLabelsError(f"{where}, line {number}: {shown(path)} stands in line {first_seen[path]} already")
        first_seen[path] = number
        own = groups[place] or None if groups else group_of(path, label, group) if group else None
        rows.append(Row(path, label, _split(splits[place], where, number) if splits else None, own))
    if elsewhere or len(gone) > _MOST_GONE * len(rows):  # fewer are quarantined, as others that cannot be read
        missing = [*gone, *elsewhere]
        raise DataError(
            f"{where}: {len(missing):,} of {len(found.rows):,} files are missing: {listed(missing, 3)}; "
            "paths count from the table's folder"
        )
    one_of = "one of " if len(label_columns) > 1 else ""
    said = f"read as path: {shown(path_column)}, label: {one_of}{', '.join(map(shown, label_columns[:3]))}"
    said += f", split: {shown(split_column)}" if split_column else ""
    said += f", group: {shown(group_column)}" if group_column else ""
    used = {path_column, *label_columns, split_column, group_column}
    spare = [c for c in found.columns if c not in used]
    said += f"; unused: {listed(spare, 4)}" if spare else ""
    plain = used <= {"path", "label", "split", "group", None}
    return Labelled(where, (file,), rows, [*found.notes, *([] if plain and not spare else [said])])


def _are_several(label: str, every: set[str]) -> bool:
    """Whether a label is a list of several: as Python or JSON write one, or parted by marks that no name has, or by
    such as names have where each part is a label itself."""
    if label[:1] + label[-1:] in ("[]", "{}", "()"):
        return True
    parts_of = {mark: [part.strip() for part in label.split(mark)] for mark in "|;, "}
    return any(
        len(parts) > 1 and all(parts) and (mark in "|;" or every.issuperset(parts)) for mark, parts in parts_of.items()
    )


def table_source(
    tree: Tree,
    file: str,
    name: str,
    found: Labelled,
    problems: list[str] | None,
    unused: "Files | None" = None,
) -> FileSource:
    """The source of a table's rows; `unused` are the files of its tree, of which those that no row names are told.
    Raises DataError as `table` does."""
    rows, where = found.rows, found.where
    if not rows:
        raise DataError(f"{where} has no rows")
    counts = Counter(row.split for row in rows)
    if 0 < counts[None] < len(rows):
        raise DataError(f"{where}: {counts[None]:,} of {len(rows):,} rows have no split; give all or none")
    names = in_order(row.label for row in rows)
    limit_classes(names, where)
    notes = [*found.notes, *alike(names)]
    if counts[None] and (by_folder := [split_of(posixpath.dirname(row.name)) for row in rows]):
        if None not in by_folder and {"train"} < {*by_folder}:
            rows = [row._replace(split=split) for row, split in zip(rows, by_folder, strict=True)]
            counts = Counter(by_folder)
            notes.append("split: read off the folders that the files lie in")
        elif len({*by_folder} - {None}) > 1 and "train" in by_folder:
            raise DataError(
                f"{where}: some of its files lie in folders of splits, others do not; give the table a column `split`"
            )
    if not counts[None]:
        by_split = {str(split): {row.label for row in rows if row.split == split} for split in counts if split}
        if "train" not in by_split:
            raise DataError(
                f"{where}: no row has the split 'train'; to measure a model on these, leave the column of splits away"
            )
        notes += same_classes(by_split, where, problems)
    # Of files below the table's folder `unused` tells.
    notes += _beside(tree, [row.name for row in rows if unused is None or row.name.startswith(("../", "/"))])
    left = {} if unused is None else _unused(unused, found)
    notes += [unused_note(reason, paths) for reason, paths in left.items()]
    return FileSource(name, tree.resolved(file), tree, lambda: iter(rows), +counts, names, tuple(notes), left)


def _beside(tree: Tree, names: Sequence[str]) -> list[str]:
    """A note on pictures that lie beside those of a table and that it does not name: left out when it was made, or
    forgotten."""
    named, folders = set(names), {posixpath.dirname(name) for name in names}
    if len(folders) > _MOST_FOLDERS:
        return []
    other: list[str] = []
    for folder in sorted(folders):
        with suppress(DataError):  # a folder that is gone: its files are told of as missing
            there = (join(folder, entry) for entry in tree.files(folder))
            other += [path for path in there if path not in named and suffix_of(path) in PICTURES]
    if not other:
        return []
    return [f"{counted(len(other), 'picture')} beside those of the table, which does not name them: {listed(other, 4)}"]


# ---------------------------------------------------------------- the tables of a folder


def folder_tables(
    tree: Tree, folders: Sequence[str], read: ReadOptions, files: "Files"
) -> tuple[list[tuple[str, Labelled]], dict[str, NoLabelsError]]:
    """The tables in folders that label pictures, by path, and why the others do not. Raises DataError where one labels
    pictures, but not as it must."""
    found: list[tuple[str, Labelled]] = []
    others: dict[str, NoLabelsError] = {}
    for path in [join(folder, entry) for folder in folders for entry in tree.files(folder)]:
        if suffix_of(path) not in SUFFIXES:
            continue
        if "submission" in path.lower():
            others[path] = NoLabelsError(f"{tree.where(path)} is the sample of a submission")
            continue
        try:
            found.append((path, labelled(tree, path, read, files)))
        except NoLabelsError as error:
            others[path] = error
    splits = [_split_of_table(path) for path, _ in found]
    if None in splits and "train" in splits and len({*splits}) > 2:
        # Beside those of splits, one of something else: of icons, of the whole set.
        for path, _ in [one for one, split in zip(found, splits, strict=True) if split is None]:
            others[path] = NoLabelsError(f"{tree.where(path)} lies beside the tables of splits, and is none")
        found = [one for one, split in zip(found, splits, strict=True) if split is not None]
    return found, others


def _split_of_table(path: str) -> str | None:
    return split_of(posixpath.splitext(posixpath.basename(path))[0]) or split_of(posixpath.dirname(path))


def joined(tree: Tree, found: Sequence[tuple[str, Labelled]]) -> Labelled:
    """One table of several, each for the split that its name has a word of. Raises DataError where they are none
    such."""
    if len(found) == 1:
        return found[0][1]
    names = [file for file, _ in found]
    splits = [_split_of_table(name) for name in names]
    where = tree.where(posixpath.dirname(found[0][0]))
    if None in splits or len(set(splits)) < len(splits) or "train" not in splits:
        raise DataError(f"{where} has several tables of pictures ({listed(names)}): name the one that is meant")
    rows = [row._replace(split=split) for (_, one), split in zip(found, splits, strict=True) for row in one.rows]
    twice = [path for path, times in Counter(row.name for row in rows).items() if times > 1]
    if twice:
        raise DataError(f"{where}: {listed(twice, 3)} stands in two of the tables {listed(names)}")
    said = ", ".join(f"{split}: {shown(name)}" for name, split in zip(names, splits, strict=True))
    return Labelled(
        where, tuple(file for file, _ in found), rows, [f"a table for each split ({said})", *found[0][1].notes]
    )


# ---------------------------------------------------------------- reading


def read_table(tree: Tree, file: str, find: Callable[[str], str | None] = lambda said: None) -> Table:
    """A table: its delimiter, encoding and header are found. Raises DataError."""
    where = tree.where(file)
    try:
        with tree.open(file) as binary:
            data = binary.read(MAX_TABLE_BYTES + 1)
    except OSError as error:
        raise DataError(f"{where} cannot be read: {shown(error)}") from error
    if len(data) > MAX_TABLE_BYTES:
        raise DataError(f"{where} has more than {MAX_TABLE_BYTES:,} bytes")
    text, notes = _text(data, where)
    said = re.match(r"(?i)sep=(.)\r?\n", text)  # as Excel says it
    lines = _parsed(text, said.group(1) if said else _delimiter(text, file), where)[bool(said) :]
    if not lines:
        raise DataError(f"{where} has no rows")
    columns = [cell.strip() for cell in lines[0][1]]
    if any(suffix_of(cell) in PICTURES or find(cell) for cell in columns if cell):
        columns = [f"column {k + 1}" for k in range(len(columns))]
        notes.append("the table has no header: its first line names a file already")
    else:
        del lines[0]
    if len(set(columns)) < len(columns):
        raise DataError(f"{where} has a column twice: {listed(columns, 12)}")
    for number, line in lines:
        if len(line) != len(columns):
            raise DataError(
                f"{where}, line {number}: it has {len(line)} columns, not {len(columns)} ({listed(columns, 12)})"
            )
    return Table(where, columns, lines, notes)


def _text(data: bytes, where: str) -> tuple[str, list[str]]:
    """A table's text: UTF-8 or UTF-16, with a byte-order mark or without, else Windows' cp1252. Raises DataError."""
    wide = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}.get(data[:2])
    if wide is None and len(data) > 1 and 0 in data[:2]:
        wide = "utf-16-be" if data[0] == 0 else "utf-16-le"
    for encoding in (wide,) if wide else ("utf-8-sig", "cp1252"):
        try:
            text = data.decode(encoding)
        except UnicodeError:
            continue
        if "\0" in text:
            break
        return text, ["the table is read as Windows text (cp1252): it is no UTF-8"] if encoding == "cp1252" else []
    raise DataError(f"{where} cannot be read as text: it is neither UTF-8, UTF-16 nor cp1252")


def _delimiter(text: str, file: str) -> str:
    """The one that parts the first lines into as many cells each, two or more; a comma where none does."""
    first = [line for line in text[:100_000].splitlines()[:50] if line.strip()]
    for delimiter in "\t,;|" if suffix_of(file) == ".tsv" else ",;\t|":
        try:
            sizes = {len(row) for row in csv.reader(first, delimiter=delimiter)}
        except csv.Error:
            continue
        if len(sizes) == 1 and sizes != {1}:
            return delimiter
    return "\t" if suffix_of(file) == ".tsv" else ","


def _parsed(text: str, delimiter: str, where: str) -> list[tuple[int, list[str]]]:
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        return [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise DataError(f"{where} cannot be read as CSV: {shown(error)}") from error


# ---------------------------------------------------------------- which column is what


class Files:
    """The files of a tree, found by what a table says of them."""

    def __init__(self, tree: Tree, root: Folder | None = None) -> None:
        self.tree, self._root = tree, root

    @cached_property
    def root(self) -> Folder:
        """All that lies in the tree; listed only where a path does not lead to its file."""
        return list_tree(self.tree) if self._root is None else self._root

    @cached_property
    def _by_end(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for path in self.root.pictures():
            name = posixpath.basename(path)
            found[name].append(path)
            stem = stem_of(name)
            if stem != name:
                found[stem].append(path)
        return found

    @cached_property
    def _by_folded_end(self) -> dict[str, list[str]]:
        """The same without case: tables made on Windows name files as they like."""
        found: dict[str, list[str]] = defaultdict(list)
        for end, paths in self._by_end.items():
            found[end.casefold()] += paths
        return found

    def _named(self, path: str) -> list[str]:
        end = posixpath.basename(path)
        return self._by_end.get(end) or self._by_folded_end.get(end.casefold(), [])

    def are_several(self, said: str) -> bool:
        """Whether several files are called as a table says, so that it is not clear which is meant."""
        return len(self._named(said.strip().replace("\\", "/"))) > 1

    def of(self, base: str, split: str | None) -> Callable[[str], str | None]:
        """How a table that lies in the folder `base`, and is one of a split by its name, finds its files."""
        return lambda said: self.find(said, base, split)

    def find(self, said: str, base: str = "", split: str | None = None) -> str | None:
        """The file that is meant: the path itself, from the folder `base` or from the root on, or the one file that
        ends as it says, its suffix left out or not, unless it lies in another split's folder."""
        path = posixpath.normpath(said.strip().replace("\\", "/")) if said.strip() else ""
        if not path or path == ".":
            return None
        for whole in dict.fromkeys((posixpath.normpath(posixpath.join(base, path)), path)):
            if self.tree.is_file(whole):
                return whole
        split = split_of(posixpath.dirname(path)) or split
        found = [one for one in self._named(path) if _fits(one, base, split)]
        if len(found) > 1:  # the folders above tell them apart
            parts = path.split("/")
            for start in range(len(parts) - 1):
                end = "/" + "/".join(parts[start:])
                fitting = [
                    one for one in found if f"/{one}".endswith(end) or f"/{posixpath.splitext(one)[0]}".endswith(end)
                ]
                if fitting:
                    found = fitting
                    break
        return found[0] if len(found) == 1 else None


def _fits(path: str, base: str, split: str | None) -> bool:
    """Whether a file may be meant by a table: it lies in the table's folder, or in no folder of another split."""
    if base and path.startswith(f"{base}/"):
        return True
    own = split_of(posixpath.dirname(path))
    return split is None or own is None or own == split


def _agree(said: str, path: str, folders: set[str]) -> bool:
    """Whether a file that was found elsewhere may be meant: where rows name several folders, their own ones must
    agree."""
    folder = posixpath.dirname(said.replace("\\", "/"))
    if len(folders) < 2 or not folder:
        return True
    shared = posixpath.commonpath([f"/{one.lstrip('/')}" for one in folders])
    own = posixpath.relpath(f"/{folder.lstrip('/')}", shared)
    return own == "." or f"/{posixpath.dirname(path)}".endswith(f"/{own}")


_SAMPLED = 50


def _sample(values: list[str]) -> list[str]:
    return values[:: max(1, len(values) // _SAMPLED)]


def _path_column(
    found: Table, find: Callable[[str], str | None], asked: str | None, are_several: Callable[[str], bool]
) -> str:
    """The column that names files: one of whole names before one whose values lack a suffix, which may be mere numbers.
    Raises DataError, NoLabelsError."""
    if not found.rows:
        raise DataError(f"{found.where} has no rows")
    if asked is not None:
        if asked not in found.columns:
            raise DataError(
                f"{found.where} has no column {shown(asked)!r}; its columns are {listed(found.columns, 12)}"
            )
        return asked
    named = found.named(_PATH)
    samples = {column: _sample(found.column(column)) for column in found.columns}
    meant = {column: [find(value) for value in values] for column, values in samples.items()}

    def whole(column: str) -> int:
        """How many files are named with their suffix."""
        pairs = zip(samples[column], meant[column], strict=True)
        return sum(path is not None and suffix_of(path) == suffix_of(said) for said, path in pairs)

    ranks = {
        column: (whole(column), len(paths) - paths.count(None))
        for column, paths in meant.items()
        if any(paths) and (column in named or whole(column) or not any(any(meant[one]) for one in named))
    }
    ordered = sorted(ranks, key=lambda column: named.index(column) if column in named else len(named))
    best = max(ordered, key=lambda column: ranks[column], default=None)
    if best is not None:
        rivals = [c for c in ordered if ranks[c] == ranks[best] and meant[c] != meant[best]]
        if rivals:
            raise UnclearLabelsError(
                f"{found.where}: the columns {listed([best, *rivals])} name different files: `path_column=NAME` says "
                "which is meant"
            )
        return best
    for column in named:
        twice = [said for said in samples[column] if are_several(said)]
        if twice:
            raise UnclearLabelsError(
                f"{found.where}: several folders hold a file {shown(twice[0])}, as column {shown(column)!r} has it: "
                "give the paths of the files"
            )
    what = f"none of the files in column {shown(named[0])!r} is there" if named else "no column names files"
    raise NoLabelsError(
        f"{found.where}: {what} (its columns are {listed(found.columns, 12)}); `path_column=NAME` says which it "
        "is, and paths count from the table's folder"
    )


def _labels(found: Table, path_column: str, asked: str | None, group: str | None) -> tuple[list[str], list[str]]:
    """The column of labels (several where each stands for a class), and the label of each row. Raises DataError,
    NoLabelsError."""
    if asked is not None:
        if asked not in found.columns:
            raise DataError(
                f"{found.where} has no column {shown(asked)!r}; its columns are {listed(found.columns, 12)}"
            )
        return [asked], found.column(asked)
    named = [column for column in found.named(_LABEL) if column != path_column and not _is_measure(found, column)]
    if named:
        values = found.column(named[0])
        for other in named[1:]:
            pairs = set(zip(values, found.column(other), strict=True))
            if len(pairs) > min(len(set(values)), len({one for _, one in pairs})):  # not the same by other names
                raise UnclearLabelsError(
                    f"{found.where} has several columns of labels ({listed(named)}): `label_column=NAME` says which "
                    "is meant"
                )
        best = min(named, key=lambda c: (all(_is_number(v) for v in found.column(c)), named.index(c)))
        return [best], found.column(best)
    rest = [c for c in found.columns if c not in (path_column, group) and c not in found.named(f"{_SPLIT} {_GROUP}")]
    hot = _one_hot(found, rest)
    if hot is not None:
        return hot
    few = [column for column in rest if _is_label_like(found.column(column))]
    if len(few) == 1:
        return few, found.column(few[0])
    what = f"several columns could be the label ({listed(few)})" if few else "no column says a label"
    raise (UnclearLabelsError if few else NoLabelsError)(
        f"{found.where}: {what}; its columns are {listed(found.columns, 12)}, and `label_column=NAME` says which it is"
    )


def _is_measure(found: Table, column: str) -> bool:
    """Whether a column of a label's name holds measurements: fractions, or the y of a point."""
    values = found.column(column)
    is_point = column.lower() == "y" and any(other.lower() == "x" for other in found.columns)
    return is_point or any(_is_number(value) and not float(value).is_integer() for value in values)


def _is_number(text: str) -> bool:
    """Whether a text is a number; `nan` is none."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_label_like(values: list[str]) -> bool:
    """Few values, each several times, and no measurements."""
    times = Counter(values)
    if any("." in value and _is_number(value) for value in times):
        return False
    return 2 <= len(times) <= len(values) / 2 and "" not in times


def _one_hot(found: Table, columns: list[str]) -> tuple[list[str], list[str]] | None:
    """The class of each row where every column stands for one: 1 in its own, 0 in the others. Raises DataError where a
    row has several."""
    hot = [c for c in columns if {_as_bit(value) for value in found.column(c)} <= {0, 1}]
    if len(hot) < 2:
        return None
    values = np.array([[_as_bit(v) for v in found.column(c)] for c in hot]).T
    several = np.flatnonzero(values.sum(axis=1) != 1)
    if len(several):
        # One of them may say something else than a class.
        without = [k for k in range(len(hot)) if len(hot) > 2 and (np.delete(values, k, axis=1).sum(axis=1) == 1).all()]
        if len(without) == 1:
            hot, values = [c for k, c in enumerate(hot) if k != without[0]], np.delete(values, without[0], axis=1)
        elif len(hot) < len(columns):
            return None  # columns of yes and no that are no classes
        else:
            number = found.rows[int(several[0])][0]
            raise UnclearLabelsError(
                f"{found.where}, line {number}: {int(values[several[0]].sum())} of the columns {listed(hot, 4)} are 1; "
                "a picture has one class here"
            )
    return hot, [hot[k] for k in values.argmax(axis=1)]


def _as_bit(text: str) -> int:
    return {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}.get(text.strip().lower(), 2)


def _split_column(found: Table, taken: list[str]) -> str | None:
    """The column of splits, if its values are splits. Raises DataError where one that is called `split` holds
    others."""
    for column in found.named(_SPLIT):
        values = Counter(found.column(column)) if column not in taken else Counter[str]()
        if values and all(not value or split_of(value) is not None for value in values):
            return column
        if column.lower() == "split" and column not in taken:
            return column  # the line that is wrong is named
    return None


def _split(text: str, where: str, number: int) -> str | None:
    if text and split_of(text) is None:
        raise DataError(f"{where}, line {number}: unknown split {shown(text)!r}; there are train, val and test")
    return split_of(text) if text else None


def _unused(files: Files, found: Labelled) -> dict[str, tuple[str, ...]]:
    """The files of a tree that no table names, by reason."""
    used = {row.name for row in found.rows}
    rest = [path for path in files.root.pictures() if path not in used]
    unlabelled = tuple(path for path in rest if split_of(posixpath.dirname(path)) == "test")
    unused = {NO_LABEL: unlabelled, NOT_NAMED: tuple(set(rest) - set(unlabelled))}
    unused |= {
        reason: tuple(path for path in paths if path not in found.files)
        for reason, paths in other_files(files.root).items()
    }
    return {reason: paths for reason, paths in unused.items() if paths}
