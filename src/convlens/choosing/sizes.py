"""Which input size photographs are worth: the same short training at 32, 64, 128 and 224 pixels.

Owns the candidates, the part of a large folder that they are tried on, and the rule that picks one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from convlens.architecture import Plan
from convlens.choosing.trial import Material, Trial, images_in, material_of, rate_of, run_trial, same_material
from convlens.data.packed.dataset import Dataset
from convlens.data.sources.base import FileSource
from convlens.network.compute import Compute
from convlens.progress import Progress
from convlens.recipe import Recipe

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
    """A part of a source, the exclusions that concern it, and how many times as many pictures the whole has."""

    source: FileSource
    exclude: tuple[str, ...]
    factor: float


def sample_of(source: FileSource, exclude: tuple[str, ...]) -> Part:
    """A part of a large source, evenly spread; the whole of a small one.

    Whether a picture is test depends on that picture alone, so test pictures of the whole stay out of trials here.
    """
    step = -(-len(source.samples) // MOST_PICTURES)
    if step == 1:
        return Part(source, exclude, 1.0)
    samples = source.samples[::step]
    names = {sample.relative for sample in samples}
    part = replace(source, samples=samples)
    return Part(part, tuple(name for name in exclude if name in names), len(source.samples) / len(samples))


def try_sizes(
    open_at: Callable[[int], Dataset],
    planned: Callable[[Dataset], tuple[Plan, Recipe]],
    sides: list[int],
    factor: float,
    compute: Compute,
    seed: int,
    seconds: float,
    bar: Progress,
) -> list[Tried]:
    """Train shortly at each size, on the same pictures, and measure on the same held-out ones.

    `open_at` packs at a size, `planned` gives the network and the recipe of a whole training for a data set, which has
    `factor` times the pictures. At the smallest size a training takes about `seconds`.
    """
    tried: list[Tried] = []
    material: Material | None = None
    enough = 0
    for side in sides:
        dataset = open_at(side)
        material = material_of(dataset) if material is None else same_material(material, dataset)
        plan, recipe = planned(dataset)
        if not enough:
            enough = images_in(seconds, rate_of(material, plan, recipe, seed, compute))
        short = recipe.replace(epochs=min(recipe.epochs, max(1.0, enough / len(material.images))))
        bar.start(f"trying {side} px", 1, unit="trainings")
        trial = run_trial(material, plan, short, seed, compute)
        train_s = recipe.epochs * dataset.counts["train"] * factor / max(trial.images_per_s, 1e-6)
        tried.append(Tried(side, trial, train_s))
        if _SLOW * trial.images_per_s < tried[0].trial.images_per_s:
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
