"""What a unit sees is where its gradient is not zero."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor, nn

from convlens.architecture import parse, plan
from convlens.architecture.windows import nodes_by_address, parse_unit, pixels_seen, sources
from convlens.errors import UsageError
from convlens.network.build import Network
from tests.lens.test_arithmetic import EVERY_LAYER, HEADS, made, units_of
from tests.sentences import CHAIN, HEAD, fitting


class _GroupSum(nn.Module):
    """In the place of group norm: each value, and the mean of its group, through which all of them have a gradient."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.num_groups = norm.num_groups

    def forward(self, x: Tensor) -> Tensor:
        groups = x.reshape(len(x), self.num_groups, -1)
        return (groups + groups.mean(dim=2, keepdim=True)).reshape(x.shape)


def transparent(network: Network) -> Network:
    """The same geometry with positive weights, identity activations, averages for maxima: no gradient is lost."""
    for parent in list(network.layers.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            elif isinstance(module, nn.MaxPool2d):
                setattr(parent, name, _Spread(module))
            elif isinstance(module, nn.AdaptiveMaxPool2d):
                setattr(parent, name, nn.AdaptiveAvgPool2d(1))
            elif isinstance(module, nn.GroupNorm):
                setattr(parent, name, _GroupSum(module))
            elif type(module).__name__ in {
                "ReLU",
                "ReLU6",
                "LeakyReLU",
                "GELU",
                "SiLU",
                "Hardswish",
                "Tanh",
                "Sigmoid",
                "BatchNorm1d",
                "BatchNorm2d",
                "DropoutModule",
                "ScaleModule",
            }:
                setattr(parent, name, nn.Identity())
    return network


class _Spread(nn.Module):
    """A max pooling's window, summed: the same places read, none of them losing."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        size = self.pool(x).shape[2:]
        kernel, stride, padding, dilation = (
            (v, v) if isinstance(v, int) else v
            for v in (self.pool.kernel_size, self.pool.stride, self.pool.padding, self.pool.dilation)
        )
        far = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(size, stride, dilation, kernel, strict=True)]
        after = [max(0, f - n - p) for f, n, p in zip(far, x.shape[2:], padding, strict=True)]
        padded = nn.functional.pad(x, (padding[1], after[1], padding[0], after[0]))
        total = torch.zeros(())
        for i, j in itertools.product(range(kernel[0]), range(kernel[1])):
            rows = slice(i * dilation[0], i * dilation[0] + (size[0] - 1) * stride[0] + 1, stride[0])
            columns = slice(j * dilation[1], j * dilation[1] + (size[1] - 1) * stride[1] + 1, stride[1])
            total = total + padded[:, :, rows, columns]
        return total


def gradient_box(network: Network, address: str, unit: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    x = torch.zeros(1, *shape, requires_grad=True)
    kept: list[Tensor] = []
    hook = network.layers.get_submodule(address).register_forward_hook(lambda m, i, o: kept.append(o))
    network.forward_normalised(x)
    hook.remove()
    value = kept[0][(0, *unit)]
    (gradient,) = torch.autograd.grad(value, x, allow_unused=True)
    if gradient is None or not gradient.any():
        return None
    rows, columns = (np.flatnonzero(gradient[0].abs().sum(dim=dims).numpy()) for dims in ((0, 2), (0, 1)))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def check_fields(sentence: str, shape: tuple[int, int, int], most: int) -> None:
    network_plan = plan(parse(sentence), shape, 5)
    network = transparent(made(network_plan)).eval()
    for address, node in nodes_by_address(network_plan).items():
        for unit in units_of(node.output_shape, most):
            assert pixels_seen(network_plan, address, unit) == gradient_box(network, address, unit, shape), (
                address,
                unit,
            )


@pytest.mark.parametrize("chain", EVERY_LAYER)
def test_receptive_field_is_the_gradients_support(chain: str) -> None:
    """What `pixels_seen` says is the bounding box of the pixels with a gradient, at borders and inside."""
    check_fields(chain + HEADS, (3, 13, 14), most=3)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(chain=CHAIN, head=HEAD)
def test_receptive_fields_of_random_sentences(chain: str, head: str) -> None:
    """The same for sentences that nobody wrote; and the table's formula never promises less than is seen."""
    sentence = f"{chain} {head}"
    network_plan = fitting(sentence, (3, 11, 12))
    check_fields(sentence, (3, 11, 12), most=1)
    if any(word in sentence for word in ("padding_mode", "groupnorm")):
        return  # the far side, or the whole map for every unit: no interval that moves with the unit says that
    for address, node in nodes_by_address(network_plan).items():
        if len(node.output_shape) == 3:
            for unit in units_of(node.output_shape, 1):
                seen = pixels_seen(network_plan, address, unit)
                if seen is not None:
                    (top, left) = (a.start + i * a.step for a, i in zip(node.receptive, unit[1:], strict=True))
                    assert seen.top >= top and seen.left >= left
                    assert seen.bottom <= top + node.receptive[0].size
                    assert seen.right <= left + node.receptive[1].size


def test_units_that_are_not_there() -> None:
    """One line says which are."""
    network_plan = plan(parse("conv(4, 3) relu flatten linear(classes)"), (1, 8, 8), 5)
    assert parse_unit("0:3,5,5", network_plan) == ("0", (3, 5, 5))
    assert parse_unit(" 3 : 4", network_plan) == ("3", (4,))
    for text, words in {
        "0:4,0,0": "from 0,0,0 to 3,5,5",
        "0:0,0": "channel, row, column",
        "9:0": "there are 0, 1, 2, 3",
        "3:5": "to 4",
        "0": "LAYER:CHANNEL,ROW,COLUMN",
        "0:a,b,c": "LAYER",
        "0:-1,0,0": "LAYER",
        "0:²,0,0": "LAYER",
    }.items():
        with pytest.raises(UsageError, match=words):
            parse_unit(text, network_plan)


def test_sources_of_a_residual() -> None:
    """A sum reads the ends of its body and of its shortcut, or what came in where there is none."""
    network_plan = plan(
        parse("relu residual(relu tanh | conv(1, 1)) residual(relu) flatten linear(classes)"), (1, 4, 4), 5
    )
    reads = sources(network_plan)
    assert reads["1"] == ("1.1", "1.shortcut.0") and reads["1.shortcut.0"] == ("0",) == reads["1.0"]
    assert reads["2"] == ("2.0", "1")
