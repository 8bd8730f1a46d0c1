"""Layouts: how classes, splits and groups are read off the names of folders, in any tree.

Owns the readings, how one is chosen, and what is said where a tree has two or none. A layout is written as what each
level of folders stands for: `class`, `split/class`, `class/split`, `*/class` ... Nothing here is decoded, and nobody
asks whether the tree is a disk."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from convlens.data.image.decode import SUFFIXES
from convlens.data.sources.base import SPLITS, FileSource, ReadOptions, Row, limit_classes
from convlens.data.sources.class_names import alike, in_order, skeleton
from convlens.data.sources.file_names import suggest_label
from convlens.data.sources.listing import Folder
from convlens.data.sources.other_tasks import looks_like
from convlens.data.sources.split_words import is_plain, split_of
from convlens.data.sources.tree import Tree, suffix_of
from convlens.errors import DataError, UsageError
from convlens.text import counted, listed, shown

LEVELS = ("class", "split", "group", "*")

NO_PICTURE = "no picture"
OWN = "written by convlens"
# A folder within a class folder that is named so is a group: what was taken in one go, or of one person, who may be in
# other classes too.
_TAKEN, _PERSON = "burst|sequence|clip|video|recording|session", "patient|subject"
BURST = re.compile(r"burst-([0-9]{1,9})")
_GROUP_FOLDER = re.compile(rf"(?i)(?:(?:{_TAKEN})|({_PERSON}))[ _-]?\d+")
NO_CLASS = "beside the class folders, in no class"
NO_SPLIT = "beside the split folders, in no split"
NO_LABEL = "pictures without labels: `predict` answers them"


@dataclass
class Reading:
    """What a layout makes of a tree: the pictures of each class folder with what is said of them, and what is left."""

    layout: str
    parts: list["Part"] = field(default_factory=list)
    unused: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)

    def leave(self, reason: str, folder: Folder) -> None:
        """Every picture of a folder is unused."""
        self.unused[reason] += folder.pictures()

    def labels(self, split: str | None = None) -> set[str]:
        """The classes, of one split or of all."""
        return {part.label for part in self.parts if split in (None, part.split)}


@dataclass(frozen=True)
class Part:
    """The pictures of one class folder, by path."""

    label: str
    split: str | None
    group: str | None
    paths: Sequence[str]


def is_group(folder: Folder) -> bool:
    """Whether a folder within a class folder is named as pictures that belong together are."""
    return _GROUP_FOLDER.fullmatch(folder.name) is not None


def _group_name(label: str, split: str | None, folder: Folder) -> str:
    match, name = _GROUP_FOLDER.fullmatch(folder.name), folder.name.lower()
    return name if match and match[1] else "/".join(filter(None, (split, label, name)))


def _parts_of(label: str, split: str | None, folder: Folder) -> list[Part]:
    """The pictures of a class folder; those of a folder in it that is named as a group are one."""
    of_groups = [one for one in folder.folders if is_group(one)]
    own = {path for one in of_groups for path in one.pictures()}
    parts = [Part(label, split, _group_name(label, split, one), list(one.pictures())) for one in of_groups]
    return [Part(label, split, None, [path for path in folder.pictures() if path not in own]), *parts]


def parse_layout(layout: str | None) -> tuple[str, ...] | None:
    """`split/class` as its levels. Raises UsageError."""
    if layout is None:
        return None
    levels = tuple(str(layout).strip("/").split("/"))
    if levels.count("class") != 1 or not set(levels) <= set(LEVELS) or max(map(levels.count, ("split", "group"))) > 1:
        raise UsageError(
            "layout must say what each level of folders stands for, as class, split/class, class/split, group/class or "
            f"*/class, not {shown(layout)!r}"
        )
    return levels


def class_folders(
    tree: Tree, name: str, root: Folder, read: ReadOptions, problems: list[str] | None = None
) -> FileSource:
    """A tree of class folders, perhaps with splits above or below them, as `read.layout` says or as the names have it.
    Raises DataError, or for classes that are empty or missing in train adds a line to `problems`; UsageError for a
    layout that is none."""
    levels = parse_layout(read.layout)
    top, unused = unwrapped(root)
    reading = _Reader(tree, root, top, read.group).read() if levels is None else _by_levels(tree, top, levels)
    for reason, paths in unused.items():
        reading.unused[reason] += paths
    if read.group is None and (groups := {part.group for part in reading.parts} - {None}):
        some, way = listed(sorted(map(str, groups)), 3), "" if levels else "; `layout=class` takes them apart"
        reading.notes.append(
            f"the pictures of {counted(len(groups), 'folder')} ({some}) are groups, which no split parts{way}"
        )
    if top.path:
        reading.notes.insert(0, f"class folders taken from {top.path}/, the only folder with pictures there")
    _tell_splits(reading, top)
    _say_empty(tree, top, reading, problems)
    return _source_of(tree, name, reading, root, read.group, problems)


def named_by_class(
    tree: Tree, name: str, root: Folder, read: ReadOptions, problems: list[str] | None = None
) -> FileSource:
    """Pictures whose class stands in their own names, as the expression `read.label` catches it; folders that all have
    a split's word are splits. Raises DataError as `class_folders` does, and where the expression does not match."""
    assert read.label is not None
    top, beside = unwrapped(root)
    expression = _compiled(read.label, "label")
    splits = {folder.name: split_of(folder.name) for folder in top.folders}
    if (task := looks_like(root, top)) is not None:
        raise DataError(f"{tree.where('')} {task}")
    has_splits = bool(splits) and None not in splits.values() and not top.loose and "train" in splits.values()
    if not has_splits and {"train"} < {split_of(folder.name) for folder in root.every()} - {None}:
        raise DataError(
            f"{tree.where('')} holds folders of splits, and pictures beside them: name the folder that holds the "
            "splits alone"
        )
    reading = Reading("names of files")
    if has_splits:  # else the expression is for them too
        for reason, left in beside.items():
            reading.unused[reason] += left
    for folder in top.folders if has_splits else [root]:
        split, paths = splits[folder.name] if has_splits else None, list(folder.pictures())
        if split != "train" and has_splits and not any(map(expression.search, paths)):
            reading.unused[NO_LABEL] += paths
            continue
        reading.parts += [Part(caught(path, read.label, "label"), split, None, [path]) for path in paths]
    _tell_splits(reading, top)
    return _source_of(tree, name, reading, root, read.group, problems)


