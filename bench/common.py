"""What every bench says of where it ran: machine, versions, commit, and the machine's own ceilings."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from convlens.choosing.speed import processor
from convlens.network.compute import versions


def surroundings() -> dict[str, Any]:
    """Machine, versions, commit, ceilings: what belongs beside any number."""
    return {
        "machine": {"processor": processor(), "threads": torch.get_num_threads(), "system": platform.system()},
        "versions": versions(),
        "commit": commit(),
        "ceilings": ceilings(),
    }


def tell(figures: dict[str, Any], what: str, path: Path | None) -> None:
    """Print what a bench found, and write it with its surroundings into a file, if one was named."""
    for name, value in figures.items():
        print(f"{name}: {value if not isinstance(value, float) else round(value, 3)}")
    if path is not None:
        path.write_text(json.dumps({**surroundings(), what: figures}, indent=1) + "\n", encoding="utf-8")


def commit() -> str:
    """The commit that is measured, with `+` where files were changed since."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def ceilings() -> dict[str, float]:
    """What this machine can do at best, now: a large matrix product in both precisions (GFLOP/s), a copy (GB/s)."""
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        a, b = torch.randn(2048, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
        seconds = timed(lambda a=a, b=b: a @ b, 15)  # type: ignore[misc]
        found[f"{str(dtype).removeprefix('torch.')}_gflops"] = 2 * 2048**3 / seconds / 1e9
    source, target = torch.zeros(1 << 27, dtype=torch.uint8), torch.zeros(1 << 27, dtype=torch.uint8)
    found["copy_gb_per_s"] = 2 * (1 << 27) / timed(lambda: target.copy_(source), 9) / 1e9
    return found


def timed(function: Callable[[], object], times: int) -> float:
    """Median seconds of a call, after two that are not counted."""
    function(), function()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return median(seconds)
