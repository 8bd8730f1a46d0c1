"""Weights of timm from the Hugging Face Hub: a file and its preprocessing, as a model of convlens.

Owns the names (`timm/resnet18.a1_in1k`, with `@REVISION` where one is wanted), what of a repository's config.json is
read, and the pin: the revision and the SHA-256 that a name was first fetched with, to which it is held from then on.
The fetching is huggingface_hub's, which the extra `hub` installs.
"""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from convlens import files
from convlens.architecture.families import Family, family
from convlens.data.image.framing import InputSpec
from convlens.errors import ConvlensError, ModelFileError
from convlens.modelfile import FORMAT_VERSION, Origin, read_model
from convlens.network.adopting import IMAGENET, NUM_IMAGENET, imagenet_classes, read_safetensors, write_adopted
from convlens.records import Count, Name, Record, Sha256, Share, converted, json_value, read_document, write_sealed
from convlens.text import shown

_NAME = re.compile(r"(timm/[\w.-]{1,100})(?:@([\w.-]{1,100}))?")
_WEIGHTS, _CONFIG = "model.safetensors", "config.json"
_DOCUMENT, _PIN_VERSION = "convlens-pin", 1
_MOST_CONFIG_BYTES = 1 << 20
_FAMILIES = {  # timm's names of what convlens knows as sentences
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "mobilenetv2_100": "mobilenetv2",
    **{f"tf_efficientnet_lite{n}": f"efficientnet-lite{n}" for n in range(3)},
}


class _Pin(Record, frozen=True, kw_only=True):
    """What a name stands for here, since it was first fetched."""

    kind: Name
    format_version: Count
    name: Name
    revision: Name
    weights_sha256: Sha256


def is_hub_name(what: object) -> bool:
    """Whether this is a name on the hub rather than a path."""
    return isinstance(what, str) and _NAME.fullmatch(what) is not None and not files.is_file(what)


def hub_model(what: str) -> Path:
    """The model file of a name on the hub, made in the cache when it is first asked for, and after that without a
    network. Raises ModelFileError: no network, no such repository, another file than the one that it is pinned to, an
    architecture or preprocessing that convlens does not know."""
    folder = files.make_folder(files.cache_folder() / "models")
    stem = what.replace("/", "--").replace("@", "--at--")
    path, pin_path = folder / f"{stem}-{FORMAT_VERSION}.safetensors", folder / f"{stem}.pin.json"
    with files.lock(path.with_suffix(".lock")):
        pin = _read_pin(pin_path, what)
        try:
            found = read_model(path).card.origin
            if pin is not None and found is not None and found.sha256 == pin.weights_sha256:
                return path
        except ModelFileError:  # not there yet, or damaged
            pass
        _make(what, pin, path, pin_path)
    return path


def _read_pin(path: Path, what: str) -> _Pin | None:
    if not files.is_file(path):
        return None
    try:
        pin = read_document(path, _DOCUMENT, {_PIN_VERSION: _Pin}, sealed_from=1)
        if pin.name != what:
            raise ModelFileError("it is of another name")
    except ConvlensError as error:
        raise ModelFileError(f"{shown(path, 200)}: {error}; remove it to fetch {what} anew") from error
    return pin


def _make(what: str, pin: _Pin | None, path: Path, pin_path: Path) -> None:
    match = _NAME.fullmatch(what)
    assert match is not None, "the caller has looked"
    repository, revision = match[1], pin.revision if pin else match[2]
    config_file = _fetched(repository, _CONFIG, revision)
    # A snapshot's folder has the commit's name; the weights must be of the same commit.
    revision = config_file.parent.name
    known, spec, tag = _read_config(config_file, what)
    weights = _fetched(repository, _WEIGHTS, revision)
    sha256 = files.sha256_of_file(weights)
    if pin is not None and sha256 != pin.weights_sha256:
        raise ModelFileError(
            f"{what} was fetched before with the SHA-256 {pin.weights_sha256[:16]}, and has {sha256[:16]} now: remove "
            f"{shown(pin_path, 200)} if it may be another"
        )
    origin = Origin(
        name=what,
        source=f"huggingface.co, {repository} at {revision[:12]}, {_WEIGHTS}",
        sha256=sha256,
        trained_on=_trained_on(tag),
        licence=_licence(repository, revision),
    )
    write_adopted(read_safetensors(weights), known, spec, imagenet_classes(), origin, path)
    document: dict[str, Any] = {"kind": _DOCUMENT, "format_version": _PIN_VERSION, "name": what}
    write_sealed(pin_path, document | {"revision": revision, "weights_sha256": sha256})


