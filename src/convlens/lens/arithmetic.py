"""How one value came about: the numbers that met in it, re-computed in float64.

Owns the arithmetic of each layer type for a single unit. What it says is checked against the network's own value: the
two agree to 1e-5 of the sum of the terms' sizes, which is what float32 leaves over; only group norm's variance, which
float32 loses where a mean is much larger than the spread, needs more (`Working.slack`). Pure NumPy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlens.architecture.layers import (
    Activation,
    AvgPool,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    GroupNorm,
    Linear,
    MaxPool,
    Scale,
    ZeroPad,
)
from convlens.architecture.plan import Node
from convlens.architecture.windows import (
    INPUT,
    Unit,
    Window,
    check_place,
    check_unit,
    nodes_by_address,
    sources,
    window,
)
from convlens.lens.activations import activation_terms
from convlens.lens.recording import Recording
from convlens.metrics import softmax
from convlens.text import number

TOLERANCE = 1e-5
_UNDERFLOW = 1e-35  # below this float32 may hold 0 where float64 does not
_FLOAT32 = 2.0**-24  # its relative rounding
SOFTMAX = "softmax"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Working:
    """The arithmetic of one value.

    address, unit    which value it is
    operation        sum (of products, with a bias), mean, maximum, normalise, function, copy, add, share
    lines            the arithmetic in words and numbers, a line each
    terms            float64 (T,): what is added up to `result` (for maximum and copy the one value that is passed on)
    result           float64, re-computed;  `value`: the network's own
    arrays           what met: `window` float32 (C, kh, kw), `kernel` float32 and `products` float64 of the same
                     shape, `inside` bool (kh, kw), False in the padding; `inputs`, `weights` (K,) of a linear layer
    source, box      the address that was read, and the rows and columns of each map of it (None: all, or a vector)
    channels         first and number of the channels that were read
    winner           of a maximum: its place (channel, row, column) in the source
    slack            what float32 may be off beyond the terms' sizes: of a group norm, by its variance; else 0
    """

    address: str
    unit: Unit
    operation: str
    lines: tuple[str, ...]
    terms: Floats
    result: float
    value: float
    source: str
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    box: Window | None = None
    channels: tuple[int, int] | None = None
    winner: Unit | None = None
    slack: float = 0.0

    @property
    def magnitude(self) -> float:
        """Σ|terms|: the scale on which the result is exact."""
        return float(np.abs(self.terms).sum())

    @property
    def agrees(self) -> bool:
        """Whether the re-computed result is the network's own value, as far as float32 can tell."""
        return abs(self.result - self.value) <= TOLERANCE * self.magnitude + self.slack + _UNDERFLOW


def working(recording: Recording, address: str, unit: Unit) -> Working:
    """The arithmetic behind one value of a recording.

    `address` is a layer's, `"input"` (the normalised picture) or `"softmax"` (the answer's probabilities); `unit` is
    (channel, row, column) or (index,). Raises UsageError for a unit that is not there.
    """
    if address == INPUT:
        return _of_input(recording, unit)
    if address == SOFTMAX:
        return _of_softmax(recording, unit)
    check_unit(recording.plan, address, unit)
    node = nodes_by_address(recording.plan)[address]
    reads = sources(recording.plan)[address]
    done = _of_sum(recording, node, unit, reads) if node.body else _of_layer(recording, node, unit, reads[0])
    return replace(done, value=float(recording.values[address][unit]))


def _of_layer(recording: Recording, node: Node, unit: Unit, source: str) -> Working:
    layer, x = node.layer, recording.values[source]
    match layer:
        case Conv():
            return _of_conv(recording, node, layer, unit, source)
        case ZeroPad():
            return _of_zeropad(node, layer, x, unit, source)
        case MaxPool() | AvgPool():
            return _of_pool(node, layer, x, unit, source)
        case GlobalAvgPool() | GlobalMaxPool():
            return _of_global_pool(node, x, unit, source)
        case Linear():
            return _of_linear(recording, node, unit, source)
        case BatchNorm():
            return _of_batchnorm(recording, node, layer, unit, source)
        case GroupNorm():
            return _of_groupnorm(recording, node, layer, unit, source)
        case Flatten():
            place = tuple(int(i) for i in np.unravel_index(unit[0], x.shape))
            line = f"channel {place[0]}, row {place[1]}, column {place[2]} of layer {source}, moved and not changed"
            return _copied(node, unit, source, float(x[place]), line, place)
        case Dropout():
            line = f"dropped in training with probability {layer.p:g}; afterwards always passed on unchanged"
            return _copied(node, unit, source, float(x[unit]), line, unit)
        case Scale():
            value = float(x[unit])
            return _simple(
                node, unit, source, "function", [layer.factor * value], f"{number(layer.factor)} · {number(value)}"
            )
        case Activation():
            value = float(x[unit])
            terms, line = activation_terms(layer, value)
            return _simple(node, unit, source, "function", terms, line)
    raise AssertionError(f"no arithmetic for {layer}")


