"""What the choices share: the request, the draft that they fill in, and the lines that say why.

Owns no choice.
"""

from dataclasses import replace
from typing import Any

from convlens.architecture import Plan, parse, plan
from convlens.choosing.budget import USUAL_S, batch_size_for, least_epochs
from convlens.choosing.sizes import Part
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.pack import open_listed
from convlens.presets import NATURAL, natural_for
from convlens.progress import Progress
from convlens.recipe import Recipe
from convlens.training.plan import TrainingPlan
from convlens.training.request import Draft, TrainRequest

_TRIAL_SHARE, _MOST_TRIAL_S = 0.04, 12.0  # of the time that a trial may take


class Choosing:
    """The state of the choices: `draft` so far, `reasons` for it, and the data sets that were looked at."""

    def __init__(self, request: TrainRequest, draft: Draft, bar: Progress) -> None:
        self.request, self.draft, self.bar = request, draft, bar
        self.budget_s, self.pinned = request.budget_s, request.pinned
        self.is_open = request.leaves_open(draft.parent)
        self.reasons: list[str] = []
        self.previews: list[Dataset] = []
        self.are_photographs = self.are_files = False
        self.beside_s = 0.0  # that packing and trials take, about; nothing that is chosen hangs on what they took
        self.expected_s: float | None = None  # of the training itself
        self.outputs_s = 0.0  # that a pretrained network takes for all pictures

    @property
    def trial_s(self) -> float:
        """Seconds that each training of a probe may take, about."""
        return min(_MOST_TRIAL_S, _TRIAL_SHARE * self.whole_s)

    @property
    def whole_s(self) -> float:
        """Seconds that each training may take, all told."""
        return USUAL_S if self.budget_s is None else self.budget_s / self.request.num_trainings

    def say(self, line: str) -> None:
        """One choice and its reason."""
        self.reasons.append(line)
        self.bar.line(line)

    def fill(self, **values: Any) -> None:
        """Put what was chosen into the draft; of the options by their own names."""
        options = {name: values.pop(name) for name in ("size", "channels", "framing") if name in values}
        self.draft = replace(self.draft, options=self.draft.options.replace(**options), **values)

    def opened(self, part: Part, side: int, **options: Any) -> Dataset:
        """A part of the source, packed as the draft says but for these options."""
        asked = part.of(self.draft.options).replace(size=(side, side), **options)
        return open_listed(part.source, asked, val_frac=self.request.val_share, progress=self.bar)

    def plan_for(self, dataset: Dataset, network: Plan, recipe: Recipe) -> TrainingPlan:
        """What a probe trains."""
        draft, seed = self.draft, self.request.seed or 0
        return TrainingPlan(
            dataset=dataset, network=network, recipe=recipe, seed=seed, compute=draft.compute, parent=draft.parent
        )

    def plan_from_nothing(self, dataset: Dataset, factor: float) -> TrainingPlan:
        """Preset `natural`, fitted to a data set that stands for one of `factor` times as many images."""
        shape, num_images = dataset.input_spec.shape, dataset.counts["train"]
        network = plan(parse(natural_for(*shape[1:])), shape, len(dataset.class_names))
        kinds = ("shift",) if self.request.kinds is None else self.request.kinds
        recipe = NATURAL.recipe.with_kinds(kinds, min(shape[1:])).replace(
            precision=self.draft.compute.precision,
            views="none",
            epochs=least_epochs(round(num_images * factor)),
            batch_size=batch_size_for(num_images),
        )
        return self.plan_for(dataset, network, recipe)
