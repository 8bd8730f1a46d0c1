"""`look`: attributions against captum and brute force, the sheet, the film, any module, and what cannot be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import convlens
from convlens.architecture import parse, plan
from convlens.errors import ConvlensError, ImageError, RunError, UsageError
from convlens.lens.attribution import STEPS, grad_cam, integrated_gradients, occlusion, patches, resized
from convlens.lens.features import dead_maps
from convlens.lens.film import frames_of
from convlens.lens.looking import baseline_of
from convlens.network.build import tensors_of
from convlens.presets import PRESETS
from convlens.render.feature_sheet import figure_of
from convlens.training.trainer import frames_between
from tests.conftest import QUICK, TINY, Command, shapes
from tests.test_lens import made


@pytest.fixture(scope="module")
def toy(arrays: tuple[NDArray[Any], ...], tmp_path_factory: pytest.TempPathFactory) -> convlens.Run:
    """A trained run on the toy set that kept its filters."""
    x, y, x_test, y_test = arrays
    folder = tmp_path_factory.mktemp("toy")
    np.savez(folder / "toy.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return convlens.train(
        folder / "toy.npz",
        out=folder / "run",
        recipe=QUICK.replace(epochs=6),
        architecture=TINY,
        keep_filters=True,
        progress="none",
    )


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """One picture of the toy set, a vertical bar."""
    images, labels = shapes(40, seed=5)
    found: NDArray[np.uint8] = images[int(np.flatnonzero(labels == 1)[0])]
    return found


def subject(toy: convlens.Run, picture: NDArray[np.uint8]) -> tuple[convlens.Classifier, Tensor, Tensor]:
    classifier = convlens.load(toy.path)
    baseline, _ = baseline_of(classifier.card.input_spec)
    x, x0 = (classifier.network.normalise(torch.from_numpy(a[None])) for a in (classifier.frame(picture), baseline))
    return classifier, x, x0


# ---------------------------------------------------------------- attributions


@pytest.mark.parametrize("label", [0, 1, 2])
def test_integrated_gradients_are_complete(toy: convlens.Run, picture: NDArray[np.uint8], label: int) -> None:
    """They add up to logit(x) - logit(baseline), to 1 % (256 steps)."""
    classifier, x, x0 = subject(toy, picture)
    forward = classifier.network.forward_normalised
    difference = (forward(x) - forward(x0))[0, label].item()
    assert integrated_gradients(forward, x, x0, label).sum() == pytest.approx(difference, rel=0.01)


@pytest.mark.parametrize("preset", ["standard", "tutorial"])
def test_attributions_are_captums(preset: str) -> None:
    """Integrated gradients (same rule, same steps) and Grad-CAM are captum's, on the networks of the presets."""
    attr = pytest.importorskip("captum.attr", reason="captum, the oracle, is not installed")
    network = made(plan(parse(PRESETS[preset].architecture), (1, 28, 28), 10)).eval()
    x, x0 = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(3)).split(1)
    forward = network.forward_normalised
    expected = attr.IntegratedGradients(forward).attribute(x, x0, target=4, n_steps=STEPS, method="riemann_middle")
    found = integrated_gradients(forward, x, x0, 4)
    np.testing.assert_allclose(found, expected[0].numpy(), atol=1e-4 * np.abs(found).max())
    layer = network.layers.get_submodule("5")
    expected = attr.LayerGradCam(forward, layer).attribute(x, target=4, relu_attributions=True)
    np.testing.assert_allclose(grad_cam(forward, layer, x.clone(), 4), expected[0, 0].detach().numpy(), rtol=1e-5)


def test_occlusion_by_brute_force(toy: convlens.Run, picture: NDArray[np.uint8]) -> None:
    """Each pixel's value is the mean drop of the logit over the patches that cover it, one picture at a time."""
    classifier, x, x0 = subject(toy, picture)
    forward = classifier.network.forward_normalised
    total, count = np.zeros((16, 16)), np.zeros((16, 16))
    with torch.no_grad():
        for rows, columns in patches(16, 16):
            covered = x.clone()
            covered[:, :, rows, columns] = x0[:, :, rows, columns]
            total[rows, columns] += float((forward(x) - forward(covered))[0, 1])
            count[rows, columns] += 1
    assert count.min() >= 1
    np.testing.assert_allclose(occlusion(forward, x, x0, 1), total / count, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (28, 28), (64, 40)])
