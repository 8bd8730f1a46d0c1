"""Packing and opening: from whatever names data to an open Dataset.

Owns the cache that packed folders live in, and when a folder is packed anew. `writing.py` fills the folders.
"""

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from convlens import files
from convlens.data.image.decode import DECODER_VERSION
from convlens.data.image.framing import FRAMING_VERSION
from convlens.data.packed.dataset import CARD_FILE, DEFAULT_VAL_FRAC, FORMAT_VERSION, DataIdentity, Dataset, read_card
from convlens.data.packed.exclusions import Matched, as_here, exclusions, matched
from convlens.data.packed.journal import COMMIT_FILE
from convlens.data.packed.options import PackOptions, parse_region, parse_size
from convlens.data.packed.writing import write_packed
from convlens.data.sources.base import ReadOptions, Source, need_two_classes
from convlens.data.sources.fetching import is_address
from convlens.data.sources.named import NAMED_SETS
from convlens.data.sources.recognise import open_source
from convlens.errors import DataError, RecordError, UsageError
from convlens.progress import Progress
from convlens.text import listed, shown

_KEPT_DAYS = 7  # that an unfinished packing waits in the cache for being gone on with


def pack(
    data: Any,
    out: str | Path | None = None,
    *,
    size: int | str | tuple[int, int] | None = None,
    channels: int | None = None,
    framing: str | None = None,
    group: str | None = None,
    layout: str | None = None,
    label: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    region: str | tuple[int, int, int, int] | None = None,
    exclude: str | Path | Iterable[str] | None = None,
    data_root: str | Path | None = None,
    verify: bool = False,
    progress: str | Progress = "auto",
) -> Dataset:
    """Decode a source once into a packed data set, and open it.

    `data` is a set's name, a path or arrays. Without `out` the folder lies in the user's cache and is made only if the
    source or an option changed. `group`, `layout`, `label`, `path_column` and `label_column` say how names are read
    where they do not say it themselves (docs/own-images.md). `region` (x, y, width, height) is cut from every picture;
    `exclude` is a list of samples to leave out, or a file of their names. `verify` holds every image to its key: what
    is damaged in the cache is packed anew; `data` may then also be a packed folder, which is only looked at. Raises
    DataError, UsageError, StorageError; RunError where `out` exists."""
    read = ReadOptions(group, layout, label, path_column, label_column)
    options = PackOptions(
        parse_size(size), channels, framing, region=parse_region(region), exclude=exclusions(exclude), **read._asdict()
    )
    if out is not None:
        files.refuse_existing(Path(out))  # before a large folder is decoded
    if verify and is_packed(data):
        if out is not None:
            raise UsageError("a packed folder is only looked at: leave `out` away")
        dataset = open_data(data, options)
        if num := dataset.num_damaged():
            raise DataError(
                f"{shown(dataset.folder, 200)} is damaged: {num:,} of its {len(dataset):,} images are not those that "
                "were packed: pack it anew"
            )
        return dataset
    source = open_source(data, read, data_root=data_root, progress=progress)
    need_two_classes(source)
    if out is None:
        return _cached(source, options, progress, verify=verify)
    out = Path(out)
    left_out, options = options_for(source, options)
    key = _cache_name(source, options)
    busy = f"another process is packing into {shown(out, 200)}: wait for it"
    with (
        files.lock(_lock_of(_packed_sets() / f"out-{files.sha256_of(str(out.absolute()).encode())[:16]}"), busy=busy),
        files.new_folder(out, kept=COMMIT_FILE) as folder,
    ):
        write_packed(source, options, folder, progress, key=key)
    return _as_read(Dataset.open(out), source, left_out)


def open_data(
    data: Any,
    options: PackOptions | None = None,
    *,
    data_root: str | Path | None = None,
    val_frac: float = DEFAULT_VAL_FRAC,
    progress: str | Progress = "auto",
) -> Dataset:
    """Open whatever names data: a Dataset, a packed folder, or a source (packed into the cache if need be).

    Raises as `pack` does.
    """
    options = options or PackOptions()
    is_packed = is_packed_folder(data)
    if (isinstance(data, Dataset) or is_packed) and options != PackOptions():
        raise UsageError(
            f"{shown(data, 200)} is packed already: how it was read, size, channels, framing, region and exclusions "
            "are fixed"
        )
    if isinstance(data, Dataset):
        return data.with_val_frac(val_frac)
    if is_packed:
        return Dataset.open(data, val_frac)
    if isinstance(data, str) and data in NAMED_SETS and options == PackOptions() and data_root is None:
        # What was published cannot change: no need to unpack it to see.
        with suppress(DataError):  # not there yet, or damaged
            return Dataset.open(_packed_sets() / _named_folder(data), val_frac)
    source = open_source(data, options.read, data_root=data_root, progress=progress)
    if not options.all_test:
        need_two_classes(source)
    return open_listed(source, options, val_frac=val_frac, progress=progress)


def open_listed(source: Source, options: PackOptions, *, val_frac: float, progress: str | Progress) -> Dataset:
    """Open a source that was listed already, packed into the cache if need be. Raises as `pack` does."""
    return _cached(source, options, progress).with_val_frac(val_frac)


def is_packed(data: Any) -> bool:
    """Whether `data` is a packed data set, open or as a folder."""
    return isinstance(data, Dataset) or is_packed_folder(data)


def is_packed_folder(data: Any) -> bool:
    """Whether `data` is the path of a packed folder (a named set is none, whatever lies in the working folder)."""
    if not isinstance(data, str | Path) or str(data) in NAMED_SETS:
        return False
    return files.is_file(Path(data) / CARD_FILE)


