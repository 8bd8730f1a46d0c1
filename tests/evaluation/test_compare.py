"""Models, and predictions of other tools, on the same images."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import convlens
from convlens.errors import DataError, UsageError
from convlens.evaluation.test_ledger import Ledger
from tests.conftest import QUICK, TINY, Command, shapes

WEAK = "avgpool(8) flatten linear(classes)"


def save(place: Path, x: NDArray[np.uint8], y: NDArray[np.int64]) -> None:
    """A PNG each, in a folder of its class."""
    for number, (image, label) in enumerate(zip(x, y.tolist(), strict=True)):
        (place / ("horizontal", "vertical", "circle")[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / ("horizontal", "vertical", "circle")[label] / f"{number:03}.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in class folders."""
    place = tmp_path_factory.mktemp("compared") / "pictures"
    save(place, *shapes(700))
    return place


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, convlens.Run]:
    """Two seeds of a plan that works, and two of one that cannot."""
    place, found = tmp_path_factory.mktemp("models"), {}
    for name, sentence in (("good", TINY), ("weak", WEAK)):
        for seed in (0, 1):
            found[f"{name}{seed}"] = convlens.train(
                folder,
                architecture=sentence,
                recipe=QUICK.replace(epochs=4),
                seed=seed,
                size=16,
                channels=1,
                out=place / name / str(seed + 1),
                progress="none",
            )
    return found


def predictions(model: convlens.Run, folder: Path, path: Path, change: Any = None) -> Path:
    """What another tool would write."""
    images = sorted(folder.rglob("*.png"))
    answers = [[str(p.path), p.label] for p in convlens.predict(model, images, progress="none")]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "prediction"], *(change(answers) if change else answers)])
    return path


def test_two_models_on_the_same_images(trained: dict[str, convlens.Run]) -> None:
    """The better one is named; counts of gained and lost are those of the answers, and each accuracy is evaluate's."""
    found = convlens.compare([trained["good0"], trained["weak0"]], progress="none")
    pair = found.pairs[0]
    assert pair.winner == found.contenders[0].name and "is better" in str(found)
    one, other = (convlens.evaluate(trained[name], progress="none") for name in ("good0", "weak0"))
    assert found.n == one.n and found.contenders[0].accuracy == pytest.approx(one.accuracy)
    assert found.contenders[1].loss == pytest.approx(other.score.loss)
    assert found.contenders[0].calibration_error == pytest.approx(one.expected_calibration_error)
    right = [c.right[0] for c in found.contenders]
    assert (pair.difference.gained, pair.difference.lost) == (
        (right[0] & ~right[1]).sum(),
        (right[1] & ~right[0]).sum(),
    )
    assert found.contenders[0].members[0].cost is not None
    assert "other seeds of the same plans" in str(found)


def test_each_look_at_test_is_written_down(trained: dict[str, convlens.Run], workplace: Path) -> None:
    """Two models, two lines; on validation none."""
    convlens.compare([trained["good0"], trained["weak0"]], split="val", progress="none")
    assert len(Ledger.read().lines) == 0
    found = convlens.compare([trained["good0"], trained["weak0"]], progress="none")
    assert len(Ledger.read().lines) == 2 and "on this test set 2 times" in str(found) and "of 2 plans" in str(found)


