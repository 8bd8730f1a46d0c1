"""What copies across splits are worth in accuracy: the test score as it is, without them, and of a control.

Owns the three trainings of one plan. The control leaves out as many other images of each class, drawn at random: what
its score loses is owed to fewer images, what is lost beyond that is owed to the copies."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from convlens.data.packed.options import PackOptions
from convlens.doctor.findings import Sample
from convlens.errors import DataError
from convlens.experiment import train
from convlens.metrics import Score
from convlens.progress import Progress
from convlens.recipe import Recipe

AS_IT_IS, WITHOUT, CONTROL = "as it is", "without the copies", "control: as many others left out"


def measure_control(
    data: Any, samples: Sequence[Sample], copies: Sequence[str], options: PackOptions, data_root: Any, bar: Progress
) -> tuple[tuple[str, Score], ...]:
    """Test scores, by what was left out of training, of three runs that are kept; the plan is chosen on the data as it
    is, seed 0. Each opens the
    test set. Raises DataError where nothing is to be left out, or there is no test split, and as `train` does."""
    left_out = [s for s in samples if s.name in set(copies)]
    if not left_out:
        raise DataError("there are no copies across splits to leave out: a control would compare the data with itself")
    known: dict[str, Any] = {"data_root": data_root, "test": True, "progress": bar, **options.read._asdict()}
    excluded, scores = list(options.exclude), []
    bar.line(f"training 1 of 3: {AS_IT_IS}")
    first = train(data, exclude=excluded or None, **known)
    record, options = first.record, first.record.dataset.options
    plan: dict[str, Any] = {
        "architecture": record.architecture,
        "recipe": Recipe.from_json(record.recipe),
        "size": options.size,
    }
    plan |= {name: getattr(options, name) for name in ("channels", "framing", "region")}
    scores.append((AS_IT_IS, first.test))
    for number, (what, names) in enumerate(((WITHOUT, list(copies)), (CONTROL, _others(samples, left_out))), 2):
        bar.line(f"training {number} of 3: {what} ({len(names):,} images)")
        run = train(data, exclude=[*excluded, *names], **known, **plan)
        scores.append((what, run.test))
    return tuple((what, score) for what, score in scores if score is not None)


def _others(samples: Sequence[Sample], left_out: Sequence[Sample]) -> list[str]:
    """As many other samples of each split and class, at random."""
    rng = np.random.default_rng(0)
    names = {s.name for s in left_out}
    chosen: list[str] = []
    for (split, label), num in sorted(Counter((s.split, s.label) for s in left_out).items()):
        others = [s.name for s in samples if (s.split, s.label) == (split, label) and s.name not in names]
        chosen += rng.permutation(np.array(others, object))[: min(num, len(others) - 1)].tolist() if others else []
    return chosen
