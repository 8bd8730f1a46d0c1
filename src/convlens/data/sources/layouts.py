"""Layouts: class folders, with or without splits and groups, in any tree of names.

Owns walking, the layouts and their checks. Nothing is decoded here, and nobody asks whether the tree is a disk.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import NamedTuple

from convlens.data.image.decode import REFUSED_SUFFIXES, SUFFIXES
from convlens.data.sources.base import FileSource, Row
from convlens.data.sources.tree import DiskTree, Tree, is_litter, join, suffix_of
from convlens.errors import DataError
from convlens.text import listed, shown

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_SPLIT_LIKE = frozenset({*SPLIT_NAMES, "training", "testing", "trainset", "testset"})


class _Class(NamedTuple):
    """The image files of one class folder, by path."""

    label: str
    split: str | None
    paths: list[str]


class _Walk:
    """Lists the image files under folders of a tree, in order of their names; goes round no loop."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.passed_over: Counter[str] = Counter()

    def images(self, folder: str, above: tuple[Hashable, ...] = ()) -> list[str]:
        here = self.tree.key(folder)
        if here in above:
            return []  # a link that leads back up
        found: list[str] = []
        for entry in self.tree.entries(folder):
            path, suffix = join(folder, entry.name), suffix_of(entry.name)
            if entry.is_folder:
                found += self.images(path, (*above, here))
            elif suffix in SUFFIXES or suffix in REFUSED_SUFFIXES:
                found.append(path)
            else:
                self.passed_over[suffix or "no suffix"] += 1
        return found

    def num_loose(self, folder: str) -> int:
        return sum(suffix_of(name) in SUFFIXES for name in self.tree.files(folder))

    def notes(self) -> tuple[str, ...]:
        if not self.passed_over:
            return ()
        kinds = ", ".join(f"{n} {suffix}" for suffix, n in sorted(self.passed_over.items()))
        return (f"{sum(self.passed_over.values()):,} files are no pictures and were passed over ({kinds})",)


def pictures_in(folder: Path) -> list[Path]:
    """The image files under a folder, in order of their names, litter left aside. Raises DataError."""
    return [folder / path for path in _Walk(DiskTree(folder)).images("") if suffix_of(path) in SUFFIXES]


def hidden_pictures(tree: Tree) -> dict[str, int]:
    """The hidden folders of a tree that hold image files, by path, with how many; none of them is read."""
    found: dict[str, int] = {}

    def look(folder: str, above: tuple[Hashable, ...]) -> None:
        here = tree.key(folder)
        for entry in tree.listed(folder) if here not in above else []:
            path = join(folder, entry.name)
            if entry.is_folder and not is_litter(entry.name):
                look(path, (*above, here))
            elif entry.is_folder and (num := len(_Walk(tree).images(path))):
                found[path] = num

    look("", ())
    return found


def say(problem: str, problems: list[str] | None) -> None:
    """Note a problem down where there is a list for it. Raises DataError where there is none."""
    if problems is None:
        raise DataError(problem)
    problems.append(problem)


def class_folders(tree: Tree, name: str, group: str | None, problems: list[str] | None = None) -> FileSource:
    """A tree of class folders, perhaps under train, val and test. Raises DataError, or for classes that are empty or
    missing in a split adds a line to `problems`."""
    walk, notes, top = _Walk(tree), [], ""
    folders = tree.folders(top)
    while len(folders) == 1 and not walk.num_loose(top) and tree.folders(folders[0]):
        top = folders[0]
        folders = tree.folders(top)
    if top:
        notes.append(f"class folders taken from {top}/, the only folder there")
    if not folders:
        what = "its pictures lie side by side" if walk.num_loose(top) else "it holds no class folders"
        raise DataError(f"{tree.where('')}: {what}; put each picture into a folder named after its class")
    splits = _split_folders(tree, top, folders)
    classes: list[_Class] = []
    if splits:
        names_by_split: dict[str, set[str]] = {}
        for split, folder in splits.items():
            found = _classes_in(walk, folder, split, problems)
            names_by_split[split] = {one.label for one in found if one.paths}
            classes += found
        same_classes(names_by_split, tree.where(top), problems)
    else:
        classes = _classes_in(walk, top, None, problems)
    if num_loose := walk.num_loose(top) + sum(walk.num_loose(folder) for folder in splits.values()):
        notes.append(f"{num_loose:,} pictures lie beside the class folders, in no class, and were passed over")
    names = tuple(sorted({one.label for one in classes if one.paths}))
    if len(names) == 1:
        raise DataError(f"{tree.where('')} has one class only ({names[0]!r}): a classifier needs at least two")
    if group is not None:
        for one in classes:
            for path in one.paths:
                group_of(path, one.label, group)  # what does not match is found before anything is read

    def rows() -> Iterator[Row]:
        for one in classes:
            for path in one.paths:
                yield Row(path, one.label, one.split, None if group is None else group_of(path, one.label, group))

    counts: Counter[str | None] = Counter()
    for one in classes:
        counts[one.split] += len(one.paths)
    return FileSource(name, tree.resolved(), tree, rows, counts, names, (*notes, *walk.notes()))


