"""`verify` confirms what is so, and finds what was changed: in the report, the ledger, the model, the data."""

import html
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convlens
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import open_data, reopen
from convlens.errors import ConvlensError, UsageError
from convlens.evaluation.test_ledger import ledger_path
from convlens.files import cache_folder
from convlens.modelfile import read_model, write_model
from convlens.run import Run
from convlens.verification import Verification
from tests.conftest import QUICK, TINY, Command, shapes
from tests.helpers import SHORT, folder, splits, trained


@pytest.fixture
def claim(workplace: Path) -> Run:
    """A run whose test was opened, after another plan's."""
    x, y = shapes(900)
    np.savez("d.npz", x=x, y=y)
    convlens.pack("d.npz", out="packed")
    for epochs in (0.5, 1.5):
        recipe = QUICK.replace(epochs=epochs)
        run = convlens.train("packed", architecture=TINY, recipe=recipe, val_frac=0.2, test=True, progress="none")
    return run


def found(run: Run) -> Verification | None:
    """What is found, None where verify refuses with one line."""
    try:
        return convlens.verify(run, progress="none")
    except ConvlensError as error:
        assert "\n" not in str(error)
        return None


def test_what_check_found_stands_in_reports_and_is_confirmed(workplace: Path) -> None:
    """A report says that the data was not checked, or what was found in these samples, whatever the input's size is;
    `verify` checks the data anew, and does not take what the report says for it."""
    root = folder(workplace / "data", range(120))
    shutil.copy(root / "ant" / "0.png", root / "ant" / "copy.png")
    run = trained(root, size=16, val_frac=0.3)
    assert "It was not checked" in (run.path / "report.html").read_text(encoding="utf-8")
    findings = convlens.check(root, progress="none")
    report = convlens.evaluate(run, split="val", progress="none")
    assert report.checked is not None
    assert [one.title for one in report.checked.findings] == [one.title for one in findings.findings] != []
    report.save("r.html")
    assert findings.findings[0].title in Path("r.html").read_text(encoding="utf-8")
    report.save("r.json")
    assert convlens.verify("r.html", progress="none").is_confirmed
    shutil.rmtree(cache_folder() / "checked")
    assert convlens.verify("r.json", progress="none").is_confirmed
    said = json.loads(Path("r.json").read_text(encoding="utf-8"))
    said["data_check"]["findings"] = []
    Path("none.json").write_text(json.dumps(said), encoding="utf-8")
    verified = convlens.verify("none.json", progress="none")
    assert "data_check.findings" in str(verified) and not verified.is_confirmed
    table = ["path,label", *(f"{path.relative_to(root)},{path.parent.name}" for path in sorted(root.rglob("*.png")))]
    (root / "labels.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
    convlens.check(root / "labels.csv", progress="none")
    wrong = [line.replace(",bee", ",ant") if "/11.png" in line else line for line in table]
    for lines, is_known in ((table, True), (wrong, False)):
        (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        named = convlens.evaluate(run, root / "labels.csv", progress="none")
        assert (named.checked is not None) == is_known, "other labels are another data set"
    (root / "labels.csv").unlink()
    (root / "ant" / "copy.png").unlink()
    assert convlens.evaluate(run, root, split="test", progress="none").checked is None, "of other samples"


def test_a_report_is_confirmed_where_its_data_lies_elsewhere(workplace: Path) -> None:
    """Run, pictures and page copied to another folder, under another name: the numbers are confirmed, and it is said
    what lies elsewhere; other pictures there are not."""
    root = folder(workplace / "here" / "data", range(200))
    run = trained(root, size=16, test=True)
    convlens.evaluate(run, split="val", progress="none").save("val.html")
    for page in (run.path / "report.html", Path("val.html")):
        there = workplace / f"there-{page.stem}"
        shutil.copytree(run.path, there / "run")
        shutil.copytree(root, there / "pictures")
        shutil.copy(page, there / "page.html")
        if page.stem == "val":
            shutil.rmtree(root)
        verified = convlens.verify(there / "page.html", there / "pictures", model=there / "run", progress="none")
        assert verified.is_confirmed, str(verified)
        assert "name data in the report, here pictures, the same" in str(verified)
        gone = sorted((there / "pictures").rglob("*.png"))[3]
        gone.unlink()
        changed = convlens.verify(there / "page.html", there / "pictures", model=there / "run", progress="none")
        assert not changed.is_confirmed and f"1 missing ('{gone.parent.name}/{gone.name}')" in str(changed)
        assert "measured on its packed copy" in str(
            convlens.verify(there / "page.html", model=there / "run", progress="none")
        )


def test_reports_with_exclusions_labels_and_views_are_confirmed(workplace: Path) -> None:
    """Whoever gives `verify` what `evaluate` was given has the same numbers; whoever does not is told that they are not
    the same."""
    root = folder(workplace / "data", range(120))
    run = trained(root, size=16, val_frac=0.3, recipe=SHORT.replace(flip=True))
    names = {split: [n for n, s in splits(open_again(run)).items() if s == split] for split in ("val",)}["val"]
    Path("out.txt").write_text("\n".join(names[:3]) + "\n", encoding="utf-8")
    label = Path(names[4]).parts[0]
    other = {"ant": "bee", "bee": "ant"}[label]
    Path("labels.csv").write_text(
        f"path,label,decision,new_label\n{names[4]},{label},change,{other}\n", encoding="utf-8"
    )
    convlens.evaluate(run, split="val", exclude="out.txt", progress="none").save("excluded.html")
    convlens.evaluate(run, split="val", labels="labels.csv", progress="none").save("labels.html")
    convlens.evaluate(run, split="val", views="mirror", progress="none").save("views.html")
    assert convlens.verify("excluded.html", exclude="out.txt", progress="none").is_confirmed
    assert convlens.verify("labels.html", labels="labels.csv", progress="none").is_confirmed
    assert (found := convlens.verify("views.html", progress="none")).is_confirmed, str(found)
    assert "num_left_out" in str(convlens.verify("excluded.html", progress="none"))
    with pytest.raises(UsageError, match="say which with `labels`"):
        convlens.verify("labels.html", progress="none")
    with pytest.raises(UsageError, match="was measured without a labels file"):
        convlens.verify("views.html", labels="labels.csv", progress="none")


def test_reports_of_trainings_with_a_labels_file_are_confirmed(workplace: Path) -> None:
    """A run trained by changed labels has a report that says so, of validation or of its folds: it is confirmed as it
    is."""
    root = folder(workplace / "data", range(60))
    name = next(iter(splits(open_data(root, PackOptions((16, 16))))))
    label = Path(name).parts[0]
    other = {"ant": "bee", "bee": "ant"}[label]
    Path("labels.csv").write_text(f"path,label,decision,new_label\n{name},{label},change,{other}\n", encoding="utf-8")
    for options in ({"folds": 2}, {"val_frac": 0.3}):
        run = trained(root, size=16, labels="labels.csv", **options)
        assert "1 label of the whole data changed" in (run.path / "report.html").read_text(encoding="utf-8")
        found = convlens.verify(run, progress="none")
        assert found.is_confirmed, str(found)


def open_again(run: Run) -> Dataset:
    return reopen(run.record.dataset)


def test_a_claim_is_confirmed(claim: Run, command: Command) -> None:
    """Run, page and JSON; as often as one likes: to verify is no opening. Exit code 0, and 1 where it is not so."""
    report = convlens.evaluate(claim, progress="none")
    for name in ("r.html", "r.json"):
        report.save(name)
    convlens.evaluate(claim, raw=True, progress="none").save("raw.html")
    assert "raw, as was asked for" in Path("raw.html").read_text(encoding="utf-8")
    for what in (claim, "r.html", "r.json", "r.html", "raw.html"):
        verified = convlens.verify(what, progress="none")
        assert verified.is_confirmed, str(verified)
        assert verified.num_compared > 30
    again = convlens.evaluate(claim, progress="none").openings
    assert report.openings is not None and again is not None
    assert again.count == report.openings.count + 2, "the raw one, and this"
    done = command("verify", claim.path)
    assert done.returncode == 0 and done.stdout.startswith("confirmed: "), done.stderr
    page = Path("r.html").read_text(encoding="utf-8")
    Path("r.html").write_text(page.replace("took no part", "took some part"), encoding="utf-8")
    done = command("verify", "r.html")
    assert done.returncode == 1 and "the text on line" in done.stdout


def _numbers(page: str) -> dict[str, Any]:
    text = re.search(r'<meta name="convlens-report" content="([^"]*)">', page)
    assert text is not None
    numbers: dict[str, Any] = json.loads(html.unescape(text[1]))
    return numbers


def _with_numbers(page: str, numbers: dict[str, Any]) -> str:
    content = html.escape(json.dumps(numbers, sort_keys=True))
    return re.sub(r'(<meta name="convlens-report" content=")[^"]*', lambda m: m[1] + content, page)


def _changes(run: Run) -> Iterator[tuple[str, Callable[[], object]]]:
    """Single changes, each with its name."""
    path = run.path / "report.html"
    page = path.read_text(encoding="utf-8")
    numbers = _numbers(page)

    def put(**values: Any) -> Callable[[], object]:
        return lambda: path.write_text(_with_numbers(page, numbers | values), encoding="utf-8")

    def rewritten(old: str, new: str) -> Callable[[], object]:
        assert old in page, old
        return lambda: path.write_text(page.replace(old, new, 1), encoding="utf-8")

    for name in ("accuracy", "loss", "n", "balanced_accuracy", "expected_calibration_error", "num_left_out"):
        yield f"report: {name}", put(**{name: numbers[name] + (1 if isinstance(numbers[name], int) else 0.001)})
    yield "report: interval", put(interval=[numbers["interval"][0] + 0.001, numbers["interval"][1]])
    yield "report: quarantined", put(num_quarantined=1)
    yield "report: unfamiliar", put(num_unfamiliar=(numbers["num_unfamiliar"] or 0) + 1)
    yield "report: may have seen", put(may_count_seen=True)
    for name in ("count", "num_plans"):
        yield f"report: openings, {name}", put(openings=numbers["openings"] | {name: numbers["openings"][name] - 1})
    yield "report: head", put(openings=numbers["openings"] | {"head": 64 * "a"})
    yield "report: no openings", put(openings=None)
    confusion = [list(row) for row in numbers["confusion"]]
    confusion[0][1] += 1
    yield "report: confusion", put(confusion=confusion)
    yield "report: a class's recall", put(classes=[numbers["classes"][0] | {"recall": 0.5}, *numbers["classes"][1:]])
    yield "report: class names", put(class_names=["x", *numbers["class_names"][1:]])
    yield "report: temperature", put(weights=numbers["weights"] | {"temperature": 3.0})
    yield "report: fingerprint", put(dataset=numbers["dataset"] | {"fingerprint": 64 * "b"})
    yield "report: notes", put(notes=[*numbers["notes"], "all is well"])
    yield "report: split", put(split="val")
    yield "page: the sentence", rewritten("took no part", "took part")
    yield "page: accuracy in the sentence", rewritten(f"{100 * numbers['accuracy']:.2f} %", "99.99 %")
    yield "page: openings", rewritten("on this test set 2 times", "on this test set 1 times")
    yield "page: plans", rewritten("of 2 plans", "of 1 plan")
    yield "page: a heading", rewritten("Class by class", "By class")
    yield "page: the command", rewritten("convlens train", "convlens  train")
    yield "page: architecture", rewritten("conv(4, 3", "conv(5, 3")
    yield "page: a chart", rewritten('<path class="line first" d="M', '<path class="line first" d="M1,1 L')
    yield "page: a picture", rewritten("data:image/jpeg;base64,/9j/4AAQ", "data:image/jpeg;base64,/9j/4AAR")
    yield "page: something after its end", lambda: path.write_text(page + "<p>more</p>\n", encoding="utf-8")
    yield "page: cut off", lambda: path.write_text(page[: len(page) * 2 // 3], encoding="utf-8")
    yield "page: no numbers", rewritten("convlens-report", "report")
    yield "page: gone", lambda: path.unlink()
    ledger, lines = ledger_path(), ledger_path().read_bytes().splitlines(keepends=True)
    assert len(lines) == 2
    for name, kept in {
        "its first line is gone": lines[1:],
        "its last line is gone": lines[:1],
        "empty": [],
        "a line twice": [*lines, lines[1]],
        "the other way round": lines[::-1],
        "a seed": [lines[0].replace(b'"seed": 0', b'"seed": 1'), lines[1]],
        "the plan of the first": [re.sub(rb'"plan": "..', b'"plan": "00', lines[0]), lines[1]],
        "its own plan": [lines[0], re.sub(rb'"plan": "..', b'"plan": "00', lines[1])],
        "its own time": [lines[0], lines[1].replace(b'"time": "2', b'"time": "1')],
        "the test set": [lines[0], re.sub(rb'"test_fingerprint": "..', b'"test_fingerprint": "00', lines[1])],
        "a space": [lines[0].replace(b", ", b",  ", 1), lines[1]],
    }.items():
        yield f"ledger: {name}", partial(ledger.write_bytes, b"".join(kept))
    file = read_model(run.model)
    for name in list(file.tensors)[:5]:
        changed = {**file.tensors, name: file.tensors[name] + 1}
        yield f"model: {name}", partial(write_model, run.model, file.card, changed)
    assert file.card.calibration is not None
    cooler = replace(file.card, calibration=file.card.calibration.replace(temperature=7.0))
    yield "model: temperature", lambda: write_model(run.model, cooler, file.tensors)
    yield "model: a byte", lambda: _flip(run.model, -5)
    yield "model: gone", lambda: run.model.unlink()
    packed = Path("packed")
    yield "data: a pixel of test", lambda: _flip(packed / "images.npy", 128 + 256 * _test_row())
    yield "data: a label", lambda: _flip(packed / "labels.npy", -8)
    yield "data: its card", lambda: _flip(packed / "dataset.json", 300)
    yield "data: gone", lambda: shutil.rmtree(packed)
    record = run.path / "run.json"
    yield "run: its record", lambda: record.write_bytes(record.read_bytes().replace(b'"test"', b'"tost"'))


def _test_row() -> int:
    return int(open_data("packed").rows("test")[0])


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_each_of_fifty_single_changes_is_found(claim: Run, tmp_path: Path) -> None:
    """Undone after each: nothing is confirmed that was changed anywhere, and nothing ends in a traceback."""
    place = Path.cwd()
    kept, state = tmp_path / "kept", ledger_path().parent
    shutil.copytree(place, kept)
    shutil.copytree(state, tmp_path / "kept-state")
    names, changes = [], list(_changes(claim))
    assert (one := found(claim)) is not None and one.is_confirmed, str(one)

    def put_back() -> None:
        for here, there in ((place, kept), (state, tmp_path / "kept-state")):
            shutil.copytree(there, here, dirs_exist_ok=True)

    for name, change in changes:
        put_back()
        change()
        verified = found(Run(claim.path))
        assert verified is None or not verified.is_confirmed, name
        names.append(name)
    put_back()
    assert (one := found(Run(claim.path))) is not None and one.is_confirmed, str(one)
    assert len(names) >= 50


def test_what_is_no_report_is_said(workplace: Path) -> None:
    """One line for pages of others, JSON of others, what is not there."""
    Path("a.html").write_text("<html></html>")
    Path("b.json").write_text('{"model": 1}')
    Path("c.json").write_text('{"model": "x", "split": "sidewise", "weights": {}, "n": 3}')
    Path("d.json").write_text('{"model": "x", "split": "test", "weights": {}, "n": 3}')
    for name, words in (
        ("a.html", "no report"),
        ("b.json", "no report"),
        ("c.json", "sidewise"),
        ("d.json", "not there"),
    ):
        with pytest.raises(UsageError, match=words):
            convlens.verify(name, progress="none")
    with pytest.raises(UsageError, match="cannot read"):
        convlens.verify("e.html", progress="none")
