"""Where and how the compute is done: device, precision, threads, memory format, compilation, determinism.

Owns their choice, in this one place; the choice is printed, stored in the run and used again on resuming. The
automatic choices are those that bench/ceilings.py measured to be fastest for small networks (docs/speed.md).
"""

import ctypes
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import Any, Self

import numpy as np
import torch

from convlens.checks import checked, choice, whole
from convlens.errors import DeviceError
from convlens.text import counted, did_you_mean, shown

DEVICES = ("auto", "cpu", "cuda", "mps")
# Measured with two threads: 1.08 to 1.85 times as fast, small networks least (docs/decisions.md).
_TOGETHER_S, _EFFICIENCY = 1e-4, 0.9
_WORTH_IT = 1.2  # times as fast, for fewer digits
MEMORY_FORMATS = ("channels_last", "contiguous")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _KEPT_BYTES = -1, -3, 1 << 30  # of glibc's mallopt


@dataclass(frozen=True)
class Compute:
    """Resolved: device ("cpu", "cuda:0", "mps"), precision (float32 or bfloat16), CPU threads of a process, memory
    format (channels_last or contiguous), and processes that share a training."""

    device: str
    precision: str
    threads: int
    memory_format: str = MEMORY_FORMATS[0]
    processes: int = 1

    def __str__(self) -> str:
        threads = [counted(self.threads, "thread")] if self.device == "cpu" else []
        threads = [f"{self.processes} processes", *threads] if self.processes > 1 else threads
        return ", ".join([self.device, self.precision, *threads, self.memory_format.replace("_", " ")])

    def to_json(self) -> dict[str, Any]:
        """As stored in runs and model files; one process is not said."""
        return {name: value for name, value in asdict(self).items() if name != "processes" or value > 1}

    @property
    def for_timing(self) -> Self:
        """How work is timed so that a busy machine changes nothing: on a CPU in one thread, by `clock`."""
        return replace(self, threads=1) if self.device == "cpu" else self

    def clock(self) -> float:
        """Seconds so far: of one CPU thread those that it was given, which hardly depend on what else the machine does;
        else those that went by."""
        is_one = self.device == "cpu" and self.threads == 1 and os.name != "nt"  # whose ticks are 16 ms there
        return time.thread_time() if is_one else time.perf_counter()

    def all_threads_s(self, seconds: float, num_operations: int) -> float:
        """What work that takes so many seconds in one thread takes with these threads, on a machine that does nothing
        else: each of its operations lets them begin and end together."""
        if self.device != "cpu" or self.threads == 1:
            return seconds
        return float(seconds / self.threads**_EFFICIENCY + _TOGETHER_S * num_operations)

    @property
    def notes(self) -> list[str]:
        """What a person should know of these choices."""
        found = []
        if self.precision == "bfloat16" and not has_fast_bfloat16(self.device):
            found.append(f"bfloat16 is slower than float32 on this machine's {self.device.partition(':')[0]}")
        if self.device.startswith("cuda") and self.processes == 1 and (num := torch.cuda.device_count()) > 1:
            found.append(f"{num} GPUs are here and one of them works: `processes={num}` has all of them share it")
        return found


def resolve_compute(
    device: str | None = None, precision: str = "auto", threads: int | None = None, memory_format: str | None = None
) -> Compute:
    """Turn what was asked for into what is there.

    Automatic: the best device there, bfloat16 where it is faster, torch's number of threads, channels_last.
    Raises DeviceError for a device that is not there, UsageError for odd threads or memory formats.
    """
    if threads is not None:
        checked("threads", threads, whole(1, 1024))
    if memory_format is not None:
        checked("memory_format", memory_format, choice(MEMORY_FORMATS))
    found = resolve_device("auto" if device is None else device)
    if precision == "auto":
        precision = "bfloat16" if has_fast_bfloat16(found) else "float32"
    return Compute(found, precision, threads or torch.get_num_threads(), memory_format or MEMORY_FORMATS[0])


