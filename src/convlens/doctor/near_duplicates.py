"""Pairs of pictures that are the same picture: copied, compressed anew, turned, mirrored, cut, marked or brightened.

Owns the order in which candidates are looked at, each test leaving fewer to the next, which costs more. `candidates.py`
finds them, `registration.py` lays two pictures on one another and says whether they are one. Knows no files or splits.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

from convlens.data.prefetch import prefetch
from convlens.doctor import descriptors, registration
from convlens.doctor.candidates import (
    Alike,
    Candidates,
    Indices,
    Reliefs,
    Spectra,
    best_of_pairs,
    blocks,
    first_of_each,
    spectra_of,
)
from convlens.doctor.descriptors import SMALL, Floats
from convlens.doctor.registration import COLOURS
from convlens.progress import Progress

SIDE, _AS_SMALL = 64, 40  # pixels a side at which pictures are compared, but those with no longer side at SMALL
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow has it
_EVEN, _MOST_OF_SIDE = 2, 0.98  # levels that a frame's pixels differ by, and how many of them do not by more
_PLAIN = 6.0  # standard deviation in levels, below which a picture shows nothing that could be compared
_MOST = 18  # ways to lay others on each picture that are tried, most alike first
_WAYS = 2  # to turn a picture that are tried for each pair, most alike first
_PAIRS = 512  # at a time: fewer do not pay for the call, more do not fit into a processor's cache
# Least correlation for a pair to be looked at more closely: as first laid on one another at 16 pixels a side, of detail
# once refined there, of detail at 32, and both once refined there; of detail at the full size.
_ROUGH, _GLIMPSED, _SEEN, _CLOSE, _ALIKE, _SEEN_ALIKE = 0.55, 0.5, 0.3, 0.7, 0.45, 0.2


@dataclass(frozen=True)
class Pair:
    """Two pictures a < b by number that show the same, and how b lies on a: whether it is mirrored, then turned by so
    many degrees, its middle shifted by shares of the sides (right, down), its part so many times as large; and the
    correlations of the two at large and in detail."""

    a: int
    b: int
    is_mirrored: bool
    degrees: float
    shift: tuple[float, float]
    scale: float
    coarse: float
    fine: float

    @property
    def is_in_place(self) -> bool:
        """Whether they lie on one another as they are, and may be the same pixel for pixel."""
        moved = max(*map(abs, self.shift), abs(self.scale - 1), abs(self.degrees) / 57)
        return not self.is_mirrored and moved < 0.01 and self.coarse > 0.99

    @property
    def how(self) -> str:
        """How the two differ, in words."""
        words = ["mirrored"] if self.is_mirrored else []
        if abs(self.degrees) >= 1.5:
            words.append(f"turned by {abs(self.degrees):.0f}°")
        if abs(self.scale - 1) > 0.03:
            words.append(f"cut to {100 * min(self.scale, 1 / self.scale):.0f} % of the sides")
        right, down = self.shift
        if max(abs(right), abs(down)) > 0.015 and abs(self.scale - 1) <= 0.03:
            words.append(f"shifted by {100 * right:+.0f} % of the width and {100 * down:+.0f} % of the height")
        return ", ".join(words) or "nearly the same pixels"


@dataclass(frozen=True)
class Compared:
    """Pictures as they are compared, stretched to squares: grey uint8 (N, S, S), colour uint8 (N, COLOURS, COLOURS, 3),
    and float32 (N,) their own widths / heights."""

    grey_NHW: NDArray[np.uint8]
    colour_NHWC: NDArray[np.uint8]
    aspects_N: Floats

    @classmethod
    def of(cls, images: Iterator[NDArray[np.uint8]], aspects: Iterable[float], side: int = SIDE) -> Self:
        """From uint8 images (H, W, C) of any size, stretched or not, and what width / height each has."""
        shapes = np.fromiter(aspects, np.float32)
        grey = np.zeros((len(shapes), side, side), np.uint8)
        colour = np.zeros((len(shapes), COLOURS, COLOURS, 3), np.uint8)
        step = side // COLOURS
        for number, pixels in enumerate(images):
            if pixels.shape == (side, side, 3):
                grey[number] = pixels @ _LUMA
                colour[number] = pixels.reshape(COLOURS, step, COLOURS, step, 3).mean(axis=(1, 3))
                continue
            flat = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
            image = Image.fromarray(np.ascontiguousarray(flat)).convert("RGB")
            grey[number] = np.asarray(image.convert("L").resize((side, side), Image.Resampling.BILINEAR))
            colour[number] = np.asarray(image.resize((COLOURS, COLOURS), Image.Resampling.BOX))
        for rows in blocks(len(grey)):
            grey[rows] = _without_frames(grey[rows])
        return cls(grey, colour, shapes)

    @cached_property
    def are_plain(self) -> NDArray[np.bool_]:
        """(N,) whether a picture shows nothing that could be compared."""
        return np.array([image.std() < _PLAIN for image in self.grey_NHW], bool)

    @cached_property
    def are_outlines(self) -> NDArray[np.bool_]:
        """(N,) whether a picture shows hardly more than an outline."""
        found = np.zeros(len(self.small), bool)
        for rows in blocks(len(found)):
            found[rows] = registration.are_outlines(self.small[rows].astype(np.float32), self.is_small)
        return found

    @property
    def is_small(self) -> bool:
        """Whether the pictures are compared as small ones."""
        return bool(self.grey_NHW.shape[1] == SMALL)

    @cached_property
    def small(self) -> NDArray[np.uint8]:
        """The grey images at SMALL pixels a side."""
        return _shrunk(self.grey_NHW, SMALL)

    @cached_property
    def tiny(self) -> NDArray[np.uint8]:
        """The grey images at half of SMALL pixels a side."""
        return _shrunk(self.small, SMALL // 2)

    @cached_property
    def soft_small(self) -> NDArray[np.uint8]:
        """The small ones blurred: an alignment needs slopes."""
        return _softened(self.small)

    @cached_property
    def soft_tiny(self) -> NDArray[np.uint8]:
        """The tiny ones blurred."""
        return _softened(self.tiny)

    def chroma(self, which: Indices) -> Floats:
        """R - G and B - G, float32 (P, 2, COLOURS, COLOURS)."""
        colour = self.colour_NHWC[which].astype(np.float32).transpose(0, 3, 1, 2)
        found: Floats = colour[:, [0, 2]] - colour[:, 1:2]
        return found


def compared_at(longest_side: int) -> int:
    """Pixels a side at which pictures, none with a longer side than that, are compared."""
    return SMALL if longest_side <= _AS_SMALL else SIDE


def _without_frames(images_NHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two opposite sides of one even level are a frame, a letterbox or a slide's ground, in which two pictures agree
    that show different things: all of that level becomes black, which is not compared."""
    images = images_NHW.astype(np.int16)
    sides = np.stack([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]])
    levels = np.median(sides, axis=2)
    is_even = (np.abs(sides - levels[:, :, None]) <= _EVEN).mean(axis=2) >= _MOST_OF_SIDE
    found = images_NHW.copy()
    for one, other in ((0, 1), (2, 3)):
        is_framed = is_even[one] & is_even[other] & (np.abs(levels[one] - levels[other]) <= _EVEN)
        is_framed &= levels[one] < registration.CLIPPED  # white is not compared anyway
        is_ground = np.abs(images - levels[one][:, None, None]) <= _EVEN + 1
        found[is_framed[:, None, None] & is_ground] = 0
    return found


