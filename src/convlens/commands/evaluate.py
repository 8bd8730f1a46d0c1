"""evaluate: a model measured on a split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convlens import files
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
    Overwrite,
    PathColumn,
    Raw,
    Views,
    complete_data,
    flag,
)
from convlens.errors import UsageError
from convlens.render import tables
from convlens.text import shown

if TYPE_CHECKING:
    from convlens.evaluation.evaluate import Report
    from convlens.run import Run

_DATA = "Other data to measure on; its classes are matched by name."
_CSV = "Write a row for each image, the wrong ones first: path, true class, answer, probability, learned from or not."
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
    csv: Annotated[str | None, flag(_CSV, OUTPUT, metavar="FILE")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Measure a model: accuracy with its interval, per class, confusion, calibration."""
    terminal.loading()
    import convlens

    terminal.check_new_file(report, "--report", (".html", ".htm", ".pdf", ".md", ".json"), overwrite=overwrite)
    terminal.check_new_file(csv, "--csv", (".csv",), overwrite=overwrite)
    if report is not None and csv is not None and Path(report).absolute() == Path(csv).absolute():
        raise UsageError("--report and --csv must name different files")
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
        others |= {"split": split, "device": device, "views": views, "raw": raw}
        seeds = _seeds(model)
        if len(seeds) == 1:
            model = str(seeds[0].path)
        elif seeds:
            if report is not None or csv is not None:
                raise UsageError(f"{shown(model, 200)} holds several seeds: --report and --csv are of one of them")
            _print_seeds([convlens.evaluate(run, data, **others) for run in seeds], json=json)
            return
        found = convlens.evaluate(model, data, **others)
        if report is not None:
            bar.line("writing the report")
        for path in (report, csv):
            if path is not None:
                found.save(path, replace=overwrite)
    if json:
        tables.print_json(found.to_json() | {"asides": list(found.asides)})
    else:
        _print(found)
    for path in (report, csv):
        if path is not None:
            terminal.note(f"written: {terminal.as_argument(path)}")


def _seeds(model: str) -> list[Run]:
    """The runs of a folder that holds those of several seeds of one plan; empty of anything else. Raises UsageError
    where they are of different plans."""
    from convlens.run import RUN_FILE, is_one_plan, runs

    if not files.is_folder(model) or files.is_file(Path(model) / RUN_FILE):
        return []
    found = runs(model)
    if found and not is_one_plan(found):
        raise UsageError(
            f"{shown(model, 200)} holds runs that are not seeds of one plan (or one seed twice): name one of them, or "
            "see compare"
        )
    unfinished = [run for run in found if run.status != "complete"]
    if unfinished:
        path = shown(unfinished[0].path, 200)
        raise UsageError(f"{path} is unfinished ({unfinished[0].status}): finish it with train --resume {path}")
    return found


def _print_seeds(reports: list[Report], *, json: bool) -> None:
    """The score of each seed, and mean and standard deviation over them."""
    from convlens.run import over_seeds

    summary = over_seeds([report.score for report in reports])
    if json:
        tables.print_json({"reports": [report.to_json() for report in reports], "summary": summary})
        return
    for report in reports:
        tables.print_text(f"{terminal.as_argument(report.model.parent)}: {report.score}")
    tables.print_text(summary)
    for line in dict.fromkeys(line for report in reports for line in report.remarks()):
        tables.print_text(line)
    tables.print_text("Class by class: evaluate one of them")


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
