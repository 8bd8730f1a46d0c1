"""What a follower does: the same fit as the leader, its part of each step, and of what is measured in between.

Owns that loop alone. It writes nothing, decides nothing, and ends when the leader says so.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convlens.architecture import parse, plan
from convlens.data.packed.dataset import Dataset
from convlens.errors import ConvlensError
from convlens.network.compute import Compute, resolve_compute, resolve_device, settled
from convlens.network.forward import serve_outputs
from convlens.network.processes import Processes
from convlens.recipe import Recipe
from convlens.records import converted
from convlens.training.fit import Fit, fit
from convlens.training.plan import TrainingPlan
from convlens.training.shared import FitOrder, facts_of_this_process
from convlens.training.step import Stepper

OpenData = Callable[[FitOrder], Dataset]


def follow(group: Processes, open_data: OpenData | None = None) -> dict[str, Any]:
    """Do what the leader orders, to the end; what it said then. `open_data` gives the data of a fit. Raises
    ProcessError where the leader is lost, or ends by an error."""
    for order in group.orders():
        if order.do == "outputs":
            compute = resolve_compute(device_of(group, resolve_device("auto")), "float32")
            with settled(compute):  # as whoever measures in one process has it
                serve_outputs(group, order.facts, compute.device)
        elif order.do == "fit":
            assert open_data is not None, "only a training is fitted"
            _follow_fit(group, converted(order.facts, FitOrder, "what rank 0 ordered"), open_data)
    return {} if group.last is None else group.last.facts


def device_of(group: Processes, device: str) -> str:
    """A process's own one of the devices of the leader's kind."""
    return f"cuda:{group.local_rank}" if device.startswith("cuda") else device


def _follow_fit(group: Processes, order: FitOrder, open_data: OpenData) -> None:
    """From the leader's wish to fit to its word that this is done."""
    try:
        dataset = open_data(order)
    except ConvlensError as error:
        group.answer(error=str(error).partition("\n")[0], host=group.host)
        return
    group.answer(host=group.host, **facts_of_this_process())
    rows: NDArray[np.int64] | None = None
    if order.num_rows is not None:
        rows = np.zeros(order.num_rows, np.int64)
        group.share([torch.from_numpy(rows)])
    compute = Compute(**{name: getattr(order.compute, name) for name in Compute.__dataclass_fields__})
    training_plan = TrainingPlan(
        dataset=dataset,
        network=plan(parse(order.architecture), dataset.input_spec.shape, len(dataset.class_names)),
        recipe=Recipe.from_json(order.recipe),
        seed=order.seed,
        compute=replace(compute, device=device_of(group, compute.device)),
        given_spec=order.input_spec,
    )
    with fit(training_plan, rows) as fitting:
        stepper: Stepper | None = None
        for next_order in group.orders():
            if next_order.do == "done":
                return
            if next_order.do == "outputs":
                serve_outputs(group, next_order.facts, training_plan.compute.device)
            elif next_order.do == "ready":
                group.answer()
            elif next_order.do == "state":
                fitting.state.step = next_order.facts["step"]
                group.share(fitting.state.tensors())
                stepper = _stepper(fitting)
            elif next_order.do == "steps":
                assert stepper is not None, "the state comes before the steps"
                first, num = next_order.facts["first"], next_order.facts["num"]
                stepper.run(first, num)
                fitting.state.step = first + num


def _stepper(fitting: Fit) -> Stepper:
    """A follower's own, as `train_steps` makes the leader's."""
    given = fitting.images, fitting.labels, fitting.batches, fitting.plan.recipe, fitting.num_steps
    return Stepper(fitting.state, *given, fitting.plan.compute)
