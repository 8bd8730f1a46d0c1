"""One frozen dataclass per layer of the sentence: arguments, shape, formula, padding in words, tensors, cost, torch
form.

Owns all that a layer *is*, in pure Python; a new one is written here, and its arithmetic in `lens/arithmetic.py`. Knows
nothing of text (`parser.py`) or of how layers follow one another (`plan.py`), and imports no torch. Names and defaults
are torch.nn's; shapes are (C, H, W) for maps and (C,) for vectors.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self

from convlens.architecture.arguments import (
    MAX_PIXELS,
    WORDS,
    Pair,
    Size,
    argument,
    check_boolean,
    check_choice,
    check_optional,
    check_padding,
    check_pair,
    check_size,
    pair,
)
from convlens.checks import real, whole
from convlens.text import by

Shape = tuple[int, ...]


class MisfitError(ValueError):
    """A layer that cannot take the shape it gets. The plan turns it into a SentenceError with its place."""


class TorchForm(NamedTuple):
    """A layer as torch.nn has it, as data: the class's name and the arguments that it is made with.

    `fixed` names parameters that training leaves alone. `Scale` is the one class that torch.nn does not have.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = MappingProxyType({})
    fixed: tuple[str, ...] = ()


class Axis(NamedTuple):
    """Receptive field along one axis, in input pixels.

    The unit at index i sees `size` pixels, from `start + i * step` on (negative: in the zero padding).
    """

    size: int
    step: int
    start: int


# ---------------------------------------------------------------- layers


@dataclass(frozen=True)
class Layer:
    """What every layer answers. The default is a layer without parameters that keeps its shape."""

    name: ClassVar[str]  # in the sentence: the class's own, in lower case
    takes_inputs: ClassVar[bool] = False  # whether torch wants the number of channels that come in, first
    torch_name: ClassVar[str]  # the class in torch.nn: of the same name, where a layer does not say another

    def __init_subclass__(cls) -> None:
        cls.name, cls.torch_name = cls.__name__.lower(), cls.__dict__.get("torch_name", cls.__name__)

    column: int | None = field(default=None, compare=False, repr=False, kw_only=True)

    @classmethod
    def arguments(cls) -> tuple[Any, ...]:
        """The dataclass fields that stand in the sentence, in order."""
        return tuple(f for f in fields(cls) if "check" in f.metadata)

    @classmethod
    def checked(cls, values: dict[str, Any], column: int | None = None) -> Self:
        """The layer with its arguments checked and normalised.

        Raises ValueError("argument: what it must be") for the first that is not what it must be.
        """
        normal = {}
        for f in cls.arguments():
            if f.name in values:
                try:
                    normal[f.name] = f.metadata["check"](values[f.name])
                except ValueError as error:
                    raise ValueError(f"{f.name} must be {error}, not {values[f.name]!r}") from None
        return cls(**normal, column=column).normal()

    def normal(self) -> Self:
        """The one canonical value among those that mean the same layer."""
        return self

    def bind(self, num_channels: int, num_classes: int) -> Self:
        """The layer with its words replaced: `channels` by what comes in, `classes` by the data set's."""
        numbers = {"channels": num_channels, "classes": num_classes}
        words = {f.name: getattr(self, f.name) for f in self.arguments() if f.metadata["check"] is check_size}
        return replace(self, **{k: numbers[v] for k, v in words.items() if isinstance(v, str)})

    def output_shape(self, shape: Shape) -> Shape:
        """The shape that comes out for `shape` coming in. Raises MisfitError where it does not fit."""
        return shape

    def formula(self, shape: Shape) -> str:
        """How the output size follows from the input size, with the numbers filled in; empty if unchanged."""
        return ""

    def tensors(self, shape: Shape) -> dict[str, Shape]:
        """Name and shape of each tensor of the layer in a model file, buffers included."""
        return {}

    def num_parameters(self, shape: Shape) -> int:
        """How many numbers training changes."""
        return sum(math.prod(s) for s in self.tensors(shape).values())

    def multiply_adds(self, shape: Shape) -> int:
        """Multiplications with a following addition, for one image in inference.

        Convolution and linear layers count their products (bias left out), normalisation and `scale` one per
        value; activations and pooling, which multiply nothing by a weight, count 0.
        """
        return 0

    def padding_words(self, shape: Shape) -> str:
        """What a window meets beyond the edge of maps of `shape`; empty for layers without windows."""
        return ""

    def torch_form(self, shape: Shape) -> TorchForm:
        """The layer in torch.nn, its words bound, for an input of `shape`."""
        positional, keywords = self._shown_arguments()
        return TorchForm(self.torch_name, (*shape[: self.takes_inputs], *positional), keywords)

    def _shown_arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """The values that always stand in the sentence, and by name the others that differ from their defaults."""
        of = {f: getattr(self, f.name) for f in self.arguments()}
        positional = [value for f, value in of.items() if f.metadata["positional"]]
        return positional, {f.name: v for f, v in of.items() if not f.metadata["positional"] and v != f.default}

    def receptive(self, axes: tuple[Axis, Axis], extent: tuple[int, int]) -> tuple[Axis, Axis]:
        """Receptive field of an output unit, from that of its input units.

        `extent` is the (h, w) of the map that comes in (for vectors: of the map that was flattened).
        """
        return axes

    def __str__(self) -> str:
        positional, keywords = self._shown_arguments()
        shown = [*map(_text, positional), *(f"{name}={_text(value)}" for name, value in keywords.items())]
        return f"{self.name}({', '.join(shown)})" if shown else self.name


