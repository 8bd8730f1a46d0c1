"""The tutorial's program as it was published, against `convlens train --preset tutorial`, alternated.

Both train the same network with the same recipe in float32 on all 60,000 training images. The published program
is retold in our own words: a data set that makes one normalised tensor at a time from a PIL image, torch's
DataLoader, `Adam(lr=0.01)`, and an accuracy measured on the training images with dropout switched on. What is
timed is the training alone, from the network's construction to the last step.

    python bench/tutorial.py [--epochs 1] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import convlens
from convlens.data import mnist
from convlens.training.setup import versions

MEAN, STD = 0.1307, 0.3081


class OneAtATime(Dataset[tuple[Tensor, int]]):
    """MNIST as tutorials load it: array to PIL image to float tensor to normalised tensor, for each image anew."""

    def __init__(self, images_NHW: NDArray[np.uint8], labels_N: NDArray[np.int64]) -> None:
        self.images_NHW, self.labels_N = images_NHW, labels_N

    def __len__(self) -> int:
        return len(self.labels_N)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images_NHW[index])
        tensor = torch.from_numpy(np.array(image)).view(1, *image.size[::-1]).to(torch.float32).div(255)
        return tensor.sub_(MEAN).div_(STD), int(self.labels_N[index])


class TutorialNetwork(nn.Module):
    """Two blocks of convolution, ReLU and max pooling; dropout; two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.block1 = nn.Sequential(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        self.block2 = nn.Sequential(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        self.dropout = nn.Dropout(0.5)
        self.dense1, self.dense2 = nn.Linear(3136, 1000), nn.Linear(1000, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.block1(x)).flatten(1)
        logits: Tensor = self.dense2(self.dense1(self.dropout(x)))
        return logits


def published(epochs: int, seed: int) -> dict[str, Any]:
    """Train as published; the accuracy it would print, and the honest one on the test images."""
    torch.manual_seed(seed)
    images, labels = mnist.arrays("train")
    loader = DataLoader(OneAtATime(images[..., 0], labels), batch_size=200, shuffle=True)
    started = time.perf_counter()
    network = TutorialNetwork()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(epochs):
        for x, y in loader:
            loss = nn.functional.cross_entropy(network(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    train_s = time.perf_counter() - started
    as_published = _accuracy(network.train(), images[:10_000], labels[:10_000])
    honest = _accuracy(network.eval(), *mnist.arrays("test"))
    return {"train_s": train_s, "accuracy_as_published": as_published, "accuracy": honest}


@torch.no_grad()
def _accuracy(network: nn.Module, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    x = (torch.from_numpy(images[..., 0].copy()).float().div(255).unsqueeze(1) - MEAN) / STD
    right = 0
    for start in range(0, len(x), 500):
        predicted = network(x[start : start + 500]).argmax(1).numpy()
        right += int((predicted == labels[start : start + 500]).sum())
    return right / len(x)


def ours(epochs: int, seed: int, folder: Path) -> dict[str, Any]:
    """The preset `tutorial` for as many epochs."""
    recipe = convlens.PRESETS["tutorial"].recipe.replace(epochs=epochs)
    run = convlens.train("mnist", preset="tutorial", recipe=recipe, seed=seed, val_frac=0, out=folder / f"run-{seed}")
    return {"train_s": run.record["train_s"], "images_per_s": run.record["images_per_s"]}


def main() -> None:
    """Alternate the two, print each time and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rounds: list[dict[str, Any]] = []
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.rounds):
            theirs, mine = published(arguments.epochs, seed), ours(arguments.epochs, seed, Path(folder))
            ratios.append(theirs["train_s"] / mine["train_s"])
            rounds.append({"published": theirs, "ours": mine, "ratio": ratios[-1]})
            times = f"published {theirs['train_s']:.1f} s, ours {mine['train_s']:.1f} s, ratio {ratios[-1]:.2f}"
            shown, honest = 100 * theirs["accuracy_as_published"], 100 * theirs["accuracy"]
            print(f"round {seed + 1}: {times}; it would print {shown:.2f} %, honest {honest:.2f} %", flush=True)
    ratio = statistics.median(ratios)
    print(f"median ratio {ratio:.2f} over {len(rounds)} rounds of {arguments.epochs} epoch(s)")
    if arguments.json:
        document = {"rounds": rounds, "median_ratio": ratio, "epochs": arguments.epochs, "versions": versions()}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
