"""Photographs: whether they start from a pretrained network, at which size, and how much of it is then fine-tuned.

Owns the trial of both, the rules for size, place and epochs, and the choice of the head. What freezing and fitting do
is `training/`'s business.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convlens.architecture import Plan, parse, plan
from convlens.choosing.choosing import Choosing
from convlens.choosing.previews import is_grey_inside
from convlens.choosing.probe import Material, material_of
from convlens.choosing.sizes import sample_of, try_sizes, whole
from convlens.choosing.speed import coarse, rate_of, remembered
from convlens.data.image.framing import InputSpec
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.headers import Headers, is_mostly_ink
from convlens.data.packed.pack import open_listed
from convlens.data.sources.base import Source
from convlens.network.build import build
from convlens.network.compute import Compute, settled
from convlens.network.frozen import KEPT_BYTES, images_per_s
from convlens.presets import FINE_TUNING, PHOTO, PHOTO_FRAMING
from convlens.progress import Progress
from convlens.recipe import Recipe
from convlens.training.fit import network_of
from convlens.training.head import features_at, fitted_head, rounds_of
from convlens.training.plan import TrainingPlan
from convlens.training.request import NO_PARENT, Draft
from convlens.training.warm_start import Parent, read_parent

SIDES = (224, 192, 160, 128, 96)
LEAST_SIDE = 64  # up to so many pixels pictures are small: they hold no detail that a larger input would show
SMALLEST_SIDE, MOST_SMALL, ENLARGED_SIDE = 28, 10_000, 128  # of those that are tried all the same, enlarged to this
EPOCHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 30, 40, 50, 60)  # of fine-tuning, one of these
FEW = 20  # of a class: so few that its mean may be a better guide than a fitted plane
LEAST_TO_TUNE, LEAST_TO_JUDGE = 1_000, 200  # training images for fine-tuning, and validation images to undo it by
_FEATURES_SHARE = 0.35  # of the time, that the frozen layers' outputs of all images may take
_PENALTIES = tuple(10.0 ** (n / 2) for n in range(-8, 3))
_VARIANCES = tuple(10.0 ** (n / 2) for n in range(9))
_TRIAL_S, _LOOKED_AT, _TIMED, _SMALL = 3.0, 64, 32, 3_000
_TUNING_SHARE, _BEFORE_S = 0.95, 12.0


class Depth(NamedTuple):
    """How much is fine-tuned: the least and the largest share of the multiply-adds that it is, from how many views of
    each image, and the seconds and epochs that there must be."""

    share: tuple[float, float]
    views: int
    least_s: float
    least_epochs: int


_DEPTHS = (Depth((1 / 2, 3 / 4), 6, 300.0, 10), Depth((1 / 3, 1 / 2), 3, 0.0, 3))


def starts_pretrained(choosing: Choosing, source: Source, found: Headers) -> bool:
    """Choose whether a training on picture files starts from a pretrained network; the draft then has it, and its
    input. Photographs do, where a trial does not speak against it; weights that were named are not doubted."""
    asked, parent, bar = choosing.request.options, choosing.draft.parent, choosing.bar
    is_named = parent is not None
    if parent is None:
        if PHOTO.parent is None or not _may_be_photographs(choosing, source, found):
            return False
        parent = read_parent(PHOTO.parent, bar)
    bar.start("timing the pretrained network", 1)
    own = parent.card.input_spec
    rate = rate_of_outputs(parent.plan, own, parent.plan.index_of("head"), choosing.draft.compute)
    rate *= own.height * own.width / SIDES[0] ** 2
    side = side_for(source.num_samples, rate, choosing.whole_s)
    is_small = _longer_side(choosing, found) <= LEAST_SIDE
    side = min(side, ENLARGED_SIDE) if is_small and not is_named else side
    size = asked.size or (side, side)
    before = choosing.draft
    choosing.draft = _draft_from(choosing, parent, size)
    choosing.outputs_s = source.num_samples * size[0] * size[1] / SIDES[0] ** 2 / rate
    why = "as asked for" if is_named else _why_pretrained(choosing, source, before, found if is_small else None)
    choosing.beside_s += 0.0 if is_named else choosing.trial_s
    if why is None:
        choosing.beside_s += choosing.outputs_s if is_small else 0.0
        choosing.draft = before
        choosing.say("from nothing: these pictures are told apart better so than by what a pretrained network sees")
        return False
    origin = parent.card.origin
    assert origin is not None, "only adopted weights come here"
    choosing.say(f"starts from {origin.name}, trained on {origin.trained_on or 'pictures nobody says'}: {why}")
    choosing.say(_size_reason(choosing, source, source.num_samples / rate, is_small=is_small))
    if found.num_channels == 1:
        choosing.say("the pictures are grey: the network is given them as RGB, three times the same")
    return True


def _longer_side(choosing: Choosing, found: Headers) -> int:
    region = choosing.request.options.region
    return found.median_longer_side() if region is None else max(region[2:])


def _may_be_photographs(choosing: Choosing, source: Source, found: Headers) -> bool:
    """Whether a pretrained start is worth a trial: detail beyond 64 pixels, or so few small colour pictures that all of
    them can be tried; no drawings, and nothing said against."""
    asked, longer = choosing.request.options, _longer_side(choosing, found)
    if choosing.pinned.get("views", "none") != "none":  # frozen layers have none
        return False
    if choosing.request.parent == NO_PARENT or asked.framing == "ink" or asked.channels == 1:
        return False
    if asked.size is not None and max(asked.size) <= LEAST_SIDE:
        return False
    if longer <= LEAST_SIDE:
        is_few = source.num_samples <= MOST_SMALL
        return longer >= SMALLEST_SIDE and is_few and found.num_channels == 3 and not is_grey_inside(source)
    return not (found.num_channels == 1 and is_mostly_ink(source, _LOOKED_AT))


def _draft_from(choosing: Choosing, parent: Parent, size: tuple[int, int]) -> Draft:
    """The draft of a training that starts from a pretrained network, on pictures of that size."""
    draft, asked = choosing.draft, choosing.request.options.replace(size=size)
    options = parent.options_for(asked.replace(framing=asked.framing or PHOTO_FRAMING), choosing.request.data)
    recipe = PHOTO.recipe.replace(**{"precision": draft.compute.precision} | choosing.pinned)
    is_own = parent.card.origin is not None and parent.card.origin.name == PHOTO.parent
    sentence = parent.architecture_for(size)
    return Draft(PHOTO if is_own else None, sentence, recipe, options, draft.compute, parent)


def _size_reason(choosing: Choosing, source: Source, full_s: float, *, is_small: bool) -> str:
    """The input that was chosen, and why; at the largest size the outputs of all pictures would take `full_s`."""
    size, framing = choosing.draft.options.size, choosing.draft.options.framing
    assert size is not None, "it was just chosen"
    line = f"input {size[0]}×{size[1]} px, framing {framing}: "
    if choosing.request.options.size is not None:
        return f"{line}as asked for"
    about = f"about {max(1.0, choosing.outputs_s):.0f} s"
    line += f"what the network makes of {source.num_samples:,} pictures takes {about}"
    if is_small:
        return f"{line}; they are enlarged, for it knows nothing as small as they are"
    if size[0] == SIDES[0]:
        return line
    return line + f", at {SIDES[0]} px {full_s:.0f} s, too much of {choosing.whole_s:.0f} s"


def _why_pretrained(choosing: Choosing, source: Source, before: Draft, small: Headers | None) -> str | None:
    """Why to start from the pretrained network; None where a short training from nothing is better than a head on it:
    learned from and measured on the same pictures, at 64 pixels some hundreds of them. `small` pictures, which a
    network from nothing learns well where there are thousands, are all looked at, and as they are."""
    draft = choosing.draft
    part = (sample_of if small is None else whole)(source, draft.options)
    seconds, side = (min(_TRIAL_S, choosing.trial_s), LEAST_SIDE) if small is None else (choosing.trial_s, 0)
    if small is not None:
        side = small.median_longer_side()
    choosing.draft = before
    plain = choosing.opened(part, side, channels=3)
    material = material_of(plain)
    if len(material.held_out) == 0:
        choosing.draft = draft
        return "as is usual for photographs, of which there are too few to hold any out and try both"
    (from_nothing,) = try_sizes(
        lambda _: plain,
        lambda dataset: choosing.plan_from_nothing(dataset, part.factor),
        [side],
        part.factor,
        seconds,
        choosing.bar,
        material,
    )
    choosing.draft = draft
    # Of a small folder all is computed at once: it will be needed.
    is_whole = source.num_samples <= _SMALL or small is not None
    options = draft.options if is_whole else part.of(draft.options)
    large = open_listed(
        source if is_whole else part.source, options, val_frac=choosing.request.val_share, progress=choosing.bar
    )
    network = plan(parse(draft.architecture), large.input_spec.shape, len(large.class_names))
    pretrained = material.on(large).try_out(choosing.plan_for(large, network, draft.recipe), choosing.bar)
    num = len(material.held_out)
    for start, at_px, trial in (
        ("pretrained", large.input_spec.height, pretrained),
        ("from nothing", side, from_nothing.trial),
    ):
        right = f"{100 * trial.accuracy:5.1f} % of {num:,} held-out images"
        choosing.say(f"  tried {start}, {at_px} px: {right}, loss {trial.loss:.3f}")
    return "of both the better on held-out images" if pretrained.loss <= from_nothing.trial.loss else None


def side_for(num_images: int, images_per_s: float, seconds: float) -> int:
    """The largest size at which the frozen layers' outputs of all images take a third of the time; the smallest, where
    none does. `images_per_s` is the rate at 224 pixels."""
    for side in SIDES:
        if num_images * (side / SIDES[0]) ** 2 / images_per_s <= _FEATURES_SHARE * seconds:
            return side
    return SIDES[-1]


# ---------------------------------------------------------------- head and fine-tuning


def choose_head(choosing: Choosing, dataset: Dataset) -> None:
    """Choose how the head is fitted, and whether and how long the last stages are fine-tuned after that."""
    pinned, parent, spec = choosing.pinned, choosing.draft.parent, dataset.input_spec
    assert parent is not None, "the caller has looked"
    choosing.fill(architecture=parent.architecture_for((spec.height, spec.width)))  # of a packed set, its own size
    network = plan(parse(choosing.draft.architecture), spec.shape, len(dataset.class_names))
    training = choosing.plan_for(dataset, network, choosing.draft.recipe)
    if "head" not in pinned and "head_penalty" not in pinned:
        head = best_head(training, choosing.bar)
        choosing.say(str(head))
        training = replace(training, recipe=head.recipe)
    if not {"epochs", "freeze"} & pinned.keys():
        training = _tuned(choosing, training)
    choosing.fill(recipe=training.recipe.replace(**pinned), compute=training.compute)


def _tuned(choosing: Choosing, training: TrainingPlan) -> TrainingPlan:
    """The plan with fine-tuning after the head, where there are pictures to learn from, to judge it by, and time."""
    counts = training.dataset.counts
    if choosing.request.folds is not None:
        choosing.say("the head alone is fitted: with folds no validation images are left to tell whether more helped")
        return training
    if counts["train"] < LEAST_TO_TUNE or counts["val"] < LEAST_TO_JUDGE:
        choosing.say(
            f"the head alone is fitted: {counts['train']:,} training and {counts['val']:,} validation images are too "
            f"few to fine-tune more and to know that it helped ({LEAST_TO_TUNE:,} and {LEAST_TO_JUDGE:,} are needed)"
        )
        return training
    choosing.bar.start("timing", 1)
    # What lies in the cache from a training before does not make this one longer: nothing hangs on the clock.
    seconds = (choosing.whole_s - choosing.beside_s - choosing.outputs_s - _BEFORE_S) * _TUNING_SHARE
    for depth in _DEPTHS:
        if seconds < depth.least_s:
            continue
        tuned = _tuned_from(choosing, training, depth)
        size = 2 * math.prod(tuned.network.nodes[tuned.first].input_shape)
        if size * counts["train"] * depth.views > KEPT_BYTES / 2:
            continue  # the cache would drop the first of them for the last
        outputs_per_s = rate_of_outputs(tuned.network, tuned.spec, tuned.first, tuned.frozen_compute)
        learned_per_s, views = rate_of_tuning(tuned), tuned.recipe.frozen_views
        epochs = tuning_epochs(counts["train"], seconds, learned_per_s, outputs_per_s, views)
        if epochs >= depth.least_epochs:
            choosing.say(
                f"then fine-tuned from layer {tuned.recipe.freeze} on, {epochs} epochs with "
                f"{tuned.recipe.augmentation_words()}, and undone should that not lower the validation loss"
            )
            return replace(tuned, recipe=tuned.recipe.replace(epochs=epochs, patience=epochs))
    choosing.say("the head alone is fitted: fine-tuning would take more time or room than there is")
    return training


def _tuned_from(choosing: Choosing, training: TrainingPlan, depth: Depth) -> TrainingPlan:
    """The plan with its last layers fine-tuned."""
    request, compute = choosing.request, training.compute
    recipe = training.recipe.replace(frozen_precision=compute.precision, frozen_views=depth.views, **FINE_TUNING)
    recipe = recipe.replace(freeze=tuned_from(training.network, *depth.share))
    if request.kinds is not None:
        recipe = recipe.with_kinds(request.kinds, min(training.network.input_shape[1:]))
    if compute.device == "cpu":
        # The gradient of a depthwise convolution takes 2 to 20 times as long in bfloat16 (docs/decisions.md).
        compute = replace(compute, precision="float32")
    return replace(training, recipe=recipe.replace(precision=compute.precision), compute=compute)


def tuned_from(network: Plan, low: float, high: float) -> str:
    """The address from which on a network is fine-tuned: the narrowest place (fewest values an image to keep) at which
    between `low` and `high` of the multiply-adds are still to come, the last of those. Layers before it, which see
    edges and textures, stay as they are."""
    left, found = network.multiply_adds, ("head", math.inf)
    for node in network.nodes:
        size = math.prod(node.input_shape)
        if low * network.multiply_adds <= left <= high * network.multiply_adds and size <= found[1]:
            found = node.address, size
        left -= node.multiply_adds
    return found[0]


@dataclass(frozen=True)
class Head:
    """How a head is fitted, and the loss (nats) and accuracy on held-out images that it was chosen by."""

    recipe: Recipe
    loss: float
    accuracy: float
    num_held_out: int

    def __str__(self) -> str:
        if not self.num_held_out:
            return "head: logistic regression; the classes are too small to hold any picture out and choose by it"
        how = "logistic regression" if self.recipe.head == "logistic" else "the nearest class mean"
        dial = "penalty" if self.recipe.head == "logistic" else "variance"
        return (
            f"head: {how}, {dial} {self.recipe.head_penalty:.2g}, the lowest loss ({self.loss:.3f}, "
            f"{100 * self.accuracy:.1f} % right) on {self.num_held_out:,} held-out images"
        )


def best_head(plan: TrainingPlan, bar: Progress) -> Head:
    """How the head of a plan is fitted best to its training images, by the lowest loss on images held out from it."""
    dataset = plan.dataset
    rows = np.sort(np.concatenate([dataset.rows("train"), dataset.rows("val")]))
    with settled(plan.compute):
        features_NC = features_at(network_of(plan), plan, rows, bar)
        labels_N = torch.from_numpy(dataset.labels_at(rows))
        return best_of_heads(features_NC, labels_N, rounds_of(dataset, rows), plan.recipe, bar)


def best_of_heads(
    features_NC: Tensor, labels_N: Tensor, rounds: list[NDArray[np.bool_]], recipe: Recipe, bar: Progress
) -> Head:
    """The head with the lowest loss, float32 features and int64 labels given, on what each of the rounds holds out."""
    num_classes = int(labels_N.max()) + 1
    if not rounds:
        return Head(recipe, math.nan, math.nan, 0)
    kinds = {"logistic": tuple(reversed(_PENALTIES))}
    if int(torch.bincount(labels_N).median()) <= FEW:
        kinds["means"] = _VARIANCES
    found: list[Head] = []
    bar.start("fitting the head", sum(map(len, kinds.values())) * len(rounds), unit="fits")
    for head, penalties in kinds.items():
        weights: list[tuple[Tensor, Tensor] | None] = [None] * len(rounds)
        tried: list[Head] = []
        for penalty in penalties:  # each fit begins where the one under a stronger penalty ended
            wish, losses, right = recipe.replace(head=head, head_penalty=penalty), [], []
            for number, held in enumerate(rounds):
                out = torch.from_numpy(held)
                fitted = fitted_head(features_NC[~out], labels_N[~out], num_classes, wish, weights[number])
                logits_NK = features_NC[out] @ fitted[0].T + fitted[1]
                losses.append(torch.nn.functional.cross_entropy(logits_NK, labels_N[out], reduction="none"))
                right.append(logits_NK.argmax(dim=1) == labels_N[out])
                weights[number] = fitted
                bar.advance(1)
            loss, accuracy = float(torch.cat(losses).double().mean()), float(torch.cat(right).double().mean())
            tried.append(Head(wish, loss, accuracy, sum(map(len, right))))
            if min(one.loss for one in tried) < min(one.loss for one in tried[-2:]):
                break  # worse twice in a row: it only gets slower from here
        found += tried
    return min(found, key=lambda one: one.loss)


def rate_of_outputs(network: Plan, spec: InputSpec, first: int, compute: Compute) -> float:
    """Images a second that the layers before number `first` take on a machine that does nothing else. Tests put an
    answer of their own in its place."""

    def measure() -> float:
        with settled(compute.for_timing):
            built = build(network, spec, device=compute.device, memory_format=compute.memory_format)
            return images_per_s(built, first, compute)

    return coarse(remembered(["outputs", str(network.architecture), network.input_shape, first], compute, measure))


def rate_of_tuning(training: TrainingPlan) -> float:
    """Images a second that fine-tuning learns from, by a few steps."""
    rows = training.dataset.rows("train")
    plain = replace(training, recipe=training.recipe.without_augmentation().replace(head="kept", epochs=1))
    return rate_of(Material(training.dataset, rows[:_TIMED], rows[:8]), plain)


def tuning_epochs(num_images: int, seconds: float, learned_per_s: float, outputs_per_s: float, views: int) -> int:
    """So many epochs of fine-tuning fit into a time: each learns from all images, and each of the first `views` needs
    the frozen layers' outputs of all of them."""
    fitting = [0]
    for epochs in EPOCHS:
        if num_images * (epochs / learned_per_s + min(epochs, views) / outputs_per_s) <= seconds:
            fitting.append(epochs)
    return fitting[-1]
