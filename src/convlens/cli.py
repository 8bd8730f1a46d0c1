"""The command line: each command is one public function, with the same parameter names.

Owns texts, flags, tables, exit codes and signals. Nothing heavy is imported before a command runs, so that
`convlens --help` is immediate. Results go to standard output, everything else to standard error; `--json` prints
exactly one JSON document. Exit codes: 0 done, 1 (check) a score on the
data would be wrong, 2 bad input (one line says what), 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.
"""

import re
import signal
import sys
from contextlib import suppress
from typing import Annotated, Any

import typer

from convlens.commands import terminal
from convlens.commands.adopt import adopt
from convlens.commands.check import check
from convlens.commands.compare import compare
from convlens.commands.evaluate import evaluate
from convlens.commands.explain import explain
from convlens.commands.export import export
from convlens.commands.launching import LaunchAsked, launch
from convlens.commands.look import look
from convlens.commands.pack import pack
from convlens.commands.predict import predict
from convlens.commands.review import review
from convlens.commands.runs import runs
from convlens.commands.serve import serve
from convlens.commands.train import train
from convlens.commands.verify import verify
from convlens.errors import ConvlensError, ProcessError, StorageError, UsageError
from convlens.launched import is_follower, num_processes
from convlens.render import tables
from convlens.signals import (
    clean_up_on_ending,
    end_by_default,
    give_up_stdout,
    is_lost,
    leave_to_leader,
    was_interrupted,
)
from convlens.text import nearest, shown

app = typer.Typer(
    name="convlens",
    help="Train, honestly evaluate, look inside and ship small convolutional image classifiers.",
    epilog="Start with: convlens train   (MNIST ships with convlens; half a minute on two cores). "
    "What the words mean: docs/glossary.md",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        tables.print_text(f"convlens {version('convlens')}")
        raise typer.Exit


_BEGIN = """Train, honestly evaluate, look inside and ship small convolutional image classifiers. Three ways to begin:

  convlens train               the digits that come with it (MNIST): half a minute, 99.6 % right
  convlens train MY-FOLDER     your own pictures: a folder for each class (before that: convlens check MY-FOLDER)
  convlens serve --open        look inside what was trained, on your own drawing, in the browser

convlens --help lists every command."""


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        tables.print_text(_BEGIN)


for _command in (
    train,
    evaluate,
    compare,
    predict,
    explain,
    look,
    serve,
    export,
    check,
    review,
    verify,
    pack,
    adopt,
    runs,
):
    app.command()(_command)


# ---------------------------------------------------------------- entry


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code. One line for whatever is wrong with the input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        clean_up_on_ending()
        _refuse_repeated(arguments)
        code = _run(arguments)
        return int(code) if isinstance(code, int) else 0
    except ConvlensError as error:
        if isinstance(error, ProcessError) and error.is_told:
            return 0 if is_follower() else 2  # the exit code, too, is rank 0's to give
        return _complain(_in_typed_words(terminal.as_typed(str(error)), arguments))
    except (typer.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT
    except SystemExit as end:  # a help text that was not read to its end: the library of this command line says 1
        if isinstance(end.__context__, OSError) and is_lost(end.__context__):
            give_up_stdout()
            return 0
        raise
    except MemoryError:
        return _complain("out of memory: try smaller images, a smaller network or fewer of them at a time")
    except OSError as error:
        if error.filename is None and is_lost(error):  # of a help text, say
            give_up_stdout()
            return 0
        return _complain(str(StorageError(f"{shown(error.filename or 'the output', 200)}: {error.strerror or error}")))
    except Exception as error:
        if was_interrupted():
            return 128 + signal.SIGINT
        message = getattr(error, "format_message", None)  # what the library of this command line says of its input
        if message is None:
            raise
        if not arguments:  # no command: its help, which has been asked for without being named
            tables.print_text(str(getattr(error, "message", "")))
            return 2
        return _complain(_in_typed_words(" ".join(str(message()).split()), arguments))


def _run(arguments: list[str]) -> Any:
    """Run the command; of several processes that were started together, the first does and the others help it."""
    if num_processes() == 1:
        try:
            return app(arguments, standalone_mode=False)
        except LaunchAsked as asked:
            return launch(arguments, asked.processes, asked.max_restarts)
    if is_follower():
        end_by_default()  # while it waits for the others, it has nothing to clean up, and no Python runs
    from convlens.network.processes import joined

    with joined() as processes:
        if processes.follows:
            leave_to_leader()
        if not processes.follows or arguments[:1] == ["train"]:  # which needs to know its data
            return app(arguments, standalone_mode=False)
        from convlens.training.follow import follow

        return follow(processes) and None


def _options_of(arguments: list[str]) -> list[Any]:
    """The options of the command that is asked for, as the library of this command line has them."""
    command = getattr(typer.main.get_command(app), "commands", {}).get(arguments[0] if arguments else "")
    return [] if command is None else [one for one in command.params if one.opts[0].startswith("--")]


def _refuse_repeated(arguments: list[str]) -> None:
    """Raises UsageError where a list stands twice: the later of two values counts, as everywhere, and who gives two
    lists means both."""
    typed = [argument.partition("=")[0] for argument in arguments]
    for option in _options_of(arguments):
        if option.opts[0] in ("--exclude", "--labels") and not option.is_flag and typed.count(option.opts[0]) > 1:
            raise UsageError(f"{option.opts[0]} stands twice: put both lists into one file")


_NO_NUMBER = re.compile(r"Invalid value for '(--[a-z-]+)'.*: Input should be a valid (number|integer)")
_NO_OPTION = re.compile(r"No such option: --([a-z-]+)")
_NAMED = re.compile(r"(?:unknown (?=[a-z_]+ ')|(?=[a-z_]+ must be ))([a-z_]+)")


def _in_typed_words(message: str, arguments: list[str]) -> str:
    """An error in the words of this command line: options as they are typed, and the value that is no number."""
    options = {one.name: one.opts[0] for one in _options_of(arguments)}
    if found := _NO_NUMBER.match(message):
        option, kind = found.groups()
        words = [word for argument in arguments for word in argument.split("=", 1)]
        value = words[words.index(option) + 1] if option in words[:-1] else ""
        return f"{option} takes a {'whole number' if kind == 'integer' else kind}, not {shown(value)!r}"
    if (found := _NO_OPTION.match(message)) and "(" not in message:
        near = nearest(found[1].replace("-", "_"), options)
        return message if near is None else f"{message} (did you mean {options[near]}?)"
    if found := _NAMED.match(message):
        return message[: found.start(1)] + str(options.get(found[1], found[1])) + message[found.end() :]
    return message


def _complain(message: str) -> int:
    with suppress(OSError, ValueError, AttributeError):  # nobody listens
        print(tables.showable(f"convlens: {message}", sys.stderr.encoding), file=sys.stderr, flush=True)
    return 2
