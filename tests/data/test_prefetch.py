"""Work done ahead, in order."""

from __future__ import annotations

import pytest

from convlens.data.prefetch import prefetch


def test_work_done_ahead_comes_in_order() -> None:
    """Results come in the order of the items, whatever the number of groups, and an error where its group would."""

    def square(number: int) -> int:
        if number == 777:
            raise ValueError("777")
        return number * number

    for num in (0, 1, 32, 33, 700):
        assert [r for group in prefetch(square, range(num)) for r in group] == [i * i for i in range(num)]
    seen: list[int] = []
    with pytest.raises(ValueError, match="777"):
        for group in prefetch(square, range(2000)):
            seen += group
    assert seen == [i * i for i in range(777 // 32 * 32)]
