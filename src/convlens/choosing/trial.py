"""Trials: short trainings in memory whose only purpose is a choice, measured on images held out from training.

Owns which images a trial learns from and which it is measured on: train and val, never test. Leaves no files.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from convlens.architecture import Plan
from convlens.data.packed.dataset import Dataset, in_split
from convlens.data.packed.image_rows import ImageRows
from convlens.data.packed.splits import mixed
from convlens.errors import DataError, DivergedError
from convlens.metrics import softmax
from convlens.network.build import build
from convlens.network.compute import Compute, settled
from convlens.network.forward import logits_of
from convlens.network.memory import on_device
from convlens.recipe import Recipe
from convlens.text import shown
from convlens.training.batches import Batches
from convlens.training.loop import averaged, new_state, train_steps

_HELD_OUT = 300  # fewer validation images than this say too little: a third of train and val is held out instead
_MOST_HELD_OUT = 2_000
_TIMING_STEPS = 12
_WARM_UP_STEPS = 2  # the first steps of a network are slower than those that follow


@dataclass(frozen=True)
class Material:
    """What trials learn from (`images`, `labels_N`) and are measured on (`held_out`, `held_out_labels_N`)."""

    dataset: Dataset
    images: ImageRows
    labels_N: NDArray[np.int64]
    held_out: ImageRows
    held_out_labels_N: NDArray[np.int64]

    def limited(self, most: int) -> Material:
        """The same with at most so many training images, evenly spread over them."""
        if len(self.images) <= most:
            return self
        keep = np.zeros(len(self.images), bool)
        keep[np.linspace(0, len(self.images) - 1, most).round().astype(int)] = True
        return Material(
            self.dataset, self.images.only(keep), self.labels_N[keep], self.held_out, self.held_out_labels_N
        )


def material_of(dataset: Dataset) -> Material:
    """Train and val of a data set, parted for trials.

    Validation is held out where it has 300 images; else a third of train and val, whole groups and equal pictures
    together, as splits are drawn.
    """
    train, val = dataset.rows("train"), dataset.rows("val")
    if len(val) < _HELD_OUT:
        rows = np.sort(np.concatenate([train, val]))
        held = in_split(mixed(dataset.split_keys(rows), times=2), dataset.labels_at(rows), 1 / 3)
        train, val = (rows[~held], rows[held]) if not held.all() else (rows, rows[:0])
    val = val[:: -(-len(val) // _MOST_HELD_OUT)] if len(val) else val
    return Material(
        dataset, dataset.images_at(train), dataset.labels_at(train), dataset.images_at(val), dataset.labels_at(val)
    )


def same_material(material: Material, dataset: Dataset) -> Material:
    """The same pictures from another packing of their source. Raises DataError where one of them is not there."""
    ours = {name: row for row, name in enumerate(dataset.sample_names())}
    names = material.dataset.sample_names()
    missing = [names[row] for row in (*material.images.rows, *material.held_out.rows) if names[row] not in ours]
    if missing:
        raise DataError(f"{shown(missing[0])} cannot be read at every size")
    train, held = (
        np.array([ours[names[row]] for row in images.rows], np.int64) for images in (material.images, material.held_out)
    )
    return Material(
        dataset, dataset.images_at(train), dataset.labels_at(train), dataset.images_at(held), dataset.labels_at(held)
    )


@dataclass(frozen=True)
class Trial:
    """What a trial found: for the held-out images logits (N, K) (not finite where it diverged), cross-entropies in nats
    (N,) and whether each was right (N,); and how many images a second it learned from."""

    logits_NK: NDArray[np.float32]
    losses_N: NDArray[np.float64]
    right_N: NDArray[np.bool_]
    images_per_s: float

    @property
    def accuracy(self) -> float:
        """Share of the held-out images that were right."""
        return float(self.right_N.mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return float(self.losses_N.mean())


def run_trial(material: Material, plan: Plan, recipe: Recipe, seed: int, compute: Compute) -> Trial:
    """Train once and measure. A training that diverges is one that is wrong everywhere."""
    spec = material.dataset.input_spec
    with settled(compute):
        network = build(plan, spec, seed=seed, device=compute.device, memory_format=compute.memory_format)
        state = new_state(network, recipe.replace(patience=0))
        images = on_device(material.images, plan, recipe, compute)
        labels = torch.from_numpy(material.labels_N).to(compute.device)
        batches = Batches.of(recipe, material.labels_N, seed)
        num_steps = recipe.num_steps(len(material.images))
        rate, started, begun = 0.0, time.perf_counter(), 0
        try:
            for _ in train_steps(state, images, labels, batches, recipe, num_steps, compute):
                if begun == 0 and state.step >= _WARM_UP_STEPS:
                    started, begun = time.perf_counter(), state.step
            seconds = time.perf_counter() - started
            rate = (state.step - begun) * recipe.batch_size / max(seconds, 1e-6)
            with averaged(state) as settled_network:
                logits_NK = logits_of(settled_network, material.held_out)
        except DivergedError:
            logits_NK = np.full((len(material.held_out), plan.num_classes), np.nan, np.float32)
    labels_N = material.held_out_labels_N
    if not np.isfinite(logits_NK).all():
        return Trial(logits_NK, np.full(len(labels_N), np.inf), np.zeros(len(labels_N), bool), rate)
    chosen = softmax(logits_NK)[np.arange(len(labels_N)), labels_N]
    return Trial(logits_NK, -np.log(np.maximum(chosen, 1e-12)), logits_NK.argmax(axis=1) == labels_N, rate)


def rate_of(material: Material, plan: Plan, recipe: Recipe, seed: int, compute: Compute) -> float:
    """Images a second that such a training learns from, by a dozen steps of it."""
    epochs = _TIMING_STEPS * recipe.batch_size / len(material.images)
    return max(run_trial(material, plan, recipe.replace(epochs=epochs), seed, compute).images_per_s, 1e-3)


def images_in(seconds: float, images_per_s: float) -> int:
    """About how many images a training of so many seconds learns from: coarse (powers of the square root of 2), so that
    a machine that is a little busier decides nothing."""
    return round(2 ** (math.floor(2 * math.log2(max(1.0, seconds * images_per_s))) / 2))
