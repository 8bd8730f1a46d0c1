"""How long to train, and how large a network is worth that: from the number of images and the seconds that there are.

Owns the rules. Every answer is known before the first step; what the clock says comes in as a rate alone (`speed.py`).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from convlens.recipe import Recipe

USUAL_S = 180.0  # what all may take when nobody says a time
_TRAINING_SHARE = 0.77  # of it, that the training itself may take where its start is quick
_BESIDE_S = 24.0  # what else there is to do: starting, looking at the pictures, validating, saving
_FILE_S, _BYTE_S = 2.4e-4, 3e-8  # that packing takes for a file, and for a byte of it
LEAST_SHARE = 0.3  # of the time, that is trained however long packing takes
_RATES_UP_TO = 256  # images a step, that the rates of the presets suit
_OFTEN = 4  # times the epochs that the data needs
_GROWING = 24  # pixels, from which on images begin smaller
_VALIDATING = 1.05  # a twentieth of a training may go into validating


class Size(NamedTuple):
    """A network of the family: its width and depth (`presets.natural_network`)."""

    width: int
    depth: int


# From how many times the epochs that the data needs on each is better than those before in the same time: fitted by
# bench/frontier.py to four sets (docs/speed.md), the two deep ones to two comparisons (docs/decisions.md).
SIZES = {
    Size(16, 1): 0.0,
    Size(24, 1): 0.4,
    Size(32, 1): 0.5,
    Size(48, 1): 1.1,
    Size(64, 1): 1.5,
    Size(96, 1): 2.0,
    Size(96, 2): 6.0,
    Size(128, 2): 7.5,
}
USUAL_SIZE = Size(32, 1)
_WIDTH, _VALUES = 16, 50_000  # the width for so many values of pixels; it may grow with their cube root


def batch_size_for(num_images: int) -> int:
    """32 images a step for a few hundred, up to 512 for tens of thousands: small sets need the steps."""
    for batch_size, most in ((32, 1_000), (64, 3_000), (128, 30_000)):
        if num_images <= most:
            return batch_size
    return 512


def rates_for(recipe: Recipe) -> dict[str, float]:
    """Its learning rates, which suit batches of up to 256 images, in proportion to larger ones (Goyal et al., 2017)."""
    factor = max(1.0, recipe.batch_size / _RATES_UP_TO)
    return {"lr": factor * recipe.lr, "muon_lr": factor * recipe.muon_lr}


def growth_for(height: int, width: int) -> float:
    """The share of their sides that images begin with: half, where there is something left to see."""
    return 0.5 if min(height, width) >= _GROWING else 1.0


def least_epochs(num_images: int) -> float:
    """What the data needs, whatever the clock says: a few hundred images are seen sixty times, five thousand sixteen
    times, fifty thousand five times, a million once.

    The number of images seen grows with the square root of those there are.
    """
    return round(min(60.0, max(1.0, 16 * math.sqrt(5_000 / num_images))), 1)


def most_epochs(num_images: int, *, is_asked: bool) -> float:
    """After which more teach nothing that is worth waiting for: four times as many; eight where a time is asked for."""
    return (8 if is_asked else 4) * least_epochs(num_images)


def is_seen_often(num_images: int, epochs: float) -> bool:
    """Whether images come up so often that covering a part of each (cutout) teaches more than it hides."""
    return epochs >= _OFTEN * least_epochs(num_images)


def packing_s(num_files: int, typical_bytes: float) -> float:
    """About what packing takes, by the number of files and their size: not by a clock, so that what lies in the cache
    already changes no plan."""
    return num_files * (_FILE_S + _BYTE_S * typical_bytes)


def usual_training_s(beside_s: float) -> float:
    """Seconds for a training when nobody says a time; packing and trials take `beside_s`."""
    return max(LEAST_SHARE * USUAL_S, min(_TRAINING_SHARE * USUAL_S, USUAL_S - _BESIDE_S - beside_s))


def epochs_within(seconds: float, num_images: int, images_per_s: float) -> float:
    """As many epochs as fit into the seconds, validation included: whole ones where there are ten or more."""
    epochs = seconds * images_per_s / (_VALIDATING * num_images)
    return float(math.floor(epochs)) if epochs >= 10 else math.floor(100 * epochs) / 100


def widest_for(num_values: int) -> float:
    """The width that so many values of pixels can fill."""
    return float(_WIDTH * (num_values / _VALUES) ** (1 / 3))


def size_for(
    num_images: int, num_values: int, seconds: float, rate_at: Callable[[Size], float], *, is_asked: bool = False
) -> Size:
    """The largest network that sees the images often enough to be worth its size, and whose width the data can fill:
    `num_values` is that of all training images. `rate_at` gives images a second; `is_asked` says whether the time was
    asked for."""
    widest = widest_for(num_values)
    for size in reversed(SIZES):
        if size.width > widest:
            continue
        if is_worth(size, num_images, seconds, rate_at(size), is_asked=is_asked):
            return size
    return next(iter(SIZES))


def is_worth(size: Size, num_images: int, seconds: float, images_per_s: float, *, is_asked: bool) -> bool:
    """Whether a network of this size sees the images often enough in the seconds."""
    epochs = min(epochs_within(seconds, num_images, images_per_s), most_epochs(num_images, is_asked=is_asked))
    return epochs >= SIZES[size] * least_epochs(num_images)
