"""One step of a training: augment, forward, loss, backward, move the weights, average them.

Owns what a step does, and how steps are carried out: operation by operation; or, where the training images lie on an
NVIDIA card, recorded once for each size of images and replayed from there on, so that no step waits for Python, and
Python for none. Either way a step is the same kernels in the same order, and gives the same bits. When the losses are
looked at is `loop.py`'s business.
"""

import gc
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from convlens.network.build import tensors_of
from convlens.network.compute import Compute
from convlens.network.forward import as_maps
from convlens.network.processes import ALONE, current
from convlens.recipe import Recipe
from convlens.training.batches import Batches, Images, augmented, drawn_of, gather
from convlens.training.optimizer import Scalar
from convlens.training.parts import ShardSum, cut_of
from convlens.training.state import TrainingState


class Rates(NamedTuple):
    """What differs from step to step: the learning rate, the step's number (from 1), and how far the average moves
    towards the weights (0 to 1)."""

    lr: Scalar
    number: Scalar
    moved: Scalar


class Stepper:
    """Carries out steps of a training, operation by operation.

    `images_NHWC` uint8 and `labels_N` int64 are the training split, as `loop.train_steps` has them.
    """

    def __init__(
        self,
        state: TrainingState,
        images_NHWC: Images,
        labels_N: Tensor,
        batches: Batches,
        recipe: Recipe,
        num_steps: int,
        compute: Compute,
    ) -> None:
        network = state.network
        self.state, self.images, self.labels, self.batches = state, images_NHWC, labels_N, batches
        self.recipe, self.num_steps, self.compute = recipe, num_steps, compute
        self.class_weights = class_weights_of(labels_N, network.plan.num_classes, recipe.balance)
        self.has_dropout = any(isinstance(m, nn.Dropout) and m.p > 0 for m in network.modules())
        weights, averages = tensors_of(network), state.ema or {}
        self.averages = [(average, weights[name]) for name, average in averages.items()]
        network.train()
        self.group = current() if compute.processes > 1 else ALONE
        self.cut = cut_of(recipe, self.group)
        self.shards = ShardSum(network, recipe.shards) if recipe.shards > 1 else None
        self.module: nn.Module = network
        if self.group.size > 1 and self.shards is None:
            # Unused parameters there are none; looked for, the gradients are added up in the same order in every step,
            # also in the first one after a training was resumed.
            with warnings.catch_warnings():  # of another name that later versions of torch have for it
                warnings.simplefilter("ignore", FutureWarning)
                self.module = nn.parallel.DistributedDataParallel(
                    network, broadcast_buffers=False, find_unused_parameters=True
                )

    def run(self, first: int, num: int) -> Tensor:
        """Take `num` steps from step `first` on; float (num,), their losses, on the device. All of them see images of
        one size."""
        sides, losses = self.sides_at(first), []
        for step in range(first, first + num):
            if self.shards is not None:
                self.shards.begin()
            for part in self.cut.own:
                loss = self._backward_of(step, part, sides)
                if self.shards is not None:
                    self.shards.add(loss)
            loss = loss if self.shards is None else self.shards.finish(self.group)
            rates: Sequence[Scalar] = self._rates(step)
            if self.compute.device.startswith("cuda"):  # rounded as where they are recorded
                rates = torch.tensor(rates, dtype=torch.float32, device=loss.device).unbind()
            self._move(Rates(*rates))
            losses.append(loss)
        found = torch.stack(losses)
        if self.module is not self.state.network:
            self.group.sum(found)
        return found

    def _backward_of(self, step: int, part: int, sides: tuple[int, int] | None) -> Tensor:
        """The gradients of a part of a step's batch; what it adds to the batch's mean loss."""
        self._seed(step, part)
        batch = self.batches.at(step, part, self.cut.num)
        images = gather(self.images, batch, self.compute.device)
        labels = self.labels[torch.from_numpy(batch.positions).to(self.labels.device)]
        if self.cut.num == 1:
            return self._backward(images, labels, sides)
        share: float | Tensor = len(labels) / self.batches.batch_size
        if self.class_weights is not None:
            whole = self.labels[torch.from_numpy(self.batches.at(step).positions).to(self.labels.device)]
            share = self.class_weights[labels].sum() / self.class_weights[whole].sum()
        return self._backward(images, labels, sides, share)

    def sides_at(self, step: int) -> tuple[int, int] | None:
        """(height, width) of the images that a step sees; None where they do not grow."""
        if self.recipe.grow_from == 1 or isinstance(self.images, tuple):
            return None
        height, width = self.images.shape[1:3]
        return self.recipe.sides_at(step, self.num_steps, height, width)

    def _learn(self, images: Tensor, labels_B: Tensor, sides: tuple[int, int] | None, rates: Rates) -> Tensor:
        """The step itself, for a batch on the device; its mean loss."""
        loss = self._backward(images, labels_B, sides)
        self._move(rates)
        return loss

    def _backward(
        self, images: Tensor, labels_B: Tensor, sides: tuple[int, int] | None, share: float | Tensor = 1.0
    ) -> Tensor:
        """The gradients of the mean loss of these images, times their share of the batch's; that loss times its share.
        Over several processes torch takes the mean of the gradients, where their sum is wanted."""
        network, compute = self.module, self.compute
        images = images if sides is None else shrunk(images, *sides)
        use_bfloat16, first = compute.precision == "bfloat16", self.state.network.num_frozen
        with torch.autocast(compute.device.partition(":")[0], torch.bfloat16, enabled=use_bfloat16):
            logits = network(as_maps(images) if first else images, first)
        loss = loss_of(logits.float(), labels_B, self.class_weights, self.recipe.label_smoothing)
        if self.cut.num > 1:
            loss = loss * share
        (loss if self.module is self.state.network else loss * self.group.size).backward()
        return loss.detach()

    def _move(self, rates: Rates) -> None:
        """Move the weights along the gradients, and the average towards them."""
        self.state.optimizer.step(rates.lr, rates.number)
        with torch.no_grad():
            for average, weights in self.averages:
                average.lerp_(weights, rates.moved)

    def _rates(self, step: int) -> tuple[float, float, float]:
        """Early on the average forgets faster, so that it does not cling to the start."""
        moved = 1 - min(self.recipe.ema, (1 + step) / (10 + step))
        return self.recipe.lr_at(step, self.num_steps), step + 1.0, moved

    def _seed(self, step: int, part: int = 0) -> None:
        """Dropout's random numbers: others in each part of each batch."""
        if self.has_dropout:
            seed = _fold(self.batches.seed, step)
            torch.manual_seed(_fold(seed, part) if part else seed)


