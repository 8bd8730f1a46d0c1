"""serve: the microscope's page, or the prediction server."""

from pathlib import Path
from typing import Annotated, Any

from convlens.commands import terminal
from convlens.commands.options import API, Device, Model, flag
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
    max_connections: Annotated[int | None, flag("Connections held at once.", show_default="64; of --api 1,024")] = None,
    collect: Annotated[Path, flag("Folder that the page's view Teach keeps pictures in.")] = Path("collected"),
    api: Annotated[bool, flag("Serve predictions over HTTP instead; MODEL may be an ONNX file.", API, "--api")] = False,
    workers: Annotated[int, flag("Processes that share the port.", API)] = 1,
    keep: Annotated[str | None, flag("Keep pictures: uncertain (nobody should rely on) or all.", API)] = None,
    kept: Annotated[Path, flag("Folder to keep them in.", API)] = Path("kept"),
    device: Device = None,
) -> None:
    """Open a model in the microscope: a page to draw on, look into, design, teach and train in; or serve predictions.

    With --api the token may stand in the environment, as CONVLENS_TOKEN: arguments can be read by every user.
    """
    if api:
        from convlens.serving.door import Door
        from convlens.serving.run import MAX_API_CONNECTIONS, Service, serve_api

        if not model.endswith(".onnx"):
            terminal.loading(to_people=True)
        most = MAX_API_CONNECTIONS if max_connections is None else max_connections
        door = Door(host, port, open, tuple(allow_host or ()), token, no_token, most)
        with terminal.progress() as bar, ended_by_ctrl_c():
            serve_api(Service(model, device, workers, keep, kept), door, bar)
        return
    terminal.loading(to_people=True)
    import convlens

    with terminal.progress() as bar, ended_by_ctrl_c():
        given: dict[str, Any] = {"allow_host": allow_host, "token": token, "no_token": no_token, "device": device}
        given |= {"max_connections": max_connections, "collect": collect, "progress": bar}
        given |= {"workers": workers, "keep": keep, "kept": kept}
        convlens.serve(model, host=host, port=port, open=open, **given)
