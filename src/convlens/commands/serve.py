"""serve: the microscope's page."""

from __future__ import annotations

from typing import Annotated

import typer

from convlens.commands import terminal
from convlens.commands.options import Device


def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model file, a run folder, or last.")] = "last",
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any but this machine's own (127.0.0.1) needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any that is free.")] = 8023,
    open: Annotated[bool, typer.Option("--open", help="Start the browser.")] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="One more name to be reached by, as a notebook's proxy has; repeatable."),
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="What a browser must show; made by itself where one is needed.")
    ] = None,
    device: Device = None,
) -> None:
    """Open a model in the microscope: a page to draw on, look into, design and train in."""
    import convlens

    with terminal.progress() as bar:
        convlens.serve(
            model,
            host=host,
            port=port,
            open=open,
            allow_host=allow_host,
            token=token,
            device=device,
            progress=bar,
        )
