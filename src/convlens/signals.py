"""Ctrl-C and SIGTERM, for the command line alone: end well, and clean up what is half made.

Library code never touches signal handlers; it is asked to end through `train(stop=…)`.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopping:
    """Remembers the first signal that asks for an end; a second one, or one before the first step, ends at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.in_loop = False

    def asked(self) -> bool:
        """Whether an end was asked for. From the first call on, there is a training to end well."""
        self.in_loop = True
        return self.signal is not None

    def handle(self, number: int, frame: object) -> None:
        """The handler."""
        if not self.in_loop:  # packing, say: there is no step to finish, and half-made folders clean themselves up
            raise SystemExit(128 + number)
        self.signal = number
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
        # os.write, since a handler may interrupt a print that is under way.
        os.write(2, b"\nending: the step is finished and the run saved (once more: end at once)\n")


@contextmanager
def stopping_signals() -> Iterator[Stopping]:
    """Within it, SIGINT and SIGTERM ask for an end of the training."""
    stopping = Stopping()
    named = ("SIGINT", "SIGTERM", "SIGBREAK")  # the last is Windows'
    numbers = [number for name in named if (number := getattr(signal, name, None)) is not None]
    before = {number: signal.signal(number, stopping.handle) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def clean_up_on_sigterm() -> None:
    """Let SIGTERM raise SystemExit(143), so that half-made files and folders are removed on the way out."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
