"""Signals and standard streams, for the command line alone: end well, and compute the same whoever listens.

Owns what Ctrl-C, SIGTERM and SIGHUP do from the first instruction to the last, and what stands in the place of a
standard stream that is closed. Library code never touches either; it is asked to end through `train(stop=…)`.
"""

import errno
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from convlens.launched import is_follower, num_processes

LOST = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO)  # whoever listened has gone: a pipe, a terminal
_TWICE_S = 2.0
_LED_S = 25.0  # torchrun waits for half a minute
_ENDING = ("SIGTERM", "SIGHUP", "SIGBREAK")  # the last is Windows'


class Stopping:
    """Remembers the first signal that asks for an end; a second one, or one before the first step, ends at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.in_loop = False
        self.asked_at = 0.0

    def asked(self) -> bool:
        """Whether an end was asked for. From the first call on, there is a training to end well."""
        self.in_loop = True
        return self.signal is not None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        now = time.monotonic()
        if self.signal is not None and num_processes() > 1 and now - self.asked_at < _TWICE_S:
            return  # a terminal tells all processes, and then the one that has started them tells them again
        self.asked_at = now
        if not self.in_loop:  # packing, say: there is no step to finish, and half-made folders clean themselves up
            _raise(number, frame)
        if num_processes() == 1:
            signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
        elif self.signal is not None:
            _end_at_once(number, frame)
        self.signal = number
        say("\nending: the step is finished and the run saved (once more: end at once)\n")


@contextmanager
def stopping_signals() -> Iterator[Stopping]:
    """Within it, SIGINT, SIGTERM and SIGHUP ask for an end of the training, unless they are ignored (nohup)."""
    stopping = Stopping()
    if is_follower():
        yield stopping
        return
    numbers = [number for number in (signal.SIGINT, *_ending()) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stopping.handle) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_by_default() -> None:
    """Let the system itself end the process by Ctrl-C, SIGTERM and SIGHUP, whatever it waits in."""
    for number in (signal.SIGINT, *_ending()):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def leave_to_leader() -> None:
    """Let the process that leads end this one; after SIGTERM and SIGHUP, though, only so long, and after any of them
    only if it is there."""

    def noted(number: int, frame: FrameType | None) -> None:
        _asked_to_end.add(number)

    def soon(number: int, frame: FrameType | None) -> None:
        _asked_to_end.add(number)
        timer = threading.Timer(_LED_S, os._exit, (128 + number,))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGINT, noted)
    for number in _ending():
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, soon)


_asked_to_end: set[int] = set()


def asked_to_end() -> frozenset[int]:
    """The signals that asked for an end, which is left to the process that leads."""
    return frozenset(_asked_to_end)


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Within it, Ctrl-C is the ordinary end of what runs: KeyboardInterrupt without a word."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def say(text: str) -> None:
    """Write to standard error from within a handler, which may interrupt a print that is under way."""
    with suppress(OSError):
        os.write(2, text.encode("ascii"))


def clean_up_on_ending() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, and SIGTERM and SIGHUP SystemExit, so that half-made files and folders are
    removed on the way out; what is ignored stays so."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, _raise)
    for number in _ending():
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _raise)


_interrupted = threading.Event()


def was_interrupted() -> bool:
    """Whether Ctrl-C has raised KeyboardInterrupt: what comes of it is the end, in whatever error it was wrapped (a
    class that was being made wraps it, say)."""
    return _interrupted.is_set()


def interrupt_at_once() -> None:
    """Let Ctrl-C end the process in one line, where there is nothing to clean up: before the command begins, and after
    it has ended."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end_at_once)


def _ending() -> list[signal.Signals]:
    return [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]


def _raise(number: int, frame: FrameType | None) -> None:
    if _is_importing(frame):  # an exception in there comes out as another, or ends the process by abort()
        _end_at_once(number, frame)
    if number == signal.SIGINT:
        _interrupted.set()
        if num_processes() == 1:
            interrupt_at_once()  # once more: at once
        else:  # whoever has started the processes tells them once more, and the others have to be told
            signal.signal(signal.SIGINT, lambda *_: None)
        _say_interrupted()
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _end_at_once(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        _say_interrupted()
    os._exit(128 + number)


def _say_interrupted() -> None:
    with suppress(OSError):
        say("\nconvlens: interrupted\n" if os.isatty(2) else "convlens: interrupted\n")  # after the terminal's ^C


def open_streams() -> None:
    """Put the null device in the place of each standard stream that is closed: no file that is opened later may get
    its number, and nothing that is computed may depend on who listens."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, _nowhere(mode))


def is_lost(error: OSError) -> bool:
    """Whether a stream failed because whoever listened has gone, rather than for lack of room."""
    return error.errno in LOST


def give_up_stdout() -> None:
    """Nobody reads standard output any more: what is still printed goes nowhere."""
    sys.stdout = _nowhere("w")


def _nowhere(mode: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.FileIO(os.devnull, mode), encoding="utf-8")
