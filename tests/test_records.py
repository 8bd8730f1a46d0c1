"""The strict reader: a document with any field changed is one line that names the file, or still what it says."""

from __future__ import annotations

import ast
import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import convlens
from convlens import files
from convlens.data.packed.dataset import LedgerLine, SampleLine, read_card
from convlens.data.packed.exclusions import Exclusion
from convlens.errors import ConvlensError, RecordError
from convlens.evaluation.test_ledger import ledger_path
from convlens.microscope.lab import LabRequest
from convlens.modelfile import DOCUMENT, FORMAT_VERSION, CardRecord, ModelCard
from convlens.records import converted, parsed, read_lines, read_sealed, versioned, write_sealed
from convlens.run import RUN_FILE, LogLine, Run
from convlens.training import checkpoint
from tests.helpers import folder as pictures
from tests.helpers import read_lines as json_lines
from tests.helpers import trained

ODD: list[Any] = [None, True, -1, 2.5, 10**30, "", "x" * 2_000_000, "\x1b[31m", [], {}, [[]], {"\x1b": 1}]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every field of a JSON value, of lists only the first two."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for name, one in list(items):
        yield from places(one, (*path, name))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    value = copy.deepcopy(value)
    inner = value
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = new
    return value


def without(value: Any, path: tuple[Any, ...]) -> Any:
    value = copy.deepcopy(value)
    inner = value
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return value


def mutants(value: Any) -> Iterator[Any]:
    """The value with each field replaced by odd ones, left out, and with another beside it."""
    for path in places(value):
        for odd in ODD:
            yield changed(value, path, odd)
        if path:
            yield without(value, path)
            if isinstance(path[-1], str):
                yield changed(value, (*path[:-1], "another"), 1)


def hold(value: Any, read: Callable[[Any], Any], where: str) -> None:
    """Each mutant is refused in one line that names the file, or read as what it says."""
    read(value)
    num_refused = 0
    for mutant in mutants(value):
        try:
            read(mutant)
        except ConvlensError as error:
            text = str(error)
            assert where in text and "\n" not in text and text.isprintable() and len(text) < 1_000, text
            num_refused += 1
    assert num_refused > 3, "nothing was refused"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("records")
    data = pictures(place / "data", range(40))
    parent = trained(data, out=place / "parent")
    convlens.evaluate(parent, progress="none")
    return trained(data, parent=parent, architecture=None, recipe={"epochs": 1.0}, out=place / "run")


def resealed(path: Path, read: Callable[[Path], Any]) -> tuple[Any, Callable[[Any], Any]]:
    """The document of a sealed file, and how another one in its place is read."""
    value, is_sealed = read_sealed(path)
    assert is_sealed

    def again(mutant: Any) -> Any:
        write_sealed(path, mutant) if isinstance(mutant, dict) else path.write_text(json.dumps(mutant))
        return read(path)

    return value, again


