"""Which source a person means: a named set, a folder, a zip file, an .npz, a table or arrays.

Owns telling them apart. A source is listed, not decoded: images stay in their files until they are packed.
"""

from pathlib import Path
from typing import Any

from convlens import files
from convlens.data.sources.arrays import from_arrays
from convlens.data.sources.base import Source, name_of
from convlens.data.sources.idx import from_idx, has_idx_files
from convlens.data.sources.layouts import class_folders
from convlens.data.sources.named import NAMED_SETS, named_set
from convlens.data.sources.npz import from_npz
from convlens.data.sources.tables import SUFFIXES as TABLE_SUFFIXES
from convlens.data.sources.tables import table
from convlens.data.sources.tree import DiskTree, Tree, suffix_of
from convlens.data.sources.zip_file import ZipTree
from convlens.errors import DataError
from convlens.text import did_you_mean, shown


def open_source(
    what: Any, *, group: str | None = None, data_root: str | Path | None = None, problems: list[str] | None = None
) -> Source:
    """List a source: a named set, a path, a tuple of arrays (x, y) or (x_train, y_train, x_test, y_test).

    `group` (for files) is `parent`, a regular expression on the relative path, or a table's column. `data_root`
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
        return named_set(text, data_root)
    path = _existing(text)
    if path.is_dir():
        return open_tree(DiskTree(path), name_of(path), group, problems)
    suffix = suffix_of(path.name)
    if suffix == ".zip":
        return _in_zip(ZipTree(path), name_of(path), group, problems)
    if suffix == ".npz":
        _no_group(group, "an .npz")
        return from_npz(path)
    if suffix in TABLE_SUFFIXES:
        return table(DiskTree(path.parent), path.name, name_of(path), group, problems)
    raise DataError(f"{shown(text, 200)} is no data set: it must be a folder, a .zip, an .npz or a .csv")


def _existing(text: str) -> Path:
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:  # ~nobody
        raise DataError(f"no such path {shown(text, 200)}: {error}") from error
    if not text or not (files.is_file(path) or files.is_folder(path)):
        near = did_you_mean(text, NAMED_SETS)
        raise DataError(f"no data set or path {shown(text, 200)!r}{near}: named sets are {', '.join(NAMED_SETS)}")
    return path


def open_tree(tree: Tree, name: str, group: str | None = None, problems: list[str] | None = None) -> Source:
    """What a tree of names holds: IDX files, or class folders."""
    if has_idx_files(tree):
        _no_group(group, "IDX files")
        return from_idx(tree, name)
    return class_folders(tree, name, group, problems)


def _in_zip(tree: ZipTree, name: str, group: str | None, problems: list[str] | None) -> Source:
    """What a zip file holds: as a folder, or the table in it, which nobody can name from outside."""
    tables = [file for file in tree.files("") if suffix_of(file) in TABLE_SUFFIXES]
    if not tables:
        return open_tree(tree, name, group, problems)
    where = tree.where("")
    if len(tables) > 1:
        raise DataError(
            f"{where} has several tables ({', '.join(map(shown, tables))}): unpack it, and name one of them"
        )
    try:
        class_folders(tree, name, None)
    except DataError:
        return table(tree, tables[0], name, group, problems)
    raise DataError(
        f"{where} holds class folders and a table ({shown(tables[0])}), which may differ: unpack it, and name the one "
        "that is meant"
    )


def _no_group(group: str | None, what: str) -> None:
    if group is not None:
        raise DataError(f"`group` is for picture files; {what} have no paths to group by")
