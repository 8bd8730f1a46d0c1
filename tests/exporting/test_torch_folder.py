"""A classifier as plain torch: one source file beside its weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import convlens
from convlens.cli import main
from convlens.errors import UsageError
from convlens.exporting import torch_folder
from tests.conftest import QUICK, shapes
from tests.helpers import folder, scene, trained, trained_on

BARE = """
import json, runpy, sys
for name in ("convlens", "numpy", "safetensors", "onnxruntime", "simplejpeg"):
    sys.modules[name] = None
made = runpy.run_path(sys.argv[1])
print(json.dumps([made["predict"](path) for path in sys.argv[2:]]))
"""


@pytest.mark.parametrize(
    "options",
    [
        {"framing": "pad"},
        {"framing": "crop", "channels": 1},
        {"framing": "stretch", "recipe": QUICK.replace(flip=True, views="mirror")},
        {"framing": "pad", "region": (2, 3, 16, 15)},
    ],
)
def test_torch_and_pillow_alone(options: dict[str, Any], workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Where numpy, safetensors and convlens cannot be imported: the labels and probabilities of predict, for pictures
    wider, taller and smaller than the input, on their side, transparent, grey."""
    run = trained(folder(workplace / "data", range(60)), size=24, out="run", **options)
    assert main(["export", str(run.path), "--format", "torch"]) == 0
    assert "from files the same label for" in capfd.readouterr().out
    place = workplace / "pictures"
    place.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    for number, size in enumerate([(90, 60), (60, 90), (64, 64), (57, 120)]):
        scene(number, 64).resize(size).save(place / f"{number}.png")
    scene(5, 80).save(place / "turned.jpg", exif=exif)
    scene(6, 70).convert("L").save(place / "grey.png")
    transparent = scene(7, 70).convert("RGBA")
    transparent.putalpha(120)
    transparent.save(place / "transparent.png")
    paths = sorted(map(str, place.iterdir()))
    command = [sys.executable, "-c", BARE, str(Path("run-torch") / "model.py"), *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    for answers, ours in zip(json.loads(done.stdout), convlens.predict(run, paths, progress="none"), strict=True):
        assert answers[0][0] == ours.label and abs(answers[0][1] - ours.probability) < 1e-3, ours.path


def test_what_plain_torch_cannot(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawings are named with the format that can; a source that answers otherwise is not left; nothing is replaced."""
    drawn = trained_on(shapes(60), recipe=QUICK, size=16, channels=1, framing="ink", out="ink")
    with pytest.raises(UsageError, match="framing 'ink' is too long for plain torch: format kit has it"):
        convlens.export(drawn, format="torch", progress="none")
    run = trained(folder(workplace / "data", range(40)), size=16, out="run")
    with pytest.raises(UsageError, match="leave `views` and `raw` away"):
        convlens.export(run, format="torch", views="mirror", progress="none")
    (workplace / "run-torch").mkdir()
    (workplace / "run-torch" / "mine.txt").write_text("mine", encoding="utf-8")
    for overwrite in (False, True):
        with pytest.raises(convlens.ConvlensError, match="name another folder"):
            convlens.export(run, format="torch", progress="none", overwrite=overwrite)
    real = torch_folder._source
    monkeypatch.setattr(torch_folder, "_source", lambda c: real(c).replace("(-(below /", "(-(3 * below /"))
    with pytest.raises(UsageError, match="the torch source answers otherwise"):
        convlens.export(run, "other", format="torch", progress="none")
    assert not Path("other").exists()