def _packed_sets() -> Path:
    return files.cache_folder() / "packed"


def _versions() -> list[int]:
    return [FORMAT_VERSION, DECODER_VERSION, FRAMING_VERSION]


def _named_folder(name: str) -> str:
    return f"{name}-{'embedded' if name == 'mnist' else 'published'}-" + "-".join(map(str, _versions()))


def _cache_name(source: Source, options: PackOptions) -> str:
    if source.location in NAMED_SETS and options == PackOptions():
        return _named_folder(source.location)
    rest = json.dumps([options.to_json(), _versions()])
    digest = hashlib.sha256(b"[")
    for piece in source.identity():
        digest.update(piece.encode())
    digest.update(f", {rest[1:]}".encode())
    return f"{source.name[:60]}-{digest.hexdigest()[:16]}"


def _cached(source: Source, options: PackOptions, progress: str | Progress, *, verify: bool = False) -> Dataset:
    left_out, options = options_for(source, options)
    folder = _packed_sets() / _cache_name(source, options)
    with files.lock(_lock_of(folder)):
        with suppress(DataError):  # not there yet, or damaged: make it
            dataset = _as_read(Dataset.open(folder), source, left_out)
            if not (verify and dataset.num_damaged()):
                return dataset
        files.remove_leftovers(folder.parent, of=folder.name)
        _remove_abandoned(folder.parent)
        with files.new_folder(folder, replace=True, kept=COMMIT_FILE) as new:
            write_packed(source, options, new, progress, key=folder.name)
    return _as_read(Dataset.open(folder), source, left_out)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _remove_abandoned(folder: Path) -> None:
    """Packings that were broken off a week ago, and that nobody goes on with: their source may be gone."""
    for path in folder.glob(f".*{files.UNFINISHED}"):
        name = path.name[1 : -len(files.UNFINISHED)]
        if files.days_since(path) > _KEPT_DAYS and not files.is_locked(_lock_of(folder / name)):
            files.remove_folder(path)


def options_for(source: Source, options: PackOptions) -> tuple[Matched, PackOptions]:
    """What of the source is left out, and the options that say this, and which labels are changed, by the samples' own
    names. Raises DataError."""
    if not (options.exclude or options.relabelled):
        return Matched(()), options
    names = [sample.name for sample in source.samples()]
    found = matched(options.exclude, names, shown(source.location, 200))
    paths = as_here([one.path for one in options.relabelled], names)
    rows = [one.replace(path=path) for one, path in zip(options.relabelled, paths, strict=True)]
    dropped, there = {one.path for one in rows if not one.now}, set(names)
    if rows and not there.intersection(paths):
        raise DataError(
            f"none of the samples of the labels file is in {shown(source.location, 200)}: {listed(paths, 3)}. It is of "
            "other data"
        )
    found = Matched(tuple(sorted({*found.names, *(dropped & there)})), (*found.gone, *sorted(dropped - there)))
    return found, options.replace(exclude=found.names, relabelled=tuple(one for one in rows if one.now))


def _as_read(dataset: Dataset, source: Source, left_out: Matched) -> Dataset:
    """With what lies beside, which may have changed since it was packed."""
    return replace(dataset, reading_notes=(*source.notes, *left_out.notes), unused=source.unused)


def without_gone(options: PackOptions, source: Source) -> PackOptions:
    """Options that were recorded: samples that are left out may be gone since, all of them too."""
    if not options.exclude:
        return options
    there = {sample.name for sample in source.samples()}
    return options.replace(exclude=tuple(name for name in options.exclude if name in there))


def reopen(
    identity: DataIdentity, *, data_root: str | Path | None = None, progress: str | Progress = "none"
) -> Dataset:
    """The data set that a run or a model names, checked by its fingerprint.

    The folder it was packed in serves, or a copy in the cache, if it is the same; else the source is packed again.
    Raises DataError where none gives the same data.
    """
    fingerprint, val_frac = identity.fingerprint, identity.val_frac
    packed = [Path(identity.packed)] if identity.packed else []
    same: list[tuple[bool, Path]] = []
    for folder in [*packed, *sorted(path.parent for path in _packed_sets().glob(f"[!.]*/{CARD_FILE}"))]:
        with suppress(RecordError):
            card = read_card(folder)
            # The same pictures may have been packed without the files that cannot be read, which every score counts.
            if identity.is_of(card) and card.num_quarantined == identity.num_quarantined:
                same.append((card.name != identity.name, folder))
    for _, folder in sorted(same, key=lambda found: found[0]):  # one of the same name first: reports are named by it
        with suppress(DataError):
            return _as_merged(Dataset.open(folder, val_frac), identity)
    source = identity.source
    if source not in NAMED_SETS and not is_address(source) and not Path(source).exists():
        raise DataError(
            f"the data set {shown(identity.name)} ({shown(source, 200)}) is not there any more: name it anew"
        )
    listed = open_source(source, identity.options.read, data_root=data_root, progress=progress)
    options = without_gone(identity.options, listed)
    dataset = open_listed(listed, options, val_frac=val_frac, progress=progress)
    if not identity.is_of(dataset.card):
        raise DataError(
            f"{shown(source, 200)} has changed since it was used (fingerprint {dataset.fingerprint[:12]}, "
            f"then {fingerprint[:12]}): its splits are no longer the same"
        )
    return _as_merged(dataset, identity)


def _as_merged(dataset: Dataset, identity: DataIdentity) -> Dataset:
    return dataset.merged() if identity.is_merged else dataset