def test_patches_cover_every_pixel(size: tuple[int, int]) -> None:
    """No pixel is left out, at whatever size."""
    covered = np.zeros(size, int)
    for rows, columns in patches(*size):
        covered[rows, columns] += 1
    assert covered.min() >= 1


def test_resized_map_keeps_its_place() -> None:
    """A map's bright corner is the picture's bright corner."""
    small = np.zeros((4, 4), np.float32)
    small[3, 0] = 1
    assert np.unravel_index(resized(small, 28, 28).argmax(), (28, 28))[0] >= 24


# ---------------------------------------------------------------- look


def test_features(toy: convlens.Run, picture: NDArray[np.uint8]) -> None:
    """Layers, answer, filters, attributions and a unit's field are those of the network; the text names dead maps."""
    features = convlens.look(toy.path, picture, unit="4:3,2,5", label="0")
    classifier = convlens.load(toy.path)
    assert features.label == classifier.predict(picture)[0].label
    assert [layer.address for layer in features.layers] == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "7",
    ]  # flatten changes nothing
    assert features.explained == 0 and features.grad_cam_layer == "5"
    assert features.grad_cam is not None and features.grad_cam.shape == (16, 16) and features.grad_cam.min() >= 0
    assert features.unit is not None and features.unit.value == features.layers[4].values[3, 2, 5]
    assert np.array_equal(features.arrays()["kernels"], tensors_of(classifier.network)["0.weight"])
    assert "unit 4:3,2,5" in str(features) and json.dumps(features.to_json())
    empty = replace(features.layers[2], values=np.zeros((5, 2, 2), np.float32))
    assert "5 of 5 maps dead" in str(replace(features, layers=(empty,)))
    some = convlens.look(toy.path, picture, layers=["2", "0"])
    assert [layer.address for layer in some.layers] == ["0", "2"]
    assert dead_maps(np.stack([np.zeros((2, 2)), np.ones((2, 2))]).astype(np.float32)).tolist() == [True, False]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": "0,9"}, "there are 0, 1, 2, 3, 4, 5, 6, 7"),
        ({"layers": ","}, "at least one"),
        ({"unit": "0:99,0,0"}, "from 0,0,0 to 3,7,7"),
        ({"unit": "x"}, "LAYER:"),
        ({"label": "seven"}, "there are 0, 1, 2"),
        ({"label": "²"}, "no class"),
        ({"label": "9" * 5000}, "no class"),
        ({"label": 10**5000}, "no class"),
        ({"image": [[1], [2, 3]]}, "not a picture"),
        ({"image": None}, "name a picture"),
    ],
)
def test_what_is_not_there(toy: convlens.Run, picture: NDArray[np.uint8], options: dict[str, Any], words: str) -> None:
    """Layers, units and classes that are not there: one line that lists those that are."""
    with pytest.raises((UsageError, ImageError), match=words):
        convlens.look(toy.path, **{"image": picture, **options})


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".npz"])
def test_sheet(toy: convlens.Run, picture: NDArray[np.uint8], tmp_path: Path, suffix: str) -> None:
    """The suffix decides what is written; what is there is never replaced."""
    features = convlens.look(toy.path, picture, unit="0:1,0,0")
    path = tmp_path / f"sheet{suffix}"
    features.save(path)
    data = path.read_bytes()
    if suffix == ".png":
        assert Image.open(path).size[0] > 1000
    elif suffix == ".svg":
        assert ElementTree.fromstring(data).tag.endswith("svg")
    elif suffix == ".pdf":
        assert data.startswith(b"%PDF")
    else:
        arrays = np.load(path)
        assert np.array_equal(arrays["layer/0"], features.layers[0].values) and "grad_cam" in arrays
    with pytest.raises(UsageError, match="exists already"):
        features.save(path)
    assert path.read_bytes() == data


