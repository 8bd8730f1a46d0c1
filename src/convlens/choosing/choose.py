"""What `train FOLDER` chooses by itself: input, network, batch size, epochs, augmentation, each with its reason.

Owns the order of the choices and their words. Whatever the caller gave is kept; what is chosen becomes part of the
plan before the first step, as if it had been given.
"""

import math
from dataclasses import dataclass, replace

from convlens.architecture import parse, plan
from convlens.augmentation import CUTOUT_FRAC
from convlens.augmentation import FIELDS as AUGMENTATION_FIELDS
from convlens.choosing.budget import (
    LEAST_SHARE,
    USUAL_SIZE,
    Size,
    batch_size_for,
    epochs_within,
    growth_for,
    is_seen_often,
    is_worth,
    least_epochs,
    most_epochs,
    packing_s,
    rates_for,
    size_for,
    usual_training_s,
)
from convlens.choosing.choosing import Choosing
from convlens.choosing.kinds import augmentation_for, kind_of, orientation_of
from convlens.choosing.pretrained import choose_head, starts_pretrained
from convlens.choosing.previews import is_grey_inside
from convlens.choosing.probe import Material, material_of
from convlens.choosing.sizes import MANY_TIMES, SIDES, best_of, sample_of, try_sizes
from convlens.choosing.speed import busy_note, rate_of
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.headers import DEFAULT_SIDE, Headers, is_mostly_ink, read_headers
from convlens.data.packed.pack import is_packed, open_data
from convlens.data.sources.base import Source, need_two_classes
from convlens.data.sources.recognise import open_source
from convlens.errors import TrainingError
from convlens.metrics import IMBALANCED, wilson_interval
from convlens.network.memory import check_memory
from convlens.presets import NATURAL, SIZED, natural_for
from convlens.progress import Progress
from convlens.recipe import Recipe
from convlens.text import counted, shown
from convlens.training.plan import TrainingPlan
from convlens.training.request import Draft, TrainRequest
from convlens.training.trainer import FASTER, MOST_HELD_OUT, MOST_LEARNED
from convlens.unfamiliarity import LEAST_IMAGES

_MOST_HEADERS, _LOOKED_AT = 2_000, 64
_KEPT_SIDE = 48  # pictures of one size, up to this many pixels, are taken as they are
_SIZES_S = 120.0  # of a whole training, below which no sizes are tried
_TRIAL_EPOCHS = 0.5  # of what the data needs, that a trial learns from at most
_FEW_TEST = 200
_ENDING_S = 8.0  # starting, timing, saving


@dataclass(frozen=True)
class Choices:
    """The draft with what was open filled in, the data set that goes with it, a line a choice, and the data sets of the
    input sizes that were looked at, the chosen one last (none where the input was not chosen); and about how many
    seconds the training takes on a machine that does nothing else, where that is known."""

    draft: Draft
    dataset: Dataset
    reasons: tuple[str, ...] = ()
    previews: tuple[Dataset, ...] = ()
    expected_s: float | None = None


def choose(request: TrainRequest, draft: Draft, bar: Progress) -> Choices:
    """Fill in what the request, with its defaults, left open. Raises ConvlensError as training does."""
    return _Choosing(request, draft, bar).choices()


