"""The plan of a training: everything that identifies it, nothing left open.

Owns the value, what its bits depend on, and the first content of run.json. How it comes about from a request is
`experiment.py`'s business.
"""

import json
from dataclasses import dataclass, replace

from convlens.architecture import Plan
from convlens.data.image.framing import InputSpec
from convlens.data.packed.dataset import Dataset
from convlens.files import sha256_of
from convlens.network.compute import Compute, versions
from convlens.recipe import Recipe
from convlens.run import DOCUMENT, FORMAT_VERSION, ComputeRecord, RunRecord, now
from convlens.training.warm_start import Parent


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Everything automatic resolved. `reasons` has a line for each choice, `pinned` the names of what was typed; `test`
    says whether test is opened at the end, `folds` whether all images are measured by cross-validation first.
    `expected_s`: about what the training takes on a machine that does nothing else, where that is known. `given_spec`
    is the leader's, in a process that follows it and has no parent."""

    dataset: Dataset
    network: Plan
    recipe: Recipe
    seed: int
    compute: Compute
    preset: str | None = None
    parent: Parent | None = None
    test: bool = False
    folds: int | None = None
    keep_filters: bool = False
    omit_record: bool = False
    reasons: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()
    expected_s: float | None = None
    given_spec: InputSpec | None = None

    @property
    def spec(self) -> InputSpec:
        """The network's input; a parent's weights go with the mean and std that it was trained with."""
        spec = self.dataset.input_spec
        if self.given_spec is not None or self.parent is None:
            return self.given_spec or spec
        return spec.with_statistics(self.parent.card.input_spec.mean, self.parent.card.input_spec.std)

    @property
    def first(self) -> int:
        """How many of the outermost layers are frozen. Raises SentenceError for an address that is not there."""
        return self.network.index_of(self.recipe.freeze) if self.recipe.freeze else 0

    @property
    def frozen_compute(self) -> Compute:
        """How the outputs of frozen layers are computed."""
        precision = self.recipe.frozen_precision
        return self.compute if precision == "auto" else replace(self.compute, precision=precision)

    @property
    def identity(self) -> str:
        """SHA-256 of what the bits depend on: a checkpoint belongs to this and nothing else."""
        # How many processes there are is one of those, unless each batch is cut into the same parts by all of them.
        compute = self.compute if self.recipe.shards == 1 else replace(self.compute, processes=1)
        parts = [
            str(self.network.architecture),
            self.recipe.plan_key(),
            self.seed,
            self.dataset.fingerprint,
            self.dataset.val_frac,
            compute.to_json(),
            self.frozen_compute.precision,
            self.parent.sha256 if self.parent else None,
            self.dataset.is_merged,
        ]
        return sha256_of(json.dumps(parts, sort_keys=True).encode())

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.recipe.num_steps(self.dataset.counts["train"])

    def epochs_after(self, step: int) -> float:
        """Passes over the training images within so many steps."""
        return step * self.recipe.batch_size / self.dataset.counts["train"]

    def record(self) -> RunRecord:
        """run.json before the first step."""
        return RunRecord(
            kind=DOCUMENT,
            format_version=FORMAT_VERSION,
            status="running",
            created=now(),
            dataset=self.dataset.identity(),
            architecture=str(self.network.architecture),
            preset=self.preset,
            recipe=self.recipe.to_json(),
            seed=self.seed,
            compute=ComputeRecord(**self.compute.to_json()),
            test_asked=self.test,
            keep_filters=self.keep_filters,
            omit_record=self.omit_record,
            choices=self.reasons,
            pinned=self.pinned,
            parent=None if self.parent is None else self.parent.facts(),
            folds=self.folds,
            num_parameters=self.network.num_parameters,
            multiply_adds=self.network.multiply_adds,
            num_steps=self.num_steps,
            step=0,
            versions=versions(),
            train_s=0.0,
            images_per_s=None,
            val_s=0.0,
            checkpoint_s=0.0,
            val=None,
            test=None,
        )
