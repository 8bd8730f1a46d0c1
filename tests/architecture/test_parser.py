"""Reading and printing sentences; errors with their columns."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from convlens.architecture import Explanation, parse, plan
from convlens.errors import SentenceError
from tests.sentences import CHAIN


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(CHAIN)
def test_text_round_trips(text: str) -> None:
    """Parsing the canonical form gives equal layers and the same canonical form."""
    architecture = parse(text)
    again = parse(str(architecture))
    assert again == architecture
    assert str(again) == str(architecture)


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


def test_a_hostile_sentence_is_read_in_bounded_time() -> None:
    """Long, deep and repetitive sentences are refused by bounds, not by running out of memory."""
    for text in ("relu " * 5000, "conv(1,1)" * 3000, "repeat(999, " * 15 + "relu" + ")" * 15, "(" * 10000, "1" * 10000):
        with pytest.raises(SentenceError):
            plan(parse(text), (1, 28, 28), 10)
    wide = plan(parse("conv(1, (1, 4096), padding=(0, 4096), dilation=(1, 2))"), (1, 4, 4000), 2, as_classifier=False)
    assert isinstance(Explanation(wide).remarks, list)