def _source_of(
    tree: Tree, name: str, reading: Reading, root: Folder, group: str | None, problems: list[str] | None
) -> FileSource:
    """The source of a reading. Raises DataError as `class_folders` does."""
    parts = [part for part in reading.parts if part.paths]
    names = in_order(part.label for part in parts)
    where = tree.where("")
    limit_classes(names, where)
    by_split = {split: reading.labels(split) for split in SPLITS if any(part.split == split for part in parts)}
    if by_split:
        reading.notes += same_classes(by_split, where, problems)
    if group is not None:
        for part in parts:
            for path in part.paths:
                group_of(path, part.label, group)  # what does not match is found before anything is read

    def rows() -> Iterator[Row]:
        for part in parts:
            for path in part.paths:
                own = part.group if group is None else group_of(path, part.label, group)
                yield Row(path, part.label, part.split, own)

    counts: Counter[str | None] = Counter()
    for part in parts:
        counts[part.split] += len(part.paths)
    unused = reading.unused | other_files(root)
    used = {reason: tuple(paths) for reason, paths in unused.items() if paths}
    notes = (*reading.notes, *alike(names), *(unused_note(reason, paths) for reason, paths in used.items()))
    return FileSource(name, tree.resolved(), tree, rows, counts, names, notes, used)


