"""Pictures unlike all others: what is planted comes first, and what is like the rest is not called unlike."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from convlens.doctor.outliers import outliers
from tests.helpers import scene

_RNG = np.random.default_rng(3)
PLANTED: dict[str, Callable[[], NDArray[np.uint8]]] = {
    "noise": lambda: _RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8),
    "black": lambda: np.zeros((64, 64, 3), np.uint8),
    "white": lambda: np.full((64, 64, 3), 255, np.uint8),
    "drawing": lambda: np.kron(np.eye(64, dtype=np.uint8)[:, :, None], np.full((1, 1, 3), 255, np.uint8)),
}


def scenes(num: int, side: int = 64) -> NDArray[np.uint8]:
    return np.stack([np.asarray(scene(number, side).convert("RGB")) for number in range(num)])


@pytest.mark.parametrize("what", PLANTED)
@pytest.mark.parametrize("side", [64, 32, 28])
def test_what_is_planted_comes_first(what: str, side: int) -> None:
    """Three of a kind among two hundred scenes, of photographs' and of digits' sizes."""
    planted = np.stack([PLANTED[what]()[:side, :side] for _ in range(3)])
    found = outliers(np.concatenate([scenes(200, side), planted]))
    assert {one.row for one in found[:3]} == {200, 201, 202}
    assert all(one.distance > 1.5 and one.reason for one in found)


def test_what_is_like_the_rest_is_not_called_unlike() -> None:
    """Of scenes alone hardly any are; of a handful, or of pictures that are all one, none is."""
    assert len(outliers(scenes(300))) <= 6
    assert outliers(scenes(20)) == []
    assert outliers(np.full((50, 28, 28, 1), 7, np.uint8)) == []
