"""Charts: places on the page."""

import math

from hypothesis import given
from hypothesis import strategies as st

from convlens.render.charts import HEIGHT, WIDTH, Series, chart

FINITE = st.floats(-1e9, 1e9)


@given(st.lists(st.tuples(FINITE, FINITE), max_size=30))
def test_everything_lies_on_the_chart(points: list[tuple[float, float]]) -> None:
    """Whatever the numbers are, points and ticks are inside, and ticks are in order."""
    found = chart("t", [Series("a", points, "first", [0.1] * len(points))], "x", "y")
    for mark in found.series[0].marks:
        assert -1 <= mark.x <= WIDTH + 1 and -1 <= mark.y <= HEIGHT + 1
    assert 1 <= len(found.x_ticks) <= 12
    assert [t.at for t in found.x_ticks] == sorted(t.at for t in found.x_ticks)


def test_values_that_are_not_finite_are_left_out() -> None:
    """A loss that ran away does not break the page."""
    found = chart("t", [Series("a", [(0, 1), (1, math.nan), (2, math.inf), (3, 2)], "first")], "x", "y")
    assert found.series[0].path.count(",") == 2 and "nan" not in found.series[0].path
