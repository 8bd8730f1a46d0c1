"""Batches as a pure function of (seed, step).

Owns the order of images and the augmentation. Resuming needs one integer; neither the number of processes nor
the device changes which image gets which shift. Knows nothing of networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from convlens.data.decode import Pixels
from convlens.data.mapped import MappedImages
from convlens.recipe import Recipe

_ORDER, _SHIFT, _FLIP = 0, 1, 2  # streams of random numbers that must not meet


class Batch(NamedTuple):
    """Which images, and what happens to each: positions in the training split int64 (B,), shifts in pixels
    int64 (B, 2) as (down, right) or None, mirrored bool (B,) or None."""

    positions: NDArray[np.int64]
    shifts: NDArray[np.int64] | None
    flips: NDArray[np.bool_] | None


def _rng(seed: int, epoch: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, stream])))


@lru_cache(maxsize=4)  # a batch touches two epochs at most, unless it is larger than one
def _order(num_images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return _rng(seed, epoch, _ORDER).permutation(num_images)


@lru_cache(maxsize=4)
def _shifts(num_images: int, seed: int, epoch: int, reach: int) -> NDArray[np.int8]:
    return _rng(seed, epoch, _SHIFT).integers(-reach, reach + 1, (num_images, 2), np.int8)  # reach is 64 at most


@lru_cache(maxsize=4)
def _flips(num_images: int, seed: int, epoch: int) -> NDArray[np.bool_]:
    return _rng(seed, epoch, _FLIP).random(num_images) < 0.5


@dataclass(frozen=True)
class Batches:
    """The batches of a training: `batches.at(step)`.

    The permutations of successive epochs are concatenated; step k takes places kB to (k+1)B of that sequence,
    so that a batch across two epochs, or larger than one, is no special case.
    """

    num_images: int
    batch_size: int
    seed: int
    shift_px: int = 0
    flip: bool = False

    @classmethod
    def of(cls, recipe: Recipe, num_images: int, seed: int) -> Batches:
        """The batches that a recipe asks for."""
        return cls(num_images, recipe.batch_size, seed, recipe.shift_px, recipe.flip)

    def epochs_done(self, num_steps: int) -> int:
        """Whole epochs within so many steps."""
        return num_steps * self.batch_size // self.num_images

    def at(self, step: int, rank: int = 0, num_ranks: int = 1) -> Batch:
        """The batch of a step, or this rank's part of it: the whole batch is drawn first and then cut."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)[rank::num_ranks]
        epochs, within = np.divmod(places, self.num_images)
        positions = np.empty(len(places), np.int64)
        shifts = np.empty((len(places), 2), np.int64) if self.shift_px else None
        flips = np.empty(len(places), bool) if self.flip else None
        for epoch in np.unique(epochs):
            here = epochs == epoch
            spots = within[here]
            positions[here] = _order(self.num_images, self.seed, int(epoch))[spots]
            if shifts is not None:
                shifts[here] = _shifts(self.num_images, self.seed, int(epoch), self.shift_px)[spots]
            if flips is not None:
                flips[here] = _flips(self.num_images, self.seed, int(epoch))[spots]
        return Batch(positions, shifts, flips)


def gather(images_NHWC: Tensor | MappedImages, batch: Batch, device: str) -> Tensor:
    """The batch's images on `device`, uint8 (B, H, W, C), moved and mirrored; pixels moved in repeat the edge.

    Images that are on the device already (a tensor) are picked and moved there; mapped ones on the CPU before
    they are sent.
    """
    if isinstance(images_NHWC, Tensor):
        return _gathered_there(images_NHWC, batch)
    pixels = images_NHWC[batch.positions]
    if batch.flips is not None:
        pixels[batch.flips] = pixels[batch.flips, :, ::-1]
    if batch.shifts is not None:
        pixels = shifted(pixels, batch.shifts)
    return torch.from_numpy(pixels).to(device)


def shifted(images_NHWC: Pixels, shifts: NDArray[np.int64]) -> Pixels:
    """Each uint8 image (H, W, C) moved by its (down, right) pixels, edges repeated.

    All places that an image can be moved to are windows of the padded one: one copy, a third of the time of
    looking up each pixel.
    """
    num, height, width, channels = images_NHWC.shape
    reach = int(np.abs(shifts).max(initial=0))
    padded = np.pad(images_NHWC, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    lines = padded.reshape(num, height + 2 * reach, -1)
    windows = sliding_window_view(lines, (height, width * channels), axis=(1, 2))[:, :, ::channels]
    moved: Pixels = windows[np.arange(num), reach - shifts[:, 0], reach - shifts[:, 1]]
    return moved.reshape(images_NHWC.shape)


def _gathered_there(images_NHWC: Tensor, batch: Batch) -> Tensor:
    """The same by looking up each pixel, on whatever device the images are."""
    device = images_NHWC.device
    positions = torch.from_numpy(batch.positions).to(device)
    if batch.shifts is None and batch.flips is None:
        return images_NHWC[positions]
    height, width = images_NHWC.shape[1:3]
    rows = np.arange(height)[None, :].repeat(len(batch.positions), 0)
    columns = np.arange(width)[None, :].repeat(len(batch.positions), 0)
    if batch.flips is not None:
        columns[batch.flips] = columns[batch.flips, ::-1]
    if batch.shifts is not None:
        rows = np.clip(rows - batch.shifts[:, :1], 0, height - 1)
        moved = np.clip(np.arange(width) - batch.shifts[:, 1:], 0, width - 1)
        columns = np.take_along_axis(columns, moved, axis=1)
    picked: Tensor = images_NHWC[
        positions[:, None, None],
        torch.from_numpy(rows).to(device)[:, :, None],
        torch.from_numpy(columns).to(device)[:, None, :],
    ]
    return picked
