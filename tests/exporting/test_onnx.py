"""ONNX files answer as the model does, or are not left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import venv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import convlens
from convlens.architecture import parse, plan
from convlens.classifier import Classifier, answers_of
from convlens.cli import main
from convlens.data.image.framing import InputSpec, fit
from convlens.errors import UsageError
from convlens.exporting import int8, onnx_file
from convlens.exporting.framing_graph import framing_graph
from convlens.exporting.onnx_file import compared, drawn, onnx_of, session_of
from convlens.metrics import Scaling
from convlens.modelfile import Metrics, ModelCard
from convlens.paired import compared as paired
from convlens.runtime.onnx_model import OnnxModel
from convlens.runtime.prediction import Asked
from convlens.thresholds import Rejection, Requirement, Thresholds
from convlens.unfamiliarity import Unfamiliarity, layers_to_look_at
from tests.conftest import QUICK, shapes
from tests.helpers import folder, scene, trained, trained_on
from tests.lens.test_arithmetic import EVERY_LAYER, HEADS, made

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> convlens.Run:
    """A model with calibration and an unfamiliarity score: 1,500 pictures of the toy."""
    place = tmp_path_factory.mktemp("exported") / "toy"
    return trained_on(shapes(1_500), recipe=QUICK, size=16, channels=1, out=place)


def test_one_file_answers_as_the_model_does(
    run: convlens.Run, workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """From the command line: logits, probabilities, label, unfamiliarity and its verdict for each number of images;
    class names, framing and hashes in the metadata; a file that is there is replaced only by --overwrite."""
    assert main(["export", str(run.path), "--json"]) == 0
    out = capfd.readouterr().out
    assert json.loads(out)["path"] == "toy.onnx" and "200 pictures and 50 random images" in out
    session, classifier = session_of(Path("toy.onnx").read_bytes()), convlens.load(run)
    names = [one.name for one in session.get_outputs()]
    assert names == ["logits", "probabilities", "label", "unfamiliarity", "unfamiliar"]
    x, _ = shapes(17, 5)
    for num in (1, 17):
        found = dict(zip(names, session.run(None, {"images": x[:num, :, :, None]}), strict=True))
        ours = convlens.predict(run, x[:num], progress="none")
        assert [classifier.class_names[k] for k in found["label"]] == [one.label for one in ours]
        assert found["unfamiliar"].tolist() == [one.unfamiliar for one in ours]
        np.testing.assert_allclose(found["probabilities"].max(axis=1), [one.probability for one in ours], atol=1e-5)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["class_names"]) == list(classifier.class_names)
    facts = json.loads(about["convlens"])
    assert facts["card"]["dataset"]["fingerprint"] == run.record.dataset.fingerprint
    assert facts["model_sha256"] == convlens.files.sha256_of_file(run.model) and facts["input"]["framing"] == "pad"
    assert main(["export", str(run.path), "--overwrite", "--out", "toy.onnx"]) == 0
    capfd.readouterr()
    for arguments, words in (
        ([], "exists already: name another file, or say --overwrite"),
        (["--format", "onxx"], "did you mean 'onnx'"),
        (["--out", "a.txt"], ".onnx"),
        (["--pictures", "nowhere", "--out", "b.onnx"], "nowhere"),
    ):
        assert main(["export", str(run.path), *arguments]) == 2
        assert words in (err := capfd.readouterr().err), err
    assert [path.name for path in workplace.glob("*.onnx")] == ["toy.onnx"]


def test_no_parity_no_file(run: convlens.Run, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that answers otherwise is not left, whatever is other: probabilities, labels, what is unfamiliar."""
    classifier = convlens.load(run)
    with pytest.raises(UsageError, match="a probability is"):
        compared(
            onnx_of(classifier), replace(classifier, scaling=Scaling(3.0)), drawn(classifier, 4), drawn(classifier, 4)
        )
    real = onnx_file.onnx_of
    monkeypatch.setattr("convlens.exporting.export.onnx_of", lambda c: real(replace(c, scaling=Scaling(7.0))))
    with pytest.raises(UsageError, match="answers otherwise"):
        convlens.export(run, "other.onnx", progress="none")
    assert list(workplace.glob("*.onnx")) == []


