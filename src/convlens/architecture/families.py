"""Known architectures as sentences, and what others call their layers.

Owns EfficientNet-Lite (Google, 2020: EfficientNet, Tan and Le, 2019, arXiv:1905.11946, without squeeze-and-excitation
and with relu6), ResNet (He et al., 2015, arXiv:1512.03385, with its stride in the 3×3 convolution) and MobileNetV2
(Sandler et al., 2018, arXiv:1801.04381). Each is made for a size, because TensorFlow's SAME padding, which
EfficientNet-Lite was trained with, is uneven on even maps and even on odd ones. Knows no weights.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from convlens.errors import UsageError
from convlens.text import did_you_mean, shown


@dataclass(frozen=True)
class Block:
    """A layer or a block of them: its part of the sentence, and the modules that have tensors in it, in the order of
    the sentence, as each namer names them."""

    text: str
    names: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Family:
    """An architecture: `side` is the size of pictures, in pixels, that it was made for, `blocks` its blocks for another
    size, `namers` who names its modules in one of the ways that its blocks know."""

    name: str
    side: int
    blocks: Callable[[int], list[Block]]
    namers: tuple[str, ...]

    def sentence(self, side: int | None = None) -> str:
        """The whole network for RGB pictures of that many pixels a side."""
        return " ".join(block.text for block in self.blocks(side or self.side))

    def modules(self) -> dict[str, tuple[str, ...]]:
        """What each namer calls the modules with tensors, in the order of the sentence's leaves."""
        every = [names for block in self.blocks(self.side) for names in block.names]
        return {namer: tuple(names[at] for names in every) for at, namer in enumerate(self.namers)}


# ---------------------------------------------------------------- EfficientNet-Lite

