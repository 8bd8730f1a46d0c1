"""Which augmentation helps: tried on held-out images, not assumed.

Owns the design of the experiment. Four candidates (flips, shifts, crops, cutout) are switched on and off in eight
short trainings, a half fraction of the 2^4 factorial design whose main effects are clear of all two-factor
interactions (resolution IV; Box, Hunter and Hunter, Statistics for Experimenters): so each candidate's effect is a
mean over all eight trainings, four with it and four without, and costs an eighth of the noise of a pair.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from convlens.augmentation import TRIED
from convlens.choosing.probe import Material
from convlens.progress import Progress
from convlens.training.plan import TrainingPlan

# An effect must be this many standard errors to the better: one in ten useless candidates then stays by chance.
_STANDARD_ERRORS = 1.28
_DESIGN = tuple((a, b, c, a ^ b ^ c) for a in (False, True) for b in (False, True) for c in (False, True))


@dataclass(frozen=True)
class Effect:
    """What a kind of augmentation does to the loss on held-out images (nats; below 0 is better), its standard error,
    and to their accuracy. `is_usual`: it is known to help pictures of this kind."""

    kind: str
    loss: float
    standard_error: float
    accuracy: float
    is_usual: bool = False

    @property
    def is_kept(self) -> bool:
        """Whether the loss falls by more than chance explains; of what is usual, whether it does not rise by more."""
        return self.loss < (_STANDARD_ERRORS if self.is_usual else -_STANDARD_ERRORS) * self.standard_error

    def __str__(self) -> str:
        verdict = "kept" if self.is_kept else "left out"
        if self.is_usual and abs(self.loss) < _STANDARD_ERRORS * self.standard_error:
            verdict += ", as is usual, for the trial cannot tell"
        return (
            f"{self.kind}: validation loss {self.loss:+.3f} ± {self.standard_error:.3f}, accuracy "
            f"{100 * self.accuracy:+.1f} points: {verdict}"
        )


def usual_for(channels: int) -> frozenset[str]:
    """What is known to help: photographs and colour pictures of things bear being mirrored and moved (Krizhevsky,
    Sutskever and Hinton, 2012, section 4.1), drawn signs being moved."""
    return frozenset({"shift", "flip"} if channels == 3 else {"shift"})


def effects(material: Material, plan: TrainingPlan, bar: Progress) -> list[Effect]:
    """The main effect of each kind on a plan without augmentation, from eight trainings."""
    side = min(plan.network.input_shape[1:])
    bar.start("trying augmentation", len(_DESIGN), unit="trainings")
    losses, right = [], []
    for number, switched_on in enumerate(_DESIGN):
        kinds = [kind for kind, on in zip(TRIED, switched_on, strict=True) if on]
        trial = material.try_out(replace(plan, recipe=plan.recipe.with_kinds(kinds, side), seed=plan.seed + number))
        losses.append(np.minimum(trial.losses_N, 20.0))  # a diverged one is bad, not infinitely so
        right.append(trial.right_N.astype(np.float64))
        bar.advance(1)
    return _main_effects(np.stack(losses), np.stack(right), usual_for(plan.network.input_shape[0]))


def _main_effects(
    losses_RN: NDArray[np.float64], right_RN: NDArray[np.float64], usual: frozenset[str] = frozenset()
) -> list[Effect]:
    """From the eight trainings' losses and hits, each (R, N), in the order of the design.

    Two things make an effect uncertain: the images that it was measured on, and the trainings, whose noise shows in
    the three contrasts that the design leaves over. The larger of the two estimates counts.
    """
    signs = np.where(np.array(_DESIGN), 1.0, -1.0)
    scale = len(_DESIGN) / 2
    left_over = np.stack([signs[:, 0] * signs[:, 1], signs[:, 0] * signs[:, 2], signs[:, 0] * signs[:, 3]]) / scale
    of_trainings = math.sqrt(float(((left_over @ losses_RN.mean(axis=1)) ** 2).mean()))
    found = []
    for place, kind in enumerate(TRIED):
        sign = signs[:, place] / scale
        per_image_N = sign @ losses_RN
        of_images = float(per_image_N.std(ddof=1)) / math.sqrt(len(per_image_N)) if len(per_image_N) > 1 else math.inf
        error = max(of_images, of_trainings)
        right = float((sign @ right_RN).mean())
        found.append(Effect(kind, float(per_image_N.mean()), error, right, kind in usual))
    return found
