"""convlens: train, honestly evaluate, look inside and ship small convolutional image classifiers.

    import convlens
    run = convlens.train("mnist")
    convlens.load(run.path).predict("mine.png")

The public names are imported on first use, so that `import convlens` itself is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convlens.architecture.parser import Architecture, parse
    from convlens.classifier import Classifier, Prediction, load, predict
    from convlens.data.image.framing import InputSpec
    from convlens.data.packed.dataset import Dataset
    from convlens.data.packed.pack import pack
    from convlens.doctor.checking import check
    from convlens.doctor.findings import Findings
    from convlens.errors import ConvlensError
    from convlens.evaluation.evaluate import Report, evaluate
    from convlens.experiment import train
    from convlens.explaining import explain
    from convlens.lens.features import Features
    from convlens.lens.film import film
    from convlens.lens.looking import look
    from convlens.microscope.serving import serve
    from convlens.presets import PRESETS
    from convlens.recipe import Recipe
    from convlens.run import Run, Series, runs

_HOMES = {
    "Architecture": "convlens.architecture.parser",
    "Classifier": "convlens.classifier",
    "ConvlensError": "convlens.errors",
    "Dataset": "convlens.data.packed.dataset",
    "Features": "convlens.lens.features",
    "Findings": "convlens.doctor.findings",
    "InputSpec": "convlens.data.image.framing",
    "PRESETS": "convlens.presets",
    "Prediction": "convlens.classifier",
    "Recipe": "convlens.recipe",
    "Report": "convlens.evaluation.evaluate",
    "Run": "convlens.run",
    "Series": "convlens.run",
    "check": "convlens.doctor.checking",
    "evaluate": "convlens.evaluation.evaluate",
    "explain": "convlens.explaining",
    "film": "convlens.lens.film",
    "load": "convlens.classifier",
    "look": "convlens.lens.looking",
    "pack": "convlens.data.packed.pack",
    "parse": "convlens.architecture.parser",
    "predict": "convlens.classifier",
    "runs": "convlens.run",
    "serve": "convlens.microscope.serving",
    "train": "convlens.experiment",
}

__all__ = [
    "PRESETS",
    "Architecture",
    "Classifier",
    "ConvlensError",
    "Dataset",
    "Features",
    "Findings",
    "InputSpec",
    "Prediction",
    "Recipe",
    "Report",
    "Run",
    "Series",
    "check",
    "evaluate",
    "explain",
    "film",
    "load",
    "look",
    "pack",
    "parse",
    "predict",
    "runs",
    "serve",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        try:
            return getattr(import_module(_HOMES[name]), name)
        except ImportError as error:
            if not str(error.name).startswith("convlens."):
                raise
            from convlens.errors import UsageError

            raise UsageError(f"{name} is not part of this installation: {error.name} is missing") from error
    raise AttributeError(f"module 'convlens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