class ReplayedStepper(Stepper):
    """The same on an NVIDIA card that holds the images: the first step at each size of images is carried out operation
    by operation, which readies the libraries; then one is recorded as a CUDA graph, and replayed with the next inputs
    in the place of the last ones."""

    images: Tensor

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.stream = torch.cuda.Stream(self.compute.device)  # the default one cannot be recorded
        self.sides: tuple[int, int] | None = None
        self.is_ready = False  # for images of these sides
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.loss = torch.empty(())

    def run(self, first: int, num: int) -> Tensor:
        callers = torch.cuda.current_stream(self.compute.device)
        self.stream.wait_stream(callers)
        try:
            with torch.cuda.stream(self.stream):
                sides, parts = self.sides_at(first), self._sent(first, num)
                if sides != self.sides:
                    self.sides, self.is_ready, self.graph = sides, False, None
                losses = torch.empty(num, device=self.compute.device)
                for number in range(num):
                    self._seed(first + number)
                    losses[number] = self._one([part[number] for part in parts])
        finally:  # whoever is interrupted may save the weights, or free them, and what is queued still writes to them
            callers.wait_stream(self.stream)
        return losses

    def _sent(self, first: int, num: int) -> list[Tensor]:
        """What the steps differ in, on the device: positions (num, B), rates (num, 3), each draw (num, B, …)."""
        batch = self.batches.at(first, num_steps=num)
        rates = np.array([self._rates(step) for step in range(first, first + num)], np.float32)
        arrays: list[NDArray[Any]] = [batch.positions, rates, *batch.draws.values()]
        pinned = (torch.from_numpy(array.reshape(num, -1, *array.shape[1:])).pin_memory() for array in arrays)
        return [array.to(self.compute.device, non_blocking=True) for array in pinned]

    def _one(self, inputs: list[Tensor]) -> Tensor:
        if not self.is_ready:
            self.is_ready = True
            return self._learn_from(inputs)
        if self.graph is None:
            self.inputs = [torch.empty_like(one) for one in inputs]
            torch.cuda.empty_cache()  # what was freed is no use to a graph, which has memory of its own
            self.graph = self._recorded()
        for place, one in zip(self.inputs, inputs, strict=True):
            place.copy_(one)
        self.graph.replay()
        return self.loss

    def _recorded(self) -> torch.cuda.CUDAGraph:
        """A step from whatever lies in `inputs`, as a graph that leaves its loss in `loss`."""
        graph, collects = torch.cuda.CUDAGraph(), gc.isenabled()
        gc.disable()  # an old graph that is collected now would spoil the recording
        try:
            graph.capture_begin(capture_error_mode="thread_local")
            self.loss = self._learn_from(self.inputs)
        except BaseException:
            with suppress(RuntimeError):
                graph.capture_end()
            raise
        else:
            graph.capture_end()
        finally:
            if collects:
                gc.enable()
        return graph

    def _learn_from(self, inputs: list[Tensor]) -> Tensor:
        """A step from what was sent for it."""
        positions, rates, *draws = inputs
        named = dict(zip((kind.name for kind in self.batches.augmentation.kinds), draws, strict=True))
        images = augmented(self.images[positions], named, self.batches.augmentation)
        return self._learn(images, self.labels[positions], self.sides, Rates(*rates.squeeze(0).unbind()))