def _split_folders(tree: Tree, top: str, folders: list[str]) -> dict[str, str]:
    """The folders that stand for splits, by split; none where there are none. Raises DataError where they do not add
    up."""
    names = {folder: folder.rpartition("/")[2] for folder in folders}
    of = [folder for folder in folders if names[folder].lower() in SPLIT_NAMES]
    found = {SPLIT_NAMES[names[folder].lower()]: folder for folder in of}
    where, said = tree.where(top), listed(names[folder] for folder in of)
    if len(found) < len(of):
        raise DataError(f"{where} has more than one folder for a split: {said}")
    if len(of) < len(folders) and all(name.lower() in _SPLIT_LIKE for name in names.values()):
        raise DataError(f"{where} has {listed(names.values())}, which look like splits: call them train, val and test")
    if of and "train" not in found:
        raise DataError(f"{where} has {said} but no train folder; a class of such a name needs a .csv (path,label)")
    if of and len(of) < len(folders):
        others = listed(names[folder] for folder in folders if folder not in of)
        raise DataError(
            f"{where} has split folders and others beside them: {others}; a class of a split's name needs a .csv "
            "(path,label)"
        )
    return found


def _classes_in(walk: _Walk, folder: str, split: str | None, problems: list[str] | None) -> list[_Class]:
    folders, where = walk.tree.folders(folder), walk.tree.where(folder)
    if not folders:
        raise DataError(f"{where} holds no class folders")
    labels = [unicodedata.normalize("NFC", path.rpartition("/")[2]) for path in folders]
    classes = [_Class(label, split, walk.images(path)) for label, path in zip(labels, folders, strict=True)]
    filled = {one.label for one in classes if one.paths}
    if not filled:
        raise DataError(f"{where} holds no pictures (those that are read: {' '.join(sorted(SUFFIXES))})")
    if empty := [label for label in labels if label not in filled]:
        say(f"{where}: no pictures in class folder {listed(empty)}; fill it or remove it", problems)
    return classes


def same_classes(names_by_split: dict[str, set[str]], where: str, problems: list[str] | None) -> None:
    """Say where a split has other classes than train. Raises DataError as `say` does."""
    train = names_by_split["train"]
    for split, names in names_by_split.items():
        if names != train:
            parts = [
                f"only in {s}: {listed(sorted(d))}" for s, d in (("train", train - names), (split, names - train)) if d
            ]
            say(f"{where}: the class folders of train and {split} differ ({'; '.join(parts)})", problems)


def group_of(path: str, label: str, group: str) -> str:
    """The group that a path belongs to: its parent folder's name, or what the pattern catches. Raises DataError."""
    if group == "parent":
        parent = path.rpartition("/")[0].rpartition("/")[2]
        if unicodedata.normalize("NFC", parent) in ("", label):
            raise DataError(
                f"`group=parent`: {shown(path, 200)} lies directly in its class folder; "
                "it needs a folder for each group between them"
            )
        return parent  # the same part photographed for two classes or splits is still one part
    match = _pattern(group).search(path)
    if match is None or (match.re.groups and match.group(1) is None):
        raise DataError(f"the group {shown(group)!r} does not match {shown(path, 200)}")
    return match.group(1) if match.re.groups else match.group()


def _pattern(group: str) -> re.Pattern[str]:
    try:
        return re.compile(group)
    except re.error as error:
        raise DataError(f"the group {shown(group)!r} is no regular expression: {error}") from error