# ---------------------------------------------------------------- windows


def _of_conv(recording: Recording, node: Node, layer: Conv, unit: Unit, source: str) -> Working:
    x = recording.values[source]
    assert isinstance(layer.groups, int) and isinstance(layer.out_channels, int), "a plan's layers are bound"
    kernel = recording.tensors[f"{node.address}.weight"][unit[0]]
    first = unit[0] // (layer.out_channels // layer.groups) * len(kernel)
    seen = window(layer, node.input_shape, unit[1], unit[2])
    values, inside = _cut_out(x[first : first + len(kernel)], seen)
    products = values.astype(np.float64) * kernel
    bias = float(recording.tensors[f"{node.address}.bias"][unit[0]]) if layer.bias else None
    total = float(products.sum())
    result = total + (bias or 0.0)
    count = "×".join(map(str, kernel.shape))
    lines = [f"{count} products: Σ window · kernel = {number(total)}"]
    lines.append(f"{number(total)} + bias {number(bias)} = {number(result)}" if bias is not None else "no bias")
    terms = np.append(products.ravel(), [] if bias is None else [bias])
    arrays = {"window": values, "kernel": kernel, "products": products, "inside": inside}
    return Working(
        node.address, unit, "sum", tuple(lines), terms, result, 0.0, source, arrays, seen, (first, len(kernel))
    )


