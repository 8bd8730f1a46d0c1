"""convlens: train, honestly evaluate, look inside and ship small convolutional image classifiers.

    import convlens
    run = convlens.train("mnist")
    convlens.load(run.path).predict("mine.png")

The public names are imported on first use, so that `import convlens` itself is light.
"""

TYPE_CHECKING = False  # as typing has it, without importing it: Ctrl-C is one line from the command line's start

if TYPE_CHECKING:
    from convlens.architecture.parser import Architecture, parse
    from convlens.classifier import Classifier, Predictions, load, predict
    from convlens.data.image.framing import InputSpec
    from convlens.data.packed.dataset import Dataset
    from convlens.data.packed.pack import pack
    from convlens.doctor.checking import check
    from convlens.doctor.findings import Findings
    from convlens.errors import ConvlensError, DataError, ImageError, ModelFileError, UsageError
    from convlens.evaluation.compare import Comparison, compare
    from convlens.evaluation.evaluate import Answer, Report, evaluate
    from convlens.experiment import train
    from convlens.explaining import explain
    from convlens.exporting.export import Exported, export
    from convlens.lens.features import Features
    from convlens.lens.film import film
    from convlens.lens.looking import look
    from convlens.microscope.review import review
    from convlens.microscope.serving import serve
    from convlens.network.adopting import adopt
    from convlens.presets import PRESETS
    from convlens.recipe import Recipe
    from convlens.run import Run, Series, runs
    from convlens.runtime.prediction import Prediction
    from convlens.verification import Verification, verify

_HOMES = {  # module -> the public names that live there
    "architecture.parser": "Architecture parse",
    "classifier": "Classifier Predictions load predict",
    "data.image.framing": "InputSpec",
    "data.packed.dataset": "Dataset",
    "data.packed.pack": "pack",
    "doctor.checking": "check",
    "doctor.findings": "Findings",
    "errors": "ConvlensError DataError ImageError ModelFileError UsageError",
    "evaluation.compare": "Comparison compare",
    "evaluation.evaluate": "Answer Report evaluate",
    "verification": "Verification verify",
    "experiment": "train",
    "explaining": "explain",
    "exporting.export": "Exported export",
    "lens.features": "Features",
    "lens.film": "film",
    "lens.looking": "look",
    "microscope.review": "review",
    "microscope.serving": "serve",
    "network.adopting": "adopt",
    "presets": "PRESETS",
    "recipe": "Recipe",
    "run": "Run Series runs",
    "runtime.prediction": "Prediction",
}
_HOME_OF = {name: f"convlens.{home}" for home, names in _HOMES.items() for name in names.split()}

__all__ = ["Answer", "Architecture", "Classifier", "Comparison", "ConvlensError", "DataError", "Dataset"]
__all__ += ["PRESETS", "Exported", "Features", "Findings", "ImageError", "InputSpec", "ModelFileError"]
__all__ += ["Prediction", "Predictions", "Recipe", "Report", "Run", "Series", "UsageError", "Verification"]
__all__ += ["adopt", "check", "compare", "evaluate", "explain", "export", "film", "load", "look", "pack"]
__all__ += ["parse", "predict", "review", "runs", "serve", "train", "verify"]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _HOME_OF:
        try:
            found: object = getattr(import_module(_HOME_OF[name]), name)
            return found
        except ImportError as error:
            if not str(error.name).startswith("convlens."):
                raise
            from convlens.errors import UsageError

            raise UsageError(f"{name} is not part of this installation: {error.name} is missing") from error
    if name == "__version__":
        from importlib.metadata import version

        return version("convlens")
    from convlens.text import no_attribute

    raise no_attribute("module 'convlens'", name)


def __dir__() -> list[str]:
    return sorted(__all__)
