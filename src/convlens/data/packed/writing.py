"""Writing a packed folder: every sample decoded and framed once.

Owns the folder's making (docs/formats.md), the input size chosen for it, the test split, quarantine and
fingerprints. A sample that cannot be read is quarantined with its reason and counted; it is never replaced or
passed over in silence.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from convlens import files
from convlens.data.image.decode import DECODER_VERSION, Pixels, content_digest, quiet_pillow, read_bytes
from convlens.data.image.framing import FRAMING_VERSION, InputSpec, fit, framed
from convlens.data.image.ink import is_framed_ink
from convlens.data.packed.dataset import FORMAT_VERSION, INDEX_DTYPE, INDEX_FILE_DTYPE, index_digest
from convlens.data.packed.exclusions import refuse_unknown
from convlens.data.packed.headers import input_of, threads_for
from convlens.data.packed.options import PackOptions
from convlens.data.packed.splits import split_key_of, split_key_of_group, draw_test, join_equal, overlap_notes
from convlens.data.prefetch import prefetch
from convlens.data.sources.base import SPLITS, ArraySource, FileSample, FileSource, Source
from convlens.errors import DataError, ImageError
from convlens.progress import Progress, open_progress
from convlens.text import shown

_INK_SHARE = 0.95  # a set is framed as ink if this share of its images already is


@dataclass(frozen=True)
class _Packed:
    """What the writing of images tells: per image split (0..2), label, pixel key and split_key; per file a line."""

    index: NDArray[Any]
    labels_N: NDArray[np.int64]
    lines: list[dict[str, Any]]
    groups: tuple[str | None, ...]  # of the images, in order
    notes: tuple[str, ...] = ()


def write_packed(source: Source, options: PackOptions, folder: Path, progress: str | Progress) -> None:
    """Fill `folder` with the packed form of `source`. Raises DataError where too little can be read."""
    with open_progress(progress) as bar:
        if isinstance(source, FileSource):
            spec, packed = _write_files(source, options, folder, bar)
        else:
            spec, packed = _write_arrays(source, options, folder, bar)
    join_equal(packed.index)
    if options.all_test and not source.has_splits:
        packed.index["split"] = SPLITS.index("test")
    elif not source.has_splits:
        draw_test(packed.index, packed.labels_N)
    _need_training_images(packed, source, all_test=options.all_test)
    np.save(folder / "labels.npy", packed.labels_N.astype(np.uint16))
    np.save(folder / "index.npy", packed.index.view(INDEX_FILE_DTYPE))
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    spec = _with_statistics(images, packed.index["split"] != SPLITS.index("test"), spec)
    lines = _with_splits(packed)
    with (folder / "samples.jsonl").open("w", encoding="ascii", newline="\n") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    card = {
        "kind": "convlens-dataset",
        "format_version": FORMAT_VERSION,
        "decoder_version": DECODER_VERSION,
        "framing_version": FRAMING_VERSION,
        "name": source.name,
        "source": source.location,
        "options": options.to_json(),
        "class_names": list(source.class_names),
        "input": spec.to_json(),
        "num_listed": source.num_samples - len(options.exclude),
        "num_samples": len(packed.index),
        "num_quarantined": sum(line["status"] == "quarantined" for line in packed.lines),
        "num_excluded": len(options.exclude),
        "arrays": _array_lengths(source),
        "split_by": "source" if source.has_splits else "evaluation" if options.all_test else "hash",
        "index_sha256": index_digest(packed.labels_N, packed.index),
        "fingerprint": _fingerprint(images, packed, source.class_names, None),
        "test_fingerprint": _fingerprint(images, packed, source.class_names, SPLITS.index("test")),
        "notes": [*source.notes, *overlap_notes(packed.index, packed.groups), *packed.notes],
    }
    del images  # Windows cannot rename a folder with a mapped file in it
    files.write_json(folder / "dataset.json", card)


def _digest(pixels: Pixels) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).digest()


def _key(digest: bytes) -> int:
    """An image's key: the first eight bytes of its SHA-256."""
    return int.from_bytes(digest[:8], "little")


def _array_lengths(source: Source) -> list[list[Any]] | None:
    """How many samples each array has, in order: what `Dataset.sample_names` numbers them by."""
    if isinstance(source, FileSource):
        return None
    return [[split or "all", len(part.labels_N)] for split, part in source.splits.items()]


