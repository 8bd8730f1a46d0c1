"""Writing a packed folder: every sample decoded and framed once.

Owns the folder's making (docs/formats.md), the input size chosen for it, the test split, quarantine and fingerprints. A
sample that cannot be read is quarantined with its reason and counted; it is never replaced or passed over in silence.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, tee
from pathlib import Path
from typing import Any

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
    INDEX_DTYPE,
    INDEX_FILE,
    LABELS_FILE,
    SAMPLES_FILE,
    SMALL_FILES,
    mapped_images,
)
from convlens.data.packed.headers import input_of, threads_for
from convlens.data.packed.image_rows import Parts
from convlens.data.packed.journal import (
    EXCLUDED,
    FIRST,
    GROUPED,
    LARGE,
    OK,
    QUARANTINED,
    REDUCED,
    STATUSES,
    WIDE,
    Journal,
    last_commit,
)
from convlens.data.packed.options import PackOptions
from convlens.data.packed.reading import Expected, Image, OtherwiseError, Reader
from convlens.data.packed.splits import draw_test, join_equal, overlap_notes, split_key_of, split_key_of_group
from convlens.data.prefetch import prefetch
from convlens.data.sources.base import SPLITS, Sample, Source
from convlens.errors import DataError, StorageError
from convlens.progress import Progress, open_progress
from convlens.records import write_sealed
from convlens.text import counted, listed, shown

_BLOCK = 1_024  # images: so many squares of a byte fit into 32 bits, and each into 16
_LABELS = 1 << 20  # labels at a time
_LOOKED_AT = 500  # headers that are read before pictures are packed
_DARK = 16  # of 255: where even bright pixels are below it, nothing can be told apart by eye


@dataclass(frozen=True)
class _Packed:
    """What the reading of all samples tells: an entry for each of them, mapped; of those that became images the row
    numbers among the entries, (N,), or that it is all; and why others did not."""

    entries: NDArray[Any]
    samples_N: NDArray[np.int64] | slice
    reasons: Counter[str]

    def of_images(self, field: str) -> NDArray[Any]:
        """A field of the entries of the images, (N,)."""
        found: NDArray[Any] = self.entries[field][self.samples_N]
        return found

    def num(self, flag: int) -> int:
        """Images with a flag."""
        return int(np.count_nonzero(self.of_images("flags") & flag))


def write_packed(source: Source, options: PackOptions, folder: Path, progress: str | Progress, *, key: str) -> None:
    """Fill `folder` with the packed form of `source`, from where another try with the same `key` was broken off. Raises
    DataError where too little can be read."""
    with open_progress(progress) as bar, quiet_pillow():
        if (before := last_commit(folder, key)) is not None:
            # Ranges are whole numbers, which JSON's reader makes fractions of: the card is to have the bits of one go.
            low, high = map(int, before.input.value_range)
            spec, is_sure = before.input.replace(value_range=(low, high)), before.is_sure
        else:  # all headers are read beforehand only where some pictures are not as a few of them let expect
            spec, is_sure = input_of(source, options, bar, most=None if options.exclude else _LOOKED_AT)
        try:
            _fill(source, options, Journal(folder, key, spec, is_sure=is_sure), bar)
        except OtherwiseError:
            spec, _ = input_of(source, options, bar)
            _fill(source, options, Journal(folder, key, spec, is_sure=True), bar)


def _fill(source: Source, options: PackOptions, journal: Journal, bar: Progress) -> None:
    """Raises OtherwiseError where the pictures are not as the journal's input has it, which is not sure of them."""
    with journal:
        packed = _read(source, options, journal, bar)
        _complete(source, options, journal, packed, bar)
        del packed  # Windows cannot rename a folder with a mapped file in it
    journal.end()


