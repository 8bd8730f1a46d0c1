"""Probes: trials whose only purpose is a choice, on images held out from training.

Owns which images a probe learns from and which it is measured on: train and val, never test.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from convlens.data.packed.dataset import Dataset, in_split
from convlens.data.packed.splits import mixed
from convlens.errors import DataError
from convlens.progress import Progress
from convlens.text import shown
from convlens.training.plan import TrainingPlan
from convlens.training.trial import Trial, run_trial

_HELD_OUT = 300  # fewer validation images than this say too little: a third of train and val is held out instead
_MOST_HELD_OUT = 2_000


@dataclass(frozen=True)
class Material:
    """What probes learn from and what they are measured on, as row numbers int64 of a data set."""

    dataset: Dataset
    rows: NDArray[np.int64]
    held_out: NDArray[np.int64]

    def limited(self, most: int) -> Self:
        """The same with at most so many training images, evenly spread over them."""
        if len(self.rows) <= most:
            return self
        return replace(self, rows=np.unique(self.rows[np.linspace(0, len(self.rows) - 1, most).round().astype(int)]))

    def on(self, dataset: Dataset) -> Self:
        """The same images in another packing of their source. Raises DataError where one of them is not there."""
        ours = {name: row for row, name in enumerate(dataset.sample_names())}
        names = self.dataset.sample_names()
        missing = [names[row] for row in (*self.rows, *self.held_out) if names[row] not in ours]
        if missing:
            raise DataError(f"{shown(missing[0])} cannot be read at every size")
        rows, held_out = (np.array([ours[names[row]] for row in part], np.int64) for part in (self.rows, self.held_out))
        return replace(self, dataset=dataset, rows=rows, held_out=held_out)

    def try_out(self, plan: TrainingPlan, bar: Progress | None = None) -> Trial:
        """One training of a plan on these images."""
        return run_trial(replace(plan, dataset=self.dataset), self.rows, self.held_out, bar)


def material_of(dataset: Dataset) -> Material:
    """Train and val of a data set, parted for probes.

    Validation is held out where it has 300 images; else a third of train and val, whole groups and equal images
    together, as splits are drawn.
    """
    train, val = dataset.rows("train"), dataset.rows("val")
    if len(val) < _HELD_OUT:
        rows = np.sort(np.concatenate([train, val]))
        held = in_split(mixed(dataset.split_keys(rows), times=2), dataset.labels_at(rows), 1 / 3)
        train, val = (rows[~held], rows[held]) if not held.all() else (rows, rows[:0])
    val = val[:: -(-len(val) // _MOST_HELD_OUT)] if len(val) else val
    return Material(dataset, train, val)


def images_in(seconds: float, images_per_s: float) -> int:
    """About how many images a training of so many seconds learns from: coarse (powers of the square root of 2), so that
    a machine that is a little busier decides nothing."""
    return round(2 ** (math.floor(2 * math.log2(max(1.0, seconds * images_per_s))) / 2))
