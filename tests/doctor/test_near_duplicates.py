"""Copies are found however they were altered, and what is listed is right."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convlens
from convlens.data import mnist
from convlens.doctor import candidates, descriptors
from convlens.doctor.named_copies import named_copies
from convlens.doctor.near_duplicates import Compared, Pair, same_pictures
from tests.conftest import shared
from tests.doctor.alterations import ALTERATIONS
from tests.helpers import scene


def photographs(source: Path, num: int) -> list[Image.Image]:
    """Some of a set's pictures, evenly drawn, at most 384 pixels wide: enough for what is compared at 64."""
    files = sorted(path for path in source.rglob("*.*") if path.is_file())
    found = []
    for path in sorted(random.Random(5).sample(files, num)):
        image = Image.open(path).convert("RGB")
        image.thumbnail((384, 384))
        found.append(image)
    return found


def searched(images: list[Image.Image]) -> list[Pair]:
    pixels = (np.asarray(image) for image in images)
    return same_pictures(Compared.of(pixels, [image.width / image.height for image in images]))


def copies(originals: list[Image.Image], kind: str) -> list[Image.Image]:
    rng = random.Random(kind)
    return [ALTERATIONS[kind](image, rng) for image in originals]


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> list[Image.Image]:
    """Photographs."""
    return photographs(shared("ants_bees", tmp_path_factory.mktemp("photographs")), 60)


@pytest.mark.parametrize("kind", ALTERATIONS)
def test_copies_of_sixty_photographs(kind: str, sixty: list[Image.Image]) -> None:
    """Sixty photographs and an altered copy of each: at least 95 % are found, and 95 % of what is listed is right."""
    pairs = searched([*sixty, *copies(sixty, kind)])
    right = sum(pair.b == pair.a + 60 for pair in pairs)
    assert right >= 57, f"{right} of 60"
    assert right >= 0.95 * len(pairs), [(pair.a, pair.b, pair.how) for pair in pairs if pair.b != pair.a + 60]


_KNOWN: dict[str, set[tuple[int, int]]] = {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALTERATIONS)
@pytest.mark.parametrize(("name", "num"), [("ants_bees", 397), ("trashnet_256", 2527)])
def test_copies_among_all_photographs(name: str, num: int, kind: str, tmp_path: Path) -> None:
    """The same among all pictures of two sets, for 150 of them. Pairs that are there without the copies (trashnet has
    some three dozen, which were looked at) and pairs with those pictures' copies are not counted."""
    originals = photographs(shared(name, tmp_path), num)
    if name not in _KNOWN:
        _KNOWN[name] = {(pair.a, pair.b) for pair in searched(originals)}
    chosen = sorted(random.Random(6).sample(range(num), 150))
    pairs = searched([*originals, *copies([originals[at] for at in chosen], kind)])
    of = [*range(num), *chosen]
    right = {(pair.a, pair.b) for pair in pairs if of[pair.a] == of[pair.b]}
    wrong = [
        pair
        for pair in pairs
        if of[pair.a] != of[pair.b] and tuple(sorted((of[pair.a], of[pair.b]))) not in _KNOWN[name]
    ]
    assert len(right) >= 0.95 * len(chosen), len(right)
    assert len(wrong) <= 0.05 * (len(right) + len(wrong)), wrong


