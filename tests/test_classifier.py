"""Prediction and evaluation: the same bytes give the same input, and the only door to test keeps its ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import convlens
from convlens.errors import ConvlensError, DataError, ImageError, ModelFileError, RunError, UsageError
from convlens.files import read_lines, state_folder
from tests.conftest import QUICK, TINY, Command, shapes, write_folders


@pytest.fixture(scope="module")
def run(arrays: Any, tmp_path_factory: pytest.TempPathFactory) -> convlens.Run:
    out = tmp_path_factory.mktemp("classifier") / "run"
    return convlens.train(arrays, architecture=TINY, recipe=QUICK.replace(epochs=8), out=out)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> convlens.Run:
    """A small network trained for a moment on MNIST, whose framing is ink."""
    out = tmp_path_factory.mktemp("digits") / "run"
    return convlens.train("mnist", preset="fast", recipe=convlens.PRESETS["fast"].recipe.replace(epochs=0.3), out=out)


def test_the_same_picture_gives_the_same_input(digits: convlens.Run, command: Command, workplace: Path) -> None:
    """Path, string, bytes, array and PIL image: bit-equal framed input, and the command line's probabilities."""
    image = Image.new("L", (90, 120), 250)
    image.paste(10, (40, 20, 52, 100))
    image.save("one.png")
    classifier = convlens.load(digits)
    ways: list[Any] = [Path("one.png"), "one.png", Path("one.png").read_bytes(), np.asarray(image), image]
    framed = [classifier.frame(way) for way in ways]
    assert all(np.array_equal(framed[0], other) for other in framed[1:])
    answers = [convlens.predict(digits, way)[0].top for way in ways]
    assert all(answer == answers[0] for answer in answers)
    import json

    done = command("predict", digits.path, "one.png", "--json")
    printed = json.loads(done.stdout)[0]
    assert [(t["label"], t["probability"]) for t in printed["top"]] == list(answers[0])
    assert printed["path"] == "one.png" and printed["label"] == "1"


def test_own_digits(digits: convlens.Run, tmp_path: Path) -> None:
    """Digits that people drew are read at least as well as MNIST's own, even by a network trained for a moment."""
    from tests.conftest import shared

    paths = sorted(shared("drawn_digits", tmp_path).rglob("*.*"))
    answers = convlens.predict(digits, paths)
    right = sum(answer.label == path.parent.name for path, answer in zip(paths, answers, strict=True))
    assert right >= 76, f"{right} of {len(paths)}"


def test_predict_takes_many_and_folders(run: convlens.Run, workplace: Path) -> None:
    """Lists, stacks, generators and folders come back in order; top is bounded by the classes."""
    x, _ = shapes(5, 9)
    many = convlens.predict(run, x[..., None], top=9)
    assert len(many) == 5 and all(len(p.top) == 3 for p in many)
    assert many == convlens.predict(run, list(x), top=9) == convlens.predict(run, iter(x), top=9)
    assert sum(probability for _, probability in many[0].top) == pytest.approx(1)
    Path("a/b").mkdir(parents=True)
    for i, image in enumerate(x):
        Image.fromarray(image).save(f"a/b/{i}.png")
    named = convlens.predict(run, "a")
    assert [Path(str(p.path)).name for p in named] == [f"{i}.png" for i in range(5)]
    assert [p.label for p in named] == [p.label for p in many]
    assert convlens.load(run).predict("a") == named


def test_pictures_and_models_that_cannot_be(run: convlens.Run, workplace: Path) -> None:
    """Unreadable pictures, empty folders, absent models and odd values are named."""
    Path("bad.png").write_bytes(b"no picture")
    Path("empty").mkdir()
    cases: list[tuple[type[ConvlensError], str, Any, Any]] = [
        (ImageError, "bad.png: not a picture", run, ["bad.png"]),
        (ImageError, "nowhere.png", run, "nowhere.png"),
        (ImageError, "holds no pictures", run, "empty"),
        (ImageError, "uint8", run, np.zeros((4, 4))),
        (UsageError, "no pictures", run, []),
        (ModelFileError, "no model file", "nowhere.safetensors", "bad.png"),
        (ModelFileError, "damaged, truncated", "bad.png", "bad.png"),
        (ModelFileError, "folder without run.json", "empty", "bad.png"),
        (RunError, "no last run", "last", "bad.png"),
    ]
    for kind, words, model, images in cases:
        with pytest.raises(kind, match=words):
            convlens.predict(model, images)
    with pytest.raises(UsageError, match="top"):
        convlens.predict(run, "bad.png", top=0)


