"""The paper taken out of a photograph: what is left is how much each pixel is ink.

Owns what a photograph has and a drawing has not: uneven light, shadows, ruled and squared paper, the edge of the table.
`ink.py` places what is found here. Values are contrasts to the paper, 0..255.
"""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SIDE = 256  # pixels of the longer side at which ink is looked for
_COARSE = 96  # and at which the paper's brightness is estimated
_WIDE, _NARROW = 37, 17  # windows of its running median there: most of each must be paper
_DARKEST = 24.0  # levels: darker paper than this gives no relative contrast
_SLOPES = np.tan(np.deg2rad(np.arange(-9, 9.1, 1.5)))  # of lines
_LINE_SHARE = 0.55  # of the picture's side that a line reaches in from its edge at least
_FAINT = 8.0  # contrast that counts as nothing
_LEAST_INK = 0.06  # of the largest stroke's ink: smaller specks are dirt
_RIVAL = 0.25  # of its ink that a stroke inside needs, for one that touches the edge to be none


def contrast_to_paper(grey_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (H, W): how far each pixel differs from the paper around it towards the ink; lines, specks and what comes
    in from the edge are left out. The longer side may have 256 pixels."""
    contrast = _contrast(grey_HW, _paper(grey_HW, None))
    paper = _paper(grey_HW, _wider(contrast > max(_FAINT, 0.5 * otsu(contrast))))
    contrast = _without_lines(_contrast(grey_HW, paper))
    levels: NDArray[np.uint8] = np.clip(np.rint(contrast), 0, 255).astype(np.uint8)
    return np.where(_wider(_ink_in(levels)), levels, 0).astype(np.uint8)


def otsu(values: NDArray[Any]) -> int:
    """The threshold that best parts the values in two (N. Otsu, IEEE Trans. SMC 9, 1979): above it is ink."""
    histogram = np.bincount(np.clip(values, 0, 255).astype(np.uint8).ravel(), minlength=256).astype(np.float64)
    below, mass = histogram.cumsum(), (histogram * np.arange(256)).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mass[-1] * below / below[-1] - mass) ** 2 / (below * (below[-1] - below))
    return int(np.nan_to_num(between, nan=-1.0, posinf=-1.0).argmax())


def _contrast(grey_HW: NDArray[np.uint8], paper: Floats) -> Floats:
    """Towards the ink, whichever side of the paper that is on."""
    difference = grey_HW - paper
    if _stands_out(difference) > _stands_out(-difference):
        return np.maximum(difference, 0)
    # Light falls on dark ink and on paper alike: what counts is the share of it that comes back.
    relative: Floats = np.maximum(-difference, 0) / np.maximum(paper, _DARKEST) * 255
    return relative


def _stands_out(towards: Floats) -> float:
    """The sum of what is beyond the paper's own texture, in one direction."""
    noise = 3 * float(np.median(np.abs(towards))) + _FAINT
    return float(np.maximum(towards - noise, 0).sum())


def _paper(grey_HW: NDArray[np.uint8], is_ink: Bools | None) -> Floats:
    """The brightness of the paper at each pixel: a running median, which follows the edge of a shadow but no stroke.

    Known ink is filled from around it before, so that wide strokes do not pass for paper.
    """
    height, width = grey_HW.shape
    scale = _COARSE / max(height, width)
    size = max(2, round(width * scale)), max(2, round(height * scale))
    values = np.asarray(Image.fromarray(grey_HW).resize(size, Image.Resampling.BOX)).astype(np.float32)
    if is_ink is not None:
        covered = np.asarray(Image.fromarray(255 * is_ink.astype(np.uint8)).resize(size, Image.Resampling.BOX))
        values = _filled(values, covered > 64)
    median = _running_median(values, _WIDE if is_ink is None else _NARROW)
    paper = Image.fromarray(median).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(paper).astype(np.float64)


def _running_median(values: NDArray[np.float32], window: int) -> NDArray[np.float32]:
    """Over windows of which every second row and column is looked at."""
    window = min(window, 2 * (min(values.shape) - 1) + 1)
    # Light that falls off goes on falling off beyond the edge: mirrored through its value there.
    padded = np.pad(values, window // 2, mode="reflect", reflect_type="odd")
    views = sliding_window_view(padded, (window, window))[:, :, ::2, ::2].reshape(*values.shape, -1)
    middle = views.shape[2] // 2
    return np.ascontiguousarray(np.partition(views, middle, axis=2)[:, :, middle])


def _filled(values: NDArray[np.float32], gaps: Bools) -> NDArray[np.float32]:
    """The gaps filled with means of ever wider surroundings."""
    values, known = np.where(gaps, 0, values).astype(np.float32), (~gaps).astype(np.float32)
    result, missing = values.copy(), gaps.copy()
    for reach in (2, 4, 8, 16, 32, 64):
        if not missing.any() or not known.any():
            break
        total, weight = _box_sums(values, reach), _box_sums(known, reach)
        here = missing & (weight >= 0.15 * (2 * reach + 1) ** 2)
        result[here] = total[here] / weight[here]
        missing &= ~here
    if missing.any() and known.any():
        result[missing] = values.sum() / known.sum()
    return result


def _box_sums(values: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """Sums over squares of 2 · reach + 1, cut off at the edges."""
    for axis in (0, 1):
        length = values.shape[axis]
        sums = np.concatenate([np.zeros_like(values.take([0], axis)), np.cumsum(values, axis=axis)], axis=axis)
        high = np.minimum(np.arange(length) + reach + 1, length)
        low = np.maximum(np.arange(length) - reach, 0)
        values = sums.take(high, axis) - sums.take(low, axis)
    return values


# ---------------------------------------------------------------- lines


def _without_lines(contrast: Floats) -> Floats:
    """Without the lines that come in from an edge and run straight on."""
    frame = (
        np.concatenate([contrast[2], contrast[-3], contrast[:, 2], contrast[:, -3]]) if min(contrast.shape) > 5 else 0
    )
    if np.max(frame) < _FAINT:
        return contrast
    lines = np.maximum.reduce(
        [
            _lines_from_left(contrast),
            _lines_from_left(contrast[:, ::-1])[:, ::-1],
            _lines_from_left(contrast.T).T,
            _lines_from_left(contrast[::-1].T).T[::-1],
        ]
    )
    # Where ink crosses a line it is darker than the line; elsewhere nothing is left.
    return np.where((lines > 0) & (contrast <= 1.7 * lines + _FAINT), 0, contrast)


def _lines_from_left(contrast: Floats) -> Floats:
    """The contrast of lines that start at the left edge, where they are; 0 elsewhere."""
    height, width = contrast.shape
    columns, stretch = np.arange(width), max(3, width // 16)
    reach = int(_LINE_SHARE * width) - stretch
    found = np.zeros_like(contrast)
    for slope in _SLOPES:
        drop = np.rint(slope * columns).astype(int)
        down = (np.arange(height)[:, None] + drop) % height
        sheared = contrast[down, columns]
        wide = np.maximum(np.maximum(np.roll(sheared, 1, 0), sheared), np.roll(sheared, -1, 0))
        sums = np.cumsum(wide, axis=1)
        # A line is there all the way: its weakest stretch counts, over stretches that texture does not break.
        weakest = np.minimum.accumulate((sums[:, stretch:] - sums[:, :-stretch]) / stretch, axis=1)
        strength = weakest[:, max(0, reach) : max(0, reach) + 1]
        if strength.max() < _FAINT / 2:
            continue
        follows = np.concatenate([np.ones((height, stretch), bool), weakest >= 0.5 * strength], axis=1)
        value = np.where(follows, strength, 0)
        back = (np.arange(height)[:, None] - drop) % height
        value = np.maximum(np.maximum(np.roll(value, 1, 0), value), np.roll(value, -1, 0))
        np.maximum(found, value[back, columns], out=found)
    return np.where(found >= _FAINT / 2, found, 0)


# ---------------------------------------------------------------- strokes


def _ink_in(levels: NDArray[np.uint8]) -> Bools:
    """The strokes: what stands out, in pieces that are no specks and do not come in from the edge."""
    mask = levels > max(_FAINT, otsu(levels))
    pieces, count = components(mask)
    if count == 0:
        return mask
    ink = np.bincount(pieces.ravel(), weights=levels.ravel().astype(np.float64), minlength=count + 1)
    ink[0] = 0
    touches = np.zeros(count + 1, bool)
    touches[np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))] = True
    inside = np.where(touches, 0, ink)
    if inside.max() >= _RIVAL * ink.max():
        ink = inside
    keep = ink >= _LEAST_INK * ink.max()
    keep[0] = False
    kept: Bools = keep[pieces]
    return kept


def components(mask: Bools) -> tuple[NDArray[np.int64], int]:
    """The connected pieces (8 neighbours) of a mask: a number for each pixel, 0 outside, and how many there are."""
    height, width = mask.shape
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    parent = list(range(len(rows)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    first_of_row = np.searchsorted(rows, np.arange(height + 1)).tolist()
    start_of, end_of = starts.tolist(), ends.tolist()
    for row in range(1, height):
        above, here = first_of_row[row - 1], first_of_row[row]
        last_above, last_here = here, first_of_row[row + 1]
        while above < last_above and here < last_here:
            if start_of[above] <= end_of[here] and start_of[here] <= end_of[above]:
                a, b = root(above), root(here)
                parent[max(a, b)] = min(a, b)
            if end_of[above] < end_of[here]:
                above += 1
            else:
                here += 1
    roots = np.array([root(run) for run in range(len(rows))], np.int64)
    names, numbers = np.unique(roots, return_inverse=True)
    pieces = np.zeros((height, width + 1), np.int64)
    np.add.at(pieces, (rows, starts), numbers + 1)
    np.add.at(pieces, (rows, ends), -(numbers + 1))
    return np.cumsum(pieces, axis=1)[:, :width], len(names)


def _wider(mask: Bools) -> Bools:
    """By one pixel all around, so that soft edges belong to the stroke."""
    padded = np.pad(mask, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]