def shrunk(images_NHWC: Tensor, height: int, width: int) -> Tensor:
    """uint8 (B, H, W, C) resized to a smaller size, bilinearly and antialiased."""
    if images_NHWC.shape[1:3] == (height, width):
        return images_NHWC
    maps = images_NHWC.permute(0, 3, 1, 2)
    maps = maps if maps.device.type == "cpu" else maps.float()  # only there bytes are taken
    smaller = F.interpolate(maps, (height, width), mode="bilinear", antialias=True, align_corners=False)
    smaller = smaller if smaller.dtype == torch.uint8 else smaller.round_().clamp_(0, 255).to(torch.uint8)
    return smaller.permute(0, 2, 3, 1).contiguous()


def loss_of(logits_NK: Tensor, labels_N: Tensor, class_weights_K: Tensor | None, label_smoothing: float) -> Tensor:
    """Mean cross-entropy of a batch, smoothed; with class weights the mean is weighted, an image counting as its class.

    torch's own `weight` also multiplies the smoothed part of *other* images by a rare class's weight, and from about
    19:1 between two classes on the optimum of that loss answers every image with the rare class.
    """
    if class_weights_K is None:
        return F.cross_entropy(logits_NK, labels_N, label_smoothing=label_smoothing)
    weights_N = class_weights_K[labels_N]
    losses_N = F.cross_entropy(logits_NK, labels_N, reduction="none", label_smoothing=label_smoothing)
    return (weights_N * losses_N).sum() / weights_N.sum()


def class_weights_of(labels_N: Tensor, num_classes: int, balance: str) -> Tensor | None:
    """float32 (K,), with which each class has the same weight in an epoch: N / (K · m_k), where m_k is how often class
    k is drawn; 0 for a class without images. None where `balance` is none."""
    if balance == "none":
        return None
    counts_K = torch.bincount(labels_N, minlength=num_classes)
    if balance == "sampling":
        counts_K = torch.from_numpy(drawn_of(counts_K.cpu().numpy())).to(labels_N.device)
    return torch.where(counts_K > 0, len(labels_N) / (num_classes * counts_K.clamp(min=1)), 0.0).float()


def _fold(seed: int, step: int) -> int:
    """One 63-bit number for (seed, step): neighbouring pairs must not give related random streams."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & (2**64 - 1)
    mixed = ((mixed ^ (mixed >> 31)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    return (mixed ^ (mixed >> 29)) >> 1
