"""Logits over many images, the same for validation, evaluation and prediction.

Owns batching at inference: evaluation mode, no gradients, always float32 (so that a number does not depend on
the precision it was trained in).
"""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convlens.architecture.plan import Node
from convlens.data.image.decode import Pixels
from convlens.data.packed.image_rows import ImageRows
from convlens.network.build import Network

# Hooks and torch's settings belong to the whole process: whoever passes images through a model that other threads may
# hold too (a web server's) does so alone.
ONE_AT_A_TIME = threading.RLock()
BATCH_SIZE = 500
_MAX_VALUES = 1 << 27  # of one layer's output for one batch: half a gigabyte


def tensor_of(array: NDArray[Any]) -> Tensor:
    """An array as a tensor that shares its memory; uint16 is the bits of bfloat16, which NumPy does not have."""
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if tensor.dtype == torch.uint16 else tensor


def as_maps(outputs: Tensor) -> Tensor:
    """Kept outputs of layers, (N, h, w, C) or (N, C), as float32 (N, C, h, w) or (N, C); nothing is moved."""
    return outputs.float().movedim(-1, 1)


def batch_size_of(nodes: Sequence[Node], most: int, most_values: int) -> int:
    """Images a batch for these layers: so many that no output has more than `most_values`, at most `most`."""
    largest = max(math.prod(leaf.output_shape) for node in nodes for leaf in node.leaves())
    return max(1, min(most, most_values // largest))


def logits_of(
    network: Network, images_NHWC: Pixels | ImageRows, first: int = 0, views: str = "none"
) -> NDArray[np.float32]:
    """float32 (N, K) from uint8 (N, H, W, C), read a batch at a time; with `first` above 0 from outputs of the layers
    before, (N, h, w, C) or (N, C). `views` as in the recipe: mirror gives the mean of the logits for each image and for
    its mirror image. Leaves the network in the mode it was in."""
    return outputs_of(network, images_NHWC, first, views)[0]


def outputs_of(
    network: Network,
    images_NHWC: Pixels | ImageRows,
    first: int = 0,
    views: str = "none",
    addresses: Sequence[str] = (),
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """What `logits_of` gives, and for each layer of these addresses the statistics of its output for the image (not its
    mirror image), float32 (N, S), as `channel_statistics` has them."""
    was_training = network.training
    batch_size = batch_size_of(network.plan.nodes[first:], BATCH_SIZE, _MAX_VALUES)
    num_classes, device = network.plan.num_classes, network.mean.device
    logits, statistics = [np.zeros((0, num_classes), np.float32)], [list[NDArray[np.float32]]() for _ in addresses]
    network.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(images_NHWC), batch_size):
                block = tensor_of(np.array(images_NHWC[start : start + batch_size])).to(device)
                with channel_statistics(network.layers, addresses) as found:
                    logits_NK = network(as_maps(block) if first else block, first).float()
                for one, kept in zip(found, statistics, strict=True):
                    kept.append(one.cpu().numpy())
                if views == "mirror":
                    assert first == 0, "outputs of layers cannot be mirrored"
                    logits_NK = (logits_NK + network(block.flip(2)).float()) / 2
                logits.append(logits_NK.cpu().numpy())
        return np.concatenate(logits), [np.concatenate(parts) for parts in statistics if parts]
    finally:
        network.train(was_training)


def values_at(network: Network, images_NHWC: Pixels | ImageRows, address: str) -> NDArray[np.float32]:
    """The output of the layer with this address, float32 (N, C, H, W) or (N, F), for uint8 (N, H, W, C), read a batch
    at a time. Callers put the network in evaluation mode."""
    kept: list[Tensor] = []
    batch_size, found = batch_size_of(network.plan.nodes, BATCH_SIZE, _MAX_VALUES), list[NDArray[np.float32]]()
    module = network.layers.get_submodule(address)
    hook = module.register_forward_hook(lambda _module, _inputs, output: kept.append(output.clone()))
    try:
        with torch.inference_mode():
            for start in range(0, max(1, len(images_NHWC)), batch_size):
                network(tensor_of(np.array(images_NHWC[start : start + batch_size])).to(network.mean.device))
                found.append(kept.pop().float().cpu().contiguous().numpy())
    finally:
        hook.remove()
    return np.concatenate(found)


@contextmanager
def channel_statistics(layers: nn.Module, addresses: Sequence[str]) -> Iterator[list[Tensor]]:
    """Filled by the forward pass inside it, of each of these layers in the order of the network: the means of the
    channels of its maps and then their standard deviations, (N, 2C), or its values as they are, (N, C)."""
    found: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        flat = output.flatten(2) if output.ndim > 2 else None
        found.append(output.clone() if flat is None else torch.cat([flat.mean(2), flat.std(2, correction=0)], 1))

    hooks = [layers.get_submodule(address).register_forward_hook(keep) for address in addresses]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
