"""How long to train: batch size and epochs from the number of images and the time that they take.

Owns the rules. The clock is asked before the first step and never after: what it says becomes a number of epochs.
"""

import math

# Epochs are rounded down to one of these, so that a second's more or less of a busy machine changes nothing.
EPOCHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 30, 40, 50, 60)
USUAL_S = 120.0  # what a training may take when nobody says a time
USUAL_WHOLE_S = 175.0  # of a pretrained start: packing, the frozen layers' outputs and fine-tuning together


def batch_size_for(num_images: int) -> int:
    """32 images a step for a few hundred, up to 256 for tens of thousands: small sets need the steps."""
    for batch_size, most in ((32, 1_000), (64, 3_000), (128, 30_000)):
        if num_images <= most:
            return batch_size
    return 256


def epochs_for(num_images: int) -> int:
    """By the data alone: a few hundred images are seen sixty times, five thousand sixteen times, a million four times.

    The number of images seen grows with the square root of those there are.
    """
    wanted = 16 * math.sqrt(5_000 / num_images)
    return _down(min(60.0, max(4.0, wanted)))


def epochs_within(seconds: float, num_images: int, images_per_s: float) -> int:
    """As many epochs as fit into the time, at least one."""
    return _down(seconds * images_per_s / num_images)


def _down(epochs: float) -> int:
    return max((n for n in EPOCHS if n <= epochs), default=EPOCHS[0])