def test_sheet_takes_any_names_and_shapes(tmp_path: Path) -> None:
    """RGB, many classes, odd names ($, <, right-to-left), 1×1 maps, thousands of channels: all can be drawn."""
    names = ("$x^2$", "<b>", "עברית", "name with spaces and more of them", *(f"class {i}" for i in range(20)))
    images = np.random.default_rng(0).integers(0, 256, (48, 10, 10, 3), np.uint8)
    labels = np.arange(48) % len(names)
    run = convlens.train(
        {"train": (images, np.array(names)[labels])},
        out=tmp_path / "run",
        progress="none",
        val_frac=0,
        architecture="conv(1500, 3) relu globalavgpool conv(80, 1) relu flatten linear(1100) linear(classes)",
        recipe=QUICK.replace(epochs=0.1, batch_size=8),
    )
    features = convlens.look(run.path, images[0])
    features.save(tmp_path / "sheet.png")
    assert features.grad_cam_layer == "1" and features._repr_html_().startswith("<img ")


def test_sheet_of_a_damaged_picture(toy: convlens.Run, command: Command, workplace: Path) -> None:
    """A picture that cannot be read: one line, exit code 2, nothing written."""
    (workplace / "bad.png").write_bytes(b"\x89PNG nothing")
    done = command("look", toy.path, "bad.png")
    assert done.returncode == 2 and "bad.png" in done.stderr and len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in workplace.iterdir()) == ["bad.png"]


def test_command(toy: convlens.Run, picture: NDArray[np.uint8], command: Command, workplace: Path) -> None:
    """`look` writes a picture under a free name, arrays and a film where they are asked for, and says so."""
    Image.fromarray(picture).save(workplace / "bar.png")
    done = command("look", toy.path, "bar.png", "--arrays", "a.npz", "--film", "f.gif", "--layers", "0,2")
    assert done.returncode == 0, done.stderr
    assert "written: f.gif, look-bar.png, a.npz" in done.stdout and "bar.png: " in done.stdout
    for arguments in (
        ["none.png", "--film", "g.gif", "--out", "z.png"],
        ["bar.png", "--out", "o.png", "--film", "o.png"],
    ):
        assert command("look", toy.path, *arguments).returncode == 2
    assert not any((workplace / name).exists() for name in ("g.gif", "z.png", "o.png")), (
        "a command that fails leaves nothing"
    )
    done = command("look", toy.path, "bar.png", "--json")
    assert json.loads(done.stdout)["files"] == ["look-bar-2.png"]
    done = command("look", toy.path, "--film", "sheet.svg")
    assert done.returncode == 0 and (workplace / "sheet.svg").is_file()
    for arguments, words in (
        (["bar.png", "--out", "look-bar.png"], "exists already"),
        (["bar.png", "--out", "x.jpg"], "must end in .png, .svg or .pdf"),
        ([], "name a picture"),
        (["bar.png", "--arrays", "x.txt"], ".npz"),
    ):
        done = command("look", toy.path, *arguments)
        assert done.returncode == 2 and words in done.stderr, done.stderr


# ---------------------------------------------------------------- any module