def _shrunk(images_NHW: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    step = images_NHW.shape[1] // side
    if step == 1:
        return images_NHW
    shape = (len(images_NHW), side, step, side, step)
    sums = images_NHW.reshape(shape).sum(axis=(2, 4), dtype=np.uint16)
    shrunk: NDArray[np.uint8] = (sums // step**2).astype(np.uint8)
    return shrunk


def _softened(images_NHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    found = np.empty_like(images_NHW)
    for rows in blocks(len(found)):
        found[rows] = np.round(descriptors.blurred(images_NHW[rows].astype(np.float32), 1))
    return found


def same_pictures(pictures: Compared, bar: Progress | None = None) -> list[Pair]:
    """All pairs that show the same picture.

    Plain pictures, which show nothing to compare, are in no pair, and two outlines only where they are equal as they
    lie or after quarter turns and mirroring.
    """
    bar = bar or Progress()
    usable = np.flatnonzero(~pictures.are_plain)
    if len(usable) < 2:
        return []
    if len(usable) < len(pictures.grey_NHW):
        pictures = Compared(pictures.grey_NHW[usable], pictures.colour_NHWC[usable], pictures.aspects_N[usable])
    found: dict[tuple[int, int], Pair] = {}
    # Blocks side by side, each with one thread: its products are too small for threads of BLAS's own to pay.
    with threadpool_limits(1, "blas"):
        parts = _alike(pictures, bar)
        bar.start("comparing alike pictures", len(parts))
        for (proved,) in prefetch(partial(_proved, pictures), parts, group_size=1):
            bar.advance()
            for pair in proved:
                known = found.get((pair.a, pair.b))
                if known is None or pair.fine > known.fine:
                    found[pair.a, pair.b] = pair
    return [replace(pair, a=int(usable[a]), b=int(usable[b])) for (a, b), pair in sorted(found.items())]


def _alike(pictures: Compared, bar: Progress) -> list[tuple[Spectra | Reliefs, Alike]]:
    """The pairs to look at, some at a time."""
    small, are_outlines = pictures.small, pictures.are_outlines
    spectra = [] if are_outlines.all() else spectra_of(small, pictures.aspects_N)
    bar.start("looking for alike pictures", (len(spectra) + 1) * len(small), unit="images")

    def searched(kind: Spectra | Reliefs) -> Alike:
        parts = []
        for group, rows in zip(prefetch(kind.alike, blocks(len(small)), group_size=1), blocks(len(small)), strict=True):
            parts += group
            bar.advance(len(rows))
        return Alike.joined(parts)

    in_place = searched(reliefs := Reliefs(small))
    chosen: list[tuple[Spectra | Reliefs, Alike]] = [
        (reliefs, in_place.of(best_of_pairs(in_place.a, in_place.b, in_place.score, 1)))
    ]
    if spectra:
        found = [one.of(~(are_outlines[one.a] & are_outlines[one.b])) for one in map(searched, spectra)]
        # The most alike of all ways to turn a pair; that it lies in place is looked at besides.
        turned, of_kind = Alike.joined(found), np.repeat(np.arange(len(found)), [len(one.a) for one in found])
        most = first_of_each(turned.a, turned.score, _MOST)
        turned, of_kind = turned.of(most), of_kind[most]
        kept = best_of_pairs(turned.a, turned.b, turned.score, _WAYS)
        chosen += [(kind, turned.of(kept[of_kind[kept] == number])) for number, kind in enumerate(spectra)]
    return [
        (kind, one.of(np.arange(start, min(start + _PAIRS, len(one.a)))))
        for kind, one in chosen
        for start in range(0, len(one.a), _PAIRS)
    ]


def _proved(pictures: Compared, part: tuple[Spectra | Reliefs, Alike]) -> list[Pair]:
    """Those pairs that are one picture."""
    kind, alike = part
    looked = kind.candidates(alike)
    are_outlines = pictures.are_outlines[looked.a] & pictures.are_outlines[looked.b]
    if are_outlines.any():
        looked = looked.of(~are_outlines | registration.are_equal(*_both(pictures.small, looked), looked.placed))
    if isinstance(kind, Spectra):  # what lies in place stays there: refining would follow a mark
        looked = looked.best(registration.fit(*_both(pictures.soft_tiny, looked), looked.placed), _ROUGH)
        looked = _refined(pictures.soft_tiny, looked, registration.STEPS[0])
    looked = looked.best(registration.detail_fit(*_both(pictures.tiny, looked), looked.placed), _GLIMPSED)
    if isinstance(kind, Spectra):
        looked = looked.best(registration.detail_fit(*_both(pictures.small, looked), looked.placed), _SEEN)
        looked = _refined(pictures.soft_small, looked, registration.STEPS[1])
        looked = looked.best(registration.fit(*_both(pictures.soft_small, looked), looked.placed), _CLOSE)
    looked = looked.best(registration.detail_fit(*_both(pictures.small, looked), looked.placed), _ALIKE)
    first, second = _both(pictures.grey_NHW, looked)
    fine = registration.detail_fit(first, second, looked.placed)
    kept = fine >= _SEEN_ALIKE
    looked, first, second, fine = looked.of(kept), first[kept], second[kept], fine[kept]
    moved = registration.refined(first, second, looked.placed, registration.STEPS[2])
    refined = registration.detail_fit(first, second, moved)
    placed = moved.where(refined > fine, looked.placed)
    chroma = (pictures.chroma(looked.a), pictures.chroma(looked.b))
    proof = registration.proof(first, second, chroma, placed, np.maximum(fine, refined))
    one, two = (descriptors.extents(pictures.aspects_N[side]) for side in (looked.a, looked.b))
    own = placed.matrix * (two[:, :, None] / one[:, None, :])
    return [
        _pair(int(looked.a[at]), int(looked.b[at]), own[at], placed.shift[at], proof.coarse[at], proof.fine[at])
        for at in np.flatnonzero(registration.are_one(placed, own, proof, pictures.is_small)).tolist()
    ]


def _both(images_NHW: NDArray[np.uint8], looked: Candidates) -> tuple[Floats, Floats]:
    return images_NHW[looked.a].astype(np.float32), images_NHW[looked.b].astype(np.float32)


def _refined(images_NHW: NDArray[np.uint8], looked: Candidates, steps: int) -> Candidates:
    return looked._replace(placed=registration.refined(*_both(images_NHW, looked), looked.placed, steps))


def _pair(a: int, b: int, matrix: Floats, shift: Floats, coarse: float, fine: float) -> Pair:
    """The pair in words that a person reads: the smaller number first, the map taken apart."""
    if a > b:
        a, b = b, a
        matrix = np.linalg.inv(matrix)
        shift = -matrix @ shift
    is_mirrored = bool(np.linalg.det(matrix) < 0)
    turn = matrix * [-1, 1] if is_mirrored else matrix
    degrees = float(np.degrees(np.arctan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1])))
    scale = float(np.sqrt(abs(np.linalg.det(matrix))))
    right, down = (shift / 2).tolist()
    return Pair(a, b, is_mirrored, degrees, (right, down), scale, float(coarse), float(fine))
