"""Optimizers against torch and their formulas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from convlens.errors import RecipeError
from convlens.recipe import Recipe
from convlens.training.optimizer import Optimizer, orthogonalised


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.Flatten(), nn.Linear(6 * 9, 4)).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def gradients(module: nn.Module, step: int) -> None:
    """Backward of something that changes from step to step."""
    torch.manual_seed(100 + step)
    module(torch.randn(5, 2, 5, 5)).square().sum().backward()


MAKERS: dict[str, tuple[Recipe, Any]] = {
    "adam": (
        Recipe(optimizer="adam", weight_decay=0.1),
        lambda p: torch.optim.Adam(p, betas=(0.9, 0.99), weight_decay=0.1),
    ),
    "adamw": (
        Recipe(optimizer="adamw", weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, betas=(0.9, 0.99), weight_decay=0.1),
    ),
    "sgd": (
        Recipe(optimizer="sgd", momentum=0.8, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, momentum=0.8, nesterov=True, weight_decay=0.1),
    ),
    "plain sgd": (Recipe(optimizer="sgd", momentum=0), lambda p: torch.optim.SGD(p)),
}


@pytest.mark.parametrize("name", list(MAKERS))
def test_steps_are_those_of_torchs_classes(name: str) -> None:
    """After six steps with changing learning rates the weights are torch's, in whatever memory format."""
    recipe, make = MAKERS[name]
    ours, theirs = network(), network()
    mine, rule = Optimizer(dict(ours.named_parameters()), recipe), make(list(theirs.parameters()))
    for step in range(6):
        lr = 0.003 * (step + 1)
        rule.param_groups[0]["lr"] = lr
        gradients(ours, step)
        gradients(theirs, step)
        mine.step(lr, step + 1)
        rule.step()
        rule.zero_grad()
        assert all(p.grad is None for p in ours.parameters())
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_muon_by_its_formula() -> None:
    """Kernels move along the orthogonalised Nesterov momentum at a fixed norm; all else moves as under adamw."""
    recipe = Recipe(optimizer="muon", lr=0.01, muon_lr=0.3, momentum=0.7, weight_decay=0.1)
    ours, beside = network(), network()
    mine = Optimizer(dict(ours.named_parameters()), recipe)
    assert list(mine.moments["momentum"]) == ["0.weight"] and "0.weight" not in mine.moments["exp_avg"]
    others = {name: p for name, p in beside.named_parameters() if name != "0.weight"}
    adamw = Optimizer(others, recipe.replace(optimizer="adamw"))
    kernel = dict(beside.named_parameters())["0.weight"]
    momentum = torch.zeros_like(kernel)
    for step in range(4):
        lr = 0.01 / (step + 1)
        gradients(ours, step)
        gradients(beside, step)
        assert kernel.grad is not None
        momentum = 0.7 * momentum + kernel.grad
        update = orthogonalised((kernel.grad + 0.7 * momentum).flatten(1)).view_as(kernel)
        with torch.no_grad():
            kernel.copy_(kernel / kernel.norm() * 6**0.5 - lr / 0.01 * 0.3 * update)
        kernel.grad = None
        mine.step(lr, step + 1)
        adamw.step(lr, step + 1)
    for a, b in zip(ours.parameters(), beside.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8), (4, 30), (30, 4)])
def test_orthogonalised(shape: tuple[int, int]) -> None:
    """Singular vectors stay, singular values from a thirtieth of the norm upwards come to between 0.6 and 1.3."""
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    result = orthogonalised(matrix)
    values = torch.linalg.svdvals(matrix)
    found = torch.linalg.svdvals(result)[: int((values > values.norm() / 30).sum())]
    assert float(found.min()) > 0.6 and float(found.max()) < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ result @ v.T
    torch.testing.assert_close(inside, torch.diag(inside.diagonal()), rtol=0, atol=1e-4)
    assert torch.equal(orthogonalised(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_kernels_of_one_shape_are_orthogonalised_each_by_itself() -> None:
    """Together they come to what they come to alone, tall ones too, and in bfloat16 to within its digits."""
    torch.manual_seed(1)
    matrices = torch.randn(3, 40, 12) * torch.tensor([1.0, 100.0, 1e-3])[:, None, None]
    together = orthogonalised(matrices)
    torch.testing.assert_close(together, torch.stack([orthogonalised(one) for one in matrices]), rtol=0, atol=1e-5)
    rough = orthogonalised(matrices, torch.bfloat16)
    assert rough.dtype == torch.float32 and 1e-4 < float((rough - together).abs().max()) < 0.05
    values = torch.linalg.svdvals(rough)
    assert float(values.min()) > 0.55 and float(values.max()) < 1.35


def test_muon_moves_kernels_of_one_shape_apart() -> None:
    """Of two kernels of one shape each gets its own update."""
    torch.manual_seed(2)
    kernels = {name: torch.nn.Parameter(torch.randn(6, 4, 3, 3)) for name in "ab"}
    recipe = Recipe(optimizer="muon", lr=0.01, muon_lr=0.3, momentum=0.0)
    expected = {}
    for name, kernel in kernels.items():
        kernel.grad = torch.randn_like(kernel)
        update = orthogonalised(kernel.grad.flatten(1)).view_as(kernel)
        expected[name] = kernel.detach() / kernel.detach().norm() * 6**0.5 - 0.3 * update
    Optimizer(kernels, recipe).step(0.01, 1)
    for name, kernel in kernels.items():
        torch.testing.assert_close(kernel.detach(), expected[name], rtol=1e-5, atol=1e-6)


def test_recipes_without_the_newest_field_are_read() -> None:
    """A recipe that was written before muon came is read; one that lacks anything else is not."""
    written = Recipe().to_json()
    del written["muon_lr"]
    assert Recipe.from_json(written) == Recipe()
    del written["lr"]
    with pytest.raises(RecipeError, match="'lr'"):
        Recipe.from_json(written)


TRAINS = """
import sys, numpy as np, convlens
rng = np.random.default_rng(0)
x, y = rng.integers(0, 255, (60, 12, 12), dtype=np.uint8), np.arange(60) % 2
run = convlens.train((x, y), architecture="conv(4, 3) relu flatten linear(classes)", out=sys.argv[1])
assert run.status == "complete"
print([name for name in ("torch._dynamo", "torch._inductor", "sympy", "matplotlib") if name in sys.modules])
"""


def test_training_does_not_import_the_compiler(workplace: Path) -> None:
    """A whole training imports neither torch's compiler nor what it brings: that takes a second."""
    done = subprocess.run([sys.executable, "-c", TRAINS, "run"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_moments_take_the_memory_format_of_their_parameters() -> None:
    """The fused kernels walk through memory: a moment in another format would belong to another weight."""
    module = network()
    for recipe, _ in MAKERS.values():
        optimizer = Optimizer(dict(module.named_parameters()), recipe)
        for moments in optimizer.moments.values():
            for name, moment in moments.items():
                assert moment.stride() == dict(module.named_parameters())[name].stride()
                assert not np.any(moment.numpy())