def unused_note(reason: str, paths: Sequence[str]) -> str:
    """How many files are unused for a reason, in one line."""
    if reason == OWN:
        return f"unused: {counted(len(paths), 'folder')} {OWN}: {listed(paths, 1)}"
    kinds = Counter(suffix_of(path) or "without suffix" for path in paths)
    said = ", ".join(f"{n:,} {suffix}" for suffix, n in kinds.most_common(4)) if len(paths) > 1 else ""
    what = "file" if reason == NO_PICTURE else "picture"
    return f"unused: {counted(len(paths), what)}, {reason}{f' ({said})' if said else ''}: {listed(paths, 1)}"


def other_files(root: Folder) -> dict[str, list[str]]:
    """What lies in a tree and is no picture, or was written by convlens; its folders with a slash behind."""
    found: dict[str, list[str]] = defaultdict(list)
    for folder in root.every():
        if folder.is_own:
            found[OWN].append(f"{folder.path}/")
        found[NO_PICTURE] += folder.others
    return found


def unwrapped(root: Folder) -> tuple[Folder, dict[str, list[str]]]:
    """The folder that holds the class folders: down through folders that are alone, and the pictures left beside."""
    top, unused = root, defaultdict[str, list[str]](list)
    while len(top.folders) == 1 and top.folders[0].folders and len(top.loose) < top.folders[0].num_pictures:
        unused[NO_CLASS] += top.loose
        top = top.folders[0]
    return top, unused


def _label(folder: Folder) -> str:
    return unicodedata.normalize("NFC", folder.name)


