"""`serve --api`: the prediction server on a port, in one process or several that share it.

Owns the token, the start line, the workers, and the end: SIGTERM answers what was accepted, and nothing more.
"""

import asyncio
import multiprocessing
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from convlens import files
from convlens.checks import checked, choice, whole
from convlens.connections import Limits, listen, run_server
from convlens.data.image.decode import quiet_pillow
from convlens.errors import UsageError
from convlens.progress import Progress, open_progress
from convlens.runtime.kept import KEEP
from convlens.serving.access import Access
from convlens.serving.door import Door, is_loopback
from convlens.text import shown

TOKEN_VARIABLE = "CONVLENS_TOKEN"
MAX_API_CONNECTIONS = 1_024
_GRACE_S = 30  # for what was accepted when the server ends
_LOG_S = 0.1  # that lines of the log are put together for
_AGAIN_S = 1.0  # before a worker that died is started anew
_NEEDED = {"prometheus_client": "prometheus-client", "python_multipart": "python-multipart"}


@dataclass(frozen=True)
class Service:
    """What is served, and how: as `serve` takes it. `sha256` is what a worker's model file must have (None: any)."""

    model: Any
    device: str | None = "auto"
    workers: int = 1
    keep: str | None = None
    kept: Path = Path("kept")
    sha256: str | None = None

    def check(self) -> None:
        """Raises UsageError for what cannot be."""
        checked("workers", self.workers, whole(1, 256))
        if self.keep is not None:
            checked("keep", self.keep, choice(KEEP))
        if missing := [package for module, package in _NEEDED.items() if find_spec(module) is None]:
            raise UsageError(f"the prediction server needs {', '.join(missing)}: pip install 'convlens[serve]'")
        if self.workers > 1 and not isinstance(self.model, str | Path):
            raise UsageError("several workers open the model each for themselves: name it by its path")


def serve_api(service: Service, door: Door, progress: str | Progress = "auto") -> None:
    """Serve until Ctrl-C or SIGTERM. Raises UsageError where the port is taken, and as `load` does."""
    service.check()
    door = replace(door, token=door.token or os.environ.get(TOKEN_VARIABLE) or None)
    door.check()
    token = None if door.no_token else door.token or secrets.token_urlsafe(18)
    with open_progress(progress) as bar, quiet_pillow():
        from convlens.serving.predictors import open_predictor

        # Opened here in any case: what is wrong with it is said before anything listens.
        predictor = open_predictor(service.model, service.device)
        listener = listen(door.host, door.port)
        with closing(listener):
            host = socket.gethostname() if door.host in ("0.0.0.0", "::") else door.host
            address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/"
            is_own = door.token is None and token is not None
            words = f", token {token}" if is_own else "" if token is None else ", with the token that was given"
            line = f"the prediction server is open at {address}{words}   (Ctrl-C ends it)"
            if service.workers == 1:
                _serve(predictor, service, door, token, listener, lambda: bar.line(line))
                return
            # Whatever `last` comes to mean, all workers have this model.
            service = replace(service, model=str(predictor.path), sha256=predictor.model_sha256)
            del predictor
            with _shared_metrics():
                _supervise(service, replace(door, token=token), listener, lambda: bar.line(line), bar)


def _serve(
    predictor: Any, service: Service, door: Door, token: str | None, listener: socket.socket, started: Any
) -> None:
    from convlens.serving.api import Api

    names = {"localhost", "127.0.0.1", "::1", door.host.lower(), *(name.strip().lower() for name in door.allow_host)}

    lines: list[str] = []

    def write() -> None:
        text = "".join(lines)
        lines.clear()
        with suppress(OSError, ValueError):  # whoever read it is gone, or the disk is full: the server answers on
            sys.stdout.write(text)
            sys.stdout.flush()

    def log(line: str) -> None:
        if not lines:  # together, a moment later: each for itself takes as long as a small network
            asyncio.get_running_loop().call_later(_LOG_S, write)
        lines.append(f"{line}\n")

    with closing(Api(predictor, shown(service.model, 200), service.keep, service.kept, log)) as api:
        api.warm_up()
        access = Access(
            api.app,
            frozenset(names),
            any_address=not is_loopback(door.host),
            token=token,
            guarded=("/predict",),
            any_host=token is not None,
            is_page=False,
        )
        with suppress(KeyboardInterrupt):  # the ordinary end
            try:
                run_server(access, listener, Limits(door.max_connections), started, _GRACE_S)
            finally:
                write()


# ---------------------------------------------------------------- several workers


@contextmanager
def _shared_metrics() -> Iterator[None]:
    """Counts of all workers in files of one folder, as prometheus_client has it."""
    before = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    with files.temporary_folder() as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        try:
            yield
        finally:
            del os.environ["PROMETHEUS_MULTIPROC_DIR"]
            if before is not None:
                os.environ["PROMETHEUS_MULTIPROC_DIR"] = before


def _work(service: Service, door: Door, listener: socket.socket, ready: Any) -> None:
    """A worker: its own model, the shared port. The cores are parted among the workers."""
    from convlens.serving.predictors import open_predictor

    threads = max(1, (os.cpu_count() or 1) // service.workers)
    os.environ["OMP_NUM_THREADS"] = str(threads)

    def end(*_: object) -> None:
        sys.exit(0)  # so that the last lines are written

    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with quiet_pillow():
        predictor = open_predictor(service.model, service.device, threads)
        if predictor.model_sha256 != service.sha256:
            raise UsageError("the model file has been changed since the server began")
        _serve(predictor, service, door, door.token, listener, ready.release)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _supervise(service: Service, door: Door, listener: socket.socket, started: Any, bar: Progress) -> None:
    """Start the workers, start anew those that die, end them all."""
    context = multiprocessing.get_context("spawn")
    ready, is_ending = context.Semaphore(0), False

    def begin() -> Any:
        process = context.Process(target=_work, args=(service, door, listener, ready))
        process.start()
        return process

    def end(number: int, frame: object) -> None:
        nonlocal is_ending
        is_ending = True

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    workers = [begin() for _ in range(service.workers)]
    num_ready = 0
    try:
        while not is_ending:
            if num_ready < service.workers and ready.acquire(timeout=_AGAIN_S):
                num_ready += 1
                if num_ready == service.workers:
                    started()
                continue
            time.sleep(0.1)
            for number, worker in enumerate(workers):
                if not worker.is_alive() and not is_ending:
                    if num_ready < service.workers:
                        raise UsageError(f"a worker ended before it was ready (exit code {worker.exitcode})")
                    from prometheus_client.multiprocess import mark_process_dead

                    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # it has no types
                    bar.line(f"a worker ended (exit code {worker.exitcode}); another one takes its place")
                    time.sleep(_AGAIN_S)
                    workers[number] = begin()
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
        for worker in workers:
            worker.join(_GRACE_S)
            worker.kill()
        for number, handler in before.items():
            signal.signal(number, handler)
