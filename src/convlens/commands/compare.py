"""compare: models on the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from convlens.commands import terminal
from convlens.commands.options import (
    DATA,
    EVALUATION,
    OUTPUT,
    DataRoot,
    Device,
    Group,
    Json,
    Label,
    LabelColumn,
    Labels,
    Layout,
    Overwrite,
    PathColumn,
    complete_data,
    flag,
)
from convlens.render import tables
from convlens.text import shown

if TYPE_CHECKING:
    from convlens.evaluation.compare import Comparison

_MODELS = "Two or more: model files, runs, folders of runs (seeds), predictions of any tool (.csv: path, label)."
_DATA = "The data to compare on; classes are matched by name."
_MOST_CLASSES = 30  # in the terminal


def compare(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help=_MODELS)],
    data: Annotated[
        str | None,
        flag(_DATA, DATA, metavar="DATA", show_default="what the first was trained on", autocompletion=complete_data),
    ] = None,
    split: Annotated[str, flag("test (each look is written down), val, train, or folds.", EVALUATION)] = "test",
    device: Device = None,
    group: Group = None,
    layout: Layout = None,
    label: Label = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    labels: Labels = None,
    data_root: DataRoot = None,
    report: Annotated[
        str | None, flag("Write the comparison: .html (with pictures) or .json.", OUTPUT, metavar="FILE")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Compare models on the same images: which is better, by how much, and whether that can be told.

    Runs that differ in nothing but their seed are one plan. No winner is named where the interval spans zero.
    """
    terminal.loading()
    import convlens

    terminal.check_new_file(report, "--report", (".html", ".htm", ".json"), overwrite=overwrite)
    if split == "test":
        terminal.note("measures on test, and writes that down; --split val compares on validation instead")
    with terminal.progress() as bar:
        found = convlens.compare(
            models,
            data=data,
            split=split,
            device=device,
            group=group,
            layout=layout,
            label=label,
            path_column=path_column,
            label_column=label_column,
            labels=labels,
            data_root=data_root,
            progress=bar,
        )
    if report is not None:
        found.save(report, replace=overwrite)
    if json:
        tables.print_json(found.to_json())
    else:
        _print(found)
    if report is not None:
        terminal.note(f"written: {shown(report, 200)}")


def _print(found: Comparison) -> None:
    """Verdicts, then the tables."""
    for line in found.lines():
        tables.print_text(line)
    for title, header, rows in found.tables():
        if title.startswith("Recall") and len(rows) > _MOST_CLASSES:
            tables.print_text(f"\n{len(rows):,} classes: --report and --json have each")
            continue
        if title == "Pairs" and len(rows) == 1:
            continue  # the line above has said it
        table = tables.new_table(*header, right=header[1:])
        for row in rows:
            tables.add_row(table, *row)
        tables.print_text("")
        tables.print_table(table)
