"""Labels in doubt: found, listed, decided on, and what decisions change."""

from pathlib import Path

import numpy as np
import pytest

import convlens
from convlens.cli import main
from convlens.data.packed.corrections import Correction, read_corrections, write_corrections
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import open_data
from convlens.doctor import labels
from convlens.errors import DataError, UsageError
from convlens.evaluation.test_ledger import inspect_test
from convlens.metrics import label_doubt, suspect_labels
from tests.conftest import QUICK, TINY, shapes


def planted(num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bars and discs, of which one in fifty has a wrong label; which those are."""
    rng, (x, y) = np.random.default_rng(seed), shapes(num, seed)
    x += rng.integers(0, 40, x.shape, np.uint8)
    wrong = rng.choice(num, num // 50, replace=False)
    y[wrong] = (y[wrong] + 1) % 3
    return x, y, wrong


@pytest.mark.slow
def test_planted_labels_are_found_from_the_command_line(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 8 wrong labels among 400, 7 at least are among the first 12; the table, the page and JSON have them; as many
    of test that nobody doubts stand behind them."""
    monkeypatch.setattr(labels, "_SHARE_OF_EPOCHS", 0.15)
    x, y, wrong = planted(400)
    np.savez(workplace / "toy.npz", x=x, y=y)
    assert main(["check", "toy.npz", "--labels", "--write-labels", "t.csv", "--out", "check.html", "--json"]) == 0
    assert '"suspect_labels": [' in capsys.readouterr().out
    rows = read_corrections("t.csv")
    names = [row.path for row in rows if row.is_suspect][:12]
    assert len({f"all/{n}" for n in wrong} & set(names)) >= 7
    num_test = sum(row.split == "test" for row in rows if row.is_suspect)
    assert sum(not row.is_suspect for row in rows) == num_test
    assert "to look at again" in Path("check.html").read_text(encoding="utf-8")
    assert all(row.suggested == "" and row.doubt == "" for row in rows if not row.is_suspect)
    assert main(["check", "toy.npz", "--write-labels", "other.csv"]) == 2


def test_too_few_images_are_refused(workplace: Path) -> None:
    """Whether a label is wrong cannot be told from 30 images of three classes: that is said, and from how many."""
    with pytest.raises(DataError, match=r"30 images of 3 classes.*about 60"):
        convlens.check(shapes(30), labels=True, progress="none")
    with pytest.raises(UsageError, match="not looked at"):
        convlens.check(shapes(60), progress="none").write_labels("x.csv")


def test_doubt_and_suspects_by_hand() -> None:
    """Doubt is the likeliest other logit less the label's; a suspect is likelier of another class than not, and as
    likely as those that are labelled so."""
    logits = np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]])
    assert label_doubt(logits, np.array([0, 0])).tolist() == [-1.0, 3.0]
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.05, 0.95], [0.45, 0.55]])
    assert suspect_labels(p, np.array([0, 1, 0, 0])).tolist() == [False, False, True, False]


def decided(folders: Path, path: Path) -> Path:
    """Two labels changed, one picture dropped, one kept."""
    rows = [
        ("circle/000.png", "change", "square"),
        ("circle/001.png", "change", "square"),
        ("square/002.png", "drop", ""),
    ]
    table = [Correction(name, name.split("/")[0], decision, new) for name, decision, new in rows]  # type: ignore[arg-type]
    write_corrections(path, [*table, Correction("square/003.png", "square", "keep")])
    return path


def opened(dataset: Dataset) -> Dataset:
    return inspect_test(dataset, "test")


def test_labels_change_and_splits_and_files_do_not(folders: Path, tmp_path: Path) -> None:
    """Packed with decisions: the labels are the new ones, splits those without, the fingerprint is another, and every
    file is as it was."""
    before = {path: path.read_bytes() for path in folders.rglob("*.png")}
    plain = opened(open_data(folders, progress="none"))
    path = decided(folders, tmp_path / "labels.csv")
    changed = opened(open_data(folders, PackOptions().corrected(path), progress="none"))
    assert changed.fingerprint != plain.fingerprint and len(changed) == len(plain) - 1
    label_of = {}
    for number, dataset in enumerate((plain, changed)):
        numbers = dataset.labels_at(np.arange(len(dataset)))
        splits = {row: split for split in ("train", "val", "test") for row in dataset.rows(split).tolist()}
        for row, name in enumerate(dataset.sample_names()):
            label_of[name, number] = dataset.class_names[numbers[row]], splits[row]
    different = {name for name, number in label_of if number and label_of[name, 0][0] != label_of[name, 1][0]}
    assert different == {"circle/000.png", "circle/001.png"}
    assert all(label_of[name, 0][1] == label_of[name, 1][1] for name, number in label_of if number)
    assert {path: path.read_bytes() for path in folders.rglob("*.png")} == before
    assert any("2 labels changed" in note for note in changed.notes)