def _read(source: Source, options: PackOptions, journal: Journal, bar: Progress) -> _Packed:
    """Every sample of the source, decoded and framed, from where the journal is on."""
    spec, has_lines = journal.spec, source.hashes is None
    numbers = {name: number for number, name in enumerate(source.class_names)}
    array_hash = next(iter((source.hashes or {}).values()), None)
    changes = {one.path: one for one in options.relabelled}
    expected = None
    if not journal.is_sure:
        expected = Expected(None if options.size or options.region else (spec.height, spec.width), spec.channels)
    reader = Reader(spec, frozenset(options.exclude), expected)
    bar.start(f"packing {source.name}", source.num_samples, unit="images")
    coming = source.samples()
    for sample in islice(coming, journal.num_samples):
        changes.pop(sample.name, None)
    if journal.num_samples:
        bar.advance(journal.num_samples)
        bar.line(f"going on after {journal.num_samples:,} of {source.num_samples:,} samples, which are packed already")
    samples, ahead = tee(coming)
    try:
        for group in prefetch(reader, ahead, threads=threads_for(source)):
            bar.advance(len(group))
            for sample, (image, status, known) in zip(islice(samples, len(group)), group, strict=True):
                digest = array_hash or known.get("sha256") or ""
                now = _label_now(sample, digest, changes.pop(sample.name, None), numbers)
                journal.add(
                    _entry(sample, status, image, numbers[sample.label], numbers[now], is_first="remark" in known),
                    None if image is None else image.pixels,
                    _line(sample, now, status, known) if has_lines else None,
                    known.get("reason", ""),
                )
    except (KeyboardInterrupt, SystemExit, OSError, StorageError):
        if journal.num_committed:
            bar.line(
                f"{journal.num_committed:,} of {source.num_samples:,} samples are packed and kept: the same command "
                "goes on there"
            )
        raise
    if journal.num_samples != source.num_samples:
        raise DataError(f"{shown(source.location, 200)} changed while it was read: pack it again")
    if changes:
        raise DataError(
            f"{counted(len(changes), 'sample')} of the labels file not in {shown(source.location, 200)}: "
            f"{listed(changes, 3)}. It is of other data"
        )
    entries = journal.entries()
    is_image = entries["status"] == OK
    return _Packed(entries, slice(None) if is_image.all() else np.flatnonzero(is_image), journal.reasons)


def _entry(
    sample: Sample, status: str, image: Image | None, label: int, now: int, *, is_first: bool
) -> tuple[int, ...]:
    """What the journal keeps of a sample, in the order of ENTRY_DTYPE."""
    split = SPLITS.index(sample.split or "train")
    if image is None:
        return STATUSES[status], split, 0, label, now, 0, 0, 0, 0, 0
    flags = WIDE * image.is_wide | LARGE * (image.size is not None) | REDUCED * image.is_reduced | FIRST * is_first
    group = 0 if sample.group is None else split_key_of_group(sample.group)
    flags |= GROUPED * (sample.group is not None)
    return STATUSES[status], split, flags, label, now, *(image.size or (0, 0)), image.key, image.split_key, group


