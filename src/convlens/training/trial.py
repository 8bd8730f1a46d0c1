"""A trial: a training in memory, measured on images that it did not learn from.

Owns the measurement. Which images those are is the caller's: `choosing/` probes so, cross-validation scores folds so.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from convlens.errors import DivergedError
from convlens.metrics import softmax
from convlens.progress import Progress
from convlens.training.fit import fit
from convlens.training.plan import TrainingPlan


@dataclass(frozen=True)
class Trial:
    """What a trial found: for the held-out images logits (N, K) (not finite where it diverged), cross-entropies in nats
    (N,) and whether each was right (N,)."""

    logits_NK: NDArray[np.float32]
    losses_N: NDArray[np.float64]
    right_N: NDArray[np.bool_]

    @property
    def accuracy(self) -> float:
        """Share of the held-out images that were right."""
        return float(self.right_N.mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return float(self.losses_N.mean())


def run_trial(
    plan: TrainingPlan, rows: NDArray[np.int64], held_out: NDArray[np.int64], bar: Progress | None = None
) -> Trial:
    """Train the plan once on `rows` of its data and measure on those `held_out`, both int64.

    A training that diverges is one that is wrong everywhere. Patience needs validation and is left aside.
    """
    plan = replace(plan, recipe=plan.recipe.replace(patience=0))
    labels_N = plan.dataset.labels_at(held_out)
    with fit(plan, rows, bar) as fitting:
        images = fitting.measured(held_out)
        try:
            done = 0
            for _ in fitting.steps():
                if bar is not None and fitting.num_steps:
                    bar.advance((fitting.state.step - done) / fitting.num_steps)
                done = fitting.state.step
            logits_NK = fitting.logits(images)
        except DivergedError:
            logits_NK = np.full((len(held_out), plan.network.num_classes), np.nan, np.float32)
    if not np.isfinite(logits_NK).all():
        return Trial(logits_NK, np.full(len(labels_N), np.inf), np.zeros(len(labels_N), bool))
    chosen = softmax(logits_NK)[np.arange(len(labels_N)), labels_N]
    return Trial(logits_NK, -np.log(np.maximum(chosen, 1e-12)), logits_NK.argmax(axis=1) == labels_N)
