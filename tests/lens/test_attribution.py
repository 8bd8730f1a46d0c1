"""Attributions against captum and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import convlens
from convlens.architecture import parse, plan
from convlens.lens.attribution import STEPS, attribution, integrated_gradients, occlusion, patches
from convlens.lens.looking import baseline_of, subject_of
from convlens.network.grad_cam import grad_cam, resized
from convlens.presets import PRESETS
from tests.lens.test_arithmetic import made


def subject(toy: convlens.Run, picture: NDArray[np.uint8]) -> tuple[convlens.Classifier, Tensor, Tensor]:
    classifier = convlens.load(toy.path)
    baseline, _ = baseline_of(classifier.card.input_spec)
    x, x0 = (classifier.network.normalise(torch.from_numpy(a[None])) for a in (classifier.frame(picture), baseline))
    return classifier, x, x0


@pytest.mark.parametrize("label", [0, 1, 2])
def test_integrated_gradients_are_complete(toy: convlens.Run, picture: NDArray[np.uint8], label: int) -> None:
    """They add up to logit(x) - logit(baseline), to 1 % (256 steps)."""
    classifier, x, x0 = subject(toy, picture)
    forward = classifier.network.forward_normalised
    difference = (forward(x) - forward(x0))[0, label].item()
    assert integrated_gradients(forward, x, x0, label).sum() == pytest.approx(difference, rel=0.01)


@pytest.mark.parametrize("preset", ["standard", "tutorial"])
def test_attributions_are_captums(preset: str) -> None:
    """Integrated gradients (same rule, same steps) and Grad-CAM are captum's, on the networks of the presets."""
    attr = pytest.importorskip("captum.attr", reason="captum, the oracle, is not installed")
    network = made(plan(parse(PRESETS[preset].architecture), (1, 28, 28), 10)).eval()
    x, x0 = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(3)).split(1)
    forward = network.forward_normalised
    expected = attr.IntegratedGradients(forward).attribute(x, x0, target=4, n_steps=STEPS, method="riemann_middle")
    found = integrated_gradients(forward, x, x0, 4)
    np.testing.assert_allclose(found, expected[0].numpy(), atol=1e-4 * np.abs(found).max())
    layer = network.layers.get_submodule("5")
    expected = attr.LayerGradCam(forward, layer).attribute(x, target=4, relu_attributions=True)
    np.testing.assert_allclose(
        grad_cam(forward, layer, x, torch.tensor([4]))[0], expected[0].detach().numpy(), rtol=1e-5
    )


def test_one_class_rather_than_another(toy: convlens.Run, picture: NDArray[np.uint8]) -> None:
    """Integrated gradients and occlusion of a difference of logits are the differences of theirs."""
    classifier, *_ = subject(toy, picture)
    one = subject_of(classifier, classifier.frame(picture))
    for method in ("integrated_gradients", "occlusion"):
        found, first, second = (attribution(one, method, *pair) for pair in ((0, 2), (0, None), (2, None)))
        assert found is not None and first is not None and second is not None
        np.testing.assert_allclose(found, first - second, atol=1e-5 * np.abs(first).max())
    features = convlens.look(toy, picture, label=0, versus="2")
    assert features.versus == 2 and "explained: 0 (" in str(features) and "rather than 2 (" in str(features)
    assert all("for 0 rather than 2" in panel.under for panel in features._content().panels[2:5])
    with pytest.raises(convlens.UsageError, match=r"versus.*must be another class"):
        convlens.look(toy, picture, label=1, versus=1)


def test_occlusion_by_brute_force(toy: convlens.Run, picture: NDArray[np.uint8]) -> None:
    """Each pixel's value is the mean drop of the logit over the patches that cover it, one picture at a time."""
    classifier, x, x0 = subject(toy, picture)
    forward = classifier.network.forward_normalised
    total, count = np.zeros((16, 16)), np.zeros((16, 16))
    with torch.no_grad():
        for rows, columns in patches(16, 16):
            covered = x.clone()
            covered[:, :, rows, columns] = x0[:, :, rows, columns]
            total[rows, columns] += float((forward(x) - forward(covered))[0, 1])
            count[rows, columns] += 1
    assert count.min() >= 1
    np.testing.assert_allclose(occlusion(forward, x, x0, 1), total / count, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (28, 28), (64, 40)])
def test_patches_cover_every_pixel(size: tuple[int, int]) -> None:
    """No pixel is left out, at whatever size."""
    covered = np.zeros(size, int)
    for rows, columns in patches(*size):
        covered[rows, columns] += 1
    assert covered.min() >= 1


def test_resized_map_keeps_its_place() -> None:
    """A map's bright corner is the picture's bright corner."""
    small = np.zeros((4, 4), np.float32)
    small[3, 0] = 1
    assert np.unravel_index(resized(small[None], 28, 28)[0].argmax(), (28, 28))[0] >= 24
