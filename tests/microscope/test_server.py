"""The microscope's server: its answers, limits and refusals."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

import convlens
from convlens import files
from convlens.architecture import parse, plan
from convlens.data.image.decode import MAX_PIXELS
from convlens.errors import UsageError
from convlens.microscope import server
from convlens.microscope.server import Microscope
from convlens.microscope.session import Session
from convlens.microscope.wire import packed, quantised
from tests.conftest import QUICK, TINY, Command, shapes, write_folders

PAGE = Path(server.__file__).parent / "page"


def picture_bytes(seed: int = 0, side: int = 40) -> bytes:
    """A PNG of something: a bright bar on noise."""
    pixels = np.random.default_rng(seed).integers(0, 60, (side, side), np.uint8)
    pixels[8:32, 10 + seed : 14 + seed] = 230
    page = io.BytesIO()
    Image.fromarray(pixels).save(page, "PNG")
    return page.getvalue()


def unpacked(data: bytes) -> dict[str, Any]:
    """What the page's api.js makes of a container."""
    length = int.from_bytes(data[:4], "little")
    header: dict[str, Any] = json.loads(data[4 : 4 + length])
    for name, about in header["arrays"].items():
        start, size = 4 + length + about["offset"], int(np.prod(about["shape"]))
        assert start % 8 == 0, "a typed array of the browser needs its place aligned"
        header["arrays"][name] = np.frombuffer(data, f"<{about['type']}", size, start).reshape(about["shape"])
    return header


