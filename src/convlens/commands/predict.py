"""predict: pictures classified."""

from __future__ import annotations

import csv as csv_format
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convlens import files
from convlens.commands import terminal
from convlens.commands.options import OUTPUT, Device, Json, Model, flag
from convlens.render import tables
from convlens.text import percent, shown, table_cell

if TYPE_CHECKING:
    from convlens.classifier import Prediction


def predict(
    model: Model,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Pictures, or folders of pictures.")],
    top: Annotated[int, flag("How many classes to give for each.", OUTPUT)] = 3,
    device: Device = None,
    csv: Annotated[str | None, flag("Write path, label and probabilities as CSV.", OUTPUT, metavar="FILE")] = None,
    json: Json = False,
) -> None:
    """Classify pictures: framed just as the training pictures were."""
    import convlens

    terminal.check_new_file(csv, "--csv")
    predictions = convlens.predict(model, images, top=top, device=device)
    if csv is not None:
        _write_csv(csv, predictions, top)
    if json:
        tables.print_json([prediction.to_json() for prediction in predictions])
    else:
        _print(predictions)
    if unread := [prediction for prediction in predictions if prediction.error is not None]:
        terminal.note(f"{len(unread):,} of {len(predictions):,} pictures cannot be read and have no answer")
        raise typer.Exit(2)


def _write_csv(path: str, predictions: list[Prediction], top: int) -> None:
    """Write path, labels and probabilities as CSV, durably. Raises StorageError."""
    text = io.StringIO(newline="")
    writer = csv_format.writer(text, lineterminator="\n")
    num_columns = min(top, max((len(p.top) for p in predictions), default=1))
    has_errors = any(p.error is not None for p in predictions)
    header = ["path", *(f"{part}{i + 1}" for i in range(num_columns) for part in ("label", "probability"))]
    writer.writerow([*header, "error"] if has_errors else header)
    for p in predictions:
        cells = (v for label, probability in p.top for v in (table_cell(label), f"{probability:.6f}"))
        row = [table_cell(p.path), *cells]
        if has_errors:
            row += [""] * (1 + 2 * num_columns - len(row)) + [table_cell(p.error or "")]
        writer.writerow(row)
    files.write_text(Path(path), text.getvalue())


def _print(predictions: list[Prediction]) -> None:
    """A row a picture."""
    table = tables.new_table("picture", "label", "likeliest")
    for p in predictions:
        likeliest = "  ".join(f"{shown(label, 40)} {percent(probability, 1)}" for label, probability in p.top)
        answer = (shown(p.label), likeliest) if p.error is None else ("–", f"cannot be read: {shown(p.error, 200)}")
        tables.add_row(table, shown(p.path, 200), *answer)
    tables.print_table(table)
