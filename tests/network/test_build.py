"""The modules that a sentence becomes."""

from __future__ import annotations

import pytest
import torch

from convlens.architecture import parse, plan
from convlens.data.image.framing import InputSpec
from convlens.network.build import DropoutModule, build
from tests.conftest import TINY


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout(p: float) -> None:
    """About p are zeroed, the mean stays, the gradient has the same mask, torch's seed repeats it; eval passes."""
    module, x = DropoutModule(p), torch.ones(400, 500, requires_grad=True)
    torch.manual_seed(5)
    y = module(x)
    y.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, y.detach())
    assert abs(float((y == 0).float().mean()) - p) < 0.01 and abs(float(y.detach().mean()) - 1) < 0.03
    assert len(y.detach().unique()) == 2
    assert not torch.equal(module(x), y)
    torch.manual_seed(5)
    assert torch.equal(module(x), y)
    assert torch.equal(module.eval()(x), x)


def test_network_contract() -> None:
    """uint8 and float 0..255 NHWC give the same logits; normalisation is (value - mean) / std."""
    spec = InputSpec(16, 16, 3, mean=(10.0, 20.0, 30.0), std=(2.0, 3.0, 4.0))
    network = build(plan(parse(TINY), (3, 16, 16), 3), spec).eval()
    images = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(network(images), network(images.float()))
        x = network.normalise(images)
        assert torch.equal(network.forward_normalised(x), network(images))
    expected = (images.permute(0, 3, 1, 2).float() - torch.tensor(spec.mean)[:, None, None]) / torch.tensor(spec.std)[
        :, None, None
    ]
    torch.testing.assert_close(x, expected)
