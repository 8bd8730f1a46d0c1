"""Presets: a sentence and a recipe under one name, with what they were measured to give.

Times are of training on two cores with AVX-512 bf16; accuracies are on MNIST's test images as mean ± standard
deviation over seeds. docs/records.md says how each was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from convlens.errors import UsageError, did_you_mean, shown
from convlens.recipe import Recipe


@dataclass(frozen=True)
class Preset:
    """A named plan. `expected` is what was measured on MNIST: time, accuracy, number of seeds."""

    name: str
    architecture: str
    recipe: Recipe
    about: str
    expected: str


TUTORIAL = Preset(
    name="tutorial",
    architecture=(
        "conv(32, 5, padding=2) relu maxpool(2) conv(64, 5, padding=2) relu maxpool(2) "
        "flatten dropout(0.5) linear(1000) linear(classes)"
    ),
    recipe=Recipe(
        optimizer="adam", lr=0.01, betas=(0.9, 0.999), schedule="constant", warmup_frac=0.0,
        epochs=10, batch_size=200, precision="float32",
    ),
    about="the tutorial's network and recipe, exactly, in float32",
    expected="about 6 min; 44.9 ± 46.4 % (5 seeds, 3 of them stuck at chance)",
)  # fmt: skip

STANDARD = Preset(
    name="standard",
    architecture=(
        "conv(24, 5, stride=2, padding=2, bias=False) batchnorm relu "
        "conv(48, 3, padding=1, bias=False) maxpool(2) batchnorm relu "
        "conv(96, 3, padding=1, bias=False) maxpool(2) batchnorm relu "
        "flatten linear(classes)"
    ),
    recipe=Recipe(lr=0.01, weight_decay=0.01, label_smoothing=0.1, shift_px=2, epochs=8),
    about="the default: three convolutions with batch norm, shifts, label smoothing",
    expected="about 55 s; 99.55 ± 0.05 % (5 seeds)",
)

FAST = Preset(
    name="fast",
    architecture=(
        "conv(16, 5, stride=2, padding=2, bias=False) batchnorm relu "
        "conv(32, 3, padding=1, bias=False) maxpool(2) batchnorm relu "
        "conv(64, 3, padding=1, bias=False) maxpool(2) batchnorm relu "
        "flatten linear(classes)"
    ),
    recipe=Recipe(lr=0.01, betas=(0.7, 0.9), weight_decay=0.01, epochs=1),
    about="about 99 % within seconds",
    expected="about 4.7 s; 99.15 ± 0.07 % (5 seeds)",
)

PRESETS = {preset.name: preset for preset in (STANDARD, FAST, TUTORIAL)}
DEFAULT_PRESET = STANDARD.name


def preset_named(name: str) -> Preset:
    """Raises UsageError for an unknown name, with the nearest."""
    if name not in PRESETS:
        raise UsageError(f"unknown preset {shown(name)!r}{did_you_mean(name, PRESETS)}: there are {', '.join(PRESETS)}")
    return PRESETS[name]
