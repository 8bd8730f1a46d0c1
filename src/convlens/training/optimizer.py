"""The optimizers: Adam, AdamW, SGD with Nesterov momentum, and Muon for convolution kernels.

Owns the optimizer's state (its moments) and the one step. torch's fused kernels do the compute of the first three;
torch's optimizer *classes* are not used, because making one imports torch's compiler: over a second, as long as
preset `fast` trains in all (docs/speed.md). A test holds that weights come out as those classes would make them.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from convlens.recipe import Recipe

ADAM_EPS = 1e-8  # torch's
Scalar = float | Tensor  # a number, or a 0-dimensional float32 tensor that a GPU reads when it is there


class Optimizer:
    """Moves `parameters` (by name) along their gradients, as the recipe says.

    `moments` has, for each kind of moment, a tensor for each parameter that it is kept for: the running means that
    the next step needs. Under muon, convolution kernels have `momentum` and all others adamw's two.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], recipe: Recipe) -> None:
        self.recipe = recipe
        self.parameters = dict(parameters)
        is_muon = recipe.optimizer == "muon"
        self.kernels = {name: p for name, p in parameters.items() if is_muon and p.ndim == 4}
        self.others = {name: p for name, p in parameters.items() if name not in self.kernels}
        self.dtype = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32  # that updates are made in
        kept: dict[str, Mapping[str, nn.Parameter]] = {}
        if recipe.optimizer in ("sgd", "muon") and recipe.momentum:
            kept["momentum"] = self.kernels if is_muon else self.others
        if recipe.optimizer != "sgd":
            kept |= {"exp_avg": self.others, "exp_avg_sq": self.others}
        self.moments: dict[str, dict[str, Tensor]] = {
            kind: {name: torch.zeros_like(p, memory_format=torch.preserve_format) for name, p in named.items()}
            for kind, named in kept.items()
        }

    @torch.no_grad()
    def step(self, lr: Scalar, number: Scalar) -> None:
        """Take step `number` (from 1), and forget the gradients.

        `lr` is the step's learning rate; muon's own follows the same schedule from its own peak. Formulas: Kingma and
        Ba, 2015 (Adam); Loshchilov and Hutter, 2019 (AdamW); Sutskever et al., 2013 (Nesterov).
        """
        named = {name: p for name, p in self.others.items() if p.grad is not None}
        if self.kernels:
            self._kernels_step(lr / self.recipe.lr * self.recipe.muon_lr)
        if named:
            self._others_step(named, lr, number)
        for p in self.parameters.values():
            p.grad = None

    def _others_step(self, named: Mapping[str, nn.Parameter], lr: Scalar, number: Scalar) -> None:
        parameters: list[Tensor] = list(named.values())
        gradients = [p.grad for p in parameters if p.grad is not None]
        recipe, empty = self.recipe, list[Tensor]()

        def moment(kind: str) -> list[Tensor]:
            return [self.moments[kind][name] for name in named]

        common: dict[str, Any] = {"lr": lr, "weight_decay": recipe.weight_decay, "maximize": False}
        if recipe.optimizer == "sgd":
            nesterov: dict[str, Any] = {"momentum": recipe.momentum, "nesterov": recipe.momentum > 0, "dampening": 0.0}
            moments = moment("momentum") if recipe.momentum else empty
            torch._fused_sgd_(parameters, gradients, moments, is_first_step=False, **nesterov, **common)
        else:
            kernel = torch._fused_adam_ if recipe.optimizer == "adam" else torch._fused_adamw_
            step = number if isinstance(number, Tensor) else torch.full((), float(number), device=parameters[0].device)
            steps = [step] * len(parameters)
            means = moment("exp_avg"), moment("exp_avg_sq"), empty
            beta1, beta2 = recipe.betas
            kernel(
                parameters, gradients, *means, steps, beta1=beta1, beta2=beta2, eps=ADAM_EPS, amsgrad=False, **common
            )

    def _kernels_step(self, lr: Scalar) -> None:
        """Muon (K. Jordan et al., 2024): each kernel moves along its orthogonalised Nesterov momentum.

        As in airbench, a kernel of n filters is scaled to norm √n before: its size then never drowns the step. Kernels
        of one shape are orthogonalised together, in the precision of the training.
        """
        alike: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
        for name, kernel in self.kernels.items():
            if kernel.grad is None:
                continue
            update = kernel.grad
            if self.recipe.momentum:
                momentum = self.moments["momentum"][name].mul_(self.recipe.momentum).add_(kernel.grad)
                update = kernel.grad.add(momentum, alpha=self.recipe.momentum)
            kernel.mul_(len(kernel) ** 0.5 / kernel.norm().clamp(min=1e-7))
            alike[kernel.shape].append((kernel, update.flatten(1)))
        for shape, group in alike.items():
            steps = orthogonalised(torch.stack([update for _, update in group]), self.dtype) * -lr
            for (kernel, _), step in zip(group, steps, strict=True):
                kernel.add_(step.view(shape))


def orthogonalised(matrices: Tensor, dtype: torch.dtype = torch.float32, num_iterations: int = 3) -> Tensor:
    """float32 (…, n, m) matrices with their singular values pushed towards 1: no direction of a step drowns the others.

    Those from a thirtieth of the matrix's norm upwards come to between 0.6 and 1.3.

    The quintic Newton-Schulz iteration with the coefficients of K. Jordan et al., 2024 (Muon).
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = (matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)).to(dtype)
    x = x.mT if is_tall else x
    for _ in range(num_iterations):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if is_tall else x).float()
