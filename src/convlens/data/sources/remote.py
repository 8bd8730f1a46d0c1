"""Data at an address: fetched into the cache, and read as what lies on a disk is.

Owns which files an address means, and whether the copy in the cache is still what lies there.
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from convlens import files
from convlens.data.image.decode import SUFFIXES
from convlens.data.sources.base import clean_name
from convlens.data.sources.fetching import (
    FetchError,
    Kept,
    asked,
    fetch,
    file_system,
    is_web,
    mark_at,
    without_secrets,
)
from convlens.data.sources.tree import suffix_of
from convlens.errors import DataError
from convlens.progress import Progress
from convlens.text import counted, shown

_KINDS = (*SUFFIXES, ".zip", ".npz", ".csv", ".tsv", ".parquet", ".tar", ".gz", ".json", ".txt")
_MOST_FILES = 100_000


def fetched(address: str, bar: Progress) -> tuple[Path, tuple[str, ...]]:
    """The copy of what lies at an address, a file or a folder, and notes. Fetched when it is first asked for, and anew
    when it has changed there; where nobody answers the copy serves, and that is said. Raises DataError, UsageError,
    StorageError."""
    kept_as = without_secrets(address)
    folder = files.cache_folder() / "fetched" / files.sha256_of(kept_as.encode())[:16]
    with files.lock(folder.with_name(f"{folder.name}.lock")):
        if is_web(address):
            return _file(address, folder / _name_of(urlsplit(address).path), bar)
        return _by_fsspec(address, folder, bar)


def _file(address: str, path: Path, bar: Progress) -> tuple[Path, tuple[str, ...]]:
    """One file."""
    notes, has_changed = [], False
    if files.is_file(path):
        try:
            before, now = Kept(path).text(), mark_at(address)
            has_changed = bool(before and now and before != now)
        except FetchError as error:
            notes.append(f"whether it has changed since it was fetched is not known ({shown(error, 120)})")
    if has_changed:
        bar.line(f"{shown(without_secrets(address), 200)} has changed: it is fetched anew")
        new = path.parent / ".new" / path.name  # what is there goes when that is whole
        mark = fetch([address], new, bar)
        files.move_file(new, path)
        Kept(path).begin(mark)
    if not files.is_file(path):
        bar.line(f"fetching {shown(without_secrets(address), 200)} into {shown(path.parent, 200)}")
        fetch([address], path, bar)
    return path, (f"fetched from {shown(without_secrets(address), 200)}", *notes)


def _by_fsspec(address: str, folder: Path, bar: Progress) -> tuple[Path, tuple[str, ...]]:
    """A file, those of a pattern, or the data of a folder."""
    scheme = address.partition("://")[0]
    system, path = file_system(address)
    where = shown(without_secrets(address), 200)
    if "*" in path:
        names = asked(lambda: system.glob(path), address)
        root = path.partition("*")[0].rpartition("/")[0]
    elif asked(lambda: system.isdir(path), address):
        names, root = asked(lambda: system.find(path), address), path.rstrip("/")
    else:
        return _file(address, folder / _name_of(path), bar)
    names = [name for name in sorted(names) if suffix_of(name) in _KINDS]
    if not names:
        raise DataError(f"{where} holds no files of data")
    if len(names) > _MOST_FILES:
        raise DataError(f"{where} holds {len(names):,} files: more than {_MOST_FILES:,}; put them into shards")
    place = folder / _name_of(root)
    missing = [name for name in names if not files.is_file(place / name[len(root) :].strip("/"))]
    if missing:
        bar.line(f"fetching {counted(len(missing), 'file')} from {where} into {shown(place, 200)}")
    for name in names:
        inside = name[len(root) :].strip("/")
        if ".." in inside.split("/"):
            raise DataError(f"{where} has a name that leads out: {shown(name)!r}")
        if name in missing:
            fetch([f"{scheme}://{name}"], place / inside, bar)
    kept = f" ({len(names) - len(missing):,} of them before, not asked for again)" if len(missing) < len(names) else ""
    return place, (f"{counted(len(names), 'file')} fetched from {where}{kept}",)


def _name_of(path: str) -> str:
    """The name at the end of a path, fit for a file; its suffix stays."""
    stem, dot, suffix = unquote(path).rstrip("/").rpartition("/")[2].rpartition(".")
    return f"{clean_name(stem)}.{clean_name(suffix)}" if dot and stem else clean_name(suffix)
