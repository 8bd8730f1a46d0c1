"""The prediction server: answers as predict gives them, or one line that says why not."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import convlens
from convlens.errors import ModelFileError
from convlens.serving.predictors import checked_onnx
from tests.data.image.test_decode import saved
from tests.helpers import folder, scene, trained

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")

NO_TORCH = "import sys; sys.modules['torch'] = None\nfrom convlens.cli import main\nsys.exit(main(sys.argv[1:]))"
LINE = re.compile(r"is open at (http://[^\s,]+)(?:, token (\S+))?")


@contextlib.contextmanager
def served(*arguments: object, code: str = NO_TORCH, **environment: str) -> Iterator[tuple[httpx.Client, Any]]:
    """A server in a process of its own, and a client that shows its token."""
    words = [sys.executable, "-c", code, "serve", *map(str, arguments), "--api", "--port", "0"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as process:
        assert process.stderr is not None
        told = ""
        while not (found := LINE.search(told)):
            line = process.stderr.readline()
            assert line, told
            told += line
        headers = {"Authorization": f"Bearer {found[2] or environment.get('CONVLENS_TOKEN', '')}"}
        try:
            with httpx.Client(base_url=found[1], headers=headers, timeout=60) as client:
                yield client, process
        finally:
            if process.poll() is None:
                process.terminate()
            process.communicate(timeout=60)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> convlens.Run:
    place = tmp_path_factory.mktemp("served")
    return trained(folder(place / "data", range(60)), size=16, out=place / "run")


@pytest.fixture(scope="module")
def model(run: convlens.Run) -> Path:
    return convlens.export(run, run.path.with_name("model.onnx"), progress="none").path


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Any]]:
    kept = tmp_path_factory.mktemp("kept")
    with served(model, "--keep", "all", "--kept", kept) as (client, process):
        process.kept = kept
        yield client, process


def test_answers_are_those_of_predict(run: convlens.Run, server: tuple[httpx.Client, Any]) -> None:
    """The body itself and a form, PNG and a large JPEG, one and many: label, probability and row as predict and a kit
    give them, without torch; parameters; what cannot be read stands in its place."""
    client, _ = server
    pictures = [saved(scene(n, side), kind) for n, side, kind in ((1, 40, "PNG"), (2, 700, "JPEG"), (3, 64, "WEBP"))]
    ours = convlens.predict(run, pictures, progress="none")
    for data, answer in zip(pictures, ours, strict=True):
        for found in (
            client.post("/predict", content=data),
            client.post("/predict", files={"file": ("a.jpg", data)}),
        ):
            said = found.json()
            assert found.status_code == 200 and said["label"] == answer.label and "path" not in said
            assert abs(said["probability"] - answer.probability) < 1e-5
            assert said["row"].split("-")[1] == convlens.files.sha256_of_file(run.model)[:12]
    named = [("file", (f"{n}.jpg", data)) for n, data in enumerate([*pictures, b"no picture"])]
    rows = client.post("/predict/batch", files=named, params={"top": 1}).json()["predictions"]
    assert [row.get("label") for row in rows] == [*(one.label for one in ours), None]
    assert rows[3]["name"] == "3.jpg" and "not a picture" in rows[3]["error"] and len(rows[0]["top"]) == 1
    found = client.post("/predict", content=pictures[0], params={"min_probability": 1}).json()
    assert found["uncertain"] is True


@pytest.mark.parametrize(
    ("path", "content", "status", "words"),
    [
        ("/predict", b"", 422, "empty file"),
        ("/predict", b"nonsense", 422, "not a picture"),
        ("/predict", b"\x89PNG\r\n\x1a\nhalf", 422, "damaged"),
        ("/predict?top=0", b"x", 400, "top must be a whole number from 1"),
        ("/predict?min_probability=2", b"x", 400, "min_probability must be a number from 0 to 1"),
        ("/predict?topp=1", b"x", 400, "unknown parameter 'topp'"),
        ("/nothing", b"x", 404, "Not Found"),
    ],
)
def test_what_is_wrong_is_said(
    server: tuple[httpx.Client, Any], path: str, content: bytes, status: int, words: str
) -> None:
    """One line of JSON and the right status."""
    found = server[0].post(path, content=content)
    assert found.status_code == status and words in found.json()["error"]


def test_forms_that_are_none(server: tuple[httpx.Client, Any]) -> None:
    """Ten thousand parts, two files for one answer, no file, no boundary, a bomb, too large a body: refused, and the
    server answers on."""
    client, _ = server
    many = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nx\r\n' for _ in range(10_000)
    )
    kind = {"content-type": "multipart/form-data; boundary=b"}
    assert client.post("/predict/batch", content=many + b"--b--", headers=kind).status_code == 413
    two = [("file", ("a", b"x")), ("file", ("b", b"x"))]
    assert client.post("/predict", files=two).status_code == 413
    assert client.post("/predict", data={"a": "b"}, headers=kind).status_code == 400
    for headers in ({"content-type": "multipart/form-data"}, kind):
        assert client.post("/predict", content=b"--b\r\nbroken", headers=headers).status_code == 400
    bomb = saved(Image.fromarray(np.zeros((9_000, 9_000), np.uint8)), "PNG")
    found = client.post("/predict", content=bomb)
    assert found.status_code == 422 and "too many pixels" in found.json()["error"]
    assert client.get("/healthz").text == "ok\n"


def raw(client: httpx.Client, data: bytes) -> bytes:
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as connection:
        connection.sendall(data)
        found = b""
        while not found.endswith(b"}") and (part := connection.recv(65_536)):
            found += part
    return found


def test_liars_and_strangers(server: tuple[httpx.Client, Any]) -> None:
    """A length that is too large, no token, another one, and what is no HTTP: one line of JSON each; a request that is
    broken off holds no place."""
    client, _ = server
    token = client.headers["authorization"].encode()
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: " + token
    assert b" 413 " in raw(client, head + b"\r\nContent-Length: 99999999999\r\n\r\n")
    assert b'{"error":' in raw(client, b"\x00\x01 nonsense\r\n\r\n")
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong-token"}):
        found = client.post("/predict", content=b"x", headers=headers)
        assert found.status_code == 401 and "token" in found.json()["error"]
    for _ in range(5):
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            connection.sendall(head + b"\r\nContent-Length: 1000\r\n\r\nhalf")
    assert client.post("/predict", content=saved(scene(1), "PNG")).status_code == 200


def test_what_operators_ask(run: convlens.Run, server: tuple[httpx.Client, Any]) -> None:
    """Health, readiness, metrics that add up, a description that OpenAPI's own words make, a page; kept pictures."""
    client, process = server
    before = _counted(client)
    for _ in range(3):
        client.post("/predict", content=saved(scene(4), "PNG"))
    client.post("/predict", content=b"x")
    after = _counted(client)
    assert after["200"] - before.get("200", 0) == 3 and after["422"] - before.get("422", 0) == 1
    assert client.get("/readyz").status_code == 200
    described = client.get("/openapi.json").json()
    assert {"/predict", "/predict/batch", "/healthz", "/readyz", "/metrics"} == set(described["paths"])
    assert described["components"]["schemas"]["Prediction"]["properties"]["label"]["enum"] == ["ant", "bee"]
    assert "2 classes: ant, bee" in client.get("/").text
    row = client.post("/predict", content=saved(scene(4), "PNG")).json()["row"]
    stored = json.loads((process.kept / f"{row}.json").read_text(encoding="utf-8"))
    assert (process.kept / stored["picture"]).read_bytes() == saved(scene(4), "PNG") and len(stored["logits"]) == 2
    found = convlens.look(run, replay=process.kept / f"{row}.json")
    assert found.replayed is not None and "the same input, model and values" in found.replayed


