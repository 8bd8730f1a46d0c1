"""The recipe: how a network is trained, as one frozen value.

Owns the fields, their ranges, the learning rate at each step, and the JSON form. The recipe says *what*; the
seed, which stands beside it in every run, says *which sample of it*.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from convlens.errors import RecipeError, did_you_mean, shown

OPTIMIZERS = ("adam", "adamw", "sgd", "muon")
SCHEDULES = ("constant", "triangle", "cosine")
PRECISIONS = ("auto", "float32", "bfloat16")
BALANCES = ("none", "weights", "sampling")
# The fields that change pictures before they are learned from; `Recipe.without_augmentation` empties them.
AUGMENTATION = ("shift_px", "flip", "crop_frac", "cutout_frac")
ADDED = (
    "muon_lr",
    "crop_frac",
    "cutout_frac",
    "balance",
    "patience",
)  # fields that recipes written before do not have; their defaults change nothing there


@dataclass(frozen=True)
class Recipe:
    """How to train. Loss is cross-entropy.

    optimizer        adam (L2 penalty in the gradient), adamw (decoupled), sgd (with momentum, Nesterov's form);
                     muon: convolution kernels by orthogonalised momentum, all else by adamw
    lr               the highest learning rate
    muon_lr          of muon: that of the kernels, which it moves; the schedule is the same
    betas            of adam and adamw
    momentum         of sgd and of muon's kernels
    weight_decay     of all parameters but muon's kernels
    schedule         constant; triangle: up linearly, then down linearly to 0; cosine: up linearly, down a cosine
    warmup_frac      share of the steps on the way up
    label_smoothing  0 to below 1
    shift_px         each image is moved by up to so many pixels in both directions, edges repeated
    flip             each image is mirrored left to right with probability 1/2
    crop_frac        each image is enlarged from a random part of it, whose sides are down to 1 - crop_frac of its own
    cutout_frac      in each image a square of this share of its sides is covered by the image's mean (DeVries and
                     Taylor, 2017)
    balance          of classes of different size: none; weights: the loss counts each class alike; sampling: each class
                     is drawn alike often, the images of small ones repeatedly
    patience         stop after so many epochs in a row without a lower validation loss, and keep the weights of the
                     best; 0: never
    ema              decay per step of an average of the weights, which is then what is validated and saved; 0: none
    epochs           passes over the training images; a fraction is allowed
    batch_size       images a step
    precision        of the arithmetic: auto is resolved before the first step
    """

    optimizer: str = "adamw"
    lr: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    momentum: float = 0.9
    muon_lr: float = 0.06
    weight_decay: float = 0.0
    schedule: str = "triangle"
    warmup_frac: float = 0.2
    label_smoothing: float = 0.0
    shift_px: int = 0
    flip: bool = False
    crop_frac: float = 0.0
    cutout_frac: float = 0.0
    balance: str = "none"
    patience: int = 0
    ema: float = 0.0
    epochs: float = 1.0
    batch_size: int = 256
    precision: str = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas) if isinstance(self.betas, list) else self.betas)
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("precision", self.precision, PRECISIONS)
        _number("lr", self.lr, 0, 1000, open_low=True)
        _number("muon_lr", self.muon_lr, 0, 1000, open_low=True)
        if not isinstance(self.betas, tuple) or len(self.betas) != 2:
            raise RecipeError(f"betas must be two numbers, not {shown(self.betas)}")
        for beta in self.betas:
            _number("betas", beta, 0, 1, open_high=True)
        _number("momentum", self.momentum, 0, 1, open_high=True)
        _number("weight_decay", self.weight_decay, 0, 100)
        _number("warmup_frac", self.warmup_frac, 0, 1)
        _number("label_smoothing", self.label_smoothing, 0, 1, open_high=True)
        _whole("shift_px", self.shift_px, 0, 64)
        if not isinstance(self.flip, bool):
            raise RecipeError(f"flip must be true or false, not {shown(self.flip)}")
        _number("crop_frac", self.crop_frac, 0, 0.9)
        _number("cutout_frac", self.cutout_frac, 0, 0.9)
        _one_of("balance", self.balance, BALANCES)
        _whole("patience", self.patience, 0, 100_000)
        _number("ema", self.ema, 0, 1, open_high=True)
        _number("epochs", self.epochs, 0, 100_000, open_low=True)
        _whole("batch_size", self.batch_size, 1, 1_000_000)
        for f in fields(self):  # 1 and 1.0 are the same recipe, and the same JSON
            if isinstance(f.default, float):
                object.__setattr__(self, f.name, float(getattr(self, f.name)))
        object.__setattr__(self, "betas", (float(self.betas[0]), float(self.betas[1])))

    def replace(self, **values: Any) -> Self:
        """The same with other values. Raises RecipeError for unknown fields and values out of range."""
        known = [f.name for f in fields(self)]
        for name in values:
            if name not in known:
                raise RecipeError(
                    f"a recipe has no {shown(name)!r}{did_you_mean(name, known)}; it has {', '.join(known)}"
                )
        return replace(self, **values)

    def parsed(self, settings: Iterable[str]) -> dict[str, Any]:
        """The values of `field=value` texts, as `--set` gives them, for `replace`. Raises RecipeError."""
        values = {}
        for text in settings:
            name, equals, value = text.partition("=")
            if not equals:
                raise RecipeError(f"--set takes field=value, not {shown(text)!r}")
            values[name.strip()] = self._parsed(name.strip(), value.strip())
        self.replace(**values)
        return values

    def _parsed(self, name: str, text: str) -> Any:
        default = getattr(self, name, None)
        try:
            if isinstance(default, bool):
                return {"true": True, "false": False}[text.lower()]
            if isinstance(default, int):
                return int(text)
            if isinstance(default, float):
                return float(text)
            if isinstance(default, tuple):
                return tuple(float(part) for part in text.strip("()").split(","))
        except (ValueError, KeyError):
            kind = {bool: "true or false", int: "a whole number", float: "a number"}.get(type(default), "two numbers")
            raise RecipeError(f"{name} must be {kind}, not {shown(text)!r}") from None
        return text

    def without_augmentation(self) -> Self:
        """The same, learning from the pictures as they are."""
        return replace(self, shift_px=0, flip=False, crop_frac=0.0, cutout_frac=0.0)

    def augmentation(self) -> str:
        """What pictures go through before they are learned from, in words."""
        words = [
            *(["flips"] if self.flip else []),
            *([f"shifts up to {self.shift_px} px"] if self.shift_px else []),
            *([f"crops down to {1 - self.crop_frac:.2g} of the sides"] if self.crop_frac else []),
            *([f"cutout of {self.cutout_frac:.2g} of the sides"] if self.cutout_frac else []),
        ]
        return ", ".join(words) or "none"

    @property
    def rates(self) -> str:
        """The learning rates in words, for whoever has to lower them."""
        return f"lr {self.lr:g}" + (f", muon_lr {self.muon_lr:g}" if self.optimizer == "muon" else "")

    def num_steps(self, num_images: int) -> int:
        """Training steps for so many training images: at least one."""
        return max(1, round(self.epochs * num_images / self.batch_size))

    def lr_at(self, step: int, num_steps: int) -> float:
        """The learning rate of a step (from 0): it rises over `warmup_frac` of the steps, then follows the schedule."""
        warmup = self.warmup_frac * num_steps
        if step + 1 < warmup:
            return self.lr * (step + 1) / warmup
        if self.schedule == "constant":
            return self.lr
        left = (num_steps - step) / max(1.0, num_steps - warmup + 1)  # 1 at the top, above 0 at the last step
        left = min(1.0, left)
        return self.lr * (left if self.schedule == "triangle" else (1 - math.cos(math.pi * left)) / 2)

    def to_json(self) -> dict[str, Any]:
        """Every field; `from_json` gives an equal recipe back."""
        return {f.name: list(v) if isinstance(v := getattr(self, f.name), tuple) else v for f in fields(self)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Raises RecipeError where `value` is not a recipe."""
        if not isinstance(value, dict):
            raise RecipeError(f"a recipe is a JSON object, not {shown(value)}")
        missing = [f.name for f in fields(cls) if f.name not in value and f.name not in ADDED]
        if missing:
            raise RecipeError(f"the recipe has no {missing[0]!r}")
        return cls().replace(**value)

    def __str__(self) -> str:
        parts = [f"{self.optimizer} lr {self.lr:g}"]
        if self.optimizer == "muon":
            parts.append(f"kernels {self.muon_lr:g}")
        if self.optimizer in ("sgd", "muon"):
            parts.append(f"momentum {self.momentum:g}")
        if self.optimizer != "sgd":
            parts.append("betas {:g}, {:g}".format(*self.betas))
        parts.append(self.schedule + (f" (warm-up {self.warmup_frac:g})" if self.warmup_frac else ""))
        parts += [f"{self.epochs:g} epoch{'' if self.epochs == 1 else 's'}", f"batch {self.batch_size}"]
        for name in ("weight_decay", "label_smoothing", "shift_px", "crop_frac", "cutout_frac", "patience", "ema"):
            if getattr(self, name):
                parts.append(f"{name.replace('_', ' ')} {getattr(self, name):g}")
        parts += ["flip"] if self.flip else []
        parts += [f"balanced by {self.balance}"] if self.balance != "none" else []
        return ", ".join([*parts, self.precision])


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise RecipeError(
            f"unknown {name} {shown(value)!r}{did_you_mean(str(value), known)}: there are {', '.join(known)}"
        )


def _number(name: str, value: Any, low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> None:
    right = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if not right or (open_low and value == low) or (open_high and value == high):
        lower, upper = ("above" if open_low else "from"), ("below" if open_high else "to")
        raise RecipeError(
            f"{name} must be a number {lower} {low:g} {upper if open_high else 'up to'} {high:g}, not {shown(value)}"
        )


def _whole(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RecipeError(f"{name} must be a whole number from {low} to {high:,}, not {shown(value)}")
