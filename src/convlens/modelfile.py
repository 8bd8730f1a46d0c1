"""The model file: one `.safetensors` whose metadata holds a JSON card that knows everything.

Owns the format (docs/formats.md), its checks, and the bundle of tensors with a card that checkpoints use too.
Tensors are NumPy arrays here. Nothing is pickled. The stored SHA-256 detects damage, not malice: of a file from a
stranger the header is held to its bounds before anything is made of it.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Generic, Self, TypeVar

import numpy as np
import safetensors
from msgspec import Meta
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from convlens import files
from convlens.architecture import Plan, parse, plan
from convlens.data.image.framing import InputSpec
from convlens.data.packed.dataset import ClassNames, DataIdentity, check_class_names
from convlens.errors import ConvlensError, ModelFileError, RecordError
from convlens.metrics import Scaling, Score
from convlens.recipe import Recipe
from convlens.records import Amount, Count, Name, Record, Sha256, Text, converted, json_value, versioned
from convlens.seen import Seen, SeenRecord
from convlens.text import shown
from convlens.thresholds import Thresholds
from convlens.unfamiliarity import Unfamiliarity, UnfamiliarityRecord, num_statistics

FORMAT_VERSION = 5  # 1 has no record of the pictures, 2 no origin, 3 no calibration, 4 no thresholds: all are read
DOCUMENT = "convlens-model"
MAX_FILE_BYTES = 8 * 1024**3
_MAX_HEADER_BYTES = 8 << 20
_MAX_TENSORS, _MAX_VALUES = 30_000, 450_000  # 1,000 layers of five tensors, each six times in a checkpoint
_TYPES = {"F32": "float32", "I64": "int64", "U8": "uint8"}

Tensors = dict[str, NDArray[Any]]
C = TypeVar("C", bound=Record)


# ---------------------------------------------------------------- tensors with a card


class _TensorHeader(Record, frozen=True):
    dtype: Name
    shape: Annotated[tuple[Count, ...], Meta(max_length=8)]
    data_offsets: tuple[Count, Count]


class _Metadata(Record, frozen=True):
    convlens: Annotated[str, Meta(max_length=_MAX_HEADER_BYTES)] | None = None
    sha256: Name | None = None


def _digest(tensors: Mapping[str, NDArray[Any]], card_text: str) -> str:
    digest = hashlib.sha256(card_text.encode())
    for name in sorted(tensors):
        array = np.asarray(tensors[name], order="C")
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_bundle(path: Path, card: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> str:
    """Write tensors and a JSON card (with its `kind` and `format_version`) as one safetensors file, durably; returns
    the file's SHA-256.

    Raises StorageError.
    """
    card_text = json.dumps(card, allow_nan=False, sort_keys=True)
    contiguous = {name: np.array(array, order="C") for name, array in tensors.items()}
    metadata = {"convlens": card_text, "sha256": _digest(contiguous, card_text)}
    # The library writes them in an order that changes from call to call: the same contents are to be the same bytes.
    first, second = (f"{json.dumps(name)}:{json.dumps(text)}".encode() for name, text in metadata.items())
    data = save_tensors(contiguous, metadata).replace(b"{%b,%b}" % (second, first), b"{%b,%b}" % (first, second), 1)
    files.write_bytes(path, data)
    return files.sha256_of(data)


@dataclass(frozen=True)
class Bundle(Generic[C]):
    """The head of a file, checked: its card, and of each tensor type and shape. `tensors` reads the rest."""

    path: Path
    card: C
    shapes: Mapping[str, tuple[str, tuple[int, ...]]]
    card_text: str
    sha256: str

    def tensors(self) -> Tensors:
        """All tensors by name. Raises ModelFileError where they are not those that were written."""
        where = shown(self.path, 200)
        try:
            tensors: Tensors = load_tensors(files.read_regular(self.path, MAX_FILE_BYTES))
        except (OSError, safetensors.SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise ModelFileError(f"{where} is damaged, truncated or no convlens file ({shown(error)})") from error
        if _digest(tensors, self.card_text) != self.sha256:
            raise ModelFileError(f"{where} is damaged: its contents do not match the SHA-256 stored in it")
        return tensors


def read_bundle(path: Path, document: str, kinds: Mapping[int, type[C]]) -> Bundle[C]:
    """The head of a file of this kind. Raises ModelFileError where anything is not as it was written; header, number
    of tensors and offsets are looked at before anything is made of them."""
    where = shown(path, 200)
    try:
        table, num_data_bytes = _header(path, where)
        metadata = converted(table.pop("__metadata__", {}), _Metadata, where)
        headers = converted(table, dict[Name, _TensorHeader], where)
        if metadata.convlens is None or metadata.sha256 is None:
            raise ModelFileError(f"{where} is a safetensors file, but not of convlens")
        card = versioned(
            json_value(metadata.convlens.encode("utf-8", "surrogatepass"), where, _MAX_VALUES), document, kinds, where
        )
    except RecordError as error:
        raise ModelFileError(str(error)) from error
    end = 0
    for name, one in sorted(headers.items(), key=lambda item: item[1].data_offsets):
        if one.dtype not in _TYPES:
            raise ModelFileError(f"{where}: tensor {shown(name)!r} is {shown(one.dtype)}, not {', '.join(_TYPES)}")
        size = math.prod(one.shape) * np.dtype(_TYPES[one.dtype]).itemsize
        if one.data_offsets != (end, end + size):
            raise ModelFileError(f"{where} is damaged: tensor {shown(name)!r} does not lie where it must")
        end += size
    if end != num_data_bytes:
        raise ModelFileError(f"{where} is damaged, truncated or no convlens file ({num_data_bytes:,} bytes of {end:,})")
    shapes = {name: (_TYPES[one.dtype], one.shape) for name, one in headers.items()}
    return Bundle(path, card, shapes, metadata.convlens, metadata.sha256)


def _header(path: Path, where: str) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file as a JSON object, and how many bytes follow it."""
    try:
        if path.is_dir():
            raise ModelFileError(f"{where} is a folder, not a model file")
        head, size = files.read_start(path, 8 + _MAX_HEADER_BYTES)
    except (OSError, ValueError) as error:
        raise ModelFileError(f"cannot read {where}: {getattr(error, 'strerror', None) or error}") from error
    length = int.from_bytes(head[:8], "little")
    if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES) or size > MAX_FILE_BYTES:
        raise ModelFileError(
            f"{where} is damaged, truncated or no convlens file (its header cannot be that of a model)"
        )
    if head.count(b'"data_offsets"') > _MAX_TENSORS:
        raise ModelFileError(f"{where} is damaged or no convlens file (more than {_MAX_TENSORS:,} tensors)")
    try:
        table = json_value(head[8 : 8 + length], where, _MAX_VALUES)
    except RecordError as error:
        raise ModelFileError(f"{where} is damaged, truncated or no convlens file ({shown(error, 200)})") from error
    if not isinstance(table, dict):
        raise ModelFileError(f"{where} is damaged, truncated or no convlens file (its header is no object)")
    return table, size - 8 - length