def _counted(client: httpx.Client) -> dict[str, float]:
    text = client.get("/metrics").text
    return {
        status: float(value)
        for status, value in re.findall(r'convlens_requests_total\{path="/predict",status="(\d+)"\} (\S+)', text)
    }


def test_many_at_once(run: convlens.Run, server: tuple[httpx.Client, Any]) -> None:
    """A hundred and sixty requests over sixteen connections: each gets the answer to its own picture, in batches."""
    client, _ = server
    pictures = [saved(scene(n, 30 + n), "PNG") for n in range(40)]
    ours = [one.to_json() for one in convlens.predict(run, pictures, progress="none")]
    headers = dict(client.headers)

    def ask(worker: int) -> list[tuple[int, dict[str, Any]]]:
        with httpx.Client(base_url=client.base_url, headers=headers, timeout=60) as own:
            numbers = [(worker * 10 + n) % 40 for n in range(10)]
            return [(n, own.post("/predict", content=pictures[n]).json()) for n in numbers]

    with ThreadPoolExecutor(16) as pool:
        for answers in pool.map(ask, range(16)):
            for number, found in answers:
                assert found["label"] == ours[number]["label"]
                assert abs(found["probability"] - ours[number]["probability"]) < 1e-5
    text = client.get("/metrics").text
    pictures_in = float(re.findall(r"\nconvlens_pictures_total (\S+)", text)[0])
    batches = float(re.findall(r"\nconvlens_batches_total (\S+)", text)[0])
    assert pictures_in > batches > 0


