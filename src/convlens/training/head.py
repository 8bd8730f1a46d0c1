"""How a training begins where layers are frozen: what it learns from, and a head that is fitted.

Owns which images the frozen layers' outputs are computed for, and the two ways to fit the last linear layer to the
outputs before it. How outputs are computed and kept is `network/frozen.py`'s business.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convlens.data.packed.dataset import Dataset
from convlens.data.packed.image_rows import ImageRows
from convlens.data.packed.splits import deal
from convlens.network.build import Network
from convlens.network.compute import Compute
from convlens.network.forward import tensor_of
from convlens.network.frozen import AS_THEY_ARE, View, frozen_outputs
from convlens.progress import Progress
from convlens.recipe import Recipe
from convlens.training.plan import TrainingPlan
from convlens.training.step import class_weights_of

_ITERATIONS, _MEMORY, _TOLERANCE = 500, 10, 1e-7  # of the loss, by which a last step lowers it
_MANY = 20  # times as many images in a split as are asked for: then those alone are computed
_ENOUGH, _ROUNDS = 300, 4


def trained_on(
    network: Network, plan: TrainingPlan, rows: NDArray[np.int64], first: int, bar: Progress
) -> tuple[ImageRows, ...]:
    """What a training on these rows learns from: their images, or with `first` above 0 what the layers before that one
    make of them, one item for each view."""
    if first == 0:
        return (plan.dataset.images_at(rows),)
    recipe = plan.recipe
    views = [AS_THEY_ARE]
    if recipe.kinds:
        num = min(recipe.frozen_views, max(1, -(-recipe.num_steps(len(rows)) * recipe.batch_size // len(rows))))
        views = [View(recipe.augmentation, number, plan.seed) for number in range(num)]
    return tuple(_outputs(network, plan, rows, first, plan.frozen_compute, bar, view) for view in views)


def _outputs(
    network: Network,
    plan: TrainingPlan,
    rows: NDArray[np.int64],
    first: int,
    compute: Compute,
    bar: Progress,
    view: View = AS_THEY_ARE,
) -> ImageRows:
    """Computed for all images of training that `rows` are many of: who asks for others of them finds them there."""
    whole = plan.dataset.rows("train")
    whole = whole if len(rows) * _MANY >= len(whole) and np.isin(rows, whole).all() else rows
    found = frozen_outputs(network, first, plan.dataset.images_at(whole), compute, bar, view)
    return found.only(np.searchsorted(whole, rows))


def measured_outputs(
    network: Network, plan: TrainingPlan, rows: NDArray[np.int64], first: int, bar: Progress
) -> ImageRows:
    """What the layers before number `first` make of images that a score is computed for: always in float32, and each of
    them held to its key. Raises as `frozen_outputs`, and DataError where one is not what was computed."""
    exact = replace(plan.compute, precision="float32")
    found = _outputs(network, plan, rows, first, exact, bar)
    found.check()
    return found


def features_at(network: Network, plan: TrainingPlan, rows: NDArray[np.int64], bar: Progress) -> Tensor:
    """float32 (N, C): what comes to the last linear layer from the images of `rows`, train and val, as they are."""
    place, is_val = plan.network.index_of("head"), np.isin(rows, plan.dataset.rows("val"))
    features_NC = torch.zeros((len(rows), math.prod(plan.network.nodes[place].input_shape)))
    if not is_val.all():
        learned = _outputs(network, plan, rows[~is_val], place, plan.frozen_compute, bar)
        features_NC[torch.from_numpy(~is_val)] = tensor_of(learned[:]).float()
    if is_val.any():
        measured = measured_outputs(network, plan, rows[is_val], place, bar)
        features_NC[torch.from_numpy(is_val)] = tensor_of(measured[:])
    return features_NC


def begin_head(network: Network, plan: TrainingPlan, rows: NDArray[np.int64], bar: Progress) -> None:
    """Fit the last linear layer, as the recipe says, to what comes to it from the images of `rows`."""
    features_NC, labels_N = features_at(network, plan, rows, bar), torch.from_numpy(plan.dataset.labels_at(rows))
    weight_KC, bias_K = fitted_head(features_NC, labels_N, plan.network.num_classes, plan.recipe)
    linear = list(network.layers.children())[plan.network.index_of("head")]
    with torch.no_grad():
        linear.get_parameter("weight").copy_(weight_KC)
        linear.get_parameter("bias").copy_(bias_K)


def rounds_of(dataset: Dataset, rows: NDArray[np.int64]) -> list[NDArray[np.bool_]]:
    """Which of these rows, train and val, are held out, bool (N,), a round each: validation where it has 300 images;
    else each image in one of four rounds, whole groups and equal pictures together. Rounds without every class in what
    is learned from are left out."""
    labels, num_classes = dataset.labels_at(rows), len(dataset.class_names)
    if dataset.counts["val"] >= _ENOUGH:
        rounds = [np.isin(rows, dataset.rows("val"))]
    else:
        fold_N = deal(dataset.split_keys(rows), labels, _ROUNDS)
        rounds = [fold_N == number for number in range(_ROUNDS)]
    return [held for held in rounds if held.any() and len(np.unique(labels[~held])) == num_classes]


def fitted_head(
    features_NC: Tensor,
    labels_N: Tensor,
    num_classes: int,
    recipe: Recipe,
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The weights float32 (K, C) and bias (K,) that the recipe's `head` and `head_penalty` ask for; logistic regression
    is sooner there from a `start` that is near, such as what it gave under another penalty.

    Features are shifted to mean 0 and divided by one number, so that a penalty means the same for each network.
    """
    mean_C, scale = features_NC.mean(dim=0), features_NC.std(dim=0).square().mean().sqrt().clamp(min=1e-6)
    x_NC = (features_NC - mean_C) / scale
    weights_K = class_weights_of(labels_N, num_classes, "none" if recipe.balance == "none" else "weights")
    if recipe.head == "means":
        weight_KC, bias_K = _means(x_NC, labels_N, num_classes, recipe.head_penalty)
    else:
        at = None if start is None else (start[0] * scale, start[1] + start[0] @ mean_C)
        weight_KC, bias_K = _logistic(x_NC, labels_N, num_classes, recipe.head_penalty, weights_K, at)
    return weight_KC / scale, bias_K - weight_KC @ mean_C / scale


