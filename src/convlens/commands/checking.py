"""check: what is wrong with a data set, before anything is trained on it."""

from __future__ import annotations

from typing import Annotated

import typer

from convlens import console
from convlens.commands.options import DataRoot, Exclude, Group, Json
from convlens.errors import UsageError


def check(
    data: Annotated[str, typer.Argument(metavar="DATA", help="What train takes: a name, a folder, an .npz, a .csv.")],
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The page with the pictures: .html.", show_default="check-DATA.html"),
    ] = None,
    write_exclusions: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="List what must be left out, for --exclude of train and evaluate."),
    ] = None,
    write_groups: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write a .csv for train, in which samples of one picture are a group."),
    ] = None,
    group: Group = None,
    exclude: Exclude = None,
    data_root: DataRoot = None,
    json: Json = False,
) -> None:
    """Look a data set over: broken files, duplicates across splits, what would falsify a score.

    Exit code 1 where something would falsify a score, else 0.
    """
    console.check_new_file(out, "--out", (".html", ".htm"))
    console.check_new_file(write_exclusions, "--write-exclusions")
    console.check_new_file(write_groups, "--write-groups", (".csv",))
    places = [place for place in (out, write_exclusions, write_groups) if place is not None]
    if len(set(places)) < len(places):
        raise UsageError("--out, --write-exclusions and --write-groups must name different files")
    import convlens

    findings = convlens.check(data, group=group, exclude=exclude, data_root=data_root, progress=console.progress_mode())
    if out is None and not json:
        out = console.free_name(f"check-{findings.name}", ".html")
    written = []
    if write_groups is not None:
        findings.write_groups(write_groups)
        written.append(write_groups)
    if write_exclusions is not None:
        findings.write_exclusions(write_exclusions)
        written.append(write_exclusions)
    if out is not None:
        findings.save(out)
        written.append(out)
    if json:
        console.print_json(findings.to_json() | {"files": written})
    else:
        console.print_findings(findings)
        console.print_text(f"written: {', '.join(console.as_argument(path) for path in written)}")
    if findings.falsifies:
        raise typer.Exit(1)