@pytest.mark.slow
def test_eight_bits_and_what_they_cost(
    run: convlens.Run, workplace: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and activations in eight bits, the metadata as before, the paired difference on validation told; more
    than may be lost, or too few images to tell: no file."""
    assert main(["export", str(run.path), "--int8", "--out", "small.onnx", "--max-loss", "5"]) == 0
    out, err = capfd.readouterr()
    assert "int8: accuracy" in out and "points (" in out and "WARNING" not in err
    import onnx

    model = onnx.load("small.onnx")
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in model.graph.node}
    assert {one.key for one in model.metadata_props} == {"convlens", "class_names"} and model.ir_version == 9
    onnx.checker.check_model(model, full_check=True)
    x, y = shapes(100, 7)
    label = session_of(Path("small.onnx").read_bytes()).run(["label"], {"images": x[..., None]})[0]
    names = convlens.load(run).class_names
    assert np.mean([int(names[k]) == own for k, own in zip(label, y, strict=True)]) > 0.9
    monkeypatch.setattr(int8, "_TOLD", -1.0)  # as where eight bits change what is called unfamiliar
    said = convlens.export(run, "untold.onnx", int8=True, max_loss=5, progress="none")
    assert "does not tell what is unfamiliar" in str(said)
    untold = OnnxModel(Path("untold.onnx").read_bytes(), "untold.onnx")
    assert (
        "unfamiliar" not in untold.output_names and next(untold.answers([x[0][..., None]], Asked())).unfamiliar is None
    )
    Path("untold.onnx").unlink()
    real = paired
    monkeypatch.setattr(int8, "compared", lambda a, b, groups: replace(real(a, b, groups), estimate=-0.02))
    with pytest.raises(UsageError, match=r"eight bits lose more than 0\.3 points"):
        convlens.export(run, "lost.onnx", int8=True, progress="none")
    few = trained_on(shapes(60), recipe=QUICK, size=16, channels=1, out="few")
    with pytest.raises(UsageError, match="validation images: 100 are needed"):
        convlens.export(few, "few.onnx", int8=True, progress="none")
    assert [path.name for path in workplace.glob("*.onnx")] == ["small.onnx"]


@pytest.mark.slow
def test_a_promise_travels(workplace: Path) -> None:
    """`uncertain` is an output of its own, and the label is the one that the promise gives."""
    run = trained_on(shapes(1_500, 4), recipe=QUICK.replace(epochs=4))
    convlens.evaluate(run, split="val", reject=0.2, progress="none")
    found = convlens.export(run, "promised.onnx", progress="none")
    assert "the same labels" in str(found)
    session = session_of(Path("promised.onnx").read_bytes())
    assert [one.name for one in session.get_outputs()][-1] == "uncertain"
    with pytest.raises(UsageError, match="eight bits may not keep it"):
        convlens.export(run, "small.onnx", int8=True, progress="none")


@pytest.mark.slow
def test_models_without_data_are_checked_with_what_is_named(workplace: Path) -> None:
    """The data gone, it is said that no real picture was looked at; pictures that are named are."""
    root = folder(workplace / "data", range(60))
    run = trained(root, size=16, out="run")
    root.rename(workplace / "moved")
    found = convlens.export(run, "a.onnx", progress="none", pictures=workplace / "moved")
    assert "60 pictures" in str(found) and "that were named" in str(found)


@pytest.mark.parametrize(
    ("framing", "channels", "crop_frac"),
    [("pad", 3, 1.0), ("pad", 1, 1.0), ("crop", 3, 0.875), ("crop", 1, 1.0), ("stretch", 3, 1.0)],
)
def test_framing_in_the_file(framing: str, channels: int, crop_frac: float) -> None:
    """The graph frames as Pillow does, pictures wider, taller, smaller and larger than the input: hardly a pixel
    differs, and by little."""
    spec = InputSpec(40, 28, channels, framing, (1.0,) * channels, (1.0,) * channels, crop_frac=crop_frac)
    session = session_of(framing_graph(spec, onnx_file.OPSET, onnx_file.IR_VERSION).SerializeToString())
    for seed, size in enumerate([(300, 200), (200, 300), (20, 9), (9, 20), (40, 28), (28, 400), (61, 61)]):
        picture = np.asarray(scene(seed, 64).resize(size[::-1]))
        found = session.run(None, {"image": picture})[0][0].astype(int)
        apart = np.abs(found - fit(picture, spec))
        assert apart.max() <= 4 and (apart > 0).mean() < 0.1, (size, apart.max(), (apart > 0).mean())


def test_one_picture_of_any_size(workplace: Path) -> None:
    """`input="image"`: the model's own pictures, whole, get its labels; what no graph can frame is refused."""
    run = trained(folder(workplace / "data", range(60)), size=16, out="run")
    found = convlens.export(run, "whole.onnx", input="image", progress="none")
    assert "from whole pictures the same label for 51 of 51" in str(found)  # all of train and validation
    session = session_of(Path("whole.onnx").read_bytes())
    assert [(one.name, one.shape[2]) for one in session.get_inputs()] == [("image", 3)]
    label = session.run(["label"], {"image": np.asarray(scene(3, 90))})[0]
    assert convlens.load(run).class_names[label[0]] == convlens.predict(run, scene(3, 90), progress="none")[0].label
    archive = shutil.make_archive("packed", "zip", workplace / "data")
    zipped = trained(archive, size=16, out="zipped")
    found = convlens.export(zipped, "zipped.onnx", input="image", progress="none")
    assert "from whole pictures the same label for 51 of 51" in str(
        found
    )  # read from the archive, not as they were packed
    Path(archive).unlink()
    with pytest.raises(UsageError, match="no whole pictures are at hand"):
        convlens.export(zipped, "again.onnx", input="image", progress="none")
    drawn_run = trained_on(shapes(60), recipe=QUICK, size=16, channels=1, framing="ink", out="ink")
    with pytest.raises(UsageError, match="framing 'ink' looks for the drawing"):
        convlens.export(drawn_run, "ink.onnx", input="image", progress="none")
    assert not Path("ink.onnx").exists()


def classifier_of(chain: str, channels: int, num_classes: int, place: Path, **values: Any) -> Classifier:
    """A network with random weights, and all that may stand behind it."""
    network_plan = plan(parse(chain + HEADS), (channels, 13, 11), num_classes)
    spec = InputSpec(13, 11, channels, mean=(90.0,) * channels, std=(60.0,) * channels)
    names = tuple(f"c{k}" for k in range(num_classes))
    card = ModelCard(
        chain + HEADS,
        spec,
        names,
        None,
        None,
        None,
        None,
        None,
        Metrics(val=None, test=None),
        {},
        "2026-01-01T00:00:00",
    )
    (place / "m.safetensors").write_bytes(b"stands for it")
    classifier = Classifier(place / "m.safetensors", card, made(network_plan).eval(), "cpu", **values)
    images = drawn(classifier, 160)
    last = [module for module in classifier.network.modules() if isinstance(module, torch.nn.Linear)][-1]
    last.weight.data *= 3 / classifier.logits(images).std()  # so that few answers are too near to call
    addresses = layers_to_look_at(network_plan, 10**6)
    if addresses:
        logits_NK, statistics = classifier.outputs(images, addresses)
        known = Unfamiliarity.fitted(
            addresses, statistics, np.arange(160) % num_classes, [one[:120] for one in statistics], logits_NK[:120]
        )
        classifier = replace(classifier, card=replace(card, unfamiliarity=known))
    return classifier


OLD_RUNTIME = """
import sys
from pathlib import Path
import numpy, onnxruntime
assert onnxruntime.__version__.startswith("1.18."), onnxruntime.__version__
for path in map(Path, sys.argv[1:]):
    known = numpy.load(path.with_suffix(".npz"))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = (one.name for one in session.get_inputs())
    for name, found in zip((one.name for one in session.get_outputs()), session.run(None, {given: known["given"]})):
        if found.dtype.kind == "f":
            numpy.testing.assert_allclose(found, known[name], atol=1e-4, rtol=1e-4, err_msg=f"{path} {name}")
        else:
            assert (found == known[name]).all(), (path, name)
"""


@pytest.mark.slow
def test_the_oldest_runtime(run: convlens.Run, workplace: Path) -> None:
    """onnxruntime 1.18, in an environment of its own, gives what today's gives: of framed pictures with all outputs, in
    eight bits, and of a whole picture that is framed in the file."""
    convlens.export(run, "framed.onnx", progress="none")
    convlens.export(run, "small.onnx", int8=True, max_loss=5, progress="none")
    convlens.export(run, "whole.onnx", input="image", pictures=_some_pictures(workplace), progress="none")
    x, _ = shapes(40, 7)
    whole = np.asarray(scene(3, 90).convert("RGB"))
    for name, given in (("framed", x[..., None]), ("small", x[..., None]), ("whole", whole)):
        session = session_of(Path(f"{name}.onnx").read_bytes())
        outputs = [one.name for one in session.get_outputs()]
        found = session.run(None, {session.get_inputs()[0].name: given})
        np.savez(f"{name}.npz", given=given, **dict(zip(outputs, found, strict=True)))
    venv.create(workplace / "old", with_pip=True, symlinks=os.name != "nt")
    python = workplace / "old" / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [
        str(python),
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "onnxruntime==1.18.*",
        "numpy<2",
    ]
    if subprocess.run(install, check=False, capture_output=True).returncode:
        pytest.skip("onnxruntime 1.18 cannot be installed here: no package index, or no wheel for this Python")
    subprocess.run([str(python), "-c", OLD_RUNTIME, "framed.onnx", "small.onnx", "whole.onnx"], check=True)


def _some_pictures(place: Path) -> str:
    (place / "pictures").mkdir()
    for number in range(20):
        scene(number, 90).save(place / "pictures" / f"{number}.png")
    return str(place / "pictures")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(EVERY_LAYER)))
