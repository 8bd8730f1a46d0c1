"""The ledger of the test set: the only door to it. Each look is written down before it happens.

Owns `openings.jsonl` in the user's state folder, and the permits that a data set asks for. Ten seeds of one (sentence,
recipe) are one look, ten plans are ten: whoever picks the best of ten plans by their test scores has trained on test.
An inspection looks for duplicates and the like; no model sees it, so it is written down and is no opening. The same
pictures at another size, or a part of them, are the same test set.

Each line carries the SHA-256 of the one before: a line that was changed, put in or taken out breaks the chain, which is
said and never mended. What was cut off at its end only a report shows, which carries the hash of its own line.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from convlens import files
from convlens.data.packed.dataset import Dataset, LedgerLine, Permit
from convlens.data.packed.splits import mixed
from convlens.errors import DataError, RecordError
from convlens.modelfile import Origin
from convlens.recipe import Recipe
from convlens.records import parsed, raw_lines
from convlens.run import now
from convlens.text import counted, shown

_INSPECTION: Literal["inspection"] = "inspection"
_SKETCH, _DIGITS, _SAME = 128, 16, 0.5  # keys of pictures, digits of each, and the share in common of one test set
_FULL = (32, _SKETCH)  # keys in the sketch of a set that has more; 32 in lines of before
_BEGINNING = 64 * "0"  # what the first line carries in the place of a hash


@dataclass(frozen=True)
class Openings:
    """How often a test set was opened, this time included, and for how many different (sentence, recipe) pairs; `head`
    is the SHA-256 of this opening's line, `num_own` how many were for this plan, `since` the day of the first."""

    count: int
    num_plans: int
    num_unreadable: int = 0  # lines of the ledger, about this test set or another
    broken: tuple[int, ...] = ()  # numbers of the lines that do not follow the one before
    head: str | None = None
    num_own: int | None = None
    since: str | None = None

    @property
    def text(self) -> str:
        """How often, since when and for what, without where that is written."""
        line = f"models were measured on this test set {_times(self.count)}"
        if self.since is not None and self.count > 1:
            line += f" since {self.since}"
        line += f", of {counted(self.num_plans, 'plan')} (input, network and recipe)"
        return line if self.num_own is None or self.num_plans == 1 else f"{line}: {_times(self.num_own)} of this one"

    def __str__(self) -> str:
        line, doubts = f"{self.text} (by you, as {shown(ledger_path(), 200)} has it)", []
        if self.num_unreadable:
            doubts.append(f"{counted(self.num_unreadable, 'line')} cannot be read")
        if self.broken:
            doubts.append(f"line {self.broken[0]:,} does not follow the one before: lines were changed or removed")
        return f"{line}, or more: {'; '.join(doubts)}" if doubts else line


def _times(num: int) -> str:
    return "once" if num == 1 else f"{num:,} times"


def ledger_path() -> Path:
    """Where looks at test sets are written down."""
    return files.state_folder() / "openings.jsonl"


def plan_hash(architecture: str, recipe: Recipe | None, origin: Origin | None, views: str | None) -> str:
    """The SHA-256 by which plans are told apart: of the sentence, what of the recipe is no detail, and the weights that
    it began with."""
    key = {} if recipe is None else recipe.plan_key()
    if views is not None:
        key = {name: value for name, value in key.items() if name != "views"}
        key |= {} if views == "none" else {"views": views}
    identity = [architecture, key or None, *([] if origin is None else [origin.sha256])]
    return files.sha256_of(json.dumps(identity, sort_keys=True).encode())


def sketch(dataset: Dataset) -> str:
    """The lowest keys of a test set's pictures, as hexadecimal digits: among those so low that both sketches would have
    them, the share of one set's that the other has too estimates how much of it is in the other (Broder, "On the
    resemblance and containment of documents", 1997). Keys depend on what is shown, or on the group, and not on size,
    framing and labels."""
    return _lowest(mixed(dataset.opened_keys(), times=2))


def _lowest(keys_N: NDArray[np.uint64]) -> str:
    return "".join(f"{key:0{_DIGITS}x}" for key in np.unique(keys_N)[:_SKETCH].tolist())


def _sketches(dataset: Dataset) -> dict[str, Any]:
    """What a line says of a test set's pictures: the sketch, and that of their files."""
    return {"pictures": sketch(dataset), "files": _lowest(dataset.opened_files()) or None}


def _are_one(a: LedgerLine, b: LedgerLine) -> bool:
    """Whether two lines are about one test set, or two of which one has most of the other's pictures."""
    if a.test_fingerprint == b.test_fingerprint:
        return True
    return _has_most(a.pictures, b.pictures) or _has_most(a.files, b.files)


def _has_most(a: str | None, b: str | None) -> bool:
    """Whether one of two sketches has most of the other."""
    if not a or not b:  # of before there were sketches
        return False
    both = [{text[at : at + _DIGITS] for at in range(0, len(text), _DIGITS)} for text in (a, b)]
    highest = min((max(keys) for keys in both if len(keys) in _FULL), default="g")
    one, other = ({key for key in keys if key <= highest} for keys in both)
    return len(one & other) >= max(1, _SAME * min(len(one), len(other)))


