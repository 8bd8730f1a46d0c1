"""The recipe: how a network is trained, as one frozen value.

Owns the fields, their ranges, the learning rate at each step, and the JSON form. The recipe says *what*; the
seed, which stands beside it in every run, says *which sample of it*.
"""

import math
import re
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from convlens.augmentation import Augmentation, value
from convlens.checks import checked, choice, real, whole
from convlens.errors import RecipeError
from convlens.text import did_you_mean, shown

OPTIMIZERS = ("adam", "adamw", "sgd", "muon")
SCHEDULES = ("constant", "triangle", "cosine")
# What other programs call a field.
PRECISIONS = ("auto", "float32", "bfloat16")
BALANCES = ("none", "weights", "sampling")
HEADS = ("kept", "logistic", "means")
VIEWS = ("none", "mirror")
_GROWN_BY = 4  # pixels
_ADDRESS = re.compile(r"head|\d+(\[\d+\])?|")


def _address(value: Any) -> str:
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise ValueError("the address of a layer as explain shows it, or head")
    return value


def _power_of_two(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1024 or value.bit_count() != 1:
        raise ValueError("a power of two, from 1 to 1024")
    return int(value)


def _betas(value: Any) -> tuple[float, float]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError("two numbers")
    below_1 = real(0, 1, open_high=True)
    return below_1(value[0]), below_1(value[1])


@dataclass(frozen=True, kw_only=True)
class Recipe(Augmentation):
    """How to train. Loss is cross-entropy. The fields of `Augmentation` belong to it.

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
    balance          of classes of different size: none; weights: the loss counts each class alike; sampling: small
                     classes are drawn more often, by the square root of the sizes, and the loss makes up for the rest
    patience         stop after so many epochs in a row without a lower validation loss (at the temperature that suits
                     it best), and keep the weights of the best; 0: never
    views            of a picture that is classified, in validation and ever after; mirror: the logits are the mean of
                     those for it and for its mirror image; none: those for it alone
    ema              decay per step of an average of the weights, which is then what is validated and saved; 0: none
    epochs           passes over the training images; a fraction is allowed
    batch_size       images a step
    shards           parts that each batch is cut into, a power of two: their gradients are added in pairs and batch
                     statistics are those of a part, so that on one machine any number of processes up to that many
                     comes to the same bits, and one process needs the memory of one part
    grow_from        share of the images' sides that training begins with: they are made smaller, and grow in even steps
                     to all of it; 1: they are what they are from the first step on
    grow_until       share of the steps after which they are
    freeze           of a training that starts from a model: the layers before this address (`head`: the last linear
                     layer) stay as they are, and their outputs are computed once; empty: none
    frozen_views     of each image: under so many augmentations the outputs of frozen layers are computed, and
                     successive epochs learn from one after the other
    frozen_precision of those outputs; auto: that of the rest
    head             how the last linear layer begins: kept (the model's, or drawn at random); logistic (fitted to
                     the outputs before it by logistic regression); means (of them, in each class)
    head_penalty     of head=logistic, on the squared weights per image, where the outputs have standard deviation 1;
                     of head=means, their variance within a class, as a multiple of the whole
    precision        of the arithmetic: auto is resolved before the first step
    """

    optimizer: str = value(choice(OPTIMIZERS), "adamw")
    lr: float = value(real(0, 1000, open_low=True), 0.01)
    betas: tuple[float, float] = value(_betas, (0.9, 0.99))
    momentum: float = value(real(0, 1, open_high=True), 0.9)
    muon_lr: float = value(real(0, 1000, open_low=True), 0.06, added=True)
    weight_decay: float = value(real(0, 100), 0.0)
    schedule: str = value(choice(SCHEDULES), "triangle")
    warmup_frac: float = value(real(0, 1), 0.2)
    label_smoothing: float = value(real(0, 1, open_high=True), 0.0)
    balance: str = value(choice(BALANCES), "none", added=True)
    patience: int = value(whole(0, 100_000), 0, added=True)
    ema: float = value(real(0, 1, open_high=True), 0.0)
    views: str = value(choice(VIEWS), "none", added=True)
    grow_from: float = value(real(0, 1, open_low=True), 1.0, added=True)
    grow_until: float = value(real(0, 1, open_low=True), 0.7, added=True)
    freeze: str = value(_address, "", added=True)
    frozen_views: int = value(whole(1, 1_000), 4, added=True)
    frozen_precision: str = value(choice(PRECISIONS), "auto", added=True)
    head: str = value(choice(HEADS), "kept", added=True)
    head_penalty: float = value(real(0, 1e6), 0.01, added=True)
    epochs: float = value(real(0, 100_000), 1.0)
    batch_size: int = value(whole(1, 1_000_000), 256)
    shards: int = value(_power_of_two, 1, added=True)
    precision: str = value(choice(PRECISIONS), "auto")

    def __post_init__(self) -> None:
        for f in fields(self):  # normal forms: 1 and 1.0 are the same recipe, and the same JSON
            normal = checked(f.name, getattr(self, f.name), f.metadata["check"], RecipeError)
            object.__setattr__(self, f.name, normal)
        if self.epochs == 0 and self.head == "kept":
            raise RecipeError("epochs must be above 0, unless `head` is fitted before the first of them")
        if self.shards > self.batch_size:
            raise RecipeError(
                f"shards={self.shards} cuts a batch of {self.batch_size} images into parts without any: use fewer, or "
                "a larger `batch_size`"
            )
        if self.freeze and self.views != "none":
            raise RecipeError(
                f"views={self.views} cannot go with frozen layers, whose kept outputs validation classifies: leave it "
                "away while training (evaluate and predict take `views`)"
            )

    @property
    def num_views(self) -> int:
        """Pictures that go through the network to classify one."""
        return 2 if self.views == "mirror" else 1

    def with_usual_views(self) -> Self:
        """The same, classifying with mirrored views where it learns from mirrored pictures and no layers are frozen."""
        return replace(self, views="mirror" if self.flip and not self.freeze else "none")

    def replace(self, **values: Any) -> Self:
        """The same with other values. Raises RecipeError for unknown fields and values out of range."""
        known = [f.name for f in fields(self)]
        for name in values:
            if name not in known:
                raise RecipeError(
                    f"a recipe has no {shown(name)!r}{did_you_mean(name, known)}; it has {', '.join(known)}"
                )
        return replace(self, **values)

    def parsed(self, name: str, text: str) -> Any:
        """The value of a field as text, as a terminal gives it. Raises RecipeError where it is not of the field's
        kind."""
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

    @property
    def rates(self) -> str:
        """The learning rates in words, for whoever has to lower them."""
        return f"lr {self.lr:g}" + (f", muon_lr {self.muon_lr:g}" if self.optimizer == "muon" else "")

    def num_steps(self, num_images: int) -> int:
        """Training steps for so many training images: at least one, where there are epochs at all."""
        return max(1, round(self.epochs * num_images / self.batch_size)) if self.epochs else 0

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

    def sides_at(self, step: int, num_steps: int, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what a step (from 0) learns from, for images of that size. The shorter side is a multiple
        of four pixels until it is whole, so that few sizes come up; the longer one keeps the shape."""
        grown = min(1.0, step / (self.grow_until * num_steps))
        share, side = self.grow_from + (1 - self.grow_from) * grown, min(height, width)
        smaller = max(1, round(share * side / _GROWN_BY)) * _GROWN_BY
        if share >= 1 or smaller >= side:
            return height, width
        return max(1, round(height * smaller / side)), max(1, round(width * smaller / side))

    @property
    def growth_cost(self) -> float:
        """The arithmetic of a training, as a share of one whose images are whole from the first step on."""
        first = self.grow_from
        return 1 - self.grow_until * (1 - (1 + first + first * first) / 3)

    def to_json(self) -> dict[str, Any]:
        """Every field; `from_json` gives an equal recipe back."""
        return {f.name: list(v) if isinstance(v := getattr(self, f.name), tuple) else v for f in fields(self)}

    @property
    def idle_fields(self) -> set[str]:
        """The fields that do nothing beside the others."""
        if not self.epochs:  # the head alone is fitted, to the pictures as they are
            used = {"epochs", "head", "head_penalty", "balance", "freeze", "frozen_precision", "views", "precision"}
            return {f.name for f in fields(self)} - used
        idle = (set() if self.optimizer == "muon" else {"muon_lr"}) | (set() if self.grow_from < 1 else {"grow_until"})
        idle |= set() if self.freeze and self.kinds else {"frozen_views"}
        return idle | (set() if self.head != "kept" else {"head_penalty"})

    def plan_key(self) -> dict[str, Any]:
        """What tells two plans apart, as JSON. Precision is the machine's choice more often than the person's; a field
        that does nothing, or that recipes of before did not have, stands there only where it says something."""
        unused = {"precision", "frozen_precision"} | self.idle_fields
        unused |= {f.name for f in fields(self) if f.metadata["added"] and getattr(self, f.name) == f.default}
        return {name: value for name, value in self.to_json().items() if name not in unused}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Raises RecipeError where `value` is not a recipe."""
        if not isinstance(value, dict):
            raise RecipeError(f"a recipe is a JSON object, not {shown(value)}")
        missing = [f.name for f in fields(cls) if f.name not in value and not f.metadata["added"]]
        if missing:
            raise RecipeError(f"the recipe has no {missing[0]!r}")
        return cls().replace(**value)

    def __str__(self) -> str:
        mirrored = ["classifying with mirrored views"] if self.views == "mirror" else []
        if not self.epochs:  # of the rest nothing is used
            head = f"head by {self.head} (penalty {self.head_penalty:g}), 0 epochs, balance {self.balance}"
            return ", ".join([head, *mirrored])
        parts = [f"{self.optimizer} lr {self.lr:g}"]
        if self.optimizer == "muon":
            parts.append(f"kernels {self.muon_lr:g}")
        if self.optimizer in ("sgd", "muon"):
            parts.append(f"momentum {self.momentum:g}")
        if self.optimizer != "sgd":
            parts.append("betas {:g}, {:g}".format(*self.betas))
        parts.append(self.schedule + (f" (warm-up {self.warmup_frac:g})" if self.warmup_frac else ""))
        parts += [f"{self.epochs:g} epoch{'' if self.epochs == 1 else 's'}", f"batch {self.batch_size}"]
        parts += [f"in {self.shards} parts"] if self.shards > 1 else []
        for name in ("weight_decay", "label_smoothing", "patience", "ema"):
            if getattr(self, name):
                parts.append(f"{name.replace('_', ' ')} {getattr(self, name):g}")
        parts += [kind.words(self) for kind in self.kinds]
        if self.grow_from < 1:
            parts.append(f"sides growing from {self.grow_from:g} within {100 * self.grow_until:g} % of the steps")
        if self.freeze:
            before = "the head" if self.freeze == "head" else f"layer {self.freeze}"
            views = f", {self.frozen_views} views" if self.kinds else ""
            parts.append(f"all before {before} frozen{views}")
        parts += [f"head by {self.head} (penalty {self.head_penalty:g})"] if self.head != "kept" else []
        parts += [f"balanced by {self.balance}"] if self.balance != "none" else []
        return ", ".join([*parts, *mirrored, self.precision])
