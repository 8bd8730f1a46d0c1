"""How fast this machine trains: measured in processor time, in coarse steps, once for each work, and remembered.

Owns the only answers of the clock that a choice is made by. What a person gets must not hang on what else the machine
does: one thread is timed, by the time that the system gave it, its fastest step counts, and what all threads make of
that is modelled. What was found is rounded to a step and kept in the state folder, so that the same work is given
the same answer tomorrow.
"""

import math
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from convlens import files
from convlens.choosing.probe import Material
from convlens.errors import ConvlensError, DivergedError
from convlens.network.compute import Compute, versions
from convlens.records import Amount, Name, Record, read_document, write_sealed
from convlens.text import counted
from convlens.training.fit import fit
from convlens.training.plan import TrainingPlan

COARSE, FINE = 4, 32  # steps to a doubling: for a training of the usual length, and for a time that was asked for
_DOCUMENT, _FORMAT, _MOST = "convlens speeds", 1, 2_000
_WARM_UP, _TIMED = 2, 8  # steps of one thread; those of a network are slower at first
_CODE = 2  # raised where steps come to take another time by what is written here
_FEWER, _LONG_S = 3, 1.5  # so many are enough where they have taken so long
_OPERATIONS = 3  # forward, and two backward, a layer
_CPUINFO = Path("/proc/cpuinfo")
_BUSY = 1.5  # jobs a core
_PLAUSIBLE = (0.8, 1.2)  # times the modelled seconds: what the clock says beyond it comes from another process


class _Speeds(Record, frozen=True, kw_only=True):
    """What was measured on this machine, in units of work a second, by a digest of machine and work."""

    kind: Name
    format_version: int
    rates: dict[Name, Amount]


def coarse(rate: float, steps: int = COARSE) -> float:
    """A rate rounded to one of `steps` to a doubling."""
    return float(2 ** (round(steps * math.log2(rate)) / steps))


def remembered(work: list[Any], compute: Compute, measure: Callable[[], float]) -> float:
    """A rate (above 0, units a second) of this machine at some work: as it was found before, else as `measure` finds
    it.

    A file that cannot be read or written is not missed: then it is measured anew.
    """
    path = files.state_folder() / "speeds.json"
    machine = [processor(), versions()["torch"], compute.to_json()]
    key = files.sha256_of(repr((machine, work)).encode())[:24]
    rates: dict[str, float] = {}
    with suppress(ConvlensError, OSError):
        rates = dict(read_document(path, _DOCUMENT, {_FORMAT: _Speeds}, sealed_from=1).rates)
    if key not in rates:
        rates[key] = max(1e-3, measure())
        kept = dict(list(rates.items())[-_MOST:])
        with suppress(ConvlensError, OSError):
            files.make_folder(path.parent)
            write_sealed(path, _Speeds(kind=_DOCUMENT, format_version=_FORMAT, rates=kept).to_json())
    return rates[key]


def processor() -> str:
    """The processor's name, as far as the system says it."""
    with suppress(OSError, ConvlensError, StopIteration):
        lines = files.read_start(_CPUINFO, 1 << 16)[0].decode("utf-8", "replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def rate_of(material: Material, plan: TrainingPlan, *, by_clock: bool = False) -> float:
    """Images a second that such a training learns from, growth included, on a machine that does nothing else.

    `by_clock`: where all threads together need about what one of them lets expect, what they need counts, in fine
    steps; it is what keeps a time that was asked for.
    """
    recipe, side = plan.recipe, min(plan.network.input_shape[1:])
    seconds = 1 / _rate_at(material, plan, 1.0, by_clock=by_clock)
    start = (recipe.sides_at(0, 1_000, side, side)[0] / side) ** 2  # of the pixels
    if start < 1:
        # Time grows with the number of pixels, from a part that does not; sides grow evenly.
        first = 1 / _rate_at(material, plan, recipe.grow_from, by_clock=by_clock)
        seconds = first + (recipe.growth_cost - start) / (1 - start) * (seconds - first)
    return coarse(1 / seconds, FINE if by_clock else COARSE)


def _rate_at(material: Material, plan: TrainingPlan, share: float, *, by_clock: bool) -> float:
    """Images a second at this share of their sides."""
    recipe = plan.recipe.replace(grow_from=share, grow_until=1.0, epochs=1.0)
    kinds = [kind.name for kind in recipe.kinds]
    work: list[Any] = [str(plan.network.architecture), plan.network.input_shape, recipe.batch_size, share, by_clock]
    work += [_CODE, recipe.optimizer, recipe.freeze, bool(recipe.ema), kinds]

    def measure() -> float:
        compute = plan.compute
        one_s = min(_steps_s(material, replace(plan, recipe=recipe, compute=compute.for_timing)))
        found = compute.all_threads_s(one_s, _OPERATIONS * len(plan.network.leaves))
        if by_clock and compute.threads > 1 and compute.device == "cpu":
            together_s = median(_steps_s(material, replace(plan, recipe=recipe)))
            low, high = _PLAUSIBLE
            found = together_s if low * found <= together_s <= high * found else found
        return recipe.batch_size / found

    return remembered(work, plan.compute, measure)


def busy_note() -> str:
    """That the machine has more to do now than it has cores for, in words, where the system says so. Nothing is chosen
    by it."""
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, os.cpu_count() or 1
    if load < _BUSY * cores:
        return ""
    return f"; now {load:.0f} jobs share its {counted(cores, 'core')}, and it takes longer"


def _steps_s(material: Material, plan: TrainingPlan) -> list[float]:
    """Seconds of each of a few steps, by the compute's clock, at the size that the recipe begins with. Raises
    TrainingError where memory runs out."""
    seconds: list[float] = []
    epochs = min(1e5, 1_000.0 * plan.recipe.batch_size / len(material.rows))  # never reached: only the steps are timed
    recipe = plan.recipe.replace(epochs=epochs)
    with fit(replace(plan, dataset=material.dataset, recipe=recipe), material.rows) as fitting, suppress(DivergedError):
        before, done = plan.compute.clock(), 0
        for _ in fitting.steps():
            now, step = plan.compute.clock(), fitting.state.step
            if done >= _WARM_UP:
                seconds.append((now - before) / (step - done))
            before, done = now, step
            if len(seconds) >= (_FEWER if sum(seconds) >= _LONG_S else _TIMED):
                break
    return [max(1e-6, one) for one in seconds] or [1.0]
