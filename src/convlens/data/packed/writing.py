"""Writing a packed folder: every sample decoded and framed once.

Owns the folder's making (docs/formats.md), the input size chosen for it, the test split, quarantine and fingerprints. A
sample that cannot be read is quarantined with its reason and counted; it is never replaced or passed over in silence.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice, tee
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convlens import files
from convlens.data.image.decode import (
    DECODER_VERSION,
    Pixels,
    content_digest,
    decode_reduced,
    quiet_pillow,
)
from convlens.data.image.framing import FRAMING_VERSION, InputSpec
from convlens.data.image.values import BYTES
from convlens.data.packed.corrections import Relabelled
from convlens.data.packed.dataset import (
    CARD_FILE,
    DOCUMENT,
    FORMAT_VERSION,
    IMAGES_FILE,
    INDEX_DTYPE,
    INDEX_FILE,
    LABELS_FILE,
    SAMPLES_FILE,
    SMALL_FILES,
)
from convlens.data.packed.headers import input_of, threads_for
from convlens.data.packed.options import PackOptions
from convlens.data.packed.reading import Expected, OtherwiseError, Reader
from convlens.data.packed.splits import draw_test, join_equal, overlap_notes, split_key_of, split_key_of_group
from convlens.data.prefetch import prefetch
from convlens.data.sources.base import SPLITS, Sample, Source
from convlens.errors import DataError
from convlens.progress import Progress, open_progress
from convlens.records import write_sealed
from convlens.text import counted, listed, shown

_LOOKED_AT = 500  # headers that are read before pictures are packed
_DARK = 16  # of 255: where even bright pixels are below it, nothing can be told apart by eye


class _Large(NamedTuple):
    """A picture much larger than its input: its name, (height, width), and whether it is a JPEG decoded at a
    fraction."""

    name: str
    size: tuple[int, int]
    is_reduced: bool
    content: int  # the split key that it has where there are no groups


@dataclass(frozen=True)
class _Packed:
    """What the writing of images tells: per image split (0..2), label, pixel key and split_key; per file a line."""

    index: NDArray[Any]
    labels_N: NDArray[np.int64]
    lines: list[dict[str, Any]]
    groups: tuple[str | None, ...]  # of the images, in order
    large: dict[int, _Large]  # by row: those that were decoded at a fraction, and others as large
    num_wide: int  # that are no bytes
    notes: tuple[str, ...] = ()
    relabelled: dict[int, int] = field(default_factory=dict)  # by row: the class that a person changed it to


def write_packed(source: Source, options: PackOptions, folder: Path, progress: str | Progress) -> None:
    """Fill `folder` with the packed form of `source`. Raises DataError where too little can be read."""
    with open_progress(progress) as bar:
        spec, packed = _write_samples(source, options, folder, bar)
        twins = _twins(source, packed, bar)
    join_equal(packed.index, twins)
    if options.all_test and not source.has_splits:
        packed.index["split"] = SPLITS.index("test")
    elif not source.has_splits:
        draw_test(packed.index, packed.labels_N)
    packed.labels_N[list(packed.relabelled)] = list(packed.relabelled.values())  # not before: splits stay as they are
    _need_training_images(packed, source, all_test=options.all_test)
    np.save(folder / LABELS_FILE, packed.labels_N.astype(np.uint16))
    np.save(folder / INDEX_FILE, packed.index)
    images = np.load(folder / IMAGES_FILE, mmap_mode="r", allow_pickle=False)
    spec = _with_statistics(images, packed.index["split"] != SPLITS.index("test"), spec)
    lines = _with_splits(packed)
    with (folder / SAMPLES_FILE).open("w", encoding="ascii", newline="\n") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    card = (
        {"kind": DOCUMENT, "format_version": FORMAT_VERSION, "decoder_version": DECODER_VERSION}
        | {"framing_version": FRAMING_VERSION, "name": source.name, "source": source.location}
        | {"options": options.to_json(), "class_names": list(source.class_names), "input": spec.to_json()}
        | {"num_listed": source.num_samples - len(options.exclude), "num_samples": len(packed.index)}
        | {"num_quarantined": sum(line["status"] == "quarantined" for line in packed.lines)}
        | {"num_excluded": len(options.exclude)}
        | {"arrays": None if source.lengths is None else [list(one) for one in source.lengths]}
        | {"split_by": "source" if source.has_splits else "evaluation" if options.all_test else "hash"}
        | {"value_range": list(spec.value_range), "parts": [{"file": IMAGES_FILE, "num_images": len(packed.index)}]}
        | {"files": {name: files.sha256_of_file(folder / name) for name in SMALL_FILES}}
        | {"fingerprint": _fingerprint(images, packed, source.class_names, None)}
        | {"test_fingerprint": _fingerprint(images, packed, source.class_names, SPLITS.index("test"))}
        | {"num_reduced": sum(one.is_reduced for one in packed.large.values())}
        | {"num_large": sum(not one.is_reduced for one in packed.large.values())}
        | {"num_wide": packed.num_wide, "twins": twins}
        | {"num_unframed": 0 if source.shape is None or spec.framing != "ink" else len(packed.index)}
        | {"notes": [*overlap_notes(packed.index, packed.groups), *packed.notes, *_dark(spec)]}
        | {"reading_notes": list(source.notes)}
    )
    del images  # Windows cannot rename a folder with a mapped file in it
    write_sealed(folder / CARD_FILE, card)


@contextmanager
def _images_file(folder: Path, shape: tuple[int, int, int]) -> Iterator[Callable[[Pixels], object]]:
    """Write images.npy image by image; the header, which holds their number, is put in at the end."""
    count, image_bytes = 0, math.prod(shape)

    def header(file: BinaryIO) -> None:
        fields = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
        np.lib.format.write_array_header_1_0(file, fields)

    with (folder / IMAGES_FILE).open("wb") as file:
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


def _write_samples(source: Source, options: PackOptions, folder: Path, bar: Progress) -> tuple[InputSpec, _Packed]:
    with quiet_pillow():
        # All headers are read beforehand only where some pictures are not as a few of them let expect.
        spec, is_sure = input_of(source, options, bar, most=None if options.exclude else _LOOKED_AT)
        if not is_sure:
            with suppress(OtherwiseError):
                return spec, _write_framed(source, options, spec, folder, bar, are_expected=True)
            spec, _ = input_of(source, options, bar)
        return spec, _write_framed(source, options, spec, folder, bar)


def _write_framed(
    source: Source, options: PackOptions, spec: InputSpec, folder: Path, bar: Progress, *, are_expected: bool = False
) -> _Packed:
    """Raises OtherwiseError where the pictures `are_expected` to agree in size and channels, and do not."""
    rows: list[tuple[int, int, int]] = []
    labels: list[int] = []
    lines: list[dict[str, Any]] = []
    groups: list[str | None] = []
    large: dict[int, _Large] = {}
    num_read = num_first = num_wide = 0
    has_lines = source.hashes is None
    numbers = {name: number for number, name in enumerate(source.class_names)}
    array_hash = next(iter((source.hashes or {}).values()), None)
    changes, relabelled = {one.path: one for one in options.relabelled}, dict[int, int]()
    expected = None
    if are_expected:
        expected = Expected(None if options.size or options.region else (spec.height, spec.width), spec.channels)
    reader = Reader(spec, frozenset(options.exclude), expected)
    bar.start(f"packing {source.name}", source.num_samples, unit="images")
    samples, ahead = tee(source.samples())
    with _images_file(folder, (spec.height, spec.width, spec.channels)) as write:
        for group in prefetch(reader, ahead, threads=threads_for(source)):
            bar.advance(len(group))
            for sample, (image, status, known) in zip(islice(samples, len(group)), group, strict=True):
                num_read += 1
                digest = array_hash or known.get("sha256") or ""
                now = _label_now(sample, digest, changes.pop(sample.name, None), numbers)
                if has_lines:
                    lines.append(_line(sample, now, status, known))
                if image is None:
                    continue
                write(image.pixels)
                num_wide += image.is_wide
                if image.size is not None:
                    large[len(rows)] = _Large(sample.name, image.size, image.is_reduced, image.split_key)
                num_first += "remark" in known
                if now != sample.label:
                    relabelled[len(rows)] = numbers[now]
                split_key = image.split_key if sample.group is None else split_key_of_group(sample.group)
                rows.append((SPLITS.index(sample.split or "train"), image.key, split_key))
                labels.append(numbers[sample.label])
                groups.append(sample.group)
    if num_read != source.num_samples:
        raise DataError(f"{shown(source.location, 200)} changed while it was read: pack it again")
    if changes:
        raise DataError(
            f"{counted(len(changes), 'sample')} of the labels file not in {shown(source.location, 200)}: "
            f"{listed(changes, 3)}. It is of other data"
        )
    if source.hashes is not None:
        lines = [{"path": file, "sha256": digest, "status": "ok"} for file, digest in source.hashes.items()]
    notes = _range_notes(spec, num_wide, len(rows))
    notes += (f"{num_first:,} pictures have several frames or pages: the first is used",) if num_first else ()
    index, labels_N = np.array(rows, INDEX_DTYPE), np.array(labels, np.int64)
    if relabelled:
        notes += (f"{counted(len(relabelled), 'label')} changed by a labels file",)
    return _Packed(index, labels_N, lines, tuple(groups), large, num_wide, notes, relabelled)


def _label_now(sample: Sample, digest: str, change: Relabelled | None, numbers: dict[str, int]) -> str:
    """The label that a sample has, changed where a labels file says so. Raises DataError where it is of other data."""
    if change is None:
        return sample.label
    if change.was != sample.label or change.now not in numbers:
        is_class = change.now in numbers
        raise DataError(
            f"the labels file changes {shown(sample.name)!r} from {shown(change.was)!r} to {shown(change.now)!r}, but "
            + (f"it is labelled {shown(sample.label)!r}: it is of other data" if is_class else "there is no such class")
        )
    if digest and not digest.startswith(change.source):
        raise DataError(
            f"{shown(sample.name)!r} is not the file that the labels file was made for: it is of other data"
        )
    return change.now


def _line(sample: Sample, label: str, status: str, known: dict[str, Any]) -> dict[str, Any]:
    """What samples.jsonl says of a file."""
    line = {"path": sample.name, "sha256": None, "pixels_sha256": None, "label": label}
    return line | {"group": sample.group, "split": sample.split, "status": status} | known


def _twins(source: Source, packed: _Packed, bar: Progress) -> list[tuple[int, int]]:
    """Pairs of rows: a JPEG that was decoded at a fraction, and the same picture in another format, which was not;
    their pixels as framed differ a little. Only JPEGs of such a picture's size are decoded once more, whole."""
    others = {one.content: row for row, one in packed.large.items() if not one.is_reduced}
    sizes = {packed.large[row].size for row in others.values()}
    suspects = {one.name: row for row, one in packed.large.items() if one.is_reduced and one.size in sizes}
    if not suspects:
        return []
    found = []
    bar.start("comparing formats", len(suspects), unit="images")
    for sample in source.samples():
        if sample.name in suspects:
            whole = decode_reduced(bytes(sample.read()), lambda height, width: 1)
            other = others.get(split_key_of(content_digest(b"", whole._replace(is_jpeg=False))))
            if other is not None:
                found.append((suspects[sample.name], other))
            bar.advance(1)
    return found


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
        out = sum(
            line["status"] == "excluded" and line["label"] == empty[0] for line in packed.lines if "label" in line
        )
        whys = [f"{counted(out, 'image')} of it {'is' if out == 1 else 'are'} left out by `exclude`"] if out else []
        if reasons:
            whys.append(f"{counted(sum(reasons.values()), 'file')} cannot be read: {reasons.most_common(1)[0][0]}")
        why = f" ({'; '.join(whys)})" if whys else ""
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


def _range_notes(spec: InputSpec, num_wide: int, num: int) -> tuple[str, ...]:
    """What black and white are, where they are not 0 and 255, or where that is said for some alone."""
    low, high = spec.value_range
    if spec.value_range != BYTES:
        return (f"values {low:g} to {high:,g} are read as black to white",)
    if not 0 < num_wide < num:
        return ()
    return (
        f"{num_wide:,} of the {num:,} pictures have more than 8 bits, with 65,535 for white: if theirs is another, "
        "give all pictures in one depth",
    )


def _dark(spec: InputSpec) -> list[str]:
    """A note on pictures of which next to nothing can be seen."""
    if max(spec.mean) + 2 * max(spec.std) >= _DARK:
        return []
    return [
        f"the pictures are nearly black (mean {max(spec.mean):.1f} of 255): if they should not be, their values mean "
        "something else than a brightness"
    ]


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
