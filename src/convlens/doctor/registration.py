"""Two pictures laid on one another, and whether they are one picture.

Owns the alignment (phase correlation, then Gauss-Newton over shift and scale in both directions, with brightness and
contrast; Baker and Matthews, "Lucas-Kanade 20 Years On", IJCV 56, 2004) and the proof: what the two have in common
must agree at large, in fine detail everywhere and not only along strong edges, and in colour. Two photographs of one
fruit on white agree in outline and shade; copies agree in the specks on its skin too.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE, COLOURS = 48, 6  # pixels a side at which pictures, and their colours, are compared
_COARSE, _COLOUR = 0.95, 24.0  # least correlation; largest difference of colour, in levels
# Least correlation of detail: a copy in place may have lost much of it to compression; of one that was moved or
# mirrored, which chance has more ways to imitate, more is asked.
_FINE_IN_PLACE, _FINE_MOVED, _IN_PLACE = 0.66, 0.75, 0.03
_PER_SHIFT = 4.0  # how much more the colours of quarters may differ when half of the picture's side is shifted, times
_WORTH_A_TRY = 0.7  # correlation after whole shifts, below which the alignment is not refined
_WORTH_MORE = 0.88  # and after the first refinement
_SCALE = 1.2  # how differently two copies may be cut
_LEAST_OVERLAP = 0.6
_STEPS_COARSE, _STEPS_FINE = 5, 6
_RIM = 2
_TEXTURE = 1.5  # local contrast in levels, below which there is no detail to agree in

Floats = NDArray[np.floating]
_PLACES = ((np.arange(SIDE) - (SIDE - 1) / 2) / (SIDE / 2)).astype(np.float32)  # -1..1 across the picture


@dataclass(frozen=True)
class Alignment:
    """How the second picture lies on the first: shift (down, right) in shares of its sides, how many times taller and
    wider its part is; and the correlations of the two at large and in detail."""

    down: float
    right: float
    taller: float
    wider: float
    coarse: float
    fine: float


def aligned(
    grey_NHW: NDArray[np.uint8],
    colour_NHWC: NDArray[np.uint8],
    first_P: NDArray[np.int64],
    second_P: NDArray[np.int64],
    is_mirrored: bool,
) -> Iterator[tuple[int, Alignment]]:
    """(place in the list, alignment) of those pairs that are one picture, the second perhaps mirrored."""
    step = -1 if is_mirrored else 1
    colour = np.abs(_chroma(colour_NHWC[first_P]) - _chroma(colour_NHWC[second_P][:, :, ::step])).max(axis=(1, 2, 3))
    # Each test leaves fewer pairs to the next, which costs more.
    tried = np.flatnonzero(colour <= _COLOUR * (1 + _PER_SHIFT * 2 * (1 - _LEAST_OVERLAP)))
    first, second = (
        grey_NHW[first_P[tried]].astype(np.float32),
        grey_NHW[second_P[tried]][:, :, ::step].astype(np.float32),
    )
    warp = _whole_shifts(first, second)
    keep = _agreement(first, second, warp)[0] >= _WORTH_A_TRY
    tried, first, second, warp = tried[keep], first[keep], second[keep], warp[keep]
    warp = _refined(_blurred(first, 3), _blurred(second, 3), warp, _STEPS_COARSE)
    keep = _agreement(first, second, warp)[0] >= _WORTH_MORE
    tried, first, second, warp = tried[keep], first[keep], second[keep], warp[keep]
    if len(tried) == 0:
        return
    warp = _refined(first, second, warp, _STEPS_FINE)
    coarse, overlap = _agreement(first, second, warp)
    fine, _ = _agreement(_detail(first), _detail(second), warp)
    colour = colour[tried] / (1 + _PER_SHIFT * np.abs(warp[:, [1, 3]]).sum(axis=1))
    sane = (np.abs(np.log(warp[:, [0, 2]])) <= np.log(_SCALE)).all(axis=1) & (overlap >= _LEAST_OVERLAP)
    is_in_place = (np.abs(warp - [1, 0, 1, 0]).max(axis=1) <= _IN_PLACE) & (not is_mirrored)
    is_fine = fine >= np.where(is_in_place, _FINE_IN_PLACE, _FINE_MOVED)
    for place in np.flatnonzero(sane & (coarse >= _COARSE) & is_fine & (colour <= _COLOUR)):
        taller, down, wider, right = warp[place].tolist()
        yield (
            int(tried[place]),
            Alignment(-down / 2, -right / 2, 1 / taller, 1 / wider, float(coarse[place]), float(fine[place])),
        )


def _whole_shifts(first: Floats, second: Floats) -> Floats:
    """float32 (P, 4), a warp (scale and shift of rows, of columns): by phase correlation (Kuglin and Hines, 1975), the
    phases weighted by the square root of their size."""
    window = np.outer(np.hanning(SIDE + 2)[1:-1], np.hanning(SIDE + 2)[1:-1]).astype(np.float32)
    spectra = [np.fft.rfft2((x - x.mean(axis=(1, 2), keepdims=True)) * window) for x in (second, first)]
    cross = spectra[0] * np.conj(spectra[1])
    peaks = np.fft.irfft2(cross / np.sqrt(np.abs(cross) + 1e-3), s=(SIDE, SIDE)).reshape(len(first), -1).argmax(axis=1)
    shifts = [np.where(n > SIDE // 2, n - SIDE, n) / (SIDE / 2) for n in np.divmod(peaks, SIDE)]
    ones = np.ones(len(first))
    return np.stack([ones, shifts[0], ones, shifts[1]], axis=1).astype(np.float32)


def _interpolation(scale_P: Floats, shift_P: Floats) -> tuple[Floats, Floats]:
    """(P, SIDE, SIDE) weights that pick places scale·c + shift, and (P, SIDE) whether these lie in the picture."""
    at = (scale_P[:, None] * _PLACES + shift_P[:, None]) * (SIDE / 2) + (SIDE - 1) / 2
    weights = np.maximum(0, 1 - np.abs(np.clip(at, 0, SIDE - 1)[:, :, None] - np.arange(SIDE, dtype=np.float32)))
    return weights.astype(np.float32), ((at >= _RIM) & (at <= SIDE - 1 - _RIM)).astype(np.float32)


def _warped(images: Floats, warp: Floats) -> tuple[Floats, Floats]:
    """The second pictures moved onto the first, and where they have pixels there, both (P, SIDE, SIDE)."""
    rows, inside_rows = _interpolation(warp[:, 0], warp[:, 1])
    columns, inside_columns = _interpolation(warp[:, 2], warp[:, 3])
    moved: Floats = rows @ images @ columns.transpose(0, 2, 1)
    mask: Floats = inside_rows[:, :, None] * inside_columns[:, None, :]
    mask[:, :_RIM] = mask[:, -_RIM:] = 0
    mask[:, :, :_RIM] = mask[:, :, -_RIM:] = 0
    return moved, mask


def _agreement(first: Floats, second: Floats, warp: Floats) -> tuple[Floats, Floats]:
    """Pearson's correlation over what the two have in common, and the share of the picture that this is; (P,) each."""
    moved, mask = _warped(second, warp)
    total = np.maximum(mask.sum(axis=(1, 2)), 1)

    def centred(images: Floats) -> Floats:
        mean = (images * mask).sum(axis=(1, 2)) / total
        difference: Floats = (images - mean[:, None, None]) * mask
        return difference

    one, two = centred(first), centred(moved)
    size = np.sqrt((one * one).sum(axis=(1, 2)) * (two * two).sum(axis=(1, 2)))
    return (one * two).sum(axis=(1, 2)) / np.maximum(size, 1e-3), total / (SIDE - 2 * _RIM) ** 2


