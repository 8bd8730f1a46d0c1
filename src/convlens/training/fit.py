"""`fit`: the one assembly of network, state, batches and loop, used by runs, folds and probes alike.

Owns how a plan becomes a training that can be driven, and the one line for what torch runs out of. Leaves no files.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convlens.data.packed.image_rows import ImageRows
from convlens.network.build import build
from convlens.network.compute import reuse_freed_memory, settled
from convlens.network.forward import logits_of
from convlens.network.memory import on_device, ran_out_of_memory
from convlens.training.batches import Batches
from convlens.training.loop import Losses, train_steps
from convlens.training.plan import TrainingPlan
from convlens.training.state import TrainingState
from convlens.training.warm_start import inherit

_LEAST_CHECKED, _MOST_CHECKED, _CHECKED_BYTES = 16, 512, 16 << 20  # of the images, in each epoch
_NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "alloc_failed")  # torch's words for it


@dataclass(frozen=True)
class Fit:
    """A training that is ready to be driven: `steps()` from where its state stands to `num_steps`. `rows` are its
    images in the packed file, `images` what is trained on: the same, or their copy on the device."""

    plan: TrainingPlan
    state: TrainingState
    rows: ImageRows
    images: Tensor | ImageRows
    labels: Tensor
    batches: Batches
    num_steps: int

    def steps(self) -> Iterator[Losses]:
        """Train, yielding as `train_steps` does. Raises DivergedError; DataError where some of the images, of which a
        sample is looked at in each epoch, are not those that were packed."""
        plan, checked_epoch = self.plan, -1
        steps = train_steps(
            self.state, self.images, self.labels, self.batches, plan.recipe, self.num_steps, plan.compute
        )
        while True:
            if (epoch := self.batches.epochs_done(self.state.step)) > checked_epoch:
                checked_epoch = epoch
                self.rows.check(self._sample(epoch))
            if (losses := next(steps, None)) is None:
                return
            yield losses

    def _sample(self, epoch: int) -> NDArray[np.int64]:
        """Positions of some of the training images, others in each epoch."""
        num_bytes = max(1, self.rows.nbytes // max(1, len(self.rows)))
        num = min(len(self.rows), max(_LEAST_CHECKED, min(_MOST_CHECKED, _CHECKED_BYTES // num_bytes)))
        return np.random.default_rng([self.plan.seed, epoch]).integers(0, len(self.rows), num)

    def logits(self, images_NHWC: ImageRows) -> NDArray[np.float32]:
        """float32 (N, K) of the weights as they stand, averaged where the recipe averages."""
        with self.state.averaged() as network:
            return logits_of(network, images_NHWC)


@contextmanager
def fit(plan: TrainingPlan, rows: NDArray[np.int64] | None = None) -> Iterator[Fit]:
    """Within it, a training of the plan on its training images, or on those of `rows` alone, before its first step.

    torch is settled as the plan's compute says. Raises TrainingError where memory runs out, in here or in the caller's
    block.
    """
    rows = plan.dataset.rows("train") if rows is None else rows
    compute, recipe = plan.compute, plan.recipe
    reuse_freed_memory()
    with settled(compute), _memory_in_one_line(plan):
        started = time.perf_counter()
        network = build(
            plan.network, plan.spec, seed=plan.seed, device=compute.device, memory_format=compute.memory_format
        )
        if plan.parent is not None:
            inherit(network, plan.parent, plan.dataset.class_names)
        state = TrainingState.new(network, recipe)
        state.train_s = time.perf_counter() - started
        labels_N = plan.dataset.labels_at(rows)
        mapped = plan.dataset.images_at(rows)
        images = on_device(mapped, plan.network, recipe, compute)
        labels = torch.from_numpy(labels_N).to(compute.device)
        yield Fit(
            plan, state, mapped, images, labels, Batches.of(recipe, labels_N, plan.seed), recipe.num_steps(len(rows))
        )


@contextmanager
def _memory_in_one_line(plan: TrainingPlan) -> Iterator[None]:
    """Within it, having no memory left is a TrainingError; other errors pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        words = str(error).lower()
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(part in words for part in _NO_MEMORY):
            raise ran_out_of_memory(plan.network, plan.recipe, plan.compute) from error
        raise
