"""What kind of pictures these are, and whether they have an up and a left: what is known of such pictures follows.

Owns the kinds, their usual augmentation, and the one trial behind it: a short training without mirrored pictures, asked
for held-out ones as they are, mirrored and turned. Where mirrored pictures of one class are taken for another (left
hands for right ones), mirroring would teach a falsehood, whatever the kind, unless a second training with mirrored
pictures tells the two apart all the same (sneakers that all point left); where turned ones are recognised as well as
upright ones (cells, the earth from above), nothing is up. Neither compares the loss of two trainings, so that a few
hundred pictures tell.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from convlens.choosing.probe import Material
from convlens.data.image.decode import Pixels
from convlens.data.image.ink import is_drawing
from convlens.data.packed.dataset import Dataset
from convlens.errors import DivergedError
from convlens.network.forward import logits_of
from convlens.progress import Progress
from convlens.text import percent, shown
from convlens.training.fit import fit
from convlens.training.plan import TrainingPlan

_LOOKED_AT = 200
_LEAST_HELD_OUT, _LEAST_OF_CLASS = 40, 8  # below which a trial says nothing, of all and of a class
_TAKEN, _SURE = 0.5, 3.0  # share of a class that is taken for another once mirrored; standard errors
_KNOWS = 0.25  # of the way from chance to all right: a network that is below it says nothing
_CONFUSED = 0.1  # share of two classes, by which more may be mistaken for the other where both were mirrored
_AS_WELL = 0.03  # of what it is right for, that may be lost where turned pictures are recognised as well


@dataclass(frozen=True)
class Kind:
    """Pictures of one kind: its name, what is known to help them, and whether they bear being mirrored."""

    name: str
    words: str
    augmentation: tuple[str, ...]
    is_mirrored: bool


DRAWN = Kind("drawn", "strokes on an even ground, as digits and handwriting", ("shift", "affine"), False)
GREY = Kind("grey", "grey pictures of things", ("shift",), True)
COLOUR = Kind("colour", "colour pictures", ("shift",), True)


def kind_of(dataset: Dataset) -> Kind:
    """The kind of a data set, by some of its training images."""
    if dataset.input_spec.channels == 3:
        return COLOUR
    rows = dataset.rows("train")
    images = dataset.images_at(rows[:: -(-len(rows) // _LOOKED_AT)])
    drawn = [is_drawing(images[place][:, :, 0]) for place in range(len(images))]
    return DRAWN if 2 * sum(drawn) > len(drawn) else GREY


@dataclass(frozen=True)
class Orientation:
    """What a network that never saw mirrored or turned pictures makes of them: of `num` held-out images the shares that
    are right upright, mirrored and turned (by a quarter, of oblong ones by half), whether that says anything, whether
    each does as well as upright, and the classes (a, b) of which a is taken for b once mirrored; of these, those in
    `told_apart` are told apart by a network that learned from mirrored ones."""

    num: int
    upright: float
    mirrored: float
    turned: float
    is_telling: bool
    mirrors_as_well: bool
    turns_as_well: bool
    taken: tuple[tuple[str, str], ...]
    told_apart: tuple[tuple[str, str], ...] = ()


def orientation_of(material: Material, plan: TrainingPlan, kind: Kind, bar: Progress) -> Orientation | None:
    """Train shortly without flips and turns, and ask for held-out images in each orientation; where one class is then
    taken for another, and pictures of the kind are mirrored, once more with flips. None where they are too few to tell
    or the training diverges."""
    dataset, held = material.dataset, material.held_out
    labels_N = dataset.labels_at(held)
    if len(held) < _LEAST_HELD_OUT:
        return None
    images_NHWC = np.array(dataset.images_at(held)[np.arange(len(held))])
    turn = 1 if images_NHWC.shape[1] == images_NHWC.shape[2] else 2
    views = images_NHWC, images_NHWC[:, :, ::-1], np.rot90(images_NHWC, turn, axes=(1, 2))

    def answers(some: tuple[Pixels, ...], *, flip: bool) -> list[NDArray[np.int64]] | None:
        recipe = plan.recipe.replace(flip=flip, quarter_turns=False)
        bar.start(
            f"trying whether mirroring helps, {'once more' if flip else 'at first'}",
            recipe.num_steps(len(material.rows)),
            unit="steps",
        )
        with fit(replace(plan, dataset=dataset, recipe=recipe), material.rows) as fitting:
            try:
                for losses in fitting.steps():
                    bar.advance(len(losses.values))
            except DivergedError:
                return None
            with fitting.state.averaged() as network:
                logits = [logits_of(network, np.ascontiguousarray(view)) for view in some]
        return [one.argmax(axis=1) for one in logits] if all(np.isfinite(one).all() for one in logits) else None

    if (first := answers(views, flip=False)) is None:
        return None
    found = found_in(first, labels_N, dataset.class_names)
    if not (found.taken and kind.is_mirrored) or (second := answers(views[:1], flip=True)) is None:
        return found
    return parted(found, first[0], second[0], labels_N, dataset.class_names)


def parted(
    found: Orientation,
    before_N: NDArray[np.int64],
    after_N: NDArray[np.int64],
    labels_N: NDArray[np.int64],
    class_names: tuple[str, ...],
) -> Orientation:
    """The same, the pairs that a training with mirrored pictures tells apart set aside: by the answers for upright
    images before and after it, the two classes are hardly more often mistaken for one another.

    Each class's own share counts, their mean: where two cannot be told apart it is one half, whatever their sizes and
    whichever of them is answered. A second network that knows nothing sets nothing aside.
    """

    def mistaken(answers_N: NDArray[np.int64], a: int, b: int) -> float:
        shares = [float((answers_N[labels_N == own] == other).mean()) for own, other in ((a, b), (b, a))]
        return sum(shares) / 2

    def is_parted(pair: tuple[str, str]) -> bool:
        a, b = map(class_names.index, pair)
        is_there = bool((labels_N == b).any())  # a class without held-out images cannot speak for itself
        return is_there and mistaken(after_N, a, b) <= mistaken(before_N, a, b) + _CONFUSED

    knows = found_in([after_N] * 3, labels_N, class_names).is_telling
    told_apart = tuple(pair for pair in found.taken if knows and is_parted(pair))
    taken = tuple(pair for pair in found.taken if pair not in told_apart)
    return replace(found, taken=taken, told_apart=told_apart)


def found_in(
    answers: list[NDArray[np.int64]], labels_N: NDArray[np.int64], class_names: tuple[str, ...]
) -> Orientation:
    """What the answers (N,) for images as they are, mirrored and turned say."""
    upright, mirrored, turned = (answer == labels_N for answer in answers)
    num, chance = len(labels_N), float(np.bincount(labels_N).max()) / len(labels_N)
    right = float(upright.mean())
    is_telling = right - chance > max(_KNOWS * (1 - chance), _SURE * math.sqrt(right * (1 - right) / num))
    taken = []
    for label in np.unique(labels_N).tolist():
        own = labels_N == label
        if own.sum() < _LEAST_OF_CLASS or not is_telling:
            continue
        counts = np.bincount(answers[1][own & (answers[1] != label)], minlength=len(class_names))
        other = int(counts.argmax())
        before = int(((answers[0] == other) & own).sum())
        more = int(counts[other]) - before
        if counts[other] >= _TAKEN * own.sum() and more > _SURE * math.sqrt(max(1, counts[other] + before)):
            taken.append((class_names[label], class_names[other]))

    def as_well(other: NDArray[np.bool_]) -> bool:
        lost = upright.astype(np.float64) - other
        error = float(lost.std(ddof=1)) / math.sqrt(num)
        return is_telling and float(lost.mean()) + 2 * error <= max(_AS_WELL * right, 2 / num)

    return Orientation(
        num=num,
        upright=right,
        mirrored=float(mirrored.mean()),
        turned=float(turned.mean()),
        is_telling=is_telling,
        mirrors_as_well=as_well(mirrored),
        turns_as_well=as_well(turned),
        taken=tuple(taken),
    )


def augmentation_for(kind: Kind, found: Orientation | None) -> tuple[list[str], str]:
    """The kinds of augmentation, and why flips and turns are or are not among them."""
    usual = "as is usual for them" if kind.is_mirrored else "as is usual for what is drawn or written"
    names = list(kind.augmentation) + (["flip"] if kind.is_mirrored else [])
    mirrored = "mirrored" if kind.is_mirrored else "not mirrored"
    if found is None:
        return names, f"{mirrored}, {usual}: there are too few pictures to try it"
    asked = (
        f"a network that never saw them is right for {percent(found.upright)} of {found.num:,} held-out pictures as "
        f"they are, {percent(found.mirrored)} mirrored, {percent(found.turned)} turned"
    )
    if found.taken:
        pairs = ", ".join(f"{shown(a, 24)} is taken for {shown(b, 24)}" for a, b in found.taken[:3])
        more = f" (and {len(found.taken) - 3} more)" if len(found.taken) > 3 else ""
        return [name for name in names if name != "flip"], f"not mirrored, for once mirrored {pairs}{more}"
    if not found.is_telling:
        return names, f"{mirrored}, {usual}: a trial says nothing, for {asked}"
    if found.turns_as_well and found.mirrors_as_well:
        return [*kind.augmentation, "flip", "turn"], f"mirrored and turned, for nothing is up in them: {asked}"
    if found.told_apart:
        pairs = ", ".join(f"{shown(a, 24)} and {shown(b, 24)}" for a, b in found.told_apart[:3])
        return names, f"mirrored, {usual}: {asked}; one that saw them tells {pairs} apart all the same"
    if found.mirrors_as_well and not kind.is_mirrored:
        return [*names, "flip"], f"mirrored, for that changes nothing: {asked}"
    return names, f"{mirrored}, {usual}: {asked}"
