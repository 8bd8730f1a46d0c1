"""How accuracy grows with the number of pictures, and what twice as many would give.

Owns the measurement: heads fitted to parts of the outputs that frozen layers gave for the training images, each
measured on images held out from it. Only where a head was fitted, for then it costs seconds.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from convlens.data.packed.dataset import in_split
from convlens.data.packed.splits import mixed
from convlens.metrics import LearningCurve, learning_curve_of
from convlens.network.compute import settled
from convlens.progress import Progress
from convlens.recipe import Recipe
from convlens.training.fit import network_of
from convlens.training.head import features_at, fitted_head, rounds_of
from convlens.training.plan import TrainingPlan

FRACTIONS = (1 / 8, 1 / 4, 1 / 2, 1.0)
_PARTS = 4  # drawn of each size
_LEAST, _LEAST_OF_EACH = 40, 16  # training images that are no group together, below which an eighth is nothing


def measure_learning_curve(plan: TrainingPlan, bar: Progress) -> LearningCurve | None:
    """Accuracy after an eighth, a quarter, a half and all of the training images, and a forecast for twice as many.

    Of the head alone, on frozen features, as the recipe fits it. None where images or groups are too few.
    """
    dataset, num_classes = plan.dataset, plan.network.num_classes
    rows = np.sort(np.concatenate([dataset.rows("train"), dataset.rows("val")]))
    labels = dataset.labels_at(rows)
    rounds = rounds_of(dataset, rows)
    num_apart = len(np.unique(dataset.split_keys(dataset.rows("train"))))
    if num_apart < max(_LEAST, _LEAST_OF_EACH * num_classes) or not rounds:
        return None
    with settled(plan.compute):
        features_NC = features_at(network_of(plan), plan, rows, bar)
        bar.start("learning curve", len(rounds) * (1 + _PARTS * (len(FRACTIONS) - 1)), unit="fits")
        keys, labels_N = dataset.split_keys(rows), torch.from_numpy(labels)
        right: list[list[NDArray[np.bool_]]] = [[] for _ in FRACTIONS]
        sizes: list[list[int]] = [[] for _ in FRACTIONS]
        for held in rounds:
            out = torch.from_numpy(held)
            for place, fraction in enumerate(FRACTIONS):
                found = []
                for part in range(_PARTS if fraction < 1 else 1):
                    used = torch.from_numpy(_part(keys, labels, ~held, fraction, part))
                    sizes[place].append(int(used.sum()))
                    recipe = _weighing_alike(plan.recipe, int((~out).sum()) / int(used.sum()))
                    weight_KC, bias_K = fitted_head(features_NC[used], labels_N[used], num_classes, recipe)
                    answers = (features_NC[out] @ weight_KC.T + bias_K).argmax(dim=1)
                    found.append((answers == labels_N[out]).numpy())
                    bar.advance(1)
                right[place].append(np.stack(found + found[:1] * (_PARTS - len(found))))
    held_labels = np.concatenate([labels[held] for held in rounds])
    right_FPN = np.stack([np.concatenate(parts, axis=1) for parts in right])
    nums = [round(float(np.mean(of_one))) for of_one in sizes]
    return learning_curve_of(nums, right_FPN, held_labels, dataset.class_names)


def _weighing_alike(recipe: Recipe, times: float) -> Recipe:
    """The recipe for so many times fewer images: a penalty that stands beside a mean over them then weighs as much
    against their sum."""
    if recipe.head != "logistic":
        return recipe
    return recipe.replace(head_penalty=min(times * recipe.head_penalty, 1e6))


def _part(
    keys_N: NDArray[np.uint64], labels_N: NDArray[np.int64], pool_N: NDArray[np.bool_], fraction: float, number: int
) -> NDArray[np.bool_]:
    """bool (N,): about that share of the pool, of each class, whole groups and equal pictures together."""
    if fraction == 1:
        return pool_N
    at = np.flatnonzero(pool_N)
    chosen = ~in_split(mixed(keys_N[at], times=11 + number), labels_N[at], 1 - fraction)
    used = np.zeros(len(pool_N), bool)
    used[at[chosen]] = True
    return used
