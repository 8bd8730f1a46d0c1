"""What lies in a tree: folders, pictures in them, and what else is there.

Owns what counts as a picture before it is opened, and what convlens itself has written and therefore never reads. Knows
no layout.
"""

import re
import zipfile
import zlib
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

from convlens.data.image.decode import REFUSED_SUFFIXES, SUFFIXES, looks_like_a_picture
from convlens.data.sources.tree import DiskTree, Tree, is_litter, join, suffix_of
from convlens.errors import DataError

# What stands at the start of the documents that a run, a packed set and a result are known by.
_OWN = re.compile(rb'"kind": ?"convlens-')
_OWN_DOCUMENTS = frozenset({"run.json", "dataset.json"})


@dataclass
class Folder:
    """A folder of a tree: what it holds, in order of the names; pictures and other files by path."""

    path: str
    entries: list[Self | str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    is_own: bool = False  # convlens wrote it

    @property
    def name(self) -> str:
        """Its own name, without the folders above."""
        return self.path.rpartition("/")[2]

    @cached_property
    def subfolders(self) -> list[Self]:
        """All folders directly in it but those that convlens wrote."""
        return [entry for entry in self.entries if not isinstance(entry, str) and not entry.is_own]

    @cached_property
    def folders(self) -> list[Self]:
        """Those that hold pictures, at any depth."""
        return [folder for folder in self.subfolders if folder.num_pictures]

    @cached_property
    def loose(self) -> list[str]:
        """The pictures directly in it."""
        return [entry for entry in self.entries if isinstance(entry, str)]

    @cached_property
    def num_pictures(self) -> int:
        """Pictures in it, at any depth."""
        return 0 if self.is_own else len(self.loose) + sum(folder.num_pictures for folder in self.subfolders)

    @cached_property
    def num_files(self) -> int:
        """Files in it, at any depth."""
        inner = sum(entry.num_files for entry in self.entries if not isinstance(entry, str))
        return 1 if self.is_own else len(self.loose) + len(self.others) + inner

    def pictures(self) -> Iterator[str]:
        """The pictures in it at any depth, in order of the names."""
        for entry in self.entries if not self.is_own else ():
            if isinstance(entry, str):
                yield entry
            else:
                yield from entry.pictures()

    def every(self) -> Iterator[Self]:
        """It and the folders in it, at any depth, those that convlens wrote among them."""
        yield self
        for entry in self.entries:
            if not isinstance(entry, str):
                yield from entry.every()


def list_tree(tree: Tree, path: str = "", above: tuple[Hashable, ...] = ()) -> Folder:
    """All that lies in a tree, litter and hidden names left aside; goes round no loop. Raises DataError."""
    folder, here = Folder(path), tree.key(path)
    if here in above:
        return folder  # a link that leads back up
    entries = tree.entries(path)
    folder.is_own = any(entry.name in _OWN_DOCUMENTS and _is_own(tree, join(path, entry.name)) for entry in entries)
    for entry in entries if not folder.is_own else ():
        inner = join(path, entry.name)
        if entry.is_folder:
            folder.entries.append(list_tree(tree, inner, (*above, here)))
        elif is_picture(tree, inner):
            folder.entries.append(inner)
        else:
            folder.others.append(inner)
    return folder


def is_picture(tree: Tree, path: str) -> bool:
    """Whether a file counts as a picture: by its suffix, or without one by how it begins."""
    suffix = suffix_of(path)
    if suffix in SUFFIXES or suffix in REFUSED_SUFFIXES:
        return True
    return not suffix[1:].isalpha() and looks_like_a_picture(_start(tree, path))


def _start(tree: Tree, path: str) -> bytes:
    """How a file begins; nothing where it cannot be read."""
    try:
        if tree.is_file(path):  # a pipe would be waited for
            with tree.open(path) as file:
                return file.read(256)
    except (OSError, ValueError, DataError, zipfile.BadZipFile, zlib.error):
        pass
    return b""


def _is_own(tree: Tree, path: str) -> bool:
    return _OWN.search(_start(tree, path)) is not None


def pictures_in(folder: Path) -> list[Path]:
    """The pictures under a folder, in order of their names, litter left aside. Raises DataError."""
    return [folder / path for path in list_tree(DiskTree(folder)).pictures() if suffix_of(path) not in REFUSED_SUFFIXES]


def hidden_pictures(tree: Tree) -> dict[str, int]:
    """The hidden folders of a tree that hold pictures, by path, with how many; none of them is read."""
    found: dict[str, int] = {}

    def look(folder: str, above: tuple[Hashable, ...]) -> None:
        here = tree.key(folder)
        for entry in tree.listed(folder) if here not in above else []:
            path = join(folder, entry.name)
            if entry.is_folder and not is_litter(entry.name):
                look(path, (*above, here))
            elif entry.is_folder and (num := list_tree(tree, path).num_pictures):
                found[path] = num

    look("", ())
    return found