def test_every_layer(number: int, tmp_path: Path) -> None:
    """Every type of layer, of 1 and 3 channels, 2 and 101 classes, with and without mirror views, calibration,
    rejection and requirements."""
    for channels, num_classes in ((1, 2), (3, 101)):
        is_odd = (number + channels) % 2 == 0
        wanted = Requirement("c1", "recall", 0.9, 0.3, 100, 1), Requirement("c0", "precision", 0.9, 0.4, 100, 1)
        made_of = {"reject": Rejection(0.1, 0.5, 100, 50, 1)} if is_odd else {"require": wanted[: 1 + number % 2]}
        classifier = classifier_of(
            EVERY_LAYER[number],
            channels,
            num_classes,
            tmp_path,
            views="mirror" if is_odd else "none",
            scaling=Scaling(1.7, 0.1 if channels == 1 else 0.0),
            thresholds=Thresholds(confidence=0.9, **made_of),
        )
        images = drawn(classifier, 200)
        found = compared(onnx_of(classifier), classifier, images, drawn(classifier, 50))
        assert found.num_near < 50
        # As a kit and the prediction server answer, in words.
        kit = OnnxModel(onnx_of(classifier), "m.onnx")
        pairs = list(
            zip(answers_of(classifier, list(images), Asked()), kit.answers(list(images), Asked()), strict=True)
        )
        assert sum((a.label, a.uncertain) != (b.label, b.uncertain) for a, b in pairs) <= found.num_near
        assert sum(a.unfamiliar != b.unfamiliar for a, b in pairs) <= 2, "but of scores next to their threshold"
