"""verify: a report measured anew."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from convlens.commands import terminal
from convlens.commands.options import DataRoot, Device, Exclude, Json, Labels, complete_data
from convlens.render import tables


def verify(
    report: Annotated[str, typer.Argument(metavar="REPORT|RUN", help="A report (.html, .json), or a run's folder.")],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA", help="Its data.", show_default="where the model has it", autocompletion=complete_data
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Its model.", show_default="where the report has it"),
    ] = None,
    exclude: Exclude = None,
    labels: Labels = None,
    device: Device = None,
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Check a claim: measure a report's model anew, and name what differs in report, model, data or ledger.

    Exit code 0 where everything is confirmed, 1 where it is not.
    """
    terminal.loading()
    import convlens

    with terminal.progress() as bar:
        others: dict[str, Any] = {
            "exclude": exclude,
            "labels": labels,
            "device": device,
            "data_root": data_root,
            "progress": bar,
        }
        found = convlens.verify(report, data, model=model, **others)
    if json:
        tables.print_json(found.to_json())
    else:
        for line in found.lines():
            tables.print_text(line)
    if not found.is_confirmed:
        raise typer.Exit(1)
