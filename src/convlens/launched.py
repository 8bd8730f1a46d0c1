"""What torchrun, or whoever starts processes in its way, says in the environment: how many there are, which is this.

Owns reading that, without torch; joining the others is `network/processes.py`'s business.
"""

import os


def num_processes() -> int:
    """How many processes were started together; 1 where this one stands alone."""
    text = os.environ.get("WORLD_SIZE", "1")
    return max(1, int(text)) if text.isascii() and text.isdigit() else 1


def is_follower() -> bool:
    """Whether another one of them, rank 0, leads: it alone writes, and says what there is to say."""
    return num_processes() > 1 and os.environ.get("RANK", "0") != "0"


def quieten() -> None:
    """Have torch's own log tell errors alone, before it is imported: it warns of each second that a process waits."""
    if num_processes() > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
