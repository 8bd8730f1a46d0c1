"""Pictures that may be one picture, and how the one may lie on the other.

Owns the search: for each picture the few others whose descriptors are nearest to those of its views, in an index that
looks at all of a few thousand pictures and at the likeliest cells of many. `descriptors.py` describes; whether two
pictures are one, `registration.py` says.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from convlens.doctor import descriptors, registration
from convlens.doctor.descriptors import FEW, MIDDLE, SMALL, WHOLE, Floats, View, Weighting
from convlens.doctor.registration import Placements

Indices = NDArray[np.int64]

_NEIGHBOURS = 7  # of each picture and kind of descriptor, most similar first
_ALIKE_SPECTRA, _ALIKE_RELIEFS = 0.7, 0.55  # least cosine of descriptors
# Least correlation of turned spectra; how much less than the best may be right.
_LEAST_TURNED, _LESS_TURNED = 0.75, 0.06
_PEAK = 0.6  # least peak of the phase correlation of turned views
_BLOCK, _PAIRS = 512, 2048
_SIMILARITIES = 1_000_000  # at a time
# Pictures that are searched whole; of more, how many fill a cell, at least so many cells, and how many are searched.
_ONE_CELL, _PER_CELL, _LEAST_CELLS, _PROBED = 4_000, 400, 32, 8
_SQUARE = 1.03  # how different the sides of pictures are that count as square


class Alike(NamedTuple):
    """Pairs of pictures whose descriptors are alike, most alike with `score` 1: the view of the first, by number, that
    is like the second; and, of spectra, by how much it is then turned, in radians modulo a half turn."""

    a: Indices
    b: Indices
    score: Floats
    view: Indices
    angle: Floats
    is_mirrored: NDArray[np.bool_]

    @classmethod
    def joined(cls, parts: "list[Alike]") -> Self:
        """All of them."""
        columns: list[Any] = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return cls(*columns)

    def of(self, which: NDArray[np.integer] | NDArray[np.bool_]) -> "Alike":
        """Some of them."""
        columns: list[Any] = [column[which] for column in self]
        return Alike(*columns)


class Candidates(NamedTuple):
    """Pairs of pictures, and how the second may lie on the first; a pair may be there in several ways."""

    a: Indices
    b: Indices
    placed: Placements

    @classmethod
    def joined(cls, parts: "list[Candidates]") -> Self:
        """All of them."""
        a, b = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
        return cls(a, b, Placements.joined([part.placed for part in parts]))

    def of(self, which: NDArray[np.integer] | NDArray[np.bool_]) -> "Candidates":
        """Some of them."""
        return Candidates(self.a[which], self.b[which], self.placed[which])

    def best(self, fits: Floats, least: float) -> "Candidates":
        """Of the several ways to lay a pair on one another that which fits best, if it does at all."""
        return self.of(best_of_pairs(self.a, self.b, np.where(fits >= least, fits, -np.inf), 1))


def best_of_pairs(a: Indices, b: Indices, scores: Floats, num: int) -> Indices:
    """Of each pair, in either order, the rows with the `num` highest scores above minus infinity."""
    rows = first_of_each(np.minimum(a, b) * (1 << 32) + np.maximum(a, b), scores, num)
    return rows[np.isfinite(scores[rows])]


def first_of_each(a: Indices, scores: Floats, most: int) -> Indices:
    """The rows with the highest scores of each a."""
    order = np.lexsort((-scores, a))
    return order[np.arange(len(order)) - np.searchsorted(a[order], a[order]) < most]


def spectra_of(small_NHW: NDArray[np.uint8], aspects_N: Floats) -> "list[Spectra]":
    """What is searched in: whole pictures, which keep their shape when they are turned; parts, which a cut may have
    stretched; and the middles of pictures that were shifted."""
    own = descriptors.extents(aspects_N)
    square = np.ones_like(own)
    shifted = Spectra(small_NHW, own, descriptors.SHIFTED, MIDDLE)
    if float(own.max()) <= _SQUARE:
        views = tuple(dict.fromkeys((*descriptors.MIDDLES, *descriptors.PARTS)))
        return [Spectra(small_NHW, square, views, WHOLE), shifted]
    whole = Spectra(small_NHW, own, descriptors.MIDDLES, WHOLE)
    return [whole, Spectra(small_NHW, square, descriptors.PARTS, WHOLE), shifted]


class Spectra:
    """Spectra of views against those of one view, in the middle, of the others."""

    def __init__(self, small_NHW: NDArray[np.uint8], extents_N2: Floats, views: tuple[View, ...], middle: View) -> None:
        self.small, self.extents, self.views, self.middle = small_NHW, extents_N2, views, middle
        sizes = np.concatenate([self._sizes(rows, middle) for rows in blocks(len(small_NHW))])
        self.mean, self.spread = (f(sizes, axis=(0, 2), keepdims=True) for f in (np.mean, np.std))
        self.circles = np.concatenate([self._circles(sizes[rows]) for rows in blocks(len(sizes))])
        raw = descriptors.invariants(sizes)
        self.weighting = Weighting.learned(raw, self._altered)
        self.index = _Index(self.weighting(raw), _ALIKE_SPECTRA)

    def _sizes(self, rows: Indices, view: View) -> Floats:
        return descriptors.spectra(descriptors.windows(self.small[rows], self.extents[rows], view))

    def _circles(self, sizes_NKA: Floats) -> NDArray[np.complex64]:
        """What `registration.turns` takes."""
        even = (sizes_NKA - self.mean) / np.maximum(self.spread, 1e-6)
        even /= np.maximum(np.sqrt((even * even).sum(axis=(1, 2), keepdims=True)), 1e-6)
        return np.fft.rfft(even, axis=2).astype(np.complex64)

    def _altered(self, rows: Indices, rng: np.random.Generator) -> Floats:
        """Differences between views that lie between those that are looked at, and their next ones."""
        found = []
        for some in np.array_split(rows, max(1, len(rows) // 50)):
            scale, *place = rng.choice([0.7, 0.84, 1.0]), *rng.uniform(-1, 1, 2)
            moved = place + rng.uniform(-1 / 3, 1 / 3, 2)
            next_scale = min(1.0, scale * rng.uniform(0.93, 1.07))
            views: tuple[View, View] = (scale, scale, *place), (next_scale, next_scale, *moved.tolist())
            one, two = (descriptors.invariants(self._sizes(some, view)) for view in views)
            found.append(one - two)
        return np.concatenate(found)

    def alike(self, rows: Indices) -> Alike:
        """For each of the rows those that may show the same."""
        sizes = np.stack([self._sizes(rows, view) for view in self.views], axis=1)
        queries = self.weighting(descriptors.invariants(sizes.reshape(-1, *sizes.shape[2:])))
        at, b, view, _ = self.index.nearest(queries.reshape(*sizes.shape[:2], -1), rows)
        scores, angles = registration.turns(self._circles(sizes[at, view]), self.circles[b])
        twice = [
            Alike(rows[at], b, scores[:, side], view, angles[:, side], np.full(len(at), bool(side))) for side in (0, 1)
        ]
        least = np.maximum(_LEAST_TURNED, scores.max(axis=1) - _LESS_TURNED)
        return Alike.joined([part.of(part.score >= least) for part in twice])

    def candidates(self, found: Alike) -> Candidates:
        """How they may lie on one another; those that do not fit are left out."""
        first, second = (self.small[side].astype(np.float32) for side in (found.a, found.b))
        extents = (self.extents[found.a], self.extents[found.b] / self.middle[0])
        views = np.array(self.views, np.float32)[found.view]
        cuts = found.a * len(self.views) + found.view
        placed, peaks = registration.turned(first, second, extents, views, cuts, found.angle, found.is_mirrored)
        return Candidates(found.a, found.b, placed).of(peaks >= _PEAK)


class Reliefs:
    """Reliefs of pictures, as they are and in the seven other ways to lay a square on itself, against one another."""

    def __init__(self, small_NHW: NDArray[np.uint8]) -> None:
        self.small = small_NHW
        self.reliefs = np.concatenate([descriptors.reliefs(small_NHW[rows]) for rows in blocks(len(small_NHW))])
        raw = self.reliefs.reshape(len(self.reliefs), -1)
        self.weighting = Weighting.learned(raw, self._altered)
        self.index = _Index(self.weighting(raw), _ALIKE_RELIEFS)

    def _altered(self, rows: Indices, rng: np.random.Generator) -> Floats:
        """Differences that marks make, and light beyond white."""
        change: Floats = descriptors.reliefs(self._marked(rows, rng)) - self.reliefs[rows]
        return change.reshape(len(rows), -1)

    def _marked(self, rows: Indices, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Each with a rectangle on it, some lightened instead."""
        marked = self.small[rows].copy()
        for image in marked:
            area, ratio = rng.uniform(0.03, 0.11) * SMALL**2, rng.uniform(0.5, 2)
            height, width = (int(np.clip(side, 2, SMALL)) for side in (np.sqrt(area * ratio), np.sqrt(area / ratio)))
            top, left = rng.integers(0, SMALL - height + 1), rng.integers(0, SMALL - width + 1)
            if rng.random() < 0.3:
                image[:] = np.minimum(image * 1.5, 255)
                continue
            image[top : top + height, left : left + width] = rng.choice([0, 128, 255])
        return marked

    def alike(self, rows: Indices) -> Alike:
        """For each of the rows those that may show the same."""
        as_they_are = self.reliefs[rows]
        queries = []
        for is_turned, down, right in _WAYS:
            laid = (as_they_are.transpose(0, 2, 1) if is_turned else as_they_are)[:, ::down, ::right]
            queries.append(self.weighting(laid.reshape(len(rows), -1)))
        at, b, view, similar = self.index.nearest(np.stack(queries, axis=1), rows)
        none = np.zeros(len(b))
        return Alike(rows[at], b, similar, view, none, none > 0)

    def candidates(self, found: Alike) -> Candidates:
        """How they lie on one another: in place, or by quarter turns and mirrored."""
        matrices = [
            [[0, right], [down, 0]] if is_turned else [[right, 0], [0, down]] for is_turned, down, right in _WAYS
        ]
        still = np.zeros((len(found.b), 2), np.float32)
        return Candidates(found.a, found.b, Placements(np.array(matrices, np.float32)[found.view], still))