def _cut_out(maps: NDArray[np.float32], seen: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The window's values (C, kh, kw), zero where it lies in padding, and which of its places lie inside the map."""
    inside = np.array([[r is not None and c is not None for c in seen.columns] for r in seen.rows])
    rows, columns = ([0 if i is None else i for i in taps] for taps in seen)
    return maps[:, rows][:, :, columns] * inside, inside


def _of_pool(node: Node, layer: MaxPool | AvgPool, x: NDArray[np.float32], unit: Unit, source: str) -> Working:
    channel, row, column = unit
    seen = window(layer, node.input_shape, row, column)
    values, inside = _cut_out(x[channel : channel + 1], seen)
    arrays: dict[str, NDArray[Any]] = {"window": values, "inside": inside}
    if isinstance(layer, MaxPool):
        candidates = np.where(inside, values[0], -np.inf)
        i, j = (int(n) for n in np.unravel_index(int(candidates.argmax()), candidates.shape))
        winner = (channel, int(seen.rows[i] or 0), int(seen.columns[j] or 0))
        best = float(values[0, i, j])
        line = f"the largest of {int(inside.sum())} values: {number(best)}, at row {winner[1]}, column {winner[2]}"
        return Working(
            node.address,
            unit,
            "maximum",
            (line,),
            np.array([best]),
            best,
            0.0,
            source,
            arrays,
            seen,
            (channel, 1),
            winner,
        )
    divisor = _divisor(layer, node.input_shape, row, column) if layer.count_include_pad else int(inside.sum())
    terms = values[0][inside].astype(np.float64) / divisor
    result = float(terms.sum())
    line = f"Σ window / {divisor} = {number(result * divisor)} / {divisor} = {number(result)}"
    return Working(node.address, unit, "mean", (line,), terms, result, 0.0, source, arrays, seen, (channel, 1))


def _of_zeropad(node: Node, layer: ZeroPad, x: NDArray[np.float32], unit: Unit, source: str) -> Working:
    (row,), (column,) = window(layer, node.input_shape, unit[1], unit[2])
    if row is None or column is None:
        return Working(node.address, unit, "copy", ("padding: 0",), np.array([0.0]), 0.0, 0.0, source)
    line = f"row {row}, column {column} of layer {source}, moved and not changed"
    return _copied(node, unit, source, float(x[unit[0], row, column]), line, (unit[0], row, column))


def _divisor(layer: AvgPool, shape: tuple[int, ...], row: int, column: int) -> int:
    """How many places of an averaging window lie in the map and its padding (torch.nn.AvgPool2d; with `ceil_mode` the
    last window may reach beyond both)."""
    counts = []
    for at, size, kernel, stride, (before, after) in zip(
        (row, column), shape[1:], layer.kernel(), layer.strides(), layer.paddings(), strict=True
    ):
        start = at * stride - before
        counts.append(min(start + kernel, size + after) - start)
    return counts[0] * counts[1]


def _of_global_pool(node: Node, x: NDArray[np.float32], unit: Unit, source: str) -> Working:
    maps = x[unit[0]]
    seen = Window(tuple(range(maps.shape[0])), tuple(range(maps.shape[1])))
    arrays = {"window": maps[None], "inside": np.ones(maps.shape, bool)}
    if isinstance(node.layer, GlobalMaxPool):
        i, j = (int(n) for n in np.unravel_index(int(maps.argmax()), maps.shape))
        line = f"the largest of the whole map: {number(float(maps[i, j]))}, at row {i}, column {j}"
        return Working(
            node.address,
            unit,
            "maximum",
            (line,),
            np.array([float(maps[i, j])]),
            float(maps[i, j]),
            0.0,
            source,
            arrays,
            seen,
            (unit[0], 1),
            (unit[0], i, j),
        )
    terms = maps.astype(np.float64).ravel() / maps.size
    result = float(terms.sum())
    line = f"Σ map / {maps.size} = {number(result * maps.size)} / {maps.size} = {number(result)}"
    return Working(node.address, unit, "mean", (line,), terms, result, 0.0, source, arrays, seen, (unit[0], 1))


# ---------------------------------------------------------------- vectors, sums, normalisation


def _of_linear(recording: Recording, node: Node, unit: Unit, source: str) -> Working:
    inputs = recording.values[source]
    weights = recording.tensors[f"{node.address}.weight"][unit[0]]
    products = inputs.astype(np.float64) * weights
    bias_name = f"{node.address}.bias"
    bias = float(recording.tensors[bias_name][unit[0]]) if bias_name in recording.tensors else None
    total = float(products.sum())
    result = total + (bias or 0.0)
    lines = [f"{len(inputs):,} products: Σ input · weight = {number(total)}"]
    lines.append(f"{number(total)} + bias {number(bias)} = {number(result)}" if bias is not None else "no bias")
    terms = np.append(products, [] if bias is None else [bias])
    arrays = {"inputs": inputs, "weights": weights, "products": products}
    return Working(node.address, unit, "sum", tuple(lines), terms, result, 0.0, source, arrays)


def _of_sum(recording: Recording, node: Node, unit: Unit, reads: tuple[str, ...]) -> Working:
    terms = np.array([float(recording.values[source][unit]) for source in reads])
    result = float(terms.sum())
    what = [f"{source} {number(float(term))}" for source, term in zip(reads, terms, strict=True)]
    return Working(
        node.address,
        unit,
        "add",
        (f"{' + '.join(what)} = {number(result)}",),
        terms,
        result,
        0.0,
        reads[0],
        {"window": terms.reshape(-1, 1, 1)},
    )


def _of_batchnorm(recording: Recording, node: Node, layer: BatchNorm, unit: Unit, source: str) -> Working:
    x = float(recording.values[source][unit])
    mean, var, weight, bias = (
        float(recording.tensors[f"{node.address}.{name}"][unit[0]])
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    return _normalised(node, unit, source, x, mean, var, layer.eps, weight, bias, "of the training images")


def _of_groupnorm(recording: Recording, node: Node, layer: GroupNorm, unit: Unit, source: str) -> Working:
    values = recording.values[source]
    assert isinstance(layer.num_groups, int), "a plan's layers are bound"
    size = len(values) // layer.num_groups
    first = unit[0] // size * size
    group = values[first : first + size].astype(np.float64)
    weight, bias = (
        float(recording.tensors[f"{node.address}.{name}"][unit[0]]) if layer.affine else default
        for name, default in (("weight", 1.0), ("bias", 0.0))
    )
    of = f"of channels {first} to {first + size - 1} of this picture"
    x, mean, var = float(values[unit]), float(group.mean()), float(group.var())
    done = _normalised(node, unit, source, x, mean, var, layer.eps, weight, bias, of)
    slack = abs(weight) * _variance_slack(x, mean, var, layer.eps)
    lines = done.lines
    if slack > TOLERANCE * done.magnitude:
        lines += (f"float32 can be off by {number(slack, 2)} here: the mean is too large for so small a variance",)
    return replace(done, channels=(first, size), slack=slack, lines=lines)


def _variance_slack(x: float, mean: float, var: float, eps: float) -> float:
    """How far float32 may put (x − mean) / √(var + eps) off by its variance: as E[x²] − E[x]² that is uncertain by some
    roundings of mean² + var, and may even come out as 0."""
    uncertain = 8 * _FLOAT32 * (mean * mean + var) / (var + eps)
    if uncertain < 0.5:
        return 0.5 * uncertain / math.sqrt(1 - uncertain) * abs(x - mean) / math.sqrt(var + eps)
    return (abs(x - mean) + 8 * _FLOAT32 * abs(mean)) / math.sqrt(eps)


def _normalised(
    node: Node,
    unit: Unit,
    source: str,
    x: float,
    mean: float,
    var: float,
    eps: float,
    weight: float,
    bias: float,
    of: str,
) -> Working:
    """(x - mean) / √(var + eps) · weight + bias."""
    scale = weight / math.sqrt(var + eps)
    terms = [x * scale, -mean * scale, bias]
    result = sum(terms)
    lines = (
        f"mean {number(mean)} and variance {number(var)} {of}",
        f"({number(x)} − {number(mean)}) / √({number(var)} + {eps:g}) = {number((x - mean) / math.sqrt(var + eps))}",
        f"· weight {number(weight)} + bias {number(bias)} = {number(result)}",
    )
    return replace(_simple(node, unit, source, "normalise", terms, ""), lines=lines)


def _simple(node: Node, unit: Unit, source: str, operation: str, terms: list[float], line: str) -> Working:
    """A value made of the one value at the same place."""
    result = float(sum(terms))
    return Working(
        node.address,
        unit,
        operation,
        (f"{line} = {number(result)}",),
        np.array(terms),
        result,
        0.0,
        source,
        box=Window((unit[1],), (unit[2],)) if len(unit) == 3 else None,
        channels=(unit[0], 1) if len(unit) == 3 else None,
    )


def _copied(node: Node, unit: Unit, source: str, value: float, line: str, place: Unit) -> Working:
    is_map = len(place) == 3
    return Working(
        node.address,
        unit,
        "copy",
        (line,),
        np.array([value]),
        value,
        0.0,
        source,
        box=Window((place[1],), (place[2],)) if is_map else None,
        channels=(place[0], 1) if is_map else None,
        winner=place,
    )


# ---------------------------------------------------------------- both ends


def _of_input(recording: Recording, unit: Unit) -> Working:
    check_place(recording.values[INPUT].shape, unit, INPUT)
    channel, row, column = unit
    pixel = float(recording.image[row, column, channel])
    mean, std = recording.mean[channel], recording.std[channel]
    terms = np.array([pixel / std, -mean / std])
    result = float(terms.sum())
    line = f"(pixel {pixel:.0f} − mean {number(mean)}) / standard deviation {number(std)} = {number(result)}"
    return Working(
        INPUT,
        unit,
        "normalise",
        (line,),
        terms,
        result,
        float(recording.values[INPUT][unit]),
        "picture",
        box=Window((row,), (column,)),
        channels=(channel, 1),
    )


def _of_softmax(recording: Recording, unit: Unit) -> Working:
    """A probability: e^logit over the sum of all of them, the largest logit taken off first."""
    logits = recording.logits.astype(np.float64)
    check_place(logits.shape, unit, SOFTMAX)
    powers = np.exp(logits - logits.max())
    result = float(powers[unit[0]] / powers.sum())
    lines = (
        f"e^({number(float(logits[unit[0]]))} − {number(float(logits.max()))}) = {number(float(powers[unit[0]]))}",
        f"over the sum of all {len(logits)}: {number(float(powers.sum()))}",
        f"{number(float(powers[unit[0]]))} / {number(float(powers.sum()))} = {number(result)}",
    )
    return Working(
        SOFTMAX,
        unit,
        "share",
        lines,
        np.array([result]),
        result,
        float(softmax(recording.logits[None])[0, unit[0]]),
        list(recording.values)[-1],
        {"inputs": recording.logits, "products": powers},
    )
