"""What `check` found in a data set, kept in the cache for the reports of what is trained on it.

Owns by what it is found again: the files, their labels and own splits, not how they were packed. An entry that cannot
be read, or that another version of convlens wrote, is as if there were none.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from convlens import files
from convlens.data.packed.dataset import Dataset
from convlens.errors import RecordError, StorageError
from convlens.records import Count, Name, Record, Text, read_document, write_sealed

DOCUMENT, FORMAT_VERSION = "convlens-checked", 1


class Line(Record, frozen=True):
    """A finding in one line, and how grave it is."""

    severity: Name
    title: Text


class Checked(Record, frozen=True, kw_only=True):
    """What was found, the gravest first, and the verdict over all."""

    kind: Name = DOCUMENT
    format_version: Count = FORMAT_VERSION
    findings: tuple[Line, ...]
    verdict: Text

    def to_json(self) -> dict[str, Any]:
        """What was found, as a report has it."""
        return {"findings": [one.to_json() for one in self.findings], "verdict": self.verdict}


def keep_checked(dataset: Dataset, findings: Iterable[tuple[str, str]], verdict: str) -> None:
    """Keep what was found, severity and title each. Where nothing can be written nothing is kept."""
    found = Checked(findings=tuple(Line(*one) for one in findings), verdict=verdict)
    with suppress(StorageError):
        path = _path(dataset)
        files.make_folder(path.parent)
        write_sealed(path, {"kind": found.kind, "format_version": found.format_version} | found.to_json())


def what_was_checked(dataset: Dataset) -> Checked | None:
    """What was found in these samples when they were checked, under the labels of before if some were changed since;
    None where that is not known."""
    try:
        return read_document(_path(dataset), DOCUMENT, {FORMAT_VERSION: Checked}, sealed_from=FORMAT_VERSION)
    except RecordError:
        return None


def _path(dataset: Dataset) -> Path:
    options = dataset.card.options
    has_splits = dataset.card.split_by == "source"
    before = {one.path: one.was for one in options.relabelled}
    samples = sorted(
        (line.path, line.sha256 or "", before.get(line.path, line.label or ""), str(line.split) if has_splits else "")
        for line in dataset.samples()
    )
    identity = [version("convlens"), options.read, sorted(options.exclude), samples]
    digest = files.sha256_of(json.dumps(identity).encode("utf-8", "surrogateescape"))
    return files.cache_folder() / "checked" / f"{digest[:32]}.json"
