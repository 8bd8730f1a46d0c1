"""Teaching: what is collected, what is trained on it, and the view with a camera in a real browser."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import convlens
from convlens import files
from convlens.errors import ConvlensError, ImageError, UsageError
from convlens.microscope.session import Session
from convlens.microscope.teaching import Teaching
from tests.microscope.test_page import DESKTOP, overflow
from tests.microscope.test_server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
RED, BLUE = (200, 40, 30), (30, 60, 200)


def photo(colour: tuple[int, int, int], seed: int, suffix: str = "JPEG") -> bytes:
    """A picture of a coloured thing on noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(90, 160, (120, 160, 3), np.uint8)
    x, y = rng.integers(20, 80, 2)
    pixels[y : y + 40, x : x + 50] = colour
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, suffix)
    return file.getvalue()


def collect(teaching: Teaching, bursts: int, num: int = 3) -> None:
    """Some bursts of two classes."""
    seed = 0
    for name, colour in (("red", RED), ("blue", BLUE)):
        for _ in range(bursts):
            burst: str | None = "new"
            for _ in range(num):
                seed += 1
                burst = teaching.add(name, burst, ".jpg", photo(colour, seed))


def test_a_burst_is_a_group_and_files_are_their_own(workplace: Path) -> None:
    """No split parts a burst, each burst has a name of its own, and pictures that were dropped are dealt singly."""
    teaching = Teaching()
    collect(teaching, 4)
    for seed in range(3):
        teaching.add("red", None, ".png", photo(RED, 100 + seed, "PNG"))
    assert {one["name"]: (one["num_pictures"], one["num_groups"]) for one in teaching.status()["classes"]} == {
        "red": (15, 7),
        "blue": (12, 4),
    }
    assert len({path.name for path in Path("collected").glob("*/burst-*")}) == 8
    dataset = convlens.pack("collected", size=16, progress="none")
    groups: dict[str | None, set[str]] = {}
    for line in dataset.samples():
        groups.setdefault(line.group, set()).add(str(line.split) + ("" if line.group else line.path))
    assert len(groups) == 9, "eight bursts, and what is in none"
    assert all(len(splits) == 1 for group, splits in groups.items() if group is not None)
    assert any("groups" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../up", "folder's name"),
        ("a/b", "folder's name"),
        ("", "folder's name"),
        (".hidden", "folder's name"),
        ("dot.", "folder's name"),
        ("con", "folder's name"),
        ("nul.x", "folder's name"),
        ("x" * 61, "folder's name"),
        ("new\nline", "folder's name"),
        ("test", "word of a split"),
        ("my training set", "word of a split"),
        ("Red", "already"),
    ],
)
def test_names_that_cannot_be_classes(workplace: Path, name: str, said: str) -> None:
    """Refused in one line, and nothing is written: neither outside the folder nor beside a class that looks alike."""
    teaching = Teaching()
    teaching.add("red", None, ".jpg", photo(RED, 0))
    before = sorted(workplace.rglob("*"))
    for burst in ("new", None):
        with pytest.raises(UsageError, match=said) as caught:
            teaching.add(name, burst, ".jpg", photo(RED, 1))
        assert "\n" not in str(caught.value)
    assert sorted(workplace.rglob("*")) == before


