"""Durable files: the only place in convlens that writes to disk.

Owns atomic replacement (temporary file beside the target, flush, fsync, rename, fsync of the folder where
the system can), whole folders that appear at once, locks, and the places where convlens keeps things. Knows
nothing of what it writes. Every OSError leaves here as a `StorageError` that names the path and the remedy.
"""

import errno
import glob
import hashlib
import io
import json
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import filelock
import platformdirs

from convlens.errors import RecordError, RunError, StorageError, UsageError
from convlens.text import shown

UNFINISHED = ".unfinished"  # how the names of folders end that go on
_BUSY_S = 0.5  # that a lock is waited for before it counts as taken: `is_locked` holds it for a moment


def cache_folder() -> Path:
    """Where packed data sets live (`CONVLENS_CACHE` overrides the system's cache folder)."""
    override = os.environ.get("CONVLENS_CACHE")
    return Path(override) if override else _home("CONVLENS_CACHE", platformdirs.user_cache_dir)


def state_folder() -> Path:
    """Where the ledger of test openings lives (`CONVLENS_STATE` overrides the system's state folder)."""
    override = os.environ.get("CONVLENS_STATE")
    return Path(override) if override else _home("CONVLENS_STATE", platformdirs.user_state_dir)


def _home(variable: str, place: Callable[..., str]) -> Path:
    try:
        return Path(place("convlens", appauthor=False))
    except RuntimeError as error:  # no home folder
        raise StorageError(f"no folder to keep things in ({error}): name one in {variable}") from error


def storage_error(error: OSError, path: Path) -> StorageError:
    """The one-line error for an OSError met while writing `path`."""
    where = shown(path, 200)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(f"no space left to write {where}: free some, or choose another place")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(f"cannot write {where} (read-only or not yours): choose another place")
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return StorageError(f"cannot write {where}: a file stands where a folder is needed")
    return StorageError(f"cannot write {where}: {error.strerror or error}")


