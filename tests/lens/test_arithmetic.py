"""Every value of every layer, recomputed in words and numbers."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from convlens.architecture import Plan, parse, plan
from convlens.architecture.layers import SIMPLE_LAYERS
from convlens.architecture.windows import INPUT, nodes_by_address
from convlens.data.image.framing import InputSpec
from convlens.errors import SentenceError
from convlens.lens.arithmetic import SOFTMAX, working
from convlens.lens.hooks import record
from convlens.lens.recording import Recording
from convlens.metrics import Scaling
from convlens.network.build import Network, build
from convlens.presets import PRESETS
from tests.helpers import FROM_NOTHING
from tests.sentences import CHAIN, HEAD, fitting

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


@pytest.mark.parametrize("preset", FROM_NOTHING)
def test_arithmetic_at_both_ends(preset: str) -> None:
    """The normalisation of the picture and the softmax of the answer, for every preset."""
    recording = recording_of(PRESETS[preset].architecture, (1, 28, 28))
    for unit in units_of(recording.values[INPUT].shape, 20):
        assert working(recording, INPUT, unit).agrees
    for k in range(5):
        assert working(recording, SOFTMAX, (k,)).agrees
    assert sum(working(recording, SOFTMAX, (k,)).result for k in range(5)) == pytest.approx(1)


@pytest.mark.parametrize("scaling", [Scaling(), Scaling(0.5), Scaling(1.5, 0.25)])
def test_the_softmax_of_calibrated_logits(scaling: Scaling) -> None:
    """With a temperature, and a curvature, the line says what is done to the logit, and comes to the probability."""
    recording = replace(recording_of("flatten linear(classes)"), scaling=scaling)
    found = working(recording, "softmax", (1,))
    assert found.result == pytest.approx(recording.probabilities[1]) and found.value == recording.probabilities[1]
    assert ("/ 1.5" in found.lines[0]) == (scaling.temperature == 1.5) and ("²" in found.lines[0]) == bool(
        scaling.curvature
    )


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
