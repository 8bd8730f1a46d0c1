"""One picture's way through a network, value by value.

Owns the hooks. What comes out is a `Recording`, which is NumPy: arithmetic and pictures read it without torch.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convlens.architecture.windows import INPUT, nodes_by_address
from convlens.data.image.decode import Pixels
from convlens.errors import ModelFileError
from convlens.lens.recording import Recording, Values
from convlens.network.build import Network, arrays_of, tensors_of
from convlens.text import shown

Forward = Callable[[Tensor], Tensor]


def record(network: Network, image_HWC: Pixels, tensors: Mapping[str, NDArray[np.float32]] | None = None) -> Recording:
    """Send one framed picture, uint8 (H, W, C), through a network in evaluation mode and keep every layer's values.

    `tensors` are the network's, if the caller has them as arrays already. Callers work inside `device.settled`.
    Leaves the network in the mode it was in. Raises ModelFileError where a value is not finite.
    """
    with evaluating(network), torch.no_grad():
        x_NCHW = network.normalise(torch.from_numpy(np.array(image_HWC)[None]).to(network.mean.device))
        outputs = outputs_of(modules_of(network), network.forward_normalised, x_NCHW, are_kept=True)
    values = {INPUT: x_NCHW, **{address: outputs[address] for address in nodes_by_address(network.plan)}}
    for address, value in values.items():
        if not bool(value.sum().isfinite()) and not bool(value.isfinite().all()):  # the sum alone may run over
            raise ModelFileError(f"layer {shown(address)} gives values that are not finite for this picture")
    if tensors is None:
        tensors = arrays_of(tensors_of(network))
    return Recording(network.plan, _numbers(network.mean), _numbers(network.std), image_HWC, _Arrays(values), tensors)


class _Arrays(Mapping[str, Values]):
    """Tensors (1, …) of one picture as arrays without N, each made when it is first asked for: a deep network has a
    hundred layers, and a page shows few of them."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors, self._arrays = tensors, dict[str, Values]()

    def __getitem__(self, address: str) -> Values:
        if address not in self._arrays:
            self._arrays[address] = array_of(self._tensors[address][0])
        return self._arrays[address]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def modules_of(network: Network) -> dict[str, nn.Module]:
    """The modules whose outputs are the values of the layers and residual sums, by address."""
    return {address: network.layers.get_submodule(address) for address in nodes_by_address(network.plan)}


def outputs_of(
    modules: Mapping[str, nn.Module], forward: Callable[[Tensor], object], x_NCHW: Tensor, *, are_kept: bool = False
) -> dict[str, Tensor]:
    """The output of each module in one forward pass, in the order in which they came; copies, for a module after it may
    work in place, unless it is known that they `are_kept`. A module that runs again has its later outputs as `name#2`,
    `name#3`, one without a tensor none."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                times = sum(1 for other in outputs if other == name or other.startswith(f"{name}#"))
                outputs[f"{name}#{times + 1}" if times else name] = output if are_kept else output.detach().clone()

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        forward(x_NCHW)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within it a module and its parts are in evaluation mode; after it each is in the mode it was in."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def array_of(tensor: Tensor) -> Values:
    """A tensor of any device as a float32 array in row-major order."""
    return np.array(tensor.float().cpu().numpy(), order="C")


def _numbers(tensor: Tensor) -> tuple[float, ...]:
    return tuple(float(v) for v in tensor.flatten().tolist())