def _fetched(repository: str, file: str, revision: str | None) -> Path:
    """A file of a repository in huggingface_hub's cache. Raises ModelFileError, in one line, whatever goes wrong."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ModelFileError(f"{repository} is on the Hugging Face Hub: pip install 'convlens[hub]'") from error
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except Exception as error:  # its own and its HTTP library's errors, which change from version to version
        reason = shown(str(error).strip().partition("\n")[0], 150)
        raise ModelFileError(
            f"cannot fetch {file} of {repository} ({type(error).__name__}: {reason}): fetch it where there is a "
            f"network, with its {_CONFIG}, and use convlens adopt {file} --as ARCHITECTURE --mean … --std … --crop …"
        ) from error


class _Preprocessing(Record, frozen=True):
    """What a repository's config.json must say: how its pictures are prepared."""

    input_size: tuple[Count, Count, Count]
    mean: tuple[Share, Share, Share]
    std: tuple[Share, Share, Share]
    crop_pct: Share
    tag: Name
    crop_mode: Name


def _read_config(path: Path, what: str) -> tuple[Family, InputSpec, Name]:
    """Architecture, preprocessing and tag. Raises ModelFileError where one of them is missing or unknown."""
    where = f"{_CONFIG} of {what}"
    try:
        config = json_value(files.read_regular(path, _MOST_CONFIG_BYTES), where)
        said = config.get("pretrained_cfg") if isinstance(config, dict) else None
        wanted = {name: said[name] for name in _Preprocessing.__struct_fields__ if name in said} if said else {}
        found = converted({"tag": "", "crop_mode": "center"} | wanted, _Preprocessing, where)
    except (OSError, TypeError, ConvlensError) as error:
        raise ModelFileError(
            f"{where} does not say how its pictures are prepared ({shown(error, 150)}): without that every answer is "
            f"wrong; with the values from elsewhere use convlens adopt"
        ) from error
    architecture = str(config.get("architecture"))
    if architecture not in _FAMILIES:
        raise ModelFileError(
            f"{what} is a {shown(architecture)}, which is no chain of layers that convlens has names for; it knows "
            f"{', '.join(_FAMILIES)}"
        )
    if config.get("num_classes") != NUM_IMAGENET:
        raise ModelFileError(f"{what} does not tell ImageNet's 1,000 classes apart: use convlens adopt with `classes`")
    channels, height, width = found.input_size
    if channels != 3 or height != width or found.crop_mode != "center":
        raise ModelFileError(f"{where} asks for pictures that convlens does not prepare ({shown(found, 150)})")
    mean, std = (tuple(255.0 * value for value in values) for values in (found.mean, found.std))
    spec = InputSpec(height, width, 3, "crop", mean, std, crop_frac=found.crop_pct)
    return family(_FAMILIES[architecture]), spec, found.tag


def _trained_on(tag: str) -> str:
    return IMAGENET if tag.endswith("in1k") and "_ft_" not in tag else f"what timm's tag {shown(tag)} stands for"


def _licence(repository: str, revision: str) -> str | None:
    """As the repository's README says in its first lines; None where it does not."""
    with suppress(ModelFileError, OSError):
        text = files.read_start(_fetched(repository, "README.md", revision), 10_000)[0].decode("utf-8", "replace")
        match = re.search(r"^license: *([\w.-]+)", text, re.MULTILINE)
        return None if match is None else match[1]
    return None
