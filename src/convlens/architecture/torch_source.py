"""A network as plain, runnable torch source: what `explain --torch` prints.

Owns the text around the layers, which say themselves what they are in torch.nn. Writes text; imports no torch. The
module it prints has the same tensor names as a convlens model file, so that its weights load with `load_state_dict`.
"""

from collections.abc import Sequence

from convlens.architecture.layers import Layer, Repeat, Residual, Scale, Shape
from convlens.architecture.plan import Node, Plan

_RESIDUAL = '''
class Residual(nn.Sequential):
    """body(x) + shortcut(x), or body(x) + x."""

    def __init__(self, body, shortcut=None):
        super().__init__(body)
        self.shortcut = shortcut

    def forward(self, x):
        y = x
        for name, layer in self.named_children():
            if name != "shortcut":
                y = layer(y)
        return y + (x if self.shortcut is None else self.shortcut(x))

'''

_SCALE = '''
class Scale(nn.Module):
    """Each value times a fixed factor."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor

'''

_UNSCALED = '''
def without_scale(batchnorm):
    """Keep the weight of a batch norm at 1: training changes its bias alone."""
    batchnorm.weight.requires_grad_(False)
    return batchnorm

'''


def torch_source(plan: Plan, loading: Sequence[str] = ()) -> str:
    """Source text that defines `network`, an nn.Module that takes normalised float (N, C, H, W).

    `loading` holds lines to stand at its end (how a model's weights and normalisation come in).
    """
    layers = [leaf.layer for leaf in plan.leaves]
    nodes = list(_all_nodes(plan.nodes))
    parts = ["import torch\nfrom torch import nn\n"]
    if any(node.body for node in nodes):
        parts[0] = "from collections import OrderedDict\n\n" + parts[0]
    parts.append("\n")
    if any(isinstance(node.layer, Residual) for node in nodes):
        parts.append(_RESIDUAL + "\n")
    if any(isinstance(layer, Scale) for layer in layers):
        parts.append(_SCALE + "\n")
    if any(leaf.layer.torch_form(leaf.input_shape).fixed for leaf in plan.leaves):
        parts.append(_UNSCALED + "\n")
    channels, height, width = plan.input_shape
    parts.append(f"# {plan.architecture}\n")
    parts.append(f"# input: N×{channels}×{height}×{width}, output: N×{plan.num_classes}\n")
    parts.append(f"network = {_chain(plan.nodes, '')}\n")
    parts += [f"{line}\n" for line in loading]
    return "".join(parts)


def _all_nodes(nodes: tuple[Node, ...]) -> list[Node]:
    return [n for node in nodes for n in (node, *_all_nodes(node.body + node.shortcut))]


def _chain(nodes: tuple[Node, ...], indent: str, kind: str = "nn.Sequential") -> str:
    """A Sequential; with names of its own where a repeat makes them other than 0, 1, 2 …"""
    inner = indent + "    "
    if all(node.name == str(index) for index, node in enumerate(nodes)) and not any(node.body for node in nodes):
        lines = [f"{inner}{_module(node, inner)},\n" for node in nodes]
        return f"{kind}(\n{''.join(lines)}{indent})"
    lines = [f'{inner}    ("{node.name}", {_module(node, inner + "    ")}),\n' for node in nodes]
    return f"{kind}(\n{inner}OrderedDict([\n{''.join(lines)}{inner}])\n{indent})"


def _module(node: Node, indent: str) -> str:
    layer = node.layer
    if isinstance(layer, Repeat):
        return _chain(node.body, indent)
    if isinstance(layer, Residual):
        body = _named(node.body, indent + "    ")
        shortcut = f",\n{indent}    {_chain(node.shortcut, indent + '    ')}" if node.shortcut else ""
        return f"Residual(\n{indent}    {body}{shortcut},\n{indent})"
    return simple_module(layer, node.input_shape)


def _named(nodes: tuple[Node, ...], indent: str) -> str:
    lines = [f'{indent}    ("{node.name}", {_module(node, indent + "    ")}),\n' for node in nodes]
    return f"OrderedDict([\n{''.join(lines)}{indent}])"


def simple_module(layer: Layer, input_shape: Shape) -> str:
    """One simple layer as a torch.nn expression."""
    form = layer.torch_form(input_shape)
    arguments = [*map(repr, form.arguments), *(f"{name}={value!r}" for name, value in form.keywords.items())]
    module = f"{'' if isinstance(layer, Scale) else 'nn.'}{form.name}({', '.join(arguments)})"
    return f"without_scale({module})" if form.fixed else module
