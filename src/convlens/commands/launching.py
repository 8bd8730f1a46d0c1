"""`--processes`: the same command again, in several processes of this machine, as torchrun starts them.

Owns the start and the exit code. Which of them does what is `network/processes.py`'s business.
"""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from typing import Any

from convlens.checks import checked, whole
from convlens.commands.terminal import note

_OPTIONS = ("--processes", "--max-restarts")
MAX_PROCESSES = 1024


class LaunchAsked(Exception):  # noqa: N818  # a wish, which the command line grants
    """A command that is to run in several processes."""

    def __init__(self, processes: int, max_restarts: int) -> None:
        super().__init__()
        self.processes, self.max_restarts = processes, max_restarts


def launch(arguments: Sequence[str], processes: int, max_restarts: int) -> int:
    """Run a command in so many processes, which are all started again at most so many times after one of them is lost;
    its exit code. Raises UsageError."""
    num = checked("processes", processes, whole(1, MAX_PROCESSES))
    checked("max_restarts", max_restarts, whole(0, 1_000))
    # Each process would take all cores for itself.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # of processes that ended, which say so themselves
    config: Any = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=max_restarts,
        monitor_interval=0.1,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "convlens", *_without_own(arguments))
    except ChildFailedError as error:
        for rank, failure in error.failures.items():
            if failure.exitcode < 0 and -failure.exitcode != signal.SIGTERM:  # which those get that are left
                note(f"rank {rank} of {num} ended by {signal.Signals(-failure.exitcode).name}")
        first = error.failures.get(0)
        code = first.exitcode if first is not None else 1
        return code if code > 0 else 128 - code
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def _without_own(arguments: Sequence[str]) -> list[str]:
    """The command's words without this module's options and their values."""
    kept: list[str] = []
    is_value = False
    for word in arguments:
        name, equals, _ = word.partition("=")
        if not is_value and name not in _OPTIONS:
            kept.append(word)
        is_value = not is_value and name in _OPTIONS and not equals
    return kept
