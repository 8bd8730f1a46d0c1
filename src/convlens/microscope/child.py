"""The lab's training: `convlens train` in a process of its own that ends with whoever started it.

    python -m convlens.microscope.child ARGUMENTS OF TRAIN

Owns the watch and the lock. Its standard input is a pipe that the server holds open: when that closes, because the
server wants an end or is gone (killed, its terminal closed), the training is saved and ends. It works on every system.
"""

import os
import runpy
import signal
import sys
import threading
from contextlib import suppress

from convlens import files
from convlens.errors import RunError
from convlens.microscope.lab import BUSY, LOCK, READY


def main() -> None:
    """Train under the folder's lock, and exit as the command line does."""
    sys.argv = ["convlens", "train", *sys.argv[1:]]
    try:
        with files.lock(LOCK, busy=BUSY):
            print(READY, flush=True)
            threading.Thread(target=_end_with_the_pipe, daemon=True).start()
            runpy.run_module("convlens", run_name="__main__")
    except RunError as error:
        sys.exit(f"convlens: {error}")


def _end_with_the_pipe() -> None:
    # Not through sys.stdin, whose lock this thread would hold when the interpreter ends, which then aborts.
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
