"""serve: the microscope's page."""

from pathlib import Path
from typing import Annotated, Any

from convlens.commands import terminal
from convlens.commands.options import Device, Model, flag
from convlens.signals import ended_by_ctrl_c

HOST = "Address to listen on: 127.0.0.1 is reached from this machine alone."
ALLOW_HOST = "One more name to be reached by, as a notebook's proxy has; repeatable."


def serve(
    model: Model = "last",
    host: Annotated[str, flag(HOST)] = "127.0.0.1",
    port: Annotated[int, flag("Port to listen on; 0: any that is free.")] = 8023,
    open: Annotated[bool, flag("Start the browser.", None, "--open")] = False,
    allow_host: Annotated[list[str] | None, flag(ALLOW_HOST, metavar="NAME")] = None,
    token: Annotated[str | None, flag("What a browser must show.", show_default="made by itself")] = None,
    no_token: Annotated[bool, flag("Let every user of this machine in.", None, "--no-token")] = False,
    max_connections: Annotated[int, flag("Connections held at once.")] = 64,
    collect: Annotated[Path, flag("Folder that the page's view Teach keeps pictures in.")] = Path("collected"),
    device: Device = None,
) -> None:
    """Open a model in the microscope: a page to draw on, look into, design, teach and train in."""
    terminal.loading(to_people=True)
    import convlens

    with terminal.progress() as bar, ended_by_ctrl_c():
        given: dict[str, Any] = {"allow_host": allow_host, "token": token, "no_token": no_token, "device": device}
        given |= {"max_connections": max_connections, "collect": collect, "progress": bar}
        convlens.serve(model, host=host, port=port, open=open, **given)