@contextmanager
def _storage(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def make_folder(path: Path) -> Path:
    """Create `path` and its parents if absent. Raises StorageError."""
    with _storage(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def sync_folder(path: Path) -> None:
    """fsync a folder, so that a rename in it survives a power cut; skipped where the system refuses."""
    if os.name == "nt":
        return
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _temporary_beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def write_with(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace `path` by what `write(file)` writes: whole, or not at all. Raises StorageError."""
    temporary = _temporary_beside(path)
    with _storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, durably. Raises StorageError."""
    write_with(path, lambda file: file.write(data))


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8, durably. Raises StorageError."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_private(path: Path, text: str) -> None:
    """Replace `path` by `text` in a file that nobody but its owner may read. Raises StorageError."""
    temporary = _temporary_beside(path)
    with _storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)


def write_json(path: Path, value: object) -> None:
    """Replace `path` by `value` as JSON in UTF-8, durably. Raises StorageError."""
    write_bytes(path, _json_bytes(value, indent=2))


def _json_bytes(value: object, indent: int | None = None) -> bytes:
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
        return f"{text}\n".encode()
    except UnicodeEncodeError:  # names that are no Unicode
        return f"{json.dumps(value, indent=indent, allow_nan=False)}\n".encode("ascii")


def append_line(path: Path, value: object, *, durable: bool = False) -> None:
    """Append `value` as one line of JSON in a single write; fsync it if `durable`. Raises StorageError."""
    line = _json_bytes(value)
    with _storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            # A line that a crash cut short must not swallow this one.
            if file.seek(0, os.SEEK_END) and not _ends_with_newline(file):
                line = b"\n" + line
            file.write(line)
            file.flush()
            if durable:
                os.fsync(file.fileno())


def _ends_with_newline(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def read_regular(path: Path, most_bytes: int) -> bytes:
    """The bytes of a regular file of at most so many. Raises OSError, for pipes, devices and larger ones too."""
    data, size = read_start(path, most_bytes)
    if size > most_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {most_bytes:,} bytes", str(path))
    return data


def read_start(path: Path, most_bytes: int) -> tuple[bytes, int]:
    """The first bytes of a regular file, at most so many, and its size. Raises OSError, for pipes and devices too."""
    with open_regular(path) as file:
        num_bytes = os.fstat(file.fileno()).st_size
        return file.read(min(most_bytes, num_bytes)), num_bytes


def open_regular(path: Path) -> io.BufferedReader:
    """A regular file, to be read. Raises OSError, for pipes and devices too: a pipe would be waited for."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        what = "it is a folder" if stat.S_ISDIR(facts.st_mode) else "it is no regular file"
        raise OSError(errno.EINVAL, what, str(path))
    return os.fdopen(descriptor, "rb")


def opened_to_write_on(path: Path, num_bytes: int | None) -> BinaryIO:
    """A file, made where it is not there, that is cut back to its first bytes (None: is left as it is) and written on.
    Raises StorageError."""
    with _storage(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        file = os.fdopen(descriptor, "rb+", 1 << 20)
        if num_bytes is not None:
            file.truncate(num_bytes)
            file.seek(num_bytes)
    return file


def truncate(path: Path, num_bytes: int) -> None:
    """Cut `path` back to its first `num_bytes`; shorter and absent files stay as they are. Raises StorageError."""
    if path.exists():
        with _storage(path), path.open("r+b") as file:
            file.truncate(min(num_bytes, path.stat().st_size))


@contextmanager
def new_folder(path: Path, *, replace: bool = False, kept: str | None = None) -> Iterator[Path]:
    """Yield a hidden folder beside `path` to fill; on success it becomes `path`, else it is removed.

    The folder appears whole or not at all. Where `path` exists already, RunError unless `replace`; then the
    older folder goes only after the new one is whole. With `kept`, the name of a file that says how far it is, a folder
    that was broken off stays where that file is in it, and the next one gets it: the caller holds a lock. Raises
    StorageError.
    """
    path = path.absolute()  # `.` has no name to put a hidden folder beside
    if not replace:
        refuse_existing(path)
    temporary = _temporary_beside(path) if kept is None else unfinished(path)
    with _storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(exist_ok=kept is not None)
    try:
        yield temporary
        with _storage(path):
            for file in temporary.rglob("*"):
                if file.is_file():
                    sync_file(file)
            sync_folder(temporary)
            if path.exists() and replace:
                _set_aside(path)
            elif path.exists():  # it was empty before; whoever filled it meanwhile keeps it
                refuse_existing(path)
                path.rmdir()
            temporary.rename(path)
            sync_folder(path.parent)
    except BaseException as error:
        is_broken_off = isinstance(error, OSError | StorageError) or not isinstance(error, Exception)
        if kept is None or not is_broken_off or not is_file(temporary / kept):
            remove_folder(temporary)
        if isinstance(error, OSError):
            raise storage_error(error, path) from error
        raise


def unfinished(path: Path) -> Path:
    """Where a folder is filled that goes on when it was broken off."""
    return path.with_name(f".{path.name}{UNFINISHED}")


def days_since(path: Path) -> float:
    """Days since a file was written; 0 where that is not known."""
    try:
        return (time.time() - path.stat().st_mtime) / 86_400
    except OSError:
        return 0.0


def empty_folder(path: Path) -> None:
    """Remove what is in a folder. Raises StorageError."""
    with _storage(path):
        for one in path.iterdir():
            remove_folder(one) if one.is_dir() else one.unlink()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for files that another program reads or writes; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="convlens-") as folder:
        yield Path(folder)


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; never an error."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # a name too long for any file, a null byte
        return False


def is_folder(path: str | Path) -> bool:
    """Whether there is such a folder; never an error."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted. Raises RecordError where it cannot be looked into."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise RecordError(f"cannot read {shown(folder, 200)}: {error.strerror or error}") from error


@contextmanager
def streamed_text(path: Path, *, replace: bool = False, go_on: bool = False) -> Iterator[Callable[[str], None]]:
    """A function that adds text to a new file, at once: whoever ends early keeps what is there. With `replace` a file
    that is there is replaced once all is written, and stays what it was if that does not come; with `go_on` text is
    added to its end. Raises StorageError."""
    place = _temporary_beside(path) if replace else path
    with _storage(path):
        file = place.open("a" if go_on else "x", encoding="utf-8", newline="")

    def write(text: str) -> None:
        with _storage(path):
            file.write(text)
            file.flush()

    try:
        with file:
            yield write
        if replace:
            with _storage(path):
                place.replace(path)
    finally:
        if replace:
            place.unlink(missing_ok=True)


_RECORDS = ("run.json", "packed.json")


def refuse_existing(path: Path) -> None:
    """Raises RunError where `path` is there and is more than an empty folder."""
    with _storage(path):
        if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
            raise RunError(f"{shown(path, 200)} exists already: nothing was written; name another folder")


def check_new_file(
    path: Path, suffixes: tuple[str, ...] = (), what: str = "", *, replace: bool = False, hint: str = "`replace=True`"
) -> None:
    """Raises UsageError unless a new file, with one of the suffixes, may be made there, or with `replace` one in the
    place of another that is no record of convlens's own. `what` names it, an option for example; `hint` is what
    replaces, if anything does. Raises StorageError where its folder is missing or cannot be written."""
    named = f"{what} {shown(path, 200)}".strip()
    if suffixes and path.suffix.lower() not in suffixes:
        listed = " or ".join(filter(None, [", ".join(suffixes[:-1]), suffixes[-1]]))
        raise UsageError(f"{named} must end in {listed}")
    try:
        if os.path.lexists(path):
            if replace and path.name in _RECORDS:
                raise UsageError(f"{named} is a record of convlens's own: name another file")
            if not (replace and is_file(path)):
                raise UsageError(f"{named} exists already: name another file{hint and f', or say {hint}'}")
    except ValueError:  # a null byte
        raise UsageError(f"{named} is no name for a file") from None


def reserve_folder(parent: Path, name: str) -> Path:
    """Make the first of `parent/NAME-1`, `-2` … that is not there, empty: nobody else gets it. Raises StorageError."""
    with _storage(parent):
        parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = parent / f"{name}-{number}"
            try:
                path.mkdir()
                return path
            except FileExistsError:
                number += 1


def touch(path: Path) -> None:
    """Have a file count as used just now, where that can be said."""
    with suppress(OSError):
        os.utime(path)


def by_last_use(folder: Path) -> list[tuple[Path, int]]:
    """The files of a folder with their sizes in bytes, those that were used longest ago first; one that another process
    removes meanwhile is left out."""
    found = []
    for path in folder.iterdir():
        with suppress(OSError):
            facts = path.stat()
            found.append((facts.st_mtime, path, facts.st_size))
    return [(path, size) for _, path, size in sorted(found)]


def move_file(source: Path, target: Path) -> None:
    """Have a file another name on the same disk, in the place of what was there. Raises StorageError."""
    with _storage(target):
        source.replace(target)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there and can be."""
    with suppress(OSError):
        path.unlink()


def remove_if_empty(path: Path) -> None:
    """Remove a folder that nothing was written into."""
    with suppress(OSError):
        path.rmdir()


def remove_leftovers(folder: Path, of: str = "") -> None:
    """Remove what a process that was killed while writing left in `folder`, of the name `of` or of any.

    The caller holds the lock of what it removes.
    """
    for path in folder.glob(f".{glob.escape(of)}*.partial"):
        if path.is_dir():
            remove_folder(path)
        else:
            with suppress(OSError):
                path.unlink()


def _set_aside(path: Path) -> None:
    aside = _temporary_beside(path)
    path.rename(aside)
    remove_folder(aside)


def sync_file(path: Path) -> None:
    """fsync a file that is already written. Raises OSError."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def remove_folder(path: Path) -> None:
    """Remove a folder and all in it; what cannot be removed stays."""
    shutil.rmtree(path, ignore_errors=True)


def check_room(folder: Path, num_bytes: int) -> None:
    """Prove before a long job that `num_bytes` can be written under `folder` (which may not exist yet).

    A small file is really written, and the free space is asked for. Raises StorageError.
    """
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    with _storage(folder):
        if not existing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(existing))
        probe = _temporary_beside(existing / "probe")
        try:
            with probe.open("xb") as file:
                file.write(b"\0" * 4096)
                file.flush()
                os.fsync(file.fileno())
        finally:
            with suppress(OSError):
                probe.unlink()
        free_bytes = shutil.disk_usage(existing).free
    if free_bytes < num_bytes:
        raise StorageError(
            f"no space left under {shown(folder, 200)}: about {num_bytes / 1e6:.0f} MB needed, "
            f"{free_bytes / 1e6:.0f} MB free; free some, or choose another place"
        )


def is_locked(path: Path) -> bool | None:
    """Whether somebody holds the lock file `path`; None where that cannot be found out."""
    holder = filelock.FileLock(str(path), timeout=0)
    try:
        holder.acquire()
    except filelock.Timeout:
        return True
    except OSError:  # a folder that cannot be written, say
        return None
    holder.release()
    return False


@contextmanager
def lock(path: Path, *, busy: str | None = None) -> Iterator[None]:
    """Hold the lock file `path`. With `busy`, do not wait: raise RunError(busy) where somebody holds it."""
    with _storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    holder = filelock.FileLock(str(path), timeout=-1 if busy is None else _BUSY_S)
    try:
        holder.acquire()
    except filelock.Timeout:
        assert busy is not None
        raise RunError(busy) from None
    except OSError as error:
        raise storage_error(error, path) from error
    try:
        yield
    finally:
        holder.release()


def sha256_of(data: bytes | memoryview) -> str:
    """SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a regular file's bytes in hexadecimal, read in pieces. Raises OSError, for pipes and devices too."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
