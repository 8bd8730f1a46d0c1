"""Sentences for tests: the tutorial's network, and random ones that fit."""

from __future__ import annotations

from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from convlens.architecture import parse, plan
from convlens.errors import SentenceError
from convlens.presets import PRESETS

TUTORIAL = PRESETS["tutorial"].architecture


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
            "zeropad(1, 0, 0, 2)",
            "zeropad(0, 3, 1, 0)",
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
