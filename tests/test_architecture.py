"""The sentence, its geometry, and what is said about it, held against torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import convlens
from convlens.architecture import Explanation, parse, plan
from convlens.architecture.layers import SIMPLE_LAYERS
from convlens.data.image.framing import InputSpec
from convlens.errors import SentenceError, UsageError
from convlens.network.build import build, tensors_of
from convlens.presets import PRESETS

TUTORIAL = PRESETS["tutorial"].architecture
RESNET_BLOCK = (
    "residual(conv(32, 3, stride=2, padding=1) batchnorm relu conv(32, 3, padding=1) batchnorm "
    "| conv(32, 1, stride=2) batchnorm) relu"
)

# ---------------------------------------------------------------- random sentences


@st.composite
def conv(draw: st.DrawFn) -> str:
    kernel = draw(st.sampled_from(["1", "2", "3", "(1, 3)", "(3, 2)"]))
    options = draw(
        st.lists(
            st.sampled_from(
                [
                    "stride=2",
                    "stride=(2, 1)",
                    "padding=1",
                    "padding=(0, 1)",
                    "padding='same'",
                    "padding='valid'",
                    "dilation=2",
                    "bias=False",
                    "groups=2",
                    "groups=channels",
                    "padding_mode='reflect'",
                    "padding_mode='circular'",
                    "padding_mode='replicate'",
                ]
            ),
            max_size=3,
            unique_by=lambda text: text.partition("=")[0],
        )
    )
    channels = draw(st.sampled_from(["2", "4", "6", "channels"]))
    return f"conv({', '.join([channels, kernel, *options])})"


@st.composite
def pool(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(["maxpool", "avgpool"]))
    kernel = draw(st.sampled_from(["2", "3", "(2, 3)"]))
    known = ["stride=1", "stride=2", "stride=(1, 2)", "padding=1", "ceil_mode=True"]
    known += ["dilation=2"] if name == "maxpool" else ["count_include_pad=False"]
    options = draw(st.lists(st.sampled_from(known), max_size=3, unique_by=lambda text: text.partition("=")[0]))
    return f"{name}({', '.join([kernel, *options])})"


SIMPLE = st.one_of(
    conv(),
    pool(),
    st.sampled_from(
        [
            "relu",
            "relu6",
            "leakyrelu(0.2)",
            "gelu",
            "gelu(approximate='tanh')",
            "silu",
            "hardswish",
            "tanh",
            "sigmoid",
            "batchnorm",
            "batchnorm(scale=False)",
            "batchnorm(eps=0.001, momentum=0.2)",
            "groupnorm(2)",
            "groupnorm(1, affine=False)",
            "dropout",
            "dropout(0.1)",
            "scale(0.5)",
            "scale(-2)",
        ]
    ),
)
CHAIN = st.recursive(
    st.lists(SIMPLE, min_size=1, max_size=4).map(" ".join),
    lambda inner: st.one_of(
        st.tuples(st.integers(1, 3), inner).map(lambda t: f"repeat({t[0]}, {t[1]})"),
        inner.map(lambda body: f"residual({body})"),
        st.tuples(inner, inner).map(lambda t: f"residual({t[0]} | {t[1]})"),
        st.lists(inner, min_size=1, max_size=3).map(" ".join),
    ),
    max_leaves=5,
)
HEAD = st.sampled_from(
    [
        "flatten linear(classes)",
        "globalavgpool flatten linear(classes)",
        "flatten linear(7) tanh linear(classes, bias=False)",
        "globalmaxpool flatten batchnorm linear(classes)",
    ]
)


def fitting(text: str, shape: tuple[int, int, int]) -> Any:
    """The plan of a random sentence, or another draw where it does not fit its input."""
    try:
        network_plan = plan(parse(text), shape, 5)
    except SentenceError:
        assume(False)
    assume(network_plan.num_parameters < 200_000)
    return network_plan


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


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(CHAIN)
def test_text_round_trips(text: str) -> None:
    """Parsing the canonical form gives equal layers and the same canonical form."""
    architecture = parse(text)
    again = parse(str(architecture))
    assert again == architecture
    assert str(again) == str(architecture)


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


# ---------------------------------------------------------------- what it says


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


def test_remarks() -> None:
    """Two linears in a row, a bias before batchnorm, and unread rows are pointed out; a sound net has no remark."""

    def said(text: str, shape: tuple[int, int, int] = (1, 28, 28)) -> str:
        return " ".join(Explanation(plan(parse(text), shape, 10)).remarks)

    assert "8 linear(1000) and 9 linear(10)" in said(TUTORIAL)
    assert "bias=False saves 8 parameters" in said("conv(8, 3) batchnorm relu flatten linear(classes)")
    assert "1 of 27 rows" in said("conv(8, 2) relu maxpool(2) flatten linear(classes)")
    assert "no window reads 14 of 28 rows" in said("conv(8, 1, stride=2) relu flatten linear(classes)")
    assert "last layer" in said("conv(8, 3) relu flatten linear(classes) relu")
    assert said("conv(8, 3) relu flatten linear(classes)") == ""


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("conv(32, 5) rellu", 13, "did you mean 'relu'"),
        ("conv(32, 5, pading=2)", 13, "did you mean 'padding'"),
        ("conv(32, 5, padding=-1)", 21, "padding must be"),
        ("conv(32)", 1, "needs kernel_size"),
        ("conv(32, 5", 11, "')'"),
        ("relu(3)", 6, "too many arguments"),
        ("conv(32, 5) | relu", 13, "expected a layer"),
        ("repeat(0, relu)", 8, "whole number from 1"),
        ("repeat(2)", 9, "','"),
        ("residual()", 10, "at least one layer"),
        ("linear(clases)", 8, "did you mean 'classes'"),
        ("conv(3, 3, 1, stride=2)", 15, "given twice"),
        ("conv(out_channels=3, 3)", 22, "cannot follow"),
        ("dropout(1.5)", 9, "p must be a number"),
        ("conv(3, 3) $", 12, "no meaning"),
        ("", 1, "empty"),
        ("conv(99999999, 3)", 6, "out_channels must be"),
        ("conv(3, 99999)", 9, "4,096"),
        ("repeat(1000000, repeat(1000, relu))", 1, "more than 1,000 layers"),
        ("residual(" * 40 + "relu" + ")" * 40, 154, "nested more than 16"),
    ],
)
def test_errors_point_at_the_column(text: str, column: int, words: str) -> None:
    """What is wrong, at which column, and the nearest known name, with a caret under the very place."""
    with pytest.raises(SentenceError) as caught:
        parse(text)
    error = caught.value
    assert error.column == column
    assert words in str(error)
    lines = str(error).splitlines()
    assert len(lines) == 3 and lines[2].strip() == "^"
    if len(text) < 60:
        assert lines[2].index("^") - 2 == column - 1


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


def test_every_layer_is_explained_and_has_a_docstring() -> None:
    """The catalogue is whole: each layer of the sentence says what it computes."""
    assert all(kind.__doc__ for kind in SIMPLE_LAYERS.values())


def test_explain_takes_sentences_and_inputs() -> None:
    """`explain` reads sizes in its forms and refuses others in one line."""
    assert convlens.explain("conv(2, 3) relu", input="12x10x3").plan.input_shape == (3, 12, 10)
    assert convlens.explain("conv(2, 3) relu", input=(12, 10)).plan.input_shape == (1, 12, 10)
    assert convlens.explain("flatten linear(classes)", classes=7).plan.leaves[-1].output_shape == (7,)
    for bad in ("12", "ax3x1", "0x3x1", (1, 2, 3, 4)):
        with pytest.raises(UsageError, match="height x width x channels"):
            convlens.explain("relu", input=bad)
    document = convlens.explain(TUTORIAL).to_json()
    assert document["layers"][0]["receptive_field"] == [5, 5]
    assert document["num_parameters"] == 3_199_106
    assert "<table>" in convlens.explain(TUTORIAL)._repr_html_()


def test_a_hostile_sentence_is_read_in_bounded_time() -> None:
    """Long, deep and repetitive sentences are refused by bounds, not by running out of memory."""
    for text in ("relu " * 5000, "conv(1,1)" * 3000, "repeat(999, " * 15 + "relu" + ")" * 15, "(" * 10000, "1" * 10000):
        with pytest.raises(SentenceError):
            plan(parse(text), (1, 28, 28), 10)
    wide = plan(parse("conv(1, (1, 4096), padding=(0, 4096), dilation=(1, 2))"), (1, 4, 4000), 2, as_classifier=False)
    assert isinstance(Explanation(wide).remarks, list)
