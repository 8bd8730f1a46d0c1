"""An answer of a kit or of the server is looked at again: the same values, or what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convlens
from convlens.cli import main
from convlens.errors import UsageError
from convlens.exporting.onnx_file import onnx_of
from convlens.lens import replay as replaying
from convlens.runtime import kit_program
from tests.helpers import folder, scene, trained

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> convlens.Run:
    place = tmp_path_factory.mktemp("replayed")
    return trained(folder(place / "data", range(60)), size=16, out=place / "run")


@pytest.fixture(scope="module")
def kept(run: convlens.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a kit kept of one picture."""
    place = tmp_path_factory.mktemp("kept")
    kit = convlens.export(run, place / "kit", format="kit", progress="none").path
    scene(5, 80).save(place / "one.png")
    assert kit_program.main([str(place / "one.png"), "--keep", "all", "--kept", str(place / "kept")], here=kit) == 0
    [found] = (place / "kept").glob("*.json")
    return found


def test_the_same_input_gives_the_same_values(
    run: convlens.Run, kept: Path, workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """By the kept file alone, and by the row with its picture."""
    assert main(["look", str(run.path), "--replay", str(kept), "--out", "a.png"]) == 0
    out = capfd.readouterr().out
    assert "replay: the same input, model and values: logits at most" in out and Path("a.png").is_file()
    found = convlens.look(run, kept.parent.parent / "one.png", replay=kept.stem)
    assert found.replayed is not None and "the same answer; values cannot be compared" in found.replayed
    assert found.to_json()["replayed"] == found.replayed


def test_what_differs_is_said(run: convlens.Run, kept: Path, workplace: Path) -> None:
    """Another picture, another model, a damaged file, no row at all: one line each."""
    scene(6, 80).save(workplace / "other.png")
    with pytest.raises(UsageError, match="of another picture, or it was decoded and framed otherwise"):
        convlens.look(run, workplace / "other.png", replay=kept.stem)
    other = trained(folder(workplace / "data", range(100, 140)), size=16, out="other")
    with pytest.raises(UsageError, match="that row is of another model"):
        convlens.look(other, replay=kept)
    with pytest.raises(UsageError, match="name the picture of that row too"):
        convlens.look(run, replay=kept.stem)
    with pytest.raises(UsageError, match="neither a row"):
        convlens.look(run, replay="nonsense")
    damaged = workplace / "x.json"
    damaged.write_text(json.dumps(json.loads(kept.read_text(encoding="utf-8")) | {"top": 3}), encoding="utf-8")
    with pytest.raises(convlens.ConvlensError, match=r"x\.json is damaged \(top"):
        convlens.look(run, replay=damaged)


def test_where_values_part(run: convlens.Run, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other values for the same input and model: the first layer at which onnxruntime parts from torch here, or that
    they agree here, so that something else answered there."""
    stored = json.loads(kept.read_text(encoding="utf-8"))
    stored["logits"][0] += 0.5
    other = kept.with_name("other.json")
    other.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(UsageError, match=r"other values there: logits up to 0\.5.* agree at every layer"):
        convlens.look(run, replay=other)
    real = onnx_of

    def broken(classifier: Any) -> bytes:
        import onnx
        from onnx import numpy_helper

        model = onnx.load_from_string(real(classifier))
        name = [node.input[1] for node in model.graph.node if node.op_type == "Conv"][-1]
        last = next(one for one in model.graph.initializer if one.name == name)
        last.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(last) * np.float32(1.5), last.name))
        data: bytes = model.SerializeToString()
        return data

    monkeypatch.setattr(replaying, "onnx_of", broken)
    last_conv = [node.address for node in convlens.load(run).network.plan.nodes if "conv" in str(node.layer)][-1]
    with pytest.raises(UsageError, match=rf"part at layer {last_conv} on this machine"):
        convlens.look(run, replay=other)
