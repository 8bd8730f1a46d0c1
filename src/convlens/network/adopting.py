"""The weights of others as model files: a state dict's names to the addresses of a sentence.

Owns the one place where a file in pickle's format is opened (`torch.load` with `weights_only`, which makes tensors and
nothing else), what must be said of such weights, and the names that do not match.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from convlens import files
from convlens.architecture import parse, plan
from convlens.architecture.families import Family, family
from convlens.checks import checked, whole
from convlens.data.image.framing import InputSpec
from convlens.errors import ModelFileError, UsageError
from convlens.modelfile import Metrics, ModelCard, Origin, check_finite, write_model
from convlens.text import counted, listed, shown

MAX_WEIGHTS_BYTES = 4 * 1024**3
NUM_IMAGENET = 1000
IMAGENET = "ImageNet-1k (ILSVRC 2012), its 1.28 million training pictures"


def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 short names, in the order of the logits."""
    text = resources.files(__package__).joinpath("imagenet-classes.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if not line.startswith("#"))


def adopt(
    weights: str | Path,
    *,
    architecture: str,
    mean: str | Sequence[float] | None = None,
    std: str | Sequence[float] | None = None,
    crop: float | None = None,
    framing: str = "crop",
    size: int | None = None,
    classes: str | Path | Sequence[str] | None = None,
    trained_on: str | None = None,
    licence: str | None = None,
    out: str | Path | None = None,
) -> Path:
    """Make a model file of weights that somebody trained: a state dict of a known architecture, `.safetensors` or
    `.pth`, in torchvision's or timm's names. Returns its path.

    `mean` and `std` are what pictures are normalised with, one number for each of R, G and B, in 0..1 or 0..255;
    weights of the same names differ in it, so that they must be said. `crop` is the share of the sides that was cut out
    (ImageNet's protocol: 0.875), `size` the pixels a side (the architecture's own), `classes` the names in the order of
    the outputs, or a file with one a line; 1,000 without names are ImageNet's. `out` is the model file (that of the
    weights, as `.safetensors`). Raises ModelFileError, which lists names that do not match, UsageError, StorageError.
    """
    source, known = Path(weights), family(architecture)
    place = source.with_name(f"{source.stem}-{known.name}.safetensors") if out is None else Path(out)
    files.check_new_file(place, (".safetensors",))
    if mean is None or std is None:
        missing = "mean" if mean is None else "std"
        raise UsageError(
            "weights do not say how their pictures were normalised, and without that every answer is wrong: give "
            f"`{missing}` as their source has it (ImageNet's are often 0.485,0.456,0.406 and 0.229,0.224,0.225)"
        )
    side = known.side if size is None else checked("size", size, whole(16, 1024))
    statistics = _of_channels("mean", mean), _of_channels("std", std)
    scale = 255.0 if max(map(max, statistics)) <= 1 else 1.0
    if scale == 1 and max(statistics[0]) > 1 >= max(statistics[1]):
        raise UsageError("`mean` and `std` must both be in 0..1 or both in 0..255")
    own_mean, own_std = (tuple(scale * value for value in values) for values in statistics)
    spec = InputSpec(side, side, 3, framing, own_mean, own_std, crop_frac=1.0 if crop is None else crop)
    state = read_safetensors(source) if source.suffix == ".safetensors" else read_state_dict(source)
    biases = [f"{modules[-1]}.bias" for modules in known.modules().values()]  # of the last layer
    num_classes = next((state[name].size for name in biases if name in state), NUM_IMAGENET)
    origin = Origin(
        name=source.name[:200],
        source=f"the file {source.name[:200]}",
        sha256=files.sha256_of_file(source),
        trained_on=trained_on,
        licence=licence,
    )
    write_adopted(state, known, spec, _class_names(classes, num_classes), origin, place)
    return place


def _of_channels(name: str, value: str | Sequence[float]) -> tuple[float, ...]:
    """Three numbers, as a sequence or as text parted by commas. Raises UsageError."""
    try:
        found = tuple(float(part) for part in (value.split(",") if isinstance(value, str) else value))
    except (TypeError, ValueError):
        found = ()
    if len(found) != 3 or not all(0 <= one <= 255 for one in found) or (name == "std" and min(found) <= 0):
        raise UsageError(f"{name} must be three numbers, of R, G and B, in 0..1 or 0..255, not {shown(value)!r}")
    return found


def _class_names(classes: str | Path | Sequence[str] | None, num: int) -> tuple[str, ...]:
    """The names of that many classes. Raises UsageError."""
    if classes is None:
        if num != NUM_IMAGENET:
            raise UsageError(f"these weights tell {num:,} classes apart: give their names with `classes`, in order")
        return imagenet_classes()
    names: Sequence[str] = list(classes) if not isinstance(classes, str | Path) else []
    if isinstance(classes, str | Path):
        try:
            text = files.read_regular(Path(classes), 64 << 20).decode("utf-8-sig")
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read the class names {shown(classes, 200)}: {shown(error)}") from error
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if len(names) != num or len(set(names)) != num:
        raise UsageError(f"these weights tell {num:,} classes apart: `classes` has {len(set(names)):,} different names")
    return tuple(names)


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a `.safetensors` file by name. Raises ModelFileError."""
    where = shown(path, 200)
    try:
        found = safetensors.torch.load(files.read_regular(path, MAX_WEIGHTS_BYTES))
        return {name: _array(tensor) for name, tensor in found.items()}
    except OSError as error:
        raise ModelFileError(f"cannot read {where}: {error.strerror or error}") from error
    except Exception as error:  # whatever a stranger's file makes the library raise
        raise ModelFileError(f"{where} is damaged, truncated or no safetensors file ({shown(error, 200)})") from error


def read_state_dict(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a `.pth` file by name. Nothing in the file is run: `weights_only` makes tensors and plain
    containers alone. Raises ModelFileError where there is anything else in it."""
    where = shown(path, 200)
    try:
        content = io.BytesIO(files.read_regular(path, MAX_WEIGHTS_BYTES))
        with warnings.catch_warnings(action="ignore"):  # of the protocols of other pickles
            loaded = torch.load(content, map_location="cpu", weights_only=True)
        if isinstance(loaded, dict) and len(wrapped := {"state_dict", "model"} & loaded.keys()) == 1:
            loaded = loaded[wrapped.pop()]  # of a checkpoint
        if not isinstance(loaded, Mapping) or not all(isinstance(v, torch.Tensor) for v in loaded.values()):
            raise ModelFileError(f"{where} is no state dict: it must map names to tensors")
        return {str(name): _array(tensor) for name, tensor in loaded.items()}
    except ModelFileError:
        raise
    except OSError as error:
        raise ModelFileError(f"cannot read {where}: {error.strerror or error}") from error
    except Exception as error:  # whatever a stranger's file makes pickle, zip or torch raise
        reason = shown(str(error).partition("\n")[0], 200)
        raise ModelFileError(f"{where} is no state dict that can be read safely ({reason})") from error


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    found: NDArray[Any] = tensor.detach().to(torch.float32 if tensor.is_floating_point() else torch.int64).numpy()
    return found


def write_adopted(
    state: Mapping[str, NDArray[Any]],
    known: Family,
    spec: InputSpec,
    class_names: tuple[str, ...],
    origin: Origin,
    path: Path,
) -> None:
    """Write somebody's weights of a known architecture as a model file. Raises ModelFileError that lists the names
    which do not match, in the naming that fits best."""
    network = plan(parse(known.sentence(spec.height)), spec.shape, len(class_names))
    leaves = [leaf for leaf in network.leaves if leaf.tensors]
    misfits = {}
    for namer, modules in known.modules().items():
        wanted = {
            f"{module}.{tensor}": (f"{leaf.address}.{tensor}", shape)
            for module, leaf in zip(modules, leaves, strict=True)
            for tensor, shape in leaf.tensors.items()
        }
        # How many batches were seen is not always saved, and changes no answer.
        missing = [n for n in wanted if n not in state and not n.endswith("num_batches_tracked")]
        others = [n for n in state if n not in wanted]
        if not missing and not others:
            break
        misfits[namer] = (missing, others)
    else:
        namer, (missing, others) = min(misfits.items(), key=lambda item: sum(map(len, item[1])))
        parts = [f"misses {listed(missing, 5)}"] if missing else []
        parts += [f"has {listed(others, 5)}, which is not in it"] if others else []
        raise ModelFileError(
            f"these weights are not {known.name}'s as {namer} names them: of {counted(len(state), 'tensor')} "
            f"{len(others):,} have no place, and {len(missing):,} are missing ({'; '.join(parts)})"
        )
    tensors = {}
    for name, (address, shape) in wanted.items():
        kind = np.int64 if name.endswith("num_batches_tracked") else np.float32
        array = state.get(name, np.zeros(shape, kind))
        if array.shape != shape:
            raise ModelFileError(f"tensor {shown(name)} is {array.shape}, and {shape} in {known.name}")
        tensors[address] = array.astype(kind)
    check_finite(tensors, shown(origin.source, 200))
    card = ModelCard(
        architecture=str(network.architecture),
        input_spec=spec,
        class_names=class_names,
        recipe=None,
        preset=None,
        seed=None,
        dataset=None,
        training=None,
        metrics=Metrics(),
        versions={},
        created="unknown",  # made anew the file is the same, and runs that began with it can be resumed
        origin=origin,
    )
    write_model(path, card, tensors)