@pytest.mark.slow
def test_many_copies_of_one_picture_are_one_group(sixty: list[Image.Image]) -> None:
    """An augmented folder: the copies of each of six photographs end up with their original, none with another."""
    originals = sixty[:6]
    kinds = list(ALTERATIONS)
    images = [*originals, *(copy for kind in kinds for copy in copies(originals, kind))]
    group = list(range(len(images)))
    for pair in searched(images):
        assert pair.a % 6 == pair.b % 6, (kinds[pair.b // 6 - 1], pair)
        group = [group[pair.a] if one == group[pair.b] else one for one in group]
    joined = sum(group[at] == group[at % 6] for at in range(6, len(images)))
    assert joined >= 0.95 * (len(images) - 6)


def test_equal_frames_make_no_copies() -> None:
    """Different pictures with the same black corners, bars and white borders are in no pair."""
    images = [scene(number, 96) for number in range(24)]
    turned = [image.rotate(20, expand=True) for image in images[:8]]
    barred = [image.rotate(90).crop((-20, 0, 116, 96)) for image in images[8:16]]
    bordered = []
    for image in images[16:]:
        page = Image.new("RGB", (120, 120), "white")
        page.paste(image.resize((90, 90)), (15, 15))
        bordered.append(page)
    assert searched([*turned, *barred, *bordered]) == []


def test_frames_of_one_colour_make_no_copies(sixty: list[Image.Image]) -> None:
    """Different photographs in frames of one brown, and in letterboxes of one grey, are in no pair; a copy in the same
    frame is found."""

    def framed(image: Image.Image) -> Image.Image:
        page = Image.new("RGB", (240, 200), (140, 90, 50))
        page.paste(image.resize((192, 160)), (24, 20))
        return page

    def letterboxed(image: Image.Image) -> Image.Image:
        page = Image.new("RGB", (200, 200), (114, 114, 114))
        page.paste(image.resize((200, 132)), (0, 34))
        return page

    for into in (framed, letterboxed):
        images = [into(image) for image in sixty]
        copies = [into(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) for image in sixty[:10]]
        pairs = {(pair.a, pair.b) for pair in searched([*images, *copies])}
        assert pairs <= {(at, 60 + at) for at in range(10)} and len(pairs) >= 9


def test_outlines_are_not_taken_for_copies() -> None:
    """Handwritten digits can be laid on one another so that they agree; of 3,000 no two are called copies, and of
    forty, equal copies are found as they are, mirrored and turned by quarters."""
    digits = np.frombuffer(mnist.read("t10k-images-idx3-ubyte")[16:], np.uint8).reshape(-1, 28, 28)[:3000]
    copies = [np.rot90(digits[at], at % 4)[:, :: 1 if at < 20 else -1] // 3 * 2 for at in range(40)]
    pixels = [image[:, :, None] for image in (*digits, *copies)]
    pictures = Compared.of(iter(pixels), np.ones(len(pixels)), 32)
    assert pictures.are_outlines.all()
    assert [(pair.a, pair.b) for pair in same_pictures(pictures)] == [(at, 3000 + at) for at in range(40)]


def test_outlines_are_said(tmp_path: Path) -> None:
    """Digits, of which altered copies cannot be told: the note and the sentence at the end say so, and two that
    differ in a pixel are not called equal in every pixel."""
    digits = np.frombuffer(mnist.read("t10k-images-idx3-ubyte")[16:], np.uint8).reshape(-1, 28, 28)[:60].copy()
    digits[58] = digits[0]
    digits[58, 14, 14] ^= 3
    np.savez(tmp_path / "digits.npz", x=digits, y=np.arange(60) % 2)
    findings = convlens.check(tmp_path / "digits.npz")
    found = {finding.kind: finding for finding in findings.findings}
    assert "60 pictures with little but an outline" in found["outlines"].title
    assert not any(kind.startswith("exact") for kind in found)
    assert sum(len(finding.sets) for kind, finding in found.items() if kind.startswith("near-")) == 1
    np.savez(tmp_path / "others.npz", x=digits[:58], y=np.arange(58) % 2)
    assert "plain pictures and outlines" in convlens.check(tmp_path / "others.npz").verdict


def test_arrays_are_equal_only_in_their_own_pixels(tmp_path: Path) -> None:
    """Two large arrays that are the same when seen small, but differ in a pixel, and two that are equal."""
    images = np.stack([np.asarray(scene(number, 200)) for number in range(24)])
    images[22], images[23] = images[0], images[1]
    images[22, 77, 77, 0] ^= 1
    np.savez(tmp_path / "large.npz", x=images, y=np.arange(24) % 2)
    findings = convlens.check(tmp_path / "large.npz").findings
    named = [
        ({sample.name for sample in samples}, finding.kind.split("-")[0])
        for finding in findings
        for samples in finding.sets
        if finding.kind.startswith(("exact-", "near-"))
    ]
    assert ({"all/1", "all/23"}, "exact") in named and ({"all/0", "all/22"}, "near") in named
    assert ({"all/0", "all/22"}, "exact") not in named


def test_how_two_differ_is_said() -> None:
    """A turned, a mirrored and a cut copy are called that."""
    image = scene(3, 128)
    others = [scene(number, 128) for number in range(10, 20)]
    said = {
        "turned by 12°": image.rotate(12),
        "turned by 90°": image.transpose(Image.Transpose.ROTATE_90),
        "mirrored": image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "cut to 75 % of the sides": image.crop((10, 20, 106, 116)),
        "nearly the same pixels": image.resize((64, 64)),
    }
    for words, copy in said.items():
        found = searched([image, copy, *others])
        assert [(pair.a, pair.b, pair.how) for pair in found] == [(0, 1, words)]


def test_many_pictures_are_searched_in_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """The index that looks at the likeliest cells only finds what looking at all of them finds."""
    images = [scene(number, 40) for number in range(300)]
    images += [image.rotate(15) for image in images[:60]]
    pixels = [np.asarray(image) for image in images]

    def alike() -> set[tuple[int, int]]:
        pictures = Compared.of(iter(pixels), np.ones(len(pixels)), 32)
        return {(pair.a, pair.b) for pair in same_pictures(pictures)}

    whole = alike()
    assert len(whole) >= 57 and all(b == a + 300 for a, b in whole)
    monkeypatch.setattr(candidates, "_ONE_CELL", 100)
    monkeypatch.setattr(candidates, "_PER_CELL", 20)
    assert len(alike() & whole) >= 0.95 * len(whole)


@pytest.mark.parametrize("num", [1, 2, 5, pytest.param(20, marks=pytest.mark.slow)])
def test_copies_among_hardly_any_pictures(num: int, sixty: list[Image.Image]) -> None:
    """One to twenty photographs, and a copy of each in one of the ways: so few teach the search nothing, and each is
    looked at with each."""
    found = total = 0
    for at, kind in enumerate(ALTERATIONS):
        originals = sixty[at : at + num]
        pairs = searched([*originals, *copies(originals, kind)])
        assert all(pair.b == pair.a + num for pair in pairs), (kind, pairs)
        found, total = found + len(pairs), total + num
    assert found >= 0.98 * total


def few(num: int) -> Iterator[np.ndarray]:
    return (np.asarray(scene(number)) for number in range(num))


@pytest.mark.parametrize("num", [0, 1, 2, 3])
def test_few_pictures(num: int) -> None:
    """Hardly any pictures, which teach no weighting: no pair, and no error; two equal ones are a pair."""
    assert same_pictures(Compared.of(few(num), np.ones(num))) == []
    if num == 2:
        twice = [np.asarray(scene(1))] * 2
        assert [(pair.a, pair.b) for pair in same_pictures(Compared.of(iter(twice), [1, 1]))] == [(0, 1)]


def test_names_of_copies() -> None:
    """The names that tools and people give to altered copies, and names that only look like them."""
    names = ["p3.png", "p3_rot6.png", "aug_p3_1.png", "p4.png", "p4 (1).png", "p4-flip.png", "p5.png", "p5_1.png"]
    names += ["IMG_7_jpg.rf.0123456789abcdef0123456789abcdef.jpg", "IMG_7_jpg.rf.fedcba9876543210fedcba9876543210.jpg"]
    names += ["dark_chocolate.png", "copyright.png", "rotor.png", "p9_rot6.png"]
    pairs = named_copies(names, ["a"] * len(names))
    assert pairs == [(0, 1), (0, 2), (3, 4), (3, 5), (8, 9)]
    assert named_copies(["a/p3.png", "a/p3_rot6.png"], ["a", "b"]) == []  # of another class
    # Numbers that start anew in each split: the one beside it is meant; of two elsewhere, none.
    assert named_copies(["train/1.png", "test/1.png", "test/1_rot.png"], ["a"] * 3) == [(1, 2)]
    assert named_copies(["train/1.png", "test/1.png", "val/1_rot.png"], ["a"] * 3) == []


def test_names_are_believed_where_pixels_bear_them_out(tmp_path: Path) -> None:
    """A copy that is altered beyond recognition counts as one where others named like it are seen to be copies; where
    none is, that is a warning."""
    for believed in (True, False):
        root = tmp_path / str(believed)
        for number in range(24):
            folder = root / "train" / ("ant", "bee")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            scene(number).save(folder / f"p{number}.png")
        for number in range(8):
            folder = root / "test" / ("ant", "bee")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            image = scene(number).rotate(8) if believed and number < 6 else scene(1000 + number)
            image.save(folder / f"p{number}_rot8.png")
        findings = convlens.check(root)
        found = {finding.kind: finding for finding in findings.findings}
        assert findings.falsifies == believed
        if believed:  # across test and train, and across test and the val that train would make
            details = [one for finding in findings.findings if finding.kind == "near-across" for one in finding.details]
            assert len(details) == 8 and sum("as it is named" in detail for detail in details) == 2
            assert len(findings.clusters) == 8
        else:
            assert "8 files named like" in found["named"].title and findings.clusters == ()


def test_plain_pictures_are_said(tmp_path: Path) -> None:
    """Pictures without anything on them are compared with none, and that is said."""
    for number in range(12):
        folder = tmp_path / "data" / ("ant", "bee")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image = scene(number) if number >= 4 else Image.new("RGB", (64, 64), (100 + 10 * number, 90, 80))
        image.save(folder / f"{number}.png")
    found = {finding.kind: finding for finding in convlens.check(tmp_path / "data").findings}
    assert "4 pictures so plain" in found["plain"].title


def test_the_search_does_not_depend_on_the_order() -> None:
    """The same pairs, however the pictures are ordered."""
    images = [scene(number, 48) for number in range(80)]
    images += [image.rotate(10) for image in images[:20]]
    pixels = [np.asarray(image) for image in images]
    found = []
    for order in (np.arange(100), np.random.default_rng(1).permutation(100)):
        pictures = Compared.of((pixels[at] for at in order), np.ones(100))
        found.append({tuple(sorted((int(order[pair.a]), int(order[pair.b])))) for pair in same_pictures(pictures)})
    assert len(found[0] & found[1]) >= 0.95 * len(found[0] | found[1]) and len(found[0]) >= 19


def test_descriptors_of_turned_and_mirrored_pictures() -> None:
    """A quarter turn and mirroring leave a spectrum's invariants as they are."""
    small = Compared.of(few(20), np.ones(20), 32).small
    square = np.ones((20, 2), np.float32)
    raw = [
        descriptors.invariants(descriptors.spectra(descriptors.windows(laid, square, descriptors.WHOLE)))
        for laid in (small, small.transpose(0, 2, 1), small[:, ::-1], small[:, :, ::-1])
    ]
    for other in raw[1:]:
        assert (raw[0] * other).sum(axis=1).min() > 0.999
    assert (raw[0] @ raw[0].T - 2 * np.eye(20)).max() < 0.999
