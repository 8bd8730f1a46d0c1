"""Logits over many images, the same for validation, evaluation and prediction.

Owns batching at inference: evaluation mode, no gradients, always float32 (so that a number does not depend on
the precision it was trained in).
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from convlens.data.image.decode import Pixels
from convlens.data.packed.image_rows import ImageRows
from convlens.network.build import Network

BATCH_SIZE = 500
_MAX_VALUES = 1 << 27  # of one layer's output for one batch: half a gigabyte


def logits_of(network: Network, images_NHWC: Pixels | ImageRows) -> NDArray[np.float32]:
    """float32 (N, K) from uint8 (N, H, W, C), read a batch at a time. Leaves the network in the mode it was in."""
    was_training = network.training
    largest = max(math.prod(leaf.output_shape) for leaf in network.plan.leaves)
    batch_size = max(1, min(BATCH_SIZE, _MAX_VALUES // largest))
    network.eval()
    try:
        parts = []
        with torch.inference_mode():
            for start in range(0, len(images_NHWC), batch_size):
                block = torch.from_numpy(np.array(images_NHWC[start : start + batch_size]))
                parts.append(network(block.to(network.mean.device)).float().cpu().numpy())
        num_classes = network.plan.num_classes
        return np.concatenate(parts) if parts else np.zeros((0, num_classes), np.float32)
    finally:
        network.train(was_training)
