"""A training that several processes share: what the leader tells the others of it, and that all have the same.

Owns the description of a fit that travels as JSON, and the comparison of code, versions and data before the first step.
Who speaks how is `network/processes.py`'s business; what a follower does, `follow.py`'s.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convlens.data.image.framing import InputSpec
from convlens.data.packed.dataset import DataIdentity
from convlens.errors import ProcessError
from convlens.modelfile import Origin
from convlens.network.compute import versions
from convlens.network.processes import Processes
from convlens.records import Count, Name, Record, Text
from convlens.run import ComputeRecord
from convlens.text import shown
from convlens.training.plan import TrainingPlan


class FitOrder(Record, frozen=True, kw_only=True):
    """A fit, as a follower must know it: the weights come by themselves."""

    dataset: DataIdentity
    architecture: Text
    input_spec: InputSpec
    recipe: dict[Name, Any]
    seed: Count
    compute: ComputeRecord
    origin: Origin | None
    num_rows: Count | None  # of training images that are sent; None: all of the training split


@contextmanager
def followed(group: Processes, plan: TrainingPlan, rows: NDArray[np.int64]) -> Iterator[None]:
    """Within it, where this process leads others, they fit the same: the plan, on its images of `rows`, int64 (N,).
    Raises ProcessError where one of them cannot, or is another."""
    if not group.leads:
        yield
        return
    _have_followers_fit(group, plan, rows)
    try:
        yield
    finally:
        group.order("done")


def _have_followers_fit(group: Processes, plan: TrainingPlan, rows: NDArray[np.int64]) -> None:
    is_part = not np.array_equal(rows, plan.dataset.rows("train"))
    order = FitOrder(
        dataset=plan.dataset.identity(),
        architecture=str(plan.network.architecture),
        input_spec=plan.spec,
        recipe=plan.recipe.to_json(),
        seed=plan.seed,
        compute=ComputeRecord(**plan.compute.to_json()),
        origin=None if plan.parent is None else plan.parent.card.origin,
        num_rows=len(rows) if is_part else None,
    )
    own = facts_of_this_process()
    for rank, other in enumerate(group.ask("fit", **order.to_json()), 1):
        if why := other.get("error") or _difference(own, other):
            raise ProcessError(f"rank {rank} of {group.size} ({shown(other.get('host'), 100)}): {why}")
    if is_part:
        group.share([torch.from_numpy(rows)])


def facts_of_this_process() -> dict[str, Any]:
    """What has to be the same in all processes."""
    return {"code": _code(), **versions()}


@cache
def _code() -> str:
    """SHA-256 of the source of convlens."""
    digest, folder = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _difference(own: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """What another process has otherwise, in words."""
    changed = [name for name, value in own.items() if other.get(name) != value]
    if not changed:
        return None
    if changed == ["code"]:
        return "it has another convlens, whose version says the same: install the same one everywhere"
    named = [
        f"{name} {shown(other.get(name), 40)}, rank 0 {shown(own[name], 40)}" for name in changed if name != "code"
    ]
    return f"it has {'; '.join(named)}: use the same everywhere"
