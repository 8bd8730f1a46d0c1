"""What a person sees: texts, tables and JSON on standard output.

Owns the look of results and what a console that lacks a character gets in its place. Computes nothing.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convlens import files
from convlens.architecture.rows import padding_in_words
from convlens.errors import UsageError
from convlens.files import read_lines, write_text
from convlens.text import shown

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from convlens.architecture.explain import Explanation
    from convlens.architecture.rows import Row
    from convlens.classifier import Prediction
    from convlens.data.packed.dataset import Dataset
    from convlens.evaluation.evaluate import Report
    from convlens.run import Run

# What a console that cannot show a character gets in its place.
_PLAIN = str.maketrans(
    {
        "×": "x",
        "·": "*",
        "−": "-",
        "–": "-",
        "—": "-",
        "±": "+-",
        "…": "...",
        "⌊": "floor(",
        "⌋": ")",
        "⌈": "ceil(",
        "⌉": ")",
        "→": "->",
        "≥": ">=",
        "≤": "<=",
        "█": "#",
        "░": ".",
        "’": "'",
        "“": '"',
        "”": '"',
        "─": "-",
    }
)


def showable(text: str, encoding: str | None) -> str:
    """`text` in characters that the stream's encoding has."""
    try:
        text.encode(encoding or "ascii")
        return text
    except (UnicodeEncodeError, LookupError):
        return text.translate(_PLAIN).encode(encoding or "ascii", "backslashreplace").decode(encoding or "ascii")


def print_text(text: str) -> None:
    """Print a result on standard output."""
    if sys.stdout is None:  # closed by whoever started us
        return
    try:
        print(showable(text, sys.stdout.encoding), flush=True)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


def print_json(value: object) -> None:
    """Print one JSON document on standard output."""
    # ASCII: readable by everything, in every console's encoding.
    print_text(json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False))


def print_rows(rows: list[tuple[str, str]]) -> None:
    """What and value, a line each, the values under one another."""
    width = max(len(what) for what, _ in rows)
    for what, value in rows:
        print_text(f"{what:<{width}}  {value}")


def new_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table in the house's style; the columns in `right` hold numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        table.add_column(_cell(column), overflow="fold", justify="right" if column in right else "left")
    return table


def add_row(table: Table, *cells: str) -> None:
    """A row of plain text: brackets in names are no markup."""
    table.add_row(*map(_cell, cells))


def _cell(text: str) -> Text:
    from rich.text import Text

    return Text(showable(text, sys.stdout.encoding if sys.stdout else None))


