"""Sources in picture files: class folders and CSV tables, with or without splits and groups.

Owns walking folders, the layouts and their checks. Nothing is decoded here.
"""

from __future__ import annotations

import csv
import os
import posixpath
import re
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from convlens.data.image.decode import REFUSED_SUFFIXES, SUFFIXES
from convlens.data.sources.base import SPLIT_NAMES, FileSample, FileSource, name_of, need_classes
from convlens.errors import DataError
from convlens.text import listed, shown

_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_SPLIT_LIKE = frozenset({*SPLIT_NAMES, "training", "testing", "trainset", "testset"})


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere or to itself
        return False


class _Walk:
    """Lists the pictures under a folder, in order of their names; follows links, but no loop."""

    def __init__(self) -> None:
        self.passed_over: Counter[str] = Counter()

    def entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as found:
                return sorted((e for e in found if not _is_litter(e.name)), key=lambda e: e.name)
        except OSError as error:
            raise DataError(f"cannot read folder {shown(folder, 200)}: {error.strerror or error}") from error

    def subfolders(self, folder: Path) -> list[Path]:
        return [Path(e.path) for e in self.entries(folder) if _is_folder(e)]

    def pictures(self, folder: Path, above: tuple[tuple[int, int], ...] = ()) -> list[Path]:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            return []  # a link that leads back up
        found: list[Path] = []
        for entry in self.entries(folder):
            path = Path(entry.path)
            if _is_folder(entry):
                found += self.pictures(path, (*above, here))
            elif path.suffix.lower() in SUFFIXES or path.suffix.lower() in REFUSED_SUFFIXES:
                found.append(path)
            else:
                self.passed_over[path.suffix.lower() or "no suffix"] += 1
        return found

    def num_loose(self, folder: Path) -> int:
        return sum(Path(e.name).suffix.lower() in SUFFIXES for e in self.entries(folder) if not _is_folder(e))

    def notes(self) -> tuple[str, ...]:
        if not self.passed_over:
            return ()
        kinds = ", ".join(f"{n} {suffix}" for suffix, n in sorted(self.passed_over.items()))
        return (f"{sum(self.passed_over.values()):,} files are no pictures and were passed over ({kinds})",)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures under a folder, in order of their names, litter left aside. Raises DataError."""
    return [path for path in _Walk().pictures(folder) if path.suffix.lower() in SUFFIXES]


def hidden_pictures(root: Path) -> dict[str, int]:
    """The hidden folders under a folder that hold pictures, by path, with how many; none of them is read."""
    found: dict[str, int] = {}
    for folder, names, _ in os.walk(root):
        for name in [n for n in names if _is_litter(n)]:
            names.remove(name)
            inside = Path(folder, name)
            num = sum(Path(f).suffix.lower() in SUFFIXES for _, _, files in os.walk(inside) for f in files)
            if num:
                found[inside.relative_to(root).as_posix()] = num
    return found


def _say(problem: str, problems: list[str] | None) -> None:
    """Note a problem down where there is a list for it. Raises DataError where there is none."""
    if problems is None:
        raise DataError(problem)
    problems.append(problem)


def from_folders(root: Path, group: str | None, problems: list[str] | None = None) -> FileSource:
    """A folder of class folders, perhaps under train, val and test. Raises DataError, or for classes that are empty or
    missing in a split adds a line to `problems`."""
    walk, notes = _Walk(), []
    top = root
    folders = walk.subfolders(top)
    while len(folders) == 1 and not walk.num_loose(top) and walk.subfolders(folders[0]):
        top = folders[0]
        folders = walk.subfolders(top)
    if top != root:
        notes.append(f"class folders taken from {top.relative_to(root).as_posix()}/, the only folder there")
    if not folders:
        what = "its pictures lie side by side" if walk.num_loose(top) else "it holds no class folders"
        raise DataError(f"{shown(root, 200)}: {what}; put each picture into a folder named after its class")
    split_folders = [f for f in folders if f.name.lower() in SPLIT_NAMES]
    by_split = {SPLIT_NAMES[f.name.lower()]: f for f in split_folders}
    if len(by_split) < len(split_folders):
        raise DataError(
            f"{shown(top, 200)} has more than one folder for a split: {listed(f.name for f in split_folders)}"
        )
    samples: list[FileSample] = []
    if len(split_folders) < len(folders) and all(f.name.lower() in _SPLIT_LIKE for f in folders):
        raise DataError(
            f"{shown(top, 200)} has {listed(f.name for f in folders)}, which look like splits: call them train, "
            "val and test"
        )
    if split_folders and "train" not in by_split:
        raise DataError(
            f"{shown(top, 200)} has {listed(f.name for f in split_folders)} but no train folder; a class "
            "of such a name needs a .csv (path,label)"
        )
    if split_folders:
        others = [f.name for f in folders if f.name.lower() not in SPLIT_NAMES]
        if others:
            raise DataError(
                f"{shown(top, 200)} has split folders and others beside them: {listed(others)}; a class "
                "of a split's name needs a .csv (path,label)"
            )
        names_by_split: dict[str, set[str]] = {}
        for split, folder in by_split.items():
            found = _class_samples(walk, root, folder, split, problems)
            names_by_split[split] = {s.label for s in found}
            samples += found
        _same_classes(names_by_split, top, problems)
    else:
        samples = _class_samples(walk, root, top, None, problems)
    if num_loose := walk.num_loose(top) + sum(walk.num_loose(f) for f in split_folders):
        notes.append(f"{num_loose:,} pictures lie beside the class folders, in no class, and were passed over")
    names = tuple(sorted({s.label for s in samples}))
    if len(names) == 1:
        raise DataError(f"{shown(root, 200)} has one class only ({names[0]!r}): a classifier needs at least two")
    samples = [replace(s, group=_group_of(s, group)) for s in samples] if group else samples
    return FileSource(name_of(root), str(root.resolve()), tuple(samples), names, (*notes, *walk.notes()))


def _class_samples(
    walk: _Walk, root: Path, folder: Path, split: str | None, problems: list[str] | None
) -> list[FileSample]:
    samples = []
    folders = walk.subfolders(folder)
    if not folders:
        raise DataError(f"{shown(folder, 200)} holds no class folders")
    counts: Counter[str] = Counter()
    for class_folder in folders:
        label = unicodedata.normalize("NFC", class_folder.name)
        pictures = walk.pictures(class_folder)
        counts[label] += len(pictures)
        samples += [FileSample(p, p.relative_to(root).as_posix(), label, split) for p in pictures]
    empty = [label for label, count in counts.items() if count == 0]
    if not samples:
        raise DataError(f"{shown(folder, 200)} holds no pictures (those that are read: {' '.join(sorted(SUFFIXES))})")
    if empty:
        _say(f"{shown(folder, 200)}: no pictures in class folder {listed(empty)}; fill it or remove it", problems)
    return samples


def _same_classes(names_by_split: dict[str, set[str]], top: Path, problems: list[str] | None) -> None:
    train = names_by_split["train"]
    for split, names in names_by_split.items():
        if names != train:
            parts = [
                f"only in {s}: {listed(sorted(d))}" for s, d in (("train", train - names), (split, names - train)) if d
            ]
            _say(f"{shown(top, 200)}: the class folders of train and {split} differ ({'; '.join(parts)})", problems)


def _group_of(sample: FileSample, group: str) -> str:
    """The group that a path belongs to: its parent folder's name, or what the pattern catches."""
    if group == "parent":
        parent = sample.relative.rpartition("/")[0]
        if unicodedata.normalize("NFC", parent.rpartition("/")[2]) in ("", sample.label):
            raise DataError(
                f"--group parent: {shown(sample.relative, 200)} lies directly in its class folder; "
                "it needs a folder for each group between them"
            )
        # The same part photographed for two classes or splits is still one part.
        return parent.rpartition("/")[2]
    match = _pattern(group).search(sample.relative)
    if match is None or (match.re.groups and match.group(1) is None):
        raise DataError(f"--group {shown(group)!r} does not match {shown(sample.relative, 200)}")
    return match.group(1) if match.re.groups else match.group()


