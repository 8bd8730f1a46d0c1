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
from convlens.text import percent, shown

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


def _write_csv(path: str, predictions: list[Prediction], top: int) -> None:
    """Write path, labels and probabilities as CSV, durably. Raises StorageError."""
    text = io.StringIO(newline="")
    writer = csv_format.writer(text, lineterminator="\n")
    num_columns = min(top, max((len(p.top) for p in predictions), default=1))
    writer.writerow(["path", *(f"{part}{i + 1}" for i in range(num_columns) for part in ("label", "probability"))])
    for p in predictions:
        writer.writerow([shown(p.path, 10_000), *(v for pair in p.top for v in (pair[0], f"{pair[1]:.6f}"))])
    files.write_text(Path(path), text.getvalue())


def _print(predictions: list[Prediction]) -> None:
    """A row a picture."""
    table = tables.new_table("picture", "label", "likeliest")
    for p in predictions:
        likeliest = "  ".join(f"{label} {percent(probability, 1)}" for label, probability in p.top)
        tables.add_row(table, shown(p.path, 200), shown(p.label), likeliest)
    tables.print_table(table)
