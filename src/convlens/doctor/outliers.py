"""Pictures unlike all others of a data set: noise, black ones, those of another kind.

Owns what is measured of a picture, none of which says what it shows, and when one is called unlike the others: where
its distance to its nearest neighbours is beyond a fence above what is usual (Ramaswamy, Rastogi and Shim, "Efficient
algorithms for mining outliers from large data sets", 2000; far out after Tukey, "Exploratory data analysis", 1977).
docs/decisions.md has what was tried, and how much of what was planted it finds.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.floating]

_SIDES, _SMALL, _BATCH = (32, 64), 40, 256
_LEAST = 30  # pictures, below which nothing is unlike the others
_OCTAVES = 5
_FENCE = 2.5  # interquartile ranges above the upper quartile of the logarithms of distances
_NEIGHBOUR, _NEIGHBOUR_SHARE = 5, 0.01  # the one whose distance counts: alike outliers, up to so many, do not hide
_COMPARED_WITH = 4_000  # pictures, of many an even choice
_ROUNDS, _CORE = 3, 0.95  # of the covariance: each time from the share that is nearest to the middle
_RIDGE, _MOST = 0.05, 10.0
_TOLD = 2  # properties that the reason names, the most unusual first

_LEVELS, _LOGARITHM = 2.0, 0.1  # the least spread that counts, of levels (0 to 255) and of logarithms

# What is measured: the least spread, and what less and more of it than usual is called.
_PROPERTIES = (
    (_LEVELS, "darker", "brighter"),
    (_LOGARITHM, "less contrast", "more contrast"),
    (_LOGARITHM, "less colour", "more colour"),
    (_LOGARITHM, "less varied colour", "more varied colour"),
    (_LEVELS, "less red", "redder"),
    (_LEVELS, "less green", "greener"),
    (_LEVELS, "less blue", "bluer"),
    (_LOGARITHM, "fewer edges", "more edges"),
    (_LOGARITHM, "fewer even areas", "more even areas"),
    (_LOGARITHM, "less of the finest detail", "more of the finest detail"),
    (_LOGARITHM, "less fine detail", "more fine detail"),
    (_LOGARITHM, "less middling detail", "more middling detail"),
    (_LOGARITHM, "less coarse detail", "more coarse detail"),
    (_LOGARITHM, "less of the coarsest detail", "more of the coarsest detail"),
    (_LEVELS, "a darker border", "a brighter border"),
    (_LOGARITHM, "a plainer border", "a livelier border"),
    (_LOGARITHM, "fewer greys", "more greys"),
    (_LOGARITHM, "less of one grey", "more of one grey"),
    (_LEVELS, "darker shadows", "brighter shadows"),
    (_LEVELS, "darker lights", "brighter lights"),
)


@dataclass(frozen=True)
class Outlier:
    """A picture by row, how many times the usual distance (the median) it is from its neighbours, and in what it is
    most unusual."""

    row: int
    distance: float
    reason: str


class Images(Protocol):
    """uint8 images (N, H, W, C), or what reads such when it is sliced."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]: ...


def outliers(images: Images) -> list[Outlier]:
    """Those among the images that are unlike the others, the most unlike first."""
    if len(images) < _LEAST:
        return []
    measured_NP = np.concatenate([_measured(images[at : at + _BATCH]) for at in range(0, len(images), _BATCH)])
    low, middle, high = np.percentile(measured_NP, (10, 50, 90), axis=0)
    spread = np.maximum((high - low) / 2.56, np.array([least for least, _, _ in _PROPERTIES]))  # 2.56 sd, if normal
    unusual_NP = np.clip((measured_NP - middle) / spread, -_MOST, _MOST)
    distances_N = _neighbour_distances(_whitened(unusual_NP))
    logs_N = np.log(np.maximum(distances_N, 1e-6))
    lower, upper = np.percentile(logs_N, (25, 75))
    far = np.flatnonzero(logs_N > upper + _FENCE * (upper - lower))
    usual = float(np.median(distances_N))
    order = far[np.argsort(-distances_N[far], kind="stable")]
    return [
        Outlier(row, float(distances_N[row]) / max(usual, 1e-6), _reason(unusual_NP[row])) for row in order.tolist()
    ]


