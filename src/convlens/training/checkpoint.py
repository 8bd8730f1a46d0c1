"""Checkpoints: the whole state of a training on disk, restored to the same bits.

Owns the checkpoint folder (docs/formats.md): `checkpoints/step-N/` with `state.safetensors` and a manifest of
sizes and SHA-256. A checkpoint appears whole; a damaged one is passed over for the one before.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convlens import files
from convlens.errors import ModelFileError
from convlens.modelfile import check_tensors, read_bundle, write_bundle
from convlens.network.build import arrays_of, copy_into, tensors_of
from convlens.training.loop import State

_KIND = "convlens-checkpoint"
_STATE_FILE, _MANIFEST = "state.safetensors", "manifest.json"
_KEEP = 2  # the newest, and one in case it is damaged


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and verified: what to put back, and `extra` as it was given to `save`."""

    step: int
    train_s: float
    arrays: dict[str, NDArray[Any]]
    extra: dict[str, Any]


def save(folder: Path, state: State, extra: dict[str, Any]) -> None:
    """Write `folder/step-N` for the state's step N and remove all but the newest two. Raises StorageError."""
    arrays = {f"network.{name}": a for name, a in arrays_of(tensors_of(state.network)).items()}
    for kind, moments in state.optimizer.moments.items():
        arrays |= {f"optimizer.{kind}.{name}": a for name, a in arrays_of(moments).items()}
    if state.ema is not None:
        arrays |= {f"ema.{name}": a for name, a in arrays_of(state.ema).items()}
    if state.best is not None:
        arrays |= {f"best.{name}": a for name, a in arrays_of(state.best).items()}
    card = {"step": state.step, "train_s": state.train_s, "extra": extra}
    with files.new_folder(folder / f"step-{state.step:09d}", replace=True) as new:
        digest = write_bundle(new / _STATE_FILE, _KIND, card, arrays)
        size = (new / _STATE_FILE).stat().st_size
        files.write_json(
            new / _MANIFEST, {"step": state.step, "files": {_STATE_FILE: {"bytes": size, "sha256": digest}}}
        )
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
            return Checkpoint(int(card["step"]), float(card["train_s"]), arrays, card["extra"])
    return None


def _verify(path: Path) -> None:
    manifest = files.read_json(path / _MANIFEST, ModelFileError)
    for name, facts in manifest["files"].items():
        try:
            sound = (path / name).stat().st_size == facts["bytes"] and files.sha256_of_file(path / name) == facts[
                "sha256"
            ]
        except OSError:
            sound = False
        if not sound:
            raise ModelFileError(f"{path} is damaged ({name})")


def restore(state: State, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint into a freshly made state: tensors keep their memory format, and so their kernels.

    Raises ModelFileError where it does not fit the state's network.
    """
    network = _part(checkpoint.arrays, "network.")
    check_tensors(state.network.plan, network, f"checkpoint of step {checkpoint.step}")
    copy_into(state.network, network)
    for kind, moments in state.optimizer.moments.items():
        _copy(moments, _part(checkpoint.arrays, f"optimizer.{kind}."), f"{kind} of the optimizer", checkpoint)
    if state.ema is not None:
        _copy(state.ema, _part(checkpoint.arrays, "ema."), "average of the weights", checkpoint)
    if state.best is not None:
        _copy(state.best, _part(checkpoint.arrays, "best."), "best weights so far", checkpoint)
    state.step, state.train_s = checkpoint.step, checkpoint.train_s


def _part(arrays: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _copy(tensors: dict[str, torch.Tensor], saved: dict[str, NDArray[Any]], what: str, checkpoint: Checkpoint) -> None:
    if saved.keys() != tensors.keys() or any(saved[name].shape != t.shape for name, t in tensors.items()):
        raise ModelFileError(f"checkpoint of step {checkpoint.step} has no {what} that fits")
    for name, tensor in tensors.items():
        tensor.copy_(torch.from_numpy(np.array(saved[name])))
