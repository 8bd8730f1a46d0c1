"""Two pictures laid on one another, and whether they are one picture.

Owns the alignment (a turn by the angular correlation of spectra, a shift by phase correlation, Kuglin and Hines, 1975,
then Gauss-Newton over the six numbers of an affine map, with brightness and contrast and little weight on what fits
badly; Baker and Matthews, "Lucas-Kanade 20 Years On", IJCV 56, 2004) and the proof: what the two have in common must
agree at large, in fine detail everywhere and not only along strong edges, and in colour. Two photographs of one fruit
on white agree in outline and shade; copies agree in the specks on its skin too. A tenth of what they have in common may
disagree: a mark.

Coordinates are -1..1 from edge to edge, (right, down); a placement maps those of the first picture to the second's.
"""

import math
from dataclasses import dataclass
from functools import cache, partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from convlens.doctor.descriptors import NUM_ANGLES, WINDOW, Floats, blurred, centres

COLOURS = 8  # pixels a side at which colours are compared
STEPS = (4, 4, 3)  # of Gauss-Newton at 16 pixels a side, at 32, and at the full size
_MARK_SIDE = 0.32  # of a square mark over a tenth of a picture
# Least correlations of the proof, in place and elsewhere, at large and in detail: of small pictures, which have less
# detail to differ in, and of others; in detail where little could be compared, and of what agrees so well at large in
# place: noise leaves that as it is.
_COARSE, _FINE = {True: (0.9, 0.9), False: (0.8, 0.9)}, {True: (0.45, 0.82), False: (0.45, 0.69)}
_FINE_OF_LITTLE, _NOISY = (0.7, 0.8), (0.97, 0.36)
_COMPARED, _LITTLE = (0.03, 0.15), (0.25, 0.4)  # least share of a picture that could be compared, and what is little
_IN_PLACE = 0.03
# Most that colours differ, in levels, after the one's were made as pale as the other's; and more by a share of how
# strong the paler's are, for what is brightened beyond white loses colour. A mark touches more of these blocks.
_COLOUR, _PER_COLOUR, _MARKED_COLOUR = 14.0, 0.5, 0.3
_MOST_STRETCHED = 1.8
_DAMPING = np.diag([1e-3] * 6 + [1e-5] * 2).astype(np.float32)
_LEAST_OF_ONE, _LEAST_OF_BOTH = 0.6, 0.3  # share of a picture that the other has too
_TEXTURE = 1.5  # local contrast in levels, below which there is no detail to agree in
CLIPPED, _BLACK = 252, 4  # levels from which a picture may be lit beyond white; below which it is black
_LEAST_INNER = 0.25  # share of a picture that is neither fill nor at its edge, for that alone to be compared
_LEAST_INNER_OF_ONE = {True: 0.6, False: 0.35}  # and of one of two pictures, small or not, to be more than an outline
_EQUAL = 0.997  # least correlation of outlines: of 70,000 handwritten digits no two reach 0.995


@dataclass(frozen=True)
class Placements:
    """How second pictures lie on first ones: float32 matrices (P, 2, 2) and shifts (P, 2)."""

    matrix: Floats
    shift: Floats

    def __len__(self) -> int:
        return len(self.matrix)

    def __getitem__(self, which: NDArray[np.integer] | NDArray[np.bool_]) -> Self:
        return type(self)(self.matrix[which], self.shift[which])

    def where(self, these: NDArray[np.bool_], others: Self) -> Self:
        """These where it says so, elsewhere the others."""
        return type(self)(
            np.where(these[:, None, None], self.matrix, others.matrix),
            np.where(these[:, None], self.shift, others.shift),
        )

    @classmethod
    def joined(cls, parts: "list[Placements]") -> Self:
        """All of them."""
        return cls(np.concatenate([p.matrix for p in parts]), np.concatenate([p.shift for p in parts]))