def _complete(source: Source, options: PackOptions, journal: Journal, packed: _Packed, bar: Progress) -> None:
    """Write what is known only when all samples are: splits, statistics, fingerprints, the card."""
    folder, parts, num = journal.folder, journal.parts(), journal.num_images
    twins = _twins(source, packed, bar)
    index = _index(folder / INDEX_FILE, packed)
    join_equal(index, twins)
    if options.all_test and not source.has_splits:
        index["split"] = SPLITS.index("test")
    elif not source.has_splits:
        draw_test(index, packed.of_images("label"))  # as the data has them: changes leave the splits as they are
    labels_N = packed.of_images("now")
    _need_training_images(index, labels_N, packed, source, all_test=options.all_test)
    np.save(folder / LABELS_FILE, labels_N)
    index.flush()
    with (folder / SAMPLES_FILE).open("w", encoding="ascii", newline="\n") as file:
        if source.hashes is None:
            file.writelines(journal.lines(packed.entries["status"], (SPLITS[number] for number in index["split"])))
        else:
            whole = ({"path": name, "sha256": digest, "status": "ok"} for name, digest in source.hashes.items())
            file.writelines(json.dumps(line) + "\n" for line in whole)
    bar.start(f"hashing {source.name}", num, unit="images")
    images = mapped_images(folder, parts, journal.spec)
    spec, fingerprint, of_test = _measured(images, index["split"], labels_N, journal.spec, source.class_names, bar)
    num_wide, num_reduced, num_first = packed.num(WIDE), packed.num(REDUCED), packed.num(FIRST)
    num_changed = int(np.count_nonzero(labels_N != packed.of_images("label")))
    groups_N = packed.of_images("group") if packed.num(GROUPED) else None
    notes = [*overlap_notes(index, groups_N), *_range_notes(spec, num_wide, num)]
    notes += [f"{num_first:,} pictures have several frames or pages: the first is used"] if num_first else []
    notes += [f"{counted(num_changed, 'label')} changed by a labels file"] if num_changed else []
    card = (
        {"kind": DOCUMENT, "format_version": FORMAT_VERSION, "decoder_version": DECODER_VERSION}
        | {"framing_version": FRAMING_VERSION, "name": source.name, "source": source.location}
        | {"options": options.to_json(), "class_names": list(source.class_names), "input": spec.to_json()}
        | {"num_listed": source.num_samples - len(options.exclude), "num_samples": num}
        | {"num_quarantined": int(np.count_nonzero(packed.entries["status"] == QUARANTINED))}
        | {"num_excluded": len(options.exclude)}
        | {"arrays": None if source.lengths is None else [list(one) for one in source.lengths]}
        | {"split_by": "source" if source.has_splits else "evaluation" if options.all_test else "hash"}
        | {"value_range": list(spec.value_range), "parts": [part.to_json() for part in parts]}
        | {"files": {name: files.sha256_of_file(folder / name) for name in SMALL_FILES}}
        | {"fingerprint": fingerprint, "test_fingerprint": of_test}
        | {"num_reduced": num_reduced, "num_large": packed.num(LARGE) - num_reduced}
        | {"num_wide": num_wide, "twins": twins}
        | {"num_unframed": 0 if source.shape is None or spec.framing != "ink" else num}
        | {"notes": [*notes, *_dark(spec)], "reading_notes": list(source.notes)}
    )
    write_sealed(folder / CARD_FILE, card)


def _index(path: Path, packed: _Packed) -> np.memmap[Any, Any]:
    """index.npy, mapped, with the splits that the source has."""
    index = np.lib.format.open_memmap(path, "w+", INDEX_DTYPE, packed.of_images("split").shape)
    index["split"], index["pixels"] = packed.of_images("split"), packed.of_images("pixels")
    index["split_key"] = packed.of_images("content")
    is_grouped = packed.of_images("flags") & GROUPED > 0
    index["split_key"][is_grouped] = packed.of_images("group")[is_grouped]
    return index


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
    """What samples.jsonl says of a file; the split of an image is drawn when all are known."""
    line = {"path": sample.name, "sha256": None, "pixels_sha256": None, "label": label, "group": sample.group}
    return line | ({} if status == "ok" else {"split": sample.split}) | {"status": status} | known


def _twins(source: Source, packed: _Packed, bar: Progress) -> list[tuple[int, int]]:
    """Pairs of rows: a JPEG that was decoded at a fraction, and the same picture in another format, which was not;
    their pixels as framed differ a little. Only JPEGs of such a picture's size are decoded once more, whole."""
    flags_N = packed.of_images("flags")
    others = np.flatnonzero(flags_N & (LARGE | REDUCED) == LARGE)
    if len(others) == 0 or not (flags_N & REDUCED).any():
        return []
    contents = packed.of_images("content")[others]
    order = np.argsort(contents, kind="stable")
    others, contents = others[order], contents[order]
    sizes_N = packed.of_images("height").astype(np.uint64) << np.uint64(32) | packed.of_images("width")
    suspects = np.flatnonzero((flags_N & REDUCED > 0) & np.isin(sizes_N, np.unique(sizes_N[others])))
    found = []
    bar.start("comparing formats", len(suspects), unit="images")
    numbers = np.arange(len(packed.entries))[packed.samples_N][suspects].tolist()  # in order, as the samples come
    samples, begun = source.samples(), 0
    for row, number in zip(suspects.tolist(), numbers, strict=True):
        sample = next(islice(samples, number - begun, None))
        begun = number + 1
        whole = decode_reduced(bytes(sample.read()), lambda height, width: 1)
        content = np.uint64(split_key_of(content_digest(b"", whole._replace(is_jpeg=False))))
        place = int(np.searchsorted(contents, content, "right")) - 1
        if place >= 0 and contents[place] == content:
            found.append((row, int(others[place])))
        bar.advance(1)
    return found


