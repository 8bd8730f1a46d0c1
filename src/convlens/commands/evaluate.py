"""evaluate: a model measured on a split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from convlens.commands import terminal
from convlens.commands.options import (
    EVALUATION,
    OUTPUT,
    DataRoot,
    Device,
    Exclude,
    Group,
    Json,
    Label,
    LabelColumn,
    Labels,
    Layout,
    Model,
    PathColumn,
    Raw,
    Views,
    complete_data,
    flag,
)
from convlens.render import tables
from convlens.text import shown

if TYPE_CHECKING:
    from convlens.evaluation.evaluate import Report

_DATA = "Other data to measure on; its classes are matched by name."
_SPLIT = "test (each opening is written down), val, train, or folds (what the networks of --folds answered)."
_REPORT = "Write the report: .html (pictures, charts, one file), .pdf (printed by a browser), .md, or .json."
_REQUIRE = (
    "Promise 'CLASS recall>=0.99' or 'CLASS precision>=0.9' (said several times: all of them): thresholds are set by "
    "validation and kept in the model. none takes them out."
)
_REJECT = "Promise that at most such a share of the answers is wrong (0.01): others are called uncertain."
_MOST_IN_TABLE = 20  # classes of a confusion matrix that is printed


def evaluate(
    model: Model,
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help=_DATA, show_default="what it was trained on", autocompletion=complete_data),
    ] = None,
    split: Annotated[str, flag(_SPLIT, EVALUATION)] = "test",
    device: Device = None,
    views: Views = None,
    raw: Raw = False,
    require: Annotated[list[str] | None, flag(_REQUIRE, EVALUATION, metavar="PROMISE")] = None,
    reject: Annotated[float | None, flag(_REJECT, EVALUATION, metavar="SHARE")] = None,
    group: Group = None,
    layout: Layout = None,
    label: Label = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    exclude: Exclude = None,
    labels: Labels = None,
    data_root: DataRoot = None,
    report: Annotated[str | None, flag(_REPORT, OUTPUT, metavar="FILE")] = None,
    json: Json = False,
) -> None:
    """Measure a model: accuracy with its interval, per class, confusion, calibration."""
    import convlens

    terminal.check_new_file(report, "--report", (".html", ".htm", ".pdf", ".md", ".json"))
    with terminal.progress() as bar:
        others: dict[str, Any] = {
            "group": group,
            "exclude": exclude,
            "labels": labels,
            "data_root": data_root,
            "progress": bar,
        }
        others |= {"require": require, "reject": reject}
        others |= {"layout": layout, "label": label, "path_column": path_column, "label_column": label_column}
        found = convlens.evaluate(model, data, split=split, device=device, views=views, raw=raw, **others)
        if report is not None:
            bar.line("writing the report")
            found.save(report)
    if json:
        tables.print_json(found.to_json() | {"asides": list(found.asides)})
    else:
        _print(found)
    if report is not None:
        terminal.note(f"written: {shown(report, 200)}")


def _print(report: Report) -> None:
    """The score, the classes, the confusion matrix."""
    for line in report.lines():
        tables.print_text(line)
    header, rows = report.class_rows()
    table = tables.new_table(*header, right=header[1:])
    for row in rows:
        tables.add_row(table, *row)
    tables.print_text("")
    tables.print_table(table)
    if len(report.class_names) <= _MOST_IN_TABLE:
        tables.print_text("\nconfusion matrix: row = true class, column = predicted class\n")
        names = [shown(name, 12) for name in report.class_names]
        confusion = tables.new_table("", *names, right=names)
        for name, counts in zip(report.class_names, report.confusion_KK.tolist(), strict=True):
            tables.add_row(confusion, shown(name, 20), *("·" if n == 0 else f"{n:,}" for n in counts))
        tables.print_table(confusion)
