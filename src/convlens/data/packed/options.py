"""How pictures become inputs: the options of packing.

Owns their values and text forms, and the list of samples to leave out: one line a sample, either its name alone or a
JSON object with `path` (and `reason`), as `check` writes it and a person may.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from msgspec import Meta

from convlens import files
from convlens.data.image.framing import InputSpec, Region
from convlens.data.packed.corrections import Corrections, Relabelled, labels_of
from convlens.data.sources.base import ReadOptions
from convlens.errors import DataError, RecordError, UsageError
from convlens.records import Name, Number, Record, Text, parsed
from convlens.text import listed, shown, whole_numbers


class PackOptions(Record, frozen=True):
    """How names are read and pictures become inputs. None: as found. `all_test` makes every sample of a set without
    splits test; `exclude` names samples that are left out, `relabelled` those whose label was changed."""

    size: tuple[int, int] | None = None
    channels: int | None = None
    framing: Name | None = None
    group: Name | None = None
    all_test: bool = False
    region: Region | None = None
    exclude: tuple[Name, ...] = ()
    layout: Name | None = None
    label: Name | None = None
    path_column: Name | None = None
    label_column: Name | None = None
    value_range: tuple[Number, Number] | None = None
    crop_frac: Number | None = None
    relabelled: tuple[Relabelled, ...] = ()

    @property
    def read(self) -> ReadOptions:
        """How names are read."""
        return ReadOptions(self.group, self.layout, self.label, self.path_column, self.label_column)

    def corrected(self, labels: Any) -> Self:
        """With the decisions of a labels file (its path, or its rows): samples that it drops are left out. Raises
        DataError."""
        if labels is None:
            return self
        found = Corrections.of(labels_of(labels))
        return self.replace(exclude=tuple(sorted({*self.exclude, *found.dropped})), relabelled=found.changed)

    @classmethod
    def for_input(cls, spec: InputSpec, read: ReadOptions, *, all_test: bool = False) -> Self:
        """The options that frame pictures as a model's InputSpec says."""
        size = (spec.height, spec.width)
        rest = {n: getattr(spec, n) for n in ("region", "value_range", "crop_frac")} | read._asdict()
        return cls(size, spec.channels, spec.framing, all_test=all_test, **rest)


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


class Exclusion(Record, frozen=True):
    """A line of a list: the sample that is left out, and why."""

    path: Annotated[str, Meta(min_length=1, max_length=4_096)]
    reason: Text | None = None


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
