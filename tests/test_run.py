"""Run folders: records of before are read, and those that nobody knows are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

import convlens
from convlens.errors import RecordError
from convlens.run import RUN_FILE, Run
from tests.conftest import QUICK, TINY


@pytest.mark.training
def test_records_of_version_1_are_read(arrays: Any, workplace: Path) -> None:
    """A record as it was written before (compute under another name, no SHA-256 of its own) serves evaluation, listing
    and resumption."""
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, progress="none")
    record = json.loads((run.path / RUN_FILE).read_text(encoding="utf-8"))
    assert record["format_version"] == 3
    del record["sha256"]
    record["arithmetic"] = record.pop("compute") | {"compile": False}
    record["format_version"] = 1
    del record["pinned"]
    (run.path / RUN_FILE).write_text(json.dumps(record), encoding="utf-8")
    old = Run(run.path)
    assert old.record.compute.device == "cpu"
    assert run.val is not None and convlens.evaluate(old, split="val", progress="none").n == run.val.n
    assert [one.path for one in convlens.runs()] == [run.path]
    assert convlens.train(resume=run.path, progress="none").status == "complete"


@pytest.mark.training
def test_records_of_another_version_are_refused(arrays: Any, workplace: Path) -> None:
    """A number that this convlens does not know is one line."""
    run = convlens.train(arrays, architecture=TINY, recipe=QUICK, progress="none", stop=lambda: True)
    record = json.loads((run.path / RUN_FILE).read_text(encoding="utf-8"))
    (run.path / RUN_FILE).write_text(
        json.dumps({k: v for k, v in record.items() if k != "sha256"} | {"format_version": 4}), encoding="utf-8"
    )
    with pytest.raises(RecordError, match="format version 4"):
        convlens.train(resume=run.path, progress="none")
