"""What several test files make in the same way: small folders, short trainings, comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import convlens
from convlens import cli
from convlens.data.packed.dataset import Dataset
from convlens.modelfile import read_model
from convlens.presets import PRESETS
from convlens.recipe import Recipe
from convlens.run import Run
from tests.conftest import QUICK, TINY

TINY_COLOUR = (
    "conv(8, 3, padding=1, bias=False) batchnorm relu maxpool(2) conv(16, 3, padding=1) relu globalmaxpool "
    "flatten linear(classes)"
)


def trained_on(data: Any, **options: Any) -> Run:
    return convlens.train(data, progress="none", **{"architecture": TINY, "recipe": QUICK, **options})


FROM_NOTHING = [name for name, preset in PRESETS.items() if preset.parent is None]
SHORT = Recipe(lr=0.01, epochs=1, batch_size=16, precision="float32")
NET = (
    "conv(6, 3, padding=1, bias=False) batchnorm relu maxpool(2) conv(8, 3, padding=1) relu globalavgpool flatten "
    "linear(classes)"
)


def scene(seed: int, side: int = 64) -> Image.Image:
    """A picture unlike any other: smooth colours and some shapes."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
    fine = rng.integers(0, 256, (side // 3, side // 3), dtype=np.uint8)
    coarse, detail = (
        np.asarray(Image.fromarray(part).resize((side, side), Image.Resampling.BICUBIC)).astype(int)
        for part in (small, fine)
    )
    return Image.fromarray((coarse + (detail[:, :, None] - 128) // 3).clip(0, 255).astype(np.uint8))


def folder(root: Path, numbers: range, classes: tuple[str, ...] = ("ant", "bee")) -> Path:
    for number in numbers:
        place = root / classes[number % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        scene(number, 20).save(place / f"{number}.png")
    return root


def trained(data: object, **options: object) -> Run:
    return convlens.train(data, progress="none", **({"architecture": NET, "recipe": SHORT} | options))  # type: ignore[arg-type]


def splits(dataset: Dataset) -> dict[str, str]:
    names = dataset.sample_names()
    return {names[row]: split for split in ("train", "val", "test") for row in dataset.rows(split).tolist()}


ROOT = Path(__file__).resolve().parent.parent
SOURCE = Path(convlens.__file__).parent  # of a wheel, in `make test-all`
COMMANDS = [info.callback.__name__ for info in cli.app.registered_commands if info.callback is not None]
PLAIN = Recipe(lr=0.02, epochs=2, batch_size=32, precision="float32")
Tensors = dict[str, np.ndarray[Any, Any]]


def same(a: Tensors, b: Tensors) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def read_lines(path: Path) -> list[Any]:
    """The JSON values of a file of lines; absent: none."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def weights(run: convlens.Run) -> Tensors:
    return read_model(run.model).tensors
