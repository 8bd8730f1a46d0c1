"""The geometry of a sentence, held against torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from convlens.architecture import Explanation, parse, plan
from convlens.data.image.framing import InputSpec
from convlens.errors import SentenceError
from convlens.network.build import build, tensors_of
from tests.sentences import CHAIN, HEAD, TUTORIAL, conv, fitting, pool

RESNET_BLOCK = (
    "residual(conv(32, 3, stride=2, padding=1) batchnorm relu conv(32, 3, padding=1) batchnorm "
    "| conv(32, 1, stride=2) batchnorm) relu"
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(CHAIN, HEAD, st.sampled_from([(1, 9, 9), (3, 8, 11), (2, 12, 7)]), st.integers(0, 2**31))
def test_plan_agrees_with_torch(chain: str, head: str, shape: tuple[int, int, int], seed: int) -> None:
    """For random sentences, shapes, parameters, tensor names and the printed module's logits are torch's own."""
    network_plan = fitting(f"{chain} {head}", shape)
    spec = InputSpec(shape[1], shape[2], 1, mean=(0.0,), std=(1.0,))
    # In float64: the two run in other memory formats, and a group of few values magnifies float32's rounding.
    network = build(network_plan, spec, seed=seed).double().eval()
    seen: dict[str, tuple[int, ...]] = {}
    for name, module in network.layers.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, tuple(out.shape[1:])))
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with torch.no_grad():
        logits = network.forward_normalised(x)
    assert {leaf.address: leaf.output_shape for leaf in network_plan.leaves} == {
        leaf.address: seen[leaf.address] for leaf in network_plan.leaves
    }
    assert network_plan.num_parameters == sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert network_plan.tensors == {name: tuple(t.shape) for name, t in tensors_of(network).items()}
    scope: dict[str, Any] = {}
    exec(Explanation(network_plan).torch_source(), scope)
    printed = scope["network"].double()
    printed.load_state_dict(tensors_of(network))
    with torch.no_grad():
        torch.testing.assert_close(printed.eval()(x), logits, rtol=1e-6, atol=1e-8)
    assert sum(p.numel() for p in printed.parameters() if p.requires_grad) == network_plan.num_parameters


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.one_of(conv(), pool()).filter(lambda t: "mode='" not in t and "ceil" not in t and "dilation" not in t),
        min_size=1,
        max_size=4,
    ).map(" ".join)
)
def test_receptive_field_is_the_support_of_the_gradient(text: str) -> None:
    """The pixels that move one output unit are those of its receptive field (all weights 1, averages for maxima)."""
    shape = (1, 13, 15)
    text = text.replace("maxpool", "avgpool").replace("channels", "2").replace("groups=2", "groups=1")
    try:
        network_plan = plan(parse(text), shape, 5, as_classifier=False)
    except SentenceError:
        assume(False)
    network = build(network_plan, InputSpec(13, 15, 1, mean=(0.0,), std=(1.0,)))
    for parameter in network.parameters():
        torch.nn.init.ones_(parameter)
    x = torch.zeros(1, *shape, requires_grad=True)
    out = network.forward_normalised(x)
    h, w = out.shape[2] // 2, out.shape[3] // 2
    out[0, 0, h, w].backward()
    assert x.grad is not None
    rows, columns = (x.grad[0, 0] != 0).nonzero(as_tuple=True)
    for axis, unit, found, size in zip(
        network_plan.leaves[-1].receptive, (h, w), (rows, columns), shape[1:], strict=True
    ):
        first, last = axis.start + unit * axis.step, axis.start + unit * axis.step + axis.size - 1
        if len(found):
            assert first <= int(found.min()) and int(found.max()) <= last
        if first >= 0 and last < size and len(found):  # no part of it lies in padding
            assert (int(found.min()), int(found.max())) == (first, last)


def test_the_tutorial_network() -> None:
    """The tutorial's network has its published shapes, parameters and formulas."""
    network_plan = plan(parse(TUTORIAL), (1, 28, 28), 10)
    assert [leaf.output_shape for leaf in network_plan.leaves][:4] == [
        (32, 28, 28),
        (32, 28, 28),
        (32, 14, 14),
        (64, 14, 14),
    ]
    assert network_plan.num_parameters == 832 + 51_264 + 3_137_000 + 10_010
    assert network_plan.leaves[0].formula == "⌊(28 + 2·2 − 5) / 1⌋ + 1 = 28"
    assert network_plan.leaves[0].multiply_adds == 28 * 28 * 32 * 25
    assert str(network_plan.architecture) == TUTORIAL