def _pattern(group: str) -> re.Pattern[str]:
    try:
        return re.compile(group)
    except re.error as error:
        raise DataError(f"--group {shown(group)!r} is no regular expression: {error}") from error


def from_csv(path: Path, group: str | None, problems: list[str] | None = None) -> FileSource:
    """A table path,label[,split][,group]; paths are relative to its folder. Raises DataError, or for classes that are
    missing in a split adds a line to `problems`."""
    where = shown(path, 200)
    rows, columns = _csv_rows(path, where)
    for needed in ("path", "label"):
        if needed not in columns:
            raise DataError(f"{where} has no column {needed!r}; its columns are {listed(columns)}")
    group_column = group if group in columns else "group" if "group" in columns and group is None else None
    samples: list[FileSample] = []
    first_seen: dict[str, int] = {}
    missing: list[str] = []
    for number, row in rows:
        relative = row["path"].strip() and posixpath.normpath(row["path"].strip().replace(os.sep, "/"))
        label = unicodedata.normalize("NFC", row["label"].strip())
        if not relative or not label:
            raise DataError(f"{where}, line {number}: path and label must not be empty")
        if relative in first_seen:
            raise DataError(f"{where}, line {number}: {shown(relative)} stands in line {first_seen[relative]} already")
        first_seen[relative] = number
        split = _csv_split(row.get("split", ""), where, number)
        file = path.parent / relative
        if not file.is_file():
            missing.append(relative)
        sample = FileSample(file, relative, label, split)
        if group_column:
            sample = replace(sample, group=row[group_column].strip() or None)
        elif group:
            sample = replace(sample, group=_group_of(sample, group))
        samples.append(sample)
    if missing:
        raise DataError(f"{where}: {len(missing):,} of {len(samples):,} files are missing: {listed(missing, 3)}")
    if not samples:
        raise DataError(f"{where} has no rows")
    with_split = sum(s.split is not None for s in samples)
    if 0 < with_split < len(samples):
        raise DataError(
            f"{where}: {len(samples) - with_split:,} of {len(samples):,} rows have no split; give all or none"
        )
    names = tuple(sorted({s.label for s in samples}))
    need_classes(np.ones(len(names), int), names, where)
    if with_split:
        by_split = {split: {s.label for s in samples if s.split == split} for split in {s.split for s in samples}}
        if "train" not in by_split:
            raise DataError(f"{where}: no row has the split 'train'")
        _same_classes({str(k): v for k, v in by_split.items()}, path, problems)
    return FileSource(name_of(path), str(path.resolve()), tuple(samples), names)


def _csv_rows(path: Path, where: str) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
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


def _csv_split(text: str, where: str, number: int) -> str | None:
    text = text.strip().lower()
    if text and text not in SPLIT_NAMES:
        raise DataError(f"{where}, line {number}: unknown split {shown(text)!r}; there are {', '.join(SPLIT_NAMES)}")
    return SPLIT_NAMES[text] if text else None
