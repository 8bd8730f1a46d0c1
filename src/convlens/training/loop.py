"""The training loop: learning rate, batch, forward, loss, backward, step.

Owns the order in which the state changes. Knows nothing of files, validation or
progress: it is a generator, and whoever drives it does those between its steps.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convlens.errors import DivergedError
from convlens.network.build import tensors_of
from convlens.network.compute import Compute
from convlens.network.forward import as_maps
from convlens.recipe import Recipe
from convlens.training.batches import Batches, Images, drawn_of, gather
from convlens.training.state import TrainingState

# A look at the loss makes a GPU wait for it; there the losses are looked at this many steps at a time.
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
    network, optimizer = state.network, state.optimizer
    use_bfloat16 = compute.precision == "bfloat16"
    device_type = compute.device.partition(":")[0]
    class_weights = class_weights_of(labels_N, network.plan.num_classes, recipe.balance)
    has_dropout = any(isinstance(m, nn.Dropout) and m.p > 0 for m in network.modules())
    look_every = 1 if device_type == "cpu" else _STEPS_BETWEEN_LOOKS
    pending: list[Tensor] = []
    network.train()
    for step in range(state.step, num_steps):
        started = time.perf_counter()
        if has_dropout:
            torch.manual_seed(_fold(batches.seed, step))
        batch = batches.at(step)
        images = gather(images_NHWC, batch, compute.device)
        if recipe.grow_from < 1:
            images = shrunk(images, *recipe.sides_at(step, num_steps, *images.shape[1:3]))
        labels = labels_N[torch.from_numpy(batch.positions).to(labels_N.device)]
        with torch.autocast(device_type, torch.bfloat16, enabled=use_bfloat16):
            logits = network(as_maps(images) if network.num_frozen else images, network.num_frozen)
        loss = loss_of(logits.float(), labels, class_weights, recipe.label_smoothing)
        loss.backward()
        optimizer.step(recipe.lr_at(step, num_steps), step + 1)
        _average(state, recipe.ema, step)
        pending.append(loss.detach())
        state.step = step + 1
        ends_epoch = batches.epochs_done(state.step) > batches.epochs_done(step)
        looking = len(pending) == look_every or ends_epoch or state.step == num_steps
        values = _finite(pending, state.step, recipe) if looking else None
        state.train_s += time.perf_counter() - started
        if values is not None:
            pending.clear()
            yield Losses(values)


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


def _finite(losses: list[Tensor], num_done: int, recipe: Recipe) -> tuple[float, ...]:
    values = tuple(torch.stack(losses).tolist())
    for offset, value in enumerate(values):
        if value - value != 0:  # nan and infinity alone
            step = num_done - len(values) + offset
            raise DivergedError(
                f"the loss is {value} at step {step}: the training has diverged; try a lower learning rate "
                f"(it was {recipe.rates}) or `precision=float32`",
                step=step,
            )
    return values


@torch.no_grad()
def _average(state: TrainingState, decay: float, step: int) -> None:
    """Move the average towards the weights. Early on it forgets faster, so that it does not cling to the start."""
    if state.ema is None:
        return
    now = min(decay, (1 + step) / (10 + step))
    current = tensors_of(state.network)
    torch._foreach_lerp_(list(state.ema.values()), [current[name] for name in state.ema], 1 - now)
