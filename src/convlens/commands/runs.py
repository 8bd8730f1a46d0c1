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
    """List the runs started here, oldest first, with what they differ in."""
    import convlens
    from convlens.run import RUNS_FOLDER, runs_elsewhere, unreadable

    if folder != str(RUNS_FOLDER) and not files.is_folder(folder):
        raise UsageError(f"{shown(folder, 200)} is no folder")
    found = convlens.runs(folder)
    if folder == str(RUNS_FOLDER):
        found = sorted([*found, *runs_elsewhere()], key=lambda run: run.record.created)
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

    numbers = ("seed", "trained", "parameters", "val", "test or folds")
    table = tables.new_table("run", "status", *numbers, "plan", right=numbers)
    differing = _differing([run.record for run in found])
    scores = [(run.val, run.test or run.cross_validation) for run in found]
    for run, both in zip(found, scores, strict=True):
        record = run.record
        cells = [str(record.seed), f"{record.train_s:.1f} s", f"{record.num_parameters:,}", *map(_short, both)]
        tables.add_row(table, shown(run.path, 60), run.status, *cells, _plan_name(record, differing))
    tables.print_table(table)
    every = [score for both in scores for score in both if score is not None]
    if every:
        tables.print_text("in brackets: the 95 % interval of the accuracy")
    if any(score.is_imbalanced for score in every):
        tables.print_text(
            "balanced: balanced accuracy, where classes differ much in size; the accuracy stands after it"
        )
    if any(score.may_count_seen for score in every):
        tables.print_text(f"*: {MAY_COUNT_SEEN}")
    if any(score.is_chance for score in every):
        tables.print_text("!: no better than always answering the largest class, as far as so many images tell")
    for run in found:
        if run.status == "stopped":
            path = terminal.as_argument(run.path)
            tables.print_text(f"{path} was stopped: resume with {terminal.program()} train --resume {path}")


def _short(score: Score | None) -> str:
    """The accuracy with its interval, and a mark where it cannot be trusted."""
    if score is None:
        return "–"
    low, high = score.interval
    words = f"{percent(score.accuracy)} ({100 * low:.1f}–{100 * high:.1f})"
    if score.is_imbalanced and score.balanced_accuracy is not None:
        words = f"balanced {percent(score.balanced_accuracy)}, {words}"
    return words + " *" * score.may_count_seen + " !" * score.is_chance


def _differing(records: list[RunRecord]) -> set[str]:
    """The fields of the recipe that are not the same in all runs of one architecture and data set."""
    first: dict[tuple[str, str], dict[str, object]] = {}
    found = set()
    for one in records:
        recipe = first.setdefault((one.architecture, one.dataset.fingerprint), one.recipe)
        found |= {name for name, value in one.recipe.items() if recipe.get(name, value) != value}
    return found


def _plan_name(record: RunRecord, differing: set[str]) -> str:
    """A preset's name with what was changed in it, or the start of a sentence of one's own with what other runs of it
    have otherwise."""
    from convlens.presets import PRESETS, Preset

    def changed(preset: Preset) -> list[str]:
        then = preset.recipe.to_json() | {"precision": record.recipe.get("precision")}
        return [f"{k}={v}" for k, v in record.recipe.items() if then.get(k) != v]

    same = [preset for preset in PRESETS.values() if preset.architecture == record.architecture]
    if not same:
        own = [f"{name}={value}" for name, value in record.recipe.items() if name in differing]
        return " ".join([shown(record.architecture, 100), *own])
    nearest = min(same, key=lambda preset: len(changed(preset)))
    return " ".join([nearest.name, *changed(nearest)])