# ---------------------------------------------------------------- models


class Origin(Record, frozen=True, kw_only=True):
    """Where weights come from that were not trained by convlens: what they are called, where they were found and as
    which file, which pictures they were trained on, and under which licence they are; None where nobody said."""

    name: Name
    source: Name
    sha256: Sha256
    trained_on: Name | None = None
    licence: Name | None = None

    @property
    def note(self) -> str:
        """What whoever measures a model must know that began with them."""
        what = f"weights of others ({shown(self.name, 80)})"
        if self.trained_on is None:
            return f"the model began with {what}: which pictures those were made with is not known"
        return f"the model began with {what}, made with {shown(self.trained_on, 80)}: pictures of it are not left out"


class ParentFacts(Record, frozen=True, kw_only=True):
    """The model that a training began with, as run.json and the card have it; `dataset` is empty where it was not
    trained by convlens."""

    path: Name
    sha256: Sha256
    created: Name
    class_names: ClassNames
    input: InputSpec
    dataset: dict[Name, Name]


class TrainingFacts(Record, frozen=True, kw_only=True):
    """How the weights came about: up to which step, which of them, and where."""

    step: Count
    epochs: Amount
    weights: Name
    precision: Name
    device: Name
    threads: Count
    num_steps: Count | None = None
    memory_format: Name | None = None
    processes: Count = 1
    compile: bool = False  # of models of before
    train_s: Amount | None = None
    parent: ParentFacts | None = None


