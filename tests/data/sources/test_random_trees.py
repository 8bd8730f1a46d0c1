"""Ten thousand random folders, each with the one reading that is right."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from convlens.data.sources.base import ReadOptions
from convlens.data.sources.recognise import open_tree
from convlens.errors import DataError
from tests.data.sources import matrix, screens
from tests.data.sources.random_trees import MemoryTree, draw

_MOST_REFUSED = 0.02  # of the trees that have exactly one reading


def _faults(seeds: range) -> tuple[list[str], Counter[str], Counter[str]]:
    """What is read wrongly; how many trees of each kind there were; of how many with one reading none was found."""
    wrong: list[str] = []
    drawn_of, refused_of = Counter[str](), Counter[str]()
    for seed in seeds:
        drawn = draw(seed)
        drawn_of[drawn.kind] += 1
        try:
            source: Any = open_tree(MemoryTree(drawn.files), "memory", ReadOptions(**drawn.options))
        except DataError as error:
            if drawn.rows is not None:
                refused_of[f"{drawn.kind}: {error}"] += 1
            elif missing := [words for words in drawn.offers if words not in str(error)]:
                wrong.append(f"{seed} {drawn.kind}: the refusal does not say {missing}: {error}")
            continue
        if drawn.rows is None:
            wrong.append(f"{seed} {drawn.kind}: read as {source.class_names} {dict(source.counts)}")
            continue
        rows = {tuple(row) for row in source.rows()}
        told = {path for paths in source.unused.values() for path in paths}
        folders = tuple(path for path in told if path.endswith("/"))
        named = {path for path in told if path not in folders}
        named |= {path for path in drawn.files if folders and path.startswith(folders)}
        if rows != drawn.rows:
            differ = sorted(map(str, rows ^ drawn.rows))[:4]
            wrong.append(f"{seed} {drawn.kind}: {source.class_names} {dict(source.counts)}, differs in {differ}")
        elif named != drawn.unused:
            wrong.append(f"{seed} {drawn.kind}: unused differ in {sorted(named ^ drawn.unused)[:4]}")
    return wrong, drawn_of, refused_of


def _hold(seeds: range) -> None:
    wrong, drawn_of, refused_of = _faults(seeds)
    assert not wrong, "\n".join([f"{len(wrong)} read wrongly:", *wrong[:20]])
    num_refused = sum(refused_of.values())
    most = _MOST_REFUSED * sum(drawn_of.values())
    assert num_refused <= most, "\n".join([f"{num_refused} refused:", *map(str, refused_of.most_common(20))])


def test_random_trees_are_read_rightly_or_refused() -> None:
    """Of 1,000 random trees none is read wrongly, what is unused is named, few that have one reading are refused."""
    _hold(range(1_000))


@pytest.mark.slow
def test_ten_thousand_random_trees_are_read_rightly_or_refused() -> None:
    """The same of 10,000."""
    _hold(range(10_000))


def test_the_table_of_the_document_is_what_happens() -> None:
    """docs/own-images.md has the table that reading each layout makes (python -m tests.data.sources.matrix)."""
    text = matrix.DOCUMENT.read_text(encoding="utf-8")
    assert text.split(matrix.BEGIN)[1].split(matrix.END)[0].strip() == matrix.table()
    assert "wrong" not in matrix.table()


def test_the_screens_in_the_document_are_what_check_prints() -> None:
    """docs/own-images.md has the first lines of `check` for each source (python -m tests.data.sources.screens)."""
    text = matrix.DOCUMENT.read_text(encoding="utf-8")
    assert text.split(screens.BEGIN)[1].split(screens.END)[0].strip() == screens.text()