class _Choosing(Choosing):
    """One run through the choices, in the order in which each needs the ones before."""

    def choices(self) -> Choices:
        request = self.request
        if self.is_open and not is_packed(request.data):
            source = open_source(request.data, request.options.read, data_root=request.data_root, progress=self.bar)
            need_two_classes(source)
            if source.shape is None:
                self.beside_s = packing_s(source.num_samples, source.typical_bytes())
                self.choose_input(source)
        dataset = open_data(
            request.data, self.draft.options, data_root=request.data_root, val_frac=request.val_share, progress=self.bar
        )
        if self.is_open and self.draft.parent is not None:
            choose_head(self, dataset)
        elif self.is_open:
            self.choose_network(dataset)
            self.adapt_recipe(dataset, tries=request.kinds is None)
        elif self.budget_s is not None or request.augment is not None:
            if self.budget_s is not None and request.preset in SIZED and request.architecture is None:
                self.choose_network(dataset)
            self.adapt_recipe(dataset, tries=request.augment == "auto" and not isinstance(request.recipe, Recipe))
        self.warn(dataset)
        others = [d for d in self.previews if d.input_spec.shape != dataset.input_spec.shape]
        previews = (*others, dataset) if self.are_files else ()
        return Choices(self.draft, dataset, tuple(self.reasons), previews, self.expected_s)

    # ------------------------------------------------------------ input

    def choose_input(self, source: Source) -> None:
        self.are_files = True
        found = read_headers(source, self.bar, most=_MOST_HEADERS)
        if starts_pretrained(self, source, found):
            return
        options = self.draft.options
        if options.channels is None:
            channels, why = self.channels_of(source, found)
            self.fill(channels=channels)
            self.say(f"{'grey' if channels == 1 else 'colour'}: {why}")
        if options.framing is None:
            one_size = found.one_size is not None and options.region is None
            is_ink = self.draft.options.channels == 1 and one_size and is_mostly_ink(source, _LOOKED_AT)
            self.fill(framing="ink" if is_ink else "pad")
            ink, pad = (
                "the pictures are drawn as MNIST's are, and later ones will be framed so",
                "nothing is cut off or distorted",
            )
            self.say(f"framing ink: {ink}" if is_ink else f"framing pad: {pad}")
        if options.size is None:
            size, why = self.size_of(source, found)
            self.fill(size=size)
            self.say(f"input {size[0]}×{size[1]} px: {why}")

    def channels_of(self, source: Source, found: Headers) -> tuple[int, str]:
        num_read = sum(found.channels.values())
        if found.num_channels == 1:
            return 1, f"all {num_read:,} pictures looked at are"
        if is_grey_inside(source):
            return 1, "the pictures are stored in colour, but none of those looked at has any"
        return 3, f"{found.channels[3]:,} of {num_read:,} pictures looked at are stored so"

    def size_of(self, source: Source, found: Headers) -> tuple[tuple[int, int], str]:
        region, own = self.draft.options.region, found.one_size
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
        if self.budget_s is not None and self.budget_s < _SIZES_S:
            return (DEFAULT_SIDE, DEFAULT_SIDE), "too little time to try larger ones"
        return self.probed_size(source, [side for side in SIDES if side <= longer])

    def probed_size(self, source: Source, sides: list[int]) -> tuple[tuple[int, int], str]:
        part = sample_of(source, self.draft.options)
        if len(material_of(self.opened(part, DEFAULT_SIDE)).held_out) == 0:
            return (DEFAULT_SIDE, DEFAULT_SIDE), "there are too few pictures to hold any out and try larger ones"

        def open_at(side: int) -> Dataset:
            self.previews.append(self.opened(part, side))
            return self.previews[-1]

        def planned(dataset: Dataset) -> TrainingPlan:
            return self.plan_from_nothing(dataset, part.factor)

        self.beside_s += len(sides) * self.trial_s  # beside the training, as packing is
        tried = try_sizes(open_at, planned, sides, part.factor, self.trial_s, self.bar)
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
        """The largest network of the family that sees the images often enough in the time there is."""
        _, height, width = dataset.input_spec.shape
        num_images, material = dataset.counts["train"], material_of(dataset)
        preset = NATURAL if self.is_open else self.draft.preset
        assert preset is not None, "only presets of the family come here"
        recipe = preset.recipe.replace(**{"precision": self.draft.compute.precision} | self.pinned)
        if "batch_size" not in self.pinned:
            recipe = recipe.replace(batch_size=batch_size_for(num_images))
            recipe = recipe.replace(**rates_for(recipe) | self.pinned)
        recipe = recipe if "grow_from" in self.pinned else recipe.replace(grow_from=growth_for(height, width))
        seconds, is_asked = self.training_s, self.budget_s is not None

        def planned(size: Size) -> TrainingPlan:
            sentence = natural_for(height, width, *size)
            network = plan(parse(sentence), dataset.input_spec.shape, len(dataset.class_names))
            return self.plan_for(dataset, network, recipe)

        self.bar.start("timing", 1)
        usual = planned(USUAL_SIZE)
        check_memory(usual.network, recipe, usual.compute)
        rate = rate_of(material, usual, by_clock=is_asked)

        def rate_at(size: Size) -> float:
            """Measured, unless the size is out of the question: time grows with the width at least."""
            best = rate * USUAL_SIZE.width / (size.width * size.depth)
            one = planned(size)
            try:
                check_memory(one.network, recipe, one.compute)
            except TrainingError:
                return 0.0
            if size.width <= USUAL_SIZE.width or not is_worth(size, num_images, seconds, best, is_asked=is_asked):
                return best
            return rate_of(material, one, by_clock=is_asked)

        num_values = num_images * math.prod(dataset.input_spec.shape)
        size = size_for(num_images, num_values, seconds, rate_at, is_asked=is_asked)
        chosen = planned(size).network
        self.fill(preset=preset, architecture=str(chosen.architecture), recipe=recipe)
        depth = "" if size.depth == 1 else f", {size.depth} pairs of convolutions a stage"
        self.say(
            f"network of preset {preset.name}'s kind, {size.width} to {4 * size.width} channels{depth} "
            f"({chosen.num_parameters:,} parameters): the largest that learns enough of {num_images:,} images in "
            f"{seconds:.0f} s"
        )

    @property
    def training_s(self) -> float:
        """Seconds that each training may take, on a machine that does nothing else. What packing and trials take is
        known from their sizes, not from the clock: on a busy machine all of it takes longer, and none of it is less."""
        if self.budget_s is None:
            return usual_training_s(self.beside_s)
        left_s = self.whole_s - self.beside_s / self.request.num_trainings - _ENDING_S
        return max(LEAST_SHARE * self.whole_s, left_s)

    def adapt_recipe(self, dataset: Dataset, *, tries: bool) -> None:
        """Augmentation by the kind of the pictures, epochs by data and time, for the network and recipe that are
        there."""
        spec, num_images = dataset.input_spec, dataset.counts["train"]
        network = plan(parse(self.draft.architecture), spec.shape, len(dataset.class_names))
        recipe = self.draft.recipe.replace(precision=self.draft.compute.precision)
        if self.request.kinds is not None:
            recipe = recipe.with_kinds(self.request.kinds, min(spec.height, spec.width))
            self.say(f"augmentation: {recipe.augmentation_words()}, as `augment` says")
        check_memory(network, recipe, self.draft.compute)
        self.bar.start("timing", 1)
        material = material_of(dataset)
        rate = rate_of(material, self.plan_for(dataset, network, recipe), by_clock=self.budget_s is not None)
        if tries:
            recipe = self.augmented(material, self.plan_for(dataset, network, recipe), rate)
        if not isinstance(self.request.recipe, Recipe):
            recipe = recipe.replace(**{name: self.pinned[name] for name in AUGMENTATION_FIELDS if name in self.pinned})
            if "views" not in self.pinned and (tries or self.request.kinds is not None):
                recipe = recipe.with_usual_views()
        if recipe.views == "mirror":
            self.say("views mirror: a picture is classified by the mean over it and its mirror image")
        if "epochs" not in self.pinned and (self.is_open or self.budget_s is not None):
            recipe = recipe.replace(epochs=self.epochs_for(dataset, rate, recipe.num_views))
        is_drawn = not kind_of(dataset).is_mirrored  # on strokes a hole is a stroke that ends
        if tries and not is_drawn and "cutout_frac" not in self.pinned and is_seen_often(num_images, recipe.epochs):
            recipe = recipe.replace(cutout_frac=CUTOUT_FRAC)
            self.say(f"cutout too, as helps where each image is seen as often as {recipe.epochs:g} times")
        if self.budget_s is not None or self.is_open:
            self.expected_s = seconds = recipe.epochs * num_images / rate
            growing = f", images growing from {recipe.grow_from:g} of their sides" if recipe.grow_from < 1 else ""
            self.say(
                f"batch {recipe.batch_size}, {recipe.epochs:g} epochs{growing}: if this machine does nothing else, "
                f"{num_images:,} images take about {max(1.0, seconds):.0f} s at {_round(rate):,} images/s{busy_note()}"
            )
        self.fill(recipe=recipe)

    def augmented(self, material: Material, planned: TrainingPlan, rate: float) -> Recipe:
        """The recipe with what is known to help pictures of their kind; whether they are mirrored and turned, a short
        training says."""
        num_images = len(material.rows)
        epochs = min(_TRIAL_EPOCHS * least_epochs(num_images), self.trial_s * rate / num_images)
        short = planned.recipe.without_augmentation().replace(epochs=max(epochs, 1 / num_images))
        kind = kind_of(planned.dataset)
        if self.budget_s is not None:
            self.beside_s += 2 * epochs * num_images / rate  # it may be tried once more
        found = orientation_of(material, replace(planned, recipe=short), kind, self.bar)
        names, why = augmentation_for(kind, found)
        recipe = planned.recipe.with_kinds(names, min(planned.network.input_shape[1:]))
        self.say(f"augmentation: {recipe.augmentation_words()}, as helps {kind.words}; {why}")
        return recipe

    def epochs_for(self, dataset: Dataset, rate: float, num_views: int) -> float:
        """What fits into the time, but not more than teaches something; without a time that was asked for, never less
        than the data needs."""
        counts, seconds = dataset.counts, self.training_s
        num_images, num_after = counts["train"], num_views * counts["test"] if self.request.test else 0
        if self.budget_s is not None and counts["val"] >= LEAST_IMAGES:  # calibration, and the report
            num_after += num_views * min(counts["val"], MOST_HELD_OUT) + min(num_images, MOST_LEARNED)
            num_after += 0 if self.request.test else num_views * counts["val"]
        seconds -= num_after / (FASTER[self.draft.compute.precision] * rate)
        fitting = epochs_within(max(0.0, seconds), num_images, rate)
        if self.budget_s is None:
            return min(most_epochs(num_images, is_asked=False), max(least_epochs(num_images), fitting))
        if fitting < 1:
            self.say(
                f"the time is too short for one epoch, which would take about {num_images / rate + _ENDING_S:.0f} s: "
                "learned from as far as it goes"
            )
        return min(most_epochs(num_images, is_asked=True), max(0.01, 1 / num_images, fitting))

    # ------------------------------------------------------------ what a person should know

    def warn(self, dataset: Dataset) -> None:
        counts = dataset.class_counts("train")
        most, fewest = int(counts.argmax()), int(counts.argmin())
        if counts[most] >= IMBALANCED * max(1, counts[fewest]) and self.draft.recipe.balance == "none":
            self.say(
                f"classes differ in size ({shown(dataset.class_names[most], 30)} {counts[most]:,}, "
                f"{shown(dataset.class_names[fewest], 30)} {counts[fewest]:,} training images): balanced accuracy "
                "comes first in what is printed; `balance=weights` raised it wherever it was measured"
            )
        num_test = dataset.counts["test"]
        if 0 < num_test < _FEW_TEST and self.request.folds is None:
            low, high = wilson_interval(round(0.9 * num_test), num_test)
            self.say(
                f"only {counted(num_test, 'test image')}: one split is too few to tell models apart (90 % right would "
                f"mean anything from {100 * low:.0f} to {100 * high:.0f} %); `folds=5` measures on all of them"
            )


def _round(rate: float) -> int:
    return 10 * round(rate / 10) if rate >= 100 else round(rate)