class Server:
    """A `convlens serve` (or another command with a page) in a process of its own; with `own_group` in a process group
    of its own, as a terminal has."""

    def __init__(self, folder: Path, *arguments: str, own_group: bool = False, command: str = "serve") -> None:
        self.own_group, self.folder = own_group, folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "convlens", command, *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=own_group,
        )
        assert self.process.stderr is not None
        self.line = self.process.stderr.readline()
        found = re.search(r"http://([^:/]+):(\d+)/(\S*)", self.line)
        assert found, self.line + self.process.stderr.read()
        self.port, self.query = int(found[2]), found[3]
        self.token = self.query.removeprefix("#token=")
        self.url = f"http://127.0.0.1:{self.port}/"
        self.entry = self.url + self.query

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        shown = {"Authorization": f"Bearer {self.token}"} | {n.replace("_", "-"): value for n, value in headers.items()}
        try:
            connection.request(method, path, body, shown)
            response = connection.getresponse()
            return response.status, response.read(), {k.lower(): v for k, v in response.getheaders()}
        finally:
            connection.close()

    def get(self, path: str) -> dict[str, Any]:
        status, data, headers = self.ask("GET", path)
        assert status == 200, data
        return json.loads(data) if headers["content-type"] == "application/json" else unpacked(data)

    def post(self, path: str, body: bytes | dict[str, Any]) -> dict[str, Any]:
        status, data, headers = self.ask("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())
        assert status == 200, data
        return json.loads(data) if headers["content-type"] == "application/json" else unpacked(data)

    def refused(self, status: int, method: str, path: str, body: bytes | None = None, **headers: str) -> str:
        """The one line of a refusal, and that the server lives on."""
        found, data, _ = self.ask(method, path, body, **headers)
        said = json.loads(data)
        assert found == status, said
        assert "\n" not in said["error"] and "Traceback" not in said["error"]
        assert self.process.poll() is None
        return str(said["error"])

    def close(self) -> int:
        if self.process.poll() is None and self.own_group:
            os.killpg(self.process.pid, signal.SIGINT)
        elif self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(30)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code


@pytest.fixture(scope="module")
def toy_run(arrays: tuple[NDArray[Any], ...], tmp_path_factory: pytest.TempPathFactory) -> convlens.Run:
    """A run on the toy set whose first layer has more maps than are sent, and whose last maps are 1×1."""
    x, y, x_test, y_test = arrays
    folder = tmp_path_factory.mktemp("toy")
    np.savez(folder / "toy.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return convlens.train(
        folder / "toy.npz",
        out=folder / "run",
        recipe=QUICK.replace(epochs=0.5),
        progress="none",
        architecture="conv(80, 3) relu maxpool(2) conv(12, 3, padding=1) batchnorm relu globalavgpool flatten "
        "linear(classes)",
    )


@pytest.fixture(scope="module")
def toy(toy_run: convlens.Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("serve"), str(toy_run.path), "--port", "0")
    yield server
    assert server.close() == 0, "Ctrl-C is the ordinary end"


def test_the_answer_is_predicts(toy: Server, toy_run: convlens.Run) -> None:
    """The same bytes give the page the very probabilities that `predict` gives, and the very framed pixels."""
    data = picture_bytes()
    answer = toy.post("/api/see", data)
    classifier = convlens.load(toy_run.path)
    assert np.array_equal(answer["arrays"]["image"], classifier.frame(data))
    expected = dict(classifier.predict(data, top=3)[0].top)
    for name, probability in zip(classifier.class_names, answer["arrays"]["probabilities"], strict=True):
        assert probability == pytest.approx(expected[name], abs=1e-6)


def test_maps_are_the_layers_values(toy: Server, toy_run: convlens.Run) -> None:
    """Maps come as 0..255 between two ends, within half a level of the values; the first 64, and of how many."""
    data = picture_bytes(1)
    number = toy.post("/api/see", data)["id"]
    found = toy.get(f"/api/maps?id={number}&layers=input,0,3,6,8")
    features = convlens.look(toy_run.path, data)
    values = {layer.address: layer.values for layer in features.layers} | {"input": features.input}
    assert found["arrays"]["0"].shape == (64, 14, 14) and found["maps"]["0"]["total"] == 80
    assert found["arrays"]["6"].shape == (12, 1, 1) and found["arrays"]["8"].shape == (3,)
    for address, levels in found["arrays"].items():
        low, high = found["maps"][address]["low"], found["maps"][address]["high"]
        again = low + levels / 255 * (high - low)
        assert np.abs(again - values[address][: len(levels)]).max() <= (high - low) / 255 * 0.51


def test_value_of_a_map(toy: Server, toy_run: convlens.Run) -> None:
    """A clicked value's arithmetic: the products add up to the network's own value, which is what `look` has."""
    data = picture_bytes(2)
    number = toy.post("/api/see", data)["id"]
    found = toy.get(f"/api/value?id={number}&layer=3&unit=5,0,2")
    own = next(layer for layer in convlens.look(toy_run.path, data).layers if layer.address == "3").values[5, 0, 2]
    bias = convlens.load(toy_run.path).network.layers.get_submodule("3").bias[5].item()  # type: ignore[index]
    assert found["value"] == own and found["agrees"]
    assert float(found["arrays"]["products"].sum()) + bias == pytest.approx(found["result"], abs=1e-9)
    assert not found["arrays"]["inside"][0].any() and found["rows"] == [None, 0, 1]  # the zeros of its padding
    for layer, unit in {"input": "0,3,4", "softmax": "2", "4": "0,1,1", "6": "3,0,0", "8": "1"}.items():
        assert toy.get(f"/api/value?id={number}&layer={layer}&unit={unit}")["agrees"]


def test_attribution(toy: Server) -> None:
    """The three methods come as one map of the picture's size."""
    number = toy.post("/api/see", picture_bytes())["id"]
    for method in ("grad_cam", "integrated_gradients", "occlusion"):
        found = toy.get(f"/api/attribution?id={number}&method={method}&label=1&versus=0")
        assert found["versus"] == 0
        found = toy.get(f"/api/attribution?id={number}&method={method}&label=1")
        assert found["arrays"]["map"].shape == (16, 16) and np.isfinite(found["arrays"]["map"]).all()


def test_report_is_validations(toy: Server, toy_run: convlens.Run) -> None:
    """The model's page measures validation and leaves test sealed; its numbers are those of `evaluate`."""
    report = toy.get("/api/report")
    expected = convlens.evaluate(toy_run.path, split="val", progress="none")
    assert report["accuracy"] == expected.accuracy and report["n"] == expected.n
    assert np.array_equal(report["arrays"]["confusion"], expected.confusion_KK)
    assert report["expected_calibration_error"] == pytest.approx(expected.expected_calibration_error)
    wrong = toy.get("/api/images?most=5")
    assert wrong["total"] == expected.n - round(expected.accuracy * expected.n)
    assert (wrong["arrays"]["labels"] != wrong["arrays"]["answers"]).all() and len(wrong["arrays"]["images"]) <= 5
    assert len(wrong["doubtful"]) == len(wrong["arrays"]["images"]) and wrong["num_doubtful"] >= sum(wrong["doubtful"])
    cell = toy.get("/api/images?true=1&predicted=1")
    assert cell["total"] == expected.confusion_KK[1, 1]
    position = int(wrong["arrays"]["positions"][0])
    seen = toy.post(f"/api/see?val={position}", b"")
    assert np.array_equal(seen["arrays"]["image"], wrong["arrays"]["images"][0])
    ledger = Path(os.environ["CONVLENS_STATE"]) / "openings.jsonl"
    sealed = str(toy_run.record.dataset.test_fingerprint)
    assert not ledger.exists() or sealed not in ledger.read_text(encoding="utf-8")


def test_explain_in_the_lab(toy: Server) -> None:
    """A sentence becomes its table on the model's input, or an error with its column."""
    found = toy.post("/api/explain", {"sentence": "conv(4, 3) relu flatten linear(classes)"})
    own = plan(parse("conv(4, 3) relu flatten linear(classes)"), (1, 16, 16), 3)
    assert found["num_parameters"] == own.num_parameters and found["layers"][0]["output_shape"] == [4, 14, 14]
    found = toy.post("/api/explain", {"sentence": "conv(4, 3) rellu"})
    assert found["column"] == 12 and "relu" in found["error"]
    assert "does not fit" in toy.post("/api/explain", {"sentence": "conv(4, 40)"})["error"]
    assert "sentence" in toy.refused(400, "POST", "/api/explain", b'{"sentence": 7}')


def test_bad_requests(toy: Server) -> None:
    """Each gets 4xx and one line that says what there is instead; the server lives on."""
    number = toy.post("/api/see", picture_bytes())["id"]
    assert "empty" in toy.refused(400, "POST", "/api/see", b"")
    assert "not a picture" in toy.refused(400, "POST", "/api/see", b"hello, this is text")
    assert "damaged" in toy.refused(400, "POST", "/api/see", picture_bytes()[:60])
    assert "there are input, 0, 1" in toy.refused(400, "GET", f"/api/maps?id={number}&layers=99")
    assert "there are 0, 1" in toy.refused(400, "GET", f"/api/value?id={number}&layer=nine&unit=0,0,0")
    assert "from 0,0,0 to 79,13,13" in toy.refused(400, "GET", f"/api/value?id={number}&layer=0&unit=0,99,0")
    assert "from 0,0,0 to 0,15,15" in toy.refused(400, "GET", f"/api/value?id={number}&layer=input&unit=5")
    for unit in ("", "a", "-1,0,0", "1e9", "9" * 50, "²"):
        assert "whole number" in toy.refused(400, "GET", f"/api/value?id={number}&layer=0&unit={quote(unit)}")
    assert "no longer kept" in toy.refused(410, "GET", "/api/maps?id=999999&layers=0")
    assert "whole number" in toy.refused(400, "GET", "/api/maps?layers=0")
    assert "grad_cam" in toy.refused(400, "GET", f"/api/attribution?id={number}&method=magic&label=0")
    assert "class number 77" in toy.refused(400, "GET", f"/api/attribution?id={number}&method=grad_cam&label=77")
    assert "validation image" in toy.refused(400, "POST", "/api/see?val=99999", b"")
    assert "not JSON" in toy.refused(400, "POST", "/api/explain", b"{")
    assert "not JSON" in toy.refused(400, "POST", "/api/explain", b"[" * 100_000)
    assert "object" in toy.refused(400, "POST", "/api/explain", b"[1]")
    assert "Not Found" in toy.refused(404, "GET", "/api/nothing")
    toy.refused(404, "GET", "/page/..%2fserver.py")
    assert "no page file" in toy.refused(404, "GET", "/page/server.py")
    toy.refused(405, "GET", "/api/see")
    assert "no trained network" in toy.refused(400, "POST", "/api/lab/open", b"{}")
    toy.refused(400, "POST", "/api/lab/train", json.dumps({"sentence": "conv("}).encode())
    wide = json.dumps({"sentence": "flatten linear(90000) linear(classes)"}).encode()
    assert "convlens train" in toy.refused(400, "POST", "/api/lab/train", wide)
    bad = json.dumps({"sentence": "flatten linear(classes)", "epochs": "many"}).encode()
    assert "epochs" in toy.refused(400, "POST", "/api/lab/train", bad)
    assert toy.post("/api/see", picture_bytes())["id"] > number


def test_oversize_pictures(toy: Server) -> None:
    """Too many bytes, and few bytes that say they are too many pixels: one line each."""
    assert "32 MB" in toy.refused(413, "POST", "/api/see", bytes(33 << 20))
    side = int(MAX_PIXELS**0.5) + 1
    page = io.BytesIO()
    Image.new("1", (side, side)).save(page, "PNG")
    assert "too many pixels" in toy.refused(400, "POST", "/api/see", page.getvalue())


def test_other_hosts_and_origins_are_refused(toy: Server) -> None:
    """A name that is not this machine's (DNS rebinding) and requests from other pages get 403."""
    assert "--allow-host" in toy.refused(403, "GET", "/api/model", Host="evil.example")
    assert "--allow-host" in toy.refused(403, "GET", "/api/model", Host="localhost.evil.example:80")
    for origin in ("http://evil.example", "null", "http://127.0.0.1.evil.example"):
        assert "other pages" in toy.refused(403, "POST", "/api/lab/stop", b"{}", Origin=origin)
    for host in ("localhost", f"127.0.0.1:{toy.port}", "[::1]:80", "LOCALHOST:1"):
        assert toy.ask("GET", "/api/model", Host=host)[0] == 200
    own = f"localhost:{toy.port}"
    assert toy.ask("POST", "/api/explain", b'{"sentence": ""}', Origin=f"http://{own}", Host=own)[0] == 200
    # A page that another server of this machine gives is another page.
    toy.refused(403, "POST", "/api/lab/stop", b"{}", Origin="http://localhost:3000", Host=own)


def test_every_answer_carries_the_policy(toy: Server) -> None:
    """A strict Content-Security-Policy on pages, data and refusals; the page has no inline script or style."""
    for path, host in (
        ("/", "localhost"),
        ("/page/main.js", "localhost"),
        ("/api/nothing", "localhost"),
        ("/", "evil"),
    ):
        _, _, headers = toy.ask("GET", path, Host=host)
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'") and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*src=)", page)


def test_page_is_small_and_needs_nothing_from_elsewhere() -> None:
    """Under 300 KB, below 2,600 lines, no address of another machine; text is never made markup."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in PAGE.iterdir()}
    assert sum(len(text.encode()) for text in texts.values()) < 300_000
    assert sum(len(text.splitlines()) for text in texts.values()) < 2_700
    for name, text in texts.items():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), name


def test_each_question_needs_the_token(toy_run: convlens.Run, tmp_path: Path) -> None:
    """Whoever asks shows it in a header, here and where other machines can reach it; the page itself holds no secret,
    and neither an address nor a cookie is taken for it."""
    server = Server(tmp_path, str(toy_run.path), "--port", "0", "--host", "0.0.0.0", "--allow-host", "hub.example")
    try:
        assert len(server.token) >= 16 and server.query == f"#token={server.token}"
        assert server.ask("GET", "/", Authorization="")[0] == 200
        assert server.ask("GET", "/page/main.js", Authorization="")[0] == 200
        for shown in ("", "Bearer wrong", f"Basic {server.token}", server.token):
            assert "token" in server.refused(401, "GET", "/api/model", Authorization=shown)
            assert "token" in server.refused(401, "POST", "/api/lab/stop", b"{}", Authorization=shown)
        assert "token" in server.refused(401, "GET", f"/api/model?token={server.token}", Authorization="")
        cookie = f"convlens_token_{server.port}={server.token}"
        assert "token" in server.refused(401, "GET", "/api/model", Authorization="", Cookie=cookie)
        status, _, headers = server.ask("GET", "/api/model", Host="hub.example")
        assert status == 200 and "set-cookie" not in headers
        assert server.refused(403, "GET", "/api/model", Host="evil.example")
        passed = {"Host": "inside.example"}  # a proxy gives its own Host
        assert server.refused(403, "POST", "/api/explain", b'{"sentence": ""}', **passed, Origin="https://hub.example")
        passed["Host"] = f"127.0.0.1:{server.port}"
        assert server.ask("POST", "/api/explain", b'{"sentence": ""}', **passed, Origin="https://hub.example")[0] == 200
        for odd in ({"Origin": f"chrome-extension://127.0.0.1:{server.port}"}, {"Sec-Fetch-Site": "cross-site"}):
            assert server.refused(403, "POST", "/api/lab/stop", b"{}", **odd)
    finally:
        assert server.close() == 0


def test_without_a_token_where_that_was_asked_for(toy_run: convlens.Run, tmp_path: Path) -> None:
    """--no-token lets everybody on this machine in, and is refused where other machines could come too."""
    server = Server(tmp_path, str(toy_run.path), "--port", "0", "--no-token")
    try:
        assert server.query == "" and server.ask("GET", "/api/model", Authorization="")[0] == 200
    finally:
        assert server.close() == 0
    with pytest.raises(UsageError, match="own addresses"):
        convlens.serve(toy_run.path, host="0.0.0.0", no_token=True)


def test_the_browser_is_opened_by_a_page_that_only_its_owner_can_read(
    toy_run: convlens.Run, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No list of processes shows the token: the browser gets a file that its owner alone can read, gone at the end."""
    from convlens.serving import door

    opened: list[tuple[str, str, int]] = []

    def serve_nothing(app: Any, listener: Any, limits: Any, started: Any) -> None:
        started()
        path = next(files.state_folder().glob("open/*.html"))
        opened.append((path.as_uri(), path.read_text(encoding="utf-8"), path.stat().st_mode & 0o777))

    monkeypatch.setattr(door, "run_server", serve_nothing)
    asked: list[str] = []
    monkeypatch.setattr("webbrowser.open", asked.append)
    convlens.serve(toy_run.path, port=0, open=True, token="a-long-token", progress="none")
    [(address, page, mode)] = opened
    assert "a-long-token" in page and (mode == 0o600 or os.name == "nt")
    assert asked == [address] and "token" not in address
    assert not list(files.state_folder().glob("open/*"))


def test_queue_is_short(toy_run: convlens.Run) -> None:
    """More waiting than the queue holds gets 503 with Retry-After, through the same door as all errors."""
    import asyncio

    microscope = Microscope(convlens.load(toy_run.path))
    microscope._num_waiting = server._MAX_WAITING
    sent: list[Any] = []

    async def ask() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": picture_bytes(), "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/see",
            "query_string": b"",
            "headers": [],
            "http_version": "1.1",
            "scheme": "http",
        }
        await microscope.app(scope, receive, send)

    asyncio.run(ask())
    microscope.close()
    assert sent[0]["status"] == 503 and (b"retry-after", b"1") in sent[0]["headers"]


