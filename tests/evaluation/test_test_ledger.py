"""The one door to test, and its ledger."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convlens
from convlens import records
from convlens.data.packed.dataset import Dataset, LedgerLine, Permit
from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import open_data
from convlens.errors import DataError
from convlens.evaluation.test_ledger import Ledger, Tried, inspect_test, ledger_path, open_test, sketch
from convlens.files import state_folder
from convlens.recipe import Recipe
from tests.conftest import QUICK, TINY, shapes
from tests.helpers import folder, read_lines, trained_on


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


def test_a_part_of_the_test_set_is_no_other_plan(workplace: Path) -> None:
    """One model measured on a test set and on parts of it is one plan; another one that learned from other labels is
    another."""
    x, y = shapes(400, 2)
    new_x, new_y = shapes(300, 9)
    run = trained_on((x, y), out="one")
    for part in (slice(None), slice(200), slice(220)):
        found = convlens.evaluate(run, (new_x[part], new_y[part]), progress="none")
    assert found.openings is not None and (found.openings.count, found.openings.num_plans) == (3, 1)
    other = trained_on((x, (y + 1) % (y.max() + 1)), out="other")
    found = convlens.evaluate(other, (new_x, new_y), progress="none")
    assert found.openings is not None and (found.openings.count, found.openings.num_plans) == (4, 2)


def test_training_does_not_open_test(arrays: Any, workplace: Path) -> None:
    """Without test=True no test image is looked at and nothing stands in the ledger."""
    trained = convlens.train(arrays, architecture=TINY, recipe=QUICK)
    assert trained.test is None and not (state_folder() / "openings.jsonl").exists()


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
    forged = Permit(ledger_path(), LedgerLine(str(dataset.test_fingerprint), "now", plan=64 * "0"))
    for refused in (lambda: dataset.with_permit(forged), lambda: replace(dataset, permit=forged).images("test")):
        with pytest.raises(DataError, match="not written down"):
            refused()
    opened, openings = open_test(dataset, Tried(TINY, QUICK, 0))
    assert (openings.count, openings.num_plans) == (1, 1)
    assert len(opened.images("test")) == dataset.counts["test"] == len(opened.labels("test"))
    assert len(opened.merged().images("train")) == 200
    assert opened.permit is not None and opened.permit.line in records.read_lines(ledger_path(), LedgerLine)[0]
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
    lines = read_lines(ledger_path())
    assert [line["kind"] for line in lines] == ["inspection"] and lines[0]["by"] == "check"
    assert open_test(dataset, Tried(TINY, QUICK, 0))[1].count == 1
    convlens.check(shapes(200, 4), progress="none")
    assert read_lines(ledger_path())[-1]["kind"] == "inspection"


def test_a_resumed_run_of_folds_opens_nothing_anew(workplace: Path) -> None:
    """Its opening stands there already; the resumed run trains on all images to the same bits."""
    calls = iter([False] * 4 + [True] * 99)
    run = trained_on(shapes(120, 6), folds=2, stop=lambda: next(calls))
    assert run.status == "interrupted"
    again = convlens.train(resume=run, progress="none")
    assert again.status == "complete" and len(read_lines(ledger_path())) == 1


def test_the_lines_are_a_chain(workplace: Path) -> None:
    """Whatever line is changed, taken out or put in, the next opening says that, and where; cutting off the end shows
    in the hash that a report carries. A ledger of before there was a chain goes on as one."""
    dataset = fresh()
    heads = [open_test(dataset, Tried(TINY, QUICK, seed))[1].head for seed in range(5)]
    whole = ledger_path().read_bytes().splitlines(keepends=True)
    assert len(set(heads)) == 5 and open_test(dataset, Tried(TINY, QUICK, 9))[1].broken == ()
    for number in range(4):
        changed = [*whole]
        changed[number] = changed[number].replace(b'"seed": ', b'"seed": 1')
        for lines, at in (
            (changed, number + 2),
            (whole[:number] + whole[number + 1 :], number + 1),
            (whole[: number + 1] + whole[number:], number + 2),
        ):
            ledger_path().write_bytes(b"".join(lines))
            openings = open_test(dataset, Tried(TINY, QUICK, 6))[1]
            assert openings.broken == (at,), (number, at)
            assert f"line {at} does not follow the one before" in str(openings)
    ledger_path().write_bytes(b"".join(whole[:3]))
    assert heads[4] not in {digest for _, digest in Ledger.read().lines}
    old = [json.loads(line) for line in whole]
    ledger_path().write_text("".join(json.dumps({k: v for k, v in one.items() if k != "before"}) + "\n" for one in old))
    assert (
        open_test(dataset, Tried(TINY, QUICK, 7))[1].broken == () == open_test(dataset, Tried(TINY, QUICK, 8))[1].broken
    )


def test_a_part_of_a_test_set_is_no_new_one(workplace: Path) -> None:
    """Whoever measures on half of an opened test set, or on a tenth, has looked at it before; other pictures are
    another set."""
    x, y = shapes(2_000, 3)
    run = trained_on(shapes(300))
    counts = []
    for rows in (slice(0, 2_000), slice(0, 1_000), slice(1_500, 1_700), slice(300, 400)):
        report = convlens.evaluate(run, (x[rows], y[rows]), progress="none")
        assert report.openings is not None
        counts.append(report.openings.count)
    assert counts == [1, 2, 2, 3], "of each look those before that saw some of its pictures"
    other = convlens.evaluate(run, shapes(2_000, 4), progress="none").openings
    assert other is not None and other.count == 1


def test_the_same_pictures_are_one_test_set(workplace: Path) -> None:
    """At another size, in grey, less a few, or as arrays under other labels: whoever tries ten sizes on test has looked
    ten times. Other pictures are another test set."""
    root = folder(workplace / "data", range(300))
    small = open_data(root, PackOptions((16, 16)))
    net, recipe = "flatten linear(classes)", Recipe()
    test = {one.path for one in small.samples() if one.split == "test"}
    others = (
        PackOptions((24, 24), 1, "crop"),
        PackOptions((16, 16), exclude=tuple(sorted(test)[:5])),
    )
    for number, options in enumerate((PackOptions((16, 16)), *others), 1):
        openings = open_test(open_data(root, options), Tried(f"conv({number}, 3) {net}", recipe, 0))[1]
        assert (openings.count, openings.num_plans) == (number, number)
    merged = open_data(root, PackOptions((16, 16))).merged()  # as folds have it, which look at all
    assert sketch(merged) != sketch(small) != ""
    assert open_test(merged, Tried(net, recipe, 0))[1].count == 4
    table = "path,label,group\n" + "".join(f"{one.path},{one.label},{one.path}\n" for one in small.samples())
    (root / "groups.csv").write_text(table)
    grouped = open_data(root / "groups.csv", PackOptions((16, 16)))  # as `check --write-groups` makes one
    assert grouped.opened_keys().tolist() != small.opened_keys().tolist()
    assert open_test(grouped, Tried(net, recipe, 0))[1].count == 2, "other test images, but folds looked at them all"
    assert open_test(grouped.merged(), Tried(net, recipe, 0))[1].count == 6
    other = folder(workplace / "other", range(1_000, 1_300))
    assert open_test(open_data(other, PackOptions((16, 16))), Tried(net, recipe, 0))[1].count == 1
    x, y = np.random.default_rng(0).integers(0, 256, (300, 8, 8), dtype=np.uint8), np.arange(300) % 2
    for number, labels in enumerate((y, np.array(["a", "b"])[y]), 1):
        assert open_test(open_data((x, labels)), Tried(net, recipe, 0))[1].count == number
