"""A tree of names: folders and files, wherever they lie. Layouts read one, and never ask what it is made of.

Owns the tree on a disk and what is litter in any tree. Paths are relative to the root, with slashes; "" is the root.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Hashable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from convlens import files
from convlens.data.image.decode import read_bytes
from convlens.errors import DataError
from convlens.text import shown

_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


class Entry(NamedTuple):
    """A name in a folder."""

    name: str
    is_folder: bool


class Tree(ABC):
    """What layouts and sources ask. `location` is how a person names the root, `folder` where it lies on a disk (None
    where it does not)."""

    location: str
    folder: Path | None = None

    @abstractmethod
    def listed(self, path: str) -> list[Entry]:
        """What a folder holds, in order of the names. Raises DataError."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """An image file's bytes. Raises ImageError."""

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """A file, to be read from its start. Raises OSError, DataError."""

    @abstractmethod
    def stat(self, path: str) -> tuple[int | None, tuple[int, ...]]:
        """A file's size in bytes (None where it cannot be read), and what changes when its contents do."""

    @abstractmethod
    def is_file(self, path: str) -> bool:
        """Whether there is such a file."""

    @abstractmethod
    def resolved(self, path: str = "") -> str:
        """Where the root, or a file that is named on a disk, lies: what a source is found again by."""

    def key(self, path: str) -> Hashable:
        """The same for two paths that lead to the same folder."""
        return path

    def where(self, path: str) -> str:
        """A path as a message shows it."""
        return shown(f"{self.location}/{path}" if path else self.location, 200)

    def entries(self, path: str) -> list[Entry]:
        """What a folder holds, litter left aside."""
        return [entry for entry in self.listed(path) if not is_litter(entry.name)]

    def folders(self, path: str) -> list[str]:
        """The paths of the folders in a folder."""
        return [join(path, entry.name) for entry in self.entries(path) if entry.is_folder]

    def files(self, path: str) -> list[str]:
        """The names of the files in a folder."""
        return [entry.name for entry in self.entries(path) if not entry.is_folder]


def is_litter(name: str) -> bool:
    """Whether a name is hidden, or of the kind that systems leave behind."""
    return name.startswith(".") or name.lower() in _LITTER


def join(path: str, name: str) -> str:
    """A name in a folder, as a path."""
    return f"{path}/{name}" if path else name


def stem_and_suffix(name: str) -> tuple[str, str]:
    """`7` and `.png` of a name or path, the suffix in lower case and empty where there is none: as pathlib has them,
    which takes ten times as long."""
    name = name.rpartition("/")[2]
    dot = name.rfind(".")
    return (name[:dot], name[dot:].lower()) if 0 < dot < len(name) - 1 else (name, "")


def suffix_of(name: str) -> str:
    """`.png` of a name or path, in lower case; empty without one."""
    return stem_and_suffix(name)[1]


def stem_of(name: str) -> str:
    """The name at the end of a path, without its suffix."""
    return stem_and_suffix(name)[0]


class DiskTree(Tree):
    """A folder. Links are followed."""

    def __init__(self, root: Path) -> None:
        self.folder: Path = root
        self.location = str(root)
        self._listed: dict[str, list[Entry]] = {}

    def resolved(self, path: str = "") -> str:
        return str((self.folder / path).resolve())

    def where(self, path: str) -> str:
        return shown(self.folder / path, 200)

    def listed(self, path: str) -> list[Entry]:
        if path not in self._listed:
            try:
                with os.scandir(self.folder / path) as found:
                    self._listed[path] = sorted(Entry(entry.name, _is_folder(entry)) for entry in found)
            except OSError as error:
                raise DataError(f"cannot read folder {self.where(path)}: {error.strerror or error}") from error
        return self._listed[path]

    def read(self, path: str) -> bytes:
        return read_bytes(os.path.join(self.folder, path))  # noqa: PTH118 - a Path takes longer than to read

    def open(self, path: str) -> BinaryIO:
        return (self.folder / path).open("rb")

    def stat(self, path: str) -> tuple[int | None, tuple[int, ...]]:
        try:
            status = (self.folder / path).stat()
            # Archives unpack files of equal time: one in another's place has its own change time or number.
            return status.st_size, (status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        except (OSError, ValueError):
            return None, ()

    def is_file(self, path: str) -> bool:
        return files.is_file(self.folder / path)

    def key(self, path: str) -> Hashable:
        status = (self.folder / path).stat()
        return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere or to itself
        return False
