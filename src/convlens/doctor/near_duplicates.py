"""Pairs of pictures that are the same picture: copied, compressed anew, shifted, cropped a little or mirrored.

Owns the search (a descriptor that shifts hardly change and mirroring only rearranges, and its nearest neighbours) and
the candidates' order. `registration.py` lays two pictures on one another and says whether they are one. Knows no files
or splits.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convlens.doctor.registration import COLOURS, SIDE, Alignment, Floats, aligned

MOST = 100_000  # pictures that are compared all with all
_FREQUENCIES = 6
_NEIGHBOURS = 8  # candidates that each view of a picture is compared with, at most
_LEAST_SIMILAR = 0.9  # of descriptors, for a pair to be looked at
# A picture is looked at through a soft window in its middle and around: one of the views meets a shifted copy's middle.
_VIEWS = tuple((down, right) for down in (0, -4, 4) for right in (0, -4, 4))
_MANY, _VIEWS_OF_MANY = 20_000, tuple(view for view in _VIEWS if view[0] * view[1] or view == (0, 0))
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
    def of(cls, images: Iterator[NDArray[np.uint8]], num: int) -> Self:
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
    views = _VIEWS if len(usable) <= _MANY else _VIEWS_OF_MANY
    middles = {
        is_mirrored: _descriptors(grey[usable], (0, 0), is_mirrored=is_mirrored) for is_mirrored in (False, True)
    }
    found: dict[tuple[int, int], Pair] = {}
    for start in range(0, len(usable), _BLOCK):
        block = usable[start : start + _BLOCK]
        seen = [_descriptors(grey[block], view, is_mirrored=False) for view in views]
        for is_mirrored, others in middles.items():
            candidates = [_candidates(one, others, start) for one in seen]
            for a, b in _in_parts(np.concatenate(candidates)):
                first, second = usable[a], usable[b]
                for place, alignment in aligned(pictures.grey_NHW, pictures.colour_NHWC, first, second, is_mirrored):
                    pair = Pair(int(first[place]), int(second[place]), is_mirrored, alignment)
                    known = found.get((pair.a, pair.b))
                    if known is None or alignment.coarse > known.alignment.coarse:
                        found[pair.a, pair.b] = pair
        advance(len(block))
    return [found[key] for key in sorted(found)]


def _descriptors(grey_NHW: NDArray[np.uint8], view: tuple[int, int], *, is_mirrored: bool) -> Floats:
    """float32 (N, D), each of length 1: the sizes of the low frequencies of the picture under a soft window, which lies
    `view` pixels (down, right) from its middle."""
    parts = []
    window = np.outer(np.hanning(SIDE + 2)[1:-1], np.hanning(SIDE + 2)[1:-1]).astype(np.float32)
    for start in range(0, len(grey_NHW), _BLOCK):
        images = grey_NHW[start : start + _BLOCK].astype(np.float32)
        images = np.roll(images[:, :, ::-1] if is_mirrored else images, (-view[0], -view[1]), axis=(1, 2))
        images = (images - images.mean(axis=(1, 2), keepdims=True)) * window
        size = np.abs(np.fft.rfft2(images))[:, :, : _FREQUENCIES + 1]
        low = np.concatenate([size[:, : _FREQUENCIES + 1], size[:, -_FREQUENCIES:]], axis=1).reshape(len(images), -1)
        low = np.sqrt(low)  # or a few strong frequencies would be all that counts
        low -= low.mean(axis=1, keepdims=True)
        parts.append((low / np.maximum(np.linalg.norm(low, axis=1, keepdims=True), 1e-6)).astype(np.float32))
    return np.concatenate(parts)


def _candidates(block_BD: Floats, others_ND: Floats, start: int) -> NDArray[np.int64]:
    """Pairs (P, 2) of a of the block and b, with similar descriptors, the most similar few of each a; they differ."""
    similar = block_BD @ others_ND.T
    similar[np.arange(len(block_BD)), start + np.arange(len(block_BD))] = -1
    a, b = np.nonzero(similar >= _LEAST_SIMILAR)
    order = np.lexsort((-similar[a, b], a))
    a, b = a[order], b[order]
    first = np.searchsorted(a, np.arange(len(block_BD)))
    keep = np.arange(len(a)) - first[a] < _NEIGHBOURS
    return np.stack([a[keep] + start, b[keep]], axis=1)


def _in_parts(pairs_P2: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Each pair once, the smaller number first, some at a time."""
    pairs_P2 = np.unique(np.sort(pairs_P2, axis=1), axis=0)
    for start in range(0, len(pairs_P2), _PAIRS):
        yield pairs_P2[start : start + _PAIRS, 0], pairs_P2[start : start + _PAIRS, 1]