def test_a_table_and_a_folder_name_one_file_differently(folder: Path, tmp_path: Path) -> None:
    """Before and after data were mended: files are known by what they are. Of trainings that patience ended it is said
    what was asked of them, not how long each went on."""
    names = [path.relative_to(folder.parent) for path in sorted(folder.rglob("*.png"))][::5]
    table = folder.parent / "table.csv"
    table.write_text("path,label,group\n" + "".join(f"{n},{n.parts[1]},{n}\n" for n in names), encoding="utf-8")
    options: dict[str, Any] = {"architecture": TINY, "size": 16, "channels": 1, "progress": "none"}
    both = [
        convlens.train(data, folds=2, recipe=QUICK.replace(epochs=1), out=tmp_path / data.name, **options)
        for data in (folder, table)
    ]
    for pair in (both, both[::-1]):
        found = convlens.compare(pair, split="folds", progress="none")
        assert found.n == len(names) and any("the folds were dealt anew" in note for note in found.notes)
    larger = convlens.train(
        folder, folds=2, recipe=QUICK.replace(epochs=1), out=tmp_path / "20", **options | {"size": 20}
    )
    found = convlens.compare([both[0], larger], split="folds", progress="none")
    assert not any("dealt anew" in note for note in found.notes), "another size deals no other folds"
    early = [
        convlens.train(folder, recipe=QUICK.replace(epochs=9, patience=1, lr=lr), out=tmp_path / str(lr), **options)
        for lr in (0.5, 0.01)
    ]
    found = convlens.compare(early, split="val", progress="none")
    (note,) = (note for note in found.notes if "they differ in" in note)
    assert "lr 0.5, 0.01" in note and "epochs" not in note


def test_seeds_of_one_plan_are_one_group(trained: dict[str, convlens.Run]) -> None:
    """Folders of runs are plans: mean over seeds, and a pair of plans, not of models."""
    folders = [trained[name].path.parent for name in ("good0", "weak0")]
    found = convlens.compare(folders, progress="none")
    assert [len(one.members) for one in found.contenders] == [2, 2] and len(found.pairs) == 1
    assert [one.seed for one in found.contenders[0].members] == [0, 1]
    assert found.pairs[0].winner == found.contenders[0].name
    same = convlens.compare([trained["good0"], trained["good1"]], progress="none")
    assert not same.pairs and "seeds of one plan" in str(same)


