"""Which input size photographs are worth: the same short training at 32, 64, 128 and 224 pixels.

Owns the candidates, the part of a large folder that they are tried on, and the rule that picks one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from convlens.choosing.probe import Material, images_in, material_of
from convlens.choosing.speed import rate_of
from convlens.data.packed.corrections import Relabelled
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import options_for
from convlens.data.sources.base import Source
from convlens.progress import Progress
from convlens.training.plan import TrainingPlan
from convlens.training.trial import Trial

SIDES = (32, 64, 128, 224)
MANY_TIMES = 4  # photographs more than so many times the smallest input are probed
MOST_PICTURES = 500  # of a large folder that the sizes are tried on
_SLOW = 6.0  # times the rate of the first size, at which larger ones are not tried any more


@dataclass(frozen=True)
class Tried:
    """One size: its trial, and the seconds that the whole training would take at it."""

    side: int
    trial: Trial
    train_s: float

    def __str__(self) -> str:
        trial = self.trial
        minutes = f"{self.train_s / 60:.1f} min" if self.train_s >= 6 else f"{self.train_s:.0f} s"
        return (
            f"{self.side:>3} px: {100 * trial.accuracy:5.1f} % of {len(trial.right_N):,} held-out images, "
            f"loss {trial.loss:.3f}, about {minutes} to train"
        )


@dataclass(frozen=True)
class Part:
    """A part of a source, what of it is left out or has another label, and how many times as many pictures the whole
    has."""

    source: Source
    exclude: tuple[str, ...]
    relabelled: tuple[Relabelled, ...]
    factor: float

    def of(self, options: PackOptions) -> PackOptions:
        """The options of the whole, for this part."""
        return options.replace(exclude=self.exclude, relabelled=self.relabelled)


def sample_of(source: Source, options: PackOptions) -> Part:
    """A part of a large source, evenly spread; the whole of a small one.

    Whether an image is test depends on that image alone, so test images of the whole stay out of probes here.
    """
    step = -(-source.num_samples // MOST_PICTURES)
    if step == 1:
        return whole(source, options)
    part, factor = source.every(step), source.num_samples / source.every(step).num_samples
    if not (options.exclude or options.relabelled):
        return Part(part, (), (), factor)
    _, known = options_for(source, options)
    names = {sample.name for sample in part.samples()}
    changed = tuple(one for one in known.relabelled if one.path in names)
    return Part(part, tuple(name for name in known.exclude if name in names), changed, factor)


def whole(source: Source, options: PackOptions) -> Part:
    """All of a source."""
    return Part(source, options.exclude, options.relabelled, 1.0)


def try_sizes(
    open_at: Callable[[int], Dataset],
    planned: Callable[[Dataset], TrainingPlan],
    sides: list[int],
    factor: float,
    seconds: float,
    bar: Progress,
    material: Material | None = None,
) -> list[Tried]:
    """Train shortly at each size, on the same images, and measure on the same held-out ones.

    `open_at` packs at a size, `planned` gives the plan of a whole training for a data set, which has `factor` times the
    images. At the smallest size a training takes about `seconds`. `material` has those images, where they are chosen.
    """
    tried: list[Tried] = []
    enough, first = 0, 0.0
    for side in sides:
        dataset = open_at(side)
        material = material_of(dataset) if material is None else material.on(dataset)
        plan = planned(dataset)
        rate = rate_of(material, plan)
        if not enough:
            enough, first = images_in(seconds, rate), rate
        epochs = min(plan.recipe.epochs, max(1.0, enough / len(material.rows)))
        bar.start(f"trying {side} px", 1, unit="trainings")
        trial = material.try_out(replace(plan, recipe=plan.recipe.replace(epochs=epochs)), bar)
        tried.append(Tried(side, trial, plan.recipe.epochs * dataset.counts["train"] * factor / rate))
        if _SLOW * rate < first:
            break  # the next size would take longer still
    return tried


def best_of(tried: list[Tried]) -> Tried:
    """The smallest size that is not worse than the best one by more than chance explains (one standard error of the
    paired difference of the losses)."""
    best = min(tried, key=lambda one: one.trial.loss)
    for one in tried:
        difference_N = one.trial.losses_N - best.trial.losses_N
        error = float(difference_N.std(ddof=1)) / np.sqrt(len(difference_N)) if len(difference_N) > 1 else 0.0
        if float(difference_N.mean()) <= error:
            return one
    return best