@pytest.mark.slow
def test_a_model_file_and_its_end(run: convlens.Run) -> None:
    """Through torch, the token from the environment; SIGTERM while requests are under way: each that was accepted is
    answered, and then it ends."""
    plain = "import sys\nfrom convlens.cli import main\nsys.exit(main(sys.argv[1:]))"
    data = saved(scene(1, 900), "JPEG", quality=95)
    with served(run.path, code=plain, CONVLENS_TOKEN="from-the-environment") as (client, process):
        assert (
            client.post("/predict", content=data).json()["label"]
            == convlens.predict(run, data, progress="none")[0].label
        )
        statuses: list[int] = []
        started = threading.Barrier(9)

        def ask() -> None:
            with httpx.Client(base_url=client.base_url, headers=dict(client.headers), timeout=60) as own:
                own.get("/healthz")
                started.wait()
                try:
                    while True:
                        statuses.append(own.post("/predict", content=data).status_code)
                except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                    return  # no longer accepted

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        started.wait()
        while len(statuses) < 20:
            threading.Event().wait(0.01)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        for thread in threads:
            thread.join(60)
        assert len(statuses) >= 20 and set(statuses) <= {200, 503}


@pytest.mark.slow
def test_two_workers_count_together(model: Path) -> None:
    """They share the port; the metrics are those of both; one that is killed is replaced."""
    with served(model, "--workers", "2") as (client, process):
        data, headers = saved(scene(1), "PNG"), dict(client.headers)
        for _ in range(12):
            with httpx.Client(base_url=client.base_url, headers=headers, timeout=60) as own:
                assert own.post("/predict", content=data).status_code == 200
        assert _counted(client)["200"] == 12
        children = subprocess.run(
            ["ps", "-ww", "-o", "pid=", "-o", "args=", "--ppid", str(process.pid)], capture_output=True, text=True
        )
        workers = [int(line.split()[0]) for line in children.stdout.splitlines() if "spawn_main" in line]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        assert "another one takes its place" in process.stderr.readline()
        with httpx.Client(base_url=client.base_url, headers=headers, timeout=60) as own:
            assert own.post("/predict", content=data).status_code == 200


def hostile(model: Path, change: Any) -> bytes:
    found = onnx.load(model)
    change(found)
    data: bytes = found.SerializeToString()
    return data


def _external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def _inner(model: Any) -> None:
    inner = onnx.helper.make_graph([onnx.helper.make_node("Evil", [], ["y"], domain="evil.com")], "inner", [], [])
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_external, "keeps tensors in other files"),
        (_inner, "evil.com.Evil"),
        (lambda m: m.opset_import.append(onnx.helper.make_opsetid("evil.com", 1)), "not ONNX's own"),
        (lambda m: m.graph.input[0].type.tensor_type.shape.dim.pop(), "does not take framed pictures"),
        (lambda m: setattr(m.graph.input[0], "name", "image"), "does not take framed pictures"),
        (lambda m: m.graph.output.pop(0), "other outputs"),
    ],
)
def test_hostile_onnx_is_refused_before_a_session(
    model: Path, tmp_path: Path, change: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """External data, operators of others (inside branches, too), wrong shapes: named, and onnxruntime never sees it."""
    (tmp_path / "evil.onnx").write_bytes(hostile(model, change))
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    with pytest.raises(ModelFileError, match=words):
        checked_onnx(tmp_path / "evil.onnx")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.onnx", "--api"], "cannot read nowhere.onnx"),
        (["broken.onnx", "--api"], "is no ONNX file, or a damaged one"),
        (["MODEL", "--api", "--workers", "0"], "workers must be a whole number from 1"),
        (["MODEL", "--api", "--keep", "everything"], "unknown --keep"),
        (["MODEL", "--api", "--token", "short"], "8 to 200"),
        (["MODEL", "--api", "--no-token", "--host", "0.0.0.0"], "--no-token is for this machine"),
        (["MODEL", "--workers", "2"], "--api"),
    ],
)
def test_bad_starts(
    model: Path, run: convlens.Run, workplace: Path, arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line, exit code 2, before anything listens."""
    (workplace / "broken.onnx").write_bytes(model.read_bytes()[:500])
    from convlens.cli import main

    chosen = str(run.path if "--workers" in arguments and "--api" not in arguments else model)
    assert main(["serve", *(chosen if word == "MODEL" else word for word in arguments), "--port", "0"]) == 2
    assert words in capfd.readouterr().err
