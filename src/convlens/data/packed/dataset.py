"""A packed data set: memory-mapped uint8 images in three splits, the third of them sealed.

Owns opening a packed folder, the derivation of the validation split, fingerprints and the seal. How a folder is
made is `pack.py`'s business. docs/formats.md describes the files; any NumPy can read them.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from convlens.checks import checked, choice
from convlens.data.image.decode import Pixels
from convlens.data.image.framing import InputSpec
from convlens.data.packed.image_rows import ImageRows
from convlens.data.sources.base import SPLITS, clean_name
from convlens.errors import DataError, UsageError
from convlens.files import cache_folder, read_json, read_lines
from convlens.render.pages import notebook
from convlens.text import shown

FORMAT_VERSION = 1
DEFAULT_VAL_FRAC = 0.1
INDEX_DTYPE = np.dtype([("split", "u1"), ("pixels", "<u8"), ("split_key", "<u8")])
INDEX_FILE_DTYPE = np.dtype([("split", "u1"), ("pixels", "<u8"), ("draw", "<u8")])  # the same under index.npy's names
_FILES = ("images.npy", "labels.npy", "index.npy")


@dataclass(frozen=True)
class Permit:
    """Proof that a look at a test set was written down before: the line of the ledger, and the ledger that holds it.

    `evaluation/test_ledger.py` makes it. One made elsewhere opens nothing unless such a line really stands there.
    """

    ledger: Path
    line: Mapping[str, Any]

    def check(self, test_fingerprint: str | None) -> None:
        """Raises DataError unless the line is about this test set and stands in the ledger."""
        if self.line.get("test_fingerprint") != test_fingerprint or dict(self.line) not in read_lines(self.ledger):
            raise DataError("this look at test is not written down in the ledger: test stays sealed")


@dataclass(frozen=True)
class Dataset:
    """An open packed data set.

    Samples come out through `images`, `labels` and their `_at` forms. Those of test come out of none of them, whichever
    split they are counted in, unless the set has a `permit` for them. `val_frac` is the share of training images set
    aside for validation where the source has no validation split of its own; 0 trains on everything that is not test.
    `is_merged` makes one training split of all three, for cross-validation and the model that is delivered after it.
    """

    folder: Path
    card: Mapping[str, Any]
    val_frac: float = DEFAULT_VAL_FRAC
    is_merged: bool = False
    permit: Permit | None = field(default=None, compare=False)

    @classmethod
    def open(cls, folder: Path | str, val_frac: float = DEFAULT_VAL_FRAC) -> Self:
        """Open a packed folder without reading its images. Raises DataError."""
        folder = Path(folder)
        card = read_json(folder / "dataset.json", DataError)
        if not isinstance(card, dict) or card.get("kind") != "convlens-dataset":
            raise DataError(f"{shown(folder, 200)} is no packed data set: its dataset.json is something else")
        if card.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{shown(folder, 200)} has format version {shown(card.get('format_version'))}, "
                f"this convlens reads {FORMAT_VERSION}: pack it anew"
            )
        dataset = cls(folder, MappingProxyType(card), val_frac)
        dataset._check()
        return dataset

    def _check(self) -> None:
        if not (isinstance(self.val_frac, int | float) and 0 <= self.val_frac < 1):
            raise UsageError(f"val_frac must be from 0 to below 1, not {self.val_frac}")
        where = shown(self.folder, 200)
        try:
            spec = self.input_spec
            n = len(self._index)
            wanted = {
                "images.npy": (self._images.shape, (n, spec.height, spec.width, spec.channels)),
                "labels.npy": (self._labels.shape, (n,)),
                "dataset.json": (n, int(self.card["num_samples"])),
            }
            names = self.class_names
            _ = self.num_listed, self.num_quarantined, self.notes, self.name, self.source, self.identity()
            sound = self._images.dtype == np.uint8 and self._index.dtype == INDEX_DTYPE and len(names) >= 2
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, UsageError) as error:
            raise DataError(f"{where} is damaged (dataset.json: {shown(error)}): pack it anew") from error
        for file, (found, expected) in wanted.items():
            if found != expected:
                raise DataError(f"{where} is damaged ({file} has {found}, not {expected}): pack it anew")
        sound = sound and len(set(names)) == len(names) and all(isinstance(name, str) for name in names)
        if not sound or self.card.get("index_sha256") != index_digest(self._labels, self._index):
            raise DataError(f"{where} is damaged (labels or splits are not those that were packed): pack it anew")

    # ------------------------------------------------------------ what it is

    @property
    def name(self) -> str:
        """A short name, safe in the names of run folders."""
        return clean_name(str(self.card["name"]))

    @property
    def source(self) -> str:
        """The named set, or the path it was packed from."""
        return str(self.card["source"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their numbers."""
        return tuple(self.card["class_names"])

    @property
    def input_spec(self) -> InputSpec:
        """Size, channels, framing, and mean and std of all images that are not test."""
        return InputSpec.from_json(self.card["input"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all images, labels, splits and class names."""
        return str(self.card["fingerprint"])

    @property
    def test_fingerprint(self) -> str | None:
        """SHA-256 over the test images and labels: the key of the ledger of openings. None without test."""
        value = self.card["test_fingerprint"]
        return None if value is None else str(value)

    @property
    def num_quarantined(self) -> int:
        """Files of the source that could not be read and are in no split; samples.jsonl has the reasons."""
        return int(self.card["num_quarantined"])

    @property
    def num_listed(self) -> int:
        """Samples that the source listed before any was read: those in the splits and those quarantined."""
        return int(self.card["num_listed"])

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of how it was packed."""
        return tuple(self.card["notes"])

    def identity(self) -> dict[str, Any]:
        """What identifies a result's data: name, source, fingerprints, options, sizes of the splits.

        `packed` is the folder, where a person made it; those in the cache are found by their fingerprint.
        """
        packed = None if self.folder.is_relative_to(cache_folder()) else str(self.folder.resolve())
        return (
            {"name": self.name, "packed": packed, "source": self.source, "options": self.card["options"]}
            | {"fingerprint": self.fingerprint, "test_fingerprint": self.test_fingerprint}
            | {"val_frac": self.val_frac, "is_merged": self.is_merged, "num_samples": self.counts}
            | {"num_quarantined": self.num_quarantined}
        )

    def to_json(self) -> dict[str, Any]:
        """As `pack --json` prints it."""
        return {
            "folder": str(self.folder),
            "class_names": list(self.class_names),
            "input": self.input_spec.to_json(),
            "notes": list(self.notes),
            **self.identity(),
        }

    # ------------------------------------------------------------ its samples

    @cached_property
    def _images(self) -> Pixels:
        return np.asarray(self._loaded("images.npy", mmap_mode="r"))  # a plain array over the mapping

    @cached_property
    def _labels(self) -> NDArray[np.int64]:
        return np.asarray(self._loaded("labels.npy")).astype(np.int64)

    @cached_property
    def _index(self) -> NDArray[Any]:
        index = np.asarray(self._loaded("index.npy"))
        return index.view(INDEX_DTYPE) if index.dtype == INDEX_FILE_DTYPE else index

    def _loaded(self, file: str, mmap_mode: Literal["r"] | None = None) -> Any:
        try:
            return np.load(self.folder / file, mmap_mode=mmap_mode, allow_pickle=False)
        except Exception as error:  # NumPy's reading of a header raises whatever its parsing runs into
            raise DataError(f"{shown(self.folder / file, 200)} is damaged or missing: pack it anew") from error

    @cached_property
    def _rows(self) -> dict[str, NDArray[np.int64]]:
        """Row numbers of each split, validation derived. See `derive_val`."""
        split = self._index["split"]
        if self.is_merged:
            none = np.zeros(0, np.int64)
            return {"train": np.arange(len(split)), "val": none, "test": none}
        rows = {name: np.flatnonzero(split == number) for number, name in enumerate(SPLITS)}
        if self.val_frac == 0:
            rows["train"] = np.sort(np.concatenate([rows["train"], rows["val"]]))
            rows["val"] = rows["val"][:0]
        elif len(rows["val"]) == 0:
            train = rows["train"]
            is_val = in_split(self._index["split_key"][train], self._labels[train], self.val_frac)
            rows["train"], rows["val"] = train[~is_val], train[is_val]
        return rows

    @property
    def counts(self) -> dict[str, int]:
        """Samples in each split: train, val, test."""
        return {split: len(rows) for split, rows in self._rows.items()}

    def rows(self, split: str) -> NDArray[np.int64]:
        """Row numbers of a split in images.npy and samples order. Raises DataError for unknown splits."""
        return self._rows[checked("split", split, choice(SPLITS), DataError)]

    def class_counts(self, split: str) -> NDArray[np.int64]:
        """int64 (K,): samples of each class in a split."""
        return np.bincount(self._labels[self.rows(split)], minlength=len(self.class_names))

    def images(self, split: str) -> ImageRows:
        """uint8 (N, H, W, C) of a split, read when indexed. Raises DataError where test rows are among them, sealed."""
        return self.images_at(self.rows(split))

    def labels(self, split: str) -> NDArray[np.int64]:
        """int64 (N,) class numbers of a split. Raises DataError where test rows are among them, sealed."""
        return self.labels_at(self.rows(split))

    def images_at(self, rows: NDArray[np.int64]) -> ImageRows:
        """Images by row number. Raises DataError where one of them is test, and sealed."""
        return ImageRows(self._images, self._unsealed(rows))

    def labels_at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 (N,) class numbers by row number. Raises DataError where one of them is test, and sealed."""
        return self._labels[self._unsealed(rows)]

    def split_keys(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """uint64 (N,): the numbers that splits are drawn from, equal within a group and for equal images."""
        split_keys: NDArray[np.uint64] = self._index["split_key"][rows]
        return split_keys

    def _unsealed(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows, all of which may be looked at. The one place where that is decided."""
        if (self._index["split"][rows] == SPLITS.index("test")).any() and not self._is_permitted:
            raise DataError("test is sealed: its images and labels come out through evaluate, which writes that down")
        return rows

    @cached_property
    def _is_permitted(self) -> bool:
        if self.permit is not None:
            self.permit.check(self.test_fingerprint)
        return self.permit is not None

    def pixel_keys(self, split: str) -> NDArray[np.uint64]:
        """uint64 (N,): the start of each image's pixel hash. Equal keys are equal pictures."""
        keys: NDArray[np.uint64] = self._index["pixels"][self.rows(split)]
        return keys

    def sample_names(self) -> list[str]:
        """The name of each packed sample, in the order of the rows: a file's path relative to the source, or an
        array's split/number. Raises DataError where samples.jsonl is not the one that was packed."""
        lengths = self.card.get("arrays")
        if lengths is not None:
            excluded = set(self.card["options"].get("exclude", ()))
            names = [f"{split}/{number}" for split, length in lengths for number in range(length)]
            names = [name for name in names if name not in excluded]
        else:
            lines = read_lines(self.folder / "samples.jsonl")
            names = [str(line.get("path")) for line in lines if line.get("status") == "ok"]
        if len(names) != len(self._index):
            raise DataError(f"{shown(self.folder, 200)} is damaged (samples.jsonl): pack it anew")
        return names

    def merged(self) -> Self:
        """The same data with every image counted in train; those of test stay sealed without a permit."""
        return replace(self, is_merged=True)

    def with_permit(self, permit: Permit) -> Self:
        """The same data with test open. Raises DataError where the permit is not for it."""
        permit.check(self.test_fingerprint)
        return replace(self, permit=permit)

    def with_val_frac(self, val_frac: float) -> Self:
        """The same data with another share set aside for validation. Raises UsageError outside 0 to below 1."""
        dataset = replace(self, val_frac=val_frac)
        dataset._check()
        return dataset

    def __str__(self) -> str:
        spec, counts = self.input_spec, self.counts
        parts = ", ".join(f"{counts[s]:,} {s}" for s in SPLITS)
        quarantined = f", {self.num_quarantined:,} quarantined" if self.num_quarantined else ""
        return (
            f"{self.name}: {spec.height}×{spec.width}×{spec.channels}, {len(self.class_names)} classes, "
            f"{parts}{quarantined} ({self.fingerprint[:12]})"
        )

    def _repr_html_(self) -> str:
        return notebook("Dataset", lines=[str(self)])


def index_digest(labels_N: NDArray[np.int64], index: NDArray[Any]) -> str:
    """SHA-256 over labels and index: cheap enough to check whenever a set is opened (images are not)."""
    digest = hashlib.sha256(np.ascontiguousarray(labels_N, "<i8").data)
    digest.update(np.ascontiguousarray(index).view(np.uint8).data)
    return digest.hexdigest()


def in_split(split_key_N: NDArray[np.uint64], labels_N: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which samples belong to a split of about `share`: those whose split_key lies in the lowest `share` of its range.

    A split_key is the hash of the image's pixels (or of its group), so whether an image is in depends on that image
    alone: not on seed, order, or what is added later, and equal pictures go together. Only a class that would come out
    wholly outside or wholly inside (it is tiny) gives its lowest split_key or keeps its highest, if it has two; equal
    split_keys still go together, which may leave it as it was.
    """
    inside: NDArray[np.bool_] = split_key_N < np.uint64(min(math.floor(share * 2.0**64), 2**64 - 1))
    for label in np.unique(labels_N):
        own = labels_N == label
        if len(np.unique(split_key_N[own])) < 2:
            continue
        if not inside[own].any():
            inside = inside | (split_key_N == split_key_N[own].min())
        elif inside[own].all():
            inside = inside & (split_key_N != split_key_N[own].max())
    return inside
