"""Checkpoints: a training's state on disk.

Owns the checkpoint folder (docs/formats.md): `checkpoints/step-N/` with `state.safetensors` and a manifest of
sizes and SHA-256. A checkpoint appears whole; a damaged one is passed over for the one before.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from convlens import files
from convlens.errors import ModelFileError
from convlens.modelfile import read_bundle, write_bundle
from convlens.training.state import TrainingState

FORMAT_VERSION = 3
_KIND = "convlens-checkpoint"
_STATE_FILE, _MANIFEST = "state.safetensors", "manifest.json"
_KEEP = 2  # the newest, and one in case it is damaged


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and verified: the arrays and numbers of a state, and `extra` as `save` was given
    it."""

    step: int
    version: int
    arrays: dict[str, NDArray[Any]]
    plain: dict[str, Any]
    extra: dict[str, Any]


def save(folder: Path, state: TrainingState, extra: dict[str, Any]) -> None:
    """Write `folder/step-N` for the state's step N and remove all but the newest two. Raises StorageError."""
    card = {"step": state.step, "state": state.to_json(), "extra": extra | {"format_version": FORMAT_VERSION}}
    with files.new_folder(folder / f"step-{state.step:09d}", replace=True) as new:
        digest = write_bundle(new / _STATE_FILE, _KIND, card, state.arrays())
        size = (new / _STATE_FILE).stat().st_size
        facts = {_STATE_FILE: {"bytes": size, "sha256": digest}}
        files.write_json(new / _MANIFEST, {"step": state.step, "files": facts})
    for old in _found(folder)[:-_KEEP]:
        files.remove_folder(old)


def _found(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def has_any(folder: Path) -> bool:
    """Whether a checkpoint was ever written, whole or not."""
    return bool(_found(folder))


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None where there is none."""
    for path in reversed(_found(folder)):
        with suppress(ModelFileError, KeyError, TypeError):
            _verify(path)
            card, arrays = read_bundle(path / _STATE_FILE, _KIND)
            extra = card["extra"]
            return Checkpoint(int(card["step"]), extra.get("format_version", 1), arrays, card.get("state", {}), extra)
    return None


def _verify(path: Path) -> None:
    manifest = files.read_json(path / _MANIFEST, ModelFileError)
    for name, facts in manifest["files"].items():
        try:
            sound = (path / name).stat().st_size == facts["bytes"]
            sound = sound and files.sha256_of_file(path / name) == facts["sha256"]
        except OSError:
            sound = False
        if not sound:
            raise ModelFileError(f"{path} is damaged ({name})")