_SCALED = {0: (1.0, 1.0, 224, 0.2), 1: (1.0, 1.1, 240, 0.2), 2: (1.1, 1.2, 260, 0.3)}  # width, depth, side, dropout
_STAGES = (  # repeats, kernel, stride, expansion, out
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_LITE_NORM = "batchnorm(eps=0.001)"


def _efficientnet_lite(number: int) -> Callable[[int], list[Block]]:
    width, depth, _, dropout = _SCALED[number]

    def blocks(side: int) -> list[Block]:
        # The stem, the head, and the repeats of the first and the last stage are not scaled.
        found = [Block(f"{_same(32, 3, 2, side)} {_LITE_NORM} relu6", (("_conv_stem", "conv_stem"), ("_bn0", "bn1")))]
        side, channels, place = -(-side // 2), 32, 0
        for stage, (repeats, kernel, stride, expansion, out) in enumerate(_STAGES):
            out = _rounded(out * width)
            if stage not in (0, len(_STAGES) - 1):
                repeats = math.ceil(round(repeats * depth, 3))
            for copy in range(repeats):
                first = stride if copy == 0 else 1
                text = _inverted(channels, kernel, first, expansion, out, side, _LITE_NORM)
                found.append(Block(text, tuple(_lite_names(place, stage, copy, expansion > 1))))
                side, channels, place = -(-side // first), out, place + 1
        found.append(
            Block(f"conv(1280, 1, bias=False) {_LITE_NORM} relu6", (("_conv_head", "conv_head"), ("_bn1", "bn2")))
        )
        return [*found, Block(f"globalavgpool flatten dropout({dropout}) linear(classes)", (("_fc", "classifier"),))]

    return blocks


def _lite_names(place: int, stage: int, copy: int, is_expanded: bool) -> Iterator[tuple[str, str]]:
    one, other = f"_blocks.{place}.", f"blocks.{stage}.{copy}."
    if is_expanded:
        parts = [("_expand_conv", "conv_pw"), ("_bn0", "bn1"), ("_depthwise_conv", "conv_dw"), ("_bn1", "bn2")]
        parts += [("_project_conv", "conv_pwl"), ("_bn2", "bn3")]
    else:
        parts = [("_depthwise_conv", "conv_dw"), ("_bn1", "bn1"), ("_project_conv", "conv_pw"), ("_bn2", "bn2")]
    for package, timm in parts:
        yield one + package, other + timm


def _rounded(channels: float) -> int:
    """To a multiple of 8, at least nine tenths of it."""
    found = max(8, int(channels + 4) // 8 * 8)
    return found + 8 if found < 0.9 * channels else found


def _same(channels: int | str, kernel: int, stride: int, side: int, groups: str = "") -> str:
    """A convolution with TensorFlow's SAME padding on a map of that side: ⌈side / stride⌉ comes out, the odd row and
    column lie below and to the right."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    before, after = total // 2, total - total // 2
    options = f"{', stride=2' if stride == 2 else ''}{f', padding={before}' if before == after > 0 else ''}{groups}"
    conv = f"conv({channels}, {kernel}{options}, bias=False)"
    return conv if before == after else f"zeropad({before}, {after}, {before}, {after}) {conv}"


# ---------------------------------------------------------------- inverted residuals


def _inverted(channels: int, kernel: int, stride: int, expansion: int, out: int, side: int, norm: str) -> str:
    """Expanded, filtered each channel by itself, and projected, with TensorFlow's SAME padding; a residual where the
    shape stays."""
    wide = f"conv({channels * expansion}, 1, bias=False) {norm} relu6 " if expansion > 1 else ""
    filtered = _same("channels", kernel, stride, side, ", groups=channels")
    text = f"{wide}{filtered} {norm} relu6 conv({out}, 1, bias=False) {norm}"
    return f"residual({text})" if stride == 1 and channels == out else text


def _mobilenetv2(side: int) -> list[Block]:
    found = [
        Block(
            "conv(32, 3, stride=2, padding=1, bias=False) batchnorm relu6",
            (("features.0.0", "conv_stem"), ("features.0.1", "bn1")),
        )
    ]
    channels, place = 32, 1
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for stage, (expansion, out, repeats, stride) in enumerate(stages):
        for copy in range(repeats):
            first = stride if copy == 0 else 1
            # An odd side's SAME padding is one all around, as this network has it at every side.
            text = _inverted(channels, 3, first, expansion, out, 7, "batchnorm")
            found.append(Block(text, tuple(_mobilenet_names(place, stage, copy, expansion > 1))))
            channels, place = out, place + 1
    found.append(
        Block("conv(1280, 1, bias=False) batchnorm relu6", (("features.18.0", "conv_head"), ("features.18.1", "bn2")))
    )
    return [*found, Block("globalavgpool flatten dropout(0.2) linear(classes)", (("classifier.1", "classifier"),))]


def _mobilenet_names(place: int, stage: int, copy: int, is_expanded: bool) -> Iterator[tuple[str, str]]:
    one, other = f"features.{place}.conv.", f"blocks.{stage}.{copy}."
    if is_expanded:
        parts = [
            ("0.0", "conv_pw"),
            ("0.1", "bn1"),
            ("1.0", "conv_dw"),
            ("1.1", "bn2"),
            ("2", "conv_pwl"),
            ("3", "bn3"),
        ]
    else:
        parts = [("0.0", "conv_dw"), ("0.1", "bn1"), ("1", "conv_pw"), ("2", "bn2")]
    for torchvision, timm in parts:
        yield one + torchvision, other + timm


# ---------------------------------------------------------------- ResNet


def _resnet(repeats: tuple[int, ...], is_bottleneck: bool) -> Callable[[int], list[Block]]:
    def blocks(side: int) -> list[Block]:
        stem = "conv(64, 7, stride=2, padding=3, bias=False) batchnorm relu maxpool(3, stride=2, padding=1)"
        found, channels = [Block(stem, (("conv1",), ("bn1",)))], 64
        for stage, times in enumerate(repeats):
            width = 64 * 2**stage
            out = 4 * width if is_bottleneck else width
            for copy in range(times):
                stride = ", stride=2" if stage and copy == 0 else ""
                wide = f"conv({width}, 3{stride}, padding=1, bias=False) batchnorm relu"
                if is_bottleneck:
                    text = f"conv({width}, 1, bias=False) batchnorm relu {wide} conv({out}, 1, bias=False) batchnorm"
                else:
                    text = f"{wide} conv({out}, 3, padding=1, bias=False) batchnorm"
                is_new = bool(stride) or channels != out
                shortcut = f" | conv({out}, 1{stride}, bias=False) batchnorm" if is_new else ""
                parts = [f"{kind}{n}" for n in range(1, 4 if is_bottleneck else 3) for kind in ("conv", "bn")]
                parts += ["downsample.0", "downsample.1"] if is_new else []
                names = tuple((f"layer{stage + 1}.{copy}.{part}",) for part in parts)
                found.append(Block(f"residual({text}{shortcut}) relu", names))
                channels = out
        return [*found, Block("globalavgpool flatten linear(classes)", (("fc",),))]

    return blocks


_TIMM_TOO = ("torchvision or timm",)
FAMILIES = {
    family.name: family
    for family in (
        *(
            Family(f"efficientnet-lite{n}", scaled[2], _efficientnet_lite(n), ("efficientnet_lite_pytorch", "timm"))
            for n, scaled in _SCALED.items()
        ),
        Family("mobilenetv2", 224, _mobilenetv2, ("torchvision", "timm")),
        Family("resnet18", 224, _resnet((2, 2, 2, 2), False), _TIMM_TOO),
        Family("resnet50", 224, _resnet((3, 4, 6, 3), True), _TIMM_TOO),
    )
}


def family(name: str) -> Family:
    """The architecture of that name. Raises UsageError."""
    if name not in FAMILIES:
        raise UsageError(f"no architecture {shown(name)!r}{did_you_mean(name, list(FAMILIES))}; {', '.join(FAMILIES)}")
    return FAMILIES[name]
