"""The processes that share one training, as torchrun starts them: who they are, how they speak, how they end.

Owns joining and leaving torch.distributed, and one rule: rank 0, the leader, does what a single process does, and has
the others (the followers) do parts of it by orders, each a small JSON document in the store that torchrun keeps. They
wait for orders as long as the leader lives; what they do together has a timeout. Which parts those are is
`training/follow.py`'s and `forward.py`'s business.
"""

import json
import os
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convlens.errors import ConvlensError, ProcessError
from convlens.launched import num_processes
from convlens.records import Name, Record, parsed
from convlens.signals import asked_to_end
from convlens.text import shown

dist: Any = torch.distributed  # whose stubs do not have the half of it
TIMEOUT_S = 120.0
_TIMEOUT_VARIABLE = "CONVLENS_TIMEOUT_S"
_GONE_S = 5.0  # without a sign of the leader, after which an end that was asked for is not left to it
_TOLD_S = 5.0  # that the others have to say why they ended, before one that says nothing is called lost
_KEPT_ORDERS = 100
_OF_A_CONNECTION = ("gloo", "nccl", "connection", "timed out", "socket", "peer")
_DTYPES = ("uint8", "uint16", "int64", "float32")  # of the arrays that are sent
_MOST_AXES = 4


class Order(Record, frozen=True):
    """What the followers are to do, and what they must know for it."""

    do: Name
    facts: dict[str, Any]


class Processes:
    """One of the processes of a training: its `rank` (0 leads) among `size`; alone, it is the only one."""

    rank = 0
    size = 1
    local_rank = 0
    restarts = 0
    host = f"{socket.gethostname()}, process {os.getpid()}"
    last: Order | None = None  # the leader's word that this is the end
    result: dict[str, Any] | None = None  # of the whole, which the leader tells the followers with it

    @property
    def leads(self) -> bool:
        """Whether there are others, and this one tells them what to do."""
        return self.size > 1 and self.rank == 0

    @property
    def follows(self) -> bool:
        """Whether another one tells this one what to do."""
        return self.rank > 0

    def order(self, do: str, **facts: Any) -> None:
        """Have the followers do something."""

    def ask(self, do: str, **facts: Any) -> list[dict[str, Any]]:
        """Have the followers do something, and wait for what each of them answers. Raises ProcessError where one is
        lost."""
        return []

    def orders(self) -> Iterator[Order]:
        """What the leader has this process do, until it says that this is the end. Raises ProcessError where it is
        lost, or ends by an error."""
        return iter(())

    def answer(self, **facts: Any) -> None:
        """Say to the leader what it asked with its last order."""

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Copy the leader's tensors into everybody's."""

    def sum(self, tensor: Tensor) -> None:
        """Add up everybody's tensor, in its place."""

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """Everybody's tensor, by rank."""
        return [tensor]

    def send_array(self, array: NDArray[Any], rank: int) -> None:
        """Send an array to another process, which waits for one."""

    def receive_array(self, rank: int) -> NDArray[Any]:
        """The array that another process sends."""
        raise AssertionError("there is no other process")

    def keep(self, key: str, value: str) -> None:
        """Keep something over restarts."""

    def kept(self, key: str) -> str | None:
        """What was kept before a restart."""
        return None


ALONE = Processes()


