"""Work done ahead of its use: pictures read and decoded in threads while others are looked at.

Owns the order (that of the input) and the number in flight. Pillow decodes outside Python's lock.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Event
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

_GROUP = 16  # items a task: handing over one costs as much as decoding a small picture
_SMALL_BYTES = 8_000  # about 100×100 pixels as JPEG
_AHEAD = 512  # items in flight at most, however many threads


def is_small(num_bytes: float) -> bool:
    """Whether files of such a typical size are so small that reading them is all Python's work, which threads only slow
    down."""
    return num_bytes < _SMALL_BYTES


def prefetch(
    function: Callable[[In], Out], items: Iterable[In], *, threads: int | None = None, group_size: int = _GROUP
) -> Iterator[list[Out]]:
    """`function` of each item, in order, in groups; some groups are worked on ahead, in `threads` (one a core).

    An exception comes out where its group would have. Nothing is in flight any more when the iterator ends or is
    closed.
    """
    if threads == 0:
        waiting = iter(items)
        while group := list(islice(waiting, group_size)):
            yield [function(item) for item in group]
        return
    num_threads = min(os.cpu_count() or 1, 16) if threads is None else threads
    num_ahead = min(4 * num_threads, _AHEAD // group_size)
    groups = iter(items)
    flying: deque[Future[list[Out]]] = deque()
    ended = Event()

    def work(group: list[In]) -> list[Out]:
        return [function(item) for item in group if not ended.is_set()]

    with ThreadPoolExecutor(num_threads) as pool:
        try:
            while True:
                while len(flying) < num_ahead and (group := list(islice(groups, group_size))):
                    flying.append(pool.submit(work, group))
                if not flying:
                    return
                yield flying.popleft().result()
        finally:
            ended.set()  # nobody waits for what is still in flight
            pool.shutdown(cancel_futures=True)
