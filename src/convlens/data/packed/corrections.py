"""Labels that a person has looked at again: a table (.csv) of decisions, which `train` and `evaluate` read.

Owns the table's form and its checks. The picture files are never touched: a decision changes what they are called.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from convlens import files
from convlens.data.packed.exclusions import as_here
from convlens.data.sources.strict_csv import read_csv
from convlens.errors import DataError
from convlens.records import Name, Record
from convlens.text import did_you_mean, listed, shown

DECISIONS = ("keep", "change", "drop", "skip")
_COLUMNS = ("path", "label", "decision", "new_label")


class Correction(Record, frozen=True):
    """A row: the sample, its label in the data, what was decided ("" where nothing was yet) and the new label of a
    change. `suggested` is what others of its kind say it is, `doubt` how much (larger: more); `is_suspect` is false of
    those that are looked at for comparison. `source` begins the SHA-256 of the file in the data, empty where it is not
    known.
    """

    path: Name
    label: Name
    decision: Literal["", "keep", "change", "drop", "skip"] = ""
    new_label: Name = ""
    split: Name = ""
    suggested: Name = ""
    doubt: Name = ""
    is_suspect: bool = True
    source: Name = ""

    @property
    def after(self) -> str | None:
        """The label that it has after the decision; None where it is dropped."""
        return None if self.decision == "drop" else self.new_label if self.decision == "change" else self.label


_FILE_COLUMNS = (*_COLUMNS, "split", "suggested", "doubt", "suspect", "source")


def write_corrections(path: Path, rows: Iterable[Correction]) -> None:
    """Write or replace the table, durably. Raises StorageError."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)  # names may have anything in them
    writer.writerow(_FILE_COLUMNS)
    for r in rows:
        suspect = "yes" if r.is_suspect else "no"
        writer.writerow([r.path, r.label, r.decision, r.new_label, r.split, r.suggested, r.doubt, suspect, r.source])
    files.write_bytes(path, text.getvalue().encode("utf-8", "surrogateescape"))


def read_corrections(path: str | Path) -> list[Correction]:
    """The rows of a table. Raises DataError where it is none, a decision is none of those there are, a change has no
    new label, or an image stands there twice."""
    where = shown(path, 200)
    header, table = read_csv(path, f"the labels file {where}")
    missing = [name for name in _COLUMNS if name not in header]
    if unknown := [name for name in header if name not in _FILE_COLUMNS]:
        raise DataError(
            f"the labels file {where} has an unknown column {shown(unknown[0])!r}: it would be lost in review"
        )
    if missing or len(set(header)) < len(header):
        raise DataError(
            f"the labels file {where} needs the columns {', '.join(_COLUMNS)}, once each (`write_labels` of check "
            f"makes one); it has {shown(', '.join(header))}"
        )
    found, seen = list[Correction](), dict[str, int]()
    for number, cells in table:
        place = f"{where}, line {number:,}"
        row = dict(zip(header, cells, strict=True))
        decision, name = row["decision"].strip().lower(), row["path"]
        if decision not in ("", *DECISIONS):
            near = did_you_mean(decision, DECISIONS)
            raise DataError(f"{place}: unknown decision {shown(decision)!r}{near}; there are {', '.join(DECISIONS)}")
        if (decision == "change") != bool(row["new_label"]):
            raise DataError(f"{place}: a new label goes with the decision change, and only with it")
        if name in seen:
            raise DataError(f"{place}: {shown(name)!r} stands in line {seen[name]:,} already")
        seen[name] = number
        rest = {key: row.get(key, "") for key in ("split", "suggested", "doubt", "source")}
        is_suspect = row.get("suspect", "yes") != "no"
        found.append(Correction(name, row["label"], decision, row["new_label"], is_suspect=is_suspect, **rest))  # type: ignore[arg-type]  # one of those, as was checked
    return found


class Relabelled(Record, frozen=True):
    """A sample whose label was changed: what it was and what it is, and how the SHA-256 of its file begins. Until the
    data are listed `now` is empty for one that is dropped."""

    path: Name
    was: Name
    now: Name
    source: Name = ""


class Corrections(Record, frozen=True):
    """What a table comes to: labels changed, and samples dropped, both by name."""

    changed: tuple[Relabelled, ...] = ()
    dropped: tuple[Name, ...] = ()

    @classmethod
    def of(cls, rows: Sequence[Correction]) -> Self:
        """In the order of names: the same decisions are the same value."""
        changed = sorted((r.path, r.label, r.new_label, r.source) for r in rows if r.decision == "change")
        dropped = sorted(r.path for r in rows if r.decision == "drop")
        return cls(tuple(Relabelled(*one) for one in changed if one[1] != one[2]), tuple(dropped))


def moved_to(rows: Sequence[Correction], names: Iterable[str]) -> list[Correction]:
    """The rows with their paths as they read in the data set that has these `names`: a table made for a folder serves
    the one that stands for it."""
    paths = as_here([row.path for row in rows], names)
    return [row.replace(path=path) for row, path in zip(rows, paths, strict=True)]


def check_corrections(
    rows: Sequence[Correction],
    label_of: Mapping[str, str],
    hash_of: Mapping[str, str],
    classes: Sequence[str],
    data: str,
) -> None:
    """Raises DataError where a table is of other data: samples that are not there, labels or files that are others, or
    a class that there is not. A label that is changed already counts as the one before."""
    unknown = [row.path for row in rows if row.path not in label_of]
    if unknown:
        raise DataError(
            f"the labels file names {len(unknown):,} samples that {data} has not: {listed(unknown, 3)}. It is of other "
            "data"
        )
    for row in rows:
        if row.label not in classes:
            raise DataError(f"the labels file has {shown(row.path)!r} as {shown(row.label)!r}, no class of {data}")
        if row.new_label and row.new_label not in classes:
            near = did_you_mean(row.new_label, classes)
            raise DataError(f"the labels file changes {shown(row.path)!r} to {shown(row.new_label)!r}, no class{near}")
        if label_of[row.path] not in (row.label, row.after):
            raise DataError(
                f"the labels file has {shown(row.path)!r} as {shown(row.label)!r}, {data} as "
                f"{shown(label_of[row.path])!r}: it is of other data, or of labels that have changed since"
            )
        if row.source and hash_of.get(row.path) and not hash_of[row.path].startswith(row.source):
            raise DataError(f"{shown(row.path)!r} is another file than the labels file was made for: look again")


def labels_of(what: Any) -> list[Correction]:
    """A table by its path, or rows as they are. Raises DataError."""
    return read_corrections(what) if isinstance(what, str | Path) else list(what)