class Metrics(Record, frozen=True, kw_only=True):
    """What was measured when the model was written."""

    val: Score | None = None
    test: Score | None = None
    cross_validation: Score | None = None


class Calibration(Record, frozen=True, kw_only=True):
    """How logits become those of calibrated probabilities (`metrics.Scaling`), fitted to `num_images` of validation,
    whose mean cross-entropy (nats) it brought from `loss_before` to `loss_after`; a temperature of 1 without curvature
    changes nothing, for none was shown to be better."""

    temperature: Annotated[float, Meta(gt=0, le=1e3)]
    curvature: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    num_images: Count
    loss_before: Amount
    loss_after: Amount

    @property
    def scaling(self) -> Scaling:
        """What is done to logits."""
        return Scaling(self.temperature, self.curvature)


class CardRecord(Record, frozen=True, kw_only=True):
    """A card as it stands in the file, in format version 5; 4 has no `thresholds`, 3 no `unfamiliarity` and no values
    in `calibration` either, 2 no `origin`, 1 no `seen`. What tells of a training is null where the weights were not
    trained by convlens."""

    kind: Name
    format_version: Count
    architecture: Text
    input: InputSpec
    class_names: ClassNames
    recipe: dict[Name, Any] | None
    preset: Name | None
    seed: Count | None
    dataset: DataIdentity | None
    training: TrainingFacts | None
    metrics: Metrics
    versions: dict[Name, Name]
    created: Name
    calibration: Calibration | None = None
    seen: SeenRecord | None = None
    origin: Origin | None = None
    unfamiliarity: UnfamiliarityRecord | None = None
    thresholds: Thresholds | None = None

    def __post_init__(self) -> None:
        check_class_names(self.class_names)
        if self.thresholds is not None:
            self.thresholds.check_classes(self.class_names)
        told = [value is not None for value in (self.recipe, self.seed, self.dataset, self.training)]
        if not all(told) and (any(told) or self.origin is None):
            raise ValueError("recipe, seed, dataset and training go together, and only with an origin may be null")
        if not self.input.has_statistics:
            raise ValueError("input: mean and std are missing")


@dataclass(frozen=True)
class ModelCard:
    """Everything about a model but its tensors. All of it is checked when it is read.

    `calibration` is how its probabilities are scaled and `unfamiliarity` how it tells what it was not trained on,
    None where too few images were held out; `thresholds` what it promises, None where that is nothing; `seen` which
    pictures it was made with, None where that is not known; `origin` the weights of others that it began with. Where
    convlens did no more than take those over, `recipe`, `seed`, `dataset` and `training` are None.
    """

    architecture: str
    input_spec: InputSpec
    class_names: tuple[str, ...]
    recipe: Recipe | None
    preset: str | None
    seed: int | None
    dataset: DataIdentity | None
    training: TrainingFacts | None
    metrics: Metrics
    versions: Mapping[str, str]
    created: str
    calibration: Calibration | None = None
    seen: Seen | None = field(default=None, compare=False)
    origin: Origin | None = None
    unfamiliarity: Unfamiliarity | None = field(default=None, compare=False)
    thresholds: Thresholds | None = None

    @property
    def is_adopted(self) -> bool:
        """Whether convlens only took the weights over, and trained nothing."""
        return self.training is None

    @property
    def has_parent(self) -> bool:
        """Whether the training began with another model of convlens."""
        return self.training is not None and self.training.parent is not None

    @property
    def views(self) -> str:
        """What of a picture it classifies, as the recipe says."""
        return "none" if self.recipe is None else self.recipe.views

    def plan(self) -> Plan:
        """The network's plan. Raises SentenceError where the sentence does not fit input and classes."""
        return plan(parse(self.architecture), self.input_spec.shape, len(self.class_names))

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return (
            {"kind": DOCUMENT, "format_version": FORMAT_VERSION}
            | {"architecture": self.architecture, "input": self.input_spec.to_json()}
            | {"class_names": list(self.class_names), "preset": self.preset, "seed": self.seed}
            | {name: _json(getattr(self, name)) for name in ("recipe", "dataset", "training", "metrics")}
            | {"versions": dict(self.versions), "created": self.created}
            | {
                name: _json(getattr(self, name))
                for name in ("calibration", "seen", "origin", "unfamiliarity", "thresholds")
            }
        )

    @classmethod
    def of(cls, card: CardRecord) -> Self:
        """Raises RecipeError."""
        return cls(
            architecture=card.architecture,
            input_spec=card.input,
            class_names=card.class_names,
            recipe=None if card.recipe is None else Recipe.from_json(card.recipe),
            preset=card.preset,
            seed=card.seed,
            dataset=card.dataset,
            training=card.training,
            metrics=card.metrics,
            versions=card.versions,
            created=card.created,
            calibration=card.calibration,
            origin=card.origin,
            thresholds=card.thresholds,
        )


