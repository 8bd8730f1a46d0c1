"""A plan compiled to an nn.Module.

Owns the network's contract: `forward(images_NHWC: uint8, or float in 0..255) -> logits_NK`. Normalisation is
inside it, so that training, prediction, evaluation and export cannot differ. Tensor names in a model file are
layer addresses (`architecture/plan.py`).
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from convlens.architecture.layers import Layer, Residual, Shape
from convlens.architecture.plan import Node, Plan
from convlens.data.image.framing import InputSpec

_PREFIX = "layers."


class ChainModule(nn.Module):
    """Layers one after the other, under the names they have in their addresses."""

    def __init__(self, nodes: tuple[Node, ...]) -> None:
        super().__init__()
        for node in nodes:
            self.add_module(node.name, _module(node))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x


class ResidualModule(ChainModule):
    """body(x) + shortcut(x), or body(x) + x."""

    def __init__(self, body: tuple[Node, ...], shortcut: tuple[Node, ...]) -> None:
        super().__init__(body)
        self.shortcut = ChainModule(shortcut) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for name, layer in self.named_children():
            if name != "shortcut":
                y = layer(y)
        return y + (x if self.shortcut is None else self.shortcut(x))


class ScaleModule(nn.Module):
    """Each value times a fixed factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class DropoutModule(nn.Dropout):
    """nn.Dropout with its random bits from NumPy's PCG64 on the CPU: a ninth of the time that torch's own draw takes,
    which is an eighth of a step of the tutorial's network.

    The bits are a function of torch's random state, as there. The share that is kept is a multiple of 2^-16, and
    what is kept is divided by that very share.
    """

    def forward(self, input: Tensor) -> Tensor:
        kept = round((1 - self.p) * 65536)
        if not self.training or kept in (0, 65536) or input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        seed, size = int(torch.randint(2**62, ())), input.numel()
        bits = np.random.PCG64(seed).random_raw((size + 3) // 4).view(np.uint16)[:size]
        mask = torch.from_numpy(bits < kept).view(input.shape).to(input.dtype)
        return input * mask.mul_(65536 / kept)


class GlobalMaxPoolModule(nn.AdaptiveMaxPool2d):
    """Of its map's size on a GPU, where torch's adaptive form has no deterministic gradient; the same values."""

    def forward(self, input: Tensor) -> Any:
        return F.max_pool2d(input, input.shape[2:]) if input.is_cuda else super().forward(input)


def _module(node: Node) -> nn.Module:
    if isinstance(node.layer, Residual):
        return ResidualModule(node.body, node.shortcut)
    if node.body:
        return ChainModule(node.body)
    return simple_module(node.layer, node.input_shape)


_OURS: dict[str, type[nn.Module]] = {
    "Scale": ScaleModule,
    "Dropout": DropoutModule,
    "AdaptiveMaxPool2d": GlobalMaxPoolModule,
}


def simple_module(layer: Layer, shape: Shape) -> nn.Module:
    """The torch module of one simple layer whose words are bound, for an input of `shape` (without N)."""
    form = layer.torch_form(shape)
    kind = _OURS.get(form.name) or getattr(nn, form.name)
    module: nn.Module = kind(*form.arguments, **form.keywords)
    for name in form.fixed:
        module.get_parameter(name).requires_grad_(False)
    return module


class Network(nn.Module):
    """`forward(images_NHWC) -> logits_NK`, normalisation inside."""

    mean: Tensor
    std: Tensor

    def __init__(self, plan: Plan, spec: InputSpec, memory_format: str = "channels_last") -> None:
        super().__init__()
        self.plan = plan
        self.num_frozen = 0  # outermost layers that a training leaves as they are: it learns from their outputs
        self.memory_format = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
        self.layers = ChainModule(plan.nodes)
        # The card holds mean and std; they are no tensors of the model file.
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1), persistent=False)

    def normalise(self, images_NHWC: Tensor) -> Tensor:
        """uint8 or float 0..255 (N, H, W, C) to float32 (N, C, H, W), (value - mean) / std."""
        x_NCHW = (images_NHWC.permute(0, 3, 1, 2).float() - self.mean) / self.std
        return x_NCHW.contiguous(memory_format=self.memory_format)

    def forward_normalised(self, x_NCHW: Tensor) -> Tensor:
        """Logits (N, K) from normalised images: for whoever needs gradients there."""
        logits: Tensor = self.layers(x_NCHW)
        return logits

    def forward(self, images_NHWC: Tensor, first: int = 0) -> Tensor:
        """Logits (N, K) of images (N, H, W, C) of values 0..255, which are normalised here; with `first` above 0 those
        of the outputs of the outermost layers before that one."""
        if first == 0:
            return self.forward_normalised(self.normalise(images_NHWC))
        x = images_NHWC
        for layer in list(self.layers.children())[first:]:
            x = layer(x)
        return x


def build(
    plan: Plan, spec: InputSpec, *, seed: int = 0, device: str = "cpu", memory_format: str = "channels_last"
) -> Network:
    """A network with torch's default initial weights, drawn from `seed` on the CPU whatever the device.

    Moves torch's global random state; callers work inside `device.settled`.
    """
    torch.manual_seed(seed)
    network = Network(plan, spec, memory_format)
    cast(Any, network).to(memory_format=network.memory_format)  # in place; torch's stubs miss this form
    network.to(device)
    return network


def tensors_of(network: Network) -> dict[str, Tensor]:
    """The tensors of a model file by name (parameters and buffers), sharing memory with the network."""
    return {name.removeprefix(_PREFIX): tensor for name, tensor in network.state_dict().items()}


def arrays_of(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Tensors as NumPy arrays, in plain row-major order."""
    return {name: np.array(tensor.detach().cpu().numpy(), order="C") for name, tensor in tensors.items()}


def copy_into(network: Network, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Copy arrays *into* the network's tensors, so that their memory format (and with it the kernels) stays."""
    with torch.no_grad():
        for name, tensor in tensors_of(network).items():
            tensor.copy_(torch.from_numpy(np.array(arrays[name])))