class _Reader:
    """One tree being read by what its names say."""

    def __init__(self, tree: Tree, root: Folder, top: Folder, group: str | None) -> None:
        self.root, self.top, self.group = root, top, group
        self.where = tree.where(top.path)
        self.words = {folder.name: split_of(folder.name) for folder in top.folders}

    def read(self) -> Reading:
        """The one reading of it. Raises DataError where there are two or none."""
        if (task := looks_like(self.root, self.top)) is not None:
            raise DataError(f"{self.where} {task}")
        if not self.top.folders:
            self.refuse_flat(self.top)
        if all(BURST.fullmatch(one.name) for one in self.top.folders):
            self.refuse("it holds bursts of pictures, and no second class beside them", "class")
        return self.splits_below() or self.splits_above() or self.plain()

    def splits_in(self, folder: Folder) -> set[str | None]:
        """The splits that the folders in a folder stand for, train among them; empty where it holds anything else."""
        splits = {split_of(one.name) for one in folder.folders}
        return splits if not folder.loose and {"train"} < splits <= {*SPLITS} else set()

    # ------------------------------------------------------------ splits above the classes

    def splits_above(self) -> Reading | None:
        """SPLIT/CLASS/*: a train folder with class folders in it, and others whose classes are among them."""
        worded = [folder for folder in self.top.folders if self.words[folder.name] is not None]
        trains = [folder for folder in worded if self.words[folder.name] == "train" and _has_classes(_inside(folder))]
        beside = [folder for folder in self.top.folders if folder not in worded]
        if not trains:
            self.refuse_splits_without_train(worded, beside)
            return None
        classes = {_label(one) for folder in trains for one in _inside(folder).folders}
        others = [folder for folder in worded if folder not in trains]
        if not others and self.group == "parent":
            return None
        if not others and not any(self.classes_of(folder, classes) & classes for folder in beside):
            if beside:
                self.refuse(f"only {listed([trains[0].name])} has a split's name", "split/class", "class")
            return None
        twice = [split for split in SPLITS if list(self.words.values()).count(split) > 1]
        if twice:
            names = listed(folder.name for folder in worded if self.words[folder.name] in twice)
            self.refuse(f"it has more than one folder for a split: {names}", "split/class", "class")
        alike = [folder.name for folder in beside if self.classes_of(folder, classes) & classes]
        if alike:
            what = f"it has split folders and others of the same classes beside them: {listed(alike)}"
            self.refuse(f"{what}; split/class leaves those aside", "split/class", "class")
        reading = Reading("split/class")
        for folder in worded:
            split, inside = self.words[folder.name], _inside(folder, classes)
            own = {_label(one) for one in inside.folders}
            if own and not own & classes:
                self.refuse(
                    f"{listed([folder.name])} and {listed([trains[0].name])} have no class in common",
                    "split/class",
                    "class",
                )
            self.refuse_nested(inside.folders)
            self.take_split(reading, folder, inside, split)
        for folder in beside:
            reading.leave(NO_SPLIT, folder)
        reading.unused[NO_CLASS] += self.top.loose
        return reading

    def classes_of(self, folder: Folder, classes: set[str]) -> set[str]:
        return {_label(one) for one in _inside(folder, classes).folders}

    def take_split(self, reading: Reading, folder: Folder, inside: Folder, split: str | None) -> None:
        """Add a split folder: its class folders, or where it has none its pictures as unlabelled ones."""
        if not inside.folders:
            reading.leave(NO_LABEL, folder)
            return
        reading.parts += [part for one in inside.folders for part in _parts_of(_label(one), split, one)]
        reading.unused[NO_CLASS] += inside.loose

    def refuse_splits_without_train(self, worded: list[Folder], beside: list[Folder]) -> None:
        """Raises DataError where names speak of splits, and what lies in them of something else."""
        siblings = {_label(folder) for folder in self.top.folders}
        for folder in worded:
            if self.classes_of(folder, siblings) & (siblings - {_label(folder)}):
                self.refuse(f"{listed([folder.name])} holds folders named as those beside it", "class", "split/class")
        flat = [folder for folder in worded if not _has_classes(_inside(folder))]
        splits = {self.words[folder.name] for folder in flat}
        if "train" in splits and len(splits) > 1:
            self.refuse_flat(flat[0], f"the pictures in {listed(folder.name for folder in flat)} lie side by side")
        full = [folder for folder in worded if folder not in flat]
        if full and flat:
            names = listed(folder.name for folder in full)
            raise DataError(f"{self.where}: {names} has class folders, {listed(f.name for f in flat)} has none")
        if len(full) > 1:
            raise DataError(
                f"{self.where} has {listed(folder.name for folder in full)} but no train folder; if those are classes, "
                "say `layout=class`"
            )
        plain = [folder for folder in flat if is_plain(folder.name) and self.words[folder.name] != "train"]
        if plain and len(beside) > 1:
            name = listed(folder.name for folder in plain)
            self.refuse(f"{name} is a class, or pictures without labels (then move it away)", "class")

    # ------------------------------------------------------------ splits below the classes

    def splits_below(self) -> Reading | None:
        """CLASS/SPLIT/*: every folder holds folders of splits and nothing else."""
        folders = self.top.folders
        if not all(self.splits_in(folder) for folder in folders):
            return None
        if all(one.folders and not one.loose for folder in folders for one in folder.folders):
            names = listed(folder.name for folder in folders)
            self.refuse(f"{names} look like several data sets, each with its splits: name one of them", "*/split/class")
        reading = Reading("class/split")
        for folder in folders:
            if len(self.splits_in(folder)) < len(folder.folders):
                self.refuse(f"{folder.name}/ has more than one folder for a split", "class/split", "class")
            for one in folder.folders:
                reading.parts += _parts_of(_label(folder), split_of(one.name), one)
        reading.unused[NO_CLASS] += self.top.loose
        return reading

    # ------------------------------------------------------------ classes alone

    def refuse_nested(self, folders: Sequence[Folder]) -> None:
        """Raises DataError where a class folder holds folders named as those beside it: copies, or sets of another
        size."""
        names = {_label(folder) for folder in folders}
        nested = [
            folder.name for folder in folders if {_label(one) for one in folder.folders} & (names - {_label(folder)})
        ]
        if nested:
            self.refuse(
                f"{listed(nested)} holds folders named as those beside it: move it away if it is no class", "class"
            )

    def plain(self) -> Reading:
        """CLASS/*: every folder is a class."""
        folders = self.top.folders
        self.refuse_nested(folders)
        if of_splits := [folder.name for folder in folders if self.splits_in(folder)]:
            what = f"{listed(of_splits)} holds folders of splits, other folders do not"
            self.refuse(what, "class/split", "class")
        reading = Reading("class", [part for one in folders for part in _parts_of(_label(one), None, one)])
        reading.unused[NO_CLASS] += self.top.loose
        hollow = [
            one for one in folders if len(one.folders) > 1 and not one.loose and not any(map(is_group, one.folders))
        ]
        if hollow and len(hollow) < len(folders):
            reading.notes.append(
                f"{listed((f.name for f in hollow), 2)} holds nothing but folders "
                f"({listed((one.name for one in hollow[0].folders), 3)}), the others hold pictures: if those are the "
                f"classes, name {shown(hollow[0].name)} itself"
            )
        if self.group is None and all(folder.folders and not folder.loose for folder in folders):
            are_groups = not all(map(is_group, folders))  # else these may be groups, and those the classes
            inner = Counter(_label(one) for f in folders for one in f.folders if not (are_groups and is_group(one)))
            if not inner:
                return reading
            shared = [label for label, times in inner.items() if times > 1]
            if shared and len(folders) > 1:
                self.refuse(
                    f"its folders ({listed((f.name for f in folders), 3)}) hold folders of the same names "
                    f"({listed(shared, 3)}): either may be the classes", "class", "group/class", "*/class",
                )  # fmt: skip
            reading.notes.append(
                f"the class folders hold nothing but folders ({listed(inner, 3)}); if those are the classes, say "
                "`layout=*/class`"
            )
        return reading

    # ------------------------------------------------------------ what cannot be read

    def refuse(self, what: str, *layouts: str) -> NoReturn:
        ways = " or ".join(f"`layout={layout}`" for layout in layouts)
        raise DataError(f"{self.where}: {what.removesuffix(', or')}. Say which is meant: {ways}")

    def refuse_flat(self, folder: Folder, what: str | None = None) -> NoReturn:
        paths = list(folder.pictures())
        if not paths:
            empty = listed(one.name for one in self.top.subfolders)
            what = f"no pictures in class folder {empty}" if empty else "it holds no class folders"
            raise DataError(
                f"{self.where} holds no pictures ({what}; those that are read: {' '.join(sorted(SUFFIXES))})"
            )
        offer = suggest_label(paths)
        way = f"`label={offer.pattern}` reads the class from their names ({listed(offer.classes, 3)})" if offer else ""
        raise DataError(
            f"{self.where}: {what or 'its pictures lie side by side'}; "
            + (way or "put each picture into a folder named after its class, or name a table (.csv) of path and label")
        )


