"""`train`: seeds, resumption, and what is refused before anything begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convlens
from convlens import files
from convlens.errors import ConvlensError, RunError, UsageError
from convlens.recipe import Recipe
from convlens.run import Run, Series
from tests.conftest import QUICK, TINY, Command, shapes, write_folders
from tests.helpers import NET, read_lines, same, weights


def test_seeds_give_mean_and_spread(workplace: Path, command: Command) -> None:
    """--seeds N: N runs that differ in their seed alone, and mean ± sd of what was measured."""
    write_folders(workplace / "data", 30)
    result = command(
        "train", "data", "--architecture", NET, "--epochs", 1, "--seeds", 3, "--seed", 5, "--test", "--json"
    )
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert [run["seed"] for run in document["runs"]] == [5, 6, 7]
    values = [run["test"]["accuracy"] for run in document["runs"]]
    assert document["test"] == pytest.approx({"mean": np.mean(values), "sd": np.std(values, ddof=1), "n": 3})
    shown = Series(
        tuple(
            Run(Path(run["run"]) if Path(run["run"]).is_absolute() else workplace / run["run"])
            for run in document["runs"]
        )
    ).summary()
    assert "mean ± sd over 3 seeds" in dict(shown)["test"]
    with pytest.raises(UsageError, match="seeds must be"):
        convlens.train(workplace / "data", seeds=0)


def test_val_frac_zero_trains_on_everything(arrays: Any, workplace: Path) -> None:
    """With val_frac 0 there is no validation score, and none is made up."""
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, val_frac=0)
    assert run.val is None and run.record.dataset.num_samples.train == 300


def test_seeds_differ_and_repeat(arrays: Any, workplace: Path) -> None:
    """One seed is one result; another seed is another."""
    first, again, other = (convlens.train(arrays, architecture=TINY, recipe=QUICK, seed=s) for s in (1, 1, 2))
    assert same(weights(first), weights(again)) and not same(weights(first), weights(other))


def test_resuming_keeps_its_values(arrays: Any, workplace: Path) -> None:
    """Changed values are refused by name; equal ones are fine; a complete run stays as it is; --out is refused."""
    calls = iter([False] * 4 + [True] * 9)
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, seed=1, stop=lambda: next(calls))
    stored = Recipe.from_json(run.record.recipe)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"seed": 2}, "seed 1, not 2"),
        ({"recipe": stored.replace(lr=0.5)}, "lr 0.02, not 0.5"),
        ({"architecture": "flatten linear(classes)"}, "architecture"),
        ({"val_frac": 0.2}, "val_frac"),
        ({"preset": "fast"}, "preset"),
        ({"data": shapes(50)}, "other data"),
        ({"size": 8}, "size"),
        ({"out": "elsewhere"}, "leave `out` away"),
    ]
    for values, words in changes:
        with pytest.raises(ConvlensError, match=words):
            convlens.train(resume=run, **values)
    done = convlens.train(resume=run, seed=1, recipe=stored, architecture=TINY)
    assert done.status == "complete"
    before = weights(done)
    assert same(weights(convlens.train(resume=done)), before)


def test_resuming_a_complete_run_does_not_open_test_again(arrays: Any, workplace: Path) -> None:
    """A run whose test score stands in it is not measured a second time."""
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, test=True)
    convlens.train(resume=run)
    assert len(read_lines(files.state_folder() / "openings.jsonl")) == 1


def test_two_processes_cannot_train_one_run(arrays: Any, workplace: Path) -> None:
    """While one holds the run, another is refused at once."""
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, stop=lambda: True)
    with files.lock(run.path / ".lock"), pytest.raises(RunError, match="being trained by another process"):
        convlens.train(resume=run)


def test_bad_values_leave_nothing_behind(arrays: Any, workplace: Path) -> None:
    """What cannot be trained is refused before a run folder exists."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"architecture": "conv(8, 30) flatten linear(classes)"}, "does not fit"),
        ({"preset": "slow"}, "unknown preset"),
        ({"seed": -1}, "seed"),
        ({"val_frac": 1.0}, "val_frac"),
        ({"device": "tpu"}, "unknown device"),
        ({"checkpoint_every": -1}, "checkpoint_every"),
        ({"resume": "nowhere"}, "no run folder"),
        ({"recipe": QUICK.replace(batch_size=1)}, "batchnorm cannot learn"),
        ({"progress": "loud"}, "unknown progress"),
    ]
    for values, words in cases:
        with pytest.raises(ConvlensError, match=words):
            convlens.train(arrays, **{"architecture": TINY, **values})
    assert not Path("runs").exists() or not [p for p in Path("runs").iterdir() if p.name != ".lock"]
