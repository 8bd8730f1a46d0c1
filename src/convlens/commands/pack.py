"""pack: a data set decoded once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

from convlens.commands import terminal
from convlens.commands.options import (
    OUTPUT,
    Channels,
    Data,
    DataRoot,
    Exclude,
    Framing,
    Group,
    Json,
    Label,
    LabelColumn,
    Layout,
    PathColumn,
    Region,
    Size,
    flag,
)
from convlens.render import tables
from convlens.text import by, shown

if TYPE_CHECKING:
    from convlens.data.packed.dataset import Dataset


def pack(
    data: Data,
    out: Annotated[str | None, flag("The packed folder.", OUTPUT, show_default="in the cache")] = None,
    size: Size = None,
    channels: Channels = None,
    framing: Framing = None,
    group: Group = None,
    layout: Layout = None,
    label: Label = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    region: Region = None,
    exclude: Exclude = None,
    data_root: DataRoot = None,
    verify: Annotated[bool, flag("Check every packed image against its hash.", OUTPUT, "--verify")] = False,
    json: Json = False,
) -> None:
    """Decode a data set once, into a folder that training maps into memory."""
    import convlens

    with terminal.progress() as bar:
        options: dict[str, Any] = {"size": size, "channels": channels, "framing": framing, "group": group}
        options |= {"layout": layout, "label": label, "path_column": path_column, "label_column": label_column}
        options |= {"region": region, "exclude": exclude, "data_root": data_root, "verify": verify}
        dataset = convlens.pack(data, out, progress=bar, **options)
    if json:
        tables.print_json(dataset.to_json())
    else:
        _print(dataset, verified=verify)


def _print(dataset: Dataset, *, verified: bool) -> None:
    """What was packed, and what of it could not be read."""
    spec, counts = dataset.input_spec, dataset.counts
    rows = [
        ("packed", str(dataset.folder)),
        ("images", f"{by((spec.height, spec.width, spec.channels))}, framing {spec.framing}"),
        ("classes", f"{len(dataset.class_names)}: {shown(', '.join(dataset.class_names), 60)}"),
        ("train", f"{counts['train']:,}"),
        ("validation", f"{counts['val']:,}"),
        ("test", f"{counts['test']:,} (sealed)"),
        ("quarantined", f"{dataset.num_quarantined:,}" + _reasons(dataset)),
        ("fingerprint", dataset.fingerprint[:16]),
        *([("verified", f"all {len(dataset):,} images are those that were packed")] if verified else []),
    ]
    tables.print_rows([*rows, *(("note", note) for note in dataset.notes)])


def _reasons(dataset: Dataset) -> str:
    """The most frequent reasons of quarantine, and where all of them stand."""
    if not dataset.num_quarantined:
        return ""
    reasons = Counter(line.reason for line in dataset.samples() if line.status == "quarantined")
    listed = "; ".join(f"{n}× {shown(reason)}" for reason, n in reasons.most_common(3))
    return f" ({listed}; all in {dataset.folder / 'samples.jsonl'})"
