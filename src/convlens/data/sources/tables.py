"""Tables: a CSV that names image files with their labels, in any tree of names.

Owns reading the table and its checks. The files are found relative to the folder that the table lies in.
"""

import csv
import io
import os
import posixpath
import unicodedata
from collections import Counter

import numpy as np

from convlens.data.sources.base import FileSource, Row, need_classes
from convlens.data.sources.layouts import SPLIT_NAMES, group_of, same_classes
from convlens.data.sources.tree import Tree, suffix_of
from convlens.errors import DataError
from convlens.text import listed, shown

SUFFIXES = (".csv", ".tsv")


def table(tree: Tree, file: str, name: str, group: str | None, problems: list[str] | None = None) -> FileSource:
    """A table path,label[,split][,group]; paths are relative to its folder. Raises DataError, or for classes that are
    missing in a split adds a line to `problems`."""
    where = tree.where(file)
    lines, columns = _lines(tree, file, where)
    for needed in ("path", "label"):
        if needed not in columns:
            raise DataError(f"{where} has no column {needed!r}; its columns are {listed(columns)}")
    group_column = group if group in columns else "group" if "group" in columns and group is None else None
    rows: list[Row] = []
    first_seen: dict[str, int] = {}
    missing: list[str] = []
    for number, line in lines:
        path = line["path"].strip() and posixpath.normpath(line["path"].strip().replace(os.sep, "/"))
        label = unicodedata.normalize("NFC", line["label"].strip())
        if not path or not label:
            raise DataError(f"{where}, line {number}: path and label must not be empty")
        if path in first_seen:
            raise DataError(f"{where}, line {number}: {shown(path)} stands in line {first_seen[path]} already")
        first_seen[path] = number
        if not tree.is_file(path):
            missing.append(path)
        own = line[group_column].strip() or None if group_column else group_of(path, label, group) if group else None
        rows.append(Row(path, label, _split(line.get("split", ""), where, number), own))
    if missing:
        raise DataError(f"{where}: {len(missing):,} of {len(rows):,} files are missing: {listed(missing, 3)}")
    if not rows:
        raise DataError(f"{where} has no rows")
    counts = Counter(row.split for row in rows)
    if 0 < counts[None] < len(rows):
        raise DataError(f"{where}: {counts[None]:,} of {len(rows):,} rows have no split; give all or none")
    names = tuple(sorted({row.label for row in rows}))
    need_classes(np.ones(len(names), int), names, where)
    if not counts[None]:
        by_split = {str(split): {row.label for row in rows if row.split == split} for split in counts if split}
        if "train" not in by_split:
            raise DataError(f"{where}: no row has the split 'train'")
        same_classes(by_split, where, problems)
    return FileSource(name, tree.resolved(file), tree, lambda: iter(rows), +counts, names)


def _lines(tree: Tree, file: str, where: str) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """The rows with their line numbers, and the columns. Raises DataError."""
    try:
        with tree.open(file) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, delimiter="\t" if suffix_of(file) == ".tsv" else ",", strict=True)
            columns = [c.strip() for c in reader.fieldnames or []]
            if len(set(columns)) < len(columns):
                raise DataError(f"{where} has a column twice: {listed(columns)}")
            reader.fieldnames = columns
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(f"{where}, line {reader.line_num}: it has not {len(columns)} columns")
                rows.append((reader.line_num, row))
            return rows, columns
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{where} cannot be read as UTF-8 CSV: {shown(error)}") from error


def _split(text: str, where: str, number: int) -> str | None:
    text = text.strip().lower()
    if text and text not in SPLIT_NAMES:
        raise DataError(f"{where}, line {number}: unknown split {shown(text)!r}; there are {', '.join(SPLIT_NAMES)}")
    return SPLIT_NAMES[text] if text else None
