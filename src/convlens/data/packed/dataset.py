"""A packed data set: memory-mapped uint8 images in three splits, the third of them sealed.

Owns opening a packed folder, the derivation of the validation split, fingerprints and the seal. How a folder is
made is `pack.py`'s business. docs/formats.md describes the files; any NumPy can read them.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from convlens.checks import checked, choice, real
from convlens.data.image.decode import Pixels
from convlens.data.image.framing import InputSpec
from convlens.data.packed.image_rows import ImageRows, Parts
from convlens.data.packed.options import PackOptions
from convlens.data.sources.base import SPLITS, clean_name
from convlens.errors import DataError, RecordError
from convlens.files import cache_folder, is_file, open_regular, sha256_of_file
from convlens.records import Count, Name, Number, Record, Sha256, Share, Text, read_document, read_lines
from convlens.render.pages import notebook
from convlens.text import shown

FORMAT_VERSION = 2
DEFAULT_VAL_FRAC = 0.1
DOCUMENT = "convlens-dataset"
CARD_FILE, IMAGES_FILE, LABELS_FILE, INDEX_FILE, SAMPLES_FILE = (
    "dataset.json", "images.npy", "labels.npy", "index.npy", "samples.jsonl",
)  # fmt: skip
SMALL_FILES = (LABELS_FILE, INDEX_FILE, SAMPLES_FILE)
INDEX_DTYPE = np.dtype([("split", "u1"), ("pixels", "<u8"), ("split_key", "<u8")])
_MAX_SMALL_BYTES = 16 << 30  # of samples
_BLOCK = 1 << 20  # numbers at a time

ClassName = Annotated[str, Meta(min_length=1, max_length=1_000)]
ClassNames = Annotated[tuple[ClassName, ...], Meta(min_length=2, max_length=100_000)]


class SplitCounts(Record, frozen=True):
    """Samples in each split."""

    train: Count
    val: Count
    test: Count


class DataIdentity(Record, frozen=True):
    """What identifies a result's data, as it stands in runs, models and reports. `packed` is the folder, where a person
    made it; those in the cache are found by their fingerprint."""

    name: Name
    source: Name
    options: PackOptions
    fingerprint: Sha256
    test_fingerprint: Sha256 | None
    val_frac: Share
    num_samples: SplitCounts
    num_quarantined: Count
    packed: Name | None = None
    is_merged: bool = False
    index: Sha256 | None = None  # of its index.npy: what validation is drawn from; None in files of before

    def is_of(self, card: "PackedCard") -> bool:
        """Whether a packed set is this data, split in the same way."""
        return card.fingerprint == self.fingerprint and self.index in (None, card.files[INDEX_FILE])


class ImagesPart(Record, frozen=True):
    """A file of images, and how many it has."""

    file: Name
    num_images: Count


class PackedCard(Record, frozen=True):
    """dataset.json. `files` has the SHA-256 of each small file; `value_range` is what 0 and 255 stood for in pictures
    that were no bytes; `num_reduced` JPEGs were decoded at a fraction of their size, `num_large` other pictures are as
    large, `num_wide` are no bytes, `num_unframed` arrays that are ink and were taken as they are; `twins` are rows of
    one picture in two formats."""

    kind: Name
    format_version: Count
    decoder_version: Count
    framing_version: Count
    name: Name
    source: Name
    options: PackOptions
    class_names: Annotated[tuple[ClassName, ...], Meta(min_length=1, max_length=100_000)]  # one, to be measured on
    input: InputSpec
    value_range: tuple[Number, Number]
    parts: tuple[ImagesPart, ...]
    num_listed: Count
    num_samples: Count
    num_quarantined: Count
    num_excluded: Count
    arrays: tuple[tuple[Name, Count], ...] | None
    split_by: Literal["source", "evaluation", "hash"]
    files: dict[Name, Sha256]
    fingerprint: Sha256
    test_fingerprint: Sha256 | None
    notes: tuple[Text, ...]
    reading_notes: tuple[Text, ...] = ()
    num_reduced: Count = 0
    num_large: Count = 0
    num_wide: Count = 0
    num_unframed: Count = 0
    twins: tuple[tuple[Count, Count], ...] = ()

    def __post_init__(self) -> None:
        check_class_names(self.class_names)
        if not self.input.has_statistics:
            raise ValueError("input: mean and std are missing")
        if self.files.keys() != set(SMALL_FILES):
            raise ValueError(f"files must be {', '.join(SMALL_FILES)}")
        if self.value_range != self.input.value_range:
            raise ValueError("value_range is not that of its input")
        if [part.file for part in self.parts] != [part_name(number) for number in range(len(self.parts))]:
            raise ValueError("parts are not named one after another")
        if sum(part.num_images for part in self.parts) != self.num_samples:
            raise ValueError("parts have not as many images as there are samples")


class SampleLine(Record, frozen=True):
    """A line of samples.jsonl: a picture file (or a file of arrays), and what became of it."""

    path: Name
    sha256: Sha256 | None
    status: Literal["ok", "quarantined", "excluded"]
    pixels_sha256: Sha256 | None = None
    label: Name | None = None
    group: Name | None = None
    split: Literal["train", "val", "test"] | None = None
    reason: Text | None = None
    remark: Text | None = None


class LedgerLine(Record, frozen=True):
    """A look at a test set, as the ledger has it: an opening by a plan, or an inspection. `before` is the SHA-256 of
    the line before it: the lines are a chain. `pictures` tells test sets that have most of their pictures in common,
    at whatever size and under whatever names (`test_ledger.sketch`); `files` does so by the hashes of their
    files, which do not depend on groups. `trained_on` is the fingerprint of what the model learned from."""

    test_fingerprint: Sha256
    time: Name
    plan: Sha256 | None = None
    architecture: Text | None = None
    seed: Count | None = None
    kind: Literal["inspection"] | None = None
    by: Name | None = None
    files: Text | None = None
    before: Sha256 | None = None
    pictures: Text | None = None
    trained_on: Sha256 | None = None


def check_class_names(names: tuple[str, ...]) -> None:
    """Raises ValueError where two classes have one name."""
    if len(set(names)) != len(names):
        raise ValueError("class_names: one stands twice")


@dataclass(frozen=True)
class Permit:
    """Proof that a look at a test set was written down before: the line of the ledger, and the ledger that holds it.

    `evaluation/test_ledger.py` makes it. One made elsewhere opens nothing unless such a line really stands there.
    """

    ledger: Path
    line: LedgerLine

    def check(self, test_fingerprint: str | None) -> None:
        """Raises DataError unless the line is about this test set and stands in the ledger."""
        if self.line.test_fingerprint != test_fingerprint or self.line not in read_lines(self.ledger, LedgerLine)[0]:
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
    card: PackedCard
    val_frac: float = DEFAULT_VAL_FRAC
    is_merged: bool = False
    permit: Permit | None = field(default=None, compare=False)
    # Of the source as it is now: notes, and the files that are not read, by reason; None where it was not looked at.
    reading_notes: tuple[str, ...] | None = field(default=None, compare=False)
    unused: Mapping[str, Sequence[str]] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def open(cls, folder: Path | str, val_frac: float = DEFAULT_VAL_FRAC) -> Self:
        """Open a packed folder: all of it but the pixels is checked. Raises DataError."""
        folder = Path(folder)
        try:
            dataset = cls(folder, read_card(folder), _checked_frac(val_frac))
            _ = dataset._index, dataset._labels, dataset._images
            dataset._checked(SAMPLES_FILE)
        except RecordError as error:
            raise DataError(f"{error}: pack it anew") from error
        return dataset

    # ------------------------------------------------------------ what it is

    @property
    def name(self) -> str:
        """A short name, safe in the names of run folders."""
        return clean_name(self.card.name)

    @property
    def source(self) -> str:
        """The named set, or the path it was packed from."""
        return self.card.source

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their numbers."""
        return self.card.class_names

    @property
    def input_spec(self) -> InputSpec:
        """Size, channels, framing, and mean and std of all images that are not test."""
        return self.card.input

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all images, labels, splits and class names."""
        return self.card.fingerprint

    @property
    def test_fingerprint(self) -> str | None:
        """SHA-256 over the test images and labels: the key of the ledger of openings. None without test."""
        return self.card.test_fingerprint

    @property
    def num_quarantined(self) -> int:
        """Files of the source that could not be read and are in no split; samples.jsonl has the reasons."""
        return self.card.num_quarantined

    @property
    def decoded(self) -> tuple[int, int, int, int]:
        """How many pictures were JPEGs decoded at a fraction, others as large, no bytes, and arrays that are ink and
        were taken as they are."""
        return self.card.num_reduced, self.card.num_large, self.card.num_wide, self.card.num_unframed

    @property
    def num_listed(self) -> int:
        """Samples that the source listed before any was read: those in the splits and those quarantined."""
        return self.card.num_listed

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of how it was read and packed."""
        reading = self.card.reading_notes if self.reading_notes is None else self.reading_notes
        return (*reading, *self.card.notes)

    def identity(self) -> DataIdentity:
        """What identifies a result's data."""
        packed = None if self.folder.is_relative_to(cache_folder()) else str(self.folder.resolve())
        return DataIdentity(
            name=self.name,
            source=self.source,
            options=self.card.options,
            fingerprint=self.fingerprint,
            test_fingerprint=self.test_fingerprint,
            val_frac=self.val_frac,
            num_samples=SplitCounts(**self.counts),
            num_quarantined=self.num_quarantined,
            packed=packed,
            is_merged=self.is_merged,
            index=self.card.files[INDEX_FILE],
        )

    def to_json(self) -> dict[str, Any]:
        """As `pack --json` prints it."""
        return {
            "folder": str(self.folder),
            "class_names": list(self.class_names),
            "input": self.input_spec.to_json(),
            "notes": list(self.notes),
            **self.identity().to_json(),
        }

    # ------------------------------------------------------------ its samples

    @cached_property
    def _images(self) -> Pixels | Parts:
        return mapped_images(self.folder, self.card.parts, self.input_spec)

    @property
    def _images_path(self) -> Path:
        """Where the images lie, as a message names it."""
        return self.folder / self.card.parts[0].file if len(self.card.parts) == 1 else self.folder

    @cached_property
    def _labels(self) -> NDArray[np.int64]:
        labels = self._small(LABELS_FILE, np.dtype(np.uint16)).astype(np.int64)
        if labels.max(initial=0) >= len(self.class_names):
            raise _damaged(self.folder / LABELS_FILE, f"it has class number {labels.max()}")
        return labels

    @cached_property
    def _index(self) -> NDArray[Any]:
        return self._small(INDEX_FILE, INDEX_DTYPE)

    def _small(self, file: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The array of a small file, checked against the card."""
        return _mapped(self._checked(file), (self.card.num_samples,), dtype)

    def _checked(self, file: str) -> Path:
        """The path of a small file. Raises DataError where it is not what was packed."""
        path = self.folder / file
        try:
            found = sha256_of_file(path)
        except OSError as error:
            raise _damaged(path, error.strerror or str(error)) from error
        if found != self.card.files[file]:
            raise _damaged(path, "it is not what was packed")
        return path

    def samples(self) -> list[SampleLine]:
        """The lines of samples.jsonl. Raises DataError where they are not those that were packed."""
        self._checked(SAMPLES_FILE)
        lines, damaged = read_lines(self.folder / SAMPLES_FILE, SampleLine, most_bytes=_MAX_SMALL_BYTES)
        if damaged:
            raise DataError(f"{damaged[0]}: pack it anew")
        return lines

    def num_damaged(self) -> int:
        """Of all images, test included, how many are not the ones that were packed: each is held to its key."""
        return int(ImageRows(self._images, np.arange(len(self._images)), self._index["pixels"]).damaged().sum())

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
        else:  # a picture of the data's own validation that is learned from measures nothing
            rows["val"] = rows["val"][~self._are_shown_in(rows["train"], rows["val"])]
        return rows

    def _are_shown_in(self, others: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool (N,): which of some rows show, pixel for pixel, what one of the `others` shows."""
        shown = are_among(self._index["pixels"][rows], self._index["pixels"][others])
        if self.card.twins:  # the same picture in another format, whose pixels differ a little once framed
            twins = np.array([*self.card.twins, *((b, a) for a, b in self.card.twins)], np.int64)
            shown |= np.isin(rows, twins[np.isin(twins[:, 1], others), 0])
        return np.asarray(shown, bool)

    def shown_in_train_or_val(self, split: str) -> NDArray[np.bool_]:
        """bool (N,): which pictures of a split stand in train or val too, pixel for pixel."""
        return self._are_shown_in(np.concatenate([self.rows("train"), self.rows("val")]), self.rows(split))

    def __len__(self) -> int:
        """Samples in all splits together."""
        return self.card.num_samples

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
        rows = self._unsealed(rows)
        return ImageRows(self._images, rows, self._index["pixels"][rows], self._images_path)

    def labels_at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 (N,) class numbers by row number. Raises DataError where one of them is test, and sealed."""
        return self._labels[self._unsealed(rows)]

    def split_keys(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """uint64 (N,): the numbers that splits are drawn from, equal within a group and for equal images."""
        split_keys: NDArray[np.uint64] = self._index["split_key"][rows]
        return split_keys

    def _opened_rows(self) -> NDArray[np.bool_]:
        """bool (N,): what is looked at when test is opened: the test images, or where all are measured (folds) all."""
        is_test: NDArray[np.bool_] = self._index["split"] == SPLITS.index("test")
        return np.ones_like(is_test) if self.is_merged else is_test

    def opened_keys(self) -> NDArray[np.uint64]:
        """uint64 (N,): the split keys of the images that are looked at when test is opened."""
        found: NDArray[np.uint64] = self._index["split_key"][self._opened_rows()]
        return found

    def opened_files(self) -> NDArray[np.uint64]:
        """uint64 (N,): the beginnings of the hashes of the picture files that are looked at when test is opened, which
        do not depend on groups; of arrays none."""
        if self.card.arrays is not None:
            return np.zeros(0, np.uint64)
        hashes, rows = self.source_hashes(), np.flatnonzero(self._opened_rows()).tolist()
        return np.array([int(hashes[row][:16], 16) for row in rows], np.uint64)

    @cached_property
    def has_groups(self) -> bool:
        """Whether samples belong to groups that somebody named: a writer, a part, a burst."""
        if self.card.arrays is not None:
            return False
        # One search a line: a quote within a name is escaped there.
        with open_regular(self._checked(SAMPLES_FILE)) as file:
            return any(re.search(rb'"group": ?"', line) for line in file)

    def groups_at(self, rows: NDArray[np.int64]) -> NDArray[np.uint64] | None:
        """uint64 (N,) by row number, the same for samples that are not independent of one another; None where nobody
        named any groups."""
        return self.split_keys(rows) if self.has_groups else None

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
        if self.card.arrays is not None:
            excluded = set(self.card.options.exclude)
            names = [f"{split}/{number}" for split, length in self.card.arrays for number in range(length)]
            names = [name for name in names if name not in excluded]
        else:
            names = [line.path for line in self.samples() if line.status == "ok"]
        if len(names) != len(self._index):
            raise _damaged(self.folder / SAMPLES_FILE, f"it names {len(names):,} images")
        return names

    def source_hashes(self) -> list[str]:
        """Of each packed sample what is the same in every packing of one source: the SHA-256 of its file, or of all the
        arrays that it stands in. Raises DataError as `samples` does."""
        lines = self.samples()
        if self.card.arrays is not None:
            return [" ".join(str(line.sha256) for line in lines)] * len(self._index)
        return [str(line.sha256) for line in lines if line.status == "ok"]

    def merged(self) -> Self:
        """The same data with every image counted in train; those of test stay sealed without a permit."""
        return replace(self, is_merged=True)

    def with_permit(self, permit: Permit) -> Self:
        """The same data with test open. Raises DataError where the permit is not for it."""
        permit.check(self.test_fingerprint)
        return replace(self, permit=permit)

    def with_val_frac(self, val_frac: float) -> Self:
        """The same data with another share set aside for validation. Raises UsageError outside 0 to below 1."""
        return replace(self, val_frac=_checked_frac(val_frac))

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


def mapped_images(folder: Path, parts: Sequence[ImagesPart], spec: InputSpec) -> Pixels | Parts:
    """The images of a packed folder, uint8 (N, H, W, C), read when they are picked. Raises DataError."""
    shape = (spec.height, spec.width, spec.channels)
    mapped = [_mapped(folder / part.file, (part.num_images, *shape), np.dtype(np.uint8)) for part in parts]
    return mapped[0] if len(mapped) == 1 else Parts(mapped)


def _mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array in a file, mapped. Raises DataError where it has another shape or type."""
    try:
        if not is_file(path):  # a pipe would be waited for
            raise ValueError("it is no file")
        array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))  # a plain array over the mapping
    except Exception as error:  # NumPy's reading of a header raises whatever its parsing runs into
        raise _damaged(path, shown(error)) from error
    if array.shape != shape or array.dtype != dtype:
        raise _damaged(path, f"it has {array.dtype} {array.shape}, not {dtype} {shape}")
    return array


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{shown(path, 200)} is damaged ({what}): pack it anew")


