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
from convlens.network.build import Network, build, tensors_of
from convlens.network.compute import reuse_freed_memory, settled
from convlens.network.forward import logits_of
from convlens.network.memory import on_device, ran_out_of_memory
from convlens.network.processes import ALONE, Processes, current
from convlens.progress import Progress
from convlens.training.batches import Batches, Images
from convlens.training.head import begin_head, measured_outputs, trained_on
from convlens.training.loop import Losses, train_steps
from convlens.training.plan import TrainingPlan
from convlens.training.shared import followed
from convlens.training.state import TrainingState
from convlens.training.warm_start import inherit

_LEAST_CHECKED, _MOST_CHECKED, _CHECKED_BYTES = 16, 512, 16 << 20  # of the images, in each epoch
_NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "alloc_failed")  # torch's words for it


@dataclass(frozen=True)
class Fit:
    """A training that is ready to be driven: `steps()` from where its state stands to `num_steps`. `images` is what is
    trained on, `mapped` the same in files: where layers are frozen, their outputs in the cache."""

    plan: TrainingPlan
    state: TrainingState
    mapped: tuple[ImageRows, ...]
    images: Images
    labels: Tensor
    batches: Batches
    num_steps: int
    bar: Progress
    group: Processes = ALONE

    def steps(self) -> Iterator[Losses]:
        """Train, yielding as `train_steps` does. Raises DivergedError; DataError where some of the images, of which a
        sample is looked at in each epoch, are not those that were packed."""
        plan, checked_epoch = self.plan, -1
        self.group.order("state", step=self.state.step)
        self.group.share(self.state.tensors())
        steps = train_steps(
            self.state, self.images, self.labels, self.batches, plan.recipe, self.num_steps, plan.compute
        )
        while True:
            if (epoch := self.batches.epochs_done(self.state.step)) > checked_epoch:
                checked_epoch = epoch
                rows = self.mapped[epoch % len(self.mapped)]
                rows.check(self._sample(rows, epoch))
            if (losses := next(steps, None)) is None:
                return
            yield losses

    def _sample(self, rows: ImageRows, epoch: int) -> NDArray[np.int64]:
        """Positions of some of the training images, others in each epoch."""
        num_bytes = max(1, rows.nbytes // max(1, len(rows)))
        num = min(len(rows), max(_LEAST_CHECKED, min(_MOST_CHECKED, _CHECKED_BYTES // num_bytes)))
        return np.random.default_rng([self.plan.seed, epoch]).integers(0, len(rows), num)

    def measured(self, rows: NDArray[np.int64]) -> ImageRows:
        """What `logits` takes for some rows of the data set: their images, or where layers are frozen the outputs of
        those, in float32, in which every score is computed. Raises DataError for images that are not those packed."""
        if first := self.state.network.num_frozen:
            return measured_outputs(self.state.network, self.plan, rows, first, self.bar)
        images = self.plan.dataset.images_at(rows)
        images.check()
        return images

    def logits(self, measured: ImageRows) -> NDArray[np.float32]:
        """float32 (N, K) of the weights as they stand, averaged where the recipe averages, over its views, for what
        `measured` gave."""
        with self.state.averaged() as network:
            return logits_of(network, measured, network.num_frozen, self.plan.recipe.views)


def network_of(plan: TrainingPlan) -> Network:
    """The network of a plan as it is made, with its parent's weights if it has one. Callers work inside `settled`."""
    device, memory_format = plan.compute.device, plan.compute.memory_format
    network = build(plan.network, plan.spec, seed=plan.seed, device=device, memory_format=memory_format)
    if plan.parent is not None:
        inherit(network, plan.parent, plan.dataset.class_names)
    return network


@contextmanager
def fit(plan: TrainingPlan, rows: NDArray[np.int64] | None = None, bar: Progress | None = None) -> Iterator[Fit]:
    """Within it, a training of the plan on its training images, or on those of `rows` alone, before its first step.

    torch is settled as the plan's compute says. Where the recipe freezes layers, their outputs are computed, or read
    from the cache; where it has the head fitted, it is. Where several processes share the training, the leader has the
    others fit the same, and is followed from there on. Raises TrainingError where memory runs out, in here or in the
    caller's block, or where the frozen layers give what is not finite; StorageError where their outputs have no room.
    """
    rows, bar = plan.dataset.rows("train") if rows is None else rows, bar or Progress()
    compute, recipe, first = plan.compute, plan.recipe, plan.first
    group = current() if compute.processes > 1 else ALONE
    reuse_freed_memory()
    with settled(compute), _memory_in_one_line(plan), followed(group, plan, rows):
        started = time.perf_counter()
        network = network_of(plan)
        if recipe.head != "kept" and not group.follows:
            begin_head(network, plan, rows, bar)
        group.share(tensors_of(network).values())  # before anything is computed with them
        network.num_frozen = first
        for module in list(network.layers.children())[:first]:
            module.requires_grad_(False)
        state = TrainingState.new(network, recipe.replace(precision=compute.precision))
        state.train_s = time.perf_counter() - started
        labels_N = plan.dataset.labels_at(rows)
        mapped = trained_on(network, plan, rows, first, bar)
        copied = tuple(on_device(one, plan.network, recipe, compute) for one in mapped)
        images = copied if first else copied[0]
        labels = torch.from_numpy(labels_N).to(compute.device)
        batches = Batches.of(recipe, labels_N, plan.seed)
        if group.leads:
            group.ask("ready")  # one that has to compute outputs of frozen layers takes its time
        yield Fit(plan, state, mapped, images, labels, batches, recipe.num_steps(len(rows)), bar, group)


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
