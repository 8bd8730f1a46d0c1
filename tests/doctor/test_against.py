"""New pictures held against those of a model."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

import convlens
from convlens.cli import main
from convlens.doctor.against import _share_seen, _shift_seen
from convlens.doctor.findings import PropertyShift, Shift
from convlens.errors import DataError, UsageError
from convlens.metrics import fisher_exact, kolmogorov_smirnov
from tests.conftest import QUICK, TINY, shapes


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> convlens.Run:
    """On 1,500 pictures of bars and discs with noise, a fifth of them held out."""
    x, y = noisy(1_500, 0)
    out = tmp_path_factory.mktemp("against") / "run"
    return convlens.train((x, y), architecture=TINY, recipe=QUICK, out=out, progress="none", val_frac=0.2)


def noisy(num: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    x, y = shapes(num, seed)
    return x + np.random.default_rng(seed).integers(0, 50, x.shape, np.uint8), y


def saved(folder: Path, x: NDArray[np.uint8]) -> Path:
    """Pictures of no class."""
    folder.mkdir()
    for number, image in enumerate(x):
        Image.fromarray(image).save(folder / f"{number:03}.png")
    return folder


def test_pictures_of_the_kind_are_like_it(trained: convlens.Run, tmp_path: Path) -> None:
    """200 drawn as the training pictures were, in a folder without classes: like them, and every property has its
    p-value and the difference that would have been seen."""
    found = convlens.check(saved(tmp_path / "new", noisy(200, 5)[0]), against=trained, progress="none")
    assert found.shift is not None and found.verdict.startswith("these are like what the model was trained on")
    assert not found.findings and not found.falsifies
    assert {one.what for one in found.shift.differences} >= {
        "share unfamiliar",
        "share called 0",
        "brightness",
        "sharpness",
    }
    assert all(0 <= one.p <= 1 and one.smallest_seen > 0 for one in found.shift.differences)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda x, y: x[y == 0], "share called 0"),
        (lambda x, y: (x // 2 + 60).astype(np.uint8), "brightness"),
        (lambda x, y: np.random.default_rng(0).integers(0, 255, x.shape, np.uint8), "share unfamiliar"),
    ],
)
def test_how_they_are_not_is_said(trained: convlens.Run, tmp_path: Path, change: object, what: str) -> None:
    """One class alone, brighter ones, noise: the line names it, first by the share that is unfamiliar."""
    x = change(*noisy(300, 6))  # type: ignore[operator]
    found = convlens.check(saved(tmp_path / "new", x), against=trained, progress="none")
    assert found.verdict.startswith("these are not like") and found.shift is not None
    assert what in [one.what for one in found.shift.differences if one.is_told]


def test_pictures_of_the_training_are_named(trained: convlens.Run, tmp_path: Path) -> None:
    """Those that the model was made with cannot be unlike it: how many there are is a warning."""
    old, new = noisy(1_500, 0)[0][:150], noisy(60, 5)[0]
    found = convlens.check(saved(tmp_path / "mixed", np.concatenate([old, new])), against=trained, progress="none")
    [known] = [one for one in found.findings if one.kind == "known"]
    num = int(known.title.split()[0])
    assert 80 <= num <= 150 and "of the 210 pictures" in known.title  # test pictures are among the first too


def test_another_mix_of_classes_is_not_another_kind() -> None:
    """New pictures of one class alone: the shares of the answers differ, and nothing in the pictures has to."""
    mix = PropertyShift("share called a", 0.5, 0.0, -0.5, 0.0001, 0.1, True)
    looks = PropertyShift("sharpness", 1.0, 2.0, 3.0, 0.0001, 0.1, False)
    assert "no property of the pictures differs" in Shift(100, 100, 0, (mix,)).verdict
    assert Shift(100, 100, 0, (mix, looks)).verdict.startswith("these are not like")


def test_few_pictures_tell_little_and_that_is_said(trained: convlens.Run, tmp_path: Path) -> None:
    """Six pictures: no clean bill, but what share would have had to be unfamiliar; four are too few."""
    found = convlens.check(saved(tmp_path / "six", noisy(6, 7)[0]), against=trained, progress="none")
    assert "6 pictures tell little" in found.verdict and "would have been seen" in found.verdict
    with pytest.raises(DataError, match="4 pictures that can be read: 5"):
        convlens.check(saved(tmp_path / "four", noisy(4, 7)[0]), against=trained, progress="none")


def test_what_is_unlike_by_chance_is_rarely_called_so(trained: convlens.Run, tmp_path: Path) -> None:
    """Of 40 sets of 150 pictures of the kind at most a tenth are called unlike: all properties are tested together."""
    called = 0
    for seed in range(40):
        found = convlens.check(noisy(150, 100 + seed), against=trained, progress="none")
        called += "not like" in found.verdict
    assert called <= 4


def test_from_the_command_line(trained: convlens.Run, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON, a page, and a broken picture that is counted; options that look for something else are refused."""
    folder = saved(workplace / "new", noisy(120, 8)[0])
    (folder / "broken.png").write_bytes(b"no picture")
    words = ["check", "new", "--against", str(trained.path)]
    assert main([*words, "--json", "--out", "page.html"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["shift"]["n"] == 120 and document["shift"]["num_unread"] == 1
    assert "1 picture cannot be read" in document["findings"][0]["title"]
    assert "like what the model was trained on" in Path("page.html").read_text(encoding="utf-8")
    assert main(words) == 0 and "would be seen" in capsys.readouterr().out
    assert main([*words, "--labels"]) == 2
    with pytest.raises(UsageError, match="against"):
        convlens.check("new", against=trained, control=True, progress="none")


def test_a_model_without_held_out_images_is_refused(tmp_path: Path) -> None:
    """Nothing to compare with: how many are needed is said."""
    run = convlens.train(shapes(300), architecture=TINY, recipe=QUICK, out=tmp_path / "run", progress="none")
    with pytest.raises(DataError, match="100 are needed"):
        convlens.check(shapes(50), against=run, progress="none")


def test_the_tests_are_scipys() -> None:
    """Fisher's exact test, and Kolmogorov's and Smirnov's where samples are not small."""
    for a, n, b, m in [(0, 10, 3, 40), (35, 100, 10, 1_000), (5, 5, 5, 5), (0, 7, 0, 9), (140, 397, 48, 4_941)]:
        expected = stats.fisher_exact([[a, n - a], [b, m - b]]).pvalue
        assert fisher_exact(a, n, b, m) == pytest.approx(expected, rel=1e-6, abs=1e-300)
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.15, 0.5):
        x, y = rng.normal(size=300), rng.normal(size=500) + shift
        expected = stats.ks_2samp(x, y, method="asymp")
        distance, p = kolmogorov_smirnov(x, y)
        assert distance == pytest.approx(expected.statistic) and p == pytest.approx(expected.pvalue, rel=0.3, abs=0.01)


@pytest.mark.parametrize("num", [20, 100, 500])
def test_what_would_be_seen_is_seen_in_eight_of_ten(num: int) -> None:
    """Drawn at the very difference that is named, 300 times: told in 80 % of them, less what chance allows."""
    rng, there = np.random.default_rng(num), np.zeros(1_000)
    there[:10] = 1
    more = _share_seen(np.zeros(num), there, 0.004)
    told = [fisher_exact(int(rng.binomial(num, more + 0.01)), num, 10, 1_000) <= 0.004 for _ in range(300)]
    assert 0.73 <= np.mean(told) <= 0.9
    shift = _shift_seen(num, 1_000, 0.004)
    told = [kolmogorov_smirnov(rng.normal(size=num) + shift, rng.normal(size=1_000))[1] <= 0.004 for _ in range(300)]
    assert 0.73 <= np.mean(told) <= 0.95
    assert _share_seen(np.zeros(2), there, 1e-9) == float("inf")
