"""The ledger of openings: how often each test set was looked at, and by how many different plans.

Owns `openings.jsonl` in the user's state folder. Ten seeds of one (sentence, recipe) are one look, ten plans are
ten: whoever picks the best of ten plans by their test scores has trained on test.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from convlens import files
from convlens.recipe import ADDED, Recipe


@dataclass(frozen=True)
class Openings:
    """How often a test set was opened, this time included, and for how many different (sentence, recipe) pairs."""

    count: int
    num_plans: int

    def __str__(self) -> str:
        times = "once" if self.count == 1 else f"{self.count} times"
        return f"this test set was opened {times}, for {self.num_plans} plan{'s' if self.num_plans != 1 else ''}"


def ledger_path() -> Path:
    """Where openings are written down."""
    return files.state_folder() / "openings.jsonl"


def record_opening(test_fingerprint: str, architecture: str, recipe: Recipe, seed: int) -> Openings:
    """Write an opening down, before it happens, and count those of this test set. Raises StorageError."""
    ledger = ledger_path()
    # Precision is the machine's choice more often than the person's: two machines are one plan.
    unused = {"precision"} | (set() if recipe.optimizer == "muon" else {"muon_lr"})
    # Fields that recipes of before did not have stand there only where they say something.
    unused |= {name for name, value in recipe.to_json().items() if name in ADDED and value == getattr(Recipe(), name)}
    values = {name: value for name, value in recipe.to_json().items() if name not in unused}
    plan = files.sha256_of(json.dumps([architecture, values], sort_keys=True).encode())
    line = {
        "test_fingerprint": test_fingerprint,
        "plan": plan,
        "architecture": architecture,
        "seed": seed,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with files.lock(ledger.with_suffix(".lock")):
        files.append_line(ledger, line, durable=True)
        opened = [
            entry
            for entry in files.read_lines(ledger)
            if isinstance(entry, dict) and entry.get("test_fingerprint") == test_fingerprint
        ]
    return Openings(len(opened), len({entry.get("plan") for entry in opened}))