_WAYS = [(is_turned, down, right) for is_turned in (False, True) for down in (1, -1) for right in (1, -1)]


def blocks(num: int) -> Iterator[Indices]:
    """Rows, some at a time."""
    for start in range(0, num, _BLOCK):
        yield np.arange(start, min(start + _BLOCK, num))


class _Index:
    """Descriptors (N, D) of length 1, in cells of similar ones, of which the likeliest are searched: all up to
    _ONE_CELL pictures."""

    def __init__(self, rows_ND: Floats, least: float) -> None:
        self.rows = rows_ND
        self.least, self.most = (least, _NEIGHBOURS) if len(rows_ND) > FEW else (-np.inf, FEW)
        num_cells = 1 if len(rows_ND) <= _ONE_CELL else max(_LEAST_CELLS, len(rows_ND) // _PER_CELL)
        self.centres = rows_ND[np.random.default_rng(0).permutation(len(rows_ND))[:num_cells]]
        for _ in range(4 if num_cells > 1 else 0):  # k-means
            cells = self._probed(rows_ND, 1)[:, 0]
            order = np.argsort(cells, kind="stable")
            filled, starts = np.unique(cells[order], return_index=True)
            sums = np.add.reduceat(rows_ND[order], starts, axis=0)
            self.centres[filled] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
        cells = self._probed(rows_ND, 1)[:, 0]
        order = np.argsort(cells, kind="stable")
        self.members = np.split(order, np.searchsorted(cells[order], np.arange(1, num_cells)))

    def _probed(self, queries_QD: Floats, num: int) -> Indices:
        """(Q, num) the cells that are most like each query."""
        if len(self.centres) <= num:
            return np.tile(np.arange(len(self.centres)), (len(queries_QD), 1))
        parts = []
        for rows in np.array_split(queries_QD, len(queries_QD) // 16_384 + 1):
            similar = rows @ self.centres.T
            parts.append(np.argpartition(-similar, num - 1, axis=1)[:, :num])
        return np.concatenate(parts)

    def nearest(self, queries_BVD: Floats, own_B: Indices) -> tuple[Indices, Indices, Indices, Floats]:
        """(place in the block, row, view, cosine) of the few rows most like one of each picture's views, itself left
        out."""
        _, num_views, size = queries_BVD.shape
        queries = queries_BVD.reshape(-1, size)
        probed = self._probed(queries, _PROBED)
        order = np.argsort(probed.ravel(), kind="stable")
        bounds = np.searchsorted(probed.ravel()[order], np.arange(len(self.members) + 1))
        order //= probed.shape[1]
        found = []
        for cell, members in enumerate(self.members):
            rows = order[bounds[cell] : bounds[cell + 1]]
            if len(rows) == 0 or len(members) == 0:
                continue
            others = np.ascontiguousarray(self.rows[members].T)
            at, starts = np.unique(rows // num_views, return_index=True)
            starts = np.append(starts, len(rows))
            step = max(1, _SIMILARITIES // (len(members) * num_views))
            for first in range(0, len(at), step):
                end = starts[min(first + step, len(at))]
                similar = queries[rows[starts[first] : end]] @ others
                places = rows[starts[first] : end] // num_views
                if len(self.members) == 1:  # all views of a picture side by side
                    similar = similar.reshape(-1, num_views, len(members)).max(axis=1)
                    places = places[::num_views]
                alike = np.flatnonzero(similar >= self.least)
                if len(alike) > 2 * self.most * len(similar):  # all are alike: sorting them all would take long
                    first_ones = np.argpartition(similar, -self.most - 1, axis=1)[:, -self.most - 1 :]
                    alike = (first_ones + np.arange(len(similar))[:, None] * len(members)).ravel()
                a, b = np.divmod(alike, len(members))  # np.nonzero of two dimensions is ten times slower
                found.append((places[a], members[b], similar.reshape(-1)[alike]))
        a, b, similar = (np.concatenate(parts) for parts in zip(*found, strict=True))
        similar[(b == own_B[a]) | (similar < self.least)] = -np.inf
        order = np.lexsort((-similar, b, a))
        order = order[np.append(True, (np.diff(a[order]) != 0) | (np.diff(b[order]) != 0))[: len(order)]]
        kept = order[first_of_each(a[order], similar[order], self.most)]
        kept = kept[np.isfinite(similar[kept])]
        a, b, similar = a[kept], b[kept], similar[kept]
        view = [
            np.einsum("pvd,pd->pv", queries_BVD[a[part]], self.rows[b[part]]).argmax(axis=1)
            for part in np.array_split(np.arange(len(a)), len(a) // _PAIRS + 1)
        ]
        return a, b, np.concatenate(view), similar
