"""Pictures of answers that are kept, to be looked at again: as they came, named by their row, with what was answered.

`convlens look MODEL --replay` opens them.
"""

from pathlib import Path

from convlens import files
from convlens.data.image.decode import REFUSED_SUFFIXES, SUFFIXES
from convlens.runtime.prediction import Prediction

KEEP = ("uncertain", "all")  # which: those that nobody should rely on, or every one


def is_to_keep(answer: Prediction, keep: str | None) -> bool:
    """Whether a picture is kept, where `keep` says which are."""
    return keep == "all" or (keep is not None and bool(answer.error or answer.uncertain or answer.unfamiliar))


def keep_picture(folder: Path, data: bytes, answer: Prediction, logits: list[float] | None) -> None:
    """Write a picture and, beside it, its answer with the logits. Raises StorageError."""
    name = answer.row or f"unreadable-{files.sha256_of(data)[:12]}"
    suffix = Path(answer.path or "").suffix.lower()
    place = folder / (name + (suffix if suffix in SUFFIXES | REFUSED_SUFFIXES else ".bin"))
    said = {"kind": "convlens-row", "format_version": 1, "picture": place.name} | answer.to_json()
    files.write_bytes(place, data)
    files.write_json(folder / f"{name}.json", said if logits is None else said | {"logits": logits})