class Small(nn.Module):
    """A module of somebody's own: in-place activations, one of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)
        self.act, self.head = nn.ReLU(inplace=True), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv2(self.act(self.conv1(x))))
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def test_any_module(tmp_path: Path) -> None:
    """A plain module is looked into under its own names, and no trace is left in it; pictures and tensors go in."""
    module = Small().train()
    image = np.random.default_rng(1).integers(0, 256, (20, 24, 3), np.uint8)
    features = convlens.look(module, image)
    assert [layer.address for layer in features.layers] == ["conv1", "act", "conv2", "act#2", "head"]
    assert features.layers[0].values.min() < 0, "the copy is from before the activation worked in place"
    assert features.grad_cam is not None and features.grad_cam.shape == (20, 24)
    assert module.training and all(p.grad is None for p in module.parameters())
    assert not any(part._forward_hooks for part in module.modules())
    x = torch.from_numpy(image).permute(2, 0, 1) / 255
    again = convlens.look(module, x, layers="head")
    assert again.probabilities is not None and features.probabilities is not None
    np.testing.assert_allclose(again.probabilities, features.probabilities, rtol=1e-6)
    features.save(tmp_path / "module.png")
    for bad, words in (((torch.zeros(2, 3, 9, 9),), "one picture"), ((torch.zeros(7, 9, 9),), "cannot be looked into")):
        with pytest.raises((UsageError, ImageError), match=words):
            convlens.look(module, *bad)
    with pytest.raises(UsageError, match="there are conv1"):
        convlens.look(module, x, layers="conv9")
    with pytest.raises(UsageError, match="not logits"):
        convlens.look(module.conv1, x)
    with torch.no_grad():
        gradients = convlens.look(module, x).integrated_gradients
        assert gradients is not None and gradients.any()


def test_colours_of_a_tensors_sheet() -> None:
    """Without a photograph too, Grad-CAM is drawn from 0 up and the two with signs around 0."""
    torch.manual_seed(0)
    figure = figure_of(convlens.look(Small(), torch.rand(3, 12, 12), layers="head")._content())
    overlays = [axes.images[1].get_cmap().name for axes in figure.axes if len(axes.images) == 2]
    assert overlays == ["magma", "RdBu_r", "RdBu_r"]


class Odd(nn.Module):
    """What a module of somebody's own may give instead of logits."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.head = kind, nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Any:
        logits = self.head(x.flatten(1) if self.kind != "one at a time" else x.view(1, -1))
        return {"tuple": (logits, x), "dict": {"logits": logits}, "not finite": logits / 0}.get(self.kind, logits)


@pytest.mark.parametrize(
    ("kind", "words"),
    [("tuple", "gives tuple"), ("dict", "gives dict"), ("not finite", "not finite"), ("one at a time", "batches")],
)
def test_modules_that_cannot_be_looked_into(kind: str, words: str) -> None:
    """One line says what is the matter."""
    with pytest.raises(UsageError, match=words):
        convlens.look(Odd(kind), torch.ones(1, 3, 3))


def test_gradients_switched_off_by_the_caller(toy: convlens.Run, picture: NDArray[np.uint8]) -> None:
    """Inside inference_mode and no_grad the attributions are the same."""
    plain = convlens.look(toy.path, picture)
    for mode in (torch.inference_mode(), torch.no_grad()):
        with mode:
            found = convlens.look(toy.path, picture)
        assert plain.occlusion is not None and found.occlusion is not None
        np.testing.assert_allclose(found.integrated_gradients, plain.integrated_gradients)  # type: ignore[arg-type]


def test_module_in_half_precision() -> None:
    """A bfloat16 module is looked into in its own arithmetic."""
    features = convlens.look(Small().bfloat16(), torch.rand(3, 12, 12))
    assert features.integrated_gradients is not None and np.isfinite(features.integrated_gradients).all()


# ---------------------------------------------------------------- the film


def test_film(toy: convlens.Run, tmp_path: Path) -> None:
    """Frames from the first step to the last; the last are the model's own filters; animations move."""
    film = convlens.film(toy)
    weights = tensors_of(convlens.load(toy.path).network)["0.weight"]
    assert (
        film.steps[0] == 0 and film.steps[-1] == toy.record["num_steps"] and list(film.steps) == sorted(set(film.steps))
    )
    assert np.array_equal(film.kernels[-1], weights.detach().numpy())
    assert not np.array_equal(film.kernels[0], film.kernels[-1])
    assert len({frame.tobytes() for frame in frames_of(film)}) == len(film.steps)
    for suffix in (".gif", ".webp", ".png"):
        film.save(tmp_path / f"film{suffix}")
        assert getattr(Image.open(tmp_path / f"film{suffix}"), "n_frames", 1) == (
            1 if suffix == ".png" else len(film.steps)
        )
    with pytest.raises(UsageError, match="must end in"):
        film.save(tmp_path / "film.mp4")


def test_frames_are_many_early_on() -> None:
    """Each training has its last step as a frame, and half of the frames in its first quarter."""
    for num_steps in (1, 7, 100, 10_000):
        frames = [step for step in range(1, num_steps + 1) if frames_between(step - 1, step, num_steps)]
        assert frames[-1] == num_steps and len(frames) <= 60
    assert sum(1 for step in frames if step <= 2500) >= 29


