"""Presets: a sentence and a recipe under one name, with what they were measured to give.

Times are of training on two cores with AVX-512 bf16; accuracies are on MNIST's test images as mean ± standard
deviation over seeds. docs/records.md says how each was measured.
"""

from dataclasses import dataclass
from typing import Any

from convlens.architecture import parse, plan
from convlens.architecture.families import family
from convlens.architecture.layers import Shape
from convlens.checks import checked, choice
from convlens.data.image.framing import MAX_SIDE
from convlens.errors import SentenceError
from convlens.recipe import Recipe


@dataclass(frozen=True)
class Preset:
    """A named plan. `expected` is what was measured: time, accuracy, number of seeds. `parent` is the model that it
    starts from, if any."""

    name: str
    architecture: str
    recipe: Recipe
    about: str
    expected: str
    parent: str | None = None


TUTORIAL = Preset(
    name="tutorial",
    architecture=(
        "conv(32, 5, padding=2) relu maxpool(2) conv(64, 5, padding=2) relu maxpool(2) "
        "flatten dropout(0.5) linear(1000) linear(classes)"
    ),
    recipe=Recipe(
        optimizer="adam",
        lr=0.01,
        betas=(0.9, 0.999),
        schedule="constant",
        warmup_frac=0.0,
        epochs=10,
        batch_size=200,
        precision="float32",
    ),
    about="the tutorial's network and recipe, exactly, in float32",
    expected="about 6 min; 44.9 ± 46.4 % (5 seeds, 3 of them stuck at chance)",
)

TUTORIAL_FAST = Preset(
    name="tutorial-fast",
    architecture=TUTORIAL.architecture,
    recipe=Recipe(optimizer="muon", lr=0.003, muon_lr=0.06, momentum=0.9, label_smoothing=0.1, shift_px=1, epochs=3),
    about="the tutorial's network, exactly, with a recipe of ours",
    expected="about 49 s; 99.43 ± 0.03 % (5 seeds, all 60,000 images)",
)

STANDARD = Preset(
    name="standard",
    architecture=(
        "conv(16, 5, stride=2, bias=False) batchnorm relu "
        "conv(48, 3, bias=False) maxpool(2) batchnorm relu "
        "conv(96, 3, bias=False) batchnorm relu "
        "flatten linear(classes)"
    ),
    recipe=Recipe(lr=0.02, weight_decay=0.01, label_smoothing=0.1, shift_px=2, epochs=7),
    about="the default: three convolutions with batch norm, shifts, label smoothing",
    expected="about 21 s; 99.57 ± 0.04 % (10 seeds)",
)

FAST = Preset(
    name="fast",
    architecture=(
        "conv(16, 5, stride=2, bias=False) batchnorm relu "
        "conv(32, 3, bias=False) maxpool(2) batchnorm relu "
        "conv(64, 3, bias=False) batchnorm relu "
        "flatten linear(classes)"
    ),
    recipe=Recipe(lr=0.02, betas=(0.7, 0.9), weight_decay=0.01, label_smoothing=0.1, epochs=0.5),
    about="99 % within a second or two",
    expected="about 1.1 s; 99.09 ± 0.07 % (20 seeds, all 60,000 images)",
)

_BLOCK = "batchnorm gelu"
_FIRST = "conv(24, 2) gelu"


def _conv(num: int) -> str:
    return f"conv({num}, 3, padding=1, bias=False)"


def natural_network(width: int = 32, depth: int = 1) -> str:
    """A network of preset `natural`'s kind, after airbench's (K. Jordan, 2024): a small convolution, then stages of
    `width`, four and four times as many channels, each a convolution, a pooling and a convolution, and `depth` - 1
    residual pairs (He et al., 2016)."""
    parts = [_FIRST]
    for num in (width, 4 * width, 4 * width):
        pair = f"residual({_conv(num)} {_BLOCK} {_conv(num)} batchnorm) gelu "
        parts.append(f"{_conv(num)} maxpool(2) {_BLOCK} {_conv(num)} {_BLOCK} " + pair * (depth - 1))
    parts.append("globalmaxpool flatten linear(classes, bias=False) scale(0.125)")
    return " ".join(" ".join(parts).split())


