"""How one value came about: the numbers that met in it, re-computed in float64.

Owns the arithmetic of each layer type for a single unit. What it says is checked against the network's own value: the
two agree to 1e-5 of the sum of the terms' sizes, which is what float32 leaves over; only group norm's variance, which
float32 loses where a mean is much larger than the spread, needs more (`Working.slack`). Pure NumPy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convlens.architecture import layers
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
from convlens.metrics import Scaling
from convlens.text import by, number

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
        case layers.Conv():
            return _of_conv(recording, node, layer, unit, source)
        case layers.ZeroPad():
            (row,), (column,) = window(layer, node.input_shape, unit[1], unit[2])
            if row is None or column is None:
                return _worked(node, unit, source, "copy", ["padding: 0"], [0.0])
            return _copied(node, unit, source, x, (unit[0], row, column), "moved and not changed")
        case layers.MaxPool() | layers.AvgPool():
            return _of_pool(node, layer, x, unit, source)
        case layers.GlobalAvgPool() | layers.GlobalMaxPool():
            maps = x[unit[0] : unit[0] + 1]
            seen = Window(tuple(range(maps.shape[1])), tuple(range(maps.shape[2])))
            inside = np.ones(maps.shape[1:], bool)
            if isinstance(layer, layers.GlobalMaxPool):
                return _maximum(node, unit, source, maps, inside, seen)
            return _mean(node, unit, source, maps, inside, seen, maps.size)
        case layers.Linear():
            weights = recording.tensors[f"{node.address}.weight"][unit[0]]
            products = x.astype(np.float64) * weights
            arrays = {"inputs": x, "weights": weights, "products": products}
            what = f"{len(x):,} products: Σ input · weight"
            return _sum_with_bias(recording, node, unit, source, what, arrays)
        case layers.BatchNorm():
            names = ("running_mean", "running_var", "weight", "bias")
            mean, var, weight, bias = (float(recording.tensors[f"{node.address}.{name}"][unit[0]]) for name in names)
            norm = _Norm(mean, var, layer.eps, weight, bias, "of the training images")
            return _normalised(node, unit, source, float(x[unit]), norm)
        case layers.GroupNorm():
            return _of_groupnorm(recording, node, layer, unit, source)
        case layers.Flatten():
            place = tuple(int(i) for i in np.unravel_index(unit[0], x.shape))
            return _copied(node, unit, source, x, place, "moved and not changed")
        case layers.Dropout():
            line = f"dropped in training with probability {layer.p:g}; afterwards always passed on unchanged"
            return replace(_copied(node, unit, source, x, unit, ""), lines=(line,))
        case layers.Scale():
            value = float(x[unit])
            return _of_one(node, unit, source, [layer.factor * value], f"{number(layer.factor)} · {number(value)}")
        case layers.Activation():
            return _of_one(node, unit, source, *activation_terms(layer, float(x[unit])))
    raise AssertionError(f"no arithmetic for {layer}")


def _worked(
    node: Node, unit: Unit, source: str, operation: str, lines: Sequence[str], terms: ArrayLike, **more: Any
) -> Working:
    """A working whose result is the sum of its terms; the network's own value is put in by `working`."""
    added = np.asarray(terms, np.float64)
    return Working(node.address, unit, operation, tuple(lines), added, float(added.sum()), 0.0, source, **more)


# ---------------------------------------------------------------- windows


def _of_conv(recording: Recording, node: Node, layer: layers.Conv, unit: Unit, source: str) -> Working:
    assert isinstance(layer.groups, int) and isinstance(layer.out_channels, int), "a plan's layers are bound"
    kernel = recording.tensors[f"{node.address}.weight"][unit[0]]
    first = unit[0] // (layer.out_channels // layer.groups) * len(kernel)
    seen = window(layer, node.input_shape, unit[1], unit[2])
    values, inside = _cut_out(recording.values[source][first : first + len(kernel)], seen)
    products = values.astype(np.float64) * kernel
    arrays = {"window": values, "kernel": kernel, "products": products, "inside": inside}
    done = _sum_with_bias(recording, node, unit, source, f"{by(kernel.shape)} products: Σ window · kernel", arrays)
    return replace(done, box=seen, channels=(first, len(kernel)))


