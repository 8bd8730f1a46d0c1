"""Cross-validation of a training that starts from a model, and the one door to test."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convlens
from convlens import files
from convlens.data.packed.dataset import Dataset, Permit
from convlens.errors import DataError, TrainingError
from convlens.evaluation.test_ledger import inspect_test, ledger_path, open_test
from convlens.recipe import Recipe
from convlens.run import SEEN_FILE, Run
from convlens.training import fit
from tests.conftest import QUICK, TINY, shapes

HARDLY = Recipe(lr=1e-6, epochs=0.1, batch_size=32, precision="float32", schedule="constant", warmup_frac=0.0)


def trained(data: Any, **options: Any) -> Run:
    return convlens.train(data, progress="none", **{"architecture": TINY, "recipe": QUICK, **options})


# ---------------------------------------------------------------- folds from a parent


def test_folds_start_from_the_parent(workplace: Path) -> None:
    """A good parent, hardly trained further, is scored as the network that it is, not as one trained from nothing."""
    parent = trained(shapes(600, 1), recipe=QUICK.replace(epochs=8))
    child = convlens.train(shapes(300, 9), parent=parent, recipe=HARDLY, folds=3, progress="none")
    assert child.cross_validation is not None and child.cross_validation.accuracy > 0.9
    assert child.cross_validation.n == 300 and child.record["num_not_held_out"] == 0


def test_what_the_parent_learned_is_never_held_out(workplace: Path) -> None:
    """A parent that learned random labels by heart comes out at chance on the same data: only images that it was not
    made with are held out, and the others are counted."""
    x, _ = shapes(400, 1)
    labels = np.random.default_rng(0).integers(0, 3, 400)
    parent = trained((x, labels), recipe=QUICK.replace(epochs=60, shift_px=0))
    by_heart = convlens.evaluate(parent, split="train", progress="none")
    assert by_heart.accuracy > 0.9, "the parent must have learned something by heart for this to mean anything"
    child = convlens.train((x, labels), parent=parent, recipe=HARDLY, folds=3, progress="none")
    found, dataset = child.cross_validation, convlens.pack((x, labels))
    assert found is not None and found.interval[0] <= 1 / 3 <= found.interval[1]
    assert found.n == dataset.counts["test"]
    assert child.record["num_not_held_out"] == dataset.counts["train"] + dataset.counts["val"]


def test_folds_from_a_parent_without_a_record_are_refused(workplace: Path) -> None:
    """Where nobody knows any more what the parent was made with, nothing can be held out from it."""
    parent = trained(shapes(200, 1))
    grandchild = convlens.train(shapes(200, 2), parent=parent, recipe=HARDLY, progress="none")
    (grandchild.path / SEEN_FILE).unlink()
    with pytest.raises(DataError, match=r"not known any more.*leave `folds` away"):
        convlens.train(shapes(200, 3), parent=grandchild, recipe=HARDLY, folds=3, progress="none")


def test_nothing_left_to_hold_out_is_said(workplace: Path) -> None:
    """The parent's own training images alone cannot be cross-validated from it."""
    x, y = shapes(200, 1)
    parent = trained((x, y), val_frac=0.1)
    own = convlens.pack((x, y))
    seen = np.sort(np.concatenate([own.rows("train"), own.rows("val")]))
    with pytest.raises(DataError, match="not made with are left to hold out"):
        convlens.train((x[seen], y[seen]), parent=parent, recipe=HARDLY, folds=3, progress="none")


@pytest.mark.parametrize("where", ["fold", "probe"])
def test_memory_that_runs_out_in_a_fold_or_probe_is_one_line(
    where: str, workplace: Path, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's own error becomes a TrainingError there as in a run."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(fit, "train_steps", fail)
    options: dict[str, Any] = {"folds": 3, "architecture": TINY, "recipe": QUICK} if where == "fold" else {"time": 9}
    with pytest.raises(TrainingError, match="not enough memory on cpu"):
        convlens.train(shapes(90) if where == "fold" else folders, progress="none", **options)


# ---------------------------------------------------------------- one door to test


def fresh() -> Dataset:
    return convlens.pack(shapes(200, 4))


def test_no_method_yields_test_without_a_permit(workplace: Path) -> None:
    """Whatever public method is asked, merged or not, with whatever arguments: no row of test comes out."""
    dataset = fresh()
    test_rows = dataset.rows("test")
    pixels = np.load(dataset.folder / "images.npy")[test_rows]
    for one in (dataset, dataset.merged(), dataset.with_val_frac(0), replace(dataset, is_merged=True)):
        for name, method in inspect.getmembers(one, inspect.ismethod):
            if name.startswith("_") or name in ("with_permit", "open", "with_val_frac"):
                continue
            for arguments in ((), ("test",), ("train",), (test_rows,), (test_rows[:1],), (np.arange(200),)):
                try:
                    found = method(*arguments)
                except (DataError, TypeError, ValueError, IndexError):
                    continue
                if hasattr(found, "mapped") and len(found):
                    came_out = np.asarray(found).reshape(len(found), -1)
                    assert not (came_out[:, None] == pixels.reshape(len(pixels), -1)).all(axis=2).any(), (
                        name,
                        arguments,
                    )
                if name in ("labels", "labels_at"):
                    assert len(found) != len(test_rows) or arguments == ("train",), name
    with pytest.raises(DataError, match="sealed"):
        dataset.merged().images("train")
    with pytest.raises(DataError, match="sealed"):
        dataset.merged().labels("train")


def test_a_permit_is_a_line_in_the_ledger(workplace: Path) -> None:
    """A permit opens what was written down before, and that alone; one made by hand opens nothing."""
    dataset = fresh()
    forged = Permit(ledger_path(), {"test_fingerprint": dataset.test_fingerprint, "plan": "x"})
    for refused in (lambda: dataset.with_permit(forged), lambda: replace(dataset, permit=forged).images("test")):
        with pytest.raises(DataError, match="not written down"):
            refused()
    opened, openings = open_test(dataset, TINY, QUICK, 0)
    assert (openings.count, openings.num_plans) == (1, 1)
    assert len(opened.images("test")) == dataset.counts["test"] == len(opened.labels("test"))
    assert len(opened.merged().images("train")) == 200
    assert opened.permit is not None and dict(opened.permit.line) in files.read_lines(ledger_path())
    other = convlens.pack(shapes(200, 5))
    with pytest.raises(DataError, match="not written down"):
        other.with_permit(opened.permit)
    ledger_path().unlink()
    with pytest.raises(DataError, match="not written down"):
        dataset.with_permit(opened.permit)


def test_an_inspection_is_written_down_and_is_no_opening(workplace: Path) -> None:
    """The doctor's look is in the ledger and is not counted."""
    dataset = fresh()
    assert len(inspect_test(dataset, "check").images("test"))
    lines = files.read_lines(ledger_path())
    assert [line["kind"] for line in lines] == ["inspection"] and lines[0]["by"] == "check"
    assert open_test(dataset, TINY, QUICK, 0)[1].count == 1
    convlens.check(shapes(200, 4), progress="none")
    assert files.read_lines(ledger_path())[-1]["kind"] == "inspection"


def test_a_resumed_run_of_folds_opens_nothing_anew(workplace: Path) -> None:
    """Its opening stands there already; the resumed run trains on all images to the same bits."""
    calls = iter([False] * 4 + [True] * 99)
    run = trained(shapes(120, 6), folds=2, stop=lambda: next(calls))
    assert run.status == "interrupted"
    again = convlens.train(resume=run, progress="none")
    assert again.status == "complete" and len(files.read_lines(ledger_path())) == 1
