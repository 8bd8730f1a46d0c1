"""The console script, and `python -m convlens`.

Owns the first and the last instruction: Ctrl-C is one line in between, whatever is being imported.
"""

# The builtin module under `signal`, which itself imports for milliseconds in which Ctrl-C would be a traceback.
import _signal  # type: ignore[import-not-found]  # typeshed has no stub of it
import os
import sys

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, lambda *_: (os.write(2, b"convlens: interrupted\n"), os._exit(130)))


def entry() -> None:
    """Run the command line and exit with its code."""
    from convlens.launched import quieten
    from convlens.signals import interrupt_at_once, open_streams

    quieten()
    interrupt_at_once()
    open_streams()
    from convlens.cli import main

    code = main()
    interrupt_at_once()
    sys.exit(code)


if __name__ == "__main__":
    entry()
