"""Review: what is shown of each picture before it is decided on, how decisions are kept, and the page in a browser."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from convlens import files
from convlens.data.packed.corrections import Correction, read_corrections, write_corrections
from convlens.data.sources.base import ReadOptions
from convlens.errors import DataError, UsageError
from convlens.microscope.review import Review
from tests.conftest import write_folders
from tests.microscope.test_page import DESKTOP, overflow
from tests.microscope.test_server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def table(folder: Path, path: Path) -> Path:
    """Two of train in doubt, two of test in doubt, and two of test that nobody doubts."""
    doubts = [("train", "3.1"), ("train", "2.0"), ("test", "1.5"), ("test", "1.0"), ("test", ""), ("test", "")]
    rows = [
        Correction(f"circle/00{n}.png", "circle", split=split, suggested="square" if doubt else "", doubt=doubt)
        for n, (split, doubt) in enumerate(doubts)
    ]
    rows = [row.replace(is_suspect=bool(row.doubt)) for row in rows]
    hashes = [files.sha256_of((folder / row.path).read_bytes()) for row in rows]
    write_corrections(path, [row.replace(source=digest[:16]) for row, digest in zip(rows, hashes, strict=True)])
    return path


@pytest.fixture
def review(folders: Path, tmp_path: Path) -> Review:
    return Review.opened(table(folders, tmp_path / "labels.csv"), folders, ReadOptions(), None)


def test_of_test_nothing_is_told_before_the_decision(review: Review) -> None:
    """Neither name, label, suggestion nor whether it is suspected; of train all of it. Test comes last, mixed."""
    told = [review.told(number) for number in review.order]
    assert [one["split"] for one in told] == ["train"] * 2 + ["test"] * 4
    for one in told[2:]:
        assert set(one) == {"number", "split", "decision", "blind"}
    assert told[0]["suggested"] == "square" and told[0]["label"] == "circle"
    review.decide(2, "is", "circle")
    assert review.told(2)["label"] == "circle" and review.told(2)["decision"] == "keep"
    review.decide(3, "skip", "")
    assert review.told(3)["blind"]


def test_each_decision_is_in_the_file_at_once(review: Review, folders: Path) -> None:
    """Keep, change, drop and skip, read back as they were made; another review goes on with them."""
    for number, (decision, label) in enumerate([("is", "circle"), ("is", "square"), ("drop", ""), ("skip", "")]):
        review.decide(number, decision, label)
    kept = [(row.decision, row.new_label) for row in read_corrections(review.path)]
    assert kept == [("keep", ""), ("change", "square"), ("drop", ""), ("skip", ""), ("", ""), ("", "")]
    assert Review.opened(review.path, folders, ReadOptions(), None).num_decided == 4
    review.decide(1, "is", "circle")
    assert read_corrections(review.path)[1].decision == "keep"


@pytest.mark.parametrize(
    ("number", "decision", "label"), [(99, "drop", ""), (-1, "drop", ""), (0, "is", "x"), (0, "no", "")]
)
def test_nonsense_changes_nothing(review: Review, number: int, decision: str, label: str) -> None:
    """A row, class or decision that there is not: refused, the file as it was."""
    before = review.path.read_bytes()
    with pytest.raises(UsageError, match="there"):
        review.decide(number, decision, label)
    assert review.path.read_bytes() == before


def test_a_table_of_other_data_is_refused(folders: Path, tmp_path: Path) -> None:
    """Another picture under the same name, a sample that is not there, another label, a packed set, an empty table."""
    path = table(folders, tmp_path / "labels.csv")
    other = write_folders(tmp_path / "other" / "pictures")
    Image.new("RGB", (20, 20), (1, 2, 3)).save(other / "circle" / "000.png")
    with pytest.raises(DataError, match="another file"):
        Review.opened(path, other, ReadOptions(), None)
    (other / "circle" / "005.png").unlink()
    with pytest.raises(DataError, match="has not"):
        Review.opened(path, other, ReadOptions(), None)
    rows = read_corrections(path)
    write_corrections(path, [rows[0].replace(label="square"), *rows[1:]])
    with pytest.raises(DataError, match="as 'square'"):
        Review.opened(path, folders, ReadOptions(), None)
    write_corrections(path, [])
    with pytest.raises(UsageError, match="nothing to decide"):
        Review.opened(path, folders, ReadOptions(), None)


def test_a_file_that_somebody_else_changed_is_not_overwritten(review: Review) -> None:
    """A second review, or a spreadsheet, has written into it: refused, and what it wrote stays."""
    rows = read_corrections(review.path)
    write_corrections(review.path, [rows[0].replace(decision="drop"), *rows[1:]])
    with pytest.raises(UsageError, match="changed by somebody else"):
        review.decide(1, "is", "circle")
    assert read_corrections(review.path)[0].decision == "drop"


def test_the_server_guards_and_answers(folders: Path, tmp_path: Path) -> None:
    """A token for all that is asked; pictures as PNG; refusals are one line."""
    table(folders, tmp_path / "labels.csv")
    server = Server(tmp_path, "labels.csv", str(folders), "--port", "0", command="review")
    try:
        assert "0 of 6 decided" in server.line
        server.refused(401, "GET", "/api/review", Authorization="")
        server.refused(401, "GET", "/api/review/picture?number=0", Authorization="")
        server.refused(403, "POST", "/api/review/decide", b"{}", Origin="http://elsewhere.example")
        status, data, headers = server.ask("GET", "/api/review/picture?number=0")
        assert status == 200 and headers["content-type"] == "image/png"
        shown, original = Image.open(io.BytesIO(data)), Image.open(folders / "circle" / "000.png")
        small = shown.resize(original.size, Image.Resampling.NEAREST)
        assert np.array_equal(np.asarray(small), np.asarray(original))
        for path in ("number=6", "number=-1", "number=x", ""):
            server.refused(404, "GET", f"/api/review/picture?{path}")
        server.refused(400, "POST", "/api/review/decide", b"[]")
        server.refused(
            400, "POST", "/api/review/decide", json.dumps({"number": 0, "decision": "is", "label": "z"}).encode()
        )
        assert server.post("/api/review/decide", {"number": 0, "decision": "drop"})["decided"] == 1
    finally:
        assert server.close() == 0
    assert read_corrections(tmp_path / "labels.csv")[0].decision == "drop"


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Browser]) -> Iterator[Browser]:
    found = launch()
    yield found
    found.close()


def test_keys_decide_and_test_is_blind(folders: Path, tmp_path: Path, browser: Browser) -> None:
    """In a real browser: t takes the suggestion, k keeps, d drops, a digit names a class of a picture of test, of which
    nothing was shown before; nothing is too wide, neither on a desktop nor on a phone."""
    table(folders, tmp_path / "labels.csv")
    server = Server(tmp_path, "labels.csv", str(folders), "--port", "0", command="review")
    try:
        page: Page = browser.new_page(viewport=DESKTOP)
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.goto(server.entry)
        page.wait_for_selector("body[data-ready]")
        assert "The data says circle; networks that did not learn from it say square" in page.inner_text("#about")
        assert overflow(page) <= 0
        for key, num in (("t", 1), ("k", 2)):
            page.wait_for_selector("body[data-shown]")
            page.keyboard.press(key)
            page.wait_for_selector(f"#count:has-text('{num} of 6 decided')")
        assert page.inner_text("#about") == "" and page.inner_text("#name") == ""
        assert not page.is_visible("#keep") and not page.is_visible("#take")
        page.wait_for_selector("body[data-shown]")
        page.keyboard.press("2")
        page.wait_for_selector("#count:has-text('3 of 6 decided')")
        assert "you said square. The data says circle" in page.inner_text("#outcome")
        page.set_viewport_size({"width": 390, "height": 844})
        assert overflow(page) <= 0
        assert problems == []
        page.close()
    finally:
        server.close()
    decisions = [row.decision for row in read_corrections(tmp_path / "labels.csv")]
    assert decisions[:2] == ["change", "keep"] and decisions[2:].count("change") == 1