def _sum_with_bias(
    recording: Recording, node: Node, unit: Unit, source: str, what: str, arrays: dict[str, NDArray[Any]]
) -> Working:
    """Σ products, and the bias where the layer has one."""
    bias = recording.tensors.get(f"{node.address}.bias")
    total, own = float(arrays["products"].sum()), 0.0 if bias is None else float(bias[unit[0]])
    lines = [f"{what} = {number(total)}"]
    lines.append("no bias" if bias is None else f"{number(total)} + bias {number(own)} = {number(total + own)}")
    terms = np.append(arrays["products"].ravel(), [] if bias is None else [own])
    return _worked(node, unit, source, "sum", lines, terms, arrays=arrays)


def _cut_out(maps: NDArray[np.float32], seen: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The window's values (C, kh, kw), zero where it lies in padding, and which of its places lie inside the map."""
    inside = np.array([[r is not None and c is not None for c in seen.columns] for r in seen.rows])
    rows, columns = ([0 if i is None else i for i in taps] for taps in seen)
    return maps[:, rows][:, :, columns] * inside, inside


def _of_pool(
    node: Node, layer: layers.MaxPool | layers.AvgPool, x: NDArray[np.float32], unit: Unit, source: str
) -> Working:
    channel, row, column = unit
    seen = window(layer, node.input_shape, row, column)
    values, inside = _cut_out(x[channel : channel + 1], seen)
    if isinstance(layer, layers.MaxPool):
        return _maximum(node, unit, source, values, inside, seen)
    divisor = _divisor(layer, node.input_shape, row, column) if layer.count_include_pad else int(inside.sum())
    return _mean(node, unit, source, values, inside, seen, divisor)


def _maximum(
    node: Node, unit: Unit, source: str, values: NDArray[np.float32], inside: NDArray[np.bool_], seen: Window
) -> Working:
    candidates = np.where(inside, values[0], -np.inf)
    i, j = (int(n) for n in np.unravel_index(int(candidates.argmax()), candidates.shape))
    winner, best = (unit[0], int(seen.rows[i] or 0), int(seen.columns[j] or 0)), float(values[0, i, j])
    line = f"the largest of {int(inside.sum()):,} values: {number(best)}, at row {winner[1]}, column {winner[2]}"
    arrays = {"window": values, "inside": inside}
    return _worked(
        node, unit, source, "maximum", [line], [best], arrays=arrays, box=seen, channels=(unit[0], 1), winner=winner
    )


def _mean(
    node: Node, unit: Unit, source: str, values: NDArray[np.float32], inside: NDArray[np.bool_], seen: Window, by: int
) -> Working:
    terms = values[0][inside].astype(np.float64) / by
    result = float(terms.sum())
    line = f"Σ window / {by} = {number(result * by)} / {by} = {number(result)}"
    arrays = {"window": values, "inside": inside}
    return _worked(node, unit, source, "mean", [line], terms, arrays=arrays, box=seen, channels=(unit[0], 1))


def _divisor(layer: layers.AvgPool, shape: tuple[int, ...], row: int, column: int) -> int:
    """How many places of an averaging window lie in the map and its padding (torch.nn.AvgPool2d; with `ceil_mode` the
    last window may reach beyond both)."""
    counts = []
    for at, size, kernel, stride, (before, after) in zip(
        (row, column), shape[1:], layer.kernel(), layer.strides(), layer.paddings(), strict=True
    ):
        start = at * stride - before
        counts.append(min(start + kernel, size + after) - start)
    return counts[0] * counts[1]


# ---------------------------------------------------------------- sums, normalisation, single values


def _of_sum(recording: Recording, node: Node, unit: Unit, reads: tuple[str, ...]) -> Working:
    terms = np.array([float(recording.values[source][unit]) for source in reads])
    what = " + ".join(f"{source} {number(float(term))}" for source, term in zip(reads, terms, strict=True))
    arrays = {"window": terms.reshape(-1, 1, 1)}
    line = f"{what} = {number(float(terms.sum()))}"
    return _worked(node, unit, reads[0], "add", [line], terms, arrays=arrays)


class _Norm(NamedTuple):
    """What a value is normalised by: (x − mean) / √(var + eps) · weight + bias."""

    mean: float
    var: float
    eps: float
    weight: float
    bias: float
    of: str


def _of_groupnorm(recording: Recording, node: Node, layer: layers.GroupNorm, unit: Unit, source: str) -> Working:
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
    done = _normalised(node, unit, source, x, _Norm(mean, var, layer.eps, weight, bias, of))
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


def _normalised(node: Node, unit: Unit, source: str, x: float, norm: _Norm) -> Working:
    mean, var, eps, weight, bias, of = norm
    scale = weight / math.sqrt(var + eps)
    terms = [x * scale, -mean * scale, bias]
    lines = (
        f"mean {number(mean)} and variance {number(var)} {of}",
        f"({number(x)} − {number(mean)}) / √({number(var)} + {eps:g}) = {number((x - mean) / math.sqrt(var + eps))}",
        f"· weight {number(weight)} + bias {number(bias)} = {number(sum(terms))}",
    )
    return replace(_of_one(node, unit, source, terms, ""), lines=lines, operation="normalise")


def _of_one(node: Node, unit: Unit, source: str, terms: list[float], line: str) -> Working:
    """A value made of the one value at the same place."""
    line = f"{line} = {number(float(sum(terms)))}"
    return _worked(node, unit, source, "function", [line], terms, **_place(unit))


def _copied(node: Node, unit: Unit, source: str, x: NDArray[np.float32], place: Unit, what: str) -> Working:
    line = f"channel {place[0]}, row {place[1]}, column {place[2]} of layer {source}, {what}" if len(place) == 3 else ""
    return _worked(node, unit, source, "copy", [line], [float(x[place])], winner=place, **_place(place))


def _place(place: Unit) -> dict[str, Any]:
    """Where one value of a map lies; of a vector nothing is said."""
    return {"box": Window((place[1],), (place[2],)), "channels": (place[0], 1)} if len(place) == 3 else {}


# ---------------------------------------------------------------- both ends


def _of_input(recording: Recording, unit: Unit) -> Working:
    check_place(recording.values[INPUT].shape, unit, INPUT)
    channel, row, column = unit
    pixel = float(recording.image[row, column, channel])
    mean, std = recording.mean[channel], recording.std[channel]
    terms = np.array([pixel / std, -mean / std])
    result, value = float(terms.sum()), float(recording.values[INPUT][unit])
    line = f"(pixel {pixel:.0f} − mean {number(mean)}) / standard deviation {number(std)} = {number(result)}"
    return Working(INPUT, unit, "normalise", (line,), terms, result, value, "picture", **_place(unit))


def _of_softmax(recording: Recording, unit: Unit) -> Working:
    """A probability: e^(calibrated logit) over the sum of all of them (`metrics.Scaling`)."""
    logits = recording.logits.astype(np.float64)
    check_place(logits.shape, unit, SOFTMAX)
    scaled = recording.scaling.of(logits[None])[0]
    powers = np.exp(scaled - scaled.max())
    own, total = float(powers[unit[0]]), float(powers.sum())
    lines: tuple[str, ...] = (
        f"e^{_in_brackets(float(logits[unit[0]]), float(logits.max()), recording.scaling)} = {number(own, 8)}",
        f"over the sum of all {len(logits)}: {number(total, 8)}",
        f"{number(own, 8)} / {number(total, 8)} = {number(own / total)}",
        "the largest logit is taken from each, so that no e^(…) is too large to compute; that changes no share",
    )
    if recording.scaling != Scaling():
        lines += (f"calibrated: {recording.scaling}, fitted on validation images (1 would be plain softmax)",)
    value, source = float(recording.probabilities[unit[0]]), list(recording.values)[-1]
    arrays = {"inputs": recording.logits, "products": powers}
    return Working(SOFTMAX, unit, "share", lines, np.array([own / total]), own / total, value, source, arrays)


def _in_brackets(logit: float, largest: float, scaling: Scaling) -> str:
    """The exponent, in brackets: scaled as was fitted on validation, where that was done."""
    difference = f"({number(logit)} − {number(largest)})"
    if scaling == Scaling():
        return difference
    line = f"{difference} / {number(scaling.temperature)}"
    return f"({line} − {number(scaling.curvature)} · {difference}²)" if scaling.curvature else f"({line})"