@pytest.mark.slow
def test_every_sealed_document_at_every_field(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """run.json, dataset.json and a checkpoint's manifest."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    path = run.path / RUN_FILE
    value, again = resealed(path, lambda p: Run(p.parent).record)
    hold(value, again, "run.json")
    write_sealed(path, value)
    card = convlens.pack(Path(run.record.dataset.source), progress="none").folder / "dataset.json"
    value, again = resealed(card, lambda p: read_card(p.parent))
    hold(value, again, "dataset.json")
    write_sealed(card, value)
    path = next((run.path / "checkpoints").glob("*/manifest.json"))
    value, again = resealed(path, lambda p: checkpoint._read(p.parent))
    hold(value, again, "checkpoints")


@pytest.mark.slow
def test_every_line_and_request_at_every_field(run: Run) -> None:
    """Lines of samples, log, ledger and exclusions, and the bodies of requests."""
    dataset = convlens.pack(Path(run.record.dataset.source), progress="none")
    lines: list[tuple[Any, type]] = [
        (json_lines(dataset.folder / "samples.jsonl")[0], SampleLine),
        (json_lines(ledger_path())[0], LedgerLine),
        (next(line for line in json_lines(run.path / "log.jsonl") if "epoch" in line), LogLine),
        ({"path": "ant/0.png", "reason": "blurred"}, Exclusion),
        ({"sentence": "flatten linear(classes)", "epochs": 1.5, "batch_size": 3, "lr": 0.1, "seed": 3}, LabRequest),
    ]
    for value, kind in lines:
        hold(value, lambda one, kind=kind: converted(one, kind, "FILE"), "FILE")  # type: ignore[misc]


@pytest.mark.slow
def test_the_model_card_at_every_field(run: Run) -> None:
    """A card from a stranger is refused by the field, or usable: it gives a plan, or one line."""
    card = convlens.load(run).card.to_json()
    kinds = {FORMAT_VERSION: CardRecord}

    def read(value: Any) -> Any:
        found = versioned(value, DOCUMENT, kinds, "FILE")
        try:
            return ModelCard.of(found).plan()
        except ConvlensError as error:  # read_model puts the file's name before it
            raise RecordError(f"FILE {str(error).partition(chr(10))[0]}") from None

    hold(card, read, "FILE")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"path": NaN}', "NaN is no number"),
        ('{"path": 1e999}', "no finite number"),
        ('{"path": "a", "path": "b"}', "stands twice"),
        ("[" * 100_000, "not JSON"),
        ("1" * 6_000, "not JSON"),
        ('{"path": "a"', "not JSON"),
        ('{"path": "a", "more": 1}', "unknown field more"),
        ('{"path": ["a"]}', "path: Expected str, got array"),
        ("[" + "1," * 6_000_000 + "1]", "values"),
    ],
)
def test_what_is_no_document_is_named(text: str, words: str) -> None:
    """Numbers that are none, names that stand twice, depth, length, other shapes: one line each."""
    with pytest.raises(RecordError) as caught:
        parsed(text.encode(), Exclusion, "FILE")
    assert words in str(caught.value) and str(caught.value).startswith("FILE") and len(str(caught.value)) < 300


@pytest.mark.skipif(os.name == "nt", reason="pipes under a name are POSIX")
def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """A pipe, a folder, a device or a file that is too large is an error at once, and is not waited for."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 101)
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "large", tmp_path / "none"):
        with pytest.raises(OSError):
            files.read_regular(path, 100)
        with pytest.raises(RecordError, match="cannot read"):
            read_sealed(path, most_bytes=100)


def test_a_document_that_was_changed_is_noticed(tmp_path: Path) -> None:
    """Its own SHA-256 tells, whatever was changed."""
    path = tmp_path / "a.json"
    write_sealed(path, {"n": 1, "names": ["ä", "\udc80"], "x": 0.1})
    assert read_sealed(path) == ({"n": 1, "names": ["ä", "\udc80"], "x": 0.1}, True)
    path.write_text(path.read_text(encoding="utf-8").replace('"n": 1', '"n": 2'), encoding="utf-8")
    with pytest.raises(RecordError, match="not what was written"):
        read_sealed(path)


def test_damaged_lines_are_counted_and_a_torn_last_one_is_not(tmp_path: Path) -> None:
    """What a crash cut short is nobody's fault; everything else is named by its line."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"path": "a"}\n{"path": 1}\n\n{"path": "b"}\n{"pa')
    found, damaged = read_lines(path, Exclusion)
    assert [one.path for one in found] == ["a", "b"]
    assert len(damaged) == 1 and "line 2" in damaged[0]
    assert read_lines(tmp_path / "none", Exclusion) == ([], [])


def test_nothing_else_parses_json() -> None:
    """`records.py` alone calls a JSON parser (a source that is written for others may have it in its text)."""
    source, found = Path(convlens.__file__).parent, set()
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in (
                "json.loads",
                "json.load",
                "msgspec.json.decode",
            ):
                found.add(str(path.relative_to(source)))
    assert found == {"records.py"}