def is_terminal() -> bool:
    """Whether results go to a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def terminal_width() -> int:
    """Columns to print in; a pipe has no width, so that nothing is folded away there."""
    return shutil.get_terminal_size().columns if is_terminal() else 1000


def print_table(table: Table) -> None:
    """Print a table, as wide as the terminal or, in a pipe, as wide as it needs to be."""
    from rich.console import Console

    page = io.StringIO()
    console = Console(file=page, force_terminal=is_terminal(), width=terminal_width())
    console.print(table)
    print_text("\n".join(line.rstrip() for line in page.getvalue().splitlines()))


def progress_mode() -> str:
    """A bar in a terminal, plain lines elsewhere: the command line always says what it does."""
    return "bar" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "lines"


def program() -> str:
    """How a person starts convlens here: by name where it is on the path, else as it was started now."""
    started = Path(sys.argv[0])
    if shutil.which("convlens") or started.name not in ("convlens", "convlens.exe"):
        return "convlens"
    return as_argument(os.path.relpath(started))


def as_argument(path: object) -> str:
    """A path as a person would type it."""
    text = str(path)
    return f'"{text}"' if " " in text else text


def print_report(report: Report) -> None:
    """The score, the classes, the confusion matrix."""
    for line in report.lines():
        print_text(line)
    numbers = ("precision", "recall", "F1", "n")
    table = new_table("class", *numbers, right=numbers)

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.2f} %"

    for c in report.classes():
        add_row(
            table,
            shown(c["label"], 40),
            percent(c["precision"]),
            percent(c["recall"]),
            percent(c["f1"]),
            f"{c['support']:,}",
        )
    print_text("")
    print_table(table)
    if len(report.class_names) <= 20:
        print_text("\nconfusion: row = true class, column = predicted class\n")
        names = [shown(name, 12) for name in report.class_names]
        confusion = new_table("", *names, right=names)
        for name, row in zip(report.class_names, report.confusion_KK.tolist(), strict=True):
            add_row(confusion, shown(name, 20), *("·" if n == 0 else f"{n:,}" for n in row))
        print_table(confusion)


_COLOURS = {
    "conv": "cyan",
    "linear": "blue",
    "maxpool": "green",
    "avgpool": "green",
    "globalavgpool": "green",
    "globalmaxpool": "green",
    "batchnorm": "magenta",
    "groupnorm": "magenta",
    "scale": "magenta",
    "dropout": "dim",
    "flatten": "dim",
    "residual": "bold",
}


_TABLE_WIDTH = 112  # columns that the table of layers needs; a narrower terminal gets a block a layer


def print_explanation(explanation: Explanation) -> None:
    """Each layer with its formula and its shares of the costs under it, and the remarks."""
    print_text(f"{explanation.plan.architecture}\n")
    if terminal_width() >= _TABLE_WIDTH:
        _print_layers_as_table(explanation)
    else:
        _print_layers_as_blocks(explanation)
    print_text("\n" + explanation.summary())
    print_text("sees: receptive field in input pixels; step: how far it moves from one unit to the next")
    print_text("bars: share of all parameters, of all multiply-adds")
    for remark in explanation.remarks:
        print_text(f"note: {remark}")


def _print_layers_as_table(explanation: Explanation) -> None:
    table = new_table(
        "address",
        "layer",
        "output",
        "parameters",
        "multiply-adds",
        "sees",
        "step",
        right=("parameters", "multiply-adds", "step"),
    )
    for row, (address, layer, output, formula, parameters, products, sees, step) in explanation.lines():
        indent = " " * (2 * row.depth + 2)
        under = [indent + text for text in (formula, padding_in_words(row.node)) if text]
        bars = [_share_bar(share) if share else "" for share in explanation.shares(row)]
        table.add_row(
            _styled(address, "dim"),
            _styled(layer, _colour(row), *under),
            _styled(output),
            _styled(parameters, "", bars[0]),
            _styled(products, "", bars[1]),
            _styled(sees),
            _styled(step),
        )
    print_table(table)


def _print_layers_as_blocks(explanation: Explanation) -> None:
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for row, (address, layer, output, formula, parameters, products, sees, step) in explanation.lines():
        under = [text for text in (formula, padding_in_words(row.node)) if text]
        costs = [
            f"{number} {name} {_share_bar(share)}"
            for number, name, share in zip(
                (parameters, products), ("parameters", "multiply-adds"), explanation.shares(row), strict=True
            )
            if share
        ]
        under += ["  ".join(costs)] if costs else []
        under.append(f"gives {output}, sees {sees}, step {step}")
        table.add_row(_styled(address.strip(), "dim"), _styled(layer.strip(), _colour(row), *under))
    print_table(table)


def _colour(row: Row) -> str:
    return _COLOURS.get(row.node.layer.name, "yellow")


def _styled(text: str, style: str = "", *under: str) -> Text:
    """A cell: its first line in a style, what stands under it dim."""
    from rich.text import Text

    encoding = sys.stdout.encoding if sys.stdout else None
    cell = Text().append(showable(text, encoding), style)
    for line in under:
        if line:
            cell.append("\n" + showable(line, encoding), "dim")
    return cell


def _share_bar(share: float, width: int = 6) -> str:
    """A share 0..1 as a bar and a percentage."""
    filled = round(share * width)
    return f"{'█' * filled}{'░' * (width - filled)} {100 * share:.0f} %"


def quarantine_reasons(dataset: Dataset) -> str:
    """The most frequent reasons, and where all of them stand."""
    if not dataset.num_quarantined:
        return ""
    lines = read_lines(dataset.folder / "samples.jsonl")
    reasons = Counter(line.get("reason") for line in lines if line.get("status") == "quarantined")
    listed = "; ".join(f"{n}× {shown(reason)}" for reason, n in reasons.most_common(3))
    return f" ({listed}; all in {dataset.folder / 'samples.jsonl'})"


def check_new_file(path: str | None, option: str, suffixes: tuple[str, ...] = ()) -> None:
    """Raises UsageError unless a new file may be made where an option says. None passes."""
    if path is None:
        return
    if not path:
        raise UsageError(f"{option} needs the name of a file")
    files.check_new_file(Path(path), suffixes, option)


def free_name(stem: str, suffix: str) -> str:
    """The first of STEM.png, STEM-2.png … that is not there, in this folder."""
    stem = shown(stem, 60).replace("/", "-").replace("\\", "-")
    names = (f"{stem}{number}{suffix}" for number in ("", *(f"-{n}" for n in range(2, 100_000))))
    return next(name for name in names if not os.path.lexists(name))


def write_csv(path: str, predictions: list[Prediction], top: int) -> None:
    """Write path, labels and probabilities as CSV, durably. Raises StorageError."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    num_columns = min(top, max((len(p.top) for p in predictions), default=1))
    writer.writerow(["path", *(f"{part}{i + 1}" for i in range(num_columns) for part in ("label", "probability"))])
    for p in predictions:
        writer.writerow([shown(p.path, 10_000), *(v for pair in p.top for v in (pair[0], f"{pair[1]:.6f}"))])
    write_text(Path(path), text.getvalue())


