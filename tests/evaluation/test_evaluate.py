"""Evaluation counts right, doubts what is too good, and leaves out what was learned from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convlens
from convlens.errors import DataError
from convlens.files import state_folder
from convlens.metrics import score, wilson_interval
from convlens.records import write_sealed
from tests.conftest import QUICK, TINY, shapes, write_folders
from tests.helpers import PLAIN, folder


def test_evaluation_counts_by_hand(run: convlens.Run, arrays: Any, workplace: Path) -> None:
    """Accuracy, confusion, loss and counts of the report are those of the predictions themselves."""
    report = convlens.evaluate(run)
    logits = convlens.load(run).logits(arrays[2][..., None])
    right = logits.argmax(1) == arrays[3]
    assert report.n == 100 and report.accuracy == right.mean()
    assert np.diag(report.confusion_KK).sum() == right.sum() and report.confusion_KK.sum() == 100
    assert report.interval[0] < report.accuracy < report.interval[1] or report.accuracy == 1
    document = report.to_json()
    assert document["weights"]["which"] == "last" and document["weights"]["step"] == run.record.step
    assert document["split"] == "test" and len(document["classes"]) == 3
    assert "<table>" in report._repr_html_()
    assert len(list(run.path.glob("evaluation-test-arrays-*.json"))) == 1


def test_evaluation_and_training_agree_on_validation(run: convlens.Run, workplace: Path) -> None:
    """`evaluate --split val` gives the validation score that training reported; it opens no test set."""
    report = convlens.evaluate(run, split="val")
    assert run.val is not None and report.score == run.val and report.openings is None
    assert not (state_folder() / "openings.jsonl").exists()


def test_other_data_is_matched_by_name(run: convlens.Run, workplace: Path, tmp_path: Path) -> None:
    """Other data: all of it is test, framed as the model's, classes by name; unknown ones are refused."""
    x, y = shapes(30, 11)
    for i, (image, label) in enumerate(zip(x, y, strict=True)):
        folder = tmp_path / "mine" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((32, 32)).save(folder / f"{i}.png")
    report = convlens.evaluate(run, tmp_path / "mine")
    assert report.n == 30 and report.accuracy > 0.8
    import shutil

    shutil.rmtree(tmp_path / "mine" / "0")
    fewer = convlens.evaluate(run, tmp_path / "mine")
    assert fewer.n == 30 - int((y == 0).sum()) and fewer.classes()[0]["support"] == 0
    (tmp_path / "mine" / "9").mkdir()
    Image.fromarray(x[0]).save(tmp_path / "mine" / "9" / "a.png")
    with pytest.raises(DataError, match="does not know class '9'"):
        convlens.evaluate(run, tmp_path / "mine")
    with pytest.raises(DataError, match="unknown split"):
        convlens.evaluate(run, split="exam")


def test_images_seen_in_training_are_left_out(run: convlens.Run, arrays: Any, workplace: Path) -> None:
    """Images of other data that the model was made with take no part in its score; they are counted and said."""
    x, y = arrays[0][:40], arrays[1][:40]
    new_x, new_y = shapes(30, 77)
    mixed = {"train": (x[20:], y[20:]), "test": (np.concatenate([x[:20], new_x]), np.concatenate([y[:20], new_y]))}
    report = convlens.evaluate(run, mixed)
    assert report.n == 30 and report.num_left_out == 20 and any("20 pictures" in note for note in report.notes)
    assert report.to_json()["num_left_out"] == 20
    with pytest.raises(DataError, match="no test images but 20 that the model was made with"):
        convlens.evaluate(run, {"train": (x[20:], y[20:]), "test": (x[:20], y[:20])})


def test_the_own_data_under_another_name_keeps_its_splits(workplace: Path, tmp_path: Path) -> None:
    """The training data given again (as arrays, or as a copied folder) is measured on its own test split."""
    x, y = shapes(300, 1)
    trained = convlens.train((x, y), architecture=TINY, recipe=QUICK)
    assert convlens.evaluate(trained, (x, y)).n == trained.record.dataset.num_samples.test < 100
    import shutil

    root = write_folders(tmp_path / "here", 30)
    trained = convlens.train(root, architecture=TINY, recipe=QUICK)
    shutil.copytree(root, tmp_path / "there")
    first = convlens.evaluate(trained)
    again = convlens.evaluate(trained, tmp_path / "there")
    assert again.score == first.score and any("own test split" in note for note in again.notes)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(root / "circle" / "new.png")
    grown = convlens.evaluate(trained, root)
    assert grown.n == first.n + 1 and grown.num_left_out == 60 - first.n


