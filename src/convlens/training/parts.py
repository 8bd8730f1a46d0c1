"""The parts of a batch: which of them a process learns from, and how what they give is put together.

Owns the cut of a batch among processes and shards, and the sum of gradients and batch statistics over shards, whose
order does not depend on how many processes there are. Without shards torch's DistributedDataParallel adds the
gradients up.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convlens.errors import TrainingError
from convlens.network.build import Network
from convlens.network.processes import Processes
from convlens.recipe import Recipe


@dataclass(frozen=True)
class Cut:
    """Into how many parts a batch is cut, and the numbers of those that this process learns from."""

    num: int
    own: tuple[int, ...]


def cut_of(recipe: Recipe, group: Processes) -> Cut:
    """The cut of each batch. Raises TrainingError where so many processes cannot share it."""
    check_cut(recipe, group.size)
    if recipe.shards == 1:
        return Cut(group.size, (group.rank,))
    each = recipe.shards // group.size
    return Cut(recipe.shards, tuple(range(group.rank * each, (group.rank + 1) * each)))


def check_cut(recipe: Recipe, num_processes: int, *, has_batchnorm: bool = False) -> None:
    """Raises TrainingError where so many processes cannot share a batch of the recipe, or a part is too small."""
    batch, shards = recipe.batch_size, recipe.shards
    if shards > 1 and (num_processes > shards or shards % num_processes):
        raise TrainingError(
            f"{num_processes} processes cannot share the {shards} parts of a batch evenly: use as many `shards`, or a "
            "multiple, or a number of processes that divides them"
        )
    num_parts = max(shards, num_processes)
    if batch // num_parts < (2 if has_batchnorm else 1):
        need = f"batchnorm needs two images in each part: a `batch_size` of at least {2 * num_parts}"
        raise TrainingError(
            f"a batch of {batch} images cannot be cut into {num_parts} parts: "
            + (need if has_batchnorm else f"it needs a `batch_size` of at least {num_parts}")
        )


class ShardSum:
    """Loss, gradients and running statistics of a batch's shards, added in pairs, ((0 + 1) + (2 + 3)) + …: the same
    bits, whichever process computes which. Each shard begins with the statistics that the step began with, so that
    their mean is one update of them."""

    def __init__(self, network: Network, num_shards: int) -> None:
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
        self.statistics = [s for m in norms for s in (m.running_mean, m.running_var) if s is not None]
        self.counters = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]
        self.num_shards = num_shards
        self._sums: list[tuple[int, Tensor]] = []  # of 2^level shards each
        self._before: list[Tensor] = []

    @torch.no_grad()
    def begin(self) -> None:
        """A step begins."""
        self._sums, self._before = [], [one.clone() for one in (*self.statistics, *self.counters)]

    @torch.no_grad()
    def add(self, loss: Tensor) -> None:
        """Take over what the backward pass of this process's next shard left, with its part of the mean loss."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        assert len(gradients) == len(self.parameters), "each layer of a chain has a part in the loss"
        flat = torch.cat([loss.view(1), *(one.flatten() for one in (*gradients, *self.statistics))])
        for parameter in self.parameters:
            parameter.grad = None
        for one, before in zip((*self.statistics, *self.counters), self._before, strict=True):
            one.copy_(before)
        level = 0
        while self._sums and self._sums[-1][0] == level:
            level, flat = level + 1, self._sums.pop()[1] + flat
        self._sums.append((level, flat))

    @torch.no_grad()
    def finish(self, group: Processes) -> Tensor:
        """Put the sums of all processes where one backward pass would have put them; the mean loss."""
        [(_, flat)] = self._sums
        flats = group.gathered(flat) if group.size > 1 else [flat]
        while len(flats) > 1:
            flats = [one + other for one, other in zip(flats[::2], flats[1::2], strict=True)]
        parts = list(flats[0][1:].split([one.numel() for one in (*self.parameters, *self.statistics)]))
        for parameter, part in zip(self.parameters, parts[: len(self.parameters)], strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(part.view_as(parameter))
        for one, part in zip(self.statistics, parts[len(self.parameters) :], strict=True):
            one.copy_(part.view_as(one) / self.num_shards)
        for one in self.counters:
            one += 1
        return flats[0][0]