class Tried(NamedTuple):
    """What is measured on a test set: a sentence, a recipe and a seed (None of weights that were only taken over),
    whose weights it began with, and the fingerprint of the data that it learned from. `views` is what was measured,
    where that is not what the recipe says."""

    architecture: str
    recipe: Recipe | None = None
    seed: int | None = None
    origin: Origin | None = None
    trained_on: str | None = None
    views: str | None = None


def open_test(dataset: Dataset, what: Tried, *, again: bool = False) -> tuple[Dataset, Openings]:
    """Write an opening down, and open test; with how often this set was opened. A plan that begins with weights of
    others is another one. `again`: a run that is resumed, whose opening stands there already. Raises StorageError."""
    if dataset.test_fingerprint is None:
        return dataset, Openings(0, 0)
    plan = plan_hash(what.architecture, what.recipe, what.origin, what.views)
    about: dict[str, Any] = {"plan": plan, "architecture": what.architecture, "seed": what.seed}
    about["trained_on"] = what.trained_on
    line = LedgerLine(dataset.test_fingerprint, now(), **about, **_sketches(dataset))
    permit, before = _write(dataset, line, again=again)
    return dataset.with_permit(permit), openings_until(permit.line, before)


def inspect_test(dataset: Dataset, by: str) -> Dataset:
    """Write an inspection down, and open test to it. `by` names who looks. Raises StorageError."""
    if dataset.test_fingerprint is None:
        return dataset
    line = LedgerLine(dataset.test_fingerprint, now(), kind=_INSPECTION, by=by)
    permit, _ = _write(dataset, line, again=False)
    return dataset.with_permit(permit)


@dataclass(frozen=True)
class Ledger:
    """The ledger as it stands: its lines with their SHA-256, what cannot be read, and where the chain is broken."""

    lines: tuple[tuple[LedgerLine, str], ...]
    num_unreadable: int
    broken: tuple[int, ...]
    last: str

    @classmethod
    def read(cls) -> Self:
        """Raises RecordError where the file cannot be read."""
        raw = raw_lines(ledger_path())
        lines, broken, num_unreadable = list[tuple[LedgerLine, str]](), list[int](), 0
        before = _BEGINNING
        is_chained = False  # lines of before there was a chain have no hash; after the first that has one, all do
        for number, text in enumerate(raw, 1):
            if not text.strip():
                continue
            last, before = before, files.sha256_of(text)
            try:
                line = parsed(text, LedgerLine, "")
            except RecordError:
                num_unreadable += number < len(raw)  # a last line that a crash cut short is none
                continue
            if line.before != last and (is_chained or line.before is not None):
                broken.append(number)
            is_chained = is_chained or line.before is not None
            lines.append((line, before))
        return cls(tuple(lines), num_unreadable, tuple(broken), before)


def openings_until(line: LedgerLine, ledger: Ledger) -> Openings:
    """What the ledger said of a test set when this line, the last of those that are alike, was written. Raises
    DataError where it does not stand there."""
    at = max((n for n, (one, _) in enumerate(ledger.lines) if one == line), default=None)
    if at is None:
        raise DataError("this look at test is not written down in the ledger")
    same = [one for one, _ in ledger.lines[: at + 1] if _are_one(one, line)]
    return _counted(same, ledger, line, ledger.lines[at][1])


def openings_of(dataset: Dataset) -> Openings:
    """What the ledger says of a data set's test images so far. Raises RecordError where it cannot be read."""
    ledger = Ledger.read()
    if dataset.test_fingerprint is None:
        return Openings(0, 0)
    line = LedgerLine(dataset.test_fingerprint, "", **_sketches(dataset))
    return _counted([one for one, _ in ledger.lines if _are_one(one, line)], ledger)


def _counted(
    lines: list[LedgerLine], ledger: Ledger, line: LedgerLine | None = None, head: str | None = None
) -> Openings:
    # The same network and recipe at another size, or under other labels, is another thing that was tried; measured on a
    # part of the test set it is the same. (Lines of before do not say what was learned from.)
    def tried(one: LedgerLine) -> tuple[str | None, str]:
        return one.plan, one.trained_on or one.test_fingerprint

    opened = [one for one in lines if one.kind != _INSPECTION]
    return Openings(
        len(opened),
        len(set(map(tried, opened))),
        ledger.num_unreadable,
        ledger.broken,
        head,
        num_own=None if line is None else sum(tried(one) == tried(line) for one in opened),
        since=opened[0].time[:10] if opened else None,
    )


def _write(dataset: Dataset, line: LedgerLine, *, again: bool) -> tuple[Permit, Ledger]:
    """The permit for a line that now stands in the ledger, and the ledger."""
    path = ledger_path()
    with files.lock(path.with_suffix(".lock")):
        ledger = Ledger.read()
        lasting = {"time": line.time, "before": None, "pictures": line.pictures, "files": line.files}
        lasting["trained_on"] = line.trained_on
        same = [one for one, _ in ledger.lines if again and one.replace(**lasting) == line]
        if not same:
            line = line.replace(before=ledger.last)
            facts = {name: value for name, value in line.to_json().items() if value is not None}
            files.append_line(path, facts, durable=True)
            ledger = Ledger.read()
        return Permit(path, same[-1] if same else line), ledger
