"""review: labels in doubt, decided on by a person."""

from typing import Annotated, Any

import typer

from convlens.commands import terminal
from convlens.commands.options import Data, DataRoot, Group, Label, LabelColumn, Layout, PathColumn, flag
from convlens.commands.serve import ALLOW_HOST, HOST
from convlens.signals import ended_by_ctrl_c

_LABELS = "The table that check --labels --write-labels made; decisions go into it."


def review(
    labels: Annotated[str, typer.Argument(metavar="LABELS", help=_LABELS)],
    data: Data,
    group: Group = None,
    layout: Layout = None,
    label: Label = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    data_root: DataRoot = None,
    host: Annotated[str, flag(HOST)] = "127.0.0.1",
    port: Annotated[int, flag("Port to listen on; 0: any that is free.")] = 8023,
    open: Annotated[bool, flag("Start the browser.", None, "--open")] = False,
    allow_host: Annotated[list[str] | None, flag(ALLOW_HOST, metavar="NAME")] = None,
    token: Annotated[str | None, flag("What a browser must show.", show_default="made by itself")] = None,
    no_token: Annotated[bool, flag("Let every user of this machine in.", None, "--no-token")] = False,
    max_connections: Annotated[int, flag("Connections held at once.")] = 64,
) -> None:
    """Decide on labels in doubt on a local page, by keys: keep, change, drop or skip. No picture is touched.

    Then: train DATA --labels LABELS, evaluate MODEL --labels LABELS.
    """
    terminal.loading(to_people=True)
    import convlens

    with terminal.progress() as bar, ended_by_ctrl_c():
        given: dict[str, Any] = {"allow_host": allow_host, "token": token, "no_token": no_token}
        given |= {"max_connections": max_connections, "progress": bar, "data_root": data_root, "group": group}
        given |= {"layout": layout, "label": label, "path_column": path_column, "label_column": label_column}
        convlens.review(labels, data, host=host, port=port, open=open, **given)