def test_one_of_several_seeds_is_said_to_be_that(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was trained with other seeds is compared alone, and it is said how to compare them all; a series is
    all of them."""
    options: dict[str, Any] = {"size": 16, "channels": 1, "progress": "none", "recipe": QUICK.replace(epochs=1)}
    both = [
        convlens.train(folder, architecture=net, seeds=2, out=tmp_path / name, **options)
        for name, net in (("a", TINY), ("b", WEAK))
    ]
    alone = convlens.compare(both, split="val", progress="none")
    assert sum("is 1 of 2 seeds that were trained together" in note for note in alone.notes) == 2
    whole = convlens.compare([run.series for run in both], split="val", progress="none")
    assert "(2 seeds)" in whole.lines()[1] and not any("of 2 seeds" in note for note in whole.notes)
    # Without a folder of their own they lie among others: none is named that holds more.
    monkeypatch.chdir(tmp_path)
    among = [convlens.train(folder, architecture=net, seeds=2, **options) for net in (TINY, WEAK)]
    told = convlens.compare([run.series for run in among], split="val", progress="none")
    assert len({one.name for one in told.contenders}) == 2 and among[0].series is not None
    assert among[0].series.folder is None
    alone = convlens.compare(among, split="val", progress="none")
    (first, _) = (note for note in alone.notes if "trained together" in note)
    assert all(str(run.path) in first for run in among[0].series.runs)
    assert str(both[0].series).startswith(f"{tmp_path / 'a' / '1'}: seed 0") and "one of 2" in str(both[0])


def test_a_model_and_its_own_predictions_are_equal(
    trained: dict[str, convlens.Run], folder: Path, tmp_path: Path
) -> None:
    """A table with absolute paths of all the pictures: those of test count, and there is no winner."""
    table = predictions(trained["good0"], folder, tmp_path / "other tool.csv")
    found = convlens.compare([trained["good0"], table], progress="none")
    assert found.contenders[1].accuracy == found.contenders[0].accuracy
    assert found.pairs[0].winner is None and "both have as many right" in str(found)
    assert found.contenders[1].loss is None


def test_predictions_alone_need_their_data(trained: dict[str, convlens.Run], folder: Path, tmp_path: Path) -> None:
    """Two tables are compared on data that is named; all of it, which has no test split of its own."""
    one = predictions(trained["good0"], folder, tmp_path / "one.csv")
    other = predictions(trained["weak0"], folder, tmp_path / "other.csv")
    with pytest.raises(UsageError, match="name their data"):
        convlens.compare([one, other], progress="none")
    found = convlens.compare([one, other], data=folder, progress="none")
    assert found.n == 700 and found.pairs[0].winner == "one.csv"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[:-200], "has no answer for"),
        (lambda rows: [["elsewhere/x.png", rows[0][1]], *rows], "no picture of pictures"),
        (lambda rows: [[rows[0][0], "square"], *rows[1:]], "line 2: unknown class 'square'"),
        (lambda rows: [[rows[0][0], "circle"], [rows[0][0], "horizontal"], *rows], "two different answers"),
        (lambda rows: [[*rows[0], "more"], *rows[1:]], "line 2: 3 cells"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(
    trained: dict[str, convlens.Run], folder: Path, tmp_path: Path, change: Any, words: str
) -> None:
    """One line says what is wrong: never a comparison on other images."""
    table = predictions(trained["good0"], folder, tmp_path / "p.csv", change)
    with pytest.raises(DataError, match=words):
        convlens.compare([trained["good0"], table], progress="none")


def test_refused_predictions_open_nothing(
    trained: dict[str, convlens.Run], folder: Path, tmp_path: Path, workplace: Path
) -> None:
    """Of a table that does not fit no look at test is written down: none was taken."""
    table = predictions(trained["good0"], folder, tmp_path / "p.csv", lambda rows: rows[:-200])
    other = predictions(trained["weak0"], folder, tmp_path / "q.csv")
    with pytest.raises(DataError, match="has no answer for"):
        convlens.compare([other, table], data=folder, progress="none")
    assert len(Ledger.read().lines) == 0


def test_a_column_that_may_be_the_truth_is_not_taken_for_the_prediction(
    trained: dict[str, convlens.Run], tmp_path: Path
) -> None:
    """path,label,pred: the true class must not be read as what was predicted."""
    (tmp_path / "p.csv").write_text("path,label,pred\nhorizontal/000.png,circle,vertical\n", encoding="utf-8")
    with pytest.raises(DataError, match="which of its columns label and pred is the prediction"):
        convlens.compare([trained["good0"], tmp_path / "p.csv"], progress="none")


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", 'path,label\n"unended', "\xff\xfe"])
def test_what_is_no_table_is_refused(trained: dict[str, convlens.Run], tmp_path: Path, text: str) -> None:
    """Empty, without columns, broken, no text."""
    (tmp_path / "p.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"p\.csv"):
        convlens.compare([trained["good0"], tmp_path / "p.csv"], progress="none")


def test_what_cannot_be_compared_is_refused(
    trained: dict[str, convlens.Run], tmp_path: Path, run: convlens.Run
) -> None:
    """One model, the same twice, other classes, a folder without runs."""
    good = trained["good0"]
    (tmp_path / "empty").mkdir()
    for models, error, words in [
        ([good], UsageError, "needs two"),
        ([good, good.path / "model.safetensors"], UsageError, "is the same as"),
        ([good, run], DataError, "different classes"),
        ([good, tmp_path / "empty"], UsageError, "folder without runs"),
    ]:
        with pytest.raises(error, match=words):
            convlens.compare(models, progress="none")


def test_models_of_other_data_are_refused(trained: dict[str, convlens.Run], tmp_path: Path) -> None:
    """Other pictures under the same names: nothing is compared as if they were the same."""
    x, y = shapes(700, seed=9)
    save(tmp_path / "pictures", x, y)
    other = convlens.train(
        tmp_path / "pictures",
        architecture=WEAK,
        recipe=QUICK,
        size=16,
        channels=1,
        out=tmp_path / "run",
        progress="none",
    )
    with pytest.raises(DataError, match="other pictures of the same names"):
        convlens.compare([trained["good0"], other], progress="none")


def test_the_page_and_the_numbers(trained: dict[str, convlens.Run], tmp_path: Path, command: Command) -> None:
    """From the command line: a page with pictures, names escaped; JSON; the same file is never replaced."""
    paths = [str(trained[name].path) for name in ("good0", "weak0")]
    done = command("compare", *paths, "--report", tmp_path / "c.html", "--json")
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    assert numbers["pairs"][0]["winner"] and len(numbers["classes"]) == 3
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "data:image/jpeg" in page and "<script" not in page and "is better" in page
    assert command("compare", *paths, "--report", tmp_path / "c.html").returncode == 2
    assert command("compare", *paths).returncode == 0
    assert command("compare", paths[0]).returncode == 2


def test_seeds_of_a_fitted_head(trained: dict[str, convlens.Run], tmp_path: Path) -> None:
    """A fitted head is the same for every seed, so that seeds of it are one model, which is said; of folds, which each
    seed deals anew, they are several."""
    save(tmp_path / "new", *shapes(120, 9))
    options: dict[str, Any] = {
        "parent": trained["good0"].path,
        "recipe": {"epochs": 0, "head": "logistic", "freeze": "head"},
    }
    both = [
        convlens.train(tmp_path / "new", folds=2, seed=seed, out=tmp_path / str(seed), progress="none", **options)
        for seed in (0, 1)
    ]
    with pytest.raises(UsageError, match="a seed that changes nothing of it"):
        convlens.compare(both, split="train", progress="none")
    other = convlens.train(
        tmp_path / "new",
        folds=2,
        recipe=QUICK,
        architecture=TINY,
        size=16,
        channels=1,
        out=tmp_path / "other",
        progress="none",
    )
    found = convlens.compare([*both, other], split="folds", progress="none")
    assert [len(one.members) for one in found.contenders] == [2, 1]


def test_pictures_of_several_seeds(trained: dict[str, convlens.Run], tmp_path: Path) -> None:
    """Over seeds a picture shows an answer that is wrong, and how many seeds gave it; recalls differ the way round that
    the pairs do; each plan's seeds are called by their folder."""
    found = convlens.compare(list(trained.values()), progress="none")
    assert [one.name for one in found.contenders] == ["good (2 seeds)", "weak (2 seeds)"]
    captions = [words for _, _, pictures in found._galleries() for _, words, _ in pictures]
    assert captions
    for words in captions:
        truth, who, answer = re.fullmatch(r"(\w+): (good|weak) says (\w+) \([12] of 2 seeds\)", words).groups()  # type: ignore[union-attr]
        assert answer != truth and who in ("good", "weak")
    _, header, rows = found.tables()[-1]
    assert header[3] == "good (2 seeds) minus weak (2 seeds)"
    recalls = found.class_changes()[0][1]
    assert rows[0][3].replace("−", "-") == f"{100 * (recalls[0] - recalls[1]):+.1f}"
    alone = convlens.compare([trained["good0"], trained["good1"], trained["weak0"]], progress="none")
    assert [one.name for one in alone.contenders] == ["good (2 seeds)", "weak/1"]


def test_hostile_names_are_shown_not_obeyed(tmp_path: Path) -> None:
    """Class and file names with markup and escapes: harmless in text and page."""
    from convlens.evaluation.compare import Comparison, Contender, Member, Pair
    from convlens.paired import compared

    labels = np.zeros(20, np.int64)
    right = np.ones(20, bool)
    member = Member("<script>alert(1)</script>", 0, right, labels, None, None, None)
    one, other = (Contender(name, (member,), None) for name in ("<b>a\x1b[31m", "b"))
    pair = Pair(one.name, other.name, compared(right[None], right[None]), 1.0)
    found = Comparison("d<i>", "test", ("<script>\x07",), labels, None, (one, other), (pair,), 0, (), None, ())
    found.save(tmp_path / "c.html")
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "<script>" not in page and "<b>a" not in page and "\x1b" not in page and "\x07" not in page