def _refined(first: Floats, second: Floats, warp: Floats, steps: int) -> Floats:
    """Gauss-Newton: the warp, gain and offset that leave the smallest squares."""
    warp = warp.copy()
    for _ in range(steps if len(warp) else 0):
        moved, mask = _warped(second, warp)
        by_row, by_column = np.gradient(moved, 2 / SIDE, axis=(1, 2))
        by_row /= warp[:, 0, None, None]
        by_column /= warp[:, 2, None, None]
        parts = [by_row * _PLACES[:, None], by_row, by_column * _PLACES, by_column, moved, np.ones_like(moved)]
        columns = np.stack([(part * mask).reshape(len(first), -1) for part in parts], axis=2)
        target = (first * mask).reshape(len(first), -1, 1)
        normal = columns.transpose(0, 2, 1) @ columns
        size = np.sqrt(np.maximum(np.einsum("pii->pi", normal), 1e-6))
        # Scaled, and with a little on the diagonal: a picture with edges in one direction fixes no shift along them.
        normal = normal / (size[:, :, None] * size[:, None, :]) + 1e-4 * np.eye(6, dtype=np.float32)
        found = np.linalg.solve(normal, columns.transpose(0, 2, 1) @ target / size[:, :, None])[:, :, 0] / size
        gain = np.where(np.abs(found[:, 4]) < 0.2, 0.2, found[:, 4])
        warp += np.clip(found[:, :4] / gain[:, None], -0.06, 0.06).astype(np.float32)
        warp[:, [0, 2]] = np.clip(warp[:, [0, 2]], 1 / _SCALE / 1.05, _SCALE * 1.05)
    return warp


def _blurred(images: Floats, times: int) -> Floats:
    for _ in range(times):
        for axis in (1, 2):
            images = (np.roll(images, 1, axis) + 2 * images + np.roll(images, -1, axis)) / 4
    return images


def _detail(images: Floats) -> Floats:
    """Edges and specks, each place's divided by the contrast around it, so that an outline does not drown the rest."""
    fine = images - _blurred(images, 2)
    contrast = np.sqrt(_blurred(fine * fine, 4))
    detail: Floats = fine / (contrast + _TEXTURE)
    return detail


def _chroma(colour_NHWC: NDArray[np.uint8]) -> Floats:
    """R - G and B - G over quarters of the picture, (P, 2, 2, 2): coarse, so that shifts do not count."""
    colour = colour_NHWC.astype(np.float32)
    half = COLOURS // 2
    quarters = colour.reshape(len(colour), 2, half, 2, half, 3).mean(axis=(2, 4))
    chroma: Floats = quarters[..., [0, 2]] - quarters[..., 1:2]
    return chroma