def _reason(unusual_P: Floats) -> str:
    """The most unusual properties of a picture in words."""
    most = np.argsort(-np.abs(unusual_P), kind="stable")[:_TOLD]
    words = [_PROPERTIES[p][1:] for p in most.tolist()]
    return ", ".join(more if unusual_P[p] > 0 else less for p, (less, more) in zip(most, words, strict=True))


def _measured(images_NHWC: NDArray[np.uint8]) -> Floats:
    """float64 (N, P): the properties of some images."""
    side = _SIDES[max(images_NHWC.shape[1:3]) > _SMALL]
    colour = np.stack([_square(image, side) for image in images_NHWC]).astype(np.float32)
    grey = colour.mean(axis=3)
    num, brightness = len(grey), grey.mean(axis=(1, 2))
    chroma = colour.max(axis=3) - colour.min(axis=3)
    across, down = np.abs(np.diff(grey, axis=2)), np.abs(np.diff(grey, axis=1))
    even = ((across < 2).mean(axis=(1, 2)) + (down < 2).mean(axis=(1, 2))) / 2
    border = np.concatenate([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], axis=1)
    level = (grey.reshape(num, -1) / 16).astype(np.int64) + 16 * np.arange(num)[:, None]
    greys = np.bincount(level.ravel(), minlength=16 * num).reshape(num, 16) / grey[0].size
    details, coarse = [], grey
    for _ in range(_OCTAVES):  # what is lost each time that four pixels become one (Haar)
        side = coarse.shape[1] // 2
        fours = coarse.reshape(num, side, 2, side, 2)
        coarse = fours.mean(axis=(2, 4))
        details.append(np.log(np.sqrt(((fours - coarse[:, :, None, :, None]) ** 2).mean(axis=(1, 2, 3, 4))) + 1))
    ordered = np.sort(grey.reshape(num, -1), axis=1)
    found = [
        brightness,
        np.log(grey.std(axis=(1, 2)) + 2),
        np.log(chroma.mean(axis=(1, 2)) + 2),
        np.log(chroma.std(axis=(1, 2)) + 2),
        *(colour[..., channel].mean(axis=(1, 2)) - brightness for channel in range(3)),
        np.log(across.mean(axis=(1, 2)) + down.mean(axis=(1, 2)) + 1),
        np.log(even + 0.02),
        *details,
        border.mean(axis=1) - brightness,
        np.log(border.std(axis=1) + 2),
        -(greys * np.log(greys + 1e-9)).sum(axis=1),
        np.log(greys.max(axis=1)),
        ordered[:, len(ordered[0]) // 100],
        ordered[:, -len(ordered[0]) // 100],
    ]
    return np.stack(found, axis=1).astype(np.float64)


def _square(image_HWC: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """uint8 (side, side, 3)."""
    if image_HWC.shape == (side, side, 3):
        return image_HWC
    flat = image_HWC[:, :, 0] if image_HWC.shape[2] == 1 else image_HWC
    image = Image.fromarray(np.ascontiguousarray(flat)).convert("RGB")
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def _whitened(rows_NP: Floats) -> Floats:
    """float32 (N, P) uncorrelated and of like spread, but for the outliers' own."""
    core = np.ones(len(rows_NP), bool)
    for _ in range(_ROUNDS):
        middle = rows_NP[core].mean(axis=0)
        covariance = np.cov(rows_NP[core].T) + _RIDGE * np.eye(rows_NP.shape[1])
        white = (rows_NP - middle) @ np.linalg.cholesky(np.linalg.inv(covariance))
        lengths = np.linalg.norm(white, axis=1)
        core = lengths <= np.quantile(lengths, _CORE)
    found: Floats = white.astype(np.float32)
    return found


def _neighbour_distances(rows_NP: Floats) -> Floats:
    """float32 (N,): how far the neighbour is whose distance counts."""
    others = rows_NP[:: -(-len(rows_NP) // _COMPARED_WITH)]
    neighbour = max(_NEIGHBOUR, round(_NEIGHBOUR_SHARE * len(others)))
    lengths = (others**2).sum(axis=1)
    found = []
    for some in np.array_split(rows_NP, len(rows_NP) // 1_024 + 1):
        squares = (some**2).sum(axis=1)[:, None] + lengths - 2 * some @ others.T
        found.append(np.sqrt(np.maximum(np.partition(squares, neighbour, axis=1)[:, neighbour], 0)))
    return np.concatenate(found)
