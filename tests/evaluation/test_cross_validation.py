"""Folds: every image measured once, by a network that did not learn from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convlens
from convlens.data.packed.dataset import SplitCounts
from convlens.data.packed.splits import deal
from convlens.errors import DataError, UsageError
from convlens.evaluation.test_ledger import ledger_path
from convlens.modelfile import read_model
from convlens.recipe import Recipe
from tests.conftest import QUICK, Command, shapes
from tests.helpers import NET, PLAIN, folder, read_lines, trained, trained_on

HARDLY = Recipe(lr=1e-6, epochs=0.1, batch_size=32, precision="float32", schedule="constant", warmup_frac=0.0)


def test_folds_start_from_the_parent(workplace: Path) -> None:
    """A good parent, hardly trained further, is scored as the network that it is, not as one trained from nothing."""
    parent = trained_on(shapes(600, 1), recipe=QUICK.replace(epochs=8))
    child = convlens.train(shapes(300, 9), parent=parent, recipe=HARDLY, folds=3, progress="none")
    assert child.cross_validation is not None and child.cross_validation.accuracy > 0.9
    assert child.cross_validation.n == 300 and child.record.num_not_held_out == 0


def test_what_the_parent_learned_is_never_held_out(workplace: Path) -> None:
    """A parent that learned random labels by heart comes out at chance on the same data: only images that it was not
    made with are held out, and the others are counted."""
    x, _ = shapes(400, 1)
    labels = np.random.default_rng(0).integers(0, 3, 400)
    parent = trained_on((x, labels), recipe=QUICK.replace(epochs=60, shift_px=0))
    by_heart = convlens.evaluate(parent, split="train", progress="none")
    assert by_heart.accuracy > 0.9, "the parent must have learned something by heart for this to mean anything"
    child = convlens.train((x, labels), parent=parent, recipe=HARDLY, folds=3, progress="none")
    found, dataset = child.cross_validation, convlens.pack((x, labels))
    assert found is not None and found.interval[0] <= 1 / 3 <= found.interval[1]
    assert found.n == dataset.counts["test"]
    assert child.record.num_not_held_out == dataset.counts["train"] + dataset.counts["val"]


def test_folds_from_a_parent_without_a_record_are_refused(workplace: Path) -> None:
    """Where nobody knows any more what the parent was made with, nothing can be held out from it."""
    parent = trained_on(shapes(200, 1))
    grandchild = convlens.train(shapes(200, 2), parent=parent, recipe=HARDLY, omit_record=True, progress="none")
    with pytest.raises(DataError, match=r"not known any more.*leave `folds` away"):
        convlens.train(shapes(200, 3), parent=grandchild, recipe=HARDLY, folds=3, progress="none")


def test_nothing_left_to_hold_out_is_said(workplace: Path) -> None:
    """The parent's own training images alone cannot be cross-validated from it."""
    x, y = shapes(200, 1)
    parent = trained_on((x, y), val_frac=0.1)
    own = convlens.pack((x, y))
    seen = np.sort(np.concatenate([own.rows("train"), own.rows("val")]))
    with pytest.raises(DataError, match="not made with are left to hold out"):
        convlens.train((x[seen], y[seen]), parent=parent, recipe=HARDLY, folds=3, progress="none")


def test_folds_measure_every_image_once_and_train_on_all(workplace: Path) -> None:
    """--folds: n is the whole set, the delivered model has seen everything, its opening is in the ledger."""
    root = folder(workplace / "data", range(90))
    run = trained(root, folds=3)
    assert run.cross_validation is not None and run.cross_validation.n == 90
    assert run.record.dataset.num_samples == SplitCounts(90, 0, 0)
    assert read_model(run.model).card.metrics.cross_validation == run.cross_validation
    assert len(read_lines(ledger_path())) == 1
    assert any(what == "3 folds" for what, _ in run.summary())
    with pytest.raises(DataError, match="split=folds"):
        convlens.evaluate(run, progress="none")
    stopped = convlens.train(root, architecture=NET, recipe=PLAIN, folds=3, progress="none", stop=lambda: True)
    resumed = convlens.train(resume=stopped.path, progress="none")
    assert resumed.status == "complete" and resumed.cross_validation is not None