def _text(value: Any) -> str:
    return value if value in WORDS else repr(value)


def _need_map(layer: Layer, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise MisfitError(
            f"{layer.name} needs maps (channels×height×width), but a vector of {shape[0]} comes in; "
            "put it before flatten"
        )
    return shape[0], shape[1], shape[2]


def _whole_map(axes: tuple[Axis, Axis], extent: tuple[int, int]) -> tuple[Axis, Axis]:
    height, width = (Axis(a.size + (n - 1) * a.step, a.step, a.start) for a, n in zip(axes, extent, strict=True))
    return height, width


@dataclass(frozen=True)
class _Windowed(Layer):
    """A layer that slides a window over its maps. The subclass may have kernel_size, stride, padding, dilation and
    ceil_mode, as torch means them."""

    def kernel(self) -> tuple[int, int]:
        return pair(getattr(self, "kernel_size", 1))

    def strides(self) -> tuple[int, int]:
        stride = getattr(self, "stride", 1)
        return self.kernel() if stride is None else pair(stride)

    def dilations(self) -> tuple[int, int]:
        return pair(getattr(self, "dilation", 1))

    def paddings(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows added (above, below) and columns added (left, right)."""
        high, wide = pair(getattr(self, "padding", 0))
        return (high, high), (wide, wide)

    def rounds_up(self) -> bool:
        return bool(getattr(self, "ceil_mode", False))

    def order_remark(self) -> str:
        """That its arguments may be meant in another order, in words; empty where nothing speaks for it."""
        return ""

    def beyond(self) -> str:
        """What lies in the padding, in words."""
        return "zeros"

    def padding_words(self, shape: Shape) -> str:
        ((above, below), (left, right)), what = self.paddings(), self.beyond()
        if not any((above, below, left, right)):
            return "no padding (valid)"
        if above == below == left == right:
            text = f"padding: {f'{above} {what} all around' if above > 1 else f'a ring of {what}'}"
        else:
            sides = zip((above, below, left, right), ("above", "below", "left", "right"), strict=True)
            text = f"padding: {', '.join(f'{n} {side}' for n, side in sides if n)}, {what}"
        return text + (" (same: keeps the size)" if self.output_shape(shape)[1:] == shape[1:] else "")

    def spans(self) -> tuple[int, int]:
        """Rows and columns from the first to the last that one window reads: d·(k − 1) + 1."""
        (kh, kw), (dh, dw) = self.kernel(), self.dilations()
        return dh * (kh - 1) + 1, dw * (kw - 1) + 1

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) that comes out for (h, w) coming in. Raises MisfitError."""
        out = []
        for n, span, stride, (before, after) in zip(size, self.spans(), self.strides(), self.paddings(), strict=True):
            room = n + before + after
            if room < span:
                fitting = tuple(n + sum(added) for n, added in zip(size, self.paddings(), strict=True))
                padded = f" ({by(fitting)} with its padding)" if fitting != size else ""
                raise MisfitError(
                    f"its window of {by(self.spans())} does not fit the {by(size)} map that comes in{padded}; "
                    + "; ".join(filter(None, [f"at most {by(fitting)} would fit", self.order_remark()]))
                )
            steps = -(-(room - span) // stride) if self.rounds_up() else (room - span) // stride
            if self.rounds_up() and steps * stride >= n + before:
                steps -= 1  # torch: a window must not start in the padding after the map
            out.append(steps + 1)
        return out[0], out[1]

    def formula(self, shape: Shape) -> str:
        size = (shape[1], shape[2])
        texts = [
            self._axis_formula(n, k, s, p, d, out)
            for n, k, s, p, d, out in zip(
                size,
                self.kernel(),
                self.strides(),
                self.paddings(),
                self.dilations(),
                self.output_size(size),
                strict=True,
            )
        ]
        return texts[0] if texts[0] == texts[1] else f"{texts[0]} high, {texts[1]} wide"

    def _axis_formula(self, n: int, k: int, stride: int, padding: tuple[int, int], dilation: int, out: int) -> str:
        before, after = padding
        padded = "" if before == after == 0 else f" + 2·{before}" if before == after else f" + {before} + {after}"
        window = f"{k}" if dilation == 1 else f"({dilation}·({k} − 1) + 1)"
        opening, closing = ("⌈", "⌉") if self.rounds_up() else ("⌊", "⌋")
        steps = -(-(n + before + after - (dilation * (k - 1) + 1)) // stride) + 1 if self.rounds_up() else out
        cut = "" if steps == out else " − 1 (the last window would start in the padding)"
        return f"{opening}({n}{padded} − {window}) / {stride}{closing} + 1{cut} = {out}"

    def receptive(self, axes: tuple[Axis, Axis], extent: tuple[int, int]) -> tuple[Axis, Axis]:
        height, width = (
            Axis(a.size + (span - 1) * a.step, a.step * stride, a.start - before * a.step)
            for a, span, stride, (before, _) in zip(axes, self.spans(), self.strides(), self.paddings(), strict=True)
        )
        return height, width

    def unread(self, size: tuple[int, int]) -> tuple[int, int]:
        """How many rows and columns of the map no window reads."""
        counts = []
        for n, k, d, s, (before, _), out in zip(
            size, self.kernel(), self.dilations(), self.strides(), self.paddings(), self.output_size(size), strict=True
        ):
            if s == d == 1:
                counts.append(0)  # window after window without a gap, up to the last row
                continue
            read = bytearray(n + 2 * before + d * k + out * s)  # the padded map; slices keep this fast
            for j in range(k):
                read[d * j : d * j + out * s : s] = b"\1" * out
            counts.append(read[before : before + n].count(0))
        return counts[0], counts[1]


_LIKE_CHANNELS = 6  # from here on a kernel with a stride may be meant as channels


@dataclass(frozen=True)
class Conv(_Windowed):
    """torch.nn.Conv2d. `padding='same'` puts the odd row or column below and to the right, as torch does."""

    torch_name, takes_inputs = "Conv2d", True

    out_channels: Size = argument(check_size)
    kernel_size: Pair = argument(check_pair(1))
    stride: Pair = argument(check_pair(1), 1)
    padding: Pair | str = argument(check_padding, 0)
    dilation: Pair = argument(check_pair(1), 1)
    groups: Size = argument(check_size, 1)
    bias: bool = argument(check_boolean, True)
    padding_mode: str = argument(check_choice("zeros", "reflect", "replicate", "circular"), "zeros")

    def order_remark(self) -> str:
        # torch's order is (in, out, kernel).
        kernel, stride = self.kernel_size, self.stride
        if (
            not isinstance(kernel, int)
            or not isinstance(stride, int)
            or not 1 < stride < kernel
            or kernel < _LIKE_CHANNELS
        ):
            return ""
        filters = "1 filter" if self.out_channels == 1 else f"{self.out_channels} filters"
        return (
            f"{self} has {filters} of {kernel}×{kernel} at stride {stride}; if {kernel} filters of {stride}×{stride} "
            f"are meant: conv({kernel}, {stride}), how many channels come in is known"
        )

    def beyond(self) -> str:
        words = {"reflect": "mirrored values", "replicate": "repeated edge values"}
        words["circular"] = "values from the far side"
        return words.get(self.padding_mode, "zeros")

    def paddings(self) -> tuple[tuple[int, int], tuple[int, int]]:
        if isinstance(self.padding, str):
            extra_h, extra_w = (span - 1 for span in self.spans())
            return (extra_h // 2, extra_h - extra_h // 2), (extra_w // 2, extra_w - extra_w // 2)
        return super().paddings()

    def output_shape(self, shape: Shape) -> Shape:
        channels, height, width = _need_map(self, shape)
        assert isinstance(self.out_channels, int) and isinstance(self.groups, int), "bind() comes first"
        if self.padding == "same" and self.strides() != (1, 1):
            raise MisfitError("padding='same' needs stride 1; give the padding as a number")
        for what, number in (("channels that come in", channels), ("out_channels", self.out_channels)):
            if number % self.groups:
                raise MisfitError(f"{number} {what} cannot be divided into {self.groups} groups")
        if self.padding_mode in ("reflect", "circular"):
            for n, (before, after) in zip((height, width), self.paddings(), strict=True):
                most = n - 1 if self.padding_mode == "reflect" else n
                if max(before, after) > most:
                    raise MisfitError(
                        f"padding_mode={self.padding_mode!r} can add at most {most} to a {by((height, width))} map, "
                        f"not {max(before, after)}"
                    )
        return (self.out_channels, *self.output_size((height, width)))

    def tensors(self, shape: Shape) -> dict[str, Shape]:
        assert isinstance(self.out_channels, int) and isinstance(self.groups, int), "bind() comes first"
        weight = (self.out_channels, shape[0] // self.groups, *self.kernel())
        return {"weight": weight, "bias": (self.out_channels,)} if self.bias else {"weight": weight}

    def multiply_adds(self, shape: Shape) -> int:
        _, out_h, out_w = self.output_shape(shape)
        return out_h * out_w * math.prod(self.tensors(shape)["weight"])


@dataclass(frozen=True)
class ZeroPad(_Windowed):
    """torch.nn.ZeroPad2d: rows and columns of zeros around each map; as a layer with windows of 1×1."""

    torch_name = "ZeroPad2d"

    left: int = argument(whole(0, MAX_PIXELS))
    right: int = argument(whole(0, MAX_PIXELS))
    top: int = argument(whole(0, MAX_PIXELS))
    bottom: int = argument(whole(0, MAX_PIXELS))

    def paddings(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (self.top, self.bottom), (self.left, self.right)

    def output_shape(self, shape: Shape) -> Shape:
        channels, height, width = _need_map(self, shape)
        return (channels, *self.output_size((height, width)))

    def torch_form(self, shape: Shape) -> TorchForm:
        return TorchForm(self.torch_name, ((self.left, self.right, self.top, self.bottom),))

    def _axis_formula(self, n: int, k: int, stride: int, padding: tuple[int, int], dilation: int, out: int) -> str:
        return f"{n} + {padding[0]} + {padding[1]} = {out}"


@dataclass(frozen=True)
class _Pool(_Windowed):
    kernel_size: Pair = argument(check_pair(1))
    stride: Pair | None = argument(check_optional(check_pair(1)), None)
    padding: Pair = argument(check_pair(0), 0)

    def normal(self) -> Self:
        return replace(self, stride=None) if self.stride == self.kernel_size else self

    def output_shape(self, shape: Shape) -> Shape:
        channels, height, width = _need_map(self, shape)
        for k, (padding, _) in zip(self.kernel(), self.paddings(), strict=True):
            if padding > k // 2:
                raise MisfitError(f"padding may be at most half the window: {k // 2}, not {padding}")
        return (channels, *self.output_size((height, width)))


@dataclass(frozen=True)
class MaxPool(_Pool):
    """torch.nn.MaxPool2d; the stride is the window's size unless given."""

    torch_name = "MaxPool2d"

    dilation: Pair = argument(check_pair(1), 1)
    ceil_mode: bool = argument(check_boolean, False)

    def beyond(self) -> str:
        return "places that do not count"

    def output_shape(self, shape: Shape) -> Shape:
        found = super().output_shape(shape)
        for n, out, k, d, s, (before, _) in zip(
            shape[1:], found[1:], self.kernel(), self.dilations(), self.strides(), self.paddings(), strict=True
        ):
            # A window that begins inside of the map reads its first value; those before it may miss it altogether.
            for start in range(-before, min(0, (out - 1) * s - before + 1), s):
                if not any(0 <= start + d * tap < n for tap in range(k)):
                    raise MisfitError(
                        f"a window of it lies wholly in the padding of the {by(shape[1:])} map that comes in and has "
                        "no largest value; use less padding or dilation"
                    )
        return found


@dataclass(frozen=True)
class AvgPool(_Pool):
    """torch.nn.AvgPool2d; the stride is the window's size unless given."""

    torch_name = "AvgPool2d"

    ceil_mode: bool = argument(check_boolean, False)
    count_include_pad: bool = argument(check_boolean, True)

    def beyond(self) -> str:
        return "zeros" if self.count_include_pad else "places that do not count"


@dataclass(frozen=True)
class _GlobalPool(Layer):
    def torch_form(self, shape: Shape) -> TorchForm:
        return TorchForm(self.torch_name, (1,))

    def output_shape(self, shape: Shape) -> Shape:
        return (_need_map(self, shape)[0], 1, 1)

    def formula(self, shape: Shape) -> str:
        return f"one value for each whole {by(shape[1:])} map"

    def receptive(self, axes: tuple[Axis, Axis], extent: tuple[int, int]) -> tuple[Axis, Axis]:
        return _whole_map(axes, extent)


@dataclass(frozen=True)
class GlobalAvgPool(_GlobalPool):
    """torch.nn.AdaptiveAvgPool2d(1): the mean of each map, C×1×1."""

    torch_name = "AdaptiveAvgPool2d"


@dataclass(frozen=True)
class GlobalMaxPool(_GlobalPool):
    """torch.nn.AdaptiveMaxPool2d(1): the largest value of each map, C×1×1."""

    torch_name = "AdaptiveMaxPool2d"


@dataclass(frozen=True)
class BatchNorm(Layer):
    """torch.nn.BatchNorm2d (BatchNorm1d after flatten). `scale=False` fixes the weight at 1 (airbench)."""

    eps: float = argument(real(1e-12, 1.0), 1e-5)
    momentum: float = argument(real(0.0, 1.0), 0.1)
    scale: bool = argument(check_boolean, True)

    def tensors(self, shape: Shape) -> dict[str, Shape]:
        c = (shape[0],)
        return {"weight": c, "bias": c, "running_mean": c, "running_var": c, "num_batches_tracked": ()}

    def torch_form(self, shape: Shape) -> TorchForm:
        keywords = {name: v for name, v in self._shown_arguments()[1].items() if name != "scale"}
        name = "BatchNorm2d" if len(shape) == 3 else "BatchNorm1d"
        return TorchForm(name, (shape[0],), keywords, () if self.scale else ("weight",))

    def num_parameters(self, shape: Shape) -> int:
        return shape[0] * (2 if self.scale else 1)

    def multiply_adds(self, shape: Shape) -> int:
        return math.prod(shape)


@dataclass(frozen=True)
class GroupNorm(Layer):
    """torch.nn.GroupNorm: each group of channels is normalised over the whole map."""

    num_groups: Size = argument(check_size)
    eps: float = argument(real(1e-12, 1.0), 1e-5)
    affine: bool = argument(check_boolean, True)

    def output_shape(self, shape: Shape) -> Shape:
        assert isinstance(self.num_groups, int), "bind() comes first"
        if shape[0] % self.num_groups:
            raise MisfitError(f"{shape[0]} channels cannot be divided into {self.num_groups} groups")
        if math.prod(shape) == self.num_groups:
            raise MisfitError("each group has a single value, whose normalised value is always 0; use fewer groups")
        return shape

    def torch_form(self, shape: Shape) -> TorchForm:
        form = super().torch_form(shape)
        return form._replace(arguments=(*form.arguments, shape[0]))

    def tensors(self, shape: Shape) -> dict[str, Shape]:
        return {"weight": (shape[0],), "bias": (shape[0],)} if self.affine else {}

    def multiply_adds(self, shape: Shape) -> int:
        return math.prod(shape)

    def receptive(self, axes: tuple[Axis, Axis], extent: tuple[int, int]) -> tuple[Axis, Axis]:
        return _whole_map(axes, extent)  # every value of a group's maps moves its mean and variance


@dataclass(frozen=True)
class Activation(Layer):
    """A function of each value alone."""


@dataclass(frozen=True)
class ReLU(Activation):
    """max(0, x)"""


@dataclass(frozen=True)
class ReLU6(Activation):
    """min(max(0, x), 6)"""


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """x where positive, else negative_slope · x"""

    negative_slope: float = argument(real(0.0, 10.0), 0.01)


@dataclass(frozen=True)
class GELU(Activation):
    """x · Φ(x), exactly or by its tanh approximation"""

    approximate: str = argument(check_choice("none", "tanh"), "none")


@dataclass(frozen=True)
class SiLU(Activation):
    """x · sigmoid(x)"""


@dataclass(frozen=True)
class Hardswish(Activation):
    """x · relu6(x + 3) / 6"""


@dataclass(frozen=True)
class Tanh(Activation):
    """tanh(x)"""


@dataclass(frozen=True)
class Sigmoid(Activation):
    """1 / (1 + e^-x)"""


@dataclass(frozen=True)
class Dropout(Layer):
    """torch.nn.Dropout: in training each value is zeroed with probability p, the others divided by 1 − p."""

    p: float = argument(real(0.0, 0.99), 0.5, always_shown=True)


@dataclass(frozen=True)
class Flatten(Layer):
    """torch.nn.Flatten: C×H×W to one vector, channel by channel, row by row."""

    def output_shape(self, shape: Shape) -> Shape:
        _need_map(self, shape)
        return (math.prod(shape),)

    def formula(self, shape: Shape) -> str:
        return f"{'·'.join(map(str, shape))} = {math.prod(shape)}"


@dataclass(frozen=True)
class Linear(Layer):
    """torch.nn.Linear: every number that comes in takes part in every number that goes out."""

    takes_inputs = True

    out_features: Size = argument(check_size)
    bias: bool = argument(check_boolean, True)

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 1:
            raise MisfitError(f"linear needs a vector, but {by(shape)} maps come in; put flatten before it")
        assert isinstance(self.out_features, int), "bind() comes first"
        return (self.out_features,)

    def tensors(self, shape: Shape) -> dict[str, Shape]:
        assert isinstance(self.out_features, int), "bind() comes first"
        weight = (self.out_features, shape[0])
        return {"weight": weight, "bias": (self.out_features,)} if self.bias else {"weight": weight}

    def multiply_adds(self, shape: Shape) -> int:
        return math.prod(self.tensors(shape)["weight"])

    def receptive(self, axes: tuple[Axis, Axis], extent: tuple[int, int]) -> tuple[Axis, Axis]:
        return _whole_map(axes, extent)


@dataclass(frozen=True)
class Scale(Layer):
    """Each value times a fixed factor."""

    factor: float = argument(real(-1e6, 1e6))

    def multiply_adds(self, shape: Shape) -> int:
        return math.prod(shape)


# ---------------------------------------------------------------- composites


@dataclass(frozen=True)
class Repeat(Layer):
    """`body`, `times` times over, each copy with weights of its own."""

    times: int
    body: tuple[Layer, ...]

    def __str__(self) -> str:
        return f"repeat({self.times}, {chain_text(self.body)})"


@dataclass(frozen=True)
class Residual(Layer):
    """body(x) + shortcut(x); without a shortcut body(x) + x (He et al., 2015, arXiv:1512.03385)."""

    body: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()

    def __str__(self) -> str:
        shortcut = f" | {chain_text(self.shortcut)}" if self.shortcut else ""
        return f"residual({chain_text(self.body)}{shortcut})"


def chain_text(layers: tuple[Layer, ...]) -> str:
    """Layers as the sentence writes them, one space between."""
    return " ".join(str(layer) for layer in layers)


_KINDS = [kind for kind in globals().values() if isinstance(kind, type) and issubclass(kind, Layer)]
SIMPLE_LAYERS: dict[str, type[Layer]] = {
    kind.name: kind
    for kind in _KINDS
    if not kind.__name__.startswith("_") and kind not in (Layer, Activation, Repeat, Residual)
}
LAYER_NAMES = (*SIMPLE_LAYERS, Repeat.name, Residual.name)
