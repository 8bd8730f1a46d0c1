"""Batches as a pure function of (seed, step).

Owns the order of images, and which of them a batch draws what for. Resuming needs one integer; neither the number of
processes nor the device changes which image gets which augmentation. What an augmentation does is `augmentation.py`'s
business.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convlens.augmentation import KINDS, Augmentation, Draw, Kind
from convlens.data.packed.image_rows import ImageRows
from convlens.network.forward import tensor_of
from convlens.recipe import Recipe

_ORDER = 0  # the stream of random numbers of the order; each augmentation has its own
assert len({_ORDER, *(kind.stream for kind in KINDS)}) == len(KINDS) + 1, "streams must not meet"


# What is trained on: images, mapped or copied to the device, or the outputs of frozen layers, one item a view.
Images = Tensor | ImageRows | tuple[Tensor | ImageRows, ...]


class Batch(NamedTuple):
    """Which images, and what happens to each: positions in the training split and the epoch of each, int64 (B,), and
    for each augmentation that is on the batch's rows of its draw, (B, …)."""

    positions: NDArray[np.int64]
    epochs: NDArray[np.int64]
    augmentation: Augmentation
    draws: dict[str, Draw]


def _rng(seed: int, epoch: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, stream])))


# A batch touches two epochs at most, unless it is larger than one.
@lru_cache(maxsize=4)
def _order(num_images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return _rng(seed, epoch, _ORDER).permutation(num_images)


@lru_cache(maxsize=4 * len(KINDS))
def _draw(kind: Kind, augmentation: Augmentation, num_images: int, seed: int, epoch: int) -> Draw:
    return kind.draw(_rng(seed, epoch, kind.stream), num_images, augmentation)


def drawn_of(counts_K: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 (K,): how many of an epoch's places each class gets under balanced sampling, as the square roots of the
    classes' sizes (int64 (K,)), summing to the same total; the loss weights make up for the rest.

    Sampling each class alike often (`counts` alike) would repeat the few images of a rare class hundreds of times in an
    epoch: they are learned by heart, and the batch's statistics with them (bench/imbalance.py).
    """
    roots = np.sqrt(counts_K)
    ends = np.rint(np.cumsum(roots) / roots.sum() * counts_K.sum()).astype(np.int64)
    drawn: NDArray[np.int64] = np.diff(ends, prepend=0)
    return drawn


def _balanced_order(labels_N: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """As many places as images, each class's spread evenly; a class's images follow one another in random order, and
    over again when they are used up."""
    rng = _rng(seed, epoch, _ORDER)
    counts_K = np.bincount(labels_N)
    parts, times = [], []
    for label, num in enumerate(drawn_of(counts_K).tolist()):
        own = np.flatnonzero(labels_N == label)
        rounds = -(-num // len(own)) if num else 0
        parts.append(np.concatenate([rng.permutation(own) for _ in range(rounds)])[:num] if num else own[:0])
        times.append((np.arange(num) + rng.random(num)) / max(num, 1))
    return np.concatenate(parts)[np.argsort(np.concatenate(times), kind="stable")]


@dataclass(frozen=True)
class Batches:
    """The batches of a training: `batches.at(step)`.

    The permutations of successive epochs are concatenated; step k takes places kB to (k+1)B of that sequence,
    so that a batch across two epochs, or larger than one, is no special case. With `labels_N` (for balanced
    sampling) small classes get more places (`drawn_of`), and an epoch has as many images in all as there are.
    """

    num_images: int
    batch_size: int
    seed: int
    augmentation: Augmentation = field(default_factory=Augmentation)
    labels_N: NDArray[np.int64] | None = field(default=None, compare=False, repr=False)
    _orders: dict[int, NDArray[np.int64]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, recipe: Recipe, labels_N: NDArray[np.int64], seed: int) -> Self:
        """The batches that a recipe asks for, of training images with these labels. Where layers are frozen, nothing is
        left to augment: their outputs are of augmented images."""
        balanced = labels_N if recipe.balance == "sampling" else None
        augmentation = Augmentation() if recipe.freeze else recipe.augmentation
        return cls(len(labels_N), recipe.batch_size, seed, augmentation, balanced)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self.labels_N is None:
            return _order(self.num_images, self.seed, epoch)
        if epoch not in self._orders:
            for old in [e for e in self._orders if e < epoch - 1]:
                del self._orders[old]
            self._orders[epoch] = _balanced_order(self.labels_N, self.seed, epoch)
        return self._orders[epoch]

    def epochs_done(self, num_steps: int) -> int:
        """Whole epochs within so many steps."""
        return num_steps * self.batch_size // self.num_images

    def at(self, step: int, rank: int = 0, num_ranks: int = 1, num_steps: int = 1) -> Batch:
        """The batch of a step, or this rank's part of it: the whole batch is drawn first and then cut. With `num_steps`
        those of so many steps from that one on, one after the other."""
        places = np.arange(step * self.batch_size, (step + num_steps) * self.batch_size)
        places = places.reshape(num_steps, -1)[:, rank::num_ranks].ravel()
        epochs, within = np.divmod(places, self.num_images)
        parts = [(int(epoch), within[epochs == epoch]) for epoch in np.unique(epochs)]  # in order
        parts = parts or [(0, within)]  # a rank without a part
        draws = {
            kind.name: np.concatenate(
                [_draw(kind, self.augmentation, self.num_images, self.seed, epoch)[spots] for epoch, spots in parts]
            )
            for kind in self.augmentation.kinds
        }
        positions = np.concatenate([self._order(epoch)[spots] for epoch, spots in parts])
        return Batch(positions, epochs, self.augmentation, draws)


def gather(images_NHWC: Images, batch: Batch, device: str) -> Tensor:
    """The batch's images on `device`, uint8 (B, H, W, C), each augmentation applied; of several views of each image
    (outputs of frozen layers) those whose turn it is in their epochs."""
    if isinstance(images_NHWC, tuple):
        views = batch.epochs % len(images_NHWC)
        numbers = np.unique(views)
        parts = [_picked(images_NHWC[view], batch.positions[views == view], device) for view in numbers]
        return parts[0] if len(parts) == 1 else _in_places([np.flatnonzero(views == view) for view in numbers], parts)
    draws = {name: torch.from_numpy(draw).to(device) for name, draw in batch.draws.items()}
    return augmented(_picked(images_NHWC, batch.positions, device), draws, batch.augmentation)


def augmented(images_NHWC: Tensor, draws: Mapping[str, Tensor], augmentation: Augmentation) -> Tensor:
    """Images uint8 (B, H, W, C) after each augmentation that is on, with its draws (B, …) beside them."""
    for kind in augmentation.kinds:
        images_NHWC = kind.apply(torch, images_NHWC, draws[kind.name], augmentation)
    return images_NHWC


def _picked(images_NHWC: Tensor | ImageRows, positions: NDArray[np.int64], device: str) -> Tensor:
    """Images that are on the device already (a tensor) are picked there; mapped ones are read and sent."""
    if isinstance(images_NHWC, Tensor):
        return images_NHWC[torch.from_numpy(positions).to(images_NHWC.device)]
    return tensor_of(images_NHWC[positions]).to(device)


def _in_places(places: list[NDArray[np.int64]], parts: list[Tensor]) -> Tensor:
    """Parts of a batch, each row in its place."""
    order = np.argsort(np.concatenate(places))
    return torch.cat(parts)[torch.from_numpy(order).to(parts[0].device)]