def resolve_device(device: str) -> str:
    """A device that is there. Raises DeviceError."""
    kind, _, number = str(device).partition(":")
    if kind not in DEVICES or (number and (kind != "cuda" or not (number.isascii() and number.isdigit()))):
        raise DeviceError(
            f"unknown device {shown(device)!r}{did_you_mean(device, DEVICES)}: there are {', '.join(DEVICES)}"
        )
    num_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    if kind == "auto":
        return "cuda:0" if num_cuda else "mps" if has_mps else "cpu"
    if kind == "cuda" and int(number or 0) >= num_cuda:
        there = f"this machine has {counted(num_cuda, 'CUDA device')}" if num_cuda else "no CUDA device is here"
        raise DeviceError(f"device {device!r}: {there}; use `device=cpu` or auto")
    if kind == "mps" and not has_mps:
        raise DeviceError("device 'mps' is not here; use `device=cpu` or auto")
    return f"cuda:{int(number or 0)}" if kind == "cuda" else kind


def has_fast_bfloat16(device: str) -> bool:
    """Whether the hardware multiplies bfloat16 faster than float32. On a CPU that is measured: some that have the
    instructions need twice the time with them."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device == "cpu" and _bfloat16_gain() >= _WORTH_IT


@cache
def _bfloat16_gain() -> float:
    """How many times as fast a product of matrices is in bfloat16 as in float32; 0 where it would be emulated. In one
    thread and by its CPU time, so that a busy machine gives the same answer: a fiftieth of a second."""
    # torch offers no public question for this; both names exist from 2.4 to 2.13, and absence means float32.
    ask = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    if not any(question() for question in ask if question is not None):
        return 0.0
    threads, one = torch.get_num_threads(), Compute("cpu", "float32", 1)
    torch.set_num_threads(1)
    try:
        seconds = []
        for dtype in (torch.float32, torch.bfloat16):
            matrix, found = torch.ones((512, 512), dtype=dtype), []
            for _ in range(4):
                started = one.clock()
                matrix @ matrix
                found.append(one.clock() - started)
            seconds.append(min(found))
        return seconds[0] / max(seconds[1], 1e-9)
    finally:
        torch.set_num_threads(threads)


@cache
def reuse_freed_memory() -> None:
    """Have the C library keep what tensors free for the tensors that come, for the rest of the process;
    training alone asks for it.

    By itself glibc gives a step's memory back to the system and asks for it anew in the next: up to 2,400 page faults
    a step of a small network, a fifth of its time. Other C libraries have no such dial, and are left alone. Older
    glibcs take no threshold above 32 MB for mapping; what is kept is only said once that is taken.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        if any(libc.mallopt(_M_MMAP_THRESHOLD, threshold) for threshold in (_KEPT_BYTES, 32 << 20)):
            libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


@contextmanager
def settled(compute: Compute) -> Iterator[None]:
    """Within it torch has the compute's threads, deterministic kernels and a random state of its own.

    All of it is as before afterwards: a library must not move its caller's random numbers. On the CPU, whose kernels
    are deterministic, `use_deterministic_algorithms` is not called: it would import torch's compiler.
    """
    threads = torch.get_num_threads()
    deterministic, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    cudnn = torch.backends.cudnn
    filled: Any = torch.utils.deterministic
    fills = filled.fill_uninitialized_memory
    benchmark, tf32, matmul = cudnn.benchmark, cudnn.allow_tf32, torch.get_float32_matmul_precision()
    devices = [compute.device] if compute.device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        try:
            torch.set_num_threads(compute.threads)
            cudnn.benchmark = False
            cudnn.allow_tf32 = False  # float32 means float32
            if matmul != "highest":
                torch.set_float32_matmul_precision("highest")
            if devices:
                # cuBLAS reads it when a process first uses a GPU, and is deterministic only with it.
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
                torch.use_deterministic_algorithms(True, warn_only=True)
                filled.fill_uninitialized_memory = False  # no kernel here reads what none has written
            yield
        finally:
            torch.set_num_threads(threads)
            cudnn.benchmark, cudnn.allow_tf32 = benchmark, tf32
            if matmul != "highest":
                torch.set_float32_matmul_precision(matmul)
            if devices:
                torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
                filled.fill_uninitialized_memory = fills


def versions() -> dict[str, str]:
    """What numbers are made with here."""
    return {"convlens": version("convlens"), "torch": str(torch.__version__), "numpy": np.__version__} | {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": sys.platform,
    }