def print_predictions(predictions: list[Prediction]) -> None:
    """A row a picture."""
    table = new_table("picture", "label", "likeliest")
    for p in predictions:
        likeliest = "  ".join(f"{label} {100 * probability:.1f} %" for label, probability in p.top)
        add_row(table, shown(p.path, 200), shown(p.label), likeliest)
    print_table(table)


def print_runs(found: list[Run]) -> None:
    """A row a run."""
    table = new_table("run", "status", "seed", "trained", "val", "test", "plan")
    for run in found:
        record = run.record
        plan = _plan_name(record)
        scores = [f"{100 * s.accuracy:.2f} %" if s else "–" for s in (run.val, run.test)]
        trained = f"{record['train_s']:.1f} s"
        add_row(table, shown(run.path, 60), run.status, str(record["seed"]), trained, *scores, plan)
    print_table(table)


def _plan_name(record: dict[str, Any]) -> str:
    """A preset's name with what was changed in it, or the start of a sentence of one's own."""
    from convlens.presets import PRESETS

    for preset in PRESETS.values():
        if preset.architecture == record["architecture"]:
            then = preset.recipe.to_json() | {"precision": record["recipe"].get("precision")}
            changed = [f"{k}={v}" for k, v in record["recipe"].items() if then.get(k) != v]
            return " ".join([preset.name, *changed])
    return shown(record["architecture"], 40)


def print_dataset(dataset: Dataset) -> None:
    """What was packed, and what of it could not be read."""
    spec, counts = dataset.input_spec, dataset.counts
    rows = [
        ("packed", str(dataset.folder)),
        ("images", f"{spec.height}×{spec.width}×{spec.channels}, framing {spec.framing}"),
        ("classes", f"{len(dataset.class_names)}: {shown(', '.join(dataset.class_names), 60)}"),
        ("train", f"{counts['train']:,}"),
        ("validation", f"{counts['val']:,}"),
        ("test", f"{counts['test']:,} (sealed)"),
        ("quarantined", f"{dataset.num_quarantined:,}" + quarantine_reasons(dataset)),
        ("fingerprint", dataset.fingerprint[:16]),
    ]
    print_rows([*rows, *(("note", note) for note in dataset.notes)])
