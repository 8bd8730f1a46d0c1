"""All that training changes, as one value that writes and reads itself.

Owns the tensors (weights, moments, averages, the best so far) and the plain numbers beside them. Where they are kept is
`checkpoint.py`'s business; what changes them, `step.py`'s, `loop.py`'s and `trainer.py`'s.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convlens.errors import ModelFileError
from convlens.metrics import Score
from convlens.modelfile import check_finite, check_tensors
from convlens.network.build import Network, arrays_of, tensors_of
from convlens.recipe import Recipe
from convlens.records import Amount, Count, Number, Record
from convlens.training.optimizer import Optimizer


class StateRecord(Record, frozen=True, kw_only=True):
    """The plain numbers of a state, as a checkpoint has them."""

    step: Count
    train_s: Amount
    val_s: Amount
    checkpoint_s: Amount
    epoch_losses: tuple[Number, ...]
    val: Score | None
    epochs_waited: Count
    best_step: Count
    best_val: Score | None
    val_loss: Amount | None = None
    best_loss: Amount | None = None


@dataclass
class TrainingState:
    """All that training changes. The fields of `StateRecord` are plain numbers, which travel as JSON.

    network          always the raw module;  `optimizer` has its moments
    ema              an average of parameters and floating-point buffers by name (None without one)
    best             the tensors of the lowest validation loss so far, where the recipe has patience
    step             finished steps;  `train_s` the seconds spent in them, `val_s` and `checkpoint_s` those beside them
    epoch_losses     of the steps of the epoch that is going on
    val              the score of the last validation
    val_loss         of the last validation, at the temperature that suits it best: label smoothing alone, which makes
                     every answer less sure, is then no loss
    epochs_waited    since the lowest of these, `best_loss`, whose score and step are `best_val` and `best_step`
    """

    network: Network
    optimizer: Optimizer
    ema: dict[str, Tensor] | None
    best: dict[str, Tensor] | None
    step: int = 0
    train_s: float = 0.0
    val_s: float = 0.0
    checkpoint_s: float = 0.0
    epoch_losses: list[float] = field(default_factory=list)
    val: Score | None = None
    epochs_waited: int = 0
    best_step: int = 0
    best_val: Score | None = None
    val_loss: float | None = None
    best_loss: float | None = None

    @classmethod
    def new(cls, network: Network, recipe: Recipe) -> Self:
        """The state before the first step. The recipe's precision is resolved: muon's updates are made in it."""
        trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
        copies = {name: t.detach().clone() for name, t in tensors_of(network).items()}
        ema = {name: t for name, t in copies.items() if t.is_floating_point()} if recipe.ema else None
        best = {name: t.clone() for name, t in copies.items()} if recipe.patience else None
        return cls(network, Optimizer(trainable, recipe), ema, best)

    @contextmanager
    def averaged(self) -> Iterator[Network]:
        """The network with the average as its weights (unchanged without one); the raw weights come back after."""
        if self.ema is None:
            yield self.network
            return
        current = tensors_of(self.network)
        kept = {name: current[name].detach().clone() for name in self.ema}
        with torch.no_grad():
            for name, average in self.ema.items():
                current[name].copy_(average)
            try:
                yield self.network
            finally:
                for name, raw in kept.items():
                    current[name].copy_(raw)

    def note_best(self) -> None:
        """Count an epoch; with the lowest validation loss so far, keep its weights."""
        if self.best is None or self.val is None or self.val_loss is None:
            return
        self.epochs_waited += 1
        if self.best_loss is None or self.val_loss < self.best_loss:
            self.epochs_waited, self.best_val, self.best_step = 0, self.val, self.step
            self.best_loss = self.val_loss
            with self.averaged() as network, torch.no_grad():
                for name, tensor in tensors_of(network).items():
                    self.best[name].copy_(tensor)

    # ------------------------------------------------------------ to disk and back

    def _groups(self) -> dict[str, Mapping[str, Tensor]]:
        """The tensors by what they are."""
        groups: dict[str, Mapping[str, Tensor]] = {"network": tensors_of(self.network)}
        groups |= {f"optimizer.{kind}": moments for kind, moments in self.optimizer.moments.items()}
        groups |= {name: group for name, group in (("ema", self.ema), ("best", self.best)) if group is not None}
        return groups

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor, in one order."""
        return (tensor for group in self._groups().values() for tensor in group.values())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Every tensor, as `GROUP/NAME`."""
        return {f"{group}/{name}": a for group, ts in self._groups().items() for name, a in arrays_of(ts).items()}

    def to_json(self) -> dict[str, Any]:
        """The plain numbers."""
        plain = {name: getattr(self, name) for name in StateRecord.__struct_fields__}
        return StateRecord(**plain | {"epoch_losses": tuple(self.epoch_losses)}).to_json()

    def restore(self, arrays: Mapping[str, NDArray[Any]], plain: StateRecord) -> None:
        """Copy what was kept *into* this fresh state: tensors keep their memory format, and so their kernels.

        Raises ModelFileError where it does not fit.
        """
        where = f"checkpoint of step {plain.step}"
        for group, tensors in self._groups().items():
            prefix = f"{group}/"
            saved = {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
            if group == "network":
                shapes = {name: (array.dtype.name, array.shape) for name, array in saved.items()}
                check_tensors(self.network.plan, shapes, where)
                check_finite(saved, where)
            elif saved.keys() != tensors.keys() or any(saved[name].shape != t.shape for name, t in tensors.items()):
                raise ModelFileError(f"{where} has no {group} that fits")
            with torch.no_grad():
                for name, tensor in tensors.items():
                    tensor.copy_(torch.from_numpy(np.array(saved[name])))
        for name in StateRecord.__struct_fields__:
            setattr(self, name, getattr(plain, name))
        self.epoch_losses = list(plain.epoch_losses)
