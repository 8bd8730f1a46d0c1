"""What one trains on, on one screen: what is read and how, classes, splits, values, and what is not used and why.

Owns the wording. `pack` prints it, `check` begins with it, `train` prints its short form; `--json` has all of it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convlens.data.packed.dataset import Dataset
from convlens.data.sources.base import SPLITS
from convlens.text import shown, tallied

_UNUSED = "unused: "  # how a source's note on it begins


@dataclass(frozen=True)
class Contents:
    """Counts of samples by class name and split; `made_by` says where the splits come from, `values` what black and
    white are, `quarantined` how many files could not be read, by reason; `notes` how the source was read; `unused` the
    files beside, by reason, None where only a packed set is there to tell."""

    classes: Mapping[str, Mapping[str, int]]
    made_by: str
    values: tuple[float, float]
    quarantined: Mapping[str, int]
    num_excluded: int
    notes: tuple[str, ...]
    unused: Mapping[str, Sequence[str]] | None

    @classmethod
    def of(cls, dataset: Dataset) -> "Contents":
        """Those of a packed set, as it would be trained on."""
        counts = {split: dataset.class_counts(split).tolist() for split in SPLITS}
        classes = {name: {s: counts[s][number] for s in SPLITS} for number, name in enumerate(dataset.class_names)}
        made_by = {"source": "the data", "evaluation": "all is test", "hash": "convlens"}[dataset.card.split_by]
        return cls(
            classes,
            made_by,
            dataset.input_spec.value_range,
            reasons(dataset),
            dataset.card.num_excluded,
            dataset.notes,
            dataset.unused,
        )

    @property
    def splits(self) -> dict[str, int]:
        """Samples in each split."""
        return {split: sum(counts[split] for counts in self.classes.values()) for split in SPLITS}

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return (
            {"splits": self.splits, "splits_by": self.made_by, "classes": {k: dict(v) for k, v in self.classes.items()}}
            | {"values": list(self.values), "quarantined": dict(self.quarantined), "num_excluded": self.num_excluded}
            | {"notes": list(self.notes)}
            | {"unused": None if self.unused is None else {reason: list(of) for reason, of in self.unused.items()}}
        )

    def rows(self) -> list[tuple[str, str]]:
        """The screen, as (what, value)."""
        splits = self.splits
        said = ", ".join(f"{splits[s]:,} {s}" for s in SPLITS if splits[s])
        totals = [sum(counts.values()) for counts in self.classes.values()]
        rows = [
            ("samples", f"{sum(splits.values()):,} that can be used"),
            ("splits", f"{said} (made by {self.made_by})" if self.made_by != "all is test" else said),
            ("classes", f"{len(self.classes):,}: {tallied(self.classes, totals)}"),
            ("values", f"{self.values[0]:g} to {self.values[1]:,g}, black to white"),
        ]
        rows += [("read", note.removeprefix("read ")) for note in self.notes if not note.startswith(_UNUSED)]
        left = [("unused", note.removeprefix(_UNUSED)) for note in self.notes if note.startswith(_UNUSED)]
        rows += left or ([] if self.unused is None else [("unused", "nothing")])
        rows += [("excluded", f"{self.num_excluded:,} by name")] if self.num_excluded else []
        return [*rows, ("quarantined", self.quarantine())]

    def short(self, dataset: Dataset) -> list[str]:
        """What `train` says of its data: one line, the classes with their training images, and what else must be
        known."""
        counts = [of["train"] for of in self.classes.values()]
        lines = [str(dataset), f"{len(counts):,} classes, training images of each: {tallied(self.classes, counts)}"]
        if self.made_by == "convlens" and self.splits["test"]:
            own = "" if dataset.card.arrays is None else "; your own: ((x, y), (x_test, y_test))"
            lines.append(f"it came without a test split: a fifth of each class is set apart as one{own}")
        lines += [f"quarantined: {self.quarantine()}"] if self.quarantined else []
        return [*lines, *(f"note: {note}" for note in self.notes)]

    def quarantine(self) -> str:
        """How many files could not be read, and why most of them."""
        total = sum(self.quarantined.values())
        if not total:
            return "0"
        short: Counter[str] = Counter()
        for reason, number in self.quarantined.items():
            short[reason.partition(":")[0]] += number
        listed = "; ".join(f"{n:,}× {shown(reason)}" for reason, n in short.most_common(3))
        return f"{total:,} that cannot be read, in no split ({listed})"


def reasons(dataset: Dataset) -> dict[str, int]:
    """Why files of a packed set could not be read, and how many of them."""
    if not dataset.num_quarantined:
        return {}
    return dict(Counter(line.reason or "" for line in dataset.samples() if line.status == "quarantined"))
