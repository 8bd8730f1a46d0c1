"""A data set whose names steer terminals, pages and spreadsheets, through every command: all output is read raw."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pytest

from convlens.cli import main
from convlens.text import printable, table_cell
from tests.helpers import NET, scene

CLASSES = (
    "=cmd|' /C calc'!A0",
    "\x1b]0;owned\x07\x1b[31mred",
    "a\u202egnp\r\nINJECTED",
    "<img src=x onerror=alert(1)>$\\frac$",
)
FILES = ("@SUM(1).png", "\x1b[2J\x9b1m.png", "line\nINJECTED.png", "[bold]\u2066x$.png")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    if os.name == "nt":
        pytest.skip("Windows has no such names")
    root = tmp_path / "set\x1b[5m\nINJECTED"
    for number, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(12):
            scene(100 * number + i, 20).save(root / name / f"{i}{FILES[i % 4]}")
        (root / name / "broken\x1b[7m.png").write_bytes(b"no picture")
    (root / CLASSES[0] / "twin\x1b.png").write_bytes((root / CLASSES[1] / f"0{FILES[0]}").read_bytes())
    return root


def clean(text: str) -> None:
    """Nothing in it steers a terminal, and no name has made a line of its own."""
    assert printable(text) == text, printable(text)[:3_000]
    assert not any(line.lstrip().startswith("INJECTED") for line in text.splitlines())


def test_no_name_reaches_a_terminal_raw(hostile: Path, workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every command, each print, page, picture, table and message."""
    data, picture = str(hostile), str(next((hostile / CLASSES[1]).iterdir()))
    commands: list[list[str]] = [
        ["check", data, "--out", "c.html", "--write-exclusions", "x.jsonl", "--write-groups", "g.csv"],
        ["pack", data, "--out", "packed"],
        ["pack", data, "--verify"],
        ["train", data, "--architecture", NET, "--epochs", "1", "--test"],
        ["train", "g.csv", "--architecture", NET, "--epochs", "1", "--exclude", "x.jsonl", "--from", "last"],
        ["train", data, "--resume", "last"],
        ["evaluate", "last"],
        ["evaluate", "last", data, "--split", "val"],
        ["predict", "last", data],
        ["predict", "last", picture, str(hostile / CLASSES[2]), "--csv", "p.csv"],
        ["look", "last", picture, "--out", "l.svg", "--label", CLASSES[1]],
        ["look", "last", picture, "--label", "none\x1b[1m"],
        ["explain", "conv(\x1b[31m3\u202e)"],
        ["explain", "last"],
        ["runs"],
        ["runs", "none\x1b[1m"],
        ["train", "nothing\x1b[1m\nINJECTED"],
        ["serve", "none\x1b]0;x\x07"],
    ]
    for command in commands:
        main(command)
        out, err = capfd.readouterr()
        clean(out)
        clean(err)
    page = Path("c.html").read_text(encoding="utf-8")
    clean(page)
    assert "<img src=x" not in page
    drawing = Path("l.svg").read_text(encoding="utf-8")
    clean(drawing)
    with Path("p.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            assert not any(re.match(r"[=+\-@\t\r]", cell) for cell in row) and all(map(str.isprintable, row))


def test_only_text_cells_are_changed() -> None:
    """A formula becomes text; numbers, and names that begin like any other, stay."""
    assert [table_cell(value) for value in ("=1+1", "+x", "-x", "@x", "\t=1", "\x1b[1m")] == [
        "'=1+1", "'+x", "'-x", "'@x", "\\t=1", "\\x1b[1m",
    ]  # fmt: skip
    assert [table_cell(value) for value in ("-5", "+0.5", 3, "a=b", "é")] == ["-5", "+0.5", "3", "a=b", "é"]
