"""What an architecture becomes for one input size and one number of classes: every layer with its numbers.

Owns addresses, the walk of shapes through chains, repeats and residuals, and the bounds on parameters and map
sizes. Pure Python: a network is checked, counted and explained before torch is imported.

Addresses count from 0, as `nn.Sequential` does: `3`, inside a residual `7.2` and `7.shortcut.0`, inside the
second copy of a repeat `7[1].2`. They are the prefixes of the tensor names in a model file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from convlens.architecture.layers import Axis, Layer, Linear, MisfitError, Repeat, Residual, Shape
from convlens.architecture.parser import Architecture
from convlens.errors import SentenceError
from convlens.text import by, shown

MAX_PARAMETERS = 1_000_000_000
MAX_MAP_VALUES = 1 << 27  # values of one layer's output, for one image


@dataclass(frozen=True)
class State:
    """What flows between layers: the shape, the receptive field (height, width) and the (h, w) it counts in."""

    shape: Shape
    receptive: tuple[Axis, Axis]
    extent: tuple[int, int]


@dataclass(frozen=True)
class Node:
    """One layer in its place, all words replaced by numbers.

    `receptive` is that of an output unit. `tensors` maps the names in a model file, without the address, to
    shapes. Composites have children in `body` (and `shortcut`), and their sums in the numbers.
    """

    address: str
    layer: Layer
    input_shape: Shape
    output_shape: Shape
    formula: str
    tensors: dict[str, Shape]
    num_parameters: int
    multiply_adds: int
    receptive: tuple[Axis, Axis]
    body: tuple[Node, ...] = ()
    shortcut: tuple[Node, ...] = ()

    @property
    def name(self) -> str:
        """The last part of the address: its name within its chain."""
        return self.address.rpartition(".")[2]

    def leaves(self) -> Iterator[Node]:
        """The simple layers in or under this node, body before shortcut."""
        if not self.body:
            yield self
        for child in self.body + self.shortcut:
            yield from child.leaves()


@dataclass(frozen=True)
class Plan:
    """A whole network for one input: `nodes` are its top-level layers (each copy of a repeat is one)."""

    architecture: Architecture
    input_shape: Shape  # (C, H, W)
    num_classes: int
    nodes: tuple[Node, ...]

    @cached_property
    def leaves(self) -> tuple[Node, ...]:
        """The simple layers in order."""
        return tuple(leaf for node in self.nodes for leaf in node.leaves())

    @property
    def num_parameters(self) -> int:
        """Numbers that training changes."""
        return sum(node.num_parameters for node in self.nodes)

    @property
    def multiply_adds(self) -> int:
        """For one image, in inference."""
        return sum(node.multiply_adds for node in self.nodes)

    def index_of(self, address: str) -> int:
        """The place among `nodes` of the layer with this address; `head` is the last linear layer. Raises
        SentenceError where no layer that is not inside another one has it."""
        if address == "head":
            linear = [at for at, node in enumerate(self.nodes) if isinstance(node.layer, Linear)]
            if not linear:
                raise SentenceError("the network has no linear layer that could be its head: name an address")
            return linear[-1]
        addresses = [node.address for node in self.nodes]
        if address not in addresses:
            raise SentenceError(
                f"no layer of the network has the address {shown(address)}, or it lies inside another one: the "
                f"outermost ones are {addresses[0]} to {addresses[-1]}"
            )
        return addresses.index(address)

    @cached_property
    def tensors(self) -> dict[str, Shape]:
        """Name and shape of every tensor of a model file, in order."""
        return {f"{leaf.address}.{name}": shape for leaf in self.leaves for name, shape in leaf.tensors.items()}


def plan(architecture: Architecture, input_shape: Shape, num_classes: int, *, as_classifier: bool = True) -> Plan:
    """Put an architecture on an input of shape (C, H, W).

    `as_classifier` also demands that a vector of `num_classes` numbers comes out. Raises SentenceError that
    names the layer, what it met and what would fit.
    """
    channels, height, width = input_shape
    one_pixel = Axis(size=1, step=1, start=0)
    walker = _Walker(architecture, channels, num_classes)
    nodes, state = walker.chain(architecture.layers, "", State(input_shape, (one_pixel, one_pixel), (height, width)))
    if as_classifier and state.shape != (num_classes,):
        last = nodes[-1]
        remedy = "end with flatten linear(classes)" if len(state.shape) == 3 else "end with linear(classes)"
        raise walker.error(
            last.layer,
            f"the last layer, {last.address} {last.layer}, gives {by(state.shape)} values, "
            f"not one for each of the {num_classes} classes: {remedy}",
        )
    return Plan(architecture, input_shape, num_classes, nodes)


class _Walker:
    def __init__(self, architecture: Architecture, channels: int, num_classes: int) -> None:
        self.architecture = architecture
        self.input_channels = channels
        self.num_classes = num_classes
        self.num_parameters = 0

    def error(self, layer: Layer, message: str) -> SentenceError:
        source = self.architecture.source
        return SentenceError(message, text=source or None, column=layer.column if source else None)

    def chain(self, layers: tuple[Layer, ...], prefix: str, state: State) -> tuple[tuple[Node, ...], State]:
        nodes: list[Node] = []
        for index, layer in enumerate(layers):
            address = f"{prefix}{index}"
            if isinstance(layer, Repeat):
                for copy in range(layer.times):
                    node, state = self.copy(layer, f"{address}[{copy}]", state)
                    nodes.append(node)
            elif isinstance(layer, Residual):
                node, state = self.residual(layer, address, state)
                nodes.append(node)
            else:
                node, state = self.simple(layer, address, state)
                nodes.append(node)
        return tuple(nodes), state

    def simple(self, layer: Layer, address: str, state: State) -> tuple[Node, State]:
        bound = layer.bind(state.shape[0], self.num_classes)
        try:
            output_shape = bound.output_shape(state.shape)
        except MisfitError as misfit:
            raise self.error(layer, f"layer {address}, {layer}: {misfit}") from None
        num_parameters = bound.num_parameters(state.shape)
        self.num_parameters += num_parameters
        if self.num_parameters > MAX_PARAMETERS:
            raise self.error(layer, f"more than {MAX_PARAMETERS:,} parameters at layer {address}, {layer}")
        if math.prod(output_shape) > MAX_MAP_VALUES:
            raise self.error(
                layer, f"layer {address}, {layer}, gives {by(output_shape)} values; {MAX_MAP_VALUES:,} is the limit"
            )
        receptive = bound.receptive(state.receptive, state.extent)
        node = Node(
            address=address,
            layer=bound,
            input_shape=state.shape,
            output_shape=output_shape,
            formula=bound.formula(state.shape),
            tensors=bound.tensors(state.shape),
            num_parameters=num_parameters,
            multiply_adds=bound.multiply_adds(state.shape),
            receptive=receptive,
        )
        if len(output_shape) == 3:
            extent = (output_shape[1], output_shape[2])
        else:  # a vector counts in the map that was flattened, until a linear layer has seen all of it
            extent = (1, 1) if isinstance(bound, Linear) else state.extent
        return node, State(output_shape, receptive, extent)

    def copy(self, layer: Repeat, address: str, state: State) -> tuple[Node, State]:
        body, after = self.chain(layer.body, f"{address}.", state)
        return self.composite(layer, address, state, after, body), after

    def residual(self, layer: Residual, address: str, state: State) -> tuple[Node, State]:
        body, after = self.chain(layer.body, f"{address}.", state)
        shortcut, beside = self.chain(layer.shortcut, f"{address}.shortcut.", state)
        if after.shape != beside.shape:
            what = "its shortcut gives" if layer.shortcut else "what comes in is"
            remedy = "" if layer.shortcut else "; give it a shortcut: residual(body | shortcut)"
            raise self.error(
                layer,
                f"layer {address}, residual: its body gives {by(after.shape)}, {what} {by(beside.shape)}; "
                f"the two are added, so they must agree{remedy}",
            )
        height, width = (
            _union(a, b, n) for a, b, n in zip(after.receptive, beside.receptive, after.extent, strict=True)
        )
        after = replace(after, receptive=(height, width))
        return self.composite(layer, address, state, after, body, shortcut), after

    def composite(
        self,
        layer: Layer,
        address: str,
        before: State,
        after: State,
        body: tuple[Node, ...],
        shortcut: tuple[Node, ...] = (),
    ) -> Node:
        children = body + shortcut
        return Node(
            address=address,
            layer=layer,
            input_shape=before.shape,
            output_shape=after.shape,
            formula="",
            tensors={},
            num_parameters=sum(child.num_parameters for child in children),
            multiply_adds=sum(child.multiply_adds for child in children),
            receptive=after.receptive,
            body=body,
            shortcut=shortcut,
        )


def _union(a: Axis, b: Axis, num_units: int) -> Axis:
    """The receptive field that covers both, for each of `num_units` units.

    Where the two steps differ no single field fits every unit; the answer then covers the widest need.
    """
    step = a.step
    starts = [x.start + i * (x.step - step) for x in (a, b) for i in (0, num_units - 1)]
    ends = [x.start + x.size + i * (x.step - step) for x in (a, b) for i in (0, num_units - 1)]
    return Axis(max(ends) - min(starts), step, min(starts))
