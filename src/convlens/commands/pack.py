"""pack: a data set decoded once."""

from __future__ import annotations

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
from convlens.text import by

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
        from convlens.data.packed.contents import Contents

        tables.print_json(dataset.to_json() | {"contents": Contents.of(dataset).to_json()})
    else:
        _print(dataset, verified=verify)


def _print(dataset: Dataset, *, verified: bool) -> None:
    """What was packed, and what of it could not be read."""
    from convlens.data.packed.contents import Contents

    spec = dataset.input_spec
    rows = [
        ("packed", str(dataset.folder)),
        ("images", f"{by((spec.height, spec.width, spec.channels))}, framing {spec.framing}"),
        *Contents.of(dataset).rows(),
        *([("reasons", f"all in {dataset.folder / 'samples.jsonl'}")] if dataset.num_quarantined else []),
        ("fingerprint", dataset.fingerprint[:16]),
        *([("verified", f"all {len(dataset):,} images are those that were packed")] if verified else []),
    ]
    tables.print_rows(rows)
