"""What `explain` says and draws of a network."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

import convlens
from convlens.architecture import Explanation, parse, plan
from convlens.architecture.layers import SIMPLE_LAYERS
from convlens.errors import UsageError
from tests.conftest import Command
from tests.sentences import TUTORIAL


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


def test_explain_draws(command: Command, workplace: Path) -> None:
    """`--svg` is one well-formed document without a script, a row a layer; nothing is replaced."""
    sentence = "conv(8, 3, padding=1) relu residual(conv(8, 3, padding=1)) maxpool(2) flatten linear(classes)"
    done = command("explain", sentence, "--svg", "net.svg")
    assert done.returncode == 0, done.stderr
    text = (workplace / "net.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    words = "".join(root.itertext())
    assert root.tag.endswith("svg") and "script" not in text
    for part in (
        "input",
        "2.0  conv(8, 3, padding=1)",
        "+ sum of the residual",
        "receptive field of one unit",
        "8 × 14×14",
    ):
        assert part in words, part
    assert command("explain", sentence, "--svg", "net.svg").returncode == 2
    assert command("explain", sentence, "--svg", "net.png").returncode == 2


def test_explain_says_which_padding(command: Command) -> None:
    """Padding in words, shares as bars; the same numbers as a table and as blocks."""
    done = command(
        "explain", "conv(8, 3, padding=1) maxpool(3, stride=2, padding=1) conv(8, 3) flatten linear(classes)"
    )
    for words in (
        "a ring of zeros (same: keeps the size)",
        "places that do not count",
        "no padding (valid)",
        "█",
        "receptive field",
    ):
        assert words in done.stdout, words
