"""Logits over many images, the same for validation, evaluation and prediction.

Owns batching at inference: evaluation mode, no gradients, always float32 (so that a number does not depend on
the precision it was trained in).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convlens.architecture.plan import Node
from convlens.data.image.decode import Pixels
from convlens.data.packed.image_rows import ImageRows
from convlens.network.build import Network

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
    was_training = network.training
    batch_size = batch_size_of(network.plan.nodes[first:], BATCH_SIZE, _MAX_VALUES)
    network.eval()
    try:
        parts = []
        with torch.inference_mode():
            for start in range(0, len(images_NHWC), batch_size):
                block = tensor_of(np.array(images_NHWC[start : start + batch_size])).to(network.mean.device)
                logits = network(as_maps(block) if first else block, first).float()
                if views == "mirror":
                    assert first == 0, "outputs of layers cannot be mirrored"
                    logits = (logits + network(block.flip(2)).float()) / 2
                parts.append(logits.cpu().numpy())
        num_classes = network.plan.num_classes
        return np.concatenate(parts) if parts else np.zeros((0, num_classes), np.float32)
    finally:
        network.train(was_training)
