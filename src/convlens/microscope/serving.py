"""`serve`: the microscope's page on a port of this machine, or with `api` the prediction server."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from convlens.classifier import load
from convlens.connections import MAX_CONNECTIONS
from convlens.errors import UsageError
from convlens.microscope.server import Microscope
from convlens.microscope.teaching import DEFAULT_FOLDER
from convlens.progress import Progress, open_progress
from convlens.serving.door import DEFAULT_HOST, DEFAULT_PORT, Door, serve_app
from convlens.serving.run import MAX_API_CONNECTIONS, Service, serve_api


def serve(
    model: Any = "last",
    *,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    open: bool = False,
    allow_host: Sequence[str] | None = None,
    token: str | None = None,
    no_token: bool = False,
    max_connections: int | None = None,
    collect: str | Path = DEFAULT_FOLDER,
    api: bool = False,
    workers: int = 1,
    keep: str | None = None,
    kept: str | Path = "kept",
    device: str | None = "auto",
    progress: str | Progress = "auto",
) -> None:
    """Open a model in the microscope, a web page on this machine, until Ctrl-C; with `api` as a prediction server.

    `model` is whatever `load` takes. Whoever asks must show a token: `token`, or one that is made; other users of this
    machine can reach the port too. `no_token` does without, on this machine's own addresses alone. `allow_host` are
    more names that a browser may reach it by (those of a notebook's proxy). `open` starts the browser.
    `max_connections` (64, of `api` 1,024) are held at once, at most half of the process's file descriptors.
    `collect` is the folder that the page's view *Teach* keeps pictures in.

    `api` serves predictions and no page (docs/serving.md); `model` may then be an ONNX file that `export` wrote, for
    which torch is not needed. `token` may stand in the environment, as CONVLENS_TOKEN. `workers` processes share the
    port. `keep`, "uncertain" or "all", keeps pictures that nobody should rely on, or all, in the folder `kept`.

    The start line, with the address
    and the token behind its `#`, goes to `progress`. Raises UsageError where the port is taken, with one that is free;
    and as `load` does.
    """
    most = (MAX_API_CONNECTIONS if api else MAX_CONNECTIONS) if max_connections is None else max_connections
    door = Door(host, port, open, tuple(allow_host or ()), token, no_token, most)
    if api:
        serve_api(Service(model, device, workers, keep, Path(kept)), door, progress)
        return
    if workers != 1 or keep is not None:
        raise UsageError("`workers` and `keep` are for the prediction server: add `api`")
    door.check()
    classifier = load(model, device)
    with open_progress(progress) as bar, closing(Microscope(classifier, Path(collect))) as microscope:
        serve_app(microscope.app, door, "the microscope", bar)