@contextmanager
def _images_file(folder: Path, shape: tuple[int, int, int]) -> Iterator[Callable[[Pixels], object]]:
    """Write images.npy image by image; the header, which holds their number, is put in at the end."""
    count, image_bytes = 0, math.prod(shape)

    def header(file: BinaryIO) -> None:
        fields = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
        np.lib.format.write_array_header_1_0(file, fields)

    with (folder / "images.npy").open("wb") as file:
        header(file)
        length = file.tell()

        def write(images: Pixels) -> None:
            nonlocal count
            file.write(np.ascontiguousarray(images).data)
            count += images.size // image_bytes

        yield write
        file.seek(0)
        header(file)
        assert file.tell() == length, "NumPy leaves room for the number to grow"


def _write_arrays(source: ArraySource, options: PackOptions, folder: Path, bar: Progress) -> tuple[InputSpec, _Packed]:
    first = next(iter(source.splits.values())).images_NHWC
    sample = [s.images_NHWC for name, s in source.splits.items() if name != "test"] or [first]
    own_size, own_channels = (first.shape[1], first.shape[2]), int(first.shape[3])
    size = own_size if options.size is None else options.size
    channels = own_channels if options.channels is None else options.channels
    framing = options.framing
    if framing is None:
        framing = "ink" if channels == 1 and _mostly_ink(sample[0]) else "pad"
    if options.region is not None and options.size is None:
        size = (options.region[3], options.region[2])
    spec = InputSpec(size[0], size[1], channels, framing, region=options.region)
    unchanged = size == own_size and channels == own_channels and options.region is None
    lengths = [(split or "all", len(part.labels_N)) for split, part in source.splits.items()]
    names = (f"{split}/{number}" for split, length in lengths for number in range(length))
    excluded = set(options.exclude)
    if excluded:
        refuse_unknown(options.exclude, (f"{s}/{n}" for s, length in lengths for n in range(length)), source.name)
    total = source.num_samples - len(excluded)
    index, labels = np.zeros(total, INDEX_DTYPE), np.zeros(total, np.int64)
    row = 0
    bar.start(f"packing {source.name}", total, unit="images")
    with _images_file(folder, (spec.height, spec.width, spec.channels)) as write:
        for name, split in source.splits.items():
            for image, label in zip(split.images_NHWC, split.labels_N, strict=True):
                if excluded and next(names) in excluded:
                    continue
                # An array set of the asked-for size is its own convention: it is not framed a second time.
                pixels = image if unchanged else fit(image, spec)
                write(pixels)
                digest = _digest(image)  # of the array as it came: the split does not depend on the framing
                key = _key(digest if unchanged else _digest(pixels))
                index[row] = (SPLITS.index(name or "train"), key, split_key_of(digest))
                labels[row] = label
                row += 1
                if row % 1024 == 0:
                    bar.advance(1024)
    lines = [{"path": file, "sha256": digest, "status": "ok"} for file, digest in source.hashes.items()]
    return spec, _Packed(index, labels, lines, (None,) * total)


