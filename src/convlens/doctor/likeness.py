"""Pairs of pictures that are the same picture: copied, compressed anew, shifted, cropped a little or mirrored.

Owns the search (a descriptor that shifts hardly change and mirroring only rearranges, and its nearest neighbours) and
the candidates' order. `registration.py` lays two pictures on one another and says whether they are one. Knows no files
or splits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convlens.doctor.registration import COLOURS, SIDE, Alignment, Floats, aligned

MOST = 100_000  # pictures that are compared all with all
_FREQUENCIES = 6
_NEIGHBOURS = 12  # candidates that each picture is compared with, at most
_LEAST_SIMILAR = 0.88  # of descriptors, for a pair to be looked at
_FLAT = 6.0  # standard deviation in levels, below which a picture shows nothing that could be compared
_BLOCK, _PAIRS = 1024, 512


@dataclass(frozen=True)
class Pair:
    """Two pictures a < b by number that show the same, and how b lies on a."""

    a: int
    b: int
    is_mirrored: bool
    alignment: Alignment

    @property
    def is_in_place(self) -> bool:
        """Whether they lie on one another as they are, and may be the same pixel for pixel."""
        one = self.alignment
        moved = max(abs(one.down), abs(one.right), abs(one.taller - 1), abs(one.wider - 1))
        return not self.is_mirrored and moved < 0.01 and one.coarse > 0.99

    @property
    def how(self) -> str:
        """How the two differ, in words."""
        words = ["mirrored"] if self.is_mirrored else []
        one = self.alignment
        if max(abs(one.down), abs(one.right)) > 0.015:
            words.append(f"shifted by {100 * one.right:+.0f} % of the width and {100 * one.down:+.0f} % of the height")
        if max(abs(one.taller - 1), abs(one.wider - 1)) > 0.02:
            words.append("cut differently")
        return " and ".join(words) or "nearly the same pixels"


@dataclass(frozen=True)
class Compared:
    """Pictures as they are compared: grey uint8 (N, SIDE, SIDE), and colour uint8 (N, COLOURS, COLOURS, 3)."""

    grey_NHW: NDArray[np.uint8]
    colour_NHWC: NDArray[np.uint8]

    @classmethod
    def of(cls, images: Iterator[NDArray[np.uint8]], num: int) -> Compared:
        """From `num` uint8 images (H, W, C) of any size."""
        grey = np.zeros((num, SIDE, SIDE), np.uint8)
        colour = np.zeros((num, COLOURS, COLOURS, 3), np.uint8)
        for number, pixels in enumerate(images):
            flat = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
            image = Image.fromarray(np.ascontiguousarray(flat)).convert("RGB")
            grey[number] = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
            colour[number] = np.asarray(image.resize((COLOURS, COLOURS), Image.Resampling.BOX))
        return cls(grey, colour)


def same_pictures(pictures: Compared, advance: Callable[[int], object] = lambda n: None) -> list[Pair]:
    """All pairs that show the same picture; `advance` is told of the number of pictures that are done.

    Flat pictures, which show nothing to compare, are in no pair.
    """
    grey = pictures.grey_NHW
    usable = np.flatnonzero(grey.reshape(len(grey), -1).std(axis=1) >= _FLAT)
    advance(len(grey) - len(usable))
    if len(usable) < 2:
        return []
    as_it_is = _descriptors(grey[usable], is_mirrored=False)
    mirrored = _descriptors(grey[usable], is_mirrored=True)
    found: dict[tuple[int, int], Pair] = {}
    for start in range(0, len(usable), _BLOCK):
        block = as_it_is[start : start + _BLOCK]
        for is_mirrored, others in ((False, as_it_is), (True, mirrored)):
            for a, b in _in_parts(_candidates(block, others, start)):
                first, second = usable[a], usable[b]
                for place, alignment in aligned(pictures.grey_NHW, pictures.colour_NHWC, first, second, is_mirrored):
                    pair = Pair(int(first[place]), int(second[place]), is_mirrored, alignment)
                    known = found.get((pair.a, pair.b))
                    if known is None or alignment.coarse > known.alignment.coarse:
                        found[pair.a, pair.b] = pair
        advance(len(block))
    return [found[key] for key in sorted(found)]


def _descriptors(grey_NHW: NDArray[np.uint8], *, is_mirrored: bool) -> Floats:
    """float32 (N, D), each of length 1: the sizes of the low frequencies of the picture under a soft window."""
    parts = []
    window = np.outer(np.hanning(SIDE + 2)[1:-1], np.hanning(SIDE + 2)[1:-1]).astype(np.float32)
    for start in range(0, len(grey_NHW), _BLOCK):
        images = grey_NHW[start : start + _BLOCK].astype(np.float32)
        images = images[:, :, ::-1] if is_mirrored else images
        images = (images - images.mean(axis=(1, 2), keepdims=True)) * window
        size = np.abs(np.fft.rfft2(images))[:, :, : _FREQUENCIES + 1]
        low = np.concatenate([size[:, : _FREQUENCIES + 1], size[:, -_FREQUENCIES:]], axis=1).reshape(len(images), -1)
        low = np.sqrt(low)  # or a few strong frequencies would be all that counts
        low -= low.mean(axis=1, keepdims=True)
        parts.append((low / np.maximum(np.linalg.norm(low, axis=1, keepdims=True), 1e-6)).astype(np.float32))
    return np.concatenate(parts)


def _candidates(block_BD: Floats, others_ND: Floats, start: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (a of the block, b) of similar descriptors, the most similar few of each a; a and b differ."""
    similar = block_BD @ others_ND.T
    similar[np.arange(len(block_BD)), start + np.arange(len(block_BD))] = -1
    a, b = np.nonzero(similar >= _LEAST_SIMILAR)
    order = np.lexsort((-similar[a, b], a))
    a, b = a[order], b[order]
    first = np.searchsorted(a, np.arange(len(block_BD)))
    keep = np.arange(len(a)) - first[a] < _NEIGHBOURS
    return a[keep] + start, b[keep]


def _in_parts(
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    a, b = np.minimum(*pairs), np.maximum(*pairs)
    if len(a):
        a, b = np.unique(np.stack([a, b]), axis=1)
    for start in range(0, len(a), _PAIRS):
        yield a[start : start + _PAIRS], b[start : start + _PAIRS]
