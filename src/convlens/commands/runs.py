"""runs: the runs of a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from convlens import files
from convlens.commands import terminal
from convlens.commands.options import Json
from convlens.errors import UsageError
from convlens.render import tables
from convlens.text import counted, percent, shown

if TYPE_CHECKING:
    from convlens.metrics import Score
    from convlens.run import Run, RunRecord


_BAD_SHOWN = 5


def runs(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where the runs lie.")] = "runs", json: Json = False
) -> None:
    """List the runs, oldest first."""
    import convlens
    from convlens.run import RUNS_FOLDER, unreadable

    if folder != str(RUNS_FOLDER) and not files.is_folder(folder):
        raise UsageError(f"{shown(folder, 200)} is no folder")
    found = convlens.runs(folder)
    bad = unreadable(folder)
    for line in bad[:_BAD_SHOWN]:
        terminal.note(line)
    if bad:
        terminal.note(f"{counted(len(bad), 'run folder')} of {shown(folder, 200)} cannot be read")
    if json:
        tables.print_json([run.to_json() for run in found])
        return
    if not found:
        tables.print_text(f"no runs in {shown(folder, 200)}: train one with 'convlens train'")
        return
    _print(found)


def _print(found: list[Run]) -> None:
    """A row a run."""
    from convlens.metrics import MAY_COUNT_SEEN

    table = tables.new_table("run", "status", "seed", "trained", "val", "test or folds", "plan")
    for run in found:
        record = run.record
        scores = [_short(score) for score in (run.val, run.test or run.cross_validation)]
        trained = f"{record.train_s:.1f} s"
        seed, plan = str(record.seed), _plan_name(record)
        tables.add_row(table, shown(run.path, 60), run.status, seed, trained, *scores, plan)
    tables.print_table(table)
    if any(score is not None and score.may_count_seen for run in found for score in (run.val, run.test)):
        tables.print_text(f"*: {MAY_COUNT_SEEN}")
    for run in found:
        if run.status == "stopped":
            path = terminal.as_argument(run.path)
            tables.print_text(f"{path} was stopped: resume with {terminal.program()} train --resume {path}")


def _short(score: Score | None) -> str:
    """The accuracy alone, with a mark where it cannot be trusted."""
    return percent(score.accuracy if score else None) + (" *" if score is not None and score.may_count_seen else "")


def _plan_name(record: RunRecord) -> str:
    """A preset's name with what was changed in it, or the start of a sentence of one's own."""
    from convlens.presets import PRESETS, Preset

    def changed(preset: Preset) -> list[str]:
        then = preset.recipe.to_json() | {"precision": record.recipe.get("precision")}
        return [f"{k}={v}" for k, v in record.recipe.items() if then.get(k) != v]

    same = [preset for preset in PRESETS.values() if preset.architecture == record.architecture]
    if not same:
        return shown(record.architecture, 40)
    nearest = min(same, key=lambda preset: len(changed(preset)))
    return " ".join([nearest.name, *changed(nearest)])
