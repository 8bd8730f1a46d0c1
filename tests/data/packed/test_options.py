"""Exclusions are kept with the data."""

from __future__ import annotations

from pathlib import Path

import pytest

import convlens
from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import open_data
from convlens.errors import DataError
from tests.helpers import folder, trained


def test_exclusions_are_kept_with_the_data(workplace: Path) -> None:
    """A run packed with exclusions is reopened and evaluated with them; unknown names and odd files are refused."""
    root = folder(workplace / "data", range(60))
    run = trained(root, exclude=["ant/0.png", "bee/1.png"])
    assert run.record.dataset.options.exclude == ("ant/0.png", "bee/1.png")
    assert (
        convlens.evaluate(run, progress="none").n
        == open_data(
            root,
            PackOptions(exclude=("ant/0.png", "bee/1.png")),
        ).counts["test"]
    )
    with pytest.raises(DataError, match="none of the samples to leave out is in"):
        trained(root, exclude=["ant/9999.png"])
    (workplace / "odd.jsonl").write_text('{"reason": "none"}\n')
    with pytest.raises(DataError, match="line 1"):
        trained(root, exclude="odd.jsonl")
    with pytest.raises(DataError, match="no list of exclusions"):
        trained(root, exclude="missing.jsonl")


def test_excluding_everything_says_so(workplace: Path) -> None:
    """A list that names every picture leaves nothing, and the error says that and not that files are broken."""
    root = folder(workplace / "data", range(4))
    with pytest.raises(DataError, match="is excluded: nothing is left"):
        convlens.pack(root, exclude=["ant/0.png", "bee/1.png", "ant/2.png", "bee/3.png"])
