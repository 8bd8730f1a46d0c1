"""What whoever sits down for the first time reads, and must not misread: numbers beside what they are to be held
against, what was learned from, and the next step."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

import convlens
from convlens.cli import main
from convlens.data.packed.pack import reopen
from convlens.errors import ConvlensError, SentenceError, UsageError
from convlens.evaluation.test_ledger import openings_of
from convlens.metrics import Score, score
from convlens.modelfile import read_model
from convlens.presets import PRESETS
from convlens.progress import open_progress
from convlens.run import Series, is_one_plan, over_seeds, update_record
from convlens.text import probability
from tests.conftest import QUICK, TINY, shapes
from tests.helpers import SHORT, folder, trained, trained_on

NOTHING = QUICK.replace(lr=1e-7, epochs=0.3)


def said(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(list(map(str, words)))
    out, err = capfd.readouterr()
    return code, " ".join(out.split()), " ".join(err.split())


def test_a_training_at_chance_does_not_end_like_a_success(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What it is no better than stands in the summary, with what to try; the next step is not to open test. The report
    and every later look say so too; a network that has learned something is spared."""
    x, y = shapes(400)
    np.savez("d.npz", x=x, y=y)
    flags = ["--architecture", TINY, "--augment", "none", "--lr", "1e-7", "--epochs", "0.3"]
    code, out, _ = said(capfd, "train", "d.npz", *flags)
    assert code == 0 and "no better than always answering" in out and "another learning rate" in out
    assert "Next: convlens check DATA" in out.replace("python -m convlens", "convlens") and "evaluate" not in out
    assert "no better than always answering" in Path("runs/d-1/report.html").read_text(encoding="utf-8")
    code, out, _ = said(capfd, "evaluate", "last", "--split", "val")
    assert "no better than always answering" in out
    good = trained_on((x, y))
    assert good.warning is None and "no better" not in str(good)


def test_chance_among_classes_that_differ_in_size() -> None:
    """Of a set in which one class has nine in ten, an accuracy like that class's share is no chance where the other is
    found as well; it is where each is answered alike."""
    labels = np.array([0] * 900 + [1] * 100)
    found = np.where(np.random.default_rng(0).random(1000) < 0.12, 1 - labels, labels)
    skilled, blind = score(np.eye(2)[found], labels), score(np.eye(2)[np.zeros(1000, int)], labels)
    assert skilled.accuracy < 0.9 and not skilled.is_chance and skilled.chance_warning() is None
    assert (
        blind.is_chance
        and "answering '?" not in str(blind.chance_warning("a"))
        and "a (90.00 %)" in str(blind.chance_warning("a"))
    )
    assert not Score(0.5, (0.4, 0.6), 100, 1.0).is_chance, "of a score of before nothing is known"
    for counts in ((200,), (98, 2), (18, 2), (3, 2)):  # all right: that no chance could be told apart is no reproach
        right = np.repeat(np.arange(len(counts)), counts)
        assert score(np.eye(2)[right], right).chance_warning() is None
    few = score(np.eye(2)[[0, 0, 0, 1, 1, 0]], np.array([0, 0, 0, 1, 1, 1]))
    assert "6 images do not tell it from always answering" in str(few.chance_warning())


