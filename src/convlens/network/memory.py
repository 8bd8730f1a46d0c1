"""How much memory a training needs, and how much there is.

Owns the estimate that is looked at before the first step, the words for having too little, and whether the training
images are copied to the device. An estimate, not a promise: torch's own workspaces are not in it.
"""

import math
import sys
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from convlens.architecture.layers import BatchNorm, Dropout, GroupNorm, MaxPool
from convlens.architecture.plan import Plan
from convlens.data.packed.image_rows import ImageRows
from convlens.errors import TrainingError
from convlens.network.compute import Compute
from convlens.network.forward import tensor_of
from convlens.recipe import Recipe

_KEPT_FREE = 0.15  # share of the free memory that is left to others, and to what the estimate misses


def fixed_bytes(plan: Plan, recipe: Recipe) -> int:
    """Bytes that do not depend on the batch: weights, their gradients, the optimizer's moments, the average."""
    copies = 2 + (2 if recipe.optimizer != "sgd" else 1 if recipe.momentum else 0) + (1 if recipe.ema else 0)
    return 4 * copies * plan.num_parameters


def bytes_per_image(plan: Plan, precision: str) -> int:
    """Bytes that each image of a batch needs: what the backward pass keeps of each layer's output, and its gradients.

    The input stands there as uint8, as float32 and as it is computed with. A layer's output is kept for the layers
    after it (not between batch norm and the ReLU that mostly follows it, which keeps its own); max pooling keeps int64
    places, dropout a mask. Two of the largest outputs are alive as gradients at a time.
    """
    value = 2 if precision == "bfloat16" else 4
    total = math.prod(plan.input_shape) * (1 + 4 + value)
    largest = 0
    for leaf in plan.leaves:
        size = math.prod(leaf.output_shape)
        largest = max(largest, size)
        if not isinstance(leaf.layer, BatchNorm | GroupNorm):
            total += value * size
        if isinstance(leaf.layer, MaxPool):
            total += 8 * size
        if isinstance(leaf.layer, Dropout):
            total += value * size
    return total + 2 * value * largest


def free_bytes(device: str) -> int | None:
    """Memory that can still be had on a device, in bytes; None where nobody says."""
    if device.startswith("cuda"):
        with suppress(RuntimeError):
            # What torch holds without using it, it will use.
            unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            return int(torch.cuda.mem_get_info(device)[0]) + unused
        return None
    if not sys.platform.startswith("linux"):
        return None
    found = []
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(1024 * int(line.split()[1]))
    with suppress(OSError, ValueError):  # a container's own limit (control groups, version 2); cached files give way
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
        kinds = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        cached = sum(int(kinds.get(kind, 0)) for kind in ("active_file", "inactive_file"))
        found.append(max(0, limit - used + cached))
    # The process's own limit (ulimit -v), less what it has.
    with suppress(OSError, ValueError, IndexError, StopIteration):
        limits = Path("/proc/self/limits").read_text(encoding="ascii").splitlines()
        limit = int(next(line for line in limits if line.startswith("Max address space")).split()[3])
        status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        used = 1024 * int(next(line for line in status if line.startswith("VmSize:")).split()[1])
        found.append(max(0, limit - used))
    return min(found, default=None)


def on_device(images_NHWC: ImageRows, plan: Plan, recipe: Recipe, compute: Compute) -> Tensor | ImageRows:
    """Images (or outputs of frozen layers) as a tensor on an NVIDIA card, if half of what the training leaves free
    holds them.

    Otherwise, and on the CPU, they stay mapped: the pages that the operating system keeps are the copy in memory.
    """
    device = compute.device
    free = free_bytes(device) if device.startswith("cuda") else None
    if free is None or images_NHWC.nbytes > (free - needed_bytes(plan, recipe, compute)) // 2:
        return images_NHWC
    copied = torch.empty(images_NHWC.shape, dtype=tensor_of(images_NHWC[:1]).dtype, device=device)
    for start in range(0, len(images_NHWC), 4096):
        copied[start : start + 4096] = tensor_of(images_NHWC[start : start + 4096])
    return copied


def largest_batch(plan: Plan, recipe: Recipe, compute: Compute) -> int | None:
    """About how many images a batch may have in the memory that is free now; None where nobody knows how much is."""
    free = free_bytes(compute.device)
    if free is None:
        return None
    room = free * (1 - _KEPT_FREE) - fixed_bytes(plan, recipe)
    return max(0, int(room / bytes_per_image(plan, compute.precision)))


def check_memory(plan: Plan, recipe: Recipe, compute: Compute) -> None:
    """Raises TrainingError where a training cannot fit into the memory that is free."""
    most = largest_batch(plan, recipe, compute)
    if most is not None and recipe.batch_size > most:
        line, free = _too_little(plan, recipe, compute), free_bytes(compute.device)
        line += f", {_gigabytes(free or 0)} are free"
        if most == 0:
            raise TrainingError(line + "; the network itself is too large")
        raise TrainingError(line + f"; about {_rounded(most):,} would fit: use `batch_size={_rounded(most)}`")


def ran_out_of_memory(plan: Plan, recipe: Recipe, compute: Compute) -> TrainingError:
    """The error for a training that ran out in spite of the estimate. What is free now says nothing: the step that
    failed still holds its part. Half of the batch is the next thing to try."""
    line = _too_little(plan, recipe, compute) + " by estimate, and more in fact"
    if recipe.batch_size == 1:
        return TrainingError(line + "; the network itself is too large")
    half = recipe.batch_size // 2
    return TrainingError(line + f"; about {half:,} may fit: use `batch_size={half}`")


def needed_bytes(plan: Plan, recipe: Recipe, compute: Compute) -> int:
    """What a training needs, the images themselves aside."""
    return fixed_bytes(plan, recipe) + recipe.batch_size * bytes_per_image(plan, compute.precision)


def _too_little(plan: Plan, recipe: Recipe, compute: Compute) -> str:
    needed = needed_bytes(plan, recipe, compute)
    return (
        f"not enough memory on {compute.device} for batches of {recipe.batch_size:,} images: they need about "
        f"{_gigabytes(needed)}"
    )


def _rounded(number: int) -> int:
    """Down to two digits: more would promise too much."""
    digits = max(0, len(str(number)) - 2)
    return int(number // 10**digits * 10**digits)


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:,.0f} MB"
