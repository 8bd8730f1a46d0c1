"""`explain`: from a sentence, a model file or a run to its table.

Owns telling the three apart, and the lines that load a model's weights into the printed torch source.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convlens import files
from convlens.architecture import Architecture, Explanation, parse, plan
from convlens.architecture.families import FAMILIES, Family
from convlens.checks import checked, whole
from convlens.errors import UsageError
from convlens.metrics import Scaling
from convlens.presets import PRESETS
from convlens.run import LAST, RUN_FILE, Run, find_model
from convlens.text import shown, whole_numbers

DEFAULT_INPUT = (28, 28, 1)
DEFAULT_CLASSES = 10
_IMAGENET_CLASSES = 1000


def explain(what: Any, *, input: str | Sequence[int] | None = None, classes: int | None = None) -> Explanation:
    """Explain a sentence (or Architecture) on an input, or a trained model on its own.

    `input` is height x width x channels in pixels, `"28x28x1"` or (28, 28, 1), the default; `classes` defaults to
    10; where they are said, a network that ends in numbers must end in so many, as `train` demands. A preset is named
    by its name. A model has both already; a known architecture (`efficientnet-lite0`) was made for a square of its
    own, and for ImageNet's 1,000 classes. Raises SentenceError, ModelFileError, UsageError.
    """
    if isinstance(what, str) and what.strip() in FAMILIES:
        return _explain_family(FAMILIES[what.strip()], input, classes)
    if _names_a_model(what):
        if input is not None or classes is not None:
            raise UsageError("a model has its own input and classes: leave `input` and `classes` away")
        return _explain_model(what)
    architecture = what if isinstance(what, Architecture) else parse(sentence_of(what))
    height, width, channels = parse_input(input if input is not None else DEFAULT_INPUT)
    num_classes = DEFAULT_CLASSES if classes is None else classes
    checked("classes", num_classes, whole(1, 1_000_000))
    found = plan(architecture, (channels, height, width), num_classes, as_classifier=False)
    if classes is not None and len(found.nodes[-1].output_shape) == 1:
        found = plan(architecture, (channels, height, width), num_classes)  # as `train` takes it
    return Explanation(found)


def sentence_of(what: Any) -> Any:
    """The sentence of a preset, by its name; whatever else as it is."""
    preset = PRESETS.get(what.strip()) if isinstance(what, str) else None
    return what if preset is None else preset.architecture


def parse_input(value: str | Sequence[int]) -> tuple[int, int, int]:
    """`"28x28x1"` or (28, 28, 1) as (height, width, channels); without channels 1. Raises UsageError."""
    numbers = whole_numbers(value)
    numbers += [1] if len(numbers) == 2 else []
    if len(numbers) != 3 or not all(1 <= n <= 65_536 for n in numbers):
        raise UsageError(f"input must be height x width x channels like 28x28x1, not {shown(value)!r}")
    return numbers[0], numbers[1], numbers[2]


def _explain_family(known: Family, input: str | Sequence[int] | None, classes: int | None) -> Explanation:
    height, width, channels = parse_input(input if input is not None else (known.side, known.side, 3))
    if height != width:
        raise UsageError(f"{known.name} is for squares, not {height} x {width}")
    num_classes = _IMAGENET_CLASSES if classes is None else classes
    checked("classes", num_classes, whole(1, 1_000_000))
    return Explanation(plan(parse(known.sentence(height)), (channels, height, width), num_classes))


def _names_a_model(what: Any) -> bool:
    if isinstance(what, Run | Path) or _is_classifier(what):
        return True
    if not isinstance(what, str):
        return False
    text = what.strip()
    if text == LAST or text.endswith(".safetensors") or "/" in text or "\\" in text:
        return True
    return files.is_file(Path(text) / RUN_FILE)  # a sentence may be longer than any file name


def _is_classifier(what: Any) -> bool:
    return hasattr(what, "card") and hasattr(what, "path")  # its class lives behind the torch wall


def _explain_model(what: Any) -> Explanation:
    from convlens.modelfile import read_model

    path = find_model(what.path if _is_classifier(what) else what)
    file = read_model(path)
    spec = file.card.input_spec
    loading = [
        "",
        "# its weights (names in the file are those of the module), and the normalisation that it was trained with",
        "from safetensors.torch import load_file",
        "",
        f"tensors = load_file({str(path)!r})",
        "weights = {name: t for name, t in tensors.items() if not name.startswith(('seen.', 'unfamiliar.'))}",
        "network.load_state_dict(weights)",
        "network.eval()",
        "",
        "",
        "def normalise(images_NHWC):",
        '    """uint8 or float 0..255 (N, H, W, C) to what the network takes."""',
        f"    mean = torch.tensor({list(spec.mean)!r}).view(1, -1, 1, 1)",
        f"    std = torch.tensor({list(spec.std)!r}).view(1, -1, 1, 1)",
        "    return (images_NHWC.permute(0, 3, 1, 2).float() - mean) / std",
    ]
    is_mirrored = file.card.views == "mirror"
    mean = "the mean over each image and its mirror image" if is_mirrored else "of each image"
    scaling = Scaling() if file.card.calibration is None else file.card.calibration.scaling
    loading += [
        "",
        "",
        "def logits(images_NHWC):",
        f'    """As convlens classifies with it: {mean}."""',
        "    x = normalise(images_NHWC)",
        f"    return {'(network(x) + network(x.flip(3))) / 2' if is_mirrored else 'network(x)'}",
        "",
        "",
        f"class_names = {list(file.card.class_names)!r}",
        "",
        "",
        "@torch.no_grad()",
        "def probabilities(images_NHWC):",
        '    """As convlens gives them: calibrated, where validation images allowed it."""',
        "    found = logits(images_NHWC).double()",
        "    below = found.amax(1, keepdim=True) - found",
        f"    return (-(below / {scaling.temperature!r} + {scaling.curvature!r} * below**2)).softmax(1)",
    ]
    return Explanation(file.plan, str(path), loading)