class _Joined(Processes):
    """One of several processes, between joining and leaving."""

    def __init__(self, number: int) -> None:
        where = _environment()
        self.rank, self.size, self.local_rank = int(where["RANK"]), int(where["WORLD_SIZE"]), int(where["LOCAL_RANK"])
        self.restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        self.timeout = timedelta(seconds=timeout_s())
        self._address = where["MASTER_ADDR"], int(where["MASTER_PORT"])
        self._number, self._num_orders, self._ended = number, 0, threading.Event()
        try:
            self._plain = self._store(is_first=True)
            self._kept, self.store = self._plain, dist.PrefixStore(f"convlens/{self.restarts}/{number}", self._plain)
            self.store.set(f"host/{self.rank}", self.host)
            if has_cuda := torch.cuda.is_available():
                torch.cuda.set_device(self.local_rank % torch.cuda.device_count())
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if has_cuda else "gloo",
                store=dist.PrefixStore("group", self.store),
                rank=self.rank,
                world_size=self.size,
                timeout=self.timeout,
            )
        except (RuntimeError, OSError) as error:
            raise ProcessError(
                f"rank {self.rank} of {self.size} waited {self.timeout.total_seconds():g} s for the others at "
                f"{self._address[0]}:{self._address[1]} ({_first_line(error)}): start as many processes "
                "as were announced"
            ) from error
        threading.Thread(target=self._beat, name="heart", daemon=True).start()

    def _store(self, *, is_first: bool) -> Any:
        has_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        is_server = is_first and not has_agent and self.rank == 0 and self._number == 0
        return dist.TCPStore(
            *self._address, self.size, is_master=is_server, timeout=self.timeout, wait_for_workers=False
        )

    # ------------------------------------------------------------ who is alive

    def _beat(self) -> None:
        """Say, over a connection of its own, that this process lives: a store does one thing at a time."""
        with suppress(RuntimeError, OSError):
            store = dist.PrefixStore(f"convlens/{self.restarts}/{self._number}", self._store(is_first=False))
            for beat in count():
                store.set(f"alive/{self.rank}", str(beat))
                if self._ended.wait(min(1.0, self.timeout.total_seconds() / 4)):
                    return

    def _awaited(self, key: str, rank: int) -> bytes:
        """What another process sets under a key; however long it takes, as long as that process lives. Raises
        ProcessError."""
        beat, waited = b"", 0
        while True:
            if self._is_set(key, 1.0):
                found: bytes = self.store.get(key)
                return found
            if self.store.check([f"left/{rank}"]):
                raise ProcessError(self._why(rank))
            now = self.store.get(f"alive/{rank}") if self.store.check([f"alive/{rank}"]) else b""
            beat, waited = now, waited + 1 if now == beat else 0
            asked = asked_to_end()
            if waited > (_GONE_S if asked else self.timeout.total_seconds()):
                raise ProcessError(
                    f"{self._named(rank)} was lost: no sign of it for {waited} s", is_told=signal.SIGINT in asked
                )

    def _is_set(self, key: str, seconds: float) -> bool:
        try:
            self.store.wait([key], timedelta(seconds=seconds))
        except dist.DistStoreError:
            return False
        return True

    @contextmanager
    def noticing(self) -> Iterator[None]:
        """Within it, what torch says where another process is gone, or keeps the others waiting longer than the
        timeout, is a ProcessError that names it."""
        try:
            yield
        except RuntimeError as error:
            words = str(error).lower()
            if isinstance(error, dist.DistError) or any(part in words for part in _OF_A_CONNECTION):
                raise self._lost(error) from error
            raise

    def _lost(self, error: Exception) -> ProcessError:
        """Who is gone: whoever has said so, else whoever says nothing while all others tell that they noticed."""
        with suppress(RuntimeError, OSError):
            self.store.set(f"noticed/{self.rank}", "")
            others = [rank for rank in range(self.size) if rank != self.rank]
            for rank in others:
                if self.store.check([f"left/{rank}"]):
                    return ProcessError(self._why(rank))
            for rank in others:
                if not self._is_set(f"noticed/{rank}", _TOLD_S):
                    left = self.store.check([f"left/{rank}"])
                    return ProcessError(self._why(rank) if left else f"{self._named(rank)} was lost")
        return ProcessError(f"another of the {self.size} processes was lost ({_first_line(error)})")

    def _named(self, rank: int) -> str:
        host = self.store.get(f"host/{rank}").decode() if self.store.check([f"host/{rank}"]) else "it never came"
        return f"rank {rank} of {self.size} ({shown(host, 100)})"

    def _why(self, rank: int) -> str:
        return f"{self._named(rank)} ended: {shown(self.store.get(f'left/{rank}').decode('utf-8', 'replace'), 300)}"

    # ------------------------------------------------------------ orders

    def order(self, do: str, **facts: Any) -> None:
        self.store.set(f"order/{self._num_orders}", json.dumps({"do": do, "facts": facts}))
        if (old := self._num_orders - _KEPT_ORDERS) >= 0:
            self.store.delete_key(f"order/{old}")
        self._num_orders += 1

    def ask(self, do: str, **facts: Any) -> list[dict[str, Any]]:
        number = self._num_orders
        self.order(do, **facts)
        answers = [
            parsed(self._awaited(f"answer/{number}/{rank}", rank), Order, f"the answer of rank {rank}")
            for rank in range(1, self.size)
        ]
        return [one.facts for one in answers]

    def orders(self) -> Iterator[Order]:
        while self.last is None:
            order = parsed(self._awaited(f"order/{self._num_orders}", 0), Order, "what rank 0 ordered")
            self._num_orders += 1
            if order.do == "end":
                self.last = order
                if error := order.facts.get("error"):
                    raise ProcessError(f"rank 0 ended: {error}", is_told=True)
                return
            yield order

    def answer(self, **facts: Any) -> None:
        self.store.set(f"answer/{self._num_orders - 1}/{self.rank}", json.dumps({"do": "answer", "facts": facts}))

    # ------------------------------------------------------------ tensors and arrays

    def share(self, tensors: Iterable[Tensor]) -> None:
        with torch.no_grad():
            for tensor in tensors:
                whole = tensor.detach().contiguous()
                dist.broadcast(whole, 0)
                if self.rank:
                    tensor.copy_(whole)

    def sum(self, tensor: Tensor) -> None:
        dist.all_reduce(tensor)

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(found, tensor)
        return found

    def send_array(self, array: NDArray[Any], rank: int) -> None:
        plain = np.ascontiguousarray(array)
        header = np.array([_DTYPES.index(plain.dtype.name), plain.ndim, *plain.shape, *[0] * _MOST_AXES], np.int64)
        dist.send(torch.from_numpy(header[: 2 + _MOST_AXES]), rank)
        dist.send(_bytes_of(plain), rank)

    def receive_array(self, rank: int) -> NDArray[Any]:
        header = np.zeros(2 + _MOST_AXES, np.int64)
        dist.recv(torch.from_numpy(header), rank)
        found = np.empty(header[2 : 2 + header[1]], _DTYPES[header[0]])
        dist.recv(_bytes_of(found), rank)
        return found

    # ------------------------------------------------------------ over restarts

    def keep(self, key: str, value: str) -> None:
        self._kept.set(f"convlens/kept/{key}", value)

    def kept(self, key: str) -> str | None:
        name = f"convlens/kept/{key}"
        return self._kept.get(name).decode() if self._kept.check([name]) else None

    # ------------------------------------------------------------ the end

    def leave(self, error: BaseException | None) -> None:
        """Tell the others, and be alone again."""
        with suppress(RuntimeError, OSError, ConvlensError):
            if error is not None:
                said = str(error) if isinstance(error, ConvlensError) else f"{type(error).__name__}: {error}"
                self.store.set(f"left/{self.rank}", said)
            if self.leads:
                if isinstance(error, ConvlensError) and not isinstance(error, ProcessError):
                    self.keep("error", _first_line(error))
                self.order("end", **(self.result or {}), **({} if error is None else {"error": _first_line(error)}))
        self._ended.set()
        if error is None:  # where one is gone, an orderly end would wait for it
            with suppress(RuntimeError):
                dist.destroy_process_group()
        else:
            with suppress(RuntimeError, AttributeError):
                dist.distributed_c10d._abort_process_group()


