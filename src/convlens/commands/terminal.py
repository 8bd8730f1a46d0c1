"""What the commands share: progress, names of files, and the words of this command line.

Owns how a parameter of the library, which stands in backticks in its messages, is written as a flag.
"""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convlens import files
from convlens.errors import UsageError
from convlens.launched import is_follower
from convlens.progress import Lines, Progress, open_progress
from convlens.text import shown

_FLAGS = {"parent": "--from"}  # those that are not called as their parameter is


class _Worded(Progress):
    """Passes everything on, its words as this command line has them."""

    def __init__(self, inner: Progress) -> None:
        self._inner = inner
        self.start, self.advance, self.stop = inner.start, inner.advance, inner.stop  # type: ignore[method-assign]  # as they are

    def line(self, text: str) -> None:
        self._inner.line(as_typed(text))


@contextmanager
def progress() -> Iterator[Progress]:
    """A bar in a terminal, plain lines elsewhere: the command line always says what it does. Nothing from a process
    that follows another, which says it."""
    if is_follower():
        yield Progress()
        return
    mode = "bar" if sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "lines"
    with open_progress(mode) as bar:
        yield _Worded(bar)


def loading(*, to_people: bool = False) -> None:
    """Say what takes the first second or two, where it does; `to_people` alone where programs read the first line, or
    count them."""
    if is_follower():
        return
    if "torch" not in sys.modules and (not to_people or (sys.stderr is not None and sys.stderr.isatty())):
        Lines().line("loading PyTorch")


def note(text: str) -> None:
    """Say something beside a result, on standard error."""
    Lines().line(f"convlens: {as_typed(text)}")


def as_typed(text: str) -> str:
    """A message of the library with its parameters as they are typed here: `val_frac=0.2` becomes --val-frac 0.2."""
    from convlens.recipe import Recipe

    def flag(match: re.Match[str]) -> str:
        name, value = match.group(1), match.group(2)
        if value is not None and re.search(r"[^\w.,:/=@%+-]", value):
            value = shlex.quote(value)
        if name in RECIPE_FLAGS or not hasattr(Recipe, name):
            option = _FLAGS.get(name, "--" + name.replace("_", "-"))
            return option if value is None else f"{option} {value}"
        return f"--set {name}" if value is None else f"--set {name}={value}"

    return re.sub(r"`([a-z_]+)(?:=([^`]*))?`", flag, text)


RECIPE_FLAGS = ("epochs", "batch_size", "shards", "lr", "optimizer", "precision", "balance", "patience", "freeze")


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


def check_new_file(
    path: str | None, option: str, suffixes: tuple[str, ...] = (), *, overwrite: bool | None = None
) -> None:
    """Raises UsageError unless a new file, or with `overwrite` one in the place of another, may be made where an option
    says; None is for commands that replace nothing. A path of None passes."""
    if path is None:
        return
    if not path:
        raise UsageError(f"{option} needs the name of a file")
    hint = "" if overwrite is None else "--overwrite"
    files.check_new_file(Path(path), suffixes, option, replace=bool(overwrite), hint=hint)


def free_name(stem: str, suffix: str) -> str:
    """The first of STEM.png, STEM-2.png … that is not there, in this folder."""
    stem = shown(stem, 60).replace("/", "-").replace("\\", "-")
    names = (f"{stem}{number}{suffix}" for number in ("", *(f"-{n}" for n in range(2, 100_000))))
    return next(name for name in names if not os.path.lexists(name))
