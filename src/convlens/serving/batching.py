"""Requests put together into batches for one worker, so that a network is asked for many pictures at once.

Owns the bounded queue and when a batch is taken. A batch is whatever came while the one before was worked on; only
where others are just being decoded is it waited for them, for a few milliseconds.
"""

import asyncio
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from convlens.data.image.decode import Pixels
from convlens.data.prefetch import is_small
from convlens.runtime.prediction import Asked, Prediction
from convlens.serving.predictors import Predictor

MAX_BATCH, MAX_WAIT_S = 32, 0.005
_QUICK_PIXELS = 1 << 18
MAX_WAITING = 256  # pictures that are decoded, wait or are worked on


class BusyError(Exception):
    """There are as many pictures as may wait."""


class Answered(NamedTuple):
    """An answer, and the picture as the network takes it."""

    answer: Prediction
    framed: Pixels


@dataclass
class _Waiting:
    """A picture: its bytes, or framed already; what is asked of it, and who waits."""

    picture: bytes | Pixels
    asked: Asked
    future: asyncio.Future[Answered]


def _is_quick(data: bytes) -> bool:
    """Whether a picture is decoded in a moment: few bytes, which of a JPEG are few pixels, too; of a PNG its header
    says so."""
    if not is_small(len(data)):
        return False
    size = int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big")
    return data.startswith(b"\xff\xd8\xff") or (data.startswith(b"\x89PNG") and size <= _QUICK_PIXELS)


class Batcher:
    """Between many requests and one predictor. Small pictures are decoded by the worker, for which handing over would
    cost more than decoding; large ones beside it, one a core."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.num_waiting = self.num_answered = self.num_batches = 0
        self._queue: deque[_Waiting] = deque()
        self._num_decoding = 0
        self._has_some = asyncio.Event()
        self._worker = ThreadPoolExecutor(1, "convlens-network")
        self._decoders = ThreadPoolExecutor(os.cpu_count() or 1, "convlens-decode")
        self._task: asyncio.Task[None] | None = None

    async def answer(self, data: bytes, asked: Asked) -> Answered:
        """The answer to one picture. Raises BusyError, ImageError, ModelFileError."""
        if self.num_waiting >= MAX_WAITING:
            raise BusyError
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        self.num_waiting += 1
        try:
            picture: bytes | Pixels = data
            loop = asyncio.get_running_loop()
            if not _is_quick(data):
                self._num_decoding += 1
                try:
                    picture = await loop.run_in_executor(self._decoders, self.predictor.frame, data)
                finally:
                    self._num_decoding -= 1
            one = _Waiting(picture, asked, loop.create_future())
            self._queue.append(one)
            self._has_some.set()
            return await one.future
        finally:
            self.num_waiting -= 1

    def close(self) -> None:
        """End the threads; what waits is given up."""
        if self._task is not None:
            self._task.cancel()
        self._worker.shutdown(wait=False, cancel_futures=True)
        self._decoders.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._has_some.wait()
            until = loop.time() + MAX_WAIT_S
            while self._num_decoding and len(self._queue) < MAX_BATCH and (left := until - loop.time()) > 0:
                self._has_some.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._has_some.wait(), left)
            batch = [self._queue.popleft() for _ in range(min(MAX_BATCH, len(self._queue)))]
            if not self._queue:
                self._has_some.clear()
            batch = [one for one in batch if not one.future.done()]  # whoever has gone needs no answer
            if not batch:
                continue
            self.num_batches += 1
            self.num_answered += len(batch)
            try:
                found = await loop.run_in_executor(self._worker, self._answers, batch)
            except Exception as error:
                found = [error] * len(batch)
            for one, result in zip(batch, found, strict=True):
                if one.future.done():
                    continue
                if isinstance(result, Exception):
                    one.future.set_exception(result)
                else:
                    one.future.set_result(result)

    def _answers(self, batch: list[_Waiting]) -> list[Answered | Exception]:
        found: dict[int, Answered | Exception] = {}
        framed: dict[int, Pixels] = {}
        for number, one in enumerate(batch):
            try:
                picture = one.picture
                framed[number] = self.predictor.frame(picture) if isinstance(picture, bytes) else picture
            except Exception as error:  # of this one alone: too large for the memory, whatever
                found[number] = error
        for asked in {batch[number].asked for number in framed}:
            numbers = [number for number in framed if batch[number].asked == asked]
            answers = self.predictor.answers([framed[number] for number in numbers], asked)
            for number, answer in zip(numbers, answers, strict=True):
                found[number] = Answered(answer, framed[number])
        return [found[number] for number in range(len(batch))]
