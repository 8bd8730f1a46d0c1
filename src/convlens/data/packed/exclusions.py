"""Lists of samples to leave out, as the data doctor writes them and a person may.

Owns the file's format: one line a sample, either its name alone or a JSON object with `path` (and `reason`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from convlens.errors import DataError, UsageError
from convlens.text import listed, shown

MAX_FILE_BYTES = 256 * 1024 * 1024


def exclusions(what: str | Path | Iterable[str] | None) -> tuple[str, ...]:
    """The names of the samples to leave out, sorted: read from a file, or as given. Raises DataError, UsageError.

    A picture file's name is its path relative to the data's root, with slashes; an array's sample is split/number
    from 0, as `train/17` (`all/17` where the arrays have no splits).
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
        path = Path(what)
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"no list of exclusions {where!r}: it must be a file, as check --write-exclusions makes it")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError, ValueError) as error:
        raise DataError(f"the exclusions {where} cannot be read as UTF-8: {shown(error)}") from error
    names = [_name(line.strip(), f"{where}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    return tuple(sorted(set(names)))


def _name(line: str, where: str) -> str:
    if not line.startswith("{"):
        return line
    try:
        name = json.loads(line)["path"]
    except (ValueError, KeyError, TypeError, RecursionError):
        name = None
    if not isinstance(name, str) or not name:
        raise DataError(f'{where}: neither a name nor a JSON object with a "path"')
    return name


def refuse_unknown(exclude: Sequence[str], names: Iterable[str], where: str) -> None:
    """Raises DataError where a list names samples that are not there: it was made for other data."""
    if exclude:
        known = set(names)
        unknown = [name for name in exclude if name not in known]
        if unknown:
            raise DataError(
                f"{len(unknown):,} of the {len(exclude):,} excluded samples are not in {where}: {listed(unknown, 3)}; "
                "names are paths relative to the data's folder"
            )
