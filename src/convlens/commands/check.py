"""check: what is wrong with a data set, before anything is trained on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convlens.commands import terminal
from convlens.commands.options import (
    EVALUATION,
    OUTPUT,
    Data,
    DataRoot,
    Exclude,
    Group,
    Json,
    Label,
    LabelColumn,
    Layout,
    Overwrite,
    PathColumn,
    flag,
)
from convlens.errors import UsageError
from convlens.render import tables
from convlens.text import shown

if TYPE_CHECKING:
    from convlens.doctor.findings import Findings

_AGAINST = "Are these pictures, labelled or not, like what a model was trained on?"
_SETS_SHOWN = 5  # of a finding, in the terminal; the page and --json have more
_SEVERITY = {"falsifies": "bold red", "warning": "yellow", "note": "cyan"}


def check(
    data: Data,
    out: Annotated[
        str | None, flag("The page with the pictures: .html.", OUTPUT, metavar="FILE", show_default="check-DATA.html")
    ] = None,
    write_exclusions: Annotated[
        str | None, flag("List what must be left out, for --exclude of train and evaluate.", OUTPUT, metavar="FILE")
    ] = None,
    write_groups: Annotated[
        str | None, flag("Write a .csv for train, in which samples of one picture are a group.", OUTPUT, metavar="FILE")
    ] = None,
    write_labels: Annotated[
        str | None, flag("List the labels in doubt, for review: .csv.", OUTPUT, metavar="FILE")
    ] = None,
    group: Group = None,
    layout: Layout = None,
    label: Label = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    exclude: Exclude = None,
    data_root: DataRoot = None,
    control: Annotated[
        bool,
        flag(
            "Train three times: as it is, without copies across splits, without as many others.",
            EVALUATION,
            "--control",
        ),
    ] = False,
    labels: Annotated[
        bool,
        flag(
            "Train five networks, each on four fifths; name the labels that they contradict.",
            EVALUATION,
            "--labels",
        ),
    ] = False,
    against: Annotated[str | None, flag(_AGAINST, EVALUATION, metavar="MODEL")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Look a data set over: broken files, duplicates across splits, what would falsify a score.

    Exit code 1 where something would falsify a score, else 0.
    """
    terminal.check_new_file(out, "--out", (".html", ".htm"), overwrite=overwrite)
    terminal.check_new_file(write_exclusions, "--write-exclusions", overwrite=overwrite)
    terminal.check_new_file(write_groups, "--write-groups", (".csv",), overwrite=overwrite)
    terminal.check_new_file(write_labels, "--write-labels", (".csv",), overwrite=overwrite)
    written_to = (out, write_exclusions, write_groups, write_labels)
    places = [Path(place).resolve() for place in written_to if place is not None]
    if len(set(places)) < len(places):
        raise UsageError("--out, --write-exclusions, --write-groups and --write-labels must name different files")
    if write_labels is not None and not labels:
        raise UsageError("--write-labels needs --labels, which looks for them")
    import convlens

    with terminal.progress() as bar:
        findings = convlens.check(
            data,
            group=group,
            layout=layout,
            label=label,
            path_column=path_column,
            label_column=label_column,
            exclude=exclude,
            data_root=data_root,
            control=control,
            labels=labels,
            against=against,
            progress=bar,
        )
    findings = replace(
        findings, findings=tuple(replace(one, remedy=terminal.as_typed(one.remedy)) for one in findings.findings)
    )
    if out is None and not json and against is None:
        out = terminal.free_name(f"check-{findings.name}", ".html")
    written = []
    if write_exclusions is not None:
        findings.write_exclusions(write_exclusions, replace=overwrite)
        written.append(write_exclusions)
    if out is not None:
        findings.save(out, replace=overwrite)
        written.append(out)
    if write_labels is not None:
        findings.write_labels(write_labels, replace=overwrite)
        written.append(write_labels)
    if write_groups is not None:  # last: of arrays there are none
        findings.write_groups(write_groups, replace=overwrite)
        written.append(write_groups)
    if json:
        tables.print_json(findings.to_json() | {"files": written})
    else:
        _print(findings)
        if write_groups is not None and write_labels is not None and not findings.has_own_splits and findings.clusters:
            terminal.note(
                "the table of groups has splits of its own: to judge its test labels blind, look at them there "
                f"(check {terminal.as_argument(write_groups)} --labels --write-labels FILE)"
            )
        if written:
            tables.print_text(f"written: {', '.join(terminal.as_argument(path) for path in written)}")
    if findings.falsifies:
        raise typer.Exit(1)


def _print(findings: Findings) -> None:
    """What the data is, what was found, the gravest first, with a few names each, and what to do."""
    tables.print_rows([("data", shown(findings.location, 200)), *findings.facts])
    if not findings.findings and findings.shift is None:
        tables.print_text("\nnothing was found")
    for finding in findings.findings:
        tables.print_text("")
        tables.print_styled(finding.severity, _SEVERITY[finding.severity], f": {finding.title}")
        for number, samples in enumerate(finding.sets[:_SETS_SHOWN]):
            detail = f": {finding.details[number]}" if number < len(finding.details) else ""
            names = " = ".join(shown(s.name, 60) + (f" ({s.split})" if s.split else "") for s in samples[:3])
            more = " = …" if len(samples) > 3 else ""
            tables.print_text(f"  {names}{more}{shown(detail, 200)}")
        if len(finding.sets) > _SETS_SHOWN:
            tables.print_text(f"  … and {len(finding.sets) - _SETS_SHOWN:,} more")
        tables.print_text(f"  do: {finding.remedy}")
    if findings.control:
        tables.print_text("\nwhat copies across splits are worth, on the test images:")
        tables.print_rows([(f"  {what}", str(score)) for what, score in findings.control])
    tables.print_text(f"\n{findings.verdict}")
    if findings.suspects is None and findings.shift is None:
        tables.print_text("labels that networks would contradict were not looked for: --labels trains some that do")
