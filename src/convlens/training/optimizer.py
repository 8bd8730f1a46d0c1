"""The optimizers: Adam, AdamW and SGD with Nesterov momentum, each one fused kernel over all parameters.

Owns the optimizer's state (its moments) and the one step. torch's kernels do the arithmetic; torch's optimizer
*classes* are not used, because making one imports torch's compiler: over a second, more than half of what preset
`fast` takes in all (docs/speed.md). A test holds that weights come out as those classes would make them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from convlens.recipe import Recipe

ADAM_EPS = 1e-8  # torch's


class Optimizer:
    """Moves `parameters` (by name) along their gradients, as the recipe says.

    `moments` has, for each kind of moment, a tensor for each parameter: the running means that the next step needs.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], recipe: Recipe) -> None:
        self.recipe = recipe
        self.parameters = dict(parameters)
        kinds = ("exp_avg", "exp_avg_sq") if recipe.optimizer != "sgd" else ("momentum",) if recipe.momentum else ()
        self.moments: dict[str, dict[str, Tensor]] = {
            kind: {name: torch.zeros_like(p, memory_format=torch.preserve_format) for name, p in parameters.items()}
            for kind in kinds
        }

    @torch.no_grad()
    def step(self, lr: float, number: int) -> None:
        """Take step `number` (from 1) with the learning rate `lr`, and forget the gradients.

        Formulas: Kingma and Ba, 2015 (Adam); Loshchilov and Hutter, 2019 (AdamW); Sutskever et al., 2013 (Nesterov).
        """
        named = {name: p for name, p in self.parameters.items() if p.grad is not None}
        parameters: list[Tensor] = list(named.values())
        gradients = [p.grad for p in parameters if p.grad is not None]
        moments = [[of_kind[name] for name in named] for of_kind in self.moments.values()]
        recipe, empty = self.recipe, list[Tensor]()
        if recipe.optimizer == "sgd":
            torch._fused_sgd_(
                parameters, gradients, moments[0] if moments else empty, weight_decay=recipe.weight_decay,
                momentum=recipe.momentum, lr=lr, dampening=0.0, nesterov=recipe.momentum > 0, maximize=False,
                is_first_step=False,
            )  # fmt: skip
        else:
            kernel = torch._fused_adamw_ if recipe.optimizer == "adamw" else torch._fused_adam_
            steps = [torch.full((), float(number), device=parameters[0].device)] * len(parameters)
            kernel(
                parameters, gradients, moments[0], moments[1], empty, steps, lr=lr, beta1=recipe.betas[0],
                beta2=recipe.betas[1], weight_decay=recipe.weight_decay, eps=ADAM_EPS, amsgrad=False, maximize=False,
            )  # fmt: skip
        for p in parameters:
            p.grad = None
