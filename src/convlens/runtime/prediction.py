"""One answer, and how answers are made of what a network says.

Owns the form of an answer: in words, as JSON, as cells of a table; the same wherever it was given.
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlens import files
from convlens.checks import checked, real, whole
from convlens.text import probability, shown, table_cell

_HALF = 0.5
_DIGITS = 12  # of a hash in a row: 48 bits
_YES_NO = {None: "not told", False: "no", True: "yes"}


@dataclass(frozen=True)
class Prediction:
    """One answer. `top` holds (label, probability) of the likeliest classes, likeliest first.

    `path` names the picture, or is None for one that came as bytes or pixels. `unfamiliar` says whether it is unlike
    the training images, None where the model cannot tell, and `uncertain` whether it gives no answer because of what it
    promises (`label` is then the likeliest), or of the probability that was asked for, None where neither is said; to
    keep a promise `label` may be another than the likeliest. `seen` says whether the model was made with this very
    picture, so that its being right says nothing of new ones, None where that is not known; `remark` is what else must
    be known of it; `row` names the answer of a kit or a server. Where it could not be read, `error` says why, and there
    is no answer: no label, no probability (it is not a number), an empty `top`.
    """

    path: str | None
    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    error: str | None = None
    unfamiliar: bool | None = None
    uncertain: bool | None = None
    seen: bool | None = None
    remark: str | None = None
    row: str | None = None

    @property
    def answer(self) -> str:
        """The answer in words, with what must be known of it."""
        if self.error is not None:
            return f"no answer: {shown(self.error, 200)}"
        words = f"uncertain, perhaps {shown(self.label)}" if self.uncertain else shown(self.label)
        words += f", but {self.remark or 'unfamiliar'}" if self.unfamiliar else ""
        return f"{words} (learned from)" if self.seen else words

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the answer is not to be relied on, a word or two each; empty where nothing speaks against it. That a
        model cannot tell what is unfamiliar is a reason too. Empty does not mean right: an answer at 51 % has no doubts
        but by a promise (`evaluate(model, split="val", reject=0.02)`: at most 2 % of the answers wrong) or
        `min_probability`."""
        if self.error is not None:
            return (f"cannot be read: {self.error.removeprefix('cannot be read: ')}",)
        found = [] if self.remark is None else [self.remark]
        found += ["unfamiliar"] if self.unfamiliar and not found else []
        found += ["what is unfamiliar is not told"] if self.unfamiliar is None else []
        found += ["likelier wrong than right"] if self.probability < _HALF else []
        return (*found, "uncertain") if self.uncertain else tuple(found)

    @property
    def likeliest(self) -> str:
        """The classes of `top` with their probabilities, as text; empty where it could not be read."""
        return "  ".join(f"{shown(label, 40)} {probability(share)}" for label, share in self.top)

    def to_json(self) -> dict[str, Any]:
        """As `predict --json` prints it."""
        top = [{"label": label, "probability": probability} for label, probability in self.top]
        if self.error is not None:
            return {"path": self.path, "label": None, "probability": None, "top": [], "error": self.error}
        answer = {"path": self.path, "label": self.label, "probability": self.probability, "top": top}
        told = {name: getattr(self, name) for name in ("unfamiliar", "uncertain", "seen", "remark", "row")}
        return answer | {name: value for name, value in told.items() if value is not None}


def csv_header(num_top: int, told: str = "seen") -> list[str]:
    """The names of the columns; `told` is the field that stands before the error: `seen` or `row`."""
    names = [f"{part}{i + 1}" for i in range(num_top) for part in ("label", "probability")]
    return ["path", *names, "answer", "unfamiliar", told, "error"]


@contextmanager
def csv_rows(
    path: Path, num_top: int, told: str = "seen", *, replace: bool = False, go_on: bool = False
) -> Iterator[Callable[[Prediction], None]]:
    """A function that writes the row of an answer under `csv_header`, as it comes: whoever stops has those until then.
    No spreadsheet takes a cell for a formula. `replace` and `go_on` as `files.streamed_text` takes them. Raises
    StorageError."""
    with files.streamed_text(path, replace=replace, go_on=go_on) as add:

        def row(cells: list[str]) -> None:
            line = io.StringIO(newline="")
            csv.writer(line, lineterminator="\n").writerow(cells)
            add(line.getvalue())

        def write(one: Prediction) -> None:
            cells = [cell for label, share in one.top for cell in (table_cell(label), f"{share:.6f}")]
            cells = [*cells, *[""] * (2 * num_top)][: 2 * num_top]
            said = "uncertain" if one.uncertain else table_cell(one.label)
            last = one.row or "" if told == "row" else _YES_NO[one.seen]
            row([table_cell(one.path), *cells, said, _YES_NO[one.unfamiliar], last, table_cell(one.error or "")])

        if not go_on:
            row(csv_header(num_top, told))
        yield write


@dataclass(frozen=True)
class Asked:
    """What is asked of each picture: how many classes to give, and from which probability (0..1) on an answer counts.
    Raises UsageError for values out of range."""

    top: int = 3
    min_probability: float = 0.0

    def __post_init__(self) -> None:
        checked("top", self.top, whole(1))
        checked("min_probability", self.min_probability, real(0, 1))


@dataclass(frozen=True)
class Outputs:
    """What a model says of N framed images: probabilities (N, K), labels (N,), and, bool (N,), in which no ink was
    found, which are unfamiliar (None where it cannot tell) and to which a promise gives no answer (None where it has
    none)."""

    p_NK: NDArray[np.floating[Any]]
    labels_N: NDArray[np.int64]
    are_blank_N: NDArray[np.bool_]
    are_unfamiliar_N: NDArray[np.bool_] | None = None
    are_uncertain_N: NDArray[np.bool_] | None = None

    def predictions(self, class_names: tuple[str, ...], asked: Asked) -> Iterator[Prediction]:
        """The answer to each image."""
        best_NK = np.argsort(-self.p_NK, axis=1, kind="stable")[:, : asked.top]
        for n, (row, order, k) in enumerate(
            zip(self.p_NK.tolist(), best_NK.tolist(), self.labels_N.tolist(), strict=True)
        ):
            is_blank = bool(self.are_blank_N[n])
            unfamiliar = None if self.are_unfamiliar_N is None else bool(self.are_unfamiliar_N[n])
            uncertain = None if self.are_uncertain_N is None else bool(self.are_uncertain_N[n])
            if asked.min_probability:
                uncertain = bool(uncertain) or row[k] < asked.min_probability
            yield Prediction(
                None,
                class_names[k],
                row[k],
                tuple((class_names[one], row[one]) for one in order),
                unfamiliar=is_blank or unfamiliar,
                uncertain=uncertain,
                remark="no ink found" if is_blank else None,
            )


def row_of(framed_HWC: NDArray[np.uint8], model_sha256: str, answer: Prediction) -> str:
    """`3f0a…-9b1c…-77de…`: the start of three SHA-256: of the input tensor, of the model file, of the answer (label,
    unfamiliar, uncertain). Whoever has the picture can show that it was this answer, or which of the three is other."""
    said = json.dumps([answer.label, answer.unfamiliar, answer.uncertain], ensure_ascii=True)
    tensor = hashlib.sha256(str(framed_HWC.shape).encode() + framed_HWC.tobytes()).hexdigest()
    return "-".join(one[:_DIGITS] for one in (tensor, model_sha256, hashlib.sha256(said.encode()).hexdigest()))
