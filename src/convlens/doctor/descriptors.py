"""Descriptors of pictures whose nearest neighbours may be copies: turned, mirrored, cut, marked or brightened ones.

Owns two kinds. A *spectrum* is taken in a round window and sampled on circles: shifting hardly changes it, turning and
mirroring rotate and reflect its circles, so that the sizes of their Fourier coefficients stay (after Casasent and
Psaltis, "Position, rotation, and scale invariant optical correlation", 1976); cuts are met by *views*, windows on parts
of a picture. A *relief*, how much lighter each place is than its surroundings, outlives marks, which change it only
where they lie. Raw descriptors are weighted by what tells the set's own pictures from altered copies of
themselves (Fisher's linear discriminant, 1936). Knows no files, and decides nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

SMALL = 32  # pixels a side of the images that are described
NUM_ANGLES = 16  # over half a circle; the other half of a spectrum's sizes is the same
_RADII = np.array([1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8], np.float32)  # of the circles, in cycles a window
_NUM_COEFFICIENTS = 6
_WINDOW = 24  # pixels a side of a window
_RELIEF, _SURROUNDINGS, _STEEP, _FULL = 16, 4, 4.0, 0.3
FEW = 64  # pictures, up to which each is looked at with each: they teach no weighting
_DIMENSIONS, _LEARNED_FROM, _ALTERATIONS = 32, 400, 4

# A view is a width and a height, shares of the picture's smaller side, and where it lies between the edges (-1..1:
# right, down).
View = tuple[float, float, float, float]
WHOLE: View = (1.0, 1.0, 0.0, 0.0)
MIDDLES: tuple[View, ...] = (WHOLE, *((scale, scale, 0.0, 0.0) for scale in (0.92, 0.84, 0.77, 0.7)))
_EDGES, _HALVES = (-1.0, 0.0, 1.0), (-1.0, -0.5, 0.0, 0.5, 1.0)
PARTS: tuple[View, ...] = (
    *((0.84, 0.84, right, down) for right in _EDGES for down in _EDGES),
    *((0.7, 0.7, right, down) for right in _HALVES for down in _HALVES),
    *((*shares, right, down) for shares in ((0.7, 0.84), (0.84, 0.7)) for right in _EDGES for down in _EDGES),
    # Cut on one side alone: a caption, a sky.
    *((share, 1.0, right, 0.0) for share in (0.7, 0.84) for right in _EDGES),
    *((1.0, share, 0.0, down) for share in (0.7, 0.84) for down in _EDGES),
)
MIDDLE: View = (0.77, 0.77, 0.0, 0.0)
SHIFTED: tuple[View, ...] = tuple((0.77, 0.77, right, down) for right in _EDGES for down in _EDGES)

_PLACES = ((np.arange(_WINDOW) + 0.5) / _WINDOW * 2 - 1).astype(np.float32)
_DISTANCE = np.hypot(_PLACES[:, None], _PLACES)
WINDOW = np.where(_DISTANCE < 1, 0.5 + 0.5 * np.cos(np.pi * _DISTANCE), 0).astype(np.float32)


def _circles() -> tuple[Floats, Floats]:
    """Both (half of the window's pixels, samples): what gives the real part of the windowed transform at each place of
    each circle of the sums of opposite pixels, and of their differences the imaginary one; a flat window gives
    zeros."""
    angles = np.arange(NUM_ANGLES) * np.pi / NUM_ANGLES
    right, down = (np.multiply.outer(_RADII, f(angles)).ravel() for f in (np.cos, np.sin))
    phases = right[:, None, None] * _PLACES + down[:, None, None] * _PLACES[:, None]
    waves = (np.exp(-1j * np.pi * phases) * WINDOW).reshape(len(right), -1)
    waves -= waves.sum(axis=1, keepdims=True) * (WINDOW.ravel() / WINDOW.sum())
    half = waves[:, : waves.shape[1] // 2]
    return half.real.astype(np.float32).T.copy(), half.imag.astype(np.float32).T.copy()


_EVEN, _ODD = _circles()
_COEFFICIENTS = np.fft.fft(np.eye(NUM_ANGLES))[:, : _NUM_COEFFICIENTS + 1]  # as a product: faster than so short an FFT
_COEFFICIENTS = np.concatenate([_COEFFICIENTS.real, _COEFFICIENTS.imag], axis=1).astype(np.float32)


def extents(aspects_N: Floats) -> Floats:
    """float32 (N, 2): half the width and half the height of pictures of these widths / heights, where half of the
    smaller side is 1."""
    return np.stack([np.maximum(1, aspects_N), np.maximum(1, 1 / aspects_N)], axis=1).astype(np.float32)


def centres(views: Floats, extents_N2: Floats) -> Floats:
    """Where views (…, 4) of pictures with such extents (…, 2) have their middles, (…, 2) as (right, down)."""
    return views[..., 2:] * (1 - views[..., :2]) * extents_N2


def windows(small_NHW: NDArray[np.uint8], extents_N2: Floats, view: View) -> Floats:
    """float32 (N, W, W): the view's square part of each of the images (N, SMALL, SMALL), whose sides were both
    stretched or shrunk to SMALL."""
    # Many have the same shape: what picks their pixels is made once.
    _, first, which = np.unique(extents_N2[:, 0] / extents_N2[:, 1], return_index=True, return_inverse=True)
    extents_K2 = extents_N2[first]
    centre = centres(np.array(view, np.float32), extents_K2)
    across, down = (_picking(centre[:, axis], view[axis], extents_K2[:, axis]) for axis in (0, 1))
    images = small_NHW.astype(np.float32)
    if len(first) == 1:
        found: Floats = down[0] @ (images.reshape(-1, SMALL) @ across[0].T).reshape(len(images), SMALL, _WINDOW)
        return found
    return down[which] @ images @ across[which].transpose(0, 2, 1)


def _picking(centre_N: Floats, scale: float, extent_N: Floats) -> Floats:
    """(N, W, SMALL) weights that pick a window's places along an axis, each the mean of the pixels that it spans."""
    centre, extent = centre_N[:, None], extent_N[:, None]
    at = ((centre + scale * _PLACES) / extent + 1) / 2 * SMALL - 0.5
    span = np.maximum(1, scale / extent * SMALL / _WINDOW)[:, :, None]
    pixels = np.arange(SMALL, dtype=np.float32)
    weights = np.maximum(0, 1 - np.abs(np.clip(at, 0, SMALL - 1)[:, :, None] - pixels) / span)
    weights /= weights.sum(axis=2, keepdims=True)
    picked: Floats = weights.astype(np.float32)
    return picked


def spectra(windows_NHW: Floats) -> Floats:
    """float32 (N, circles, NUM_ANGLES): square roots of the spectrum's sizes, or a few strong ones would be all that
    counts."""
    one, other = np.split(windows_NHW.reshape(len(windows_NHW), -1), 2, axis=1)
    other = other[:, ::-1]  # each pixel's opposite
    real, imaginary = (one + other) @ _EVEN, (one - other) @ _ODD
    sizes: Floats = np.sqrt(np.sqrt(real * real + imaginary * imaginary))  # half of the time of hypot
    return sizes.reshape(len(sizes), -1, NUM_ANGLES)


def invariants(spectra_NKA: Floats) -> Floats:
    """float32 (N, D) of length 1, the same for turned and mirrored pictures."""
    real, imaginary = np.split(spectra_NKA.reshape(-1, NUM_ANGLES) @ _COEFFICIENTS, 2, axis=1)
    return _unit(np.sqrt(real * real + imaginary * imaginary).reshape(len(spectra_NKA), -1))


def reliefs(small_NHW: NDArray[np.uint8]) -> Floats:
    """float32 (N, side, side): how much lighter each place is than its surroundings, cut off where that is much."""
    images = small_NHW.astype(np.float32)
    lighter = images - blurred(images, 4 * _SURROUNDINGS)
    contrast = np.sqrt(blurred(lighter * lighter, 4 * _SURROUNDINGS))
    lighter /= contrast + _STEEP
    step = SMALL // _RELIEF
    coarse = lighter.reshape(len(images), _RELIEF, step, _RELIEF, step).mean(axis=(2, 4))
    found: Floats = np.clip(coarse / _FULL, -1, 1)
    return found


def blurred(images_NHW: Floats, times: int) -> Floats:
    """Smoothed by (1, 2, 1) / 4 along both sides, so many times; edges are repeated."""
    smoothing = _smoothing(images_NHW.shape[1], times)
    found: Floats = smoothing @ images_NHW @ smoothing.T
    return found


@cache
def _smoothing(side: int, times: int) -> Floats:
    once = (np.eye(side) * 2 + np.eye(side, k=1) + np.eye(side, k=-1)) / 4
    once[[0, -1], [0, -1]] = 0.75
    return np.linalg.matrix_power(once, times).astype(np.float32)


def _unit(rows_ND: Floats) -> Floats:
    length = np.linalg.norm(rows_ND, axis=1, keepdims=True)
    found: Floats = (rows_ND / np.maximum(length, 1e-9)).astype(np.float32)
    return found


@dataclass(frozen=True)
class Weighting:
    """The linear map after which pictures lie far apart, and altered copies of one close together."""

    mean: Floats
    matrix: Floats

    @classmethod
    def learned(cls, raw_ND: Floats, altered: Callable[[NDArray[np.int64], np.random.Generator], Floats]) -> Self:
        """From the raw descriptors of all pictures, and differences (rows, D) that altering some of them makes; so few
        pictures teach nothing, and get equal weights."""
        if len(raw_ND) <= FEW:
            return cls(np.zeros(raw_ND.shape[1], np.float32), np.eye(raw_ND.shape[1], dtype=np.float32))
        rng = np.random.default_rng(0)
        some = rng.permutation(len(raw_ND))[:_LEARNED_FROM]
        changes = np.concatenate([altered(some, rng) for _ in range(_ALTERATIONS)]).astype(np.float64)
        mean = raw_ND.mean(axis=0)
        apart = raw_ND[rng.permutation(len(raw_ND))[: 50 * _LEARNED_FROM]].astype(np.float64) - mean
        within, between = changes.T @ changes / len(changes), apart.T @ apart / len(apart)
        within += np.eye(len(within)) * (1e-3 * np.trace(within) / len(within) + 1e-12)
        root = np.linalg.inv(np.linalg.cholesky(within))
        ratios, directions = np.linalg.eigh(root @ between @ root.T)
        ratios, directions = np.maximum(ratios[: -_DIMENSIONS - 1 : -1], 0), directions[:, : -_DIMENSIONS - 1 : -1]
        return cls(mean, (root.T @ directions * np.sqrt(ratios / (1 + ratios))).astype(np.float32))

    def __call__(self, raw_ND: Floats) -> Floats:
        """float32 (N, D) of length 1: the cosine of two is their similarity."""
        return _unit((raw_ND - self.mean) @ self.matrix)