def _has_classes(folder: Folder) -> bool:
    """Whether a folder's folders may be classes: not one of them beside pictures."""
    return len(folder.folders) > 1 or (bool(folder.folders) and not folder.loose)


def _inside(folder: Folder, classes: set[str] | None = None) -> Folder:
    """Where a split folder's class folders lie: down through folders that are alone, unless one is a class itself."""
    plain = {skeleton(name) for name in classes or ()}
    while len(folder.folders) == 1 and not folder.loose and skeleton(_label(folder.folders[0])) not in plain:
        inner = folder.folders[0]
        if classes is None and not inner.folders and split_of(inner.name) != split_of(folder.name):
            return folder  # of train: one class
        folder = inner
    return folder


def _by_levels(tree: Tree, top: Folder, levels: tuple[str, ...]) -> Reading:
    """The reading that a person asked for. Raises DataError where the tree has none such."""
    reading = Reading("/".join(levels))

    def walk(folder: Folder, depth: int, said: Mapping[str, str]) -> None:
        if depth == len(levels):
            reading.parts.append(Part(said["class"], said.get("split"), said.get("group"), list(folder.pictures())))
            return
        reading.unused[NO_CLASS] += folder.loose
        for one in folder.folders:
            if levels[depth] == "split" and (split := split_of(one.name)) is None:
                reading.leave(NO_SPLIT, one)
                continue
            value = split if levels[depth] == "split" else _label(one)
            walk(one, depth + 1, said if levels[depth] == "*" else {**said, levels[depth]: str(value)})

    walk(top, 0, {})
    where = tree.where(top.path)
    if not reading.parts:
        raise DataError(f"{where} holds no pictures that lie as the layout {reading.layout} says")
    if "split" in levels and not reading.labels("train"):
        raise DataError(f"{where} has no folder of train, which the layout {reading.layout} needs")
    return reading