def test_what_the_folds_answered_is_kept_and_reported(workplace: Path, command: Command) -> None:
    """Each class and pair is told of folds too, as often as one likes: the look at test was written down when they were
    trained. `verify` confirms the report, and answers that were changed are not taken."""
    run = trained_on(shapes(400, 2), recipe=QUICK.replace(epochs=4), folds=3)
    assert run.cross_validation is not None
    report = convlens.evaluate(run, split="folds", progress="none")
    assert report.n == 400 == report.confusion_KK.sum() and report.accuracy == run.cross_validation.accuracy
    assert report.openings is not None and report.openings.count == 1 == len(read_lines(ledger_path()))
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "each answered by a network that did not learn from it" in page and "Grad-CAM of the answer" not in page
    calibration = read_model(run.model).card.calibration
    assert calibration is not None and calibration.num_images == 400
    # What is unfamiliar is told by the same folds: of new pictures like these about one in a hundred, of others most.
    noise = np.random.default_rng(0).integers(0, 256, (200, 16, 16), np.uint8)
    called = [
        sum(bool(one.unfamiliar) for one in convlens.predict(run, x, progress="none"))
        for x in (shapes(200, 9)[0], noise)
    ]
    assert called[0] <= 10 and called[1] >= 150, called
    assert convlens.verify(run, progress="none").is_confirmed
    done = command("evaluate", run.path, "--split", "folds")
    assert done.returncode == 0 and "confusion matrix" in done.stdout and "folds accuracy" in done.stdout
    with pytest.raises(DataError, match="leave `views` away"):
        convlens.evaluate(run, split="folds", views="mirror", progress="none")
    with pytest.raises(DataError, match="leave `data` away"):
        convlens.evaluate(run, shapes(400, 3), split="folds", progress="none")
    kept = run.path / "held-out.npy"
    damaged = bytearray(kept.read_bytes())
    damaged[-1] ^= 1
    kept.write_bytes(damaged)
    with pytest.raises(DataError, match="is damaged"):
        convlens.evaluate(run, split="folds", progress="none")
    kept.unlink()
    with pytest.raises(DataError, match="cannot read the answers of the folds"):
        convlens.verify(run, progress="none")
    with pytest.raises(DataError, match="trained with `folds`"):
        convlens.evaluate(trained_on(shapes(100, 4), recipe=HARDLY), split="folds", progress="none")


def test_what_the_folds_answered_is_compared_and_promised_by(workplace: Path, command: Command) -> None:
    """Number and sorter are one model: runs with folds are compared on all images, and thresholds are set by what was
    held out, said to be taken over. Nothing is written where nothing can be measured."""
    data = shapes(400, 2)
    one, other = (trained_on(data, recipe=QUICK.replace(epochs=epochs), folds=3) for epochs in (4, 1))
    found = convlens.compare([one, other], split="folds", progress="none")
    assert found.n == 400 and one.cross_validation is not None
    assert found.contenders[0].accuracy == one.cross_validation.accuracy
    with pytest.raises(DataError, match="no model of a run that was trained with `folds`"):
        convlens.compare([one, trained_on(data, recipe=HARDLY)], split="folds", progress="none")
    before = one.model.read_bytes()
    with pytest.raises(DataError, match="split=folds"):
        convlens.evaluate(one, reject=0.2, progress="none")
    assert one.model.read_bytes() == before
    report = convlens.evaluate(one, split="folds", reject=0.2, progress="none")
    made = read_model(one.model).card.thresholds
    assert made is not None and made.by_folds and made.reject is not None and made.reject.num_images == 400
    assert "kept by the networks of the folds, not measured of this one" in str(
        report
    ) and "thresholds were set by" in str(report)
    done = command("compare", one.path, other.path, "--split", "folds")
    assert done.returncode == 0 and "the same 400 images" in done.stdout


def test_folds_keep_groups_together_and_classes_even() -> None:
    """Images of one draw share a fold; each class is spread evenly; every fold is dealt the same whatever the order."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, 2**63, 120).astype(np.uint64)[rng.integers(0, 120, 400)]
    labels = (draws % np.uint64(3)).astype(np.int64)
    folds = deal(draws, labels, 5)
    assert all(len(np.unique(folds[draws == draw])) == 1 for draw in np.unique(draws))
    groups = {int(d): int(f) for d, f in zip(draws, folds, strict=True)}
    for label in range(3):
        counts = np.bincount([f for d, f in groups.items() if d % 3 == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    order = rng.permutation(400)
    assert np.array_equal(deal(draws[order], labels[order], 5), folds[order])


def test_odd_folds_are_refused(workplace: Path) -> None:
    """Folds that cannot be, and wishes that contradict them."""
    root = folder(workplace / "data", range(30))
    wishes: list[tuple[dict[str, Any], str]] = [
        ({"folds": 1}, "whole number from 2"),
        ({"folds": 3, "test": True}, "leave `test`"),
        ({"folds": 3, "val_frac": 0.1}, "val_frac"),
        ({"folds": 3, "recipe": {"patience": 2}}, "patience"),
    ]
    for wish, words in wishes:
        with pytest.raises(UsageError, match=words):
            trained(root, **wish)
    with pytest.raises(DataError, match="too few"):
        trained(folder(workplace / "few", range(4)), folds=5)