def _bytes_of(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array.reshape(-1).view(np.uint8))


def _first_line(error: BaseException) -> str:
    return shown(str(error).partition("\n")[0], 300) or type(error).__name__  # KeyboardInterrupt says nothing


def timeout_s() -> float:
    """Seconds that the processes wait for one another in what they do together."""
    text = os.environ.get(_TIMEOUT_VARIABLE, "")
    with suppress(ValueError):
        if 1 <= float(text or TIMEOUT_S) <= 86_400:
            return float(text or TIMEOUT_S)
    raise ProcessError(f"{_TIMEOUT_VARIABLE} must be seconds, from 1 to 86400, not {shown(text)!r}")


def _environment() -> dict[str, str]:
    """What torchrun, or whoever starts processes in its way, puts there."""
    found = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
    if missing := [name for name, value in found.items() if not value]:
        raise ProcessError(
            f"WORLD_SIZE={found['WORLD_SIZE']} announces {num_processes()} processes, but {missing[0]} is "
            "not set: start them with torchrun (or `processes`), or unset WORLD_SIZE"
        )
    return found | {"LOCAL_RANK": os.environ.get("LOCAL_RANK", found["RANK"])}


# torch.distributed belongs to the whole process, and so does this.
class _Place:
    current: Processes = ALONE
    joinings = count()


def current() -> Processes:
    """The processes that this one shares a training with at the moment."""
    return _Place.current


@contextmanager
def joined() -> Iterator[Processes]:
    """Within it, the processes that torchrun started together are one group; a process of its own is `ALONE`. Raises
    ProcessError where the others do not come."""
    if num_processes() == 1 or _Place.current is not ALONE:
        yield _Place.current
        return
    group = _Place.current = _Joined(next(_Place.joinings))
    error: BaseException | None = None
    try:
        if group.restarts and (why := group.kept("error")):  # which no restart changes
            raise ProcessError(f"not begun again: {why}", is_told=True)
        with group.noticing():
            yield group
    except BaseException as raised:
        error = raised
        raise
    finally:
        _Place.current = ALONE
        group.leave(error)