def _tell_splits(reading: Reading, top: Folder) -> None:
    """Say which folders were taken for which split; where train alone has labels there is no split."""
    splits = {part.split for part in reading.parts}
    if splits == {"train"}:
        reading.parts = [Part(part.label, None, part.group, part.paths) for part in reading.parts]
        return
    if splits == {None} or not splits:
        return
    names = {folder.name for folder in top.folders}
    if reading.layout == "class/split":
        names = {one.name for folder in top.folders for one in folder.folders}
    if reading.layout == "split/class" and names <= {*SPLITS}:
        return  # it says so itself
    said = [f"{split}: {', '.join(shown(n, 40) for n in sorted(names) if split_of(n) == split)}" for split in SPLITS]
    reading.notes.append(f"read as {reading.layout} ({'; '.join(one for one in said if not one.endswith(': '))})")


def _say_empty(tree: Tree, top: Folder, reading: Reading, problems: list[str] | None) -> None:
    """Say which folders that stand where classes do hold nothing. Raises DataError as `say` does."""
    splits = [_inside(one, reading.labels()) for one in top.folders] if reading.layout == "split/class" else [top]
    for folder in splits:
        empty = [one.name for one in folder.subfolders if one.num_files == 0]
        if empty and folder.folders:
            where = tree.where(folder.path)
            say(f"{where}: no pictures in class folder {listed(empty)}; fill it or remove it", problems)


def say(problem: str, problems: list[str] | None) -> None:
    """Note a problem down where there is a list for it. Raises DataError where there is none."""
    if problems is None:
        raise DataError(problem)
    problems.append(problem)


def same_classes(names_by_split: dict[str, set[str]], where: str, problems: list[str] | None) -> list[str]:
    """Notes on classes of train that a split has no pictures of. Of classes that train has none of, raises DataError as
    `say` does."""
    train, notes = names_by_split.get("train", set()), []
    for split, names in names_by_split.items():
        if more := names - train:
            said = f"; only in train: {listed(sorted(train - names))}" if train - names else ""
            say(
                f"{where}: the classes of train and {split} differ (only in {split}: {listed(sorted(more))}{said})",
                problems,
            )
        elif less := train - names:
            notes.append(f"{split} has no pictures of class {listed(sorted(less))}: nothing is known of it there")
    return notes


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
    return caught(path, group, "group")


def caught(path: str, pattern: str, what: str) -> str:
    """What a regular expression catches in a path: its first group, or all that it matches. Raises DataError."""
    match = _compiled(pattern, what).search(path)
    found = None if match is None else match.group(1) if match.re.groups else match.group()
    if found is None:
        raise DataError(f"the {what} {shown(pattern)!r} does not match {shown(path, 200)}")
    return found


def _compiled(pattern: str, what: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise DataError(f"the {what} {shown(pattern)!r} is no regular expression: {error}") from error
