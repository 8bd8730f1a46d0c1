"""Where samples come from: a named set, IDX files, an .npz, a CSV, class folders or NumPy arrays.

Owns the layouts and their checks. A source is listed, not decoded: pictures stay in their files (`FileSource`)
until `pack.py` reads them; arrays come with their pixels (`ArraySource`). Knows nothing of input sizes.
"""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlens.data import idx, mnist
from convlens.data.decode import REFUSED_SUFFIXES, SUFFIXES, Pixels
from convlens.errors import DataError, did_you_mean, shown
from convlens.files import sha256_of

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
NAMED_SETS = ("mnist", "fashion-mnist")
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_FOLDER = Path("/usr/share/dataset-fashion-mnist")  # of Debian's package dataset-fashion-mnist
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


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

    def identity(self) -> list[Any]:
        """What changes when the source does."""
        return [self.name, list(self.class_names), self.hashes]


Source = FileSource | ArraySource


def open_source(what: Any, *, group: str | None = None, data_root: str | Path | None = None) -> Source:
    """List a source: a named set, a path, a tuple of arrays (x, y) or (x_train, y_train, x_test, y_test).

    `group` (for files) is `parent`, a regular expression on the relative path, or a CSV's column. `data_root`
    is where a named set lies that does not ship with convlens. Raises DataError.
    """
    if isinstance(what, tuple | list | dict):
        _no_group(group, "arrays")
        return _from_arrays(what)
    text = str(what)
    if text in NAMED_SETS:
        _no_group(group, text)
        return _named(text, data_root)
    path = Path(text).expanduser()
    if not path.exists():
        near = did_you_mean(text, NAMED_SETS)
        raise DataError(f"no data set or path {shown(text, 200)!r}{near}: named sets are {', '.join(NAMED_SETS)}")
    if path.is_dir():
        if idx.has_idx_files(path):
            _no_group(group, "IDX files")
            return _from_idx(path, _name_of(path))
        return _from_folders(path, group)
    if path.suffix.lower() == ".npz":
        _no_group(group, "an .npz")
        return _from_npz(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        return _from_csv(path, group)
    raise DataError(f"{shown(text, 200)} is no data set: it must be a folder, an .npz or a .csv")


def _name_of(path: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().stem if path.is_file() else path.resolve().name)
    return name.strip("-.") or "data"


def _no_group(group: str | None, what: str) -> None:
    if group is not None:
        raise DataError(f"--group is for picture files; {what} have no paths to group by")


# ---------------------------------------------------------------- arrays


def _named(name: str, data_root: str | Path | None) -> ArraySource:
    if name == "mnist":
        return ArraySource(
            name,
            name,
            {split: ArraySplit(*mnist.arrays(split)) for split in ("train", "test")},
            tuple(map(str, range(10))),
            dict(mnist.SHA256),
        )
    folder = Path(data_root) if data_root is not None else FASHION_FOLDER
    for candidate in (folder, folder / name):
        if candidate.is_dir() and idx.has_idx_files(candidate):
            return replace(_from_idx(candidate, name), class_names=FASHION_CLASSES)
    raise DataError(
        f"fashion-mnist does not ship with convlens, and its four IDX files are not in {shown(folder, 200)}: "
        "'apt install dataset-fashion-mnist', or name the folder that has them with --data-root"
    )


def _from_idx(folder: Path, name: str) -> ArraySource:
    found = idx.read_folder(folder)
    labels = np.concatenate([split.labels_N for split in found.values()])
    num_classes = int(labels.max()) + 1
    _need_classes(np.bincount(labels, minlength=num_classes), tuple(map(str, range(num_classes))), shown(folder, 200))
    splits: dict[str | None, ArraySplit] = {
        (split if len(found) > 1 else None): ArraySplit(f.images_NHW[..., None], f.labels_N.astype(np.int64))
        for split, f in found.items()
    }
    hashes = {file: digest for f in found.values() for file, digest in f.hashes.items()}
    return ArraySource(name, str(folder.resolve()), splits, tuple(map(str, range(num_classes))), hashes)


def _need_classes(counts: NDArray[np.integer], names: Sequence[str], where: str) -> None:
    if len(names) < 2:
        raise DataError(f"{where} has one class only ({shown(names[0])!r}): a classifier needs at least two")
    empty = [name for name, count in zip(names, counts, strict=True) if count == 0]
    if empty:
        raise DataError(f"{where} has no images of class {_listed(empty)}")


def _listed(names: Iterable[object], most: int = 5) -> str:
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(repr(shown(n)) for n in names[:most]) + more


def _from_npz(path: Path) -> ArraySource:
    where = shown(path, 200)
    known = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test", "x", "y")
    arrays = idx.read_npz(path, known)
    if {"x_train", "y_train"} <= arrays.keys():
        pairs = {s: (arrays[f"x_{s}"], arrays[f"y_{s}"]) for s in SPLITS if {f"x_{s}", f"y_{s}"} <= arrays.keys()}
        missing = [f"{b}_{s}" for s in SPLITS for a, b in (("x", "y"), ("y", "x"))
                   if f"{a}_{s}" in arrays and f"{b}_{s}" not in arrays]  # fmt: skip
        if missing:
            raise DataError(f"{where} has no {missing[0]}")
        splits: dict[str | None, tuple[Any, Any]] = {s if len(pairs) > 1 else None: pair for s, pair in pairs.items()}
    elif {"x", "y"} <= arrays.keys():
        splits = {None: (arrays["x"], arrays["y"])}
    else:
        has = ", ".join(arrays) or "none of them"
        raise DataError(f"{where} must have x_train, y_train, x_test and y_test, or x and y; it has {has}")
    return _array_source(splits, _name_of(path), str(path.resolve()), where)


def _from_arrays(what: Any) -> ArraySource:
    if isinstance(what, dict):
        unknown = [k for k in what if k not in SPLITS]
        if unknown:
            raise DataError(f"arrays by split are keyed train, val and test, not {unknown[0]!r}")
        splits: dict[str | None, tuple[Any, Any]] = dict(what)
    elif len(what) == 2:
        splits = {None: (what[0], what[1])}
    elif len(what) == 4:
        splits = {"train": (what[0], what[1]), "test": (what[2], what[3])}
    else:
        raise DataError(f"arrays come as (x, y) or (x_train, y_train, x_test, y_test), not {len(what)} of them")
    return _array_source(splits, "arrays", "arrays in memory", "the arrays")


def _array_source(splits: dict[str | None, tuple[Any, Any]], name: str, location: str, where: str) -> ArraySource:
    """Check images and labels of each split, and give the classes numbers over all of them."""
    checked: dict[str | None, tuple[Pixels, NDArray[Any]]] = {}
    for split, (x, y) in splits.items():
        suffix = f"_{split}" if split else ""
        images, labels = _images(np.asarray(x), f"{where}: x{suffix}"), np.asarray(y)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or labels.dtype.kind not in "iuUS":
            raise DataError(f"{where}: y{suffix} must be whole numbers or names, one each, not {_described(labels)}")
        if len(images) != len(labels):
            raise DataError(f"{where}: x{suffix} has {len(images):,} images, y{suffix} {len(labels):,} labels")
        if len(images) == 0:
            raise DataError(f"{where}: x{suffix} is empty")
        checked[split] = (images, labels.astype(str) if labels.dtype.kind == "S" else labels)
    shapes = {images.shape[1:] for images, _ in checked.values()}
    if len(shapes) > 1:
        raise DataError(f"{where}: the splits' images differ in shape: {', '.join(map(str, sorted(shapes)))}")
    kinds = {labels.dtype.kind == "U" for _, labels in checked.values()}
    if len(kinds) > 1:
        raise DataError(f"{where}: the splits' labels are numbers in one and names in another")
    all_labels = np.concatenate([labels for _, labels in checked.values()])
    classes = np.unique(all_labels)
    names = tuple(unicodedata.normalize("NFC", str(c)) for c in classes)
    _need_classes(np.ones(len(names), int), names, where)
    arrays: dict[str | None, ArraySplit] = {
        split: ArraySplit(images, np.searchsorted(classes, labels).astype(np.int64))
        for split, (images, labels) in checked.items()
    }
    hashes = {f"{s or 'all'} {part}": sha256_of(np.ascontiguousarray(a).tobytes() + str((a.shape, names)).encode())
              for s, split in arrays.items()
              for part, a in (("images", split.images_NHWC), ("labels", split.labels_N))}  # fmt: skip
    return ArraySource(name, location, arrays, names, hashes)


def _described(array: NDArray[Any]) -> str:
    return f"{array.dtype} of shape {array.shape}"


def _images(x: NDArray[Any], where: str) -> Pixels:
    """uint8 (N, H, W, C) from uint8, or floats in 0..1; the channels last or none. Raises DataError."""
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[3] not in (1, 3):
        first = x.ndim == 4 and x.shape[1] in (1, 3)
        hint = "; move the channels last: x.transpose(0, 2, 3, 1)" if first else ""
        raise DataError(f"{where} must be (N, H, W) or (N, H, W, 1 or 3), not {_described(x)}{hint}")
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind != "f":
        raise DataError(f"{where} must be uint8 in 0..255 or floats in 0..1, not {x.dtype}")
    if x.size and not (np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1):
        low, high = float(np.nanmin(x)), float(np.nanmax(x))
        raise DataError(f"{where} has floats from {low:g} to {high:g}; they must lie in 0..1 (or give uint8 in 0..255)")
    return np.rint(x * 255).astype(np.uint8)


# ---------------------------------------------------------------- files


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


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
        return [Path(e.path) for e in self.entries(folder) if e.is_dir()]

    def pictures(self, folder: Path, above: tuple[tuple[int, int], ...] = ()) -> list[Path]:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            return []  # a link that leads back up
        found: list[Path] = []
        for entry in self.entries(folder):
            path = Path(entry.path)
            if entry.is_dir():
                found += self.pictures(path, (*above, here))
            elif path.suffix.lower() in SUFFIXES or path.suffix.lower() in REFUSED_SUFFIXES:
                found.append(path)
            else:
                self.passed_over[path.suffix.lower() or "no suffix"] += 1
        return found

    def has_pictures(self, folder: Path) -> bool:
        return any(Path(e.name).suffix.lower() in SUFFIXES for e in self.entries(folder) if not e.is_dir())

    def notes(self) -> tuple[str, ...]:
        if not self.passed_over:
            return ()
        kinds = ", ".join(f"{n} {suffix}" for suffix, n in sorted(self.passed_over.items()))
        return (f"{sum(self.passed_over.values()):,} files are no pictures and were passed over ({kinds})",)


def _from_folders(root: Path, group: str | None) -> FileSource:
    walk, notes = _Walk(), []
    top = root
    folders = walk.subfolders(top)
    while len(folders) == 1 and not walk.has_pictures(top) and walk.subfolders(folders[0]):
        top = folders[0]
        folders = walk.subfolders(top)
    if top != root:
        notes.append(f"class folders taken from {top.relative_to(root).as_posix()}/, the only folder there")
    if not folders:
        what = "its pictures lie side by side" if walk.has_pictures(top) else "it holds no class folders"
        raise DataError(f"{shown(root, 200)}: {what}; put each picture into a folder named after its class")
    by_split = {SPLIT_NAMES[f.name.lower()]: f for f in folders if f.name.lower() in SPLIT_NAMES}
    samples: list[FileSample] = []
    if "train" in by_split:
        others = [f.name for f in folders if f.name.lower() not in SPLIT_NAMES]
        if others:
            raise DataError(f"{shown(top, 200)} has split folders and others beside them: {_listed(others)}")
        names_by_split: dict[str, set[str]] = {}
        for split, folder in by_split.items():
            found = _class_samples(walk, root, folder, split)
            names_by_split[split] = {s.label for s in found}
            samples += found
        _same_classes(names_by_split, top)
    else:
        samples = _class_samples(walk, root, top, None)
    names = tuple(sorted({s.label for s in samples}))
    if len(names) == 1:
        raise DataError(f"{shown(root, 200)} has one class only ({names[0]!r}): a classifier needs at least two")
    samples = [replace(s, group=_group_of(s, group)) for s in samples] if group else samples
    return FileSource(_name_of(root), str(root.resolve()), tuple(samples), names, (*notes, *walk.notes()))


def _class_samples(walk: _Walk, root: Path, folder: Path, split: str | None) -> list[FileSample]:
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
        raise DataError(f"{shown(folder, 200)}: no pictures in class folder {_listed(empty)}; fill it or remove it")
    return samples


def _same_classes(names_by_split: dict[str, set[str]], top: Path) -> None:
    train = names_by_split["train"]
    for split, names in names_by_split.items():
        if names != train:
            parts = [
                f"only in {s}: {_listed(sorted(d))}" for s, d in (("train", train - names), (split, names - train)) if d
            ]
            raise DataError(f"{shown(top, 200)}: the class folders of train and {split} differ ({'; '.join(parts)})")


def _group_of(sample: FileSample, group: str) -> str:
    """The group that a path belongs to: its parent folder's path, or what the pattern catches."""
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
    if match is None:
        raise DataError(f"--group {shown(group)!r} does not match {shown(sample.relative, 200)}")
    return match.group(1) if match.re.groups else match.group()


def _pattern(group: str) -> re.Pattern[str]:
    try:
        return re.compile(group)
    except re.error as error:
        raise DataError(f"--group {shown(group)!r} is no regular expression: {error}") from error


def _from_csv(path: Path, group: str | None) -> FileSource:
    where = shown(path, 200)
    rows, columns = _csv_rows(path, where)
    for needed in ("path", "label"):
        if needed not in columns:
            raise DataError(f"{where} has no column {needed!r}; its columns are {_listed(columns)}")
    group_column = group if group in columns else "group" if "group" in columns and group is None else None
    samples: list[FileSample] = []
    first_seen: dict[str, int] = {}
    missing: list[str] = []
    for number, row in rows:
        relative, label = row["path"].strip(), unicodedata.normalize("NFC", row["label"].strip())
        if not relative or not label:
            raise DataError(f"{where}, line {number}: path and label must not be empty")
        if relative in first_seen:
            raise DataError(f"{where}, line {number}: {shown(relative)} stands in line {first_seen[relative]} already")
        first_seen[relative] = number
        split = _csv_split(row.get("split", ""), where, number)
        file = path.parent / relative
        if not file.is_file():
            missing.append(relative)
        sample = FileSample(file, relative.replace(os.sep, "/"), label, split)
        if group_column:
            sample = replace(sample, group=row[group_column].strip() or None)
        elif group:
            sample = replace(sample, group=_group_of(sample, group))
        samples.append(sample)
    if missing:
        raise DataError(f"{where}: {len(missing):,} of {len(samples):,} files are missing: {_listed(missing, 3)}")
    if not samples:
        raise DataError(f"{where} has no rows")
    with_split = sum(s.split is not None for s in samples)
    if 0 < with_split < len(samples):
        raise DataError(
            f"{where}: {len(samples) - with_split:,} of {len(samples):,} rows have no split; give all or none"
        )
    names = tuple(sorted({s.label for s in samples}))
    _need_classes(np.ones(len(names), int), names, where)
    if with_split:
        by_split = {split: {s.label for s in samples if s.split == split} for split in {s.split for s in samples}}
        if "train" not in by_split:
            raise DataError(f"{where}: no row has the split 'train'")
        _same_classes({str(k): v for k, v in by_split.items()}, path)
    return FileSource(_name_of(path), str(path.resolve()), tuple(samples), names)


def _csv_rows(path: Path, where: str) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
            columns = [c.strip() for c in reader.fieldnames or []]
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
