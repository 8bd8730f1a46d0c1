"""The training loop: so many steps at a time, and a look at their losses.

Owns when the state changes. Knows nothing of files, validation or progress: it is a generator, and whoever drives it
does those between its steps.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from convlens.errors import DivergedError
from convlens.network.compute import Compute
from convlens.recipe import Recipe
from convlens.training.batches import Batches, Images
from convlens.training.state import TrainingState
from convlens.training.step import ReplayedStepper, Stepper

# A look at the loss makes a GPU wait for it, and other processes for the next order: there the losses are looked at
# this many steps at a time.
_STEPS_BETWEEN_LOOKS = 20


@dataclass(frozen=True)
class Losses:
    """Mean training loss of each of some successive steps, the last of them `state.step - 1`."""

    values: tuple[float, ...]


def train_steps(
    state: TrainingState,
    images_NHWC: Images,
    labels_N: Tensor,
    batches: Batches,
    recipe: Recipe,
    num_steps: int,
    compute: Compute,
) -> Iterator[Losses]:
    """Train from `state.step` to `num_steps`, yielding after each step (on a GPU after each few, and after each epoch).

    `images_NHWC` uint8 and `labels_N` int64 are the training split: labels on the device, images there or mapped; where
    the network has frozen layers, views of their outputs (N, h, w, C) are in the images' place.
    Between two yields the state is consistent and may be saved. Raises DivergedError at the first loss that is not
    finite.
    """
    on_card = isinstance(images_NHWC, Tensor) and images_NHWC.device.type == "cuda"
    kind = ReplayedStepper if on_card and recipe.shards == compute.processes == 1 else Stepper
    stepper = kind(state, images_NHWC, labels_N, batches, recipe, num_steps, compute)
    group = stepper.group
    look_every = 1 if compute.device == "cpu" and not group.leads else _STEPS_BETWEEN_LOOKS
    while state.step < num_steps:
        started, first, end = time.perf_counter(), state.step, state.step + 1
        last, sides = min(first + look_every, num_steps), stepper.sides_at(first)
        while end < last and batches.epochs_done(end) == batches.epochs_done(first) and stepper.sides_at(end) == sides:
            end += 1
        group.order("steps", first=first, num=end - first)
        values = tuple(stepper.run(first, end - first).tolist())
        state.step = end
        state.train_s += time.perf_counter() - started
        _check_finite(values, end, recipe)
        yield Losses(values)


def _check_finite(values: tuple[float, ...], num_done: int, recipe: Recipe) -> None:
    for offset, value in enumerate(values):
        if value - value != 0:  # nan and infinity alone
            step = num_done - len(values) + offset
            raise DivergedError(
                f"the loss is {value} at step {step}: the training has diverged; try a lower learning rate "
                f"(it was {recipe.rates}) or `precision=float32`",
                step=step,
            )
