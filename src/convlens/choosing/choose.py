"""What `train FOLDER` chooses by itself: input, network, batch size, epochs, augmentation, each with its reason.

Owns the order of the choices and their words. Whatever the caller gave is kept; what is chosen becomes part of the
plan before the first step, as if it had been given.
"""

from dataclasses import dataclass, replace

import numpy as np

from convlens.architecture import parse, plan
from convlens.augmentation import FIELDS as AUGMENTATION_FIELDS
from convlens.choosing.augmenting import effects
from convlens.choosing.budget import USUAL_S, batch_size_for, epochs_for, epochs_within
from convlens.choosing.choosing import Choosing
from convlens.choosing.pretrained import choose_head, starts_pretrained
from convlens.choosing.previews import is_grey_inside
from convlens.choosing.probe import images_in, material_of, rate_of
from convlens.choosing.sizes import MANY_TIMES, SIDES, best_of, sample_of, try_sizes
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.headers import DEFAULT_SIDE, Headers, is_mostly_ink, read_headers
from convlens.data.packed.pack import is_packed, open_data
from convlens.data.sources.base import Source, need_two_classes
from convlens.data.sources.recognise import open_source
from convlens.errors import SentenceError
from convlens.metrics import IMBALANCED, wilson_interval
from convlens.network.memory import check_memory
from convlens.presets import NATURAL, STANDARD, natural_for
from convlens.progress import Progress
from convlens.recipe import Recipe
from convlens.text import counted, shown
from convlens.training.plan import TrainingPlan
from convlens.training.request import Draft, TrainRequest

_MOST_HEADERS, _LOOKED_AT = 2_000, 64
_KEPT_SIDE = 48  # pictures of one size, up to this many pixels, are taken as they are
_STANDARD_SIDE = 40  # grey pictures up to this size are preset `standard`'s kind
_SIZES_S = 120.0  # of a whole training, below which no sizes are tried
_TRIAL_EPOCHS = 8  # at least so many images that the epochs of a trial are about these
_LEAST_HELD_OUT = 20
_FEW_TEST = 200
_MOST_TIMES = 4  # a time is filled up to so many times the epochs that the data asks for: more teach nothing


@dataclass(frozen=True)
class Choices:
    """The draft with what was open filled in, the data set that goes with it, a line a choice, and the data sets of the
    input sizes that were looked at, the chosen one last (none where the input was not chosen)."""

    draft: Draft
    dataset: Dataset
    reasons: tuple[str, ...] = ()
    previews: tuple[Dataset, ...] = ()


def choose(request: TrainRequest, draft: Draft, bar: Progress) -> Choices:
    """Fill in what the request, with its defaults, left open. Raises ConvlensError as training does."""
    return _Choosing(request, draft, bar).choices()