def test_explain_of_a_model_loads_its_weights(run: convlens.Run, workplace: Path) -> None:
    """The printed source, run as it is, gives the classifier's logits."""
    scope: dict[str, Any] = {}
    exec(convlens.explain(run).torch_source(), scope)
    x, _ = shapes(8, 5)
    with torch.no_grad():
        printed = scope["network"](scope["normalise"](torch.from_numpy(x[..., None])))
    np.testing.assert_allclose(printed.numpy(), convlens.load(run).logits(x[..., None]), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="its own input"):
        convlens.explain(run, classes=3)


# ---------------------------------------------------------------- evaluation


def test_evaluation_counts_by_hand(run: convlens.Run, arrays: Any, workplace: Path) -> None:
    """Accuracy, confusion, loss and counts of the report are those of the predictions themselves."""
    report = convlens.evaluate(run)
    logits = convlens.load(run).logits(arrays[2][..., None])
    right = logits.argmax(1) == arrays[3]
    assert report.n == 100 and report.accuracy == right.mean()
    assert np.diag(report.confusion_KK).sum() == right.sum() and report.confusion_KK.sum() == 100
    assert report.interval[0] < report.accuracy < report.interval[1] or report.accuracy == 1
    document = report.to_json()
    assert document["weights"]["which"] == "last" and document["weights"]["step"] == run.record["step"]
    assert document["split"] == "test" and len(document["classes"]) == 3
    assert "<table>" in report._repr_html_()
    assert len(list(run.path.glob("evaluation-test-arrays-*.json"))) == 1


def test_evaluation_and_training_agree_on_validation(run: convlens.Run, workplace: Path) -> None:
    """`evaluate --split val` gives the validation score that training reported; it opens no test set."""
    report = convlens.evaluate(run, split="val")
    assert run.val is not None and report.score == run.val and report.openings is None
    assert not (state_folder() / "openings.jsonl").exists()


def test_the_ledger_counts_plans_not_seeds(arrays: Any, workplace: Path) -> None:
    """Each opening is written down; two seeds of one plan are one plan, another recipe is another."""
    seen = []
    for seed, epochs in ((1, 0.2), (2, 0.2), (2, 0.3)):
        trained = convlens.train(arrays, architecture=TINY, recipe=QUICK.replace(epochs=epochs), seed=seed)
        openings = convlens.evaluate(trained).openings
        assert openings is not None
        seen.append((openings.count, openings.num_plans))
    assert seen == [(1, 1), (2, 1), (3, 2)]
    assert len(read_lines(state_folder() / "openings.jsonl")) == 3


def test_training_does_not_open_test(arrays: Any, workplace: Path) -> None:
    """Without test=True no test image is looked at and nothing stands in the ledger."""
    trained = convlens.train(arrays, architecture=TINY, recipe=QUICK)
    assert trained.test is None and not (state_folder() / "openings.jsonl").exists()


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
    assert report.n == 30 and report.num_left_out == 20 and any("20 images" in note for note in report.notes)
    assert report.to_json()["num_left_out"] == 20
    with pytest.raises(DataError, match="no test images but 20 that the model was made with"):
        convlens.evaluate(run, {"train": (x[20:], y[20:]), "test": (x[:20], y[:20])})


def test_the_own_data_under_another_name_keeps_its_splits(workplace: Path, tmp_path: Path) -> None:
    """The training data given again (as arrays, or as a copied folder) is measured on its own test split."""
    x, y = shapes(300, 1)
    trained = convlens.train((x, y), architecture=TINY, recipe=QUICK)
    assert convlens.evaluate(trained, (x, y)).n == trained.record["dataset"]["num_samples"]["test"] < 100
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
    assert convlens.evaluate(run).n == run.record["dataset"]["num_samples"]["test"]


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
    """A network trained on shuffled labels is no better than guessing on test: nothing leaks."""
    x, y = shapes(300, 1)
    x_test, y_test = shapes(300, 2)
    shuffled = np.random.default_rng(0).permutation(y)
    trained = convlens.train(
        (x, shuffled, x_test, y_test), architecture=TINY, recipe=QUICK.replace(epochs=10), test=True
    )
    assert trained.test is not None and trained.test.accuracy < 0.5


def test_repr_of_a_classifier(run: convlens.Run) -> None:
    """A classifier shows itself in a notebook, names escaped."""
    assert "parameters" in str(convlens.load(run)) and "<pre>" in convlens.load(run)._repr_html_()