def part_name(number: int) -> str:
    """The name of a file of images, from 0 on."""
    return IMAGES_FILE if number == 0 else f"images-{number + 1}.npy"


def are_among(values_N: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """bool (N,): which values are among some others. As np.isin, with one copy of each in memory in the place of five:
    there may be ten million."""
    found = np.zeros(len(values_N), bool)
    if len(others):
        others = np.sort(others)
        for start in range(0, len(values_N), _BLOCK):
            here = values_N[start : start + _BLOCK]
            places = np.minimum(np.searchsorted(others, here), len(others) - 1)
            found[start : start + _BLOCK] = others[places] == here
    return found


def are_same_samples(one: Dataset, other: Dataset) -> bool:
    """Whether two sets hold the same pictures under the same classes, however they are split; tells nothing else of
    what is sealed."""
    names = [np.array(dataset.class_names, object)[dataset._labels].tolist() for dataset in (one, other)]
    keys = [dataset._index["pixels"].tolist() for dataset in (one, other)]
    return Counter(zip(keys[0], names[0], strict=True)) == Counter(zip(keys[1], names[1], strict=True))


def read_card(folder: Path) -> PackedCard:
    """The card of a packed folder. Raises RecordError."""
    return read_document(folder / CARD_FILE, DOCUMENT, {FORMAT_VERSION: PackedCard}, sealed_from=FORMAT_VERSION)


def _checked_frac(val_frac: Any) -> float:
    return float(checked("val_frac", val_frac, real(0, 1, open_high=True)))


def in_split(split_key_N: NDArray[np.uint64], labels_N: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which samples belong to a split of about `share`: those whose split_key lies in the lowest `share` of its range.

    A split_key is the hash of the image's pixels (or of its group), so whether an image is in depends on that image
    alone: not on seed, order, or what is added later, and equal pictures go together. Only a class that would come out
    wholly outside or wholly inside (it is tiny) gives its lowest split_key or keeps its highest; one that has a single
    split_key stays outside, for something must be learned from. Equal split_keys still go together.
    """
    inside: NDArray[np.bool_] = split_key_N < np.uint64(min(math.floor(share * 2.0**64), 2**64 - 1))
    labels = np.flatnonzero(np.bincount(labels_N))
    ends = [(own.min(), own.max()) for own in (split_key_N[labels_N == label] for label in labels)]
    only = np.array([low for low, high in ends if low == high], np.uint64)
    inside &= ~are_among(split_key_N, only)
    for label in labels:
        is_label_N = labels_N == label
        own = inside[is_label_N]
        if own.any() and not own.all():
            continue
        free = split_key_N[is_label_N]
        free = free[~are_among(free, only)]
        if len(free):
            inside = inside & (split_key_N != free.max()) if own.all() else inside | (split_key_N == free.min())
    return inside
