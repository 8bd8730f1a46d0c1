"""A trained model predicts: the same bytes give the same input."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import convlens
from convlens.errors import ConvlensError, ImageError, ModelFileError, RunError, UsageError
from tests.conftest import QUICK, TINY, Command, shapes
from tests.helpers import scene, trained


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
    with pytest.raises(ImageError, match="5 in folders below: say `recursive`"):
        convlens.predict(run, "a")
    named = convlens.predict(run, "a", recursive=True)
    assert [Path(str(p.path)).name for p in named] == [f"{i}.png" for i in range(5)]
    assert [p.label for p in named] == [p.label for p in many]
    assert convlens.load(run).predict("a/b") == named
    assert convlens.predict(run, ["a/b/[0-2].png", "a/b/3.png", "a/b/4.png"]) == named
    with Path("a/b/0.png").open("rb") as file:
        assert convlens.predict(run, file)[0].label == named[0].label
    assert [p.label for p in convlens.predict(run, list(x / 255))] == [p.label for p in many], "floats in 0..1"


def test_pictures_and_models_that_cannot_be(run: convlens.Run, workplace: Path) -> None:
    """Unreadable pictures, empty folders, absent models and odd values are named."""
    Path("bad.png").write_bytes(b"no picture")
    Path("empty").mkdir()
    cases: list[tuple[type[ConvlensError], str, Any, Any]] = [
        (ImageError, "bad.png: not a picture", run, ["bad.png"]),
        (ImageError, "no file matches", run, "nothing*.png"),
        (ImageError, "nowhere.png", run, "nowhere.png"),
        (ImageError, "holds no pictures", run, "empty"),
        (ImageError, "range nobody knows", run, np.full((4, 4), 1e6)),
        (ImageError, "none of the 2 pictures can be read: bad.png", run, ["bad.png", "nowhere.png"]),
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


def test_rows_of_values_are_pictures_as_in_training(run: convlens.Run, workplace: Path) -> None:
    """(N, 256) are N pictures of 16×16 for predict too, not one strip; what speaks against an answer is one tuple."""
    x, _ = shapes(4, 9)
    found = convlens.predict(run, x.reshape(4, -1), progress="none")
    assert [one.label for one in found] == [one.label for one in convlens.predict(run, x, progress="none")]
    assert convlens.Prediction(None, "a", 0.9, (), unfamiliar=False).doubts == ()
    assert convlens.Prediction(None, "a", 0.9, (), unfamiliar=True, uncertain=True).doubts == (
        "unfamiliar",
        "uncertain",
    )
    assert convlens.Prediction(None, "a", 0.9, ()).doubts == ("what is unfamiliar is not told",)
    assert convlens.Prediction(None, "", 0.0, (), "damaged").doubts == ("cannot be read: damaged",)


def test_one_broken_picture_ends_nothing(run: convlens.Run, command: Command, workplace: Path) -> None:
    """Every file has its row, the broken ones with their reason: table, CSV, JSON and lines of JSON; exit code 1. Paths
    come from standard input too; what lies beside is counted."""
    x, _ = shapes(3, 9)
    Path("some").mkdir()
    for number, image in enumerate(x):
        Image.fromarray(image).save(f"some/{number}.png")
    Image.fromarray(x[0]).save("some/without-suffix", "PNG")
    Path("some/broken.jpg").write_bytes(Path("some/0.png").read_bytes()[:40])
    Path("some/phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    Path("some/notes.txt").write_text("no picture", encoding="utf-8")
    done = command("predict", run.path, "some", "--csv", "all.csv")
    assert done.returncode == 1 and "2 of 6 pictures cannot be read" in done.stderr, done.stderr
    assert "1 file in some, no pictures, passed over (1 .txt)" in done.stderr and "HEIC" in done.stdout
    rows = Path("all.csv").read_text(encoding="utf-8").splitlines()
    assert (
        len(rows) == 7
        and rows[0].endswith("probability3,answer,unfamiliar,seen,error")
        and sum("HEIC" in row for row in rows) == 1
    )
    lines = command("predict", run.path, "-", "--jsonl", input="some/0.png\nsome/broken.jpg\n")
    answers = [json.loads(line) for line in lines.stdout.splitlines()]
    assert lines.returncode == 1 and [answer["path"] for answer in answers] == ["some/0.png", "some/broken.jpg"]
    assert answers[0]["label"] and answers[1]["error"] and answers[1]["label"] is None
    assert len(json.loads(command("predict", run.path, "some/*.png", "--json").stdout)) == 3
    none = command("predict", run.path, "some/broken.jpg", "--json")  # of several none: the document is whole too
    assert none.returncode == 2 and [row["label"] for row in json.loads(none.stdout)] == [None]
    assert command("predict", run.path, "some/broken.jpg").returncode == 2


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


@pytest.mark.parametrize(
    "scaled", [lambda x: x / 127.5 - 1, lambda x: x.astype(np.uint16) * 257 + 99], ids=["signed", "16 bits"]
)
def test_a_set_that_is_scaled_otherwise_is_refused(scaled: Any, workplace: Path) -> None:
    """Of a model that was trained in -1..1 or on 16 bits: numbers in 0..1 or 0..255 would all be bright, or black.
    Bytes are bytes, and a single picture may be dark."""
    x, y = shapes(200)
    model = trained((scaled(x), y), architecture=TINY, recipe=QUICK)
    assert convlens.evaluate(model, split="train", progress="none").accuracy > 0.5
    for other in (x / 255.0, x.astype(np.int64)):
        if scaled(x).min() < 0 and other.max() > 1:
            continue  # in a range of its own, and read so
        for ask in (convlens.evaluate, convlens.predict):
            with pytest.raises(ConvlensError, match=r"values in 0\.\..*, and the model was trained on"):
                ask(model, (other, y) if ask is convlens.evaluate else other, progress="none")
        convlens.predict(model, other[0], progress="none")
    ours, bytes_ = convlens.predict(model, scaled(x), progress="none"), convlens.predict(model, x, progress="none")
    assert sum(a.label == b.label for a, b in zip(ours, bytes_, strict=True)) >= 195
    first = convlens.predict(model, scaled(x)[:, None], progress="none")
    assert [one.label for one in first] == [one.label for one in ours], "channels may stand first"


def test_names_of_other_libraries_are_answered(run: convlens.Run) -> None:
    """With what there is in their place; others as Python does."""
    for thing, name, words in (
        (convlens, "fit", "use convlens.train"),
        (run, "predict", "use convlens.predict"),
        (convlens.load(run), "save", "run.model"),
        (run, "nothing", "has no attribute 'nothing'"),
    ):
        with pytest.raises(AttributeError, match=words):
            getattr(thing, name)


def test_one_model_in_several_threads(run: convlens.Run) -> None:
    """As a web server has it: the answers are those of one thread, whether others look into it meanwhile or not."""
    model, pictures = convlens.load(run), [scene(number, 40) for number in range(12)]
    alone = [model.predict(one)[0] for one in pictures]
    with ThreadPoolExecutor(4) as threads:
        looks = [threads.submit(convlens.look, model, one) for one in pictures[:3]]
        together = list(threads.map(lambda one: model.predict(one)[0], pictures * 5))
        assert [one.result().label for one in looks] == [one.label for one in alone[:3]]
    assert together == alone * 5


def test_features_of_a_layer(run: convlens.Run) -> None:
    """For many pictures the values that `look` shows of one; what there is where there is no such layer."""
    model = convlens.load(run)
    framed = np.stack([model.frame(scene(number, 40)) for number in range(5)])
    for layer in convlens.look(model, scene(3, 40)).layers:
        found = model.features(framed, layer.address)
        assert found.shape == (5, *layer.values.shape) and found.dtype == np.float32
        np.testing.assert_allclose(found[3], layer.values, rtol=1e-5, atol=1e-5)
    with pytest.raises(UsageError, match="there is no layer '99': there are 0, 1"):
        model.features(framed, "99")
    pictures = [scene(number, 40) for number in range(5)]
    assert np.array_equal(model.features(pictures, "0"), model.features(framed, "0")), "pictures as they are, too"
    with pytest.raises(ImageError, match="not a picture"):
        model.features([b"nonsense"], "0")


def test_repr_of_a_classifier(run: convlens.Run) -> None:
    """A classifier shows itself in a notebook, names escaped."""
    assert "parameters" in str(convlens.load(run)) and "<pre>" in convlens.load(run)._repr_html_()


def test_mirrored_views(two_views: convlens.Run, arrays: Any, workplace: Path) -> None:
    """A picture and its mirror image get the same answer, the mean of the logits of both; without views they do not.
    Training, evaluate and the card agree on it."""
    images = arrays[2][:, :, :, None]
    both, single = convlens.load(two_views), convlens.load(two_views, views="none")
    assert (both.views, single.views) == ("mirror", "none")
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    np.testing.assert_allclose(both.logits(images), both.logits(mirrored), rtol=1e-5, atol=1e-5)
    mean = (single.logits(images) + single.logits(mirrored)) / 2
    np.testing.assert_allclose(both.logits(images), mean, rtol=1e-5, atol=1e-5)
    assert np.abs(single.logits(images) - single.logits(mirrored)).max() > 0.01
    report = convlens.evaluate(two_views, split="val")
    assert report.score == two_views.val and "mirror image averaged" in str(report)
    answer = convlens.predict(two_views, [arrays[2][0]])[0]
    assert answer == convlens.predict(two_views, [arrays[2][0][:, ::-1]])[0]
    assert answer != convlens.predict(two_views, [arrays[2][0]], views="none")[0]


def test_views_of_one_s_own_choice_are_not_the_run_s_score(two_views: convlens.Run, workplace: Path) -> None:
    """evaluate with other views than the model's leaves no report, and counts as another plan's opening."""
    report = convlens.evaluate(two_views, views="none")
    assert any("was not kept" in note for note in report.asides) and two_views.test is None
    assert report.openings is not None and report.openings.num_plans == 1
    own = convlens.evaluate(two_views)
    assert own.openings is not None and own.openings.num_plans == 2
    assert not any("was not kept" in note for note in own.asides)
    with pytest.raises(UsageError, match="unknown views"):
        convlens.evaluate(two_views, views="all")


def test_the_printed_network_classifies_as_predict_does(two_views: convlens.Run, arrays: Any) -> None:
    """`explain MODEL --torch` of a model with mirrored views prints the mean over both, which gives its logits."""
    names: dict[str, Any] = {}
    exec(convlens.explain(two_views).torch_source(), names)
    images = arrays[2][:8, :, :, None]
    with torch.no_grad():
        printed = names["logits"](torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(printed, convlens.load(two_views).logits(images), rtol=1e-4, atol=1e-4)


def test_views_on_the_command_line(two_views: convlens.Run, command: Command, workplace: Path) -> None:
    """predict --views none answers by the picture alone; a word that is none of them is one line and exit code 2."""
    Image.fromarray(shapes(1, 3)[0][0]).save("one.png")
    answers = [
        json.loads(command("predict", two_views.path, "one.png", "--json", *extra).stdout)[0]["probability"]
        for extra in ((), ("--views", "none"))
    ]
    assert answers[0] != answers[1]
    failed = command("predict", two_views.path, "one.png", "--views", "both")
    assert failed.returncode == 2 and "unknown --views 'both'" in failed.stderr and "mirror" in failed.stderr


def test_look_says_what_predict_answers(two_views: convlens.Run, arrays: Any) -> None:
    """`look` explains one view; the answer over both stands beside it."""
    features = convlens.look(two_views, arrays[2][0])
    answer = convlens.predict(two_views, [arrays[2][0]])[0]
    words = f"as predict answers: {answer.label}, {100 * answer.probability:.1f} %"
    assert (
        words in features.lines()[1]
        and not convlens.look(convlens.load(two_views, views="none"), arrays[2][0]).mirrored
    )