def test_rectangles_have_two_formulas() -> None:
    """Where height and width differ both formulas are given."""
    leaf = plan(parse("conv(2, (3, 5), stride=(1, 2))"), (1, 10, 12), 2, as_classifier=False).leaves[0]
    assert leaf.formula == "⌊(10 − 3) / 1⌋ + 1 = 8 high, ⌊(12 − 5) / 2⌋ + 1 = 4 wide"
    assert leaf.output_shape == (2, 8, 4)


def test_ceil_mode_drops_a_window_that_would_start_in_the_padding() -> None:
    """The formula says so where torch's rule takes a window away."""
    leaf = plan(parse("maxpool(2, stride=3, padding=1, ceil_mode=True)"), (1, 4, 4), 2, as_classifier=False).leaves[0]
    expected = torch.nn.MaxPool2d(2, 3, 1, ceil_mode=True)(torch.zeros(1, 1, 4, 4)).shape[2]
    assert leaf.output_shape[1] == expected
    assert "would start in the padding" in leaf.formula


def test_addresses() -> None:
    """Addresses count from 0 like nn.Sequential; copies, bodies and shortcuts have theirs."""
    twice = "repeat(2, conv(channels, 3, padding=1) relu)"
    text = f"conv(16, 3, padding=1) {twice} {RESNET_BLOCK} globalavgpool flatten linear(classes)"
    addresses = [leaf.address for leaf in plan(parse(text), (3, 32, 32), 10).leaves]
    assert addresses[:5] == ["0", "1[0].0", "1[0].1", "1[1].0", "1[1].1"]
    assert {"2.0", "2.4", "2.shortcut.0", "2.shortcut.1", "3", "6"} <= set(addresses)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("conv(8, 30) flatten linear(classes)", "30×30 does not fit the 28×28 map"),
        ("conv(8, 30, padding=1, dilation=2) flatten linear(classes)", "at most 30×30 would fit"),
        ("conv(8, 3) linear(classes)", "put flatten before it"),
        ("flatten conv(8, 3)", "put it before flatten"),
        ("conv(8, 3) flatten linear(11)", "each of the 10 classes"),
        ("conv(8, 3)", "end with flatten linear(classes)"),
        ("residual(conv(8, 3)) flatten linear(classes)", "give it a shortcut"),
        ("conv(9, 3, groups=2) flatten linear(classes)", "groups"),
        ("conv(8, 4, stride=2, padding='same') flatten linear(classes)", "needs stride 1"),
        ("maxpool(2, padding=2) flatten linear(classes)", "at most half"),
        ("conv(8, 3, padding=40, padding_mode='reflect') flatten linear(classes)", "at most 27"),
        ("flatten linear(1000000) linear(1000000) linear(classes)", "more than 1,000,000,000 parameters"),
        ("conv(1000000, 1, padding=4000)", "is the limit"),
        ("globalavgpool groupnorm(1) flatten linear(classes)", "single value"),
    ],
)
def test_misfits_are_named_before_training(text: str, words: str) -> None:
    """A layer that cannot take what it gets is named, with the map it met and what would fit."""
    with pytest.raises(SentenceError, match="layer") as caught:
        plan(parse(text), (1, 28, 28), 10)
    assert words in str(caught.value)
