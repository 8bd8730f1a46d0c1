"""The ledger of the test set: the only door to it. Each look is written down before it happens.

Owns `openings.jsonl` in the user's state folder, and the permits that a data set asks for. Ten seeds of one (sentence,
recipe) are one look, ten plans are ten: whoever picks the best of ten plans by their test scores has trained on test.
An inspection looks for duplicates and the like; no model sees it, so it is written down and is no opening.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from convlens import files
from convlens.data.packed.dataset import Dataset, LedgerLine, Permit
from convlens.modelfile import Origin
from convlens.recipe import Recipe
from convlens.records import read_lines
from convlens.run import now
from convlens.text import counted, shown

_INSPECTION: Literal["inspection"] = "inspection"


@dataclass(frozen=True)
class Openings:
    """How often a test set was opened, this time included, and for how many different (sentence, recipe) pairs."""

    count: int
    num_plans: int
    num_unreadable: int = 0  # lines of the ledger, about this test set or another

    def __str__(self) -> str:
        times = "once" if self.count == 1 else f"{self.count} times"
        line = f"this test set was opened {times}, for {self.num_plans} plan{'s' if self.num_plans != 1 else ''}"
        if not self.num_unreadable:
            return line
        return f"{line}, or more: {counted(self.num_unreadable, 'line')} of {shown(ledger_path(), 200)} cannot be read"


def ledger_path() -> Path:
    """Where looks at test sets are written down."""
    return files.state_folder() / "openings.jsonl"


def open_test(
    dataset: Dataset,
    architecture: str,
    recipe: Recipe | None,
    seed: int | None,
    origin: Origin | None = None,
    *,
    views: str | None = None,
    again: bool = False,
) -> tuple[Dataset, Openings]:
    """Write an opening down, and open test; with how often this set was opened. A plan that begins with weights of
    others is another one; `recipe` and `seed` are None of weights that were only taken over. `views` is what was
    measured, where that is not what the recipe says. `again`: a run that is
    resumed, whose opening stands there already. Raises StorageError."""
    if dataset.test_fingerprint is None:
        return dataset, Openings(0, 0)
    key = {} if recipe is None else recipe.plan_key()
    if views is not None:
        key = {name: value for name, value in key.items() if name != "views"}
        key |= {} if views == "none" else {"views": views}
    identity = [architecture, key or None, *([] if origin is None else [origin.sha256])]
    plan = files.sha256_of(json.dumps(identity, sort_keys=True).encode())
    line = LedgerLine(dataset.test_fingerprint, now(), plan=plan, architecture=architecture, seed=seed)
    permit, lines, num_unreadable = _write(dataset, line, again=again)
    opened = [one for one in lines if one.kind != _INSPECTION]
    return dataset.with_permit(permit), Openings(len(opened), len({one.plan for one in opened}), num_unreadable)


def inspect_test(dataset: Dataset, by: str) -> Dataset:
    """Write an inspection down, and open test to it. `by` names who looks. Raises StorageError."""
    if dataset.test_fingerprint is None:
        return dataset
    line = LedgerLine(dataset.test_fingerprint, now(), kind=_INSPECTION, by=by)
    permit, _, _ = _write(dataset, line, again=False)
    return dataset.with_permit(permit)


def _write(dataset: Dataset, line: LedgerLine, *, again: bool) -> tuple[Permit, list[LedgerLine], int]:
    """The permit for a line that now stands in the ledger, all lines about the same test set, and how many lines about
    whatever cannot be read."""
    ledger = ledger_path()
    with files.lock(ledger.with_suffix(".lock")):
        lines, damaged = read_lines(ledger, LedgerLine)
        same = [one for one in lines if again and one.replace(time=line.time) == line]
        if not same:
            facts = {name: value for name, value in line.to_json().items() if value is not None}
            files.append_line(ledger, facts, durable=True)
            lines.append(line)
        permit = Permit(ledger, same[-1] if same else line)
        return permit, [one for one in lines if one.test_fingerprint == line.test_fingerprint], len(damaged)