def turns(first_PKF: NDArray[np.complexfloating], second_PKF: NDArray[np.complexfloating]) -> tuple[Floats, Floats]:
    """By how much the first's spectrum must be turned to be the second's, as it is and mirrored: correlations and
    angles in radians modulo a half turn, both (P, 2), of the Fourier transforms of normalised circles."""
    found = []
    for one in (np.conj(first_PKF), first_PKF):  # mirrored is conjugate
        similar = np.fft.irfft((one * second_PKF).sum(axis=1), n=NUM_ANGLES, axis=1)
        rows, best = np.arange(len(similar)), similar.argmax(axis=1)
        before, here, after = (similar[rows, (best + step) % NUM_ANGLES] for step in (-1, 0, 1))
        between = np.clip((before - after) / 2 / np.minimum(before - 2 * here + after, -1e-6), -0.5, 0.5)
        found.append((here, (best + between) * (np.pi / NUM_ANGLES)))
    both = [np.stack(parts, axis=1).astype(np.float32) for parts in zip(*found, strict=True)]
    return both[0], both[1]


def turned(
    first_PHW: Floats,
    second_PHW: Floats,
    extents_2P2: tuple[Floats, Floats],
    views_P4: Floats,
    cuts_P: NDArray[np.int64],
    angles_P: Floats,
    is_mirrored_P: NDArray[np.bool_],
) -> tuple[Placements, Floats]:
    """How the view of the first picture lies on the middle of the second, turned so or by a half turn more, and shifted
    as the two then fit best; and how well that is, (P,): the peak of their phase correlation, 1 where all phases agree.
    The second's extents are in units of half that middle's side. `cuts` are the same where picture and view are."""
    cos, sin = np.cos(angles_P), np.sin(angles_P)
    turn = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2).astype(np.float32)
    turn[is_mirrored_P, :, 0] *= -1
    (one, two), scale = extents_2P2, views_P4[:, :2]
    middle = centres(views_P4, one)
    # Views of one picture are cut, and transformed, once.
    _, some, which = np.unique(cuts_P, return_index=True, return_inverse=True)
    looked = Placements(np.eye(2, dtype=np.float32) * (scale / one)[some, None, :], (middle / one)[some])
    _, (seen,) = warped(looked, len(WINDOW), first_PHW[some])
    _, (other,) = warped(Placements(turn / two[:, :, None], np.zeros_like(middle)), len(WINDOW), second_PHW)
    spectrum, others = (
        np.fft.rfft2((images - images.mean(axis=(1, 2), keepdims=True)) * WINDOW) for images in (seen, other)
    )
    spectrum, rows = spectrum[which.ravel()], np.arange(len(which))
    sizes = np.sqrt(np.abs(spectrum) * np.abs(others) + 1e-3)
    spectrum /= sizes
    found, peaks = [], []
    for sign, cross in ((1, spectrum * np.conj(others)), (-1, spectrum * others)):
        fits = np.fft.irfft2(cross, s=WINDOW.shape).reshape(len(rows), WINDOW.size)
        peak = fits.argmax(axis=1)
        peaks.append(fits[rows, peak])
        at = np.stack(np.divmod(peak, len(WINDOW))[::-1], axis=1) + (sign < 0)  # turned about a corner: one pixel more
        moved = np.where(at > len(WINDOW) // 2, at - len(WINDOW), at) * np.float32(2 / len(WINDOW))
        onto = sign * turn / two[:, :, None]
        shift = -(onto @ (middle / scale + moved)[:, :, None])[:, :, 0]
        found.append(Placements((onto * (one / scale)[:, None, :]).astype(np.float32), shift.astype(np.float32)))
    most = WINDOW.size / (sizes @ _TWICE).sum(axis=1)
    return found[0].where(peaks[0] >= peaks[1], found[1]), np.maximum(*peaks) * most


_TWICE = np.array([1, *[2] * (len(WINDOW) // 2 - 1), 1], np.float32)  # of a real signal's spectrum, half is computed


def _grid(side: int) -> Floats:
    """(side², 2) places of pixels."""
    places = ((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32)
    return np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)


def warped(placed: Placements, side: int, *images_PHW: Floats) -> tuple[NDArray[np.bool_], list[Floats]]:
    """Whether anything lies at each of the first pictures' places, and what, in each of these images of the second
    ones: (P, side, side) each."""
    num, size, _ = images_PHW[0].shape
    half = np.float32(size / 2)
    at = (placed.matrix * half) @ _grid(side).T + ((placed.shift + 1) * half - np.float32(0.5))[:, :, None]
    kept = np.clip(at, 0, size - np.float32(1.001))
    is_inside = (np.abs(at - kept) <= np.float32(0.002)).min(axis=1)
    corner = kept.astype(np.int32)
    right, down = (kept - corner).transpose(1, 0, 2)
    first = np.arange(num)[:, None] * (size * size) + (corner[:, 1] * size + corner[:, 0])
    below = first + size
    found = []
    for images in images_PHW:
        pixel = partial(images.reshape(-1).take, mode="wrap")  # the fastest; all are there
        upper, lower = pixel(first), pixel(below)
        upper += (pixel(first + 1) - upper) * right
        lower += (pixel(below + 1) - lower) * right
        found.append((upper + (lower - upper) * down).reshape(num, side, side))
    return is_inside.reshape(num, side, side), found


def refined(first_PHW: Floats, second_PHW: Floats, placed: Placements, steps: int) -> Placements:
    """Gauss-Newton: the placement, gain and offset that leave the smallest squares, those that fit badly counting
    little (Cauchy's weights)."""
    num, side, _ = first_PHW.shape
    x, y = _grid(side).T
    target = first_PHW.reshape(num, side * side)
    matrix, shift = placed.matrix.copy(), placed.shift.copy()
    gain, offset = np.ones(num, np.float32), None
    for _ in range(steps if num else 0):
        is_inside, (moved,) = warped(Placements(matrix, shift), side, second_PHW)
        down, right = (part.reshape(num, side * side) for part in np.gradient(moved, 2 / side, axis=(1, 2)))
        # The second picture's own slopes, not those of it as it lies here.
        back = np.linalg.inv(matrix)
        slopes = [right * back[:, 0, axis, None] + down * back[:, 1, axis, None] for axis in (0, 1)]
        counts = _counted(first_PHW, moved, is_inside)
        values, weights = moved.reshape(num, side * side), counts.reshape(num, side * side).astype(np.float32)
        if offset is not None:
            rest = target - gain[:, None] * values - offset[:, None]
            typical = (np.abs(rest) * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1) + 2
            weights /= 1 + (rest / (1.5 * typical[:, None])) ** 2
        parts = [part for slope in slopes for part in (slope * x, slope * y, slope)]
        columns = np.stack([*parts, values, np.ones_like(values)], axis=1)
        weighted = (columns * weights[:, None, :]).transpose(0, 2, 1)
        normal, wanted = columns @ weighted, (target[:, None, :] @ weighted)[:, 0]
        size = np.sqrt(np.maximum(np.einsum("pii->pi", normal), 1e-6))
        # Scaled, and with a little on the diagonal: a picture with edges in one direction fixes no shift along them.
        normal = normal / (size[:, :, None] * size[:, None, :]) + _DAMPING
        found = np.linalg.solve(normal, (wanted / size)[:, :, None])[:, :, 0] / size
        gain = np.where(np.abs(found[:, 6]) < 0.2, 0.2, found[:, 6]).astype(np.float32)
        offset = found[:, 7].astype(np.float32)
        step = np.clip(found[:, :6] / gain[:, None], -0.08, 0.08).reshape(num, 2, 3).astype(np.float32)
        matrix, shift = matrix + step[:, :, :2], shift + step[:, :, 2]
        lost = np.abs(np.linalg.det(matrix)) < 0.05  # nothing comes of these
        matrix[lost] = np.eye(2, dtype=np.float32)
    return Placements(matrix, shift)


def agreement(first_PHW: Floats, second_PHW: Floats, counts_PHW: NDArray[np.bool_]) -> Floats:
    """Pearson's correlation (P,) over the places that count, all of them or with the worst blocks left out."""
    counts = counts_PHW.astype(np.float32)
    total = np.maximum(counts.sum(axis=(1, 2)), 1)

    def centred(images: Floats) -> Floats:
        mean = (images * counts).sum(axis=(1, 2)) / total
        difference: Floats = (images - mean[:, None, None]) * counts
        return difference

    first, second, both, covered = _block_sums(centred(first_PHW), centred(second_PHW), counts)
    one, two = (np.maximum(part.sum(axis=1, keepdims=True), 1e-6) for part in (first, second))
    kept = _but_worst(2 * both / np.sqrt(one * two) - first / one - second / two, covered > 0)
    found = []
    # All of them too: where a few blocks hold all there is, they are both the best and the worst.
    for some in (kept, np.ones_like(kept)):
        one, two, product = ((part * some).sum(axis=1) for part in (first, second, both))
        found.append(product / np.sqrt(np.maximum(one * two, 1e-3)))
    best: Floats = np.maximum(*found)
    return best


def detail(images_PHW: Floats) -> Floats:
    """Edges and specks, each place's divided by the contrast around it, so that an outline does not drown the rest."""
    fine = images_PHW - blurred(images_PHW, 2)
    found: Floats = fine / (np.sqrt(blurred(fine * fine, 4)) + _TEXTURE)
    return found


def detail_agreement(first_PHW: Floats, second_PHW: Floats, counts_PHW: NDArray[np.bool_]) -> Floats:
    """Mean (P,) of the correlations of details in each block, those that show more counting more, the worst left out:
    so that detail agrees everywhere, and not only along the strongest edge."""
    counts = counts_PHW.astype(np.float32)
    first, second, both, covered = _block_sums(first_PHW * counts, second_PHW * counts, counts)
    similar = both / np.sqrt(np.maximum(first * second, 1e-6))
    shown = np.sqrt(np.maximum(first, second) / np.maximum(covered, 1))
    shown *= covered > 0.5 * first_PHW.shape[1] ** 2 / covered.shape[1]
    shown *= _but_worst(similar, shown > 0)
    found: Floats = (similar * shown).sum(axis=1) / np.maximum(shown.sum(axis=1), 1e-6)
    return found


def _block_sums(first_PHW: Floats, second_PHW: Floats, counts_PHW: Floats) -> tuple[Floats, ...]:
    """Of each block (P, blocks): the sums of squares of both, of products, and of what counts."""
    num, side, _ = first_PHW.shape
    pairs = ((first_PHW, first_PHW), (second_PHW, second_PHW), (first_PHW, second_PHW), (counts_PHW, counts_PHW))
    summing = _summing(side)
    return tuple((summing @ (a * b) @ summing.T).reshape(num, len(summing) ** 2) for a, b in pairs)


@cache
def _summing(side: int) -> Floats:
    """(blocks a side, side): adds up a block's rows, of four pixels, or more blocks of fewer in a small image."""
    num = max(8, side // 4)
    return np.repeat(np.eye(num, dtype=np.float32), side // num, axis=1)


def _but_worst(quality_PB: Floats, covered_PB: NDArray[np.bool_], share: float | None = None) -> NDArray[np.bool_]:
    """All covered blocks but the worst: as many as a mark over a tenth of the picture touches, or that share."""
    if share is None:
        share = (_MARK_SIDE + 1 / math.isqrt(quality_PB.shape[1])) ** 2
    ordered = np.sort(np.where(covered_PB, quality_PB, np.inf), axis=1)
    num_left_out = np.ceil(share * covered_PB.sum(axis=1)).astype(int)
    worst = ordered[np.arange(len(ordered)), np.maximum(num_left_out - 1, 0)]
    kept: NDArray[np.bool_] = covered_PB & ((quality_PB > worst[:, None]) | (num_left_out == 0)[:, None])
    return kept


def fit(first_PHW: Floats, second_PHW: Floats, placed: Placements) -> Floats:
    """How well the two agree as they lie, (P,); -1 where they have too little in common."""
    counts, (moved,) = warped(placed, first_PHW.shape[1], second_PHW)
    return np.where(counts.mean(axis=(1, 2)) >= _LEAST_OF_BOTH, agreement(first_PHW, moved, counts), -1)


def detail_fit(first_PHW: Floats, second_PHW: Floats, placed: Placements) -> Floats:
    """How well their details agree as they lie, (P,); what is lit beyond white has none."""
    inside, (moved, details) = warped(placed, first_PHW.shape[1], second_PHW, detail(second_PHW))
    return detail_agreement(detail(first_PHW), details, _counted(first_PHW, moved, inside))


def _counted(first_PHW: Floats, moved_PHW: Floats, inside_PHW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What can be compared of two pictures that lie on one another: not what is beyond white, nor black or white fill
    and its edge (two pictures in equal frames agree there), unless there is hardly anything beside: a drawing."""
    is_white = (first_PHW >= CLIPPED) | (moved_PHW >= CLIPPED)
    counts = inside_PHW
    for fill in ((first_PHW < _BLACK) | (moved_PHW < _BLACK), is_white):
        inner = counts & _far_from(fill)
        is_enough = inner.mean(axis=(1, 2)) >= _LEAST_INNER
        counts = np.where(is_enough[:, None, None], inner, counts)
    return counts & ~is_white


def _far_from(fill_PHW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return blurred(fill_PHW.astype(np.float32), 2) < 0.01


def are_outlines(images_PHW: Floats, is_small: bool) -> NDArray[np.bool_]:
    """(P,) whether a picture, small or shrunk to be so, is hardly more than an outline on black or white: a digit, a
    garment, a drawing. Any two of a kind can be laid on one another so that they agree as copies do."""
    inner = _far_from(images_PHW < _BLACK) & _far_from(images_PHW >= CLIPPED)
    outlines: NDArray[np.bool_] = inner.mean(axis=(1, 2)) < _LEAST_INNER_OF_ONE[is_small]
    return outlines


def are_equal(first_PHW: Floats, second_PHW: Floats, placed: Placements) -> NDArray[np.bool_]:
    """(P,) whether the two are the same as they lie, but for brightness and contrast."""
    _, (moved,) = warped(placed, first_PHW.shape[1], second_PHW)
    one, two = (images - images.mean(axis=(1, 2), keepdims=True) for images in (first_PHW, moved))
    squares = [(a * b).sum(axis=(1, 2)) for a, b in ((one, one), (two, two), (one, two))]
    equal: NDArray[np.bool_] = squares[2] >= _EQUAL * np.sqrt(np.maximum(squares[0] * squares[1], 1))
    return equal


@dataclass(frozen=True)
class Proof:
    """Of pairs (P,): correlations at large and in detail, how colours differ in levels, and the shares of the first and
    of the second picture that the other has too (P, 2), and of the first one the share that could be compared."""

    coarse: Floats
    fine: Floats
    colour: Floats
    shares: Floats
    compared: Floats


def proof(
    first_PHW: Floats, second_PHW: Floats, chroma: tuple[Floats, Floats], placed: Placements, fine_P: Floats
) -> Proof:
    """Compare the two as they lie, whose details agree so; `chroma` are R - G and B - G of both, (P, 2, COLOURS,
    COLOURS)."""
    inside, (moved,) = warped(placed, first_PHW.shape[1], second_PHW)
    share = inside.mean(axis=(1, 2))
    counts = _counted(first_PHW, moved, inside)
    shares = np.stack([share, share * np.abs(np.linalg.det(placed.matrix))], axis=1)
    colour = _colour_difference(*chroma, placed)
    return Proof(agreement(first_PHW, moved, counts), fine_P, colour, shares, counts.mean(axis=(1, 2)))


def _colour_difference(first_PCHW: Floats, second_PCHW: Floats, placed: Placements) -> Floats:
    """How much farther the paler picture's colours are from the other's, made as pale, than _PER_COLOUR of their own
    strength: root of the mean square in levels, the worst places left out. Grey agrees with everything."""
    num = len(first_PCHW)
    twice = Placements(np.repeat(placed.matrix, 2, axis=0), np.repeat(placed.shift, 2, axis=0))
    inside, (moved,) = warped(twice, COLOURS, second_PCHW.reshape(2 * num, COLOURS, COLOURS))
    moved, inside = moved.reshape(num, 2, COLOURS**2), inside.reshape(num, 2, COLOURS**2)
    one, two = first_PCHW.reshape(num, 2, COLOURS**2) * inside, moved * inside
    is_paler = ((one * one).sum(axis=(1, 2)) < (two * two).sum(axis=(1, 2)))[:, None, None]
    pale, strong = np.where(is_paler, one, two), np.where(is_paler, two, one)
    kept = inside[:, 0]
    for _ in range(2):  # what is left out must not tell how pale the one is
        parts = [(part * kept[:, None]).sum(axis=(1, 2)) for part in (pale * strong, strong * strong)]
        share = np.clip(parts[0] / np.maximum(parts[1], 1), 0, 1)[:, None, None]
        excess = ((pale - share * strong) ** 2 - _PER_COLOUR**2 * pale * pale).sum(axis=1)
        kept = _but_worst(-excess, inside[:, 0], _MARKED_COLOUR)
    mean = (excess * kept).sum(axis=1) / np.maximum(kept.sum(axis=1), 1)
    found: Floats = np.sqrt(np.maximum(mean, 0))
    return found


def are_one(placed: Placements, own_P22: Floats, found: Proof, is_small: bool) -> NDArray[np.bool_]:
    """(P,) whether the proof suffices; `own` are the matrices between the pictures as they are, not stretched to
    squares; `is_small` says that they were compared as small ones. Less is asked of what lies in place, or by quarter
    turns: chance has fewer ways to imitate it."""
    square = np.abs(placed.matrix)
    away = np.minimum(np.abs(square - np.eye(2)).max(axis=(1, 2)), np.abs(square - np.eye(2)[::-1]).max(axis=(1, 2)))
    is_in_place = (away <= _IN_PLACE) & (np.abs(placed.shift).max(axis=1) <= _IN_PLACE)
    # One of the two: a cut may have been stretched.
    sizes = [np.linalg.svd(matrix, compute_uv=False) for matrix in (placed.matrix, own_P22)]
    is_sane = np.any([np.abs(np.log(size)).max(axis=1) <= np.log(_MOST_STRETCHED) for size in sizes], axis=0)
    is_sane &= (found.shares.max(axis=1) >= _LEAST_OF_ONE) & (found.shares.min(axis=1) >= _LEAST_OF_BOTH)
    bars = (_COARSE[is_small], _FINE[is_small], _FINE_OF_LITTLE, _COMPARED, _LITTLE)
    coarse, fine, fine_of_little, compared, little = (np.where(is_in_place, *bar) for bar in bars)
    fine = np.where(found.compared < little, np.maximum(fine, fine_of_little), fine)
    if not is_small:
        at_large, in_detail = _NOISY
        fine = np.where(is_in_place & (found.coarse >= at_large), np.minimum(fine, in_detail), fine)
    is_alike = found.fine >= fine
    is_alike &= (found.coarse >= coarse) & (found.colour <= _COLOUR)
    is_one: NDArray[np.bool_] = is_sane & is_alike & (found.compared >= compared)
    return is_one
