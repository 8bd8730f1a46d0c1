"""Ink is told from paper."""

from __future__ import annotations

import numpy as np
import pytest

from convlens.data.image.background import components, contrast_to_paper
from convlens.data.image.framing import InputSpec, fit
from convlens.data.image.ink import is_framed_ink
from convlens.data.packed.pack import open_data
from tests.photographs import KINDS, SIDE, photograph

INK = InputSpec(28, 28, 1, "ink")


_NUM = 12


@pytest.mark.parametrize("kind", KINDS)
def test_photographed_ink_is_framed_like_the_ink_alone(kind: str) -> None:
    """A photograph of a sign becomes what the sign alone becomes, to within the pen's grain and the lens.

    The signs are MNIST's validation images. The measure is the mean difference in levels; two different signs differ by
    50 and more, a sign whose shadow or lines are taken for ink by 40 and more.
    """
    signs = open_data("mnist").images("val")[:_NUM]
    pairs = [photograph(sign[:, :, 0], kind, seed) for seed, sign in enumerate(signs)]
    framed = [fit(pair.picture, INK)[:, :, 0] for pair in pairs]
    alone = [fit(pair.ink, INK)[:, :, 0] for pair in pairs]
    assert all(map(is_framed_ink, framed))
    differences = np.array([np.abs(a.astype(int) - b).mean() for a, b in zip(framed, alone, strict=True)])
    assert np.median(differences) < 6
    assert (differences < 30).mean() >= (0.9 if kind == "everything" else 1.0), differences.round(1)


def test_paper_without_ink_is_empty() -> None:
    """Shaded, textured paper with nothing on it is mostly nothing: no page full of noise."""
    blank = np.zeros((28, 28), np.uint8)
    for kind in ("gradient", "shadow", "texture"):
        sheet = photograph(blank, kind, 1).picture[: SIDE // 2 * 2 : 2, ::2]
        assert (contrast_to_paper(sheet) > 40).mean() < 0.04, kind


def test_several_strokes_stay_together() -> None:
    """Strokes that do not touch are one sign; specks of dirt are none of it."""
    sheet = np.full((200, 200), 220, np.uint8)
    sheet[40:150, 60:70] = 30
    sheet[40:50, 90:140] = 40
    sheet[100:150, 120:130] = 35
    sheet[180:182, 15:17] = 60
    shade = (np.linspace(1, 0.45, 200)[None, :] ** 2 * np.ones((200, 1))).astype(np.float64)
    found = contrast_to_paper((sheet * shade).astype(np.uint8)) > 60
    assert components(found)[1] == 3
    assert not found[175:190, 10:25].any()


def test_components_are_those_of_a_brute_force_search() -> None:
    """Pieces of random masks, 8 neighbours: the same as flooding finds."""
    rng = np.random.default_rng(0)
    for density in (0.1, 0.35, 0.6):
        mask = rng.random((23, 31)) < density
        pieces, count = components(mask)
        seen = np.zeros(mask.shape, bool)
        num = 0
        for start in zip(*np.nonzero(mask), strict=True):
            if seen[start]:
                continue
            num += 1
            queue, member = [start], []
            seen[start] = True
            while queue:
                y, x = queue.pop()
                member.append((y, x))
                for v in range(max(0, y - 1), min(23, y + 2)):
                    for u in range(max(0, x - 1), min(31, x + 2)):
                        if mask[v, u] and not seen[v, u]:
                            seen[v, u] = True
                            queue.append((v, u))
            numbers = {int(pieces[place]) for place in member}
            assert len(numbers) == 1 and 0 not in numbers
        assert num == count and not pieces[~mask].any()