def _need_training_images(
    index: NDArray[Any], labels_N: NDArray[Any], packed: _Packed, source: Source, *, all_test: bool
) -> None:
    """Every class must have something to learn from. Raises DataError."""
    where, reasons = shown(source.location, 200), packed.reasons
    if len(index) == 0 and not (packed.entries["status"] == QUARANTINED).any():
        raise DataError(f"every sample of {where} is excluded: nothing is left")
    if len(index) == 0:
        raise DataError(
            f"none of the {len(packed.entries):,} pictures of {where} can be read "
            f"(most often: {reasons.most_common(1)[0][0]})"
        )
    if all_test:
        return
    counts = np.bincount(labels_N[index["split"] == SPLITS.index("train")], minlength=len(source.class_names))
    empty = [number for number, count in enumerate(counts) if count == 0]
    if empty:
        statuses = packed.entries["status"]
        out = int(np.count_nonzero((statuses == EXCLUDED) & (packed.entries["now"] == empty[0])))
        num = int(np.count_nonzero(statuses == QUARANTINED))
        whys = [f"{counted(out, 'image')} of it {'is' if out == 1 else 'are'} left out by `exclude`"] if out else []
        if num:
            whys.append(f"{counted(num, 'file')} cannot be read: {reasons.most_common(1)[0][0]}")
        why = f" ({'; '.join(whys)})" if whys else ""
        raise DataError(f"{where}: no training image is left of class {source.class_names[empty[0]]!r}{why}")


def _measured(
    images: Pixels | Parts,
    split_N: NDArray[Any],
    labels_N: NDArray[Any],
    spec: InputSpec,
    class_names: Sequence[str],
    bar: Progress,
) -> tuple[InputSpec, str, str | None]:
    """The input with mean and std per channel over all images that are not test (all, where everything is test),
    exactly; and the fingerprints of all images and of those of test: SHA-256 over images, labels and class names (and,
    of all, the splits)."""
    is_test = split_N == SPLITS.index("test")
    is_known = np.ones_like(is_test) if is_test.all() else ~is_test
    sums, squares = np.zeros(spec.channels, np.int64), np.zeros(spec.channels, np.int64)
    begin = json.dumps([list(images.shape[1:]), list(class_names)]).encode()
    of_all, of_test = hashlib.sha256(begin), hashlib.sha256(begin)
    for start in range(0, len(split_N), _BLOCK):
        here = slice(start, start + _BLOCK)
        block = images[np.arange(start, min(start + _BLOCK, len(split_N)))]
        of_all.update(block.data)
        of_test.update(block[is_test[here]].data)
        known = block[is_known[here]].reshape(-1, math.prod(block.shape[1:])).astype(np.uint16)
        sums += known.sum(axis=0, dtype=np.uint32).reshape(-1, spec.channels).sum(axis=0, dtype=np.int64)
        squares += (known * known).sum(axis=0, dtype=np.uint32).reshape(-1, spec.channels).sum(axis=0, dtype=np.int64)
        bar.advance(len(block))
    for start in range(0, len(split_N), _LABELS):
        here = slice(start, start + _LABELS)
        of_all.update(labels_N[here].astype("<i8").data)
        of_test.update(labels_N[here][is_test[here]].astype("<i8").data)
    for start in range(0, len(split_N), _LABELS):
        of_all.update(np.ascontiguousarray(split_N[start : start + _LABELS]).data)
    count = int(is_known.sum()) * spec.height * spec.width
    mean = sums / count
    variance = squares / count - mean**2
    std = np.sqrt(np.maximum(variance, 1.0))  # a set of blank pictures must not divide by zero
    spec = spec.with_statistics(tuple(map(float, mean)), tuple(map(float, std)))
    return spec, of_all.hexdigest(), of_test.hexdigest() if is_test.any() else None


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
