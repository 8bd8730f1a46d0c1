"""Weights from the Hugging Face Hub, against a stand-in of it on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

import convlens
from convlens.modelfile import read_model
from tests.network.test_pretrained import ResNet, _randomised

REPOSITORY = "timm/resnet18.stand_in1k"
CONFIG: dict[str, Any] = {
    "architecture": "resnet18",
    "num_classes": 1000,
    "pretrained_cfg": {
        "tag": "stand_in1k",
        "input_size": [3, 64, 64],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.25],
    },
}
README = "---\ntags:\n- timm\nlicense: apache-2.0\n---\n# A stand-in\n"


@dataclass
class Hub:
    """What the stand-in serves: files of one repository, the same at every revision, and how often it was asked."""

    files: dict[str, bytes]
    commit: str = "0123456789abcdef0123456789abcdef01234567"
    asked: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, bytes]:
    """A plain ResNet-18 with random weights, and its file."""
    torch.manual_seed(0)
    plain = _randomised(ResNet((2, 2, 2, 2), False)).eval()
    state = {name: tensor.numpy() for name, tensor in plain.state_dict().items()}
    return plain, safetensors.numpy.save(state)


@pytest.fixture
def hub(weights: tuple[Any, bytes]) -> Iterator[Hub]:
    """The stand-in, on a port of its own."""
    found = Hub(
        {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights[1], "README.md": README.encode()}
    )

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            found.asked.append(self.path)
            parts = self.path.lstrip("/").split("/")
            body = found.files.get(parts[-1]) if "/".join(parts[:2]) == REPOSITORY else None
            if body is None or "resolve" not in parts:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("X-Repo-Commit", found.commit)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def asked(hub: Hub, place: Path, code: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, for huggingface_hub reads its environment when it is imported."""
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(place / "hf"), "CONVLENS_CACHE": str(place / "cache")}
    own |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | own, cwd=place, timeout=120
    )


PATH = (
    "from convlens.network.pretrained import model_path\n"
    "from convlens.errors import ConvlensError\n"
    "import sys\n"
    "try: print(model_path(sys.argv[1] if len(sys.argv) > 1 else 'timm/resnet18.stand_in1k'))\n"
    "except ConvlensError as error: print('ERROR', error)\n"
)


@pytest.mark.slow
def test_a_name_on_the_hub_is_a_model(hub: Hub, weights: tuple[Any, bytes], tmp_path: Path) -> None:
    """Weights, preprocessing and licence come with it; it answers as plain torch does; asked for again it needs no
    network, nor when its model file is damaged."""
    path = Path(asked(hub, tmp_path, PATH).stdout.strip())
    card = read_model(path).card
    assert card.origin is not None
    assert (card.origin.name, card.origin.licence) == (REPOSITORY, "apache-2.0")
    assert card.origin.sha256 == hashlib.sha256(weights[1]).hexdigest()
    assert hub.commit[:12] in card.origin.source and "ImageNet" in str(card.origin.trained_on)
    assert card.input_spec.crop_frac == 0.95 and card.input_spec.mean == pytest.approx((127.5, 102.0, 76.5))
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    config = CONFIG["pretrained_cfg"]
    x = (torch.from_numpy(images).float() / 255 - torch.tensor(config["mean"])) / torch.tensor(config["std"])
    with torch.inference_mode():
        expected = weights[0](x.permute(0, 3, 1, 2)).numpy()
    found = convlens.load(path).logits(images)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    num_asked = len(hub.asked)
    again = asked(hub, tmp_path, PATH)
    assert Path(again.stdout.strip()) == path and len(hub.asked) == num_asked
    path.write_bytes(b"nothing")
    assert Path(asked(hub, tmp_path, PATH).stdout.strip()) == path and read_model(path).card.origin == card.origin


@pytest.mark.slow
def test_a_name_is_held_to_what_it_first_was(hub: Hub, tmp_path: Path) -> None:
    """Other weights under the same name and revision are refused, with both hashes."""
    path = Path(asked(hub, tmp_path, PATH).stdout.strip())
    other = _randomised(ResNet((2, 2, 2, 2), False)).eval().state_dict()
    hub.files["model.safetensors"] = safetensors.numpy.save({name: tensor.numpy() for name, tensor in other.items()})
    path.unlink()
    for cached in sorted((tmp_path / "hf").rglob("*"), reverse=True):
        if cached.is_file() or cached.is_symlink():
            cached.unlink()
    line = asked(hub, tmp_path, PATH).stdout
    assert line.startswith("ERROR") and "SHA-256" in line and line.count("\n") == 1 and not path.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "vit_base"}, "no chain of layers"),
        ({"num_classes": 10}, "convlens adopt"),
        ({"pretrained_cfg": {"tag": "x", "input_size": [3, 64, 64]}}, "how its pictures are prepared"),
        ({"pretrained_cfg": None}, "how its pictures are prepared"),
    ],
)
def test_what_cannot_be_known_is_refused(hub: Hub, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    """No preprocessing, an unknown architecture, other classes: one line, and no model file."""
    hub.files["config.json"] = json.dumps(CONFIG | change).encode()
    line = asked(hub, tmp_path, PATH).stdout
    assert line.startswith("ERROR") and words in line and line.count("\n") == 1
    assert not list((tmp_path / "cache" / "models").glob("*.safetensors"))


def check_line(line: str) -> None:
    """One line that says how to fetch it elsewhere."""
    assert line.startswith("ERROR") and "convlens adopt" in line and line.count("\n") == 1, line


def test_no_such_repository_is_one_line(hub: Hub, tmp_path: Path) -> None:
    """A name that the hub does not have: one line."""
    check_line(asked(hub, tmp_path, PATH.replace("resnet18.stand_in1k", "resnet18.is_not_there")).stdout)


@pytest.mark.slow  # huggingface_hub tries five times, for half a minute
def test_no_network_is_one_line(hub: Hub, tmp_path: Path) -> None:
    """No network: one line."""
    hub.url = "http://127.0.0.1:9"
    check_line(asked(hub, tmp_path, PATH).stdout)
