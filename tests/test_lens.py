"""The lens: right to the digit, and right about what sees what."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from convlens.architecture import Plan, parse, plan
from convlens.architecture.layers import SIMPLE_LAYERS
from convlens.architecture.windows import INPUT, nodes_by_address, parse_unit, pixels_seen, sources
from convlens.data.image.framing import InputSpec
from convlens.errors import SentenceError, UsageError
from convlens.lens.arithmetic import SOFTMAX, working
from convlens.lens.hooks import record
from convlens.lens.recording import Recording
from convlens.network.build import Network, build
from convlens.presets import PRESETS
from tests.test_architecture import CHAIN, HEAD, fitting

EVERY_LAYER = (
    "conv(8, 3, padding=1) batchnorm relu conv(8, (2, 4), padding='same') relu6",
    "conv(4, 1) conv(8, (3, 2), padding=(0, 1), dilation=2, groups=2) leakyrelu(0.2) maxpool(3, stride=2, padding=1)",
    "conv(8, 3, padding=1, padding_mode='reflect') gelu avgpool(3, stride=2, padding=1)",
    "conv(8, 3, padding=2, padding_mode='circular') gelu(approximate='tanh') avgpool(2, ceil_mode=True)",
    "conv(8, 3, padding=1, padding_mode='replicate', bias=False) silu avgpool(3, padding=1, count_include_pad=False)",
    "conv(4, 3) hardswish groupnorm(2) maxpool(2, ceil_mode=True) groupnorm(1, affine=False) tanh",
    "conv(6, 3, padding=1) residual(conv(6, 3, padding=1) batchnorm relu | conv(6, 1)) sigmoid globalmaxpool",
    "repeat(2, conv(6, 3) scale(0.3) residual(batchnorm(scale=False) relu)) globalavgpool",
    "maxpool(2, dilation=2, stride=1) conv(channels, 3, groups=channels) dropout(0.3)",
    "zeropad(1, 0, 2, 3) conv(4, 3, stride=2) zeropad(0, 1, 0, 0) maxpool(2)",
)
HEADS = " flatten linear(12) tanh batchnorm dropout linear(classes, bias=False)"


def made(network_plan: Plan, seed: int = 0) -> Network:
    """A network with random weights, biases and statistics (not the neutral ones a fresh network has)."""
    channels, height, width = network_plan.input_shape
    spec = InputSpec(height, width, channels, mean=(90.0,) * channels, std=(60.0,) * channels)
    network = build(network_plan, spec, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.2, 2.0, generator=generator)
            nn.init.normal_(module.bias, 0, 0.3, generator)
            if module.weight.requires_grad:
                nn.init.uniform_(module.weight, 0.3, 1.7, generator)
    return network


def recording_of(sentence: str, shape: tuple[int, int, int] = (3, 13, 11), seed: int = 0) -> Recording:
    network_plan = plan(parse(sentence), shape, 5)
    image = np.random.default_rng(seed).integers(0, 256, (shape[1], shape[2], shape[0]), np.uint8)
    return record(made(network_plan, seed), image)


def units_of(shape: tuple[int, ...], most: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Corners and random places of a layer's output."""
    corners = list(itertools.product(*({0, n - 1} for n in shape)))
    rng = np.random.default_rng(seed)
    return [*corners, *(tuple(int(rng.integers(n)) for n in shape) for _ in range(most))]