NATURAL = Preset(
    name="natural",
    architecture=natural_network(),
    recipe=Recipe(
        optimizer="muon",
        lr=0.01,
        muon_lr=0.06,
        momentum=0.7,
        weight_decay=0.02,
        warmup_frac=0.0,
        label_smoothing=0.1,
        shift_px=2,
        flip=True,
        views="mirror",
        epochs=16,
        batch_size=128,
    ),
    about="small RGB photographs: seven convolutions with batch norm, mirrored and shifted",
    expected="about 35 s; 97.25 ± 0.39 % of the test images of natural8_30px (3 seeds)",
)
ACCURATE = Preset(
    name="accurate",
    architecture=natural_network(48),
    recipe=NATURAL.recipe.replace(
        flip=False,
        views="none",
        rotate_deg=12,
        scale_frac=0.15,
        shear_deg=10,
        grow_from=0.5,
        epochs=12,
        batch_size=256,
    ),
    about="MNIST and its kin, in minutes: seven convolutions with batch norm, shifted, turned, scaled and slanted",
    expected="about 5 min with AMX; 99.74 ± 0.02 % (5 seeds)",
)
PHOTO = Preset(
    name="photo",
    architecture=family("efficientnet-lite0").sentence(),
    recipe=Recipe(head="logistic", freeze="head", epochs=0, batch_size=16),
    about="photographs: EfficientNet-Lite0 with ImageNet's weights, and a head fitted to its outputs",
    expected="at most 3 min; 92.09 ± 1.01 % of the test images of trashnet_256 (3 seeds, chosen by `train FOLDER`)",
    parent="efficientnet-lite0",
)
PHOTO_FRAMING = "stretch"  # measured: docs/photographs.md
FINE_TUNING: dict[str, Any] = {  # what `photo` changes, where the last stages learn too after the head was fitted
    "lr": 0.001,
    "weight_decay": 0.05,
    "schedule": "cosine",
    "warmup_frac": 0.1,
    "label_smoothing": 0.1,
    "flip": True,
    "crop_frac": 0.4,
    "ema": 0.98,
}
_STEM = f"conv(16, 3, stride=2, padding=1, bias=False) {_BLOCK} "
_MOST_SIDE = 48  # of what `natural` itself sees: larger pictures are halved first


def natural_for(height: int, width: int, channels: int = 32, depth: int = 1) -> str:
    """The sentence of a network of preset `natural`'s kind for pictures of this size.

    Before it one convolution of stride 2 for each halving that brings the shorter side to 48 pixels or less; of those
    too small for its three poolings the last ones are left out, and of a single row or column its first convolution.
    """
    stems, side = 0, min(height, width)
    while side > _MOST_SIDE:
        stems, side = stems + 1, (side + 1) // 2
    whole = natural_network(channels, depth)
    parts = (whole if side > 1 else whole.removeprefix(f"{_FIRST} ")).split(" maxpool(2)")
    pooled = min(len(parts) - 1, max(1, side - 1).bit_length() - 1)
    return _STEM * stems + " maxpool(2)".join(parts[: pooled + 1]) + "".join(parts[pooled + 1 :])


PRESETS = {preset.name: preset for preset in (STANDARD, FAST, ACCURATE, NATURAL, PHOTO, TUTORIAL_FAST, TUTORIAL)}
SIZED = (NATURAL.name, ACCURATE.name)  # of the family, whose size a time that is asked for decides
DEFAULT_PRESET = STANDARD.name


def preset_named(name: str) -> Preset:
    """Raises UsageError for an unknown name, with the nearest."""
    return PRESETS[checked("preset", name, choice(PRESETS))]


def what_it_takes(preset: Preset, input_shape: Shape, num_classes: int) -> str:
    """The one line for images (C, H, W) that a preset cannot take: which it needs."""
    channels, height, width = input_shape

    def fits(side: int) -> bool:
        try:
            plan(parse(preset.architecture), (channels, side, side), num_classes)
        except SentenceError:
            return False
        return True

    sides = [side for side in range(1, MAX_SIDE + 1) if fits(side)]
    line = f"preset {preset.name!r} cannot take images of {height}×{width} pixels with {channels} channel"
    line += "s: " if channels != 1 else ": "
    if not sides:
        return f"{line}it takes none with so many channels; use another preset, or `architecture`"
    return (
        f"{line}it needs {sides[0]}×{sides[0]} to {sides[-1]}×{sides[-1]}; "
        "use `size`, another preset, or an `architecture` of your own"
    )
