"""Checkpoints: a training's state on disk.

Owns the checkpoint folder (docs/formats.md): `checkpoints/step-N/` with `state.safetensors` and a manifest of
sizes and SHA-256. A checkpoint appears whole; a damaged one is passed over for the one before.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from convlens import files
from convlens.errors import ModelFileError, RecordError, RunError
from convlens.modelfile import read_bundle, write_bundle
from convlens.records import Count, Name, Record, Sha256, read_sealed, versioned, write_sealed
from convlens.text import shown
from convlens.training.state import StateRecord, TrainingState

FORMAT_VERSION = 4
_DOCUMENT = "convlens-checkpoint"
_STATE_FILE, _MANIFEST = "state.safetensors", "manifest.json"
_KEEP = 2  # the newest, and one in case it is damaged


class CheckpointCard(Record, frozen=True, kw_only=True):
    """What a checkpoint's file says of itself: the plain numbers of the state, the plan that it belongs to, and how
    long the log was."""

    kind: Name
    format_version: Count
    state: StateRecord
    identity: Sha256
    log_bytes: Count


class _File(Record, frozen=True):
    bytes: Count
    sha256: Sha256


class _Manifest(Record, frozen=True, kw_only=True):
    kind: Name
    format_version: Count
    step: Count
    files: dict[Name, _File]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and verified."""

    card: CheckpointCard
    arrays: dict[str, NDArray[Any]]


def save(folder: Path, state: TrainingState, identity: str, log_bytes: int) -> None:
    """Write `folder/step-N` for the state's step N and remove all but the newest two. Raises StorageError."""
    document = {"kind": _DOCUMENT, "format_version": FORMAT_VERSION}
    card = document | {"state": state.to_json(), "identity": identity, "log_bytes": log_bytes}
    with files.new_folder(folder / f"step-{state.step:09d}", replace=True) as new:
        digest = write_bundle(new / _STATE_FILE, card, state.arrays())
        facts = {_STATE_FILE: {"bytes": (new / _STATE_FILE).stat().st_size, "sha256": digest}}
        write_sealed(new / _MANIFEST, document | {"step": state.step, "files": facts})
    for old in _found(folder)[:-_KEEP]:
        files.remove_folder(old)


def _found(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, None where there is none, and a line on each newer one: why it cannot be
    used. Raises RunError where it was written by another version of convlens."""
    damaged: list[str] = []
    for path in reversed(_found(folder)):
        try:
            return _read(path), damaged
        except (RecordError, ModelFileError) as error:
            damaged.append(str(error))
    return None, damaged


def _read(path: Path) -> Checkpoint:
    """Raises RecordError, ModelFileError; RunError."""
    where = shown(path / _MANIFEST, 200)
    value, is_sealed = read_sealed(path / _MANIFEST)
    listed = value.get("files") if isinstance(value, dict) else None
    if isinstance(listed, dict) and listed.keys() == {_STATE_FILE} and value.get("format_version") != FORMAT_VERSION:
        raise RunError(
            f"{shown(path, 200)} was written by another version of convlens: resume with that one, or begin a new run"
        )
    manifest = versioned(value, _DOCUMENT, {FORMAT_VERSION: _Manifest}, where)
    if not is_sealed or manifest.files.keys() != {_STATE_FILE}:
        raise ModelFileError(f"{where} is damaged (it is not what was written)")
    file, facts = path / _STATE_FILE, manifest.files[_STATE_FILE]
    try:
        sound = files.is_file(file) and file.stat().st_size == facts.bytes
        sound = sound and files.sha256_of_file(file) == facts.sha256
    except OSError:
        sound = False
    if not sound:
        raise ModelFileError(f"{shown(file, 200)} is damaged (it is not what was written)")
    bundle = read_bundle(file, _DOCUMENT, {FORMAT_VERSION: CheckpointCard})
    return Checkpoint(bundle.card, bundle.tensors())
