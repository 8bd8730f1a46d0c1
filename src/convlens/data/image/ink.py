"""Ink: a drawing or photograph of a sign, framed as MNIST's digits are.

Owns finding the ink, whatever its polarity and ground, and placing it. Knows nothing of files or networks.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convlens.data.image.background import SIDE as PAPER_SIDE
from convlens.data.image.background import contrast_to_paper, otsu
from convlens.data.image.decode import Pixels

# Of MNIST: the digit's longer side fills 20 of 28 pixels, its centre of mass lies on index 14 of 0..27.
INK_SIDE = 20 / 28
# The quarter of MNIST with the thinnest pens is thinner than 2.33 of 28 pixels (median 2.66; measured on 300 training
# images, as in `_pen_width`). A finer pen would fade when it is reduced, so its stroke is widened to this.
INK_PEN = 2.33 / 28
MAX_INK_SIDE = 1024
_EVEN = 6  # levels of the ground's own noise
_UNEVEN_SHARE, _LINES = 0.12, 5  # share of the edge, or places on it, that stand out where the ground is uneven
_THIN, _THIN_PX, _TOO_SMALL = 0.17, 2.7, 16  # of the side, or pixels, that a stroke is wide at most
_WORK = 4  # ink is cleaned at this many times its final size


def is_framed_ink(grey_HW: Pixels) -> bool:
    """Whether a picture already is as MNIST's are: bright ink on 0, longer side 20/28, centred by mass."""
    height, width = grey_HW.shape
    edge = np.concatenate([grey_HW[0], grey_HW[-1], grey_HW[1:-1, 0], grey_HW[1:-1, -1]])
    if np.count_nonzero(edge) * 2 > len(edge) or not grey_HW.any():
        return False
    top, bottom, left, right = _box(grey_HW > 0)
    side = round(INK_SIDE * min(height, width))
    if not side - 1 <= max(bottom - top, right - left) <= side:
        return False
    middle = _centre_of_mass(grey_HW.astype(np.float64))
    return bool(abs(middle[0] - height // 2) <= 0.75 and abs(middle[1] - width // 2) <= 0.75)


def is_drawing(grey_HW: Pixels) -> bool:
    """Whether a picture is strokes on an even ground, wherever they lie: digits, letters, sketches. Garments and other
    things fill their outline; photographs have no even ground. Of pictures smaller than 16 pixels the ground hardly
    shows, and is not asked for."""
    side = min(grey_HW.shape)
    contrast = _contrast_to_ground(_reduced(grey_HW, MAX_INK_SIDE))
    threshold = otsu(contrast)
    is_ink = contrast > threshold
    if not is_ink.any():
        return False
    is_thin = _pen_width(is_ink) <= max(_THIN_PX, _THIN * min(contrast.shape))
    return is_thin and (side < _TOO_SMALL or not _is_uneven(contrast, threshold))


def framed_ink(grey_HW: Pixels, height: int, width: int) -> Pixels:
    """MNIST's own recipe (LeCun et al., 1998, and the set's README) for a drawing or photograph of any kind.

    Find the ink whatever its polarity and ground, cut its box, scale its longer side to 20/28, put its centre of
    mass on the middle. Lines too fine to survive the reduction are widened to a pen that MNIST knows.
    """
    if grey_HW.shape == (height, width) and is_framed_ink(grey_HW):
        return grey_HW
    framed = np.zeros((height, width), np.uint8)
    contrast = _contrast_to_ground(_reduced(grey_HW, MAX_INK_SIDE))
    threshold = otsu(contrast)
    if _is_uneven(contrast, threshold):
        contrast = contrast_to_paper(_reduced(grey_HW, PAPER_SIDE))
        threshold = max(otsu(contrast), 1)
    is_ink = contrast > threshold
    if not is_ink.any():
        return framed  # an empty sheet
    full, none = float(np.median(contrast[is_ink])), threshold / 2
    strength = np.clip((contrast - none) / max(full - none, 1.0), 0, 1)
    side = round(INK_SIDE * min(height, width))
    strength = _scaled(_cut(strength, is_ink), side * _WORK)
    strength = strength / strength.max()  # a hair-line is faint after the reduction
    strength = _with_pen(strength, INK_PEN * min(height, width) * _WORK)
    strength = _scaled(strength, side)
    strength = strength / strength.max()
    rows, columns = strength.shape
    middle = _centre_of_mass(strength)
    top = int(np.clip(round(height // 2 - middle[0]), 0, height - rows))
    left = int(np.clip(round(width // 2 - middle[1]), 0, width - columns))
    framed[top : top + rows, left : left + columns] = np.rint(255 * strength)
    return framed


def _is_uneven(contrast: Pixels, threshold: int) -> bool:
    """Whether a plane does not explain the ground: much of the picture's edge stands out as ink does, or nearly (a
    shadow), or many places of it do (ruled lines). A stroke that runs out of the picture is neither."""
    stands_out = contrast > max(_EVEN, threshold // 3)
    around = np.concatenate([stands_out[0], stands_out[1:, -1], stands_out[-1, -2::-1], stands_out[-2:0:-1, 0]])
    num_places = int(np.count_nonzero(around & ~np.roll(around, 1)))
    return float(around.mean()) > _UNEVEN_SHARE or num_places >= _LINES


def _reduced(grey_HW: Pixels, most: int) -> Pixels:
    """A large photograph averaged down: its ink is still many times finer than the answer, its memory bounded."""
    factor = -(-max(grey_HW.shape) // most)
    return grey_HW if factor == 1 else np.asarray(Image.fromarray(grey_HW).reduce(factor))


def _contrast_to_ground(grey_HW: Pixels) -> NDArray[np.uint8]:
    """How far each pixel differs from the ground towards the ink, 0..255.

    The ground is a plane through the picture's edge (shade falls off evenly), fitted to what does not stand out
    from its median. The ink is on the side that differs more in all.
    """
    height, width = grey_HW.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    edge = np.zeros((height, width), bool)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    values, places = grey_HW[edge].astype(np.float64), np.stack([np.ones(edge.sum()), y[edge], x[edge]], axis=1)
    deviation = np.abs(values - np.median(values))
    keep = deviation <= max(16.0, 3 * float(np.median(deviation)))
    plane, *_ = np.linalg.lstsq(places[keep], values[keep], rcond=None)
    difference = grey_HW - (plane[0] + plane[1] * y + plane[2] * x)
    if difference.sum() < 0:
        difference = -difference
    contrast: NDArray[np.uint8] = np.clip(np.rint(difference), 0, 255).astype(np.uint8)
    return contrast


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _cut(strength: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    top, bottom, left, right = _box(mask)
    return strength[top:bottom, left:right]


def _scaled(strength: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Resized so that its longer side is `side`; reduction averages, enlargement interpolates."""
    longer = max(strength.shape)
    rows, columns = (max(1, round(n * side / longer)) for n in strength.shape)
    way = Image.Resampling.BOX if longer >= side else Image.Resampling.BILINEAR
    image = Image.fromarray(strength.astype(np.float32)).resize((columns, rows), way)
    scaled: NDArray[np.float64] = np.clip(np.asarray(image), 0, 1).astype(np.float64)
    return scaled


def _pen_width(mask: NDArray[np.bool_]) -> float:
    """Mean stroke width in pixels: twice the area over the number of pixels on the outline."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return 2 * float(mask.sum()) / max(1, int((mask & ~inside).sum()))


def _with_pen(strength: NDArray[np.float64], pen_px: float) -> NDArray[np.float64]:
    """Strokes thinner than `pen_px` widened to it, by a grey dilation with a disc."""
    radius = (pen_px - _pen_width(strength > 0.5)) / 2
    if radius <= 0:
        return strength
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    within = np.clip(radius + 1 - np.hypot(y, x), 0, 1)  # a soft rim, so that fractions of a pixel count
    ground = np.pad(strength, 2 * reach)
    wide = np.zeros((strength.shape[0] + 2 * reach, strength.shape[1] + 2 * reach))
    rows, columns = wide.shape
    for dy, dx in zip(*np.nonzero(within > 0), strict=True):
        np.maximum(wide, within[dy, dx] * ground[dy : dy + rows, dx : dx + columns], out=wide)
    return _cut(wide, wide > 0.3)


def _centre_of_mass(strength: NDArray[np.float64]) -> tuple[float, float]:
    total = strength.sum()
    rows, columns = (np.arange(n) for n in strength.shape)
    return float(strength.sum(axis=1) @ rows / total), float(strength.sum(axis=0) @ columns / total)
