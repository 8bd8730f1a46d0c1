"""The ledger of the test set: the only door to it. Each look is written down before it happens.

Owns `openings.jsonl` in the user's state folder, and the permits that a data set asks for. Ten seeds of one (sentence,
recipe) are one look, ten plans are ten: whoever picks the best of ten plans by their test scores has trained on test.
An inspection looks for duplicates and the like; no model sees it, so it is written down and is no opening.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convlens import files
from convlens.data.packed.dataset import Dataset, Permit
from convlens.recipe import Recipe
from convlens.run import now

_INSPECTION = "inspection"


@dataclass(frozen=True)
class Openings:
    """How often a test set was opened, this time included, and for how many different (sentence, recipe) pairs."""

    count: int
    num_plans: int

    def __str__(self) -> str:
        times = "once" if self.count == 1 else f"{self.count} times"
        return f"this test set was opened {times}, for {self.num_plans} plan{'s' if self.num_plans != 1 else ''}"


def ledger_path() -> Path:
    """Where looks at test sets are written down."""
    return files.state_folder() / "openings.jsonl"


def open_test(
    dataset: Dataset, architecture: str, recipe: Recipe, seed: int, *, again: bool = False
) -> tuple[Dataset, Openings]:
    """Write an opening down, and open test; with how often this set was opened. `again`: a run that is resumed, whose
    opening stands there already. Raises StorageError."""
    if dataset.test_fingerprint is None:
        return dataset, Openings(0, 0)
    plan = files.sha256_of(json.dumps([architecture, recipe.plan_key()], sort_keys=True).encode())
    line = {"plan": plan, "architecture": architecture, "seed": seed}
    permit, lines = _write(dataset, line, again=again)
    opened = [one for one in lines if one.get("kind") != _INSPECTION]
    return dataset.with_permit(permit), Openings(len(opened), len({one.get("plan") for one in opened}))


def inspect_test(dataset: Dataset, by: str) -> Dataset:
    """Write an inspection down, and open test to it. `by` names who looks. Raises StorageError."""
    if dataset.test_fingerprint is None:
        return dataset
    permit, _ = _write(dataset, {"kind": _INSPECTION, "by": by}, again=False)
    return dataset.with_permit(permit)


def _write(dataset: Dataset, facts: dict[str, Any], *, again: bool) -> tuple[Permit, list[dict[str, Any]]]:
    """The permit for a line that now stands in the ledger, and all lines about the same test set."""
    ledger, fingerprint = ledger_path(), dataset.test_fingerprint

    def lines() -> list[dict[str, Any]]:
        found = files.read_lines(ledger)
        return [one for one in found if isinstance(one, dict) and one.get("test_fingerprint") == fingerprint]

    with files.lock(ledger.with_suffix(".lock")):
        same = [one for one in lines() if again and facts.items() <= one.items()]
        line = same[-1] if same else {"test_fingerprint": fingerprint, **facts, "time": now()}
        if not same:
            files.append_line(ledger, line, durable=True)
        return Permit(ledger, line), lines()