def test_a_run_with_labels_is_trained_resumed_and_measured(folders: Path, tmp_path: Path) -> None:
    """`labels` of train: the run knows them, its model is measured on them without saying so again, and with other
    labels it is not resumed."""
    path = decided(folders, tmp_path / "labels.csv")
    run = convlens.train(folders, architecture="flatten linear(classes)", recipe=QUICK, labels=path,
                         out=tmp_path / "run", progress="none")  # fmt: skip
    assert run.record.dataset.options.relabelled[0].now == "square"
    assert "2 labels changed" in str(convlens.evaluate(run, progress="none"))
    before = convlens.train(folders, architecture=TINY, recipe=QUICK, out=tmp_path / "before", progress="none")
    with pytest.raises(DataError, match=r"or the labels file that changed it \(`labels`\)"):
        convlens.compare([before, run], split="train", progress="none")
    found = convlens.compare([before, run], split="train", labels=path, progress="none")
    truth = dict(zip(found.names, found.labels_N.tolist(), strict=True))
    assert len({truth[name] for name in ("circle/000.png", "square/003.png") if name in truth}) == 1
    assert "square/002.png" not in truth and found.n > 30


def test_evaluate_tells_both_scores(folders: Path, tmp_path: Path) -> None:
    """Before and after, with how many were changed, dropped and looked at; a warning where only what contradicts a
    network was; the model's run keeps no such report."""
    run = convlens.train(folders, architecture=TINY, recipe=QUICK, out=tmp_path / "run", progress="none")
    dataset = opened(open_data(folders, progress="none"))
    names = [dataset.sample_names()[row] for row in dataset.rows("test")]
    label = {name: name.split("/")[0] for name in names}
    other = {"circle": "square", "square": "circle"}
    plain = convlens.evaluate(run, progress="none")
    rows = [Correction(n, label[n], "change", other[label[n]]) for n in names[:3]] + [
        Correction(names[3], label[names[3]], "drop")
    ]
    write_corrections(tmp_path / "labels.csv", rows)
    report = convlens.evaluate(run, labels=tmp_path / "labels.csv", progress="none")
    assert report.before is not None and report.before.score == plain.score
    assert (report.before.num_changed, report.before.num_dropped, report.n) == (3, 1, plain.n - 1)
    assert "by the labels before that file (3 labels changed, 1 image dropped" in str(report) and "too good" in str(
        report
    )
    moved = abs(report.accuracy * report.n - plain.accuracy * plain.n)
    assert moved <= 4 and report.accuracy != plain.accuracy
    assert run.record.test == plain.score


def test_a_labels_file_of_other_data_is_refused_in_evaluation(folders: Path, tmp_path: Path) -> None:
    """One that only drops what is not there, and one of a class that there is not: neither passes as no change."""
    run = convlens.train(folders, architecture="flatten linear(classes)", recipe=QUICK, out=tmp_path / "run",
                         progress="none")  # fmt: skip
    for row, words in (
        (Correction("other/1.png", "circle", "drop"), "has not"),
        (Correction("circle/000.png", "round", "change", "circle"), "no class of"),
    ):
        write_corrections(tmp_path / "l.csv", [row])
        with pytest.raises(DataError, match=words):
            convlens.evaluate(run, labels=tmp_path / "l.csv", progress="none")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "needs the columns"),
        ("path,label\na,b\n", "needs the columns"),
        ("path,label,decision,new_label,note\na,b,keep,,x\n", "unknown column 'note'"),
        ("path,label,decision,new_label\ncircle/000.png,circle,maybe,\n", "line 2: unknown decision 'maybe'"),
        ("path,label,decision,new_label\ncircle/000.png,circle,change,\n", "line 2: a new label goes with"),
        ("path,label,decision,new_label\ncircle/000.png,circle,keep,square\n", "line 2: a new label goes with"),
        (
            "path,label,decision,new_label\n" + 2 * "circle/000.png,circle,keep,\n",
            "line 3: .* in line 2 already",
        ),
        ("path,label,decision,new_label\ncircle/000.png,circle,keep\n", "line 2: 3 cells"),
        ("path,label,decision,new_label\ncircle/000.png,circle,change,triangle\n", "there is no such class"),
        (
            "path,label,decision,new_label\ncircle/000.png,square,change,circle\n",
            "labelled 'circle': it is of other",
        ),
        ("path,label,decision,new_label\nx.png,square,change,circle\n", "none of .*It is of other data"),
        ("path,label,decision,new_label\nx.png,square,drop,\n", "none of the samples of the labels file is in"),
        ("path,label,decision,new_label,source\ncircle/000.png,circle,change,square,00ff\n", "is not the file"),
    ],
)
def test_a_labels_file_that_does_not_fit_is_refused(folders: Path, tmp_path: Path, text: str, words: str) -> None:
    """One line says what is wrong and where; nothing is trained."""
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        convlens.train(
            folders,
            architecture=TINY,
            recipe=QUICK,
            labels=tmp_path / "labels.csv",
            out=tmp_path / "r",
            progress="none",
        )
    assert not (tmp_path / "r").exists()


def test_a_table_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    """Names with commas, quotes, line breaks and formulas, decisions and all."""
    rows = [
        Correction('a, "b"\r\n=c\udcff.png', "x,y", "change", "=1+1", "test", "z", "1.25", True, "ab12"),
        Correction("-d.png", "x,y", "", "", "train", "", "", False, ""),
    ]
    write_corrections(tmp_path / "t.csv", rows)
    assert read_corrections(tmp_path / "t.csv") == rows