def test_pictures_that_were_shown_are_forgotten_in_time(toy_run: convlens.Run) -> None:
    """Only the last sixteen recordings are kept."""
    session = Session(convlens.load(toy_run.path), count(1))
    numbers = [unpacked(session.see(picture_bytes()))["id"] for _ in range(20)]
    assert list(session._kept) == numbers[-16:]


def test_port_taken(toy_run: convlens.Run, command: Command) -> None:
    """One line that says so and names a port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command("serve", toy_run.path, "--port", port)
    assert done.returncode == 2
    found = re.fullmatch(rf"convlens: port {port} is taken: use --port (\d+)\n", done.stderr)
    assert found and port < int(found[1]) <= port + 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "99999"], "65,535"),
        (["--host", "no.such.host.invalid"], "cannot listen"),
        (["--token", "short"], "8"),
    ],
)
def test_bad_places(toy_run: convlens.Run, command: Command, arguments: list[str], words: str) -> None:
    """A port, host or token that cannot be: one line, exit code 2."""
    done = command("serve", toy_run.path, *arguments)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_not_a_model(command: Command, workplace: Path) -> None:
    """A file that is no model is refused before anything listens."""
    (workplace / "x.safetensors").write_bytes(b"not a model")
    done = command("serve", "x.safetensors")
    assert done.returncode == 2 and "x.safetensors" in done.stderr and len(done.stderr.splitlines()) == 1


LONG = {"sentence": "conv(8, 3) relu flatten linear(classes)", "epochs": 50, "batch_size": 1, "lr": 0.001}


def test_training_of_the_lab_can_be_stopped(toy: Server, tmp_path: Path) -> None:
    """Stop ends the child well: its run is interrupted and can be opened; a new one may then begin."""
    assert toy.post("/api/lab/stop", {})["state"] == "idle"
    place = str(toy.post("/api/lab/train", LONG)["place"])
    while toy.get("/api/lab")["step"] == 0:
        assert toy.get("/api/lab")["state"] == "running"
    assert "no trained network" in toy.refused(400, "POST", "/api/lab/open", b"{}")
    toy.post("/api/lab/stop", {})
    while (status := toy.get("/api/lab"))["state"] == "running":
        pass
    assert status["state"] == "stopped" and status["can_open"] and status["place"] == place
    assert toy.post("/api/lab/train", LONG)["state"] == "running"
    toy.post("/api/lab/stop", {})
    while toy.get("/api/lab")["state"] == "running":
        pass


def test_training_of_the_lab_for_a_time(toy: Server, toy_run: convlens.Run) -> None:
    """A time takes the place of the epochs, which are chosen to fit it; one that is too long is refused."""
    assert "time must be a number" in toy.refused(
        400, "POST", "/api/lab/train", json.dumps(LONG | {"time": 1e4}).encode()
    )
    toy.post("/api/lab/train", LONG | {"time": 1, "batch_size": 16})
    while (status := toy.get("/api/lab"))["state"] == "running":
        pass
    assert status["state"] == "complete" and "as many epochs as fit in 1 s" in status["sentence"], status["lines"]


@pytest.mark.slow
@pytest.mark.parametrize("own_group", [pytest.param(False, marks=pytest.mark.slow), True])
def test_end_takes_the_labs_training_along(toy_run: convlens.Run, tmp_path: Path, own_group: bool) -> None:
    """Ctrl-C, of the server or of its terminal, ends the child too; its run is whole and interrupted; exit code 0."""
    server = Server(tmp_path, str(toy_run.path), "--port", "0", own_group=own_group)
    request = LONG
    place = tmp_path / str(server.post("/api/lab/train", request)["place"])
    assert "going on" in server.refused(400, "POST", "/api/lab/train", json.dumps(request).encode())
    while server.get("/api/lab")["step"] == 0:
        assert server.get("/api/lab")["state"] == "running"
    assert server.close() == 0
    assert convlens.Run(place).status == "interrupted"


def test_model_without_its_images(toy_run: convlens.Run, tmp_path: Path) -> None:
    """A model file far from its data can be looked into; what needs the data says that it is not at hand."""
    (tmp_path / "alone.safetensors").write_bytes(toy_run.model.read_bytes())
    source = Path(str(toy_run.record.dataset.source))
    hidden = source.with_name("hidden.npz")
    source.rename(hidden)
    before = os.environ["CONVLENS_CACHE"]
    os.environ["CONVLENS_CACHE"] = str(tmp_path / "cache")
    try:
        server = Server(tmp_path, "alone.safetensors", "--port", "0")
        try:
            assert server.post("/api/see", picture_bytes())["id"] == 1
            assert "not at hand" in server.refused(400, "GET", "/api/report")
            body = json.dumps({"sentence": "flatten linear(classes)"}).encode()
            assert "not at hand" in server.refused(400, "POST", "/api/lab/train", body)
        finally:
            assert server.close() == 0
    finally:
        os.environ["CONVLENS_CACHE"] = before
        hidden.rename(source)


def test_container_round_trips() -> None:
    """Header and arrays come back from bytes, whatever their sizes."""
    arrays: dict[str, NDArray[Any]] = {
        "a": np.arange(5, dtype=np.uint8),
        "b": np.array([[1.5, -2]], np.float32),
        "c": np.array([True, False]),
        "d": np.arange(3),
        "e": np.zeros((0, 4), np.float64),
    }
    found = unpacked(packed({"name": "ünïcode \ud800"}, arrays))
    for name, array in arrays.items():
        assert np.array_equal(found["arrays"][name], array)
    levels, low, high = quantised(np.zeros((2, 2), np.float32))
    assert (low, high) == (0.0, 1.0) and not levels.any()


def test_serve_checks_its_arguments() -> None:
    """The Python function refuses what the command line refuses."""
    with pytest.raises(UsageError, match="port"):
        convlens.serve("last", port=True)


@pytest.mark.slow
def test_one_training_of_the_lab_for_each_folder(toy_run: convlens.Run, tmp_path: Path) -> None:
    """Of two servers in one folder that are asked at once, one trains; when that has ended, the other may."""
    servers = [Server(tmp_path, str(toy_run.path), "--port", "0") for _ in range(2)]
    with ThreadPoolExecutor() as threads:
        body = json.dumps(LONG).encode()
        statuses = list(threads.map(lambda one: one.ask("POST", "/api/lab/train", body)[0], servers))
    assert sorted(statuses) == [200, 400]
    first, second = sorted(servers, key=lambda one: statuses[servers.index(one)])
    assert "going on in this folder" in second.refused(400, "POST", "/api/lab/train", body)
    assert first.close() == 0
    assert second.post("/api/lab/train", LONG)["state"] == "running"
    assert second.close() == 0
    left = [path for path in (tmp_path / "runs").iterdir() if path.is_dir() and not any(path.iterdir())]
    assert left == []


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL and SIGHUP are POSIX")
@pytest.mark.parametrize("how", ["SIGKILL", pytest.param("SIGHUP", marks=pytest.mark.slow)])
def test_the_labs_training_ends_with_its_server(toy_run: convlens.Run, tmp_path: Path, how: str) -> None:
    """A server that is killed, or whose terminal is closed, takes its training along: it is saved and ends."""
    server = Server(tmp_path, str(toy_run.path), "--port", "0")
    place = tmp_path / str(server.post("/api/lab/train", LONG)["place"])
    while server.get("/api/lab")["step"] == 0:
        pass
    server.process.send_signal(getattr(signal, how))
    server.process.communicate()
    lock = FileLock(str(tmp_path / "runs" / ".lab.lock"), timeout=20)
    with lock:  # the child's, which is free when it has ended
        assert convlens.Run(place).status == "interrupted"


def test_damaged_log_of_the_lab(toy: Server, toy_run: convlens.Run, tmp_path: Path) -> None:
    """Lines of a log that are no numbers are passed over."""
    log = toy_run.path / "log.jsonl"
    before = log.read_bytes()
    try:
        with log.open("ab") as file:
            file.write(b'{"step":1,"loss":NaN}\n{"step":1e999,"loss":1}\n{"epoch":1e999}\n[1]\n{"step":"a","loss":2}\n')
        again = convlens.Run(toy_run.path)
        assert again.curve == toy_run.curve and len(again.history) == before.count(b'"epoch"')
    finally:
        log.write_bytes(before)


def test_standard_output_may_be_closed(toy_run: convlens.Run, tmp_path: Path) -> None:
    """The page is served all the same."""
    script = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, '-m', 'convlens', *sys.argv[1:]])"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "serve", str(toy_run.path), "--port", "0"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "the microscope is open" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    process.stderr.close()


def test_the_labs_child_ends_well(workplace: Path) -> None:
    """A training of the lab that comes to its end says so by its exit code, while its pipe is still open."""
    data = convlens.pack(write_folders(workplace / "data", 12), out=workplace / "packed", progress="none")
    words = [str(data.folder), f"--architecture={TINY}", "--out=runs/lab-1", "--epochs=1", "--augment=none"]
    command = [sys.executable, "-m", "convlens.microscope.child", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        assert child.stdout is not None
        said = child.stdout.read()
        assert child.wait(60) == 0, said
    assert convlens.Run(workplace / "runs" / "lab-1").status == "complete"


def test_the_answer_over_both_views_stands_beside_the_bars(two_views: convlens.Run) -> None:
    """Of a model with mirrored views the bars are those of the one view, and predict's answer comes with them; of one
    without, nothing does."""
    data = picture_bytes(3)
    both, single = convlens.load(two_views), convlens.load(two_views, views="none")
    seen = unpacked(Session(both, count(1)).see(data))
    answer, alone = (convlens.predict(classifier, data)[0] for classifier in (both, single))
    assert both.class_names[seen["mirrored"]["label"]] == answer.label
    assert seen["mirrored"]["probability"] == pytest.approx(answer.probability, abs=1e-5)
    assert seen["arrays"]["probabilities"].max() == pytest.approx(alone.probability, abs=1e-5)
    assert "mirrored" not in unpacked(Session(single, count(1)).see(data))


@pytest.mark.parametrize("views", ["none", "mirror"])
def test_what_is_unfamiliar_is_said_as_predict_says_it(tmp_path: Path, views: str) -> None:
    """Drawn and live, of noise and of pictures of the kind; the bars are calibrated."""
    x, y = shapes(1_200)
    recipe = QUICK.replace(label_smoothing=0.2, flip=views == "mirror", views=views)
    run = convlens.train((x, y), architecture=TINY, recipe=recipe, out=tmp_path / "run", progress="none", val_frac=0.2)
    classifier = convlens.load(run)
    session = Session(classifier, count(1))
    noise = np.random.default_rng(0).integers(0, 256, (3, 16, 16), dtype=np.uint8)
    told = set()
    for image in (*noise, *x[:30]):
        written = io.BytesIO()
        Image.fromarray(image).save(written, "PNG")
        expected = convlens.predict(classifier, written.getvalue())[0]
        seen, live = (
            unpacked(session.see(written.getvalue())),
            unpacked(session.live(written.getvalue(), wants_grad_cam=True)),
        )
        assert seen["unfamiliar"] is live["unfamiliar"] is expected.unfamiliar
        told.add(expected.unfamiliar)
        if views == "none":
            assert seen["arrays"]["probabilities"].max() == pytest.approx(expected.probability, abs=1e-5)
    assert told == {False, True}
    assert classifier.scaling.temperature != 1


def test_a_model_that_cannot_tell_says_nothing(run: convlens.Run) -> None:
    """Too few validation images: null in the answer."""
    assert unpacked(Session(convlens.load(run), count(1)).see(picture_bytes(3)))["unfamiliar"] is None