def test_what_is_no_picture_is_refused(workplace: Path) -> None:
    """Bytes that are none, cut ones, other kinds of file, and bursts that are not there; nothing is kept."""
    teaching = Teaching()
    teaching.add("red", None, ".jpg", photo(RED, 0))
    whole = photo(RED, 1)
    for suffix, data in ((".jpg", b"nothing"), (".jpg", whole[: len(whole) // 2]), (".exe", whole), ("", whole)):
        with pytest.raises(ImageError):
            teaching.add("red", None, suffix, data)
    for burst in ("burst-0009", "../red", "burst-0001/..", ""):
        with pytest.raises(UsageError, match="no burst"):
            teaching.add("red", burst, ".jpg", whole)
        with pytest.raises(UsageError, match="no burst"):
            teaching.discard("red", burst)
    assert [path.name for path in Path("collected").rglob("*.*")] == ["0001.jpg"]


def test_a_burst_is_discarded_and_nothing_else(workplace: Path) -> None:
    """The burst's pictures go; those of others and single ones stay."""
    teaching = Teaching()
    collect(teaching, 2)
    teaching.add("red", None, ".jpg", photo(RED, 50))
    teaching.discard("red", "burst-0001")
    assert {one["name"]: one["num_pictures"] for one in teaching.status()["classes"]} == {"red": 4, "blue": 6}


def test_a_folder_with_splits_is_not_collected_into(workplace: Path) -> None:
    """Pictures beside a train folder would be no class of it."""
    Teaching(Path("data/train")).add("red", None, ".jpg", photo(RED, 0))
    with pytest.raises(UsageError, match="folder of your own"):
        Teaching(Path("data")).add("red", "new", ".jpg", photo(RED, 0))


@pytest.mark.training
def test_a_class_is_removed_from_the_disk(workplace: Path) -> None:
    """All of it, and nothing else."""
    teaching = Teaching()
    collect(teaching, 2)
    with pytest.raises(UsageError, match="no class"):
        teaching.remove("green")
    teaching.remove("red")
    assert [path.name for path in Path("collected").iterdir()] == ["blue"]


def test_a_training_is_measured_burst_by_burst(workplace: Path) -> None:
    """All pictures are measured by heads that did not learn from their bursts, the model has seen all of them, and
    answers; what was prepared before changes nothing."""
    teaching = Teaching()
    with pytest.raises(UsageError, match="two classes"):
        teaching.teach("cpu")
    collect(teaching, 2)
    teaching.prepare("cpu")
    first = teaching.teach("cpu")
    again = teaching.teach("cpu")
    assert first.run.path != again.run.path and first.run.status == "complete"
    assert first.score is not None and first.score == again.score
    assert (first.score.n, first.score.num_groups) == (12, 4) and first.score.accuracy > 0.7
    assert first.score.interval[0] < 0.6, "four bursts, not twelve pictures"
    assert first.run.val is None and [path.is_dir() for path in Path("runs").iterdir()] == [True, True]
    model = convlens.load(first.run)
    assert convlens.predict(model, photo(BLUE, 999))[0].label == "blue"
    with pytest.raises(ConvlensError, match="trained on all images"):
        convlens.evaluate(first.run, "collected", progress="none")
    shown = teaching.status()["result"]
    assert shown["score"]["n"] == 12 and shown["run"] == str(again.run.path)


@pytest.mark.training
def test_what_was_packed_for_nothing_goes(workplace: Path) -> None:
    """Each burst is packed to be prepared; what a later one replaced, or was discarded, does not stay in the cache."""
    teaching = Teaching()
    collect(teaching, 1)
    teaching.prepare("cpu")
    packed = {path for path in files.cache_folder().rglob("images.npy") if "collected" in str(path)}
    teaching.add("red", "new", ".jpg", photo(RED, 77))
    teaching.prepare("cpu")
    now = {path for path in files.cache_folder().rglob("images.npy") if "collected" in str(path)}
    assert len(now) == len(packed) and now != packed
    teaching.discard("red", "burst-0003")
    assert not any(path.exists() for path in now - packed)


@pytest.mark.training
def test_a_single_burst_gives_no_score(workplace: Path) -> None:
    """Where nothing can be held out there is an answer and no accuracy, and why."""
    teaching = Teaching()
    collect(teaching, 1)
    result = teaching.teach("cpu")
    assert result.score is None and "single take" in result.note
    assert result.run.val is None and result.run.record.cross_validation is None
    assert convlens.predict(convlens.load(result.run), photo(RED, 999))[0].label == "red"


@pytest.mark.parametrize("which", ["toy", "two_views"])
def test_a_live_answer_is_the_classifiers(which: str, request: pytest.FixtureRequest) -> None:
    """The quick way, with batch norm folded in, gives predict's probabilities, those over mirrored views too; with
    Grad-CAM the same."""
    from itertools import count

    from tests.microscope.test_server import picture_bytes, unpacked

    classifier = convlens.load(request.getfixturevalue(which))
    session, data = Session(classifier, count(1)), picture_bytes(3)
    expected = convlens.predict(classifier, data, top=99)[0]
    for wants in (False, True):
        found = unpacked(session.live(data, wants_grad_cam=wants))
        assert classifier.class_names[found["label"]] == expected.label
        assert found["arrays"]["probabilities"].max() == pytest.approx(expected.probability, abs=1e-5)
        assert ("map" in found["arrays"]) is wants
        assert found["place"] == [0, 0, 40, 40]


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, toy: convlens.Run) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("teach"), str(toy.path), "--port", "0")
    yield found
    assert found.close() == 0


@pytest.fixture(scope="module")
def camera(launch: Callable[..., Browser]) -> Iterator[Browser]:
    opened = launch(*FAKE_CAMERA)
    yield opened
    opened.close()


def teach_page(browser: Browser, server: Server) -> Page:
    page = browser.new_context(viewport=DESKTOP).new_page()
    page.goto(server.entry)
    page.wait_for_selector("body[data-ready]")
    page.locator("#tab-teach").click()
    return page


def hold(page: Page, name: str, num: int) -> None:
    """Hold a class's button until so many pictures more are there."""
    button = page.locator(f"[data-hold='{name}']")
    button.scroll_into_view_if_needed()
    before = page.locator(f"[data-class='{name}'] .thumbs canvas").count()
    box = button.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 10, box["y"] + 10)
    page.mouse.down()
    page.wait_for_function(
        "([name, num]) => document.querySelectorAll(`[data-class='${name}'] .thumbs canvas`).length >= num",
        arg=[name, before + num],
    )
    page.mouse.up()
    page.wait_for_selector(f"[data-hold='{name}']:not(.recording)")