def check_every_value(recording: Recording, most: int) -> None:
    for address, node in nodes_by_address(recording.plan).items():
        for unit in units_of(node.output_shape, most):
            found = working(recording, address, unit)
            assert found.value == recording.values[address][unit]
            assert found.agrees, f"{address} {node.layer} {unit}: {found.result} is not {found.value}"
            assert np.isclose(found.terms.sum(), found.result, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chain", EVERY_LAYER)
def test_arithmetic_of_every_layer(chain: str) -> None:
    """Each layer type's value, re-computed from what met in it, is the network's own to 1e-5 of the terms' sizes."""
    check_every_value(recording_of(chain + HEADS), most=60)


def test_every_layer_type_is_covered() -> None:
    """The sentences above hold every simple layer that there is."""
    layers = {leaf.layer.name for c in EVERY_LAYER for leaf in plan(parse(c + HEADS), (3, 13, 11), 5).leaves}
    assert layers == set(SIMPLE_LAYERS)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(chain=CHAIN, head=HEAD, seed=st.integers(0, 99))
def test_arithmetic_of_random_sentences(chain: str, head: str, seed: int) -> None:
    """The same for sentences that nobody wrote."""
    sentence = f"{chain} {head}"
    fitting(sentence, (3, 11, 12))
    recording = recording_of(sentence, (3, 11, 12), seed)
    check_every_value(recording, most=4)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_arithmetic_at_both_ends(preset: str) -> None:
    """The normalisation of the picture and the softmax of the answer, for every preset."""
    recording = recording_of(PRESETS[preset].architecture, (1, 28, 28))
    for unit in units_of(recording.values[INPUT].shape, 20):
        assert working(recording, INPUT, unit).agrees
    for k in range(5):
        assert working(recording, SOFTMAX, (k,)).agrees
    assert sum(working(recording, SOFTMAX, (k,)).result for k in range(5)) == pytest.approx(1)


def test_a_wrong_value_does_not_agree() -> None:
    """The check can fail: a value moved by a thousandth of its terms is not explained away."""
    recording = recording_of(EVERY_LAYER[0] + HEADS)
    found = working(recording, "0", (1, 2, 3))
    recording.values["0"][1, 2, 3] += 1e-3 * found.magnitude
    assert not working(recording, "0", (1, 2, 3)).agrees


def test_window_of_a_convolution() -> None:
    """The window, the padding's zeros and the kernel are those that torch multiplies, in the right places."""
    recording = recording_of("conv(4, 3, stride=2, padding=1) flatten linear(classes)", (3, 8, 8))
    found = working(recording, "0", (3, 0, 2))
    x = np.pad(recording.values[INPUT], ((0, 0), (1, 1), (1, 1)))
    assert np.array_equal(found.arrays["window"], x[:, 0:3, 4:7])
    assert found.arrays["inside"].tolist() == [[False] * 3, [True] * 3, [True] * 3]
    assert np.array_equal(found.arrays["kernel"], recording.tensors["0.weight"][3])
    assert found.box is not None and found.box.rows == (None, 0, 1) and found.box.columns == (3, 4, 5)


def test_winner_of_a_maximum() -> None:
    """Max pooling names the place of its winner; padding never wins, not even against negative values."""
    recording = recording_of("conv(4, 1) maxpool(3, stride=2, padding=1) flatten linear(classes)", (1, 9, 9))
    recording.values["0"][:] -= 100
    found = working(recording, "1", (2, 0, 0))
    assert found.winner is not None and found.result == recording.values["0"][found.winner]
    assert found.result == recording.values["0"][2, :2, :2].max() < 0


# ---------------------------------------------------------------- receptive fields


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


@pytest.mark.parametrize("offset", [0, 10, 100, 1_000, 10_000])
def test_group_norm_of_a_large_mean(offset: float) -> None:
    """Where the mean is large beside the spread, float32 loses the variance: that is allowed for, and said."""
    network_plan = plan(parse("conv(8, 3) groupnorm(2) flatten linear(classes)"), (3, 11, 12), 5)
    network = made(network_plan)
    with torch.no_grad():
        network.layers.get_submodule("0").bias.fill_(offset)  # type: ignore[operator]
    image = np.random.default_rng(0).integers(0, 256, (11, 12, 3), np.uint8)
    recording = record(network, image)
    found = [working(recording, "1", unit) for unit in units_of((8, 9, 10), 200)]
    assert all(one.agrees for one in found)
    assert any("float32 can be off" in one.lines[-1] for one in found) == (offset >= 100)
    # The allowance is for the variance alone: without an offset a value moved by a thousandth is still found out.
    if offset == 0:
        recording.values["1"][1, 2, 3] += 1e-3 * found[0].magnitude
        assert not working(recording, "1", (1, 2, 3)).agrees


@pytest.mark.parametrize(
    "chain", ["conv(4, 3) scale(100) silu", "conv(4, 3) scale(100) sigmoid", "scale(1e-20) scale(1e-22)"]
)
def test_values_below_float32(chain: str) -> None:
    """What float32 cannot hold apart from zero agrees with zero."""
    check_every_value(recording_of(f"{chain} flatten linear(classes)"), most=200)


def test_maximum_of_nothing_is_refused() -> None:
    """A max window wholly in padding would give minus infinity: the plan says so."""
    sentence = "conv(4, (28, 28)) maxpool((1, 2), padding=(0, 1), dilation=(1, 2)) flatten linear(classes)"
    with pytest.raises(SentenceError, match="wholly in the padding"):
        plan(parse(sentence), (1, 28, 28), 5)
