"""What the caller of `train` said.

Owns the checks that need no data, so that what can be wrong is found before a folder of images is packed, and the plain
defaults. What the data decides is `choosing/`'s; `experiment.resolve` turns a request into a plan.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from convlens.architecture import Architecture, parse
from convlens.augmentation import parse_augment
from convlens.checks import checked, whole
from convlens.data.packed.dataset import DEFAULT_VAL_FRAC
from convlens.data.packed.exclusions import exclusions
from convlens.data.packed.options import PackOptions, parse_region, parse_size
from convlens.data.sources.base import ReadOptions
from convlens.data.sources.named import LIKE_MNIST, NAMED_SETS
from convlens.errors import UsageError
from convlens.network.compute import Compute, resolve_compute
from convlens.presets import DEFAULT_PRESET, PHOTO, Preset, preset_named
from convlens.recipe import Recipe
from convlens.text import shown
from convlens.training.warm_start import Parent

NO_PARENT = "none"
MAX_SEED, MAX_FOLDS, MAX_SEEDS = 2**63 - 1, 100, 1_000


@dataclass(frozen=True)
class Draft:
    """A plan of which the data is not known yet. `preset` is the one that network and recipe began with, if any."""

    preset: Preset | None
    architecture: str
    recipe: Recipe
    options: PackOptions
    compute: Compute
    parent: Parent | None = None


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What the caller said, as `train` documents it; None (of the switches: False) where nothing was said.

    Raises ConvlensError where a value cannot be, or two contradict one another.
    """

    data: Any = None
    preset: str | None = None
    architecture: Any = None
    recipe: Recipe | Mapping[str, Any] | None = None
    seed: int | None = None
    seeds: int | None = None
    val_frac: float | None = None
    test: bool = False
    folds: int | None = None
    parent: Any = None
    augment: str | None = None
    time: str | float | None = None
    device: str | None = None
    threads: int | None = None
    memory_format: str | None = None
    keep_filters: bool = False
    omit_record: bool = False
    size: int | str | tuple[int, int] | None = None
    channels: int | None = None
    framing: str | None = None
    group: str | None = None
    layout: str | None = None
    label: str | None = None
    path_column: str | None = None
    label_column: str | None = None
    region: str | tuple[int, int, int, int] | None = None
    exclude: str | Path | Iterable[str] | None = None
    labels: str | Path | None = None
    data_root: str | Path | None = None

    def __post_init__(self) -> None:
        if self.seed is not None:
            checked("seed", self.seed, whole(0, MAX_SEED))
        if self.seeds is not None:
            checked("seeds", self.seeds, whole(1, MAX_SEEDS))
        if self.preset is not None:
            preset_named(self.preset)
        if self.architecture is not None:
            if not isinstance(self.architecture, str | Architecture):
                what = type(self.architecture).__name__
                raise UsageError(
                    f"architecture is a sentence like 'conv(8, 3) relu flatten linear(classes)', not {what}"
                )
            parse(str(self.architecture))
        if self.recipe is not None and not isinstance(self.recipe, Recipe | Mapping):
            raise UsageError(f"recipe must be a Recipe or a mapping of its fields, not {type(self.recipe).__name__}")
        (Recipe() if self.start is None else PHOTO.recipe).replace(**self.pinned)  # of a photo, no epochs may be right
        _ = self.kinds, self.budget_s, self.options
        has_sentence = self.preset is not None or self.architecture is not None
        if self.parent is not None and self.start is not None and has_sentence:
            raise UsageError("a parent's architecture is taken: leave `preset` and `architecture` away")
        if self.preset == PHOTO.name and (self.start is None or self.architecture is not None):
            raise UsageError(
                f"preset {PHOTO.name!r} starts from a pretrained network: leave `architecture` and `parent=none` away"
            )
        if self.folds is not None:
            checked("folds", self.folds, whole(2, MAX_FOLDS))
            if self.test or self.val_frac is not None:
                raise UsageError(
                    "with folds every image is measured, and the model then learns from all of them: leave `test` and "
                    "`val_frac` away"
                )
            if self.pinned.get("patience"):
                raise UsageError("folds train on every image, so that none is left for `patience` to look at")

    @cached_property
    def pinned(self) -> dict[str, Any]:
        """The recipe's fields that were typed: all of a Recipe, those of a mapping."""
        return self.recipe.to_json() if isinstance(self.recipe, Recipe) else dict(self.recipe or {})

    @cached_property
    def said(self) -> tuple[str, ...]:
        """Names of all that was typed, recipe fields by their own names."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "recipe"}
        return (*(name for name, value in values.items() if value is not None and value is not False), *self.pinned)

    @cached_property
    def options(self) -> PackOptions:
        """How images are packed. Raises UsageError, DataError."""
        size, region = parse_size(self.size), parse_region(self.region)
        read = ReadOptions(self.group, self.layout, self.label, self.path_column, self.label_column)
        options = PackOptions(
            size, self.channels, self.framing, region=region, exclude=exclusions(self.exclude), **read._asdict()
        )
        return options.corrected(self.labels)

    @cached_property
    def kinds(self) -> tuple[str, ...] | None:
        """The kinds of augmentation that were named; None where they are to be chosen, or nothing was said."""
        return parse_augment(self.augment)

    @cached_property
    def budget_s(self) -> float | None:
        """Seconds that the whole may take."""
        return parse_time(self.time)

    @property
    def start(self) -> Any:
        """The model that was named to start from: `parent`, or that of preset `photo`; None for `none` too."""
        if self.preset == PHOTO.name and self.parent is None:
            return PHOTO.parent
        return None if isinstance(self.parent, str) and self.parent == NO_PARENT else self.parent

    def leaves_open(self, parent: Parent | None) -> bool:
        """Whether network and recipe are the data's to decide. (Of weights that others trained, the recipe is.)"""
        if self.preset not in (None, PHOTO.name) or self.architecture is not None or isinstance(self.recipe, Recipe):
            return False
        return not self.is_named_set and (parent is None or parent.card.is_adopted)

    @property
    def is_named_set(self) -> bool:
        """Whether the data is one of the named sets that are like MNIST, which have a preset."""
        return isinstance(self.data, str) and self.data in LIKE_MNIST

    @property
    def val_share(self) -> float:
        """The share of the training images that is set aside for validation."""
        return DEFAULT_VAL_FRAC if self.val_frac is None else self.val_frac

    @property
    def num_trainings(self) -> int:
        """Trainings that share the time: seeds, and folds with the training on all images after them."""
        return (self.seeds or 1) * (1 if self.folds is None else self.folds + 1)

    def with_defaults(self) -> Self:
        """The same with what needs neither data nor machine filled in."""
        return replace(
            self, data=NAMED_SETS[0] if self.data is None else self.data, seed=0 if self.seed is None else self.seed
        )

    def draft(self, parent: Parent | None) -> Draft:
        """What is settled before the data is looked at: network and recipe as named, or as the parent has them, or the
        default preset's; input, device and precision. Raises UsageError where a parent is contradicted, DeviceError."""
        preset: Preset | None = preset_named(DEFAULT_PRESET if self.preset is None else self.preset)
        assert preset is not None
        architecture, recipe, options = preset.architecture, preset.recipe, self.options
        if parent is not None:
            card, options = parent.card, parent.options_for(self.options, self.data)
            architecture = parent.architecture_for(options.size)
            preset, recipe = None, card.recipe or PHOTO.recipe
            if self.pinned.get("freeze"):  # kept outputs are neither made smaller nor mirrored
                recipe = recipe.replace(grow_from=1.0, views="none")
        if self.architecture is not None:
            architecture = str(parse(str(self.architecture)))
        if isinstance(self.recipe, Recipe):
            recipe = self.recipe
        else:
            recipe = recipe.replace(**self.pinned)
            if not recipe.flip and "views" not in self.pinned:  # mirrored views go with flips
                recipe = recipe.replace(views="none")
        compute = resolve_compute(self.device, recipe.precision, self.threads, self.memory_format)
        return Draft(preset, architecture, recipe, options, compute, parent)

    def refuse(self, names: Iterable[str], why: str) -> None:
        """Raises UsageError where one of these was said."""
        for name in names:
            if getattr(self, name) is not None:
                raise UsageError(f"{why}: leave `{name}` away, not {shown(getattr(self, name))}")


def parse_time(text: str | float | None) -> float | None:
    """`90s`, `5m`, `1.5h` as seconds; a number is seconds. Raises UsageError."""
    if text is None:
        return None
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    words = str(text).strip().lower()
    factor = units.get(words[-1:], math.nan if isinstance(text, str) else 1.0)
    try:
        seconds = float(words[:-1] if words[-1:] in units else words) * factor
    except ValueError:
        seconds = math.nan
    if isinstance(text, bool) or not 1 <= seconds <= 30 * 86_400:
        raise UsageError(f"time must be like 90s, 5m or 1.5h, from a second to thirty days, not {shown(text)!r}")
    return seconds
