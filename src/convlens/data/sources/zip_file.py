"""A zip file as a tree of names, read in place.

Owns what such an archive may be: nothing is unpacked, no name leads out of it, and none promises more than it holds.
"""

import zipfile
import zlib
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, cast

from convlens.data.image.decode import MAX_FILE_BYTES, SUFFIXES
from convlens.data.sources.tree import Entry, Tree, suffix_of
from convlens.errors import DataError, ImageError
from convlens.text import listed, shown

_MOST_TIMES = 100  # an archive may unfold to so many times its size
_SMALL_BYTES = 1 << 30  # or to this, whatever its size
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError)


class ZipTree(Tree):
    """The members of a zip file. Raises DataError where it is broken, encrypted or a bomb, where a name leads out of it
    or stands twice, or where it holds nothing but other zip files."""

    def __init__(self, path: Path) -> None:
        self.location = str(path)
        where = shown(path, 200)
        try:
            self._archive = zipfile.ZipFile(path)
        except (*_UNREADABLE, MemoryError) as error:
            raise DataError(f"{where} cannot be read as a zip file: {shown(error)}") from error
        members = [info for info in self._archive.infolist() if not info.is_dir()]
        self._members = {info.filename: info for info in members}
        _check_members(members, self._archive.infolist(), path.stat().st_size, where)
        self._folders: dict[str, dict[str, bool]] = {"": {}}
        for name in self._members:
            self._add(name, is_folder=False)
        for info in self._archive.infolist():
            if info.is_dir():
                self._add(info.filename.rstrip("/"), is_folder=True)
        inner = [name for name in self._members if suffix_of(name) == ".zip"]
        if inner and not any(suffix_of(name) in SUFFIXES or "idx" in name for name in self._members):
            raise DataError(
                f"{where} holds nothing but zip files ({listed(inner, 3)}): unpack it, and name one of them"
            )

    def _add(self, path: str, *, is_folder: bool) -> None:
        """Put a path and the folders above it into the tree."""
        while path:
            parent, _, name = path.rpartition("/")
            siblings = self._folders.setdefault(parent, {})
            if siblings.get(name, is_folder) != is_folder:
                raise DataError(f"{self.where(path)} is a file and a folder at once")
            if is_folder:
                self._folders.setdefault(path, {})
            siblings[name] = is_folder
            path, is_folder = parent, True

    def resolved(self, path: str = "") -> str:
        return str(Path(self.location).resolve())

    def listed(self, path: str) -> list[Entry]:
        return sorted(Entry(name, is_folder) for name, is_folder in self._folders[path].items())

    def read(self, path: str) -> bytes:
        info = self._members[path]
        if info.file_size > MAX_FILE_BYTES:
            raise ImageError(f"{info.file_size:,} bytes is more than the limit of {MAX_FILE_BYTES:,}")
        try:
            with self._archive.open(info) as file:
                return file.read(info.file_size)  # by its size: a member that is larger than it says ends here
        except _UNREADABLE as error:
            raise ImageError(f"cannot be read from the zip file: {shown(error)}") from error

    def open(self, path: str) -> BinaryIO:
        try:
            return cast(BinaryIO, self._archive.open(self._members[path]))
        except _UNREADABLE as error:
            raise DataError(f"{self.where(path)} cannot be read: {shown(error)}") from error

    def stat(self, path: str) -> tuple[int | None, tuple[int, ...]]:
        info = self._members.get(path)
        return (None, ()) if info is None else (info.file_size, (info.CRC,))

    def is_file(self, path: str) -> bool:
        return path in self._members


def _check_members(
    members: list[zipfile.ZipInfo], all_members: list[zipfile.ZipInfo], num_bytes: int, where: str
) -> None:
    """Raises DataError for names and sizes that an archive of somebody's pictures does not have."""
    names = [info.filename for info in members]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DataError(f"{where} has two members of one name: {listed(twice, 3)}; pack it anew")
    for info in all_members:
        parts = info.filename.split("/")
        if info.filename.startswith("/") or ".." in parts or "\\" in info.filename or parts[0].endswith(":"):
            raise DataError(f"{where} has a member whose name leads out of it: {shown(info.filename)!r}")
        if info.flag_bits & 1:
            raise DataError(f"{where} is encrypted ({shown(info.filename)}): unpack it, and name the folder")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unfold without bounds
            raise DataError(f"{where} is not compressed by deflate ({shown(info.filename)}): pack it anew")
    unfolded = sum(info.file_size for info in members)
    if unfolded > max(_SMALL_BYTES, _MOST_TIMES * num_bytes):
        raise DataError(f"{where} would unfold from {num_bytes:,} to {unfolded:,} bytes: it is a zip bomb, or damaged")
    placed = sorted(members, key=lambda info: info.header_offset)
    for info, after in pairwise(placed):
        if info.header_offset + info.compress_size > after.header_offset:
            raise DataError(
                f"{where} has members that lie upon one another ({shown(after.filename)}): it is a zip bomb"
            )
