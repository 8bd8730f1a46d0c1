"""Batches as a pure function of (seed, step).

Owns the order of images and the augmentation. Resuming needs one integer; neither the number of processes nor
the device changes which image gets which shift. Knows nothing of networks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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

_ORDER, _SHIFT, _FLIP, _CROP, _CUTOUT = range(5)  # streams of random numbers that must not meet


class Batch(NamedTuple):
    """Which images, and what happens to each: positions in the training split int64 (B,), shifts in pixels
    int64 (B, 2) as (down, right) or None, mirrored bool (B,) or None, the part that is enlarged float32 (B, 3) as
    (top, left, side) in shares of the image or None, the middle of what is covered float32 (B, 2) as (down, right) in
    shares of the image or None."""

    positions: NDArray[np.int64]
    shifts: NDArray[np.int64] | None = None
    flips: NDArray[np.bool_] | None = None
    crops: NDArray[np.float32] | None = None
    holes: NDArray[np.float32] | None = None
    hole_frac: float = 0.0


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


@lru_cache(maxsize=4)
def _crops(num_images: int, seed: int, epoch: int, crop_frac: float) -> NDArray[np.float32]:
    draws = _rng(seed, epoch, _CROP).random((num_images, 3), np.float32)
    draws[:, 2] = 1 - crop_frac * draws[:, 2]
    draws[:, :2] *= 1 - draws[:, 2:]
    return draws


@lru_cache(maxsize=4)
def _holes(num_images: int, seed: int, epoch: int) -> NDArray[np.float32]:
    return _rng(seed, epoch, _CUTOUT).random((num_images, 2), np.float32)


def _balanced_order(labels_N: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """As many places as images, the classes in turn in random order, each class's images one after the other in
    random order and over again when they are used up."""
    rng, present = _rng(seed, epoch, _ORDER), np.unique(labels_N)
    rounds = -(-len(labels_N) // len(present))
    classes = np.concatenate([rng.permutation(present) for _ in range(rounds)])[: len(labels_N)]
    order = np.empty(len(labels_N), np.int64)
    for label in present:
        places, own = np.flatnonzero(classes == label), np.flatnonzero(labels_N == label)
        times = -(-len(places) // len(own))
        order[places] = (
            np.concatenate([rng.permutation(own) for _ in range(times)])[: len(places)] if times else own[:0]
        )
    return order


@dataclass(frozen=True)
class Batches:
    """The batches of a training: `batches.at(step)`.

    The permutations of successive epochs are concatenated; step k takes places kB to (k+1)B of that sequence,
    so that a batch across two epochs, or larger than one, is no special case. With `labels_N` (for balanced
    sampling) an epoch has as many images of each class, and as many images in all as there are.
    """

    num_images: int
    batch_size: int
    seed: int
    shift_px: int = 0
    flip: bool = False
    crop_frac: float = 0.0
    cutout_frac: float = 0.0
    labels_N: NDArray[np.int64] | None = field(default=None, compare=False, repr=False)
    _orders: dict[int, NDArray[np.int64]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, recipe: Recipe, labels_N: NDArray[np.int64], seed: int) -> Batches:
        """The batches that a recipe asks for, of training images with these labels."""
        balanced = labels_N if recipe.balance == "sampling" else None
        return cls(
            len(labels_N),
            recipe.batch_size,
            seed,
            recipe.shift_px,
            recipe.flip,
            recipe.crop_frac,
            recipe.cutout_frac,
            balanced,
        )

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

    def at(self, step: int, rank: int = 0, num_ranks: int = 1) -> Batch:
        """The batch of a step, or this rank's part of it: the whole batch is drawn first and then cut."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)[rank::num_ranks]
        epochs, within = np.divmod(places, self.num_images)
        positions = np.empty(len(places), np.int64)
        shifts = np.empty((len(places), 2), np.int64) if self.shift_px else None
        flips = np.empty(len(places), bool) if self.flip else None
        crops = np.empty((len(places), 3), np.float32) if self.crop_frac else None
        holes = np.empty((len(places), 2), np.float32) if self.cutout_frac else None
        for epoch in np.unique(epochs):
            here = epochs == epoch
            spots = within[here]
            positions[here] = self._order(int(epoch))[spots]
            if shifts is not None:
                shifts[here] = _shifts(self.num_images, self.seed, int(epoch), self.shift_px)[spots]
            if flips is not None:
                flips[here] = _flips(self.num_images, self.seed, int(epoch))[spots]
            if crops is not None:
                crops[here] = _crops(self.num_images, self.seed, int(epoch), self.crop_frac)[spots]
            if holes is not None:
                holes[here] = _holes(self.num_images, self.seed, int(epoch))[spots]
        return Batch(positions, shifts, flips, crops, holes, self.cutout_frac)


def gather(images_NHWC: Tensor | MappedImages, batch: Batch, device: str) -> Tensor:
    """The batch's images on `device`, uint8 (B, H, W, C): mirrored, moved (pixels moved in repeat the edge), a part of
    them enlarged, a square of them covered.

    Images that are on the device already (a tensor) are picked and moved there; mapped ones on the CPU before
    they are sent.
    """
    images = _moved(images_NHWC, batch, device)
    if batch.crops is not None:
        images = enlarged(images, torch.from_numpy(batch.crops))
    if batch.holes is not None:
        images = covered(images, torch.from_numpy(batch.holes), batch.hole_frac)
    return images


def _moved(images_NHWC: Tensor | MappedImages, batch: Batch, device: str) -> Tensor:
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


def enlarged(images_NHWC: Tensor, crops: Tensor) -> Tensor:
    """Of each uint8 image (H, W, C) the part (top, left, side), in shares of it, enlarged to its size, bilinearly.

    Rows and columns are interpolated one after the other, each by a matrix of its own for each image.
    """
    num, height, width, channels = images_NHWC.shape
    crops = crops.to(images_NHWC.device)
    down = _interpolation(height, crops[:, 0], crops[:, 2])
    across = _interpolation(width, crops[:, 1], crops[:, 2])
    rows = torch.bmm(down, images_NHWC.float().reshape(num, height, -1)).view(num, height, width, channels)
    columns = torch.bmm(across, rows.transpose(1, 2).reshape(num, width, -1))
    return columns.view(num, width, height, channels).transpose(1, 2).round_().to(torch.uint8).contiguous()


def _interpolation(size: int, start: Tensor, share: Tensor) -> Tensor:
    """float32 (B, size, size): row i holds the weights of the two pixels that place i of the part lies between."""
    places = torch.arange(size, device=start.device) + 0.5
    at = (start[:, None] * size + places * share[:, None] - 0.5).clamp(0, size - 1)
    return (1 - (at[:, :, None] - torch.arange(size, device=start.device)).abs()).clamp_(min=0)


def covered(images_NHWC: Tensor, holes: Tensor, hole_frac: float) -> Tensor:
    """Each uint8 image (H, W, C) with a square around (down, right), in shares of it, covered by its mean colour."""
    height, width = images_NHWC.shape[1:3]
    holes = holes.to(images_NHWC.device)
    half = hole_frac * min(height, width) / 2

    def near(middle: Tensor, size: int) -> Tensor:
        places = torch.arange(size, device=images_NHWC.device) + 0.5
        return (places - middle[:, None] * size).abs() <= half

    hole = (near(holes[:, 0], height)[:, :, None] & near(holes[:, 1], width)[:, None, :])[..., None]
    mean = images_NHWC.float().mean(dim=(1, 2), keepdim=True).round_().to(torch.uint8)
    return torch.where(hole, mean, images_NHWC)


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