def _means(x_NC: Tensor, labels_N: Tensor, num_classes: int, variance: float) -> tuple[Tensor, Tensor]:
    """The nearest class mean, as a linear layer: equal round clouds of this variance around each mean, equally likely
    classes, give logits x·m / v - |m|² / 2v (Hastie, Tibshirani and Friedman, section 4.3)."""
    sums_KC = torch.zeros(num_classes, x_NC.shape[1]).index_add_(0, labels_N, x_NC)
    means_KC = sums_KC / torch.bincount(labels_N, minlength=num_classes).clamp(min=1)[:, None]
    return means_KC / variance, -means_KC.square().sum(dim=1) / (2 * variance)


def _logistic(
    x_NC: Tensor,
    labels_N: Tensor,
    num_classes: int,
    penalty: float,
    weights_K: Tensor | None,
    start: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression: the least mean cross-entropy + penalty / 2 · |weights|², by L-BFGS (Nocedal and
    Wright, algorithm 7.5) with a line that is halved until it descends enough. The bias has no penalty."""
    num, num_features = x_NC.shape
    share_N = torch.full((num,), 1 / num) if weights_K is None else weights_K[labels_N] / weights_K[labels_N].sum()
    target_NK = torch.nn.functional.one_hot(labels_N, num_classes).float() * share_N[:, None]

    def loss_and_gradient(flat: Tensor) -> tuple[float, Tensor]:
        weight_KC, bias_K = flat[: num_classes * num_features].view(num_classes, -1), flat[num_classes * num_features :]
        logs_NK = torch.log_softmax(x_NC @ weight_KC.T + bias_K, dim=1)
        loss = float(penalty / 2 * weight_KC.square().sum().double() - (target_NK * logs_NK).sum(dtype=torch.float64))
        slope_NK = logs_NK.exp() * share_N[:, None] - target_NK
        return loss, torch.cat([(slope_NK.T @ x_NC + penalty * weight_KC).flatten(), slope_NK.sum(dim=0)])

    at = torch.zeros(num_classes * (num_features + 1)) if start is None else torch.cat([start[0].flatten(), start[1]])
    loss, gradient = loss_and_gradient(at)
    pairs: list[tuple[Tensor, Tensor]] = []  # of steps and of what they changed the gradient by
    for _ in range(_ITERATIONS):
        direction = -_curved(gradient, pairs)
        slope, length = float(direction @ gradient), 1.0 if pairs else min(1.0, 1 / float(gradient.abs().sum()))
        while length > 1e-10:
            new_loss, new_gradient = loss_and_gradient(at + length * direction)
            if new_loss <= loss + 1e-4 * length * slope:
                break
            length /= 2
        else:
            break  # float32 has no lower one
        step, change, is_there = length * direction, new_gradient - gradient, loss - new_loss < _TOLERANCE * loss
        at, loss, gradient = at + step, new_loss, new_gradient
        if is_there:
            break
        if float(step @ change) > 1e-12:
            pairs = [*pairs, (step, change)][-_MEMORY:]
    return at[: num_classes * num_features].view(num_classes, -1), at[num_classes * num_features :]


def _curved(gradient: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The gradient times the inverse curvature that the last steps showed (the two-loop recursion, algorithm 7.4)."""
    q, factors = gradient.clone(), []
    for step, change in reversed(pairs):
        factors.append(float(step @ q) / float(step @ change))
        q -= factors[-1] * change
    if pairs:
        step, change = pairs[-1]
        q *= float(step @ change) / float(change @ change)
    for (step, change), factor in zip(pairs, reversed(factors), strict=True):
        q += (factor - float(change @ q) / float(step @ change)) * step
    return q