def test_several_seeds_are_told_by_what_was_promised_first(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Balanced accuracy where classes differ in size, with what guessing has, what ± is, and both n; a folder of seeds
    can be evaluated, and one of different plans cannot."""
    x, y = shapes(500)
    keep = (y != 2) | (np.arange(500) % 5 == 0)
    np.savez("d.npz", x=x[keep], y=y[keep])
    flags = ["--architecture", TINY, "--augment", "none", "--epochs", "2", "--out", "seeds", "--seeds", "2"]
    code, out, _ = said(capfd, "train", "d.npz", *flags)
    assert code == 0 and "balanced accuracy (by chance 33.33 %)" in out and "mean ± sd over 2 seeds, n = " in out
    code, out, _ = said(capfd, "evaluate", "seeds")
    assert code == 0 and "mean ± sd over 2 seeds" in out and "images each" in out and "seeds/2" in out
    code, out, _ = said(capfd, "evaluate", "seeds", "--json")
    assert len(json.loads(out)["reports"]) == 2
    code, _, err = said(capfd, "evaluate", "seeds", "--csv", "a.csv")
    assert code == 2 and "several seeds" in err and not Path("a.csv").exists()
    convlens.train("d.npz", architecture=TINY, recipe=QUICK.replace(epochs=1), out="seeds/3", progress="none")
    code, _, err = said(capfd, "evaluate", "seeds")
    assert code == 2 and "not seeds of one plan" in err
    twice = [convlens.train("d.npz", architecture=TINY, recipe=QUICK, out=f"t/{n}", progress="none") for n in (1, 2)]
    assert not is_one_plan(twice), "one seed twice has no spread"
    assert said(capfd, "evaluate", "t")[0] == 2 and Series(()).summary() == []
    assert "no spread is known" in over_seeds([score(np.eye(2), np.arange(2))])
    alike = [score(factor * np.eye(2)[[0, 0]], np.arange(2)) for factor in (1, 2)]  # as many right, by another network
    assert "the seed changes nothing" not in over_seeds(alike)
    assert "the seed changes nothing" in over_seeds(alike[:1] * 2)


def test_pictures_learned_from_are_marked(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Their answers say nothing of new pictures: a mark, a column, a count in the last line; others have none."""
    root = folder(workplace / "data", range(60))
    run = trained(root, size=16)
    code, out, err = said(capfd, "predict", run.path, root / "ant", "--csv", "a.csv")
    rows = list(csv.DictReader(Path("a.csv").read_text(encoding="utf-8").splitlines()))
    num_seen = sum(row["seen"] == "yes" for row in rows)
    assert code == 0 and 15 < num_seen < 30 and out.count("(learned from)") == num_seen
    assert f"{num_seen} of 30 pictures the model was made with" in err and "written: a.csv" in err
    new = folder(workplace / "new", range(100, 110))
    code, out, err = said(capfd, "predict", run.path, new / "ant")
    assert code == 0 and "(learned from)" not in out and "made with" not in err
    assert [one.seen for one in convlens.predict(run, new / "ant", progress="none")] == [False] * 5
    bare = trained(root, size=16, omit_record=True)
    assert convlens.predict(bare, root / "ant", progress="none")[0].seen is None


def test_files_that_jobs_make_anew(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`--overwrite` replaces a table or a report once the new one is whole, and nothing before."""
    root = folder(workplace / "data", range(60))
    run = trained(root, size=16)
    Path("a.csv").write_text("old", encoding="utf-8")
    assert said(capfd, "predict", run.path, root / "ant", "--csv", "a.csv")[0] == 2
    assert said(capfd, "predict", run.path, "none.png", "--csv", "a.csv", "--overwrite")[0] == 2
    assert said(capfd, "predict", run.path, root / "ant", "--csv", "a.csv", "--overwrite")[0] == 0
    assert said(capfd, "predict", run.path, root / "ant", "--csv", run.model, "--overwrite")[0] == 2
    record = run.path / "run.json"
    assert said(capfd, "evaluate", run.path, "--report", record, "--overwrite")[0] == 2 and record.stat().st_size > 500
    assert len(Path("a.csv").read_text(encoding="utf-8").splitlines()) == 31
    assert said(capfd, "evaluate", run.path, "--report", "a.csv")[0] == 2
    code, _, err = said(capfd, "evaluate", run.path, "--csv", "a.csv", "--overwrite", "--report", "r.html")
    assert code == 0 and "written: a.csv" in err and "written: r.html" in err
    assert sorted(path.name for path in workplace.iterdir() if path.name.startswith((".", "a.csv"))) == ["a.csv"]


def test_what_others_call_it(workplace: Path) -> None:
    """The habits of other libraries get the word, or the form, that is meant here."""
    x, y = shapes(60, 3)
    for wrong, words in (
        (lambda: convlens.train(x, y), r"train\(\(x, y\)\)"),
        (lambda: convlens.evaluate("last", x, y), r"evaluate\(model, \(x, y\)\)"),
        (lambda: convlens.train((x, y), random_state=0), "did you mean 'seed'"),
        (lambda: convlens.train((x, y), recipe={"learning_rate": 0.1}), "did you mean 'lr'"),
        (lambda: convlens.train((x, y), device="gpu"), "did you mean 'cuda'"),
        (lambda: convlens.evaluate("last", split="validation"), "did you mean 'val'"),
        (lambda: convlens.train((x, y), architecture=cast(Any, np.zeros(3))), "is a sentence like .* not ndarray"),
    ):
        with pytest.raises(convlens.ConvlensError, match=words):
            wrong()


def test_a_learning_rate_under_muon_says_what_it_is_of(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Kernels keep their own: who cuts `lr` to a quarter learns that most of the network did not notice."""
    x, y = shapes(60, 3)
    recipe = {"optimizer": "muon", "lr": 0.001, "epochs": 0.1}
    convlens.train((x, y), architecture=TINY, recipe=recipe, progress="auto")
    assert "convolution kernels keep a learning rate of their own" in capfd.readouterr().err
    convlens.train((x, y), architecture=TINY, recipe=recipe | {"muon_lr": 0.01}, progress="auto")
    assert "convolution kernels keep" not in capfd.readouterr().err


def test_which_pictures_are_wrong(workplace: Path) -> None:
    """A row for each image that was measured: where it lies, what it is, what was answered; `compare` reads it."""
    root = folder(workplace / "data", range(90))
    run = trained(root, size=16, val_frac=0.3)
    report = convlens.evaluate(run, progress="none")
    report.save("a.csv")
    rows = list(csv.DictReader(Path("a.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == report.n and all((root / row["path"]).is_file() for row in rows)
    assert all(Path(row["path"]).parts[0] == row["label"] for row in rows)
    assert sum(row["right"] == "yes" for row in rows) == round(report.accuracy * report.n)
    assert {row["seen"] for row in rows} == {"no"}
    mistakes = report.mistakes()
    assert mistakes and [row["path"] for row in rows][: len(mistakes)] == [one.path for one in mistakes]
    assert {row["right"] for row in rows[: len(mistakes)]} == {"no"}
    found = convlens.compare([run, "a.csv"], progress="none")
    assert found.pairs[0].difference.estimate == 0 and found.pairs[0].winner is None


def test_an_empty_page_has_no_ink(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever a network answers to it: nothing was written there. Answers that are less probable than was asked for
    are uncertain."""
    x, y = shapes(300)
    np.savez("d.npz", x=x, y=y)
    run = convlens.train("d.npz", architecture=TINY, recipe=QUICK, framing="ink", progress="none")
    assert read_model(run.model).card.input_spec.framing == "ink"
    page = np.full((40, 40), 255, np.uint8)
    written = page.copy()
    written[5:35, 18:22] = 0
    blank, drawn = convlens.predict(run, [page, written], progress="none")
    assert blank.remark == "no ink found" and blank.unfamiliar and "no ink found" in blank.answer
    looked = convlens.look(run, np.full((40, 40), 255, np.uint8))
    assert "no ink found" in looked.title and looked.unfamiliar, "what look explains is the answer to a blank sheet"
    assert drawn.remark is None
    asked = convlens.predict(run, list(x[:50]), min_probability=0.9, progress="none")
    assert [one.uncertain for one in asked] == [one.probability < 0.9 for one in asked]
    with pytest.raises(UsageError, match="min_probability"):
        convlens.predict(run, list(x[:1]), min_probability=1.5, progress="none")


def test_what_becomes_of_a_parents_classes_is_said(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Kept, added and dropped ones by name, and how to keep all; nothing where they are the same."""
    parent = trained(folder(workplace / "six", range(60), ("a", "b", "c", "d")), size=16)
    folder(workplace / "three", range(100, 160), ("b", "new"))
    code, _, err = said(capfd, "train", "three", "--from", parent.path, "--epochs", "0.5")
    assert code == 0 and "kept 'b'; added 'new'; dropped 'a', 'c', 'd'" in err and "to keep all" in err
    folder(workplace / "same", range(200, 260), ("a", "b", "c", "d"))
    code, _, err = said(capfd, "train", "same", "--from", parent.path, "--epochs", "0.5")
    assert code == 0 and "classes of the parent" not in err


def test_whose_openings_they_are(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A test set that another plan opened is not called sealed; of several openings it is said which are this plan's,
    since when, and where that is written."""
    root = folder(workplace / "data", range(60))
    flags = ["--architecture", TINY, "--augment", "none", "--size", "16", "--channels", "1"]
    code, _, _ = said(capfd, "train", root, *flags, "--epochs", "9", "--lr", "0.02")
    dataset = reopen(convlens.runs()[-1].record.dataset)
    assert code == 0 and openings_of(dataset).count == 0
    for epochs in (0.5, 1):
        run = trained(root, size=16, channels=1, architecture=TINY, recipe=SHORT.replace(epochs=epochs))
        convlens.evaluate(run, progress="none")
    report = convlens.evaluate(run, progress="none")
    text = str(report.openings)
    assert (
        "on this test set 3 times since 20" in text
        and "of 2 plans (input, network and recipe): 2 times of this one" in text
    )
    assert "by you, as " in text and "openings.jsonl" in text
    assert openings_of(dataset).text in said(capfd, "train", root, *flags, "--epochs", "9", "--lr", "0.02")[1] or (
        convlens.runs()[-1].warning is not None
    )


def test_fields_of_the_recipe_by_name(workplace: Path) -> None:
    """`train(data, epochs=1, lr=0.01)` just works; a name that there is not comes with the nearest."""
    data = shapes(200)
    run = convlens.train(data, architecture=TINY, epochs=1, lr=0.01, augment="none", progress="none")
    assert (run.record.recipe["epochs"], run.record.recipe["lr"]) == (1, 0.01)
    assert {"epochs", "lr"} <= set(run.record.pinned)
    cases: list[tuple[dict[str, Any], str]] = [({"epoch": 1}, "epochs"), ({"learning_rate": 1}, "no parameter 'learn")]
    cases += [
        ({"class_names": ["a"]}, "names themselves"),
        ({"dropout": 0.5}, "a layer dropout"),
        ({"max_iter": 3}, "epochs"),
    ]
    for wrong, words in cases:
        with pytest.raises(UsageError, match=words):
            convlens.train(data, progress="none", **wrong)
    with pytest.raises(UsageError, match="by name and in `recipe`"):
        convlens.train(data, recipe={"lr": 0.1}, lr=0.2, progress="none")


def test_notebooks_show_answers_and_confusion(toy: convlens.Run) -> None:
    """Lists of answers are tables there, and a report has its confusion matrix; Python and JSON have the same names."""
    found = convlens.predict(toy, list(shapes(3)[0]), progress="none")
    assert isinstance(found, list) and found._repr_html_().count("<tr>") == 4
    report = convlens.evaluate(toy, split="val", progress="none")
    assert "true class" in report._repr_html_()
    told = report.score.to_json()
    assert all(getattr(report.score, name) == told[name] for name in ("accuracy", "n", "balanced_accuracy"))


def test_three_ways_to_begin(capfd: pytest.CaptureFixture[str]) -> None:
    """`convlens` alone names them; help ends with where the words are explained."""
    code, out, _ = said(capfd)
    assert code == 0 and all(word in out for word in ("convlens train", "MY-FOLDER", "convlens serve --open"))
    assert "glossary.md" in said(capfd, "--help")[1]


def test_runs_show_what_they_differ_in(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Rows that look alike are told apart: a learning rate is named, and chance is marked; parameters, intervals,
    balanced accuracy, and runs that `out` put elsewhere are there too."""
    x, y = shapes(400)
    keep = (y != 2) | (np.arange(400) % 5 == 0)
    good = trained_on((x[keep], y[keep]))
    bad = trained_on((x[keep], y[keep]), recipe=QUICK.replace(lr=1e-8), out="elsewhere/bad")
    code, out, _ = said(capfd, "runs")
    assert code == 0 and "lr=1e-08" in out and f"lr={QUICK.lr:g}" in out and "elsewhere/bad" in out
    assert f"{good.record.num_parameters:,}" in out and "balanced" in out and "(" in out
    assert bad.val is not None and bad.val.is_chance and "!: no better than always answering" in out
    code, out, _ = said(capfd, "runs", "runs")
    assert "elsewhere/bad" in out
    code, out, _ = said(capfd, "runs", "elsewhere")
    assert "elsewhere/bad" in out and good.path.name not in out


def test_models_that_learned_for_different_lengths(workplace: Path) -> None:
    """As two settings get them in the same time: the comparison says so."""
    data = shapes(300)
    runs = [trained_on(data, recipe=QUICK.replace(epochs=epochs)) for epochs in (1.0, 2.0)]
    assert "they differ in epochs " in str(convlens.compare([run.path for run in runs], progress="none"))
    same = [runs[0], trained_on(data, recipe=QUICK.replace(epochs=1, lr=0.05))]
    assert "numbers of epochs" not in str(convlens.compare([run.path for run in same], progress="none"))


def test_all_mistakes_of_a_sentence_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    """Each with its column and caret, inside brackets too; none that only follows from another."""
    with pytest.raises(SentenceError) as caught:
        convlens.parse("conv(8, kernel=3) relo repeat(2, foo(3) relu) residual(bad) linear(10) softmax")
    error = caught.value
    assert [one.column for one in (error, *error.others)] == [9, 19, 34, 56, 72]
    assert "softmax is applied for you" in error.others[-1].reason and str(error).count("^") == 5
    with pytest.raises(SentenceError) as caught:
        convlens.parse("x " * 5_000)
    assert len(caught.value.others) == 9, "a stranger's sentence costs no more than ten"
    deep = "residual(" * 12 + "foo " * 12 + ")" * 12
    with pytest.raises(SentenceError) as caught:
        convlens.parse(deep)
    assert len(caught.value.others) == 9 and len(str(caught.value)) < 10_000, "each mistake once, however deep"
    code, _, err = said(capfd, "explain", "relo relu bat")
    assert code == 2 and "'relo'" in err and "'bat'" in err


def test_explain_takes_what_train_takes(capfd: pytest.CaptureFixture[str]) -> None:
    """A preset's name; and where classes are said, only networks that end in so many numbers."""
    assert str(convlens.explain("standard").plan.architecture) == str(convlens.parse(PRESETS["standard"].architecture))
    with pytest.raises(SentenceError, match="gives 7 values, not one for each of the 3 classes"):
        convlens.explain("flatten linear(7)", classes=3)
    assert "is for data of 7 classes, not of 10" in str(convlens.explain("flatten linear(7)"))
    assert not convlens.explain("flatten linear(classes)", classes=3).remarks
    assert convlens.explain("conv(8, 3)", classes=3).plan.num_parameters, "a part of a network is explained as ever"


def test_printed_torch_source_loads_whatever_a_model_file_holds(workplace: Path) -> None:
    """A model that knows what is unfamiliar has tensors that are not the network's."""
    run = trained_on(shapes(2_000))
    assert read_model(run.model).card.unfamiliarity is not None
    source = convlens.explain(run.path).torch_source()
    done = subprocess.run([sys.executable, "-c", source], check=False, cwd=workplace, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_overwrite_replaces_what_is_named_and_nothing_else(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each command that writes a file says that it is there and how to replace it; with --overwrite it is made anew,
    and a record of convlens's own never."""
    root = folder(workplace / "data", range(60))
    run = trained(root, size=16)
    picture = next((root / "ant").iterdir())
    for words, option, name in (
        (["check", root], "--out", "page.html"),
        (["look", run.path, picture], "--out", "sheet.png"),
        (["explain", TINY], "--svg", "net.svg"),
        (["predict", run.path, root / "ant"], "--csv", "answers.csv"),
    ):
        Path(name).write_text("mine")
        code, _, err = said(capfd, *words, option, name)
        assert code == 2 and "exists already" in err and "--overwrite" in err and Path(name).read_text() == "mine"
        code, out, err = said(capfd, *words, option, name, "--overwrite")
        assert code in (0, 1) and f"written: {name}" in (out + err).replace("\n", " ")
        assert Path(name).read_bytes() != b"mine"
    before = (run.path / "run.json").read_bytes()
    code, _, err = said(capfd, "predict", run.path, root / "ant", "--csv", run.path / "run.json", "--overwrite")
    assert code == 2 and (run.path / "run.json").read_bytes() == before


def test_arrays_of_several_pictures(workplace: Path) -> None:
    """(N, H, W), as train takes them, is N pictures; framed images of another form are refused in one line."""
    x, y = shapes(200)
    run = convlens.train((x, y), architecture=TINY, epochs=1, augment="none", progress="none")
    classifier = convlens.load(run)
    several = convlens.predict(classifier, x[:7], progress="none")
    assert [one.label for one in several] == [convlens.predict(classifier, one)[0].label for one in x[:7]]
    assert len(classifier.predict(x[:2], top=1, min_probability=0.1)) == 2
    with pytest.raises(convlens.UsageError, match="as `frame` gives each"):
        classifier.logits(x[:3])
    assert len(repr(classifier)) < 300 and "95 % interval" in str(classifier)


def test_a_run_is_opened_by_its_name(workplace: Path) -> None:
    """As text, as every other place takes it."""
    run = trained(folder(workplace / "data", range(60)), size=16)
    by_text: Any = str(run.path)
    assert convlens.Run(by_text).record == run.record and convlens.__version__


def test_the_printed_network_gives_the_same_probabilities(workplace: Path) -> None:
    """Calibrated and with mirrored views, as predict gives them."""
    x, y = shapes(600)
    recipe = SHORT.replace(epochs=6, label_smoothing=0.2, flip=True, views="mirror")
    run = convlens.train((x, y), architecture=TINY, recipe=recipe, val_frac=0.3, progress="none")
    classifier = convlens.load(run)
    source: dict[str, Any] = {}
    exec(convlens.explain(run).torch_source(), source)  # what a person would paste
    framed = np.stack([classifier.frame(one) for one in x[:20]])
    found = source["probabilities"](torch.from_numpy(framed)).numpy()
    assert classifier.scaling != type(classifier.scaling)(), "there is something to get wrong"
    assert np.abs(found - classifier.probabilities(classifier.logits(framed))).max() < 1e-5
    assert source["class_names"] == list(classifier.class_names)


def test_look_says_what_is_unfamiliar(workplace: Path) -> None:
    """As predict does: a Grad-CAM of noise looks like evidence."""
    x, y = shapes(1_200)
    recipe = SHORT.replace(epochs=4)
    run = convlens.train((x, y), architecture=TINY, recipe=recipe, val_frac=0.2, progress="none")
    noise = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    found = convlens.look(run, noise)
    assert found.unfamiliar is convlens.predict(run, noise)[0].unfamiliar is True
    assert "unfamiliar" in found.title and found.to_json()["unfamiliar"] is True


def test_an_evaluation_of_the_folder_says_what_training_left_out(workplace: Path) -> None:
    """The model was trained with a list of exclusions; the folder still holds what stands there."""
    root = folder(workplace / "data", range(80))
    run = trained(root, size=16, exclude=["ant/0.png", "bee/1.png"])
    report = convlens.evaluate(run, root, progress="none")
    assert any("2 samples left out when the model was trained" in one for one in report.asides)
    assert not any("left out when" in one for one in convlens.evaluate(run, progress="none").asides)


def test_lines_say_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """In scripts and pipes nothing is silent for long: a line every twenty seconds, with what is left."""
    clock = iter(range(0, 10_000, 8))
    monkeypatch.setattr("convlens.progress.time.monotonic", lambda: next(clock))
    with open_progress("auto") as bar:
        bar.start("training", 10)
        for _ in range(10):
            bar.advance()
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        "training: 30 %, about 56 s left",
        "training: 60 %, about 32 s left",
        "training: 90 %, about 8 s left",
    ]


def test_misspelt_files_and_fields_come_with_the_nearest(workplace: Path) -> None:
    """Of the files beside, and of what other programs call a field."""
    np.savez("clothes.npz", x=np.zeros((4, 8, 8), np.uint8), y=[0, 1, 0, 1])
    with pytest.raises(convlens.DataError, match=r"did you mean 'clothes.npz'"):
        convlens.train("cloths.npz", progress="none")
    with pytest.raises(convlens.UsageError, match="did you mean 'lr'"):
        convlens.train("mnist", learning_rate=0.1, progress="none")  # type: ignore[call-overload,unused-ignore]
    with pytest.raises(ConvlensError, match=r"not '0\.01'"):
        convlens.train("mnist", lr="0.01", progress="none")
    np.savez("test.npz", x_test=np.zeros((4, 8, 8), np.uint8), y_test=[0, 1, 0, 1])
    with pytest.raises(convlens.DataError, match="nothing to learn from"):
        convlens.train("test.npz", progress="none")


def test_a_time_that_is_too_short_is_no_success(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Less than an epoch, because of the time alone: the summary and every list say that it has hardly learned."""
    run = trained(folder(workplace / "data", range(60)), size=16)
    record = json.loads((run.path / "run.json").read_text())
    update_record(run.path, recipe=record["recipe"] | {"epochs": 0.02}, pinned=["time"])
    short = convlens.Run(run.path)
    assert "2.0 % of the training images alone" in str(short.warning) and "the time was too short" in str(short)
    update_record(run.path, pinned=[])
    assert not convlens.Run(run.path).has_hardly_learned, "as the preset has it"
    update_record(run.path, pinned=["time", "epochs"])
    assert not convlens.Run(run.path).has_hardly_learned, "as it was asked for"


def test_predict_says_what_its_model_cannot_tell(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An empty column would read as "nothing unfamiliar"; and a command that fails leaves no file."""
    root = folder(workplace / "data", range(60))
    run = trained(root, size=16)
    code, _, err = said(capfd, "predict", run.path, root / "ant", "--csv", "answers.csv")
    assert code == 0 and "what is unfamiliar is not told by this model and its probabilities are not calibrated" in err
    with Path("answers.csv").open(newline="") as file:
        assert {row["unfamiliar"] for row in csv.DictReader(file)} == {"not told"}
    code, _, _ = said(capfd, "predict", "nope", root / "ant", "--csv", "none.csv")
    assert code == 2 and not Path("none.csv").exists()


def test_no_probability_reads_certain() -> None:
    """Softmax is never certain, whatever rounding says: nothing reads 100.0, nor 0.0."""
    shares = (1.0, 0.99972, 0.9994, 0.5, 0.0004, 0.0)
    assert [probability(share) for share in shares] == [">99.9 %", ">99.9 %", "99.9 %", "50.0 %", "<0.1 %", "<0.1 %"]


def test_a_diverged_run_does_not_lead_in_a_circle(workplace: Path) -> None:
    """To resume it would diverge at the same step again."""
    run = trained(folder(workplace / "data", range(60)), size=16)
    run.model.unlink()
    update_record(run.path, status="diverged")
    with pytest.raises(convlens.ModelFileError, match="Train anew with a lower learning rate"):
        convlens.load(run.path)
