"""What `train FOLDER` chooses by itself: input, network, batch size, epochs, augmentation, each with its reason.

Owns the order of the choices and their words. Whatever the caller gave is kept; what is chosen becomes part of the
plan before the first step, as if it had been given.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from convlens.architecture import Plan, parse, plan
from convlens.choosing.augmenting import augmented, effects, parse_augment
from convlens.choosing.budget import USUAL_S, batch_size_for, epochs_for, epochs_within, parse_time
from convlens.choosing.previews import is_grey_inside, is_mostly_ink
from convlens.choosing.sizes import MANY_TIMES, SIDES, best_of, sample_of, try_sizes
from convlens.choosing.trial import images_in, material_of, rate_of
from convlens.data.packed.dataset import DEFAULT_VAL_FRAC, Dataset
from convlens.data.packed.headers import DEFAULT_SIDE, Headers, read_headers, threads_for
from convlens.data.packed.pack import is_packed_folder, open_data, open_listed
from convlens.data.sources.base import FileSource
from convlens.data.sources.named import NAMED_SETS, open_source
from convlens.errors import SentenceError
from convlens.metrics import IMBALANCED, wilson_interval
from convlens.network.compute import Compute, resolve
from convlens.network.memory import check_memory
from convlens.presets import DEFAULT_PRESET, NATURAL, STANDARD, natural_for, preset_named
from convlens.progress import Progress
from convlens.recipe import AUGMENTATION, Recipe
from convlens.text import shown
from convlens.training.setup import Given

_MOST_HEADERS = 2_000
_KEPT_SIDE = 48  # pictures of one size, up to this many pixels, are taken as they are
_STANDARD_SIDE = 40  # grey pictures up to this size are preset `standard`'s kind
_TRIAL_S, _SIZES_S = 9.0, 120.0  # of a trial; of a whole training, below which no sizes are tried
_TRIAL_EPOCHS = 8  # at least so many images that the epochs of a trial are about these
_LEAST_HELD_OUT = 20
_FEW_TEST, _FEW_PHOTOGRAPHS = 200, 2_000
_MOST_TIMES = 4  # --time is filled up to so many times the epochs that the data asks for: more teach nothing


@dataclass(frozen=True)
class Choices:
    """The caller's wishes with what was open filled in, a line a choice, and the data sets of the input sizes that were
    looked at, the chosen one last (none where the input was not chosen)."""

    given: Given
    reasons: tuple[str, ...] = ()
    previews: tuple[Dataset, ...] = ()


def choose(given: Given, data_root: str | Path | None, bar: Progress) -> Choices:
    """Fill in what the caller left open, for data other than the named sets. Raises ConvlensError as training does."""
    is_named = given.data is None or (isinstance(given.data, str) and given.data in NAMED_SETS)
    if is_named and given.time is None and given.augment is None:
        return Choices(given)
    if is_named:  # these have a preset; only what was asked for is fitted to it
        given = replace(given, data=given.data or NAMED_SETS[0], preset=given.preset or DEFAULT_PRESET)
    return _Choosing(given, data_root, bar).choices()


class _Choosing:
    """One run through the choices, in the order in which each needs the ones before."""

    def __init__(self, given: Given, data_root: str | Path | None, bar: Progress) -> None:
        self.given, self.data_root, self.bar = given, data_root, bar
        self.begun = time.monotonic()
        self.time_s = parse_time(given.time)
        self.kinds = parse_augment(given.augment)
        self.has_own_network = given.preset is not None or given.architecture is not None or given.recipe is not None
        self.settings = dict(given.settings or {})
        precision = str(self.settings.get("precision") or (given.recipe or Recipe()).precision)
        self.compute: Compute = resolve(
            given.device or "auto", precision, given.threads, given.memory_format, given.compile
        )
        self.val_frac = DEFAULT_VAL_FRAC if given.val_frac is None else given.val_frac
        self.seed = given.seed if isinstance(given.seed, int) else 0
        self.reasons: list[str] = []
        self.previews: list[Dataset] = []
        self.are_photographs = self.are_files = False

    @property
    def trial_s(self) -> float:
        """Seconds that each training of a probe may take, about."""
        return _TRIAL_S if self.time_s is None else self.time_s / 40 / self.given.num_trainings

    def say(self, line: str) -> None:
        """One choice and its reason."""
        self.reasons.append(line)
        self.bar.line(line)

    def choices(self) -> Choices:
        is_packed = isinstance(self.given.data, Dataset) or is_packed_folder(self.given.data)
        if not is_packed and not self.has_own_network:
            source = open_source(self.given.data, group=self.given.group, data_root=self.data_root)
            if isinstance(source, FileSource):
                self.choose_input(source)
        options = None if is_packed else self.given.options
        dataset = open_data(
            self.given.data, options, data_root=self.data_root, val_frac=self.val_frac, progress=self.bar
        )
        if not self.has_own_network:
            self.choose_network(dataset)
            self.choose_training(dataset)
        elif self.time_s is not None or self.given.augment is not None:
            self.adapt_recipe(dataset, tries=self.given.augment == "auto")
        self.warn(dataset)
        others = [d for d in self.previews if d.input_spec.shape != dataset.input_spec.shape]
        previews = (*others, dataset) if self.are_files else ()
        return Choices(self.given, tuple(self.reasons), previews)

    # ------------------------------------------------------------ input

    def choose_input(self, source: FileSource) -> None:
        given = self.given
        self.are_files = True
        found = read_headers(source, self.bar, most=_MOST_HEADERS, threads=threads_for(source))
        if given.channels is None:
            channels, why = self.channels_of(source, found)
            self.given = replace(self.given, channels=channels)
            self.say(f"{'grey' if channels == 1 else 'colour'}: {why}")
        if given.framing is None:
            one_size = found.one_size is not None and given.region is None
            is_ink = self.given.channels == 1 and one_size and is_mostly_ink(source)
            self.given = replace(self.given, framing="ink" if is_ink else "pad")
            self.say(
                "framing ink: the pictures are drawn as MNIST's are, and later ones will be framed so"
                if is_ink
                else "framing pad: nothing is cut off, nothing is distorted"
            )
        if given.size is None:
            size, why = self.size_of(source, found)
            self.given = replace(self.given, size=size)
            self.say(f"input {size[0]}×{size[1]} px: {why}")

    def channels_of(self, source: FileSource, found: Headers) -> tuple[int, str]:
        num_read = sum(found.channels.values())
        if found.num_channels == 1:
            return 1, f"all {num_read:,} pictures looked at are"
        if is_grey_inside(source):
            return 1, "the pictures are stored in colour, but none of those looked at has any"
        return 3, f"{found.channels[3]:,} of {num_read:,} pictures looked at are stored so"

    def size_of(self, source: FileSource, found: Headers) -> tuple[tuple[int, int], str]:
        region, own = self.given.options.region, found.one_size
        if region is not None:
            own = (region[3], region[2])
        longer = found.median_longer_side() if region is None else max(own or (1, 1))
        self.are_photographs = longer > MANY_TIMES * DEFAULT_SIDE
        if own is not None and max(own) <= _KEPT_SIDE:
            return own, "the size that all of them have" if region is None else "the size of the region"
        half = f"half of the pictures have {longer:,} pixels or fewer on their longer side"
        if longer <= _KEPT_SIDE:
            return (DEFAULT_SIDE, DEFAULT_SIDE), half
        if not self.are_photographs:
            return (2 * DEFAULT_SIDE, 2 * DEFAULT_SIDE), half
        if self.time_s is not None and self.time_s < _SIZES_S:
            return (DEFAULT_SIDE, DEFAULT_SIDE), "too little time to try larger ones"
        return self.probed_size(source, [side for side in SIDES if side <= longer])

    def probed_size(self, source: FileSource, sides: list[int]) -> tuple[tuple[int, int], str]:
        part = sample_of(source, self.given.options.exclude)

        def open_at(side: int) -> Dataset:
            options = replace(self.given.options, size=(side, side), exclude=part.exclude)
            dataset = open_listed(part.source, options, val_frac=self.val_frac, progress=self.bar)
            self.previews.append(dataset)
            return dataset

        def planned(dataset: Dataset) -> tuple[Plan, Recipe]:
            network = plan(
                parse(natural_for(*dataset.input_spec.shape[1:])), dataset.input_spec.shape, len(dataset.class_names)
            )
            num_images = round(dataset.counts["train"] * part.factor)
            recipe = NATURAL.recipe.replace(
                precision=self.compute.precision,
                epochs=epochs_for(num_images),
                batch_size=batch_size_for(dataset.counts["train"]),
            )
            return network, recipe

        tried = try_sizes(open_at, planned, sides, part.factor, self.compute, self.seed, self.trial_s, self.bar)
        for one in tried:
            self.say(f"  tried {one}")
        chosen = best_of(tried)
        is_best = chosen is min(tried, key=lambda one: one.trial.loss)
        why = (
            "the lowest loss on held-out images" if is_best else "the smallest that is not clearly worse than the best"
        )
        return (chosen.side, chosen.side), why

    # ------------------------------------------------------------ network and training

    def choose_network(self, dataset: Dataset) -> None:
        channels, height, width = dataset.input_spec.shape
        if channels == 1 and max(height, width) <= _STANDARD_SIDE and _fits(STANDARD.architecture, dataset):
            chosen, sentence, why = STANDARD, STANDARD.architecture, "small grey pictures"
        else:
            chosen, sentence = NATURAL, natural_for(height, width)
            why = "small colour pictures" if channels == 3 else "grey pictures of other sizes than digits"
        is_changed = sentence != chosen.architecture
        self.given = replace(
            self.given, preset=None if is_changed else chosen.name, architecture=sentence, recipe=chosen.recipe
        )
        self.say(f"preset {chosen.name}: {why}" + (", fitted to their size" if is_changed else ""))

    def choose_training(self, dataset: Dataset) -> None:
        recipe = self.given.recipe
        assert recipe is not None, "choose_network has put one there"
        if "batch_size" not in self.settings:
            recipe = recipe.replace(batch_size=batch_size_for(dataset.counts["train"]))
        self.given = replace(self.given, recipe=recipe)
        self.adapt_recipe(dataset, tries=self.given.augment in (None, "auto"))

    def adapt_recipe(self, dataset: Dataset, *, tries: bool) -> None:
        """Epochs by the data and the clock, augmentation by trial, for the network and recipe that are there."""
        spec, num_images = dataset.input_spec, dataset.counts["train"]
        recipe = (self.given.recipe or preset_named(self.given.preset or DEFAULT_PRESET).recipe).replace(
            **self.settings
        )
        sentence = self.given.architecture or preset_named(self.given.preset or DEFAULT_PRESET).architecture
        network = plan(parse(sentence), spec.shape, len(dataset.class_names))
        recipe = recipe.replace(precision=self.compute.precision)
        if self.kinds is not None:
            recipe = augmented(recipe, self.kinds, min(spec.height, spec.width))
            self.say(f"augmentation: {recipe.augmentation()}, as --augment says")
        check_memory(network, recipe, self.compute)
        self.bar.start("timing", 1)
        rate = rate_of(material_of(dataset), network, recipe, self.seed, self.compute)
        if "epochs" not in self.settings and not self.has_own_network:
            epochs = min(epochs_for(num_images), epochs_within(USUAL_S, num_images, rate))
            recipe = recipe.replace(epochs=epochs)
        if tries:
            recipe = self.tried_augmentation(dataset, network, recipe, rate)
            said = {name: value for name, value in self.settings.items() if name in AUGMENTATION}
            recipe = recipe.replace(**said)
        if self.time_s is not None and "epochs" not in self.settings:
            recipe = recipe.replace(epochs=self.epochs_in_time(dataset, rate))
        if self.time_s is not None or not self.has_own_network:
            seconds = recipe.epochs * num_images / rate
            self.say(
                f"batch {recipe.batch_size}, {recipe.epochs:g} epochs: {num_images:,} images take about "
                f"{seconds:.0f} s at {_round(rate):,} images/s"
            )
        own = {name: getattr(recipe, name) for name in self.settings}
        self.given = replace(self.given, recipe=recipe, settings=own or None)

    def tried_augmentation(self, dataset: Dataset, network: Plan, recipe: Recipe, rate: float) -> Recipe:
        """The recipe with what a probe shows to help, on so many images that a training of it takes some seconds."""
        material = material_of(dataset)
        enough = images_in(self.trial_s, rate)
        plain = recipe.without_augmentation()
        if len(material.held_out) < _LEAST_HELD_OUT or len(np.unique(material.labels_N)) < len(dataset.class_names):
            self.say("augmentation: none, there are too few pictures to try any on")
            return plain
        material = material.limited(max(len(dataset.class_names), int(enough / min(recipe.epochs, _TRIAL_EPOCHS))))
        short = plain.replace(epochs=min(recipe.epochs, max(1.0, enough / len(material.images))))
        found = effects(material, network, short, self.seed, self.compute, self.bar)
        for effect in found:
            self.say(f"  tried {effect}")
        kinds = tuple(effect.kind for effect in found if effect.helps)
        recipe = augmented(recipe, kinds, min(network.input_shape[1:]))
        self.say(
            f"augmentation: {recipe.augmentation()}, by eight short trainings on {len(material.images):,} images, "
            f"measured on {len(material.held_out):,} others"
        )
        return recipe

    def epochs_in_time(self, dataset: Dataset, rate: float) -> float:
        """What fits into the time that is left, less a tenth for validation and saving."""
        assert self.time_s is not None
        left = 0.9 * (self.time_s - (time.monotonic() - self.begun)) / self.given.num_trainings
        num_images = dataset.counts["train"]
        return float(round(max(1 / num_images, min(_MOST_TIMES * epochs_for(num_images), left * rate / num_images)), 2))

    # ------------------------------------------------------------ what a person should know

    def warn(self, dataset: Dataset) -> None:
        counts = np.bincount(dataset.labels("train"), minlength=len(dataset.class_names))
        most, fewest = int(counts.argmax()), int(counts.argmin())
        balance = (self.given.settings or {}).get("balance", (self.given.recipe or Recipe()).balance)
        if counts[most] >= IMBALANCED * max(1, counts[fewest]) and balance == "none":
            self.say(
                f"classes differ in size ({shown(dataset.class_names[most], 30)} {counts[most]:,}, "
                f"{shown(dataset.class_names[fewest], 30)} {counts[fewest]:,} training images): balanced accuracy "
                "comes first in what is printed; --balance weights or sampling makes up for it in training"
            )
        num_test = dataset.counts["test"]
        if 0 < num_test < _FEW_TEST and self.given.folds is None:
            low, high = wilson_interval(round(0.9 * num_test), num_test)
            self.say(
                f"only {num_test:,} test images: one split is too few to tell models apart (90 % right would mean "
                f"anything from {100 * low:.0f} to {100 * high:.0f} %); --folds 5 measures on all of them"
            )
        if self.are_photographs and dataset.counts["train"] < _FEW_PHOTOGRAPHS and dataset.input_spec.channels == 3:
            self.say(
                f"on {dataset.counts['train']:,} photographs a network pretrained on millions would usually win; "
                "convlens ships none and trains from scratch"
            )


def _fits(sentence: str, dataset: Dataset) -> bool:
    try:
        plan(parse(sentence), dataset.input_spec.shape, len(dataset.class_names))
    except SentenceError:
        return False
    return True


def _round(rate: float) -> int:
    return 10 * round(rate / 10) if rate >= 100 else round(rate)