def test_resumed_run_keeps_the_same_filters(arrays: tuple[NDArray[Any], ...], tmp_path: Path) -> None:
    """Stopped and resumed, a run has the film and the curve of one that was never stopped."""

    def run(name: str, stop_at: int | None) -> convlens.Run:
        asked = iter(range(10_000))
        stop = None if stop_at is None else (lambda: next(asked) >= stop_at)
        options: dict[str, Any] = {"recipe": QUICK, "architecture": TINY, "progress": "none", "keep_filters": True}
        data = {"train": arrays[:2], "test": arrays[2:]}
        done = convlens.train(data, out=tmp_path / name, stop=stop, **options)
        if stop_at is not None:
            assert done.status == "interrupted"
            done = convlens.train(data, resume=done, progress="none")
        return done

    whole, resumed = run("whole", None), run("resumed", 7)
    assert whole.curve == resumed.curve and len(whole.curve) == whole.record["num_steps"]
    assert [step for step, _ in whole.filters()] == [step for step, _ in resumed.filters()]
    for (_, a), (_, b) in zip(whole.filters(), resumed.filters(), strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert all("epoch" in line for line in whole.history)


def test_no_film(toy: convlens.Run, arrays: tuple[NDArray[Any], ...], tmp_path: Path) -> None:
    """A run that kept no filters, one that has none to keep, and damaged ones: one line each."""
    x, y, *_ = arrays
    options: dict[str, Any] = {"recipe": QUICK.replace(epochs=0.1), "progress": "none"}
    plain = convlens.train((x, y), out=tmp_path / "a", architecture=TINY, **options)
    with pytest.raises(RunError, match="keep_filters"):
        convlens.film(plain)
    with pytest.raises(UsageError, match="has none"):
        convlens.train((x, y), architecture="flatten linear(classes)", keep_filters=True, **options)
    with pytest.raises(RunError, match="keep_filters"):
        convlens.train(resume=plain, keep_filters=True, progress="none")
    (plain.path / "filters").mkdir()
    for step in (0, 1):
        (plain.path / "filters" / f"step-{step:09d}.npy").write_bytes(b"damaged")
    with pytest.raises(ConvlensError, match="damaged filters"):
        convlens.film(plain)
    (plain.path / "filters" / "step-000000000.npy").write_bytes(b"PK\3\4garbage")
    with pytest.raises(ConvlensError, match="damaged filters"):
        convlens.film(plain)
    for step in (0, 1):
        np.save(plain.path / "filters" / f"step-{step:09d}.npy", np.zeros((0, 1, 3, 3), np.float32))
    with pytest.raises(ConvlensError, match="damaged filters"):
        convlens.film(plain)


# ---------------------------------------------------------------- explain


def test_explain_draws(command: Command, workplace: Path) -> None:
    """`--svg` is one well-formed document without a script, a row a layer; nothing is replaced."""
    sentence = "conv(8, 3, padding=1) relu residual(conv(8, 3, padding=1)) maxpool(2) flatten linear(classes)"
    done = command("explain", sentence, "--svg", "net.svg")
    assert done.returncode == 0, done.stderr
    text = (workplace / "net.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    words = "".join(root.itertext())
    assert root.tag.endswith("svg") and "script" not in text
    for part in (
        "input",
        "2.0  conv(8, 3, padding=1)",
        "+ sum of the residual",
        "receptive field of one unit",
        "8 × 14×14",
    ):
        assert part in words, part
    assert command("explain", sentence, "--svg", "net.svg").returncode == 2
    assert command("explain", sentence, "--svg", "net.png").returncode == 2


def test_explain_says_which_padding(command: Command) -> None:
    """Padding in words, shares as bars; the same numbers as a table and as blocks."""
    done = command(
        "explain", "conv(8, 3, padding=1) maxpool(3, stride=2, padding=1) conv(8, 3) flatten linear(classes)"
    )
    for words in (
        "a ring of zeros (same: keeps the size)",
        "places that do not count",
        "no padding (valid)",
        "█",
        "receptive field",
    ):
        assert words in done.stdout, words
