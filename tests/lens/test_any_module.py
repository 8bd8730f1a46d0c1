"""Looking into any torch module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import convlens
from convlens.errors import ImageError, UsageError
from convlens.render.feature_sheet import figure_of


class Small(nn.Module):
    """A module of somebody's own: in-place activations, one of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)
        self.act, self.head = nn.ReLU(inplace=True), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv2(self.act(self.conv1(x))))
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def test_any_module(tmp_path: Path) -> None:
    """A plain module is looked into under its own names, and no trace is left in it; pictures and tensors go in."""
    module = Small().train()
    image = np.random.default_rng(1).integers(0, 256, (20, 24, 3), np.uint8)
    features = convlens.look(module, image)
    assert [layer.address for layer in features.layers] == ["conv1", "act", "conv2", "act#2", "head"]
    assert features.layers[0].values.min() < 0, "the copy is from before the activation worked in place"
    assert features.grad_cam is not None and features.grad_cam.shape == (20, 24)
    assert module.training and all(p.grad is None for p in module.parameters())
    assert not any(part._forward_hooks for part in module.modules())
    x = torch.from_numpy(image).permute(2, 0, 1) / 255
    again = convlens.look(module, x, layers="head")
    assert again.probabilities is not None and features.probabilities is not None
    np.testing.assert_allclose(again.probabilities, features.probabilities, rtol=1e-6)
    features.save(tmp_path / "module.png")
    for bad, words in (((torch.zeros(2, 3, 9, 9),), "one picture"), ((torch.zeros(7, 9, 9),), "cannot be looked into")):
        with pytest.raises((UsageError, ImageError), match=words):
            convlens.look(module, *bad)
    with pytest.raises(UsageError, match="there are conv1"):
        convlens.look(module, x, layers="conv9")
    with pytest.raises(UsageError, match="not logits"):
        convlens.look(module.conv1, x)
    with torch.no_grad():
        gradients = convlens.look(module, x).integrated_gradients
        assert gradients is not None and gradients.any()


def test_colours_of_a_tensors_sheet() -> None:
    """Without a photograph too, Grad-CAM is drawn from 0 up and the two with signs around 0."""
    torch.manual_seed(0)
    figure = figure_of(convlens.look(Small(), torch.rand(3, 12, 12), layers="head")._content())
    overlays = [axes.images[1].get_cmap().name for axes in figure.axes if len(axes.images) == 2]
    assert overlays == ["magma", "RdBu_r", "RdBu_r"]


class Odd(nn.Module):
    """What a module of somebody's own may give instead of logits."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.head = kind, nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Any:
        logits = self.head(x.flatten(1) if self.kind != "one at a time" else x.view(1, -1))
        return {"tuple": (logits, x), "dict": {"logits": logits}, "not finite": logits / 0}.get(self.kind, logits)


@pytest.mark.parametrize(
    ("kind", "words"),
    [("tuple", "gives tuple"), ("dict", "gives dict"), ("not finite", "not finite"), ("one at a time", "batches")],
)
def test_modules_that_cannot_be_looked_into(kind: str, words: str) -> None:
    """One line says what is the matter."""
    with pytest.raises(UsageError, match=words):
        convlens.look(Odd(kind), torch.ones(1, 3, 3))


def test_gradients_switched_off_by_the_caller(toy: convlens.Run, picture: NDArray[np.uint8]) -> None:
    """Inside inference_mode and no_grad the attributions are the same."""
    plain = convlens.look(toy.path, picture)
    for mode in (torch.inference_mode(), torch.no_grad()):
        with mode:
            found = convlens.look(toy.path, picture)
        assert plain.occlusion is not None and found.occlusion is not None
        np.testing.assert_allclose(found.integrated_gradients, plain.integrated_gradients)  # type: ignore[arg-type]


def test_module_in_half_precision() -> None:
    """A bfloat16 module is looked into in its own arithmetic."""
    features = convlens.look(Small().bfloat16(), torch.rand(3, 12, 12))
    assert features.integrated_gradients is not None and np.isfinite(features.integrated_gradients).all()
