"""The alternatives, in plain torch and in our own words: what convlens is measured beside.

Each program trains on all 60,000 MNIST images and gives back its training time and its honest accuracy on the test
images. The clock runs from the network's construction to the last step; `optimizer_s` is the part of it in which
torch's optimizer is made (which imports torch's compiler).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from convlens.architecture import parse, plan
from convlens.data.image.framing import InputSpec
from convlens.data.sources.named import mnist_arrays
from convlens.network.build import build
from convlens.presets import FAST

MEAN, STD = 0.1307, 0.3081
Result = dict[str, Any]


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


def record_network() -> nn.Module:
    """The network of the published speed record (0.76 s for 99 % on a GTX 1660 Ti)."""
    return nn.Sequential(
        nn.Conv2d(1, 24, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(24, 32, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(800, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )


def fast_network(seed: int) -> nn.Module:
    """The network of preset `fast`, without what convlens has around it."""
    spec = InputSpec(28, 28, 1, mean=(255 * MEAN,), std=(255 * STD,))
    return build(plan(parse(FAST.architecture), (1, 28, 28), 10), spec, seed=seed).layers


def tutorial_as_published(seed: int, num_images: int = 60_000) -> Result:
    """One epoch of ten of the tutorial's program: images loaded one at a time, Adam(lr=0.01), float32."""
    torch.manual_seed(seed)
    images, labels = mnist_arrays("train")
    loader = DataLoader(OneAtATime(images[:num_images, ..., 0], labels[:num_images]), batch_size=200, shuffle=True)
    started = time.perf_counter()
    network = TutorialNetwork()
    optimizer, optimizer_s = _timed(lambda: torch.optim.Adam(network.parameters(), lr=0.01))
    for x, y in loader:
        loss = nn.functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    train_s = time.perf_counter() - started
    as_published = accuracy(network.train(), images[:10_000], labels[:10_000])
    return _result(network, train_s, optimizer_s) | {"accuracy_as_published": as_published}


def in_memory(
    make: Callable[[], nn.Module],
    seed: int,
    *,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    max_lr: float | None = None,
    epochs: float = 1.0,
    batch_size: int = 256,
    channels_last: bool = False,
    bfloat16: bool = False,
    label_smoothing: float = 0.0,
) -> Result:
    """A plain training loop over images that lie in memory as uint8. `max_lr`: the peak of a one-cycle schedule.

    Memory formats are explicit: images of one channel can count as both, and torch then guesses.
    """
    torch.manual_seed(seed)
    arrays = mnist_arrays("train")
    images_NCHW, labels_N = (
        torch.from_numpy(arrays[0].reshape(-1, 1, 28, 28).copy()),
        torch.from_numpy(arrays[1].copy()),
    )
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    started = time.perf_counter()
    network = make()
    network = network.to(memory_format=memory_format)  # type: ignore[call-overload]
    rule, optimizer_s = _timed(lambda: optimizer(list(network.parameters())))
    num_steps = max(1, round(epochs * len(labels_N) / batch_size))
    schedule = max_lr and torch.optim.lr_scheduler.OneCycleLR(
        rule, max_lr, total_steps=num_steps, cycle_momentum=False, anneal_strategy="linear"
    )
    order = torch.cat([torch.randperm(len(labels_N)) for _ in range(int(np.ceil(epochs)) + 1)])
    for step in range(num_steps):
        at = order[step * batch_size : (step + 1) * batch_size]
        x = ((images_NCHW[at].float() / 255 - MEAN) / STD).contiguous(memory_format=memory_format)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = network(x)
        loss = nn.functional.cross_entropy(logits.float(), labels_N[at], label_smoothing=label_smoothing)
        rule.zero_grad()
        loss.backward()
        rule.step()
        if schedule:
            schedule.step()
    return _result(network, time.perf_counter() - started, optimizer_s)


def _timed(make: Callable[[], torch.optim.Optimizer]) -> tuple[torch.optim.Optimizer, float]:
    started = time.perf_counter()
    return make(), time.perf_counter() - started


def _result(network: nn.Module, train_s: float, optimizer_s: float) -> Result:
    honest = accuracy(network.eval(), *mnist_arrays("test"))
    return {"train_s": train_s, "optimizer_s": optimizer_s, "accuracy": honest}


@torch.no_grad()
def accuracy(network: nn.Module, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Share of the images that the network gets right, in the mode that it is in."""
    x = (torch.from_numpy(images[..., 0].copy()).float().div(255).unsqueeze(1) - MEAN) / STD
    right = 0
    for start in range(0, len(x), 500):
        predicted = network(x[start : start + 500]).argmax(1).numpy()
        right += int((predicted == labels[start : start + 500]).sum())
    return right / len(x)
