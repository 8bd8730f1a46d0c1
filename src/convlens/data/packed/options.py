"""How pictures become inputs: the options of packing.

Owns their values and text forms, and the list of samples to leave out: one line a sample, either its name alone or a
JSON object with `path` (and `reason`), as `check` writes it and a person may.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from convlens.data.image.framing import InputSpec, Region
from convlens.errors import DataError, UsageError
from convlens.text import listed, shown, whole_numbers


@dataclass(frozen=True)
class PackOptions:
    """How pictures become inputs. None: as found. `all_test` makes every sample of a set without splits test;
    `exclude` names samples that are left out."""

    size: tuple[int, int] | None = None
    channels: int | None = None
    framing: str | None = None
    group: str | None = None
    all_test: bool = False
    region: Region | None = None
    exclude: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As stored in dataset.json and in the cache's key."""
        size = None if self.size is None else list(self.size)
        region = None if self.region is None else list(self.region)
        return {"size": size, "channels": self.channels, "framing": self.framing, "group": self.group} | {
            "all_test": self.all_test,
            "region": region,
            "exclude": list(self.exclude),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Raises KeyError or TypeError where `value` is something else."""
        size = None if value["size"] is None else (int(value["size"][0]), int(value["size"][1]))
        region, exclude = parse_region(value.get("region")), tuple(map(str, value.get("exclude", ())))
        own = value["channels"], value["framing"], value["group"], bool(value["all_test"])
        return cls(size, *own, region, exclude)

    @classmethod
    def for_input(cls, spec: InputSpec, *, group: str | None = None, all_test: bool = False) -> Self:
        """The options that frame pictures as a model's InputSpec says."""
        return cls((spec.height, spec.width), spec.channels, spec.framing, group, all_test, spec.region)


def parse_size(size: int | str | Sequence[int] | None) -> tuple[int, int] | None:
    """`32`, `"32"`, `"24x32"` (height x width) or a pair as (height, width). Raises UsageError."""
    if size is None:
        return None
    numbers = whole_numbers(size)
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        raise UsageError(f"size must be like 32 or 24x32 (height x width, in pixels), not {shown(size)!r}")
    return numbers[0], numbers[-1]


def parse_region(region: str | Sequence[int] | None) -> Region | None:
    """`"10,20,64,48"` or four numbers as (x, y, width, height) in pixels. Raises UsageError."""
    if region is None:
        return None
    numbers = whole_numbers(region, ",")
    if len(numbers) != 4 or min(numbers[:2]) < 0 or min(numbers[2:]) < 1:
        raise UsageError(
            f"region must be x,y,width,height in pixels of the upright picture, like 10,20,64,48, not {shown(region)!r}"
        )
    return numbers[0], numbers[1], numbers[2], numbers[3]


# ---------------------------------------------------------------- lists of samples to leave out

MAX_LIST_BYTES = 256 * 1024 * 1024


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
        if not path.is_file() or path.stat().st_size > MAX_LIST_BYTES:
            raise DataError(
                f"no list of exclusions {where!r}: it must be a file, as the `write_exclusions` of check makes it"
            )
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
