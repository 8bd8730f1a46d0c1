"""predict: pictures classified."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convlens.commands import terminal
from convlens.commands.options import DATA, OUTPUT, Device, Json, Model, Overwrite, Raw, Views, flag
from convlens.errors import UsageError
from convlens.render import tables
from convlens.text import counted, shown

if TYPE_CHECKING:
    from convlens.runtime.prediction import Prediction

_ROWS_SHOWN = 100  # beside a file that has all


def predict(
    model: Model,
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE", help="Pictures, folders, patterns; - reads paths from standard input."),
    ],
    top: Annotated[int, flag("How many classes to give for each.", OUTPUT)] = 3,
    device: Device = None,
    views: Views = None,
    raw: Raw = False,
    min_probability: Annotated[
        float, flag("Call answers that are less probable uncertain (0.9).", OUTPUT, metavar="SHARE")
    ] = 0.0,
    recursive: Annotated[bool, flag("Of folders also the folders below.", DATA, "--recursive")] = False,
    csv: Annotated[str | None, flag("Write path, labels and probabilities as CSV.", OUTPUT, metavar="FILE")] = None,
    overwrite: Overwrite = False,
    jsonl: Annotated[bool, flag("Print a line of JSON for each answer, as it comes.", OUTPUT, "--jsonl")] = False,
    json: Json = False,
) -> None:
    """Classify pictures: framed just as the training pictures were.

    A picture that cannot be read has its reason in the answer's place; exit code 1 where there was one, 2 where none
    could be read.
    """
    terminal.loading()
    from convlens.classifier import load, predictions, unreadable
    from convlens.runtime.prediction import Asked, csv_rows

    terminal.check_new_file(csv, "--csv", (".csv",) if overwrite else (), overwrite=overwrite)
    if json and jsonl:
        raise UsageError("--json and --jsonl exclude one another")
    asked = Asked(top, min_probability)
    found: list[Prediction] = []
    num = num_unread = num_seen = num_uncertain = 0
    first_error: Prediction | None = None
    with terminal.progress() as bar, ExitStack() as stack:
        classifier = load(model, device, views, raw=raw or None)  # before there is a file
        columns = min(top, len(classifier.class_names))
        write = None if csv is None else stack.enter_context(csv_rows(Path(csv), columns, replace=overwrite))
        for answer in predictions(classifier, _with_standard_input(images), asked, recursive, bar):
            num += 1
            num_seen += bool(answer.seen)
            num_uncertain += bool(answer.uncertain)
            if answer.error is not None:
                num_unread += 1
                first_error = first_error or answer
            if write is not None:
                write(answer)
            if jsonl:
                tables.print_json(answer.to_json(), indent=None)
            elif json or num <= _ROWS_SHOWN or csv is None:
                found.append(answer)
    if json:
        tables.print_json([prediction.to_json() for prediction in found])
    elif not jsonl and not num_unread == num == 1:
        _print(found)
        if num > len(found):
            tables.print_text(f"… and {num - len(found):,} more in {shown(csv, 200)}")
    if num_seen and not (json or jsonl):
        terminal.note(
            f"{num_seen:,} of {counted(num, 'picture')} the model was made with (learned from): how many of them are "
            "right says nothing of new pictures; convlens evaluate measures on others"
        )
    if model == "last" and not (json or jsonl):
        none = "no promise was asked of it (evaluate --reject, --require)"
        promise = none if classifier.thresholds is None else f"it promises: {classifier.thresholds}"
        terminal.note(f"answered by the newest run, {terminal.as_argument(classifier.path.parent)}; {promise}")
    if num_uncertain and not (json or jsonl):
        terminal.note(f"{num_uncertain:,} of {counted(num, 'picture')} are uncertain: a person should look at them")
    card = classifier.card
    untold = ["what is unfamiliar is not told by this model"] if card.unfamiliarity is None else []
    untold += ["its probabilities are not calibrated"] if card.calibration is None else []
    if untold and not (json or jsonl):
        terminal.note(f"{' and '.join(untold)}: too few images were held out when it was trained, or none")
    if csv is not None:
        terminal.note(f"written: {terminal.as_argument(csv)}")
    if first_error is not None and num_unread == num:
        raise unreadable(first_error, num)
    if num_unread:
        terminal.note(f"{num_unread:,} of {counted(num, 'picture')} cannot be read and have no answer")
        raise typer.Exit(1)


def _with_standard_input(images: list[str]) -> list[str]:
    """The paths, a dash replaced by those that standard input has, one a line."""
    return [path for image in images for path in (_lines() if image == "-" else [image])]


def _lines() -> Iterator[str]:
    for line in sys.stdin:
        if path := line.rstrip("\r\n"):
            yield path


def _print(predictions: list[Prediction]) -> None:
    """A row a picture."""
    table = tables.new_table("picture", "label", "likeliest")
    for p in predictions:
        answer = (p.answer, p.likeliest) if p.error is None else ("–", p.answer)
        tables.add_row(table, shown(p.path, 200), *answer)
    tables.print_table(table)
