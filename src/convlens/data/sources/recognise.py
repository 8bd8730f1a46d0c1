"""Which source a person means: a named set, a folder, a zip file, an .npz, a table or arrays.

Owns telling them apart, and the choice between what folders and tables say. A source is listed, not decoded: images
stay in their files until they are packed."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from convlens import files
from convlens.data.sources.arrays import from_arrays
from convlens.data.sources.base import FileSource, ReadOptions, Source, name_of
from convlens.data.sources.fetching import is_address, without_secrets
from convlens.data.sources.idx import from_idx, has_idx_files
from convlens.data.sources.layouts import class_folders, named_by_class, unwrapped
from convlens.data.sources.listing import Folder, list_tree
from convlens.data.sources.named import NAMED_SETS, named_set
from convlens.data.sources.npz import from_npz
from convlens.data.sources.parquet import SUFFIX as SHARDS_OF_PARQUET
from convlens.data.sources.parquet import from_parquet
from convlens.data.sources.pixel_tables import from_pixels, holds_pixels, pixel_tables
from convlens.data.sources.remote import fetched
from convlens.data.sources.split_words import split_of
from convlens.data.sources.tables import SUFFIXES as TABLE_SUFFIXES
from convlens.data.sources.tables import Files, folder_tables, joined, table, table_source
from convlens.data.sources.tar_shards import COMPRESSED, from_tar
from convlens.data.sources.tar_shards import SUFFIX as SHARDS_OF_TAR
from convlens.data.sources.tree import DiskTree, Tree, suffix_of
from convlens.data.sources.zip_file import ZipTree
from convlens.errors import ConvlensError, DataError
from convlens.progress import Progress, open_progress
from convlens.text import did_you_mean, listed, shown

_MOST_NAMES = 1_000  # beside a path that is not there, among which the nearest is looked for
NOTHING_SAID = ReadOptions()


def open_source(
    what: Any,
    read: ReadOptions = NOTHING_SAID,
    *,
    data_root: str | Path | None = None,
    problems: list[str] | None = None,
    progress: str | Progress = "none",
) -> Source:
    """List a source: a named set, a path or address, a tuple of arrays (x, y) or (x_train, y_train, x_test, y_test).

    `read` says how files are read where their names do not. `data_root` is where a named set lies that does not ship
    with convlens; without it one that does not is fetched, as what lies at an address is. Class folders that are empty,
    or that train lacks, are written into `problems` where there is such a list. Raises DataError, UsageError,
    StorageError.
    """
    if not isinstance(what, str | Path):
        try:
            return _in_memory(what, read)
        except (ConvlensError, MemoryError):
            raise
        except Exception as error:  # whatever a stranger's object raises
            raise DataError(f"the data cannot be read as images and labels: {shown(error)}") from error
    text = str(what)
    if text in NAMED_SETS:
        _only_for_files(read, text)
        return named_set(text, data_root, progress)
    if is_address(text):
        with open_progress(progress) as bar:
            path, notes = fetched(text, bar)
        found = open_source(path, read, problems=problems)
        return replace(found, location=without_secrets(text), notes=(*notes, *found.notes))
    path = _existing(text)
    suffix = suffix_of(path.name)
    if path.is_dir():
        tree = DiskTree(path)
        return _in_shards(tree, path, read) or open_tree(tree, name_of(path), read, problems)
    if path.name.lower().endswith(COMPRESSED):
        raise DataError(f"{shown(text, 200)} is compressed as a whole: unpack it, and name the folder or the .tar")
    if suffix == SHARDS_OF_PARQUET:
        return from_parquet(DiskTree(path.parent), [path.name], name_of(path), text, read)
    if suffix == SHARDS_OF_TAR:
        return from_tar(DiskTree(path.parent), [path.name], name_of(path), text, read)
    if suffix == ".zip":
        return open_tree(ZipTree(path), name_of(path), read, problems)
    if suffix == ".npz":
        _only_for_files(read, "an .npz")
        return from_npz(path)
    if suffix in TABLE_SUFFIXES:
        tree = DiskTree(path.parent)
        if holds_pixels(tree, path.name):
            _only_for_files(read, "a table of pixels")
            return from_pixels(tree, [path.name], name_of(path))
        return table(tree, path.name, name_of(path), read, problems)
    raise DataError(
        f"{shown(text, 200)} is no data set: it must be a folder, a .zip, an .npz, a .csv, .parquet or .tar"
    )


def _in_shards(tree: DiskTree, path: Path, read: ReadOptions) -> Source | None:
    """A folder of Parquet files or tar shards; None where it holds others, or pictures too."""
    root = list_tree(tree)
    if root.num_pictures:
        return None
    inside = [one for folder in root.every() for one in folder.others]
    for suffix, made in ((SHARDS_OF_PARQUET, from_parquet), (SHARDS_OF_TAR, from_tar)):
        if shards := [one for one in inside if suffix_of(one) == suffix]:
            return made(tree, shards, name_of(path), str(path), read)
    return None


def _in_memory(what: Any, read: ReadOptions) -> Source:
    if not isinstance(what, tuple | list | Mapping):
        if not hasattr(what, "__getitem__"):
            raise DataError(f"data is a name, a path, or arrays as (images, labels), not {type(what).__name__}")
        if hasattr(what, "dtype") or hasattr(what, "iloc"):
            raise DataError("data is images alone: give arrays as (images, labels)")
    _only_for_files(read, "arrays")
    return from_arrays(what)


def _existing(text: str) -> Path:
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:  # ~nobody
        raise DataError(f"no such path {shown(text, 200)}: {error}") from error
    if not text or not (files.is_file(path) or files.is_folder(path)):
        if text and os.path.lexists(path):
            raise DataError(f"{shown(text, 200)} is no regular file and no folder that can be opened")
        names = files.names_in(path.parent)[:_MOST_NAMES] if files.is_folder(path.parent) else []
        beside = [str(path.parent / name) for name in names]
        near = did_you_mean(text, [*NAMED_SETS, *beside])
        if re.match(r"\s*\w+\s*\(", text):
            near = " (a network is given by `architecture`)"
        raise DataError(f"no data set or path {shown(text, 200)!r}{near}: named sets are {', '.join(NAMED_SETS)}")
    return path


def open_tree(tree: Tree, name: str, read: ReadOptions = NOTHING_SAID, problems: list[str] | None = None) -> Source:
    """What a tree of names holds: IDX files, class folders, or pictures that a table in it labels. Raises DataError
    where it can be read in no way or in two, UsageError."""
    root = list_tree(tree)
    if not root.num_pictures and (pixels := pixel_tables(tree)):
        _only_for_files(read, "tables of pixels")
        return from_pixels(tree, pixels, name, root)
    if has_idx_files(root):
        _only_for_files(read, "IDX files")
        return from_idx(tree, name, root)
    if read.label is not None:
        return named_by_class(tree, name, root, read, problems)
    by_folders: FileSource | DataError
    said: list[str] = []
    try:
        by_folders = class_folders(tree, name, root, read, None if problems is None else said)
    except DataError as error:
        by_folders = error
    if read.layout is None:
        by_tables, hint, notes = _labelled_by_tables(tree, name, root, read, by_folders, problems)
        if by_tables is not None:
            return by_tables
        if isinstance(by_folders, FileSource):
            by_folders = replace(by_folders, hint=hint, notes=(*by_folders.notes, *notes))
    if isinstance(by_folders, DataError):
        raise by_folders
    if problems is not None:
        problems += said
    return by_folders


def _labelled_by_tables(
    tree: Tree,
    name: str,
    root: Folder,
    read: ReadOptions,
    by_folders: FileSource | DataError,
    problems: list[str] | None,
) -> tuple[FileSource | None, str, tuple[str, ...]]:
    """The source of the tables in a tree, where the folders say nothing; None where they say the same or there is no
    table, with the reason why others are none, and notes on those that name the pictures nevertheless. Raises DataError
    where tables and folders differ, or where only a table may know what folders that are numbered hold."""
    top, files_of = unwrapped(root)[0], Files(tree, root)
    of_splits = [folder.path for folder in top.folders if not folder.folders and split_of(folder.name) is not None]
    found, others = folder_tables(tree, sorted({"", top.path, *of_splits}), read, files_of)
    if not found:
        hint = ". ".join([str(error) for error in others.values()][:2])
        if isinstance(by_folders, DataError) and others:
            raise DataError(f"{by_folders}. {hint}") from by_folders
        unclear = [str(error) for error in others.values() if error.names_files]
        if unclear and isinstance(by_folders, FileSource) and _are_numbered(by_folders.class_names):
            raise DataError(
                f"{tree.where('')}: {listed(by_folders.class_names, 3)} may be parts of one whole, and a table names "
                f"their files, but {unclear[0]}. Say which is meant: `label_column=NAME` or `layout=class`"
            )
        said = "the folders are the classes, though a table names their files"
        return None, hint, tuple(f"{said}: {one}" for one in unclear)
    labels = joined(tree, found)
    names = [path for path, _ in found]
    if (
        isinstance(by_folders, FileSource)
        and len(by_folders.class_names) > 1
        and read.path_column is None
        and read.label_column is None
    ):
        of_folder = {row.name: row.label for row in by_folders.rows()}
        differs = [row for row in labels.rows if of_folder.get(row.name, row.label) != row.label]
        if not differs and all(row.name in of_folder for row in labels.rows):
            return None, "", ()
        if not differs and {row.name for row in labels.rows} >= of_folder.keys():  # it knows more of them
            return table_source(tree, names[0], name, labels, problems, unused=files_of), "", ()
        what = f"{listed(names)} says {shown(differs[0].label)!r}" if differs else f"{listed(names)} names other files"
        raise DataError(
            f"{tree.where('')} holds class folders and a table, which differ ("
            f"{what} of {shown(differs[0].name) if differs else 'them'}): name the table, or say `layout=class`"
        )
    return table_source(tree, names[0], name, labels, problems, unused=files_of), "", ()


def _are_numbered(names: Sequence[str]) -> bool:
    """Whether names differ in nothing but a number behind them."""
    stems = {name.rstrip("0123456789") for name in names}
    return len(names) > 1 and len(stems) == 1 and stems != {""} and all(name[-1:].isdigit() for name in names)


def _only_for_files(read: ReadOptions, what: str) -> None:
    for option, value in read._asdict().items():
        if value is not None:
            raise DataError(f"`{option}` is for picture files; {what} have no paths to read it off")
