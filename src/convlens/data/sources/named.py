"""Where samples come from: a named set, IDX files, an .npz, a CSV, class folders or NumPy arrays.

Owns telling them apart and the named sets. A source is listed, not decoded: pictures stay in their files until
`pack.py` reads them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from convlens.data import mnist
from convlens.data.sources import idx
from convlens.data.sources.arrays import from_arrays, from_idx, from_npz
from convlens.data.sources.base import ArraySource, ArraySplit, Source, name_of
from convlens.data.sources.layouts import from_csv, from_folders
from convlens.errors import DataError
from convlens.text import did_you_mean, shown

NAMED_SETS = ("mnist", "fashion-mnist")
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist


def open_source(
    what: Any,
    *,
    group: str | None = None,
    data_root: str | Path | None = None,
    problems: list[str] | None = None,
) -> Source:
    """List a source: a named set, a path, a tuple of arrays (x, y) or (x_train, y_train, x_test, y_test).

    `group` (for files) is `parent`, a regular expression on the relative path, or a CSV's column. `data_root`
    is where a named set lies that does not ship with convlens. Class folders that are empty, or that differ between
    splits, are written into `problems` where there is such a list. Raises DataError.
    """
    if isinstance(what, tuple | list | dict):
        _no_group(group, "arrays")
        return from_arrays(what)
    if not isinstance(what, str | Path):
        raise DataError(f"data is a name, a path, or arrays as (images, labels), not {type(what).__name__}")
    text = str(what)
    if text in NAMED_SETS:
        _no_group(group, text)
        return _named(text, data_root)
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:  # ~nobody
        raise DataError(f"no such path {shown(text, 200)}: {error}") from error
    try:
        exists = bool(text) and path.exists()
    except (OSError, ValueError):  # a name too long for any file, a null byte
        exists = False
    if not exists:
        near = did_you_mean(text, NAMED_SETS)
        raise DataError(f"no data set or path {shown(text, 200)!r}{near}: named sets are {', '.join(NAMED_SETS)}")
    if path.is_dir():
        if idx.has_idx_files(path):
            _no_group(group, "IDX files")
            return from_idx(path, name_of(path))
        return from_folders(path, group, problems)
    if path.suffix.lower() == ".npz":
        _no_group(group, "an .npz")
        return from_npz(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        return from_csv(path, group, problems)
    raise DataError(f"{shown(text, 200)} is no data set: it must be a folder, an .npz or a .csv")


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
            return _with_names(from_idx(candidate, name), FASHION_CLASSES)
    raise DataError(
        f"fashion-mnist does not ship with convlens, and its four IDX files are not in {shown(folder, 200)}: "
        "'apt install dataset-fashion-mnist', or name the folder that has them with --data-root"
    )


def _with_names(source: ArraySource, names: tuple[str, ...]) -> ArraySource:
    if len(source.class_names) != len(names):
        raise DataError(f"{shown(source.location, 200)} has {len(source.class_names)} classes, not {len(names)}")
    return replace(source, class_names=names)