@pytest.mark.training
def test_taught_with_a_camera(camera: Browser, server: Server, tmp_path: Path) -> None:
    """Bursts and files of two classes are collected, a head is trained and opened, and answers live with Grad-CAM; the
    folder has what was collected."""
    page = teach_page(camera, server)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((server.url, "blob:")) else problems.append(r.url))
    assert page.locator("#video").is_hidden()
    page.locator("#camera").click()
    page.wait_for_selector("#live-answer li")  # of the model that is open
    for name in ("green", "red"):
        page.locator("#class-name").fill(name)
        page.locator("#class-name").press("Enter")
    assert page.locator("#teach-train").is_disabled()
    hold(page, "green", 2)
    hold(page, "green", 2)
    paths = [tmp_path / f"{seed}.png" for seed in range(4)]
    for seed, path in enumerate(paths):
        path.write_bytes(photo(RED, seed, "PNG"))
    page.locator("[data-class='red'] input[type=file]").set_input_files(paths)
    page.wait_for_selector("[data-class='red']:has-text('4 pictures')")
    page.locator("#teach-train").click()
    page.wait_for_selector("#teach-score:has-text('95 % interval')", timeout=60_000)
    page.wait_for_selector("#live-answer[data-label='green']")
    assert "taught-1" in page.locator("#models").input_value()
    page.wait_for_function(
        "() => { const c = document.getElementById('overlay');"
        "return c.width && c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v); }"
    )
    assert overflow(page) == 0
    collected = server.folder / "collected"
    assert len(list(collected.glob("red/*.png"))) == 4
    assert len(list(collected.glob("green/burst-*"))) == 2
    page.locator("[data-class='green'] button:has-text('Discard')").click()
    page.wait_for_selector("[data-class='green']:has-text('in one take')")
    assert len(list(collected.glob("green/burst-*"))) == 1
    assert problems == []
    page.context.close()


def test_the_camera_is_off_when_nobody_looks(camera: Browser, server: Server) -> None:
    """Hiding the page or leaving the view ends the camera's stream; it is not begun again without a press."""
    page = teach_page(camera, server)
    page.evaluate("""() => { const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (wish) => (window.kept = await real(wish)); }""")
    running = "() => window.kept.getTracks().filter((track) => track.readyState === 'live').length"
    page.locator("#camera").click()
    page.wait_for_selector("#live:not([hidden])")
    assert page.evaluate(running) == 1
    page.locator("#tab-look").click()
    assert page.evaluate(running) == 0
    page.locator("#tab-teach").click()
    assert page.locator("#video").is_hidden()
    page.locator("#camera").click()
    page.wait_for_selector("#live:not([hidden])")
    page.evaluate("""() => { Object.defineProperty(document, 'hidden', { get: () => true });
        document.dispatchEvent(new Event('visibilitychange')); }""")
    assert page.evaluate(running) == 0
    assert "switched off" in page.locator("#camera-note").inner_text()
    page.context.close()


@pytest.mark.parametrize(("switches", "said"), [((), "no camera"), (FAKE_CAMERA[:1], "refused")])
def test_without_a_camera(launch: Callable[..., Browser], server: Server, switches: tuple[str, ...], said: str) -> None:
    """No camera, or one that was refused: one line, and files can be chosen."""
    browser = launch(*switches)
    page = teach_page(browser, server)
    page.locator("#camera").click()
    page.wait_for_selector(f"#camera-note:has-text('{said}')")
    page.locator("#class-name").fill("blue")
    page.locator("#class-name").press("Enter")
    assert page.locator("[data-hold='blue']").is_disabled()
    browser.close()
