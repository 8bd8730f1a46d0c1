"""The prediction server under load, beside others that serve the same ONNX file.

    python bench/serving.py MODEL.onnx PICTURE [PICTURE ...] --rivals PYTHON --rounds 5

Contenders take turns, each in a process of its own, on loopback: convlens; a plain FastAPI route that decodes, frames
as this model needs and runs the file (`--rivals` is a Python that has fastapi, uvicorn and litserve); LitServe with
batches. 32 connections that stay open, each with one request under way. Then convlens at 100 requests a second: the
99th percentile. And the same bytes decoded, framed and run in one process in batches: the most that there is.

    python bench/serving.py MODEL.onnx PICTURE [PICTURE ...] --endure

convlens alone: 1,000 connections at once, each with a picture of its own, whose answer must be its own; then 50,000
requests, and what memory the server holds before and after.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from convlens.runtime.onnx_model import OnnxModel
from convlens.runtime.prediction import Asked

_PORT = 8199
_PACE = 100  # requests a second
_ROUTE = """
import io, sys, json
import numpy as np, onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
_, height, width, channels = session.get_inputs()[0].shape

def frame(data):
    image = Image.open(io.BytesIO(data)).convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(1, height, width, channels)

def said(p):
    return {"label": names[int(p.argmax())], "probability": float(p.max())}
"""
_FASTAPI = (
    _ROUTE
    + """
from fastapi import FastAPI, Request
import uvicorn

app = FastAPI()

@app.post("/predict")
async def predict(request: Request):
    return said(session.run(["probabilities"], {"images": frame(await request.body())})[0][0])

uvicorn.run(app, port=int(sys.argv[2]), log_level="error", access_log=False)
"""
)
_LITSERVE = (
    _ROUTE
    + """
import litserve

class Api(litserve.LitAPI):
    def setup(self, device):
        pass
    def decode_request(self, request):
        return frame(request["file"].file.read())
    def batch(self, inputs):
        return np.concatenate(inputs)
    def predict(self, x):
        return session.run(["probabilities"], {"images": x})[0]
    def unbatch(self, output):
        return list(output)
    def encode_response(self, p):
        return said(p)

if __name__ == "__main__":
    api = Api(max_batch_size=32, batch_timeout=0.005)
    litserve.LitServer(api, accelerator="cpu").run(port=int(sys.argv[2]), log_level="error", generate_client_file=False)
"""
)


def _commands(model: Path, rivals: str | None, folder: Path) -> dict[str, list[str]]:
    found = {
        "convlens": [sys.executable, "-m", "convlens", "serve", str(model), "--api", "--no-token", "--port", str(_PORT)]
    }
    for name, text in (("FastAPI", _FASTAPI), ("LitServe", _LITSERVE)) if rivals else ():
        path = folder / f"{name}.py"
        path.write_text(text, encoding="utf-8")
        found[name] = [str(rivals), str(path), str(model), str(_PORT)]
    return found


async def _connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", _PORT)


_FORM = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: image/png\r\n\r\n'


def _bodies(name: str, pictures: list[bytes]) -> list[tuple[str, bytes]]:
    """Content types and bodies: LitServe takes no picture but in a form."""
    if name != "LitServe":
        return [("application/octet-stream", data) for data in pictures]
    return [("multipart/form-data; boundary=b", _FORM + data + b"\r\n--b--\r\n") for data in pictures]


async def _ask(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], body: tuple[str, bytes]) -> int:
    return (await _answer(streams, body))[0]


async def _answer(
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], body: tuple[str, bytes]
) -> tuple[int, bytes]:
    """Status and body."""
    (reader, writer), (kind, data) = streams, body
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{_PORT}\r\nContent-Type: {kind}\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    answer = await reader.readuntil(b"\r\n\r\n")
    lower = answer.lower()
    start = lower.index(b"content-length:") + len(b"content-length:")
    content = await reader.readexactly(int(lower[start : lower.index(b"\r\n", start)]))
    return int(answer.split(b" ", 2)[1]), content


async def _load(pictures: list[tuple[str, bytes]], connections: int, seconds: float) -> tuple[float, dict[int, int]]:
    """Requests a second, and how many had which status."""
    statuses: dict[int, int] = {}
    end = time.perf_counter() + seconds

    async def one(number: int) -> None:
        streams = await _connect()
        while time.perf_counter() < end:
            status = await _ask(streams, pictures[number % len(pictures)])
            statuses[status] = statuses.get(status, 0) + 1
            number += connections

    start = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(connections)))
    return sum(statuses.values()) / (time.perf_counter() - start), statuses


async def _paced(pictures: list[tuple[str, bytes]], a_second: int, seconds: float) -> list[float]:
    """Seconds of each request, sent at equal intervals whether those before are answered or not."""
    pool = [await _connect() for _ in range(32)]
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for one in pool:
        free.put_nowait(one)
    took: list[float] = []

    async def ask(number: int, due: float) -> None:
        streams = await free.get()
        await _ask(streams, pictures[number % len(pictures)])
        took.append(time.perf_counter() - due)
        free.put_nowait(streams)

    tasks, start = [], time.perf_counter()
    for number in range(int(a_second * seconds)):
        due = start + number / a_second
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(number, due)))
    await asyncio.gather(*tasks)
    return sorted(took)


def _serving(command: list[str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    for _ in range(300):
        try:
            asyncio.run(_connect())
            return process
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{command} did not start")


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started."""
    os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _in_one_process(model: Path, pictures: list[bytes], seconds: float) -> float:
    """Pictures a second, decoded in threads, framed and run in batches."""
    from convlens.data.prefetch import is_small, prefetch

    one = OnnxModel(model.read_bytes(), model)
    threads = 0 if is_small(len(pictures[0])) else None
    many = [pictures[n % len(pictures)] for n in range(20_000)]
    start, num = time.perf_counter(), 0
    for group in prefetch(one.frame, many, threads=threads, group_size=32):
        num += len(list(one.answers(group, Asked())))
        if time.perf_counter() - start > seconds:
            break
    return num / (time.perf_counter() - start)


