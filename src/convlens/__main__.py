"""The console script, and `python -m convlens`.

Owns the first and the last instruction: Ctrl-C is one line in between, whatever is being imported.
"""

import sys

from convlens.signals import interrupt_at_once, open_streams


def entry() -> None:
    """Run the command line and exit with its code."""
    interrupt_at_once()
    open_streams()
    from convlens.cli import main

    code = main()
    interrupt_at_once()
    sys.exit(code)


if __name__ == "__main__":
    entry()
