"""The command line: each command is one public function, with the same parameter names.

Owns texts, flags, tables, exit codes and signals. Nothing heavy is imported before a command runs, so that
`convlens --help` is immediate. Results go to standard output, everything else to standard error; `--json` prints
exactly one JSON document. Exit codes: 0 done, 1 (check) a score on the
data would be wrong, 2 bad input (one line says what), 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from typing import Annotated

import typer

from convlens import console
from convlens.commands.checking import check
from convlens.commands.measuring import evaluate, pack, predict, runs, train
from convlens.commands.seeing import explain, look, serve
from convlens.errors import ConvlensError, StorageError
from convlens.signals import clean_up_on_sigterm
from convlens.text import shown

app = typer.Typer(
    name="convlens",
    help="Train, honestly evaluate, look inside and ship small convolutional image classifiers.",
    epilog="Start with: convlens train   (MNIST ships with convlens; half a minute on two cores)",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        console.print_text(f"convlens {version('convlens')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    pass


for _command in (train, evaluate, predict, explain, look, serve, check, pack, runs):
    app.command()(_command)


# ---------------------------------------------------------------- entry


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code. One line for whatever is wrong with the input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    clean_up_on_sigterm()
    click_exception: type[Exception] = typer.BadParameter.__mro__[2]  # click's own, wherever typer keeps it
    try:
        code = app(arguments, standalone_mode=False)
        return int(code) if isinstance(code, int) else 0
    except ConvlensError as error:
        return _complain(str(error))
    except click_exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            console.print_text(str(getattr(error, "message", "")) or str(error))
            return 2
        return _complain(" ".join(_message_of(error).split()))
    except (typer.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT
    except MemoryError:
        return _complain("out of memory: try smaller images, a smaller network or fewer of them at a time")
    except OSError as error:
        return _complain(str(StorageError(f"{shown(error.filename or 'the output', 200)}: {error.strerror or error}")))


def _message_of(error: Exception) -> str:
    message: str = error.format_message() if hasattr(error, "format_message") else str(error)
    return message


def _complain(message: str) -> int:
    with suppress(OSError, ValueError, AttributeError):  # nobody listens
        print(console.showable(f"convlens: {message}", sys.stderr.encoding), file=sys.stderr, flush=True)
    return 2


def entry() -> None:
    """The console script."""
    sys.exit(main())