def _own_pictures(model: OnnxModel, num: int) -> tuple[list[bytes], list[str]]:
    """Pictures of noise, no two alike, and the answer that each must get, as its row."""
    pictures = []
    for number in range(num):
        noise = np.random.default_rng(number).integers(0, 256, (28, 28), np.uint8)
        written = io.BytesIO()
        Image.fromarray(noise).save(written, "PNG")
        pictures.append(written.getvalue())
    answers = model.answers([model.frame(one) for one in pictures], Asked())
    return pictures, [str(one.row) for one in answers]


async def _many(pictures: list[bytes], rows: list[str]) -> dict[str, int]:
    """All at once, each over a connection of its own: how many had which status, and how many a foreign answer."""
    found: dict[str, int] = {}

    async def one(data: bytes, row: str) -> None:
        try:
            status, content = await _answer(await _connect(), ("image/png", data))
            said = json.loads(content)
            is_own = "error" in said or said["row"].split("-")[:2] == row.split("-")[:2]
            what = str(status) if is_own else "another's answer"
        except (OSError, asyncio.IncompleteReadError) as error:
            what = type(error).__name__
        found[what] = found.get(what, 0) + 1

    await asyncio.gather(*map(one, pictures, rows))
    return found


def _resident_mb(process: subprocess.Popen[bytes]) -> float:
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


def _endure(model: Path, pictures: list[bytes], command: list[str]) -> None:
    """Many connections, many requests."""
    own, rows = _own_pictures(OnnxModel(model.read_bytes(), model), 1_000)
    bodies = _bodies("convlens", pictures)
    process = _serving(command)
    try:
        print("1,000 connections at once:", asyncio.run(_many(own, rows)), flush=True)
        done, held = 0, []
        while done < 50_000:
            _rate, statuses = asyncio.run(_load(bodies, 32, 4))
            done += sum(statuses.values())
            held.append((done, _resident_mb(process)))
        print("requests, and MB held:", [(n, round(mb, 1)) for n, mb in (held[0], held[len(held) // 2], held[-1])])
    finally:
        _end(process)


def main() -> None:
    """A line a round, then the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--rivals")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--endure", action="store_true")
    asked = parser.parse_args()
    pictures = [path.read_bytes() for path in asked.pictures]
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        commands = _commands(asked.model, asked.rivals, Path(folder))
        if asked.endure:
            _endure(asked.model, pictures, commands["convlens"])
            return
        for number in range(asked.rounds):
            for name, command in commands.items():
                process = _serving(command)
                try:
                    bodies = _bodies(name, pictures)
                    asyncio.run(_load(bodies, 32, 1))
                    rate, statuses = asyncio.run(_load(bodies, 32, asked.seconds))
                finally:
                    _end(process)
                found.setdefault(name, []).append(rate)
                print(json.dumps({"round": number, "server": name, "requests_s": round(rate, 1), "statuses": statuses}))
            rate = _in_one_process(asked.model, pictures, asked.seconds)
            found.setdefault("in one process", []).append(rate)
            print(json.dumps({"round": number, "in one process": round(rate, 1)}), flush=True)
        print({name: round(statistics.median(rates), 1) for name, rates in found.items()}, f"n = {asked.rounds}")
        if statistics.median(found["convlens"]) < 2 * _PACE:
            return  # at this pace it would wait for ever longer
        process = _serving(commands["convlens"])
        took = asyncio.run(_paced(_bodies("convlens", pictures), _PACE, 20))
        _end(process)
    half, late = (1e3 * took[int(share * len(took))] for share in (0.5, 0.99))
    print(f"at {_PACE} requests/s: median {half:.1f} ms, p99 {late:.1f} ms")


if __name__ == "__main__":
    main()