def _mostly_ink(images_NHWC: Pixels) -> bool:
    sample = images_NHWC[:: max(1, len(images_NHWC) // 500)]
    return float(np.mean([is_framed_ink(image[:, :, 0]) for image in sample])) >= _INK_SHARE


def _write_files(source: FileSource, options: PackOptions, folder: Path, bar: Progress) -> tuple[InputSpec, _Packed]:
    with quiet_pillow():
        refuse_unknown(options.exclude, (sample.relative for sample in source.samples), shown(source.location, 200))
        excluded, threads, num_first = set(options.exclude), threads_for(source), 0
        spec = input_of(source, options, bar)
        numbers = {name: number for number, name in enumerate(source.class_names)}
        rows: list[tuple[int, int, int]] = []
        labels: list[int] = []
        lines: list[dict[str, Any]] = []
        groups: list[str | None] = []
        bar.start(f"packing {source.name}", len(source.samples), unit="images")
        samples = iter(source.samples)
        with _images_file(folder, (spec.height, spec.width, spec.channels)) as write:
            for group in prefetch(lambda sample: _read(sample, spec, excluded), source.samples, threads=threads):
                bar.advance(len(group))
                for (read, line), sample in zip(group, samples, strict=False):
                    lines.append(line)
                    if read is None:
                        continue
                    pixels, key, split_key = read
                    write(pixels)
                    num_first += "remark" in line
                    split_key = split_key_of_group(sample.group) if sample.group is not None else split_key
                    rows.append((SPLITS.index(sample.split or "train"), key, split_key))
                    labels.append(numbers[sample.label])
                    groups.append(sample.group)
    notes = (f"{num_first:,} pictures have several frames or pages: the first is used",) if num_first else ()
    return spec, _Packed(np.array(rows, INDEX_DTYPE), np.array(labels, np.int64), lines, tuple(groups), notes)


def _read(
    sample: FileSample, spec: InputSpec, excluded: Set[str]
) -> tuple[tuple[Pixels, int, int] | None, dict[str, Any]]:
    """One picture: its framed pixels with their key and split_key (None where there are none), and its line."""
    line: dict[str, Any] = {
        "path": sample.relative,
        "sha256": None,
        "pixels_sha256": None,
        "label": sample.label,
        "group": sample.group,
        "split": sample.split,
        "status": "ok",
    }
    if sample.relative in excluded:
        return None, line | {"status": "excluded", "reason": "named in the list of exclusions"}
    try:
        data = read_bytes(sample.path)
        line["sha256"] = files.sha256_of(data)
        pixels, decoded = framed(data, spec)
        digest = _digest(pixels)
        line["pixels_sha256"] = digest.hex()
        if decoded.is_first:
            line["remark"] = "the first of several frames or pages"
        return (pixels, _key(digest), split_key_of(content_digest(data, decoded))), line
    except ImageError as error:
        line |= {"status": "quarantined", "reason": str(error)}
        return None, line


def _need_training_images(packed: _Packed, source: Source, *, all_test: bool) -> None:
    """Every class must have something to learn from. Raises DataError."""
    reasons = Counter(line["reason"] for line in packed.lines if line["status"] == "quarantined")
    if len(packed.index) == 0 and not reasons:
        raise DataError(f"every sample of {shown(source.location, 200)} is excluded: nothing is left")
    if len(packed.index) == 0:
        raise DataError(
            f"none of the {len(packed.lines):,} pictures of {shown(source.location, 200)} can be read "
            f"(most often: {reasons.most_common(1)[0][0]})"
        )
    if all_test:
        return
    train = packed.labels_N[packed.index["split"] == SPLITS.index("train")]
    counts = np.bincount(train, minlength=len(source.class_names))
    empty = [name for name, count in zip(source.class_names, counts, strict=True) if count == 0]
    if empty:
        why = f" ({sum(reasons.values()):,} files cannot be read: {reasons.most_common(1)[0][0]})" if reasons else ""
        raise DataError(f"{shown(source.location, 200)}: no training image is left of class {empty[0]!r}{why}")


def _with_splits(packed: _Packed) -> list[dict[str, Any]]:
    """The lines of samples.jsonl, with the split that each readable file ended in."""
    if len(packed.lines) == 0 or "label" not in packed.lines[0]:
        return packed.lines
    splits = iter(packed.index["split"])
    return [line | {"split": SPLITS[next(splits)]} if line["status"] == "ok" else line for line in packed.lines]


def _with_statistics(images: Pixels, known: NDArray[np.bool_], spec: InputSpec) -> InputSpec:
    """Mean and std per channel over all images that are not test (all, where everything is test), exactly."""
    rows = np.flatnonzero(known) if known.any() else np.arange(len(images))
    sums, squares = np.zeros(spec.channels, np.int64), np.zeros(spec.channels, np.int64)
    for start in range(0, len(rows), 1024):  # so many squares of a byte fit into 32 bits, and each into 16
        block = images[rows[start : start + 1024]].reshape(min(1024, len(rows) - start), -1).astype(np.uint16)
        sums += block.sum(axis=0, dtype=np.uint32).reshape(-1, spec.channels).sum(axis=0, dtype=np.int64)
        squares += (block * block).sum(axis=0, dtype=np.uint32).reshape(-1, spec.channels).sum(axis=0, dtype=np.int64)
    count = len(rows) * spec.height * spec.width
    mean = sums / count
    variance = squares / count - mean**2
    std = np.sqrt(np.maximum(variance, 1.0))  # a set of blank pictures must not divide by zero
    return spec.with_statistics(tuple(map(float, mean)), tuple(map(float, std)))


def _fingerprint(images: Pixels, packed: _Packed, class_names: Sequence[str], split: int | None) -> str | None:
    """SHA-256 over images, labels and class names, of one split or (with the splits themselves) of all."""
    rows = np.arange(len(images)) if split is None else np.flatnonzero(packed.index["split"] == split)
    if len(rows) == 0:
        return None
    digest = hashlib.sha256(json.dumps([list(images.shape[1:]), list(class_names)]).encode())
    for start in range(0, len(rows), 4096):
        digest.update(np.ascontiguousarray(images[rows[start : start + 4096]]).data)
    digest.update(packed.labels_N[rows].astype("<i8").data)
    if split is None:
        digest.update(packed.index["split"].tobytes())
    return digest.hexdigest()