def _json(value: Any) -> Any:
    return None if value is None else value.to_json()


@dataclass(frozen=True)
class ModelFile:
    """A model file, read and checked: its card, its plan and its tensors (names and shapes as the plan says)."""

    path: Path
    card: ModelCard
    plan: Plan
    tensors: Tensors


def write_model(path: Path, card: ModelCard, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write a model file, durably. Raises StorageError."""
    beside = [part.tensors() for part in (card.seen, card.unfamiliarity) if part is not None]
    write_bundle(path, card.to_json(), {**tensors, **{name: array for part in beside for name, array in part.items()}})


def read_model(path: Path) -> ModelFile:
    """Read and check a model file. Raises ModelFileError that says what is wrong with it."""
    bundle = read_bundle(path, DOCUMENT, dict.fromkeys(range(1, FORMAT_VERSION + 1), CardRecord))
    where = shown(path, 200)
    try:
        card = ModelCard.of(bundle.card)
        network = card.plan()
    except ConvlensError as error:
        first_line = str(error).partition("\n")[0]
        raise ModelFileError(f"{where} has a card that cannot be used: {shown(first_line, 200)}") from error
    record, look = bundle.card.seen, bundle.card.unfamiliarity
    keys = {} if record is None else record.shapes
    known = {} if look is None else look.shapes(network.num_classes)
    beside = {**keys, **known}
    check_tensors(network, {n: shape for n, shape in bundle.shapes.items() if n not in beside}, where)
    if any(bundle.shapes.get(name) != shape for name, shape in keys.items()):
        raise ModelFileError(f"{where} is damaged: its record of the pictures it was made with does not fit")
    if any(bundle.shapes.get(name) != shape for name, shape in known.items()) or not _fits(look, network):
        raise ModelFileError(f"{where} is damaged: what tells unfamiliar pictures does not fit its network")
    tensors = bundle.tensors()
    check_finite({name: tensor for name, tensor in tensors.items() if name not in keys}, where)
    seen = None if record is None else Seen.read(record, {name: tensors.pop(name) for name in keys})
    found = None if look is None else Unfamiliarity.read(look, {name: tensors.pop(name) for name in known})
    return ModelFile(path, replace(card, seen=seen, unfamiliarity=found), network, tensors)


def _fits(look: UnfamiliarityRecord | None, network: Plan) -> bool:
    """Whether the layers that it names are there, once each, in their order, with so many statistics."""
    if look is None:
        return True
    there = {leaf.address: num_statistics(leaf) for leaf in network.leaves}
    named = {one.address: one.statistics for one in look.layers}
    in_order = [address for address in there if address in named] == [one.address for one in look.layers]
    return in_order and all(there[address] == num for address, num in named.items())


def check_tensors(network: Plan, shapes: Mapping[str, tuple[str, tuple[int, ...]]], where: str) -> None:
    """Raises ModelFileError unless tensors of these types and shapes are just those of the plan."""
    expected = network.tensors
    missing, extra = expected.keys() - shapes.keys(), shapes.keys() - expected.keys()
    if missing or extra:
        which = f"misses tensor {min(missing)!r}" if missing else f"has a tensor {shown(min(extra))!r} too many"
        raise ModelFileError(f"{where} {which}: it does not fit its own architecture")
    for name, shape in expected.items():
        kind = "int64" if name.endswith("num_batches_tracked") else "float32"
        if shapes[name] != (kind, shape):
            raise ModelFileError(f"{where}: tensor {name!r} is {shapes[name][0]} {shapes[name][1]}, not {kind} {shape}")


def check_finite(tensors: Mapping[str, NDArray[Any]], where: str) -> None:
    """Raises ModelFileError where a value is not finite."""
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ModelFileError(f"{where}: tensor {name!r} has values that are not finite")
