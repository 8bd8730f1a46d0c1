"""Progress as one small object: a bar in terminals, plain lines elsewhere, or nothing.

Owns what is shown while something long goes on. It writes to standard error, so that standard output holds
results alone. Library code never prints otherwise.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

from convlens.checks import checked, choice
from convlens.text import one_line, printable

if TYPE_CHECKING:
    from rich.console import Console

_EVERY_S = 20.0  # between two lines of how far it is
MODES = ("auto", "bar", "lines", "none")


class Progress:
    """Shows nothing: the base, and what library code gets when nobody watches."""

    def start(self, what: str, total: float, unit: str = "") -> None:
        """Begin a job of `total` units, ending the one before."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        """`amount` more units are done; `note` stands at the end of the bar."""

    def line(self, text: str) -> None:
        """Say something that stays."""

    def stop(self) -> None:
        """End the job."""


class Lines(Progress):
    """Plain lines on standard error: what stays, and of what takes long how far it is, now and then. For logs, pipes
    and scripts."""

    def __init__(self) -> None:
        self._what, self._total, self._done, self._begun, self._said = "", 0.0, 0.0, 0.0, 0.0

    def start(self, what: str, total: float, unit: str = "") -> None:
        self._what, self._total, self._done = what, total, 0.0
        self._begun = self._said = time.monotonic()

    def advance(self, amount: float = 1, note: str = "") -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._said < _EVERY_S or not 0 < self._done < self._total:
            return
        self._said = now
        left = (now - self._begun) / self._done * (self._total - self._done)
        about = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
        self.line(f"{one_line(self._what)}: {100 * self._done / self._total:.0f} %, about {about} left")

    def line(self, text: str) -> None:
        with suppress(OSError, ValueError, AttributeError):  # whoever listens may have gone: the work goes on
            encoding = sys.stderr.encoding or "ascii"
            text = printable(text).encode(encoding, "backslashreplace").decode(encoding)
            print(text, file=sys.stderr, flush=True)


class Bar(Progress):
    """A rich progress bar on standard error, with rate and time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Any = None
        self._task: Any = None

    def start(self, what: str, total: float, unit: str = "") -> None:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.stop()
        columns = [
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        ]
        columns += [TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()]
        self._bar = RichProgress(*columns, console=self._console, transient=True, refresh_per_second=4)
        self._bar.start()
        self._task = self._bar.add_task(one_line(what), total=total, note="")

    def advance(self, amount: float = 1, note: str = "") -> None:
        if self._bar is not None:
            self._bar.update(self._task, advance=amount, **({"note": one_line(note)} if note else {}))

    def line(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _Listener(io.TextIOBase):
    """A stream as long as somebody listens there: a terminal that goes away ends no training."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream  # as it is now: while a bar is shown, rich puts a proxy of its own into sys.stderr

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read only
        return self._stream.encoding

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


class NotebookLine(Progress):
    """What is said, and below it one line that updates itself, in a notebook's output cell."""

    def __init__(self) -> None:
        from IPython.display import display

        self._handle: Any = display(  # type: ignore[no-untyped-call, unused-ignore]  # it has no types
            {"text/plain": ""}, raw=True, display_id=True
        )
        self._what, self._total, self._done = "", 0.0, 0.0
        self._said: list[str] = []

    def start(self, what: str, total: float, unit: str = "") -> None:
        self._what, self._total, self._done = what, total, 0.0
        self._show(f"{what} …")

    def advance(self, amount: float = 1, note: str = "") -> None:
        before = int(100 * self._done / max(self._total, 1e-9))
        self._done += amount
        now = int(100 * self._done / max(self._total, 1e-9))
        if now != before:
            self._show(f"{self._what} {now} % {note}")

    def line(self, text: str) -> None:
        self._said.append(text)
        self._show()

    def stop(self) -> None:
        self._show()

    def _show(self, *moving: str) -> None:
        self._handle.update({"text/plain": "\n".join(map(printable, (*self._said, *moving)))}, raw=True)


@contextmanager
def open_progress(mode: str | Progress) -> Iterator[Progress]:
    """The progress object for a mode: "auto", "bar", "lines" or "none"; an object passes through unchanged.

    "auto": a bar in a terminal, one updating line in a notebook, plain lines elsewhere. Raises UsageError.
    """
    if isinstance(mode, Progress):
        yield mode
        return
    progress = _make(checked("progress", mode, choice(MODES)))
    try:
        yield progress
    finally:
        progress.stop()


def _make(mode: str) -> Progress:
    if mode == "lines":
        return Lines()
    if mode == "none":
        return Progress()
    if mode == "auto" and _in_notebook():
        return NotebookLine()
    if mode == "bar" or (sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"):
        from rich.console import Console

        return Bar(Console(file=cast(IO[str], _Listener(sys.stderr))))
    return Lines()


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    # Of a class of their own, which comes from this one, in Colab.
    return shell is not None and any(kind.__name__ == "ZMQInteractiveShell" for kind in type(shell).__mro__)