class _Choosing(Choosing):
    """One run through the choices, in the order in which each needs the ones before."""

    def choices(self) -> Choices:
        request = self.request
        if self.is_open and not is_packed(request.data):
            source = open_source(request.data, request.options.read, data_root=request.data_root)
            need_two_classes(source)
            if source.shape is None:
                self.choose_input(source)
        dataset = open_data(
            request.data, self.draft.options, data_root=request.data_root, val_frac=request.val_share, progress=self.bar
        )
        if self.is_open and self.draft.parent is not None:
            choose_head(self, dataset)
        elif self.is_open:
            self.choose_network(dataset)
            if "batch_size" not in self.pinned:
                self.fill(recipe=self.draft.recipe.replace(batch_size=batch_size_for(dataset.counts["train"])))
            self.adapt_recipe(dataset, tries=request.kinds is None)
        elif self.budget_s is not None or request.augment is not None:
            self.adapt_recipe(dataset, tries=request.augment == "auto" and not isinstance(request.recipe, Recipe))
        self.warn(dataset)
        others = [d for d in self.previews if d.input_spec.shape != dataset.input_spec.shape]
        previews = (*others, dataset) if self.are_files else ()
        return Choices(self.draft, dataset, tuple(self.reasons), previews)

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
        part = sample_of(source, self.draft.options.exclude)
        if len(material_of(self.opened(part, DEFAULT_SIDE)).held_out) == 0:
            return (DEFAULT_SIDE, DEFAULT_SIDE), "there are too few pictures to hold any out and try larger ones"

        def open_at(side: int) -> Dataset:
            self.previews.append(self.opened(part, side))
            return self.previews[-1]

        def planned(dataset: Dataset) -> TrainingPlan:
            return self.plan_from_nothing(dataset, part.factor)

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
        channels, height, width = dataset.input_spec.shape
        if channels == 1 and max(height, width) <= _STANDARD_SIDE and _fits(STANDARD.architecture, dataset):
            chosen, sentence, why = STANDARD, STANDARD.architecture, "small grey pictures"
        else:
            chosen, sentence = NATURAL, natural_for(height, width)
            why = "small colour pictures" if channels == 3 else "grey pictures of other sizes than digits"
        is_changed = sentence != chosen.architecture
        recipe = chosen.recipe.replace(**{"precision": self.draft.compute.precision} | self.pinned)
        self.fill(preset=chosen, architecture=sentence, recipe=recipe)
        self.say(f"preset {chosen.name}: {why}" + (", fitted to their size" if is_changed else ""))

    def adapt_recipe(self, dataset: Dataset, *, tries: bool) -> None:
        """Epochs by the data and the clock, augmentation by trial, for the network and recipe that are there."""
        spec, num_images = dataset.input_spec, dataset.counts["train"]
        network = plan(parse(self.draft.architecture), spec.shape, len(dataset.class_names))
        recipe = self.draft.recipe.replace(precision=self.draft.compute.precision)
        if self.request.kinds is not None:
            recipe = recipe.with_kinds(self.request.kinds, min(spec.height, spec.width))
            self.say(f"augmentation: {recipe.augmentation_words()}, as `augment` says")
        check_memory(network, recipe, self.draft.compute)
        self.bar.start("timing", 1)
        rate = rate_of(material_of(dataset), self.plan_for(dataset, network, recipe))
        if "epochs" not in self.pinned and self.is_open:
            recipe = recipe.replace(epochs=min(epochs_for(num_images), epochs_within(USUAL_S, num_images, rate)))
        if tries:
            recipe = self.tried_augmentation(self.plan_for(dataset, network, recipe), rate)
        if not isinstance(self.request.recipe, Recipe):
            recipe = recipe.replace(**{name: self.pinned[name] for name in AUGMENTATION_FIELDS if name in self.pinned})
        if self.budget_s is not None and "epochs" not in self.pinned:
            recipe = recipe.replace(epochs=self.epochs_in_budget(dataset, rate))
        if self.budget_s is not None or self.is_open:
            seconds = recipe.epochs * num_images / rate
            self.say(
                f"batch {recipe.batch_size}, {recipe.epochs:g} epochs: {num_images:,} images take about "
                f"{seconds:.0f} s at {_round(rate):,} images/s"
            )
        self.fill(recipe=recipe)

    def tried_augmentation(self, tried: TrainingPlan, rate: float) -> Recipe:
        """The recipe with what a probe shows to help, on so many images that a training of it takes some seconds."""
        dataset, recipe = tried.dataset, tried.recipe
        material = material_of(dataset)
        enough = images_in(self.trial_s, rate)
        plain, num_classes = recipe.without_augmentation(), len(dataset.class_names)
        if len(material.held_out) < _LEAST_HELD_OUT or len(np.unique(dataset.labels_at(material.rows))) < num_classes:
            self.say("augmentation: none, there are too few pictures to try any on")
            return plain
        material = material.limited(max(num_classes, int(enough / min(recipe.epochs, _TRIAL_EPOCHS))))
        short = plain.replace(epochs=min(recipe.epochs, max(1.0, enough / len(material.rows))))
        found = effects(material, replace(tried, recipe=short), self.bar)
        for effect in found:
            self.say(f"  tried {effect}")
        recipe = recipe.with_kinds([e.kind for e in found if e.is_kept], min(tried.network.input_shape[1:]))
        self.say(
            f"augmentation: {recipe.augmentation_words()}, by eight short trainings on {len(material.rows):,} images, "
            f"measured on {len(material.held_out):,} others"
        )
        return recipe

    def epochs_in_budget(self, dataset: Dataset, rate: float) -> float:
        """What fits into the time that is left, less a tenth for validation and saving."""
        assert self.budget_s is not None
        left = 0.9 * self.left_s
        num_images = dataset.counts["train"]
        most = _MOST_TIMES * epochs_for(num_images)
        return float(round(max(0.01, 1 / num_images, min(most, left * rate / num_images)), 2))

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


def _fits(sentence: str, dataset: Dataset) -> bool:
    try:
        plan(parse(sentence), dataset.input_spec.shape, len(dataset.class_names))
    except SentenceError:
        return False
    return True


def _round(rate: float) -> int:
    return 10 * round(rate / 10) if rate >= 100 else round(rate)
