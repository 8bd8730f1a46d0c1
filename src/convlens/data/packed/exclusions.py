"""Samples that are left out: lists of them, and which samples of a data set a list means.

Owns the list's form: one line a sample or a folder, either its name alone or a JSON object with `path` (and `reason`),
as `check` writes it and a person may.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from msgspec import Meta

from convlens import files
from convlens.errors import DataError, RecordError, UsageError
from convlens.records import Record, Text, parsed
from convlens.text import counted, listed, shown

MAX_LIST_BYTES = 256 * 1024 * 1024


class Exclusion(Record, frozen=True):
    """A line of a list: the sample that is left out, and why."""

    path: Annotated[str, Meta(min_length=1, max_length=4_096)]
    reason: Text | None = None


def exclusions(what: str | Path | Iterable[str] | None) -> tuple[str, ...]:
    """The names of the samples to leave out, sorted: read from a file, or as given. Raises DataError, UsageError.

    A picture file's name is its path relative to the data's root, with slashes, and a folder's name means all in it; an
    array's sample is split/number from 0, as `train/17` (`all/17` where the arrays have no splits).
    """
    if what is None:
        return ()
    if not isinstance(what, str | Path):
        names = list(what)
        if not all(isinstance(name, str) and name for name in names):
            raise UsageError("exclude must be a file, or the names of samples")
        return tuple(sorted(set(names)))
    where = shown(what, 200)
    try:
        lines = files.read_regular(Path(what), MAX_LIST_BYTES).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(
            f"no list of exclusions {where!r} ({error.strerror or error}): it must be a file, as the "
            "`write_exclusions` of check makes it"
        ) from error
    except ValueError as error:
        raise DataError(f"the exclusions {where} cannot be read as UTF-8: {shown(error)}") from error
    names = [_name(line.strip(), f"{where}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    return tuple(sorted(set(names)))


def _name(line: str, where: str) -> str:
    if not line.startswith("{"):
        return line
    try:
        return parsed(line.encode("utf-8"), Exclusion, where).path
    except RecordError as error:
        raise DataError(f'{error}: it is neither a name nor a JSON object with a "path"') from None


class Matched(NamedTuple):
    """The samples of a data set that a list means, sorted, and the names on it that are not there."""

    names: tuple[str, ...]
    gone: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be said: names that are not there, gone since or misspelt."""
        if not self.gone:
            return ()
        return (f"{counted(len(self.gone), 'name')} to leave out, of which there is no sample: {listed(self.gone, 3)}",)


def matched(exclude: Sequence[str], names: Iterable[str], where: str) -> Matched:
    """Which of the samples `names` a list means. Names are paths: of a sample, or of a folder of samples. A list may
    have been made one or more folders further up or down, as a table and the folder that it stands for have other
    roots: then all its paths miss, or have too much of, the same beginning. Raises DataError where none of the list is
    there, or where it is not clear which beginning is meant."""
    if not exclude:
        return Matched(())
    of = _by_path(names)
    asked = [name.rstrip("/") or name for name in exclude]
    found = _found(asked, of)
    if not found.names:
        likely = [_found(moved, of) for moved in _moved(asked, of)]
        if len(likely) > 1:
            raise DataError(
                f"the list of exclusions could mean {shown(likely[0].names[0])!r} or {shown(likely[1].names[0])!r} of "
                f"{where}: write paths relative to the data's folder"
            )
        if not likely:
            raise DataError(
                f"none of the samples to leave out is in {where}: {listed(exclude, 3)}. Paths count from the data's "
                "folder; the list may be of other data, or all of it gone or left out before: then leave `exclude` away"
            )
        found = likely[0]
    return found


def as_here(asked: Sequence[str], names: Iterable[str]) -> list[str]:
    """Paths of samples, in order, as they read from the root of the data set that has these `names`: as they are, where
    any is there or where it is not clear which beginning they have too much or too little of."""
    of = _by_path(names)
    if any(path in of for path in asked):
        return list(asked)
    likely = list(_moved(asked, of))
    return likely[0] if len(likely) == 1 else list(asked)


def _by_path(names: Iterable[str]) -> dict[str, list[str]]:
    """The samples under each path: their own, and those of the folders around them."""
    of: dict[str, list[str]] = {}
    for name in names:
        of.setdefault(name, []).append(name)
        folder = name
        while "/" in folder:
            folder = folder.rpartition("/")[0]
            of.setdefault(folder, []).append(name)
    return of


def _found(asked: Iterable[str], of: dict[str, list[str]]) -> Matched:
    asked = list(asked)
    names = {name for path in asked for name in of.get(path, ())}
    return Matched(tuple(sorted(names)), tuple(path for path in asked if path not in of))


def _moved(asked: Sequence[str], of: dict[str, list[str]]) -> Iterator[list[str]]:
    """The list as it reads from each other root from which something of it is there: further up, and further down."""
    wanted = set(asked)
    for above in dict.fromkeys(above for path in of for above, rest in _cuts(path) if rest in wanted):
        yield [f"{above}/{path}" for path in asked]
    for above in dict.fromkeys(above for path in asked for above, rest in _cuts(path) if rest in of):
        yield [path.removeprefix(f"{above}/") for path in asked]


def _cuts(path: str) -> Iterator[tuple[str, str]]:
    """A path in two, at each of its slashes."""
    for at, letter in enumerate(path):
        if letter == "/":
            yield path[:at], path[at + 1 :]
