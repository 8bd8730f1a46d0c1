"""How pictures become inputs: the options of packing.

Owns their values and text forms.
"""

from collections.abc import Sequence
from typing import Any, Self

from convlens.data.image.framing import InputSpec, Region
from convlens.data.packed.corrections import Corrections, Relabelled, labels_of
from convlens.data.sources.base import ReadOptions
from convlens.errors import UsageError
from convlens.records import Name, Number, Record
from convlens.text import shown, whole_numbers


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
        """With the decisions of a labels file (its path, or its rows). Raises DataError."""
        if labels is None:
            return self
        found = Corrections.of(labels_of(labels))
        return self.replace(relabelled=(*found.changed, *(Relabelled(name, "", "") for name in found.dropped)))

    @property
    def drops(self) -> tuple[str, ...]:
        """The samples that a labels file drops, by its names for them, until the data are listed."""
        return tuple(one.path for one in self.relabelled if not one.now)

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