def test_a_packed_folder_serves_without_its_source(workplace: Path, tmp_path: Path) -> None:
    """A run trained on a packed folder is evaluated and resumed from that folder, its source gone."""
    import shutil

    root = write_folders(tmp_path / "src", 30)
    convlens.pack(root, "packed", size=16)
    calls = iter([False] * 2 + [True] * 9)
    run = convlens.train("packed", architecture=TINY, recipe=QUICK, stop=lambda: next(calls))
    shutil.rmtree(root)
    assert convlens.train("packed", resume=run).status == "complete"
    assert convlens.evaluate(run).n == run.record.dataset.num_samples.test


def test_a_changed_folder_does_not_move_the_test_set(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluating without data uses the very splits of the training; where they are gone it says so."""
    root = write_folders(tmp_path / "pictures", 30)
    trained = convlens.train(root, architecture=TINY, recipe=QUICK)
    first = convlens.evaluate(trained)
    (root / "circle" / "new.png").write_bytes((root / "square" / "000.png").read_bytes())
    assert convlens.evaluate(trained).score == first.score
    monkeypatch.setenv("CONVLENS_CACHE", str(tmp_path / "another-cache"))
    with pytest.raises(DataError, match="has changed since"):
        convlens.evaluate(trained)
    import shutil

    shutil.rmtree(root)
    with pytest.raises(DataError, match="not there any more"):
        convlens.evaluate(trained)


def test_permuted_labels_land_at_chance(workplace: Path) -> None:
    """Labels that say nothing: whatever training does, test comes out at chance. Anything else would be a leak."""
    x, y = shapes(900, 5)
    permuted = np.random.default_rng(1).permutation(y)
    run = convlens.train((x, permuted), architecture=TINY, recipe=PLAIN.replace(epochs=15), test=True, progress="none")
    assert run.test is not None
    chance = np.bincount(permuted).max() / len(permuted)
    low, high = run.test.interval
    assert low < chance < high or run.test.accuracy < chance
    honest = convlens.train((x, y), architecture=TINY, recipe=PLAIN.replace(epochs=8), test=True, progress="none")
    assert honest.test is not None and honest.test.accuracy > 0.9


def test_a_perfect_score_is_doubted() -> None:
    """100.0 % of 1,000 images or more comes with a warning; of fewer, or with one mistake, it does not."""
    labels = np.arange(1000) % 3
    perfect = np.eye(3, dtype=np.float32)[labels] * 9
    assert "rarely true" in str(score(perfect, labels).leak_warning)
    assert score(perfect[:999], labels[:999]).leak_warning is None
    perfect[0] = -perfect[0]
    assert score(perfect, labels).leak_warning is None


def test_the_warning_is_printed(workplace: Path) -> None:
    """A report of a perfect score on 1,200 test images says so to a person."""
    plain = np.zeros((1500, 8, 8), np.uint8)
    labels = np.arange(1500) % 2
    plain[labels == 1] = 200
    plain += np.random.default_rng(0).integers(0, 20, plain.shape, dtype=np.uint8)
    run = convlens.train(
        (plain[:300], labels[:300], plain[300:], labels[300:]),
        test=True,
        progress="none",
        architecture="conv(2, 3) batchnorm relu flatten linear(classes)",
        recipe=PLAIN.replace(epochs=6),
    )
    assert run.test is not None and run.test.accuracy == 1
    assert any("rarely true" in line for line in convlens.evaluate(run, progress="none").lines())
    assert any(what == "warning" for what, _ in run.summary())


def test_imbalance_stands_first() -> None:
    """Balanced accuracy (mean recall) and the majority baseline, against scikit-learn, first in what is printed."""
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.zeros(300, int), np.ones(60, int), np.full(40, 2)])
    logits = rng.normal(size=(400, 3)).astype(np.float32) + 2 * np.eye(3, dtype=np.float32)[labels]
    found = score(logits, labels)
    assert found.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, logits.argmax(axis=1)))
    assert (found.majority_baseline, found.imbalance) == (0.75, 7.5)
    assert str(found).startswith("balanced accuracy") and "always the largest class 75.00 %" in str(found)
    assert "(by chance 33.33 %), accuracy" in str(found), "each beside what it is to be held against"
    even = np.arange(400) % 2
    assert not score(logits, even).is_imbalanced and str(score(logits, even))[0].isdigit()


def test_other_packing_of_the_training_pictures_gets_no_plain_score(workplace: Path, tmp_path: Path) -> None:
    """Keys are of framed pixels: a set that was packed otherwise cannot be told from new pictures, and that is said."""
    root = folder(tmp_path / "data", range(60))
    trained = convlens.train(convlens.pack(root, "a", size=16), architecture=TINY, recipe=QUICK)
    other = convlens.pack(root, "b", size=16, region=(0, 0, 20, 19))
    report = convlens.evaluate(trained, other, progress="none")
    assert report.may_count_seen and report.lines()[0].startswith("may count pictures it was made with")


def test_a_model_that_lies_beside_a_run_leaves_its_record_alone(workplace: Path) -> None:
    """Only the run's own model writes into run.json."""
    data = shapes(200, 1)
    one, other = (convlens.train(data, architecture=TINY, recipe=QUICK, seed=seed) for seed in (1, 2))
    copy = other.path / "copy.safetensors"
    copy.write_bytes(one.model.read_bytes())
    convlens.evaluate(copy, progress="none")
    assert convlens.Run(other.path).test is None and convlens.Run(one.path).test is None


def test_a_folder_of_one_class_can_be_measured(workplace: Path) -> None:
    """What nobody can learn from can be measured on: of one class, the recall of that class."""
    run = convlens.train(
        write_folders(workplace / "data", 20), recipe=QUICK, architecture=TINY, progress="none", size=20
    )
    one = write_folders(workplace / "one", 6, side=26)
    shutil.rmtree(one / "square")
    report = convlens.evaluate(run, one, progress="none")
    assert report.n == 6 and report.confusion_KK[1].sum() == 0
    with pytest.raises(DataError, match="one class only"):
        convlens.train(one, progress="none")
    assert any("one class only" in finding.title for finding in convlens.check(one, progress="none").findings)


def test_a_run_of_before_keeps_its_score(workplace: Path) -> None:
    """A run.json whose recipe lacks fields that were added since is that of the same model: the report is kept."""
    run = convlens.train(shapes(200, 1), architecture=TINY, recipe=QUICK, progress="none")
    document = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
    del document["sha256"]
    for name in ("views", "grow_from", "grow_until", "stroke_frac", "gap_frac"):
        del document["recipe"][name]
    write_sealed(run.path / "run.json", document)
    report = convlens.evaluate(run.path, progress="none")
    assert not any("was not kept" in note for note in report.asides) and convlens.Run(run.path).test == report.score


def test_intervals_count_groups(tmp_path: Path, workplace: Path) -> None:
    """Five pictures a burst, all of which show one shape: wherever an interval stands (validation, test, the report) it
    is that of bursts, which are not as many independent answers, and says so."""
    x, y = shapes(40, 3)
    rng = np.random.default_rng(0)
    for number, (image, label) in enumerate(zip(x, y, strict=True)):
        place = tmp_path / "d" / "abc"[label] / f"burst-{number:04d}"
        place.mkdir(parents=True)
        for shot in range(5):
            noisy = np.clip(image + rng.normal(0, 60, image.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(place / f"{shot}.png")
    recipe = QUICK.replace(epochs=1)
    run = convlens.train(tmp_path / "d", architecture=TINY, recipe=recipe, val_frac=0.3, framing="pad", progress="none")
    report = convlens.evaluate(run)
    for found in (run.val, report.score):
        assert found is not None and found.num_groups is not None and 5 * found.num_groups == found.n
        assert f"n = {found.n} in {found.num_groups} groups" in str(found)
        plain = wilson_interval(round(found.accuracy * found.n), found.n)
        assert found.interval[1] - found.interval[0] > plain[1] - plain[0]
    report.save(tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert f"in {report.score.num_groups} groups" in text and "It counts groups" in text
