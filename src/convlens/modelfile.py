"""The model file: one `.safetensors` whose metadata holds a JSON card that knows everything.

Owns the format (docs/formats.md), its checks, and the bundle of tensors with a card that checkpoints use too.
Tensors are NumPy arrays here. Nothing is pickled. The stored SHA-256 detects damage, not malice.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from convlens import files
from convlens.architecture import Plan, parse, plan
from convlens.checks import need
from convlens.data.image.framing import InputSpec
from convlens.errors import ConvlensError, ModelFileError
from convlens.recipe import Recipe
from convlens.text import shown

FORMAT_VERSION = 1
MAX_FILE_BYTES = 8 * 1024**3
MAX_CLASSES = 100_000

Tensors = dict[str, NDArray[Any]]


# ---------------------------------------------------------------- tensors with a card


def _digest(tensors: Mapping[str, NDArray[Any]], card_text: str) -> str:
    digest = hashlib.sha256(card_text.encode())
    for name in sorted(tensors):
        array = np.asarray(tensors[name], order="C")
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_bundle(path: Path, kind: str, card: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> str:
    """Write tensors and a JSON card as one safetensors file, durably; returns the file's SHA-256.

    Raises StorageError.
    """
    card_text = json.dumps({"kind": kind, "format_version": FORMAT_VERSION, **card}, allow_nan=False, sort_keys=True)
    contiguous = {name: np.array(array, order="C") for name, array in tensors.items()}
    data = save_tensors(contiguous, {"convlens": card_text, "sha256": _digest(contiguous, card_text)})
    files.write_bytes(path, data)
    return files.sha256_of(data)


def read_bundle(path: Path, kind: str) -> tuple[dict[str, Any], Tensors]:
    """Card and tensors of a bundle of this kind. Raises ModelFileError where anything is not as it was written."""
    where = shown(path, 200)
    try:
        if path.is_dir():
            raise ModelFileError(f"{where} is a folder, not a model file")
        if not path.is_file():
            raise ModelFileError(f"cannot read {where}: there is no such file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ModelFileError(f"{where} is larger than {MAX_FILE_BYTES:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {where}: {error.strerror or error}") from error
    try:
        tensors: Tensors = load_tensors(data)
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelFileError(f"{where} is damaged, truncated or no convlens file ({shown(error)})") from error
    try:
        metadata = _metadata(data)
        card_text = metadata["convlens"]
        card = json.loads(card_text)
        stored = metadata["sha256"]
    except KeyError as error:
        raise ModelFileError(f"{where} is a safetensors file, but not of convlens (no {error} in it)") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{where} is damaged, truncated or no convlens file ({shown(error)})") from error
    if not isinstance(card, dict) or card.get("kind") != kind:
        found = card.get("kind") if isinstance(card, dict) else card
        raise ModelFileError(f"{where} is not a {kind}, but {shown(found)}")
    if card.get("format_version") != FORMAT_VERSION:
        raise ModelFileError(
            f"{where} has format version {shown(card.get('format_version'))}; this convlens reads {FORMAT_VERSION}"
        )
    if _digest(tensors, card_text) != stored:
        raise ModelFileError(f"{where} is damaged: its contents do not match the SHA-256 stored in it")
    return card, tensors


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file whose header the library has already checked."""
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length].decode("utf-8")).get("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError("its metadata is not an object")
    return metadata


# ---------------------------------------------------------------- models


@dataclass(frozen=True)
class ModelCard:
    """Everything about a model but its tensors. All of it is checked when it is read.

    `training` holds step, epochs, precision, device, threads and which weights (last or ema); `dataset` what
    identifies the data; `metrics` val and test scores (or None); `calibration` None or values (later).
    """

    architecture: str
    input_spec: InputSpec
    class_names: tuple[str, ...]
    recipe: Recipe
    preset: str | None
    seed: int
    dataset: Mapping[str, Any]
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]
    versions: Mapping[str, str]
    created: str
    calibration: None = None

    def plan(self) -> Plan:
        """The network's plan. Raises SentenceError where the sentence does not fit input and classes."""
        return plan(parse(self.architecture), self.input_spec.shape, len(self.class_names))

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return (
            {"architecture": self.architecture, "input": self.input_spec.to_json()}
            | {"class_names": list(self.class_names), "recipe": self.recipe.to_json(), "preset": self.preset}
            | {"seed": self.seed, "dataset": dict(self.dataset), "training": dict(self.training)}
            | {"metrics": dict(self.metrics), "versions": dict(self.versions), "created": self.created}
            | {"calibration": self.calibration}
        )

    @classmethod
    def from_json(cls, card: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError, ValueError or ConvlensError where a part is missing or not what it must be."""
        names = tuple(card["class_names"])
        if (
            not 2 <= len(names) <= MAX_CLASSES
            or not all(isinstance(n, str) for n in names)
            or len(set(names)) != len(names)
        ):
            raise ValueError("class_names must be at least two different names")
        parts = {key: card[key] for key in ("dataset", "training", "metrics", "versions")}
        if not all(isinstance(part, dict) for part in parts.values()) or not isinstance(card["architecture"], str):
            raise TypeError("a part of the card is not what it must be")
        need(parts["dataset"], name=str, source=str, fingerprint=str, options=dict, val_frac=float, num_samples=dict)
        need(parts["training"], step=int, epochs=float, weights=str, precision=str)
        for score in parts["metrics"].values():
            if score is not None:
                need(score, accuracy=float, n=int)
        return cls(
            architecture=card["architecture"],
            input_spec=InputSpec.from_json(card["input"]),
            class_names=names,
            recipe=Recipe.from_json(card["recipe"]),
            preset=card["preset"],
            seed=int(card["seed"]),
            created=str(card["created"]),
            **parts,
        )


@dataclass(frozen=True)
class ModelFile:
    """A model file, read and checked: its card, its plan and its tensors (names and shapes as the plan says)."""

    path: Path
    card: ModelCard
    plan: Plan
    tensors: Tensors


def write_model(path: Path, card: ModelCard, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write a model file, durably. Raises StorageError."""
    write_bundle(path, "convlens-model", card.to_json(), tensors)


def read_model(path: Path) -> ModelFile:
    """Read and check a model file. Raises ModelFileError that says what is wrong with it."""
    raw, tensors = read_bundle(path, "convlens-model")
    where = shown(path, 200)
    try:
        card = ModelCard.from_json(raw)
        network = card.plan()
    except (KeyError, TypeError, ValueError, OverflowError, ConvlensError) as error:
        first_line = str(error).partition("\n")[0]
        what = f"no {first_line}" if isinstance(error, KeyError) else first_line
        raise ModelFileError(f"{where} has a card that cannot be used: {shown(what, 200)}") from error
    check_tensors(network, tensors, where)
    return ModelFile(path, card, network, tensors)


def check_tensors(network: Plan, tensors: Mapping[str, NDArray[Any]], where: str) -> None:
    """Raises ModelFileError unless `tensors` are just those of the plan, by name, shape and type."""
    expected = network.tensors
    missing, extra = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    if missing or extra:
        which = f"misses tensor {min(missing)!r}" if missing else f"has a tensor {shown(min(extra))!r} too many"
        raise ModelFileError(f"{where} {which}: it does not fit its own architecture")
    for name, shape in expected.items():
        if not np.isfinite(tensors[name]).all():
            raise ModelFileError(f"{where}: tensor {name!r} has values that are not finite")
        kind = "int64" if name.endswith("num_batches_tracked") else "float32"
        if tensors[name].shape != shape or tensors[name].dtype != kind:
            raise ModelFileError(
                f"{where}: tensor {name!r} is {tensors[name].dtype} {tensors[name].shape}, not {kind} {shape}"
            )
