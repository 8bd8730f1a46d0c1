"""Texts, tables and JSON on standard output, from plain rows.

Owns the look of results in a terminal, and what a console that lacks a character gets in its place.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from convlens.signals import give_up_stdout, is_lost
from convlens.text import one_line, printable

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

# What a console that cannot show a character gets in its place.
_PLAIN = str.maketrans(
    dict(zip("×·−–—…⌋⌉█░’“”─", ["x", "*", "-", "-", "-", "...", ")", ")", "#", ".", "'", '"', '"', "-"], strict=True))
    | {"±": "+-", "⌊": "floor(", "⌈": "ceil(", "→": "->", "≥": ">=", "≤": "<="}
)


def showable(text: str, encoding: str | None) -> str:
    """`text` in characters that the stream's encoding has, none of which steers a terminal."""
    return _encodable(printable(text), encoding)


def _encodable(text: str, encoding: str | None) -> str:
    try:
        text.encode(encoding or "ascii")
        return text
    except (UnicodeEncodeError, LookupError):
        return text.translate(_PLAIN).encode(encoding or "ascii", "backslashreplace").decode(encoding or "ascii")


def print_text(text: str) -> None:
    """Print a result on standard output."""
    _write(printable(text))


def _write(text: str) -> None:
    """Print what is printable already, and may have colours of ours."""
    if sys.stdout is None:  # closed by whoever started us
        return
    try:
        print(_encodable(text, sys.stdout.encoding), flush=True)
    except OSError as error:
        if not is_lost(error):
            raise
        give_up_stdout()  # `| head` has seen enough, or the terminal is gone: what is computed stays


def print_json(value: object, indent: int | None = 2) -> None:
    """Print one JSON document on standard output; on one line without `indent`."""
    # ASCII: readable by everything, in every console's encoding.
    print_text(json.dumps(value, indent=indent, ensure_ascii=True, allow_nan=False))


def print_rows(rows: list[tuple[str, str]]) -> None:
    """What and value, a line each, the values under one another."""
    width = max(len(what) for what, _ in rows)
    for what, value in rows:
        print_text(f"{what:<{width}}  {one_line(value)}")


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

    return Text(showable(one_line(text), sys.stdout.encoding if sys.stdout else None))


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
    _write("\n".join(line.rstrip() for line in page.getvalue().split("\n")[:-1]))


def print_styled(text: str, style: str, rest: str) -> None:
    """Print a line of which the start stands out, folded as wide as the terminal."""
    from rich.console import Console
    from rich.text import Text

    written = io.StringIO()
    encoding = sys.stdout.encoding if sys.stdout else None
    line = Text().append(showable(text, encoding), style).append(showable(rest, encoding))
    Console(file=written, force_terminal=is_terminal(), width=terminal_width()).print(line)
    _write("\n".join(part.rstrip() for part in written.getvalue().split("\n")[:-1]))


def styled(text: str, style: str = "", *under: str) -> Text:
    """A cell: its first line in a style, what stands under it dim."""
    from rich.text import Text

    encoding = sys.stdout.encoding if sys.stdout else None
    cell = Text().append(showable(one_line(text), encoding), style)
    for line in under:
        if line:
            cell.append("\n" + showable(one_line(line), encoding), "dim")
    return cell


def share_bar(share: float, width: int = 6) -> str:
    """A share 0..1 as a bar and a percentage."""
    filled = round(share * width)
    return f"{'█' * filled}{'░' * (width - filled)} {100 * share:.0f} %"
