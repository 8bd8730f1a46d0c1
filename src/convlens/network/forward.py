"""Logits over many images, the same for validation, evaluation and prediction.

Owns batching at inference: evaluation mode, no gradients, always float32 (so that a number does not depend on
the precision it was trained in). Processes that share a training share the batches too: the same ones, so that every
number is the same.
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

from convlens.architecture.parser import parse
from convlens.architecture.plan import Node, plan
from convlens.data.image.decode import Pixels
from convlens.data.image.framing import InputSpec
from convlens.data.packed.image_rows import ImageRows
from convlens.network.build import Network, build, tensors_of
from convlens.network.processes import Processes, current
from convlens.records import Count, Name, Record, Text, converted

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
    starts, group = range(0, len(images_NHWC), batch_size), current()
    logits = [np.zeros((0, network.plan.num_classes), np.float32)]
    statistics = [list[NDArray[np.float32]]() for _ in addresses]
    network.eval()
    try:
        with torch.inference_mode():
            blocks = (np.array(images_NHWC[start : start + batch_size]) for start in starts)
            if len(starts) > 1 and group.leads:
                found = _shared_blocks(group, network, blocks, len(starts), first, views, addresses)
            else:
                found = (_outputs_of_block(network, block, first, views, addresses) for block in blocks)
            for logits_NK, of_layers in found:
                logits.append(logits_NK)
                for one, kept in zip(of_layers, statistics, strict=True):
                    kept.append(one)
        return np.concatenate(logits), [np.concatenate(parts) for parts in statistics if parts]
    finally:
        network.train(was_training)


Outputs = tuple[NDArray[np.float32], list[NDArray[np.float32]]]


def _outputs_of_block(
    network: Network, images_NHWC: NDArray[Any], first: int, views: str, addresses: Sequence[str]
) -> Outputs:
    """The logits, float32 (B, K), and the statistics of one batch (B, …)."""
    block = tensor_of(images_NHWC).to(network.mean.device)
    with channel_statistics(network.layers, addresses) as found:
        logits_NK = network(as_maps(block) if first else block, first).float()
    if views == "mirror":
        assert first == 0, "outputs of layers cannot be mirrored"
        logits_NK = (logits_NK + network(block.flip(2)).float()) / 2
    return logits_NK.cpu().numpy(), [one.cpu().numpy() for one in found]


class _Shared(Record, frozen=True, kw_only=True):
    """What a follower must know to pass batches through a network: the network, and how."""

    architecture: Text
    input_spec: InputSpec
    num_classes: Count
    memory_format: Name
    num_blocks: Count
    first: Count
    views: Name
    addresses: tuple[Name, ...]


def _shared_blocks(
    group: Processes,
    network: Network,
    blocks: Iterator[NDArray[Any]],
    num_blocks: int,
    first: int,
    views: str,
    addresses: Sequence[str],
) -> Iterator[Outputs]:
    """The outputs of each batch, in order: in each round every process has one."""
    shape = network.plan.input_shape
    facts = _Shared(
        architecture=str(network.plan.architecture),
        input_spec=InputSpec(shape[1], shape[2], shape[0], mean=_values(network.mean), std=_values(network.std)),
        num_classes=network.plan.num_classes,
        memory_format="channels_last" if network.memory_format is torch.channels_last else "contiguous",
        num_blocks=num_blocks,
        first=first,
        views=views,
        addresses=tuple(addresses),
    )
    group.order("outputs", **facts.to_json())
    group.share(tensors_of(network).values())
    for start in range(0, num_blocks, group.size):
        round_ = [next(blocks) for _ in range(min(group.size, num_blocks - start))]
        for rank, block in enumerate(round_[1:], 1):
            group.send_array(block, rank)
        yield _outputs_of_block(network, round_[0], first, views, addresses)
        for rank in range(1, len(round_)):
            logits_NK, *of_layers = (group.receive_array(rank) for _ in range(1 + len(addresses)))
            yield logits_NK, of_layers


def serve_outputs(group: Processes, order: Any, device: str) -> None:
    """Do a follower's part of `outputs_of`, on its own device. Callers work inside `compute.settled`."""
    facts = converted(order, _Shared, "what rank 0 ordered")
    spec = facts.input_spec
    network_plan = plan(parse(facts.architecture), spec.shape, facts.num_classes)
    network = build(network_plan, spec, device=device, memory_format=facts.memory_format)
    group.share(tensors_of(network).values())
    network.eval()
    with torch.inference_mode():
        for _ in range(group.rank, facts.num_blocks, group.size):
            block = group.receive_array(0)
            logits_NK, of_layers = _outputs_of_block(network, block, facts.first, facts.views, facts.addresses)
            for array in (logits_NK, *of_layers):
                group.send_array(array, 0)


def _values(buffer: Tensor) -> tuple[float, ...]:
    return tuple(buffer.flatten().tolist())


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
