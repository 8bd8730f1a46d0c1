"""The doctor finds what was planted, and nothing else."""

from __future__ import annotations

import io
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convlens
from convlens.data.image.decode import decode
from convlens.doctor.findings import FALSIFIES
from convlens.doctor.near_duplicates import Compared, same_pictures
from convlens.errors import DataError, UsageError
from tests.conftest import Command, shared
from tests.helpers import scene


def moved(image: Image.Image, down: float, right: float) -> Image.Image:
    """Shifted by shares of its sides, edges repeated."""
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    rows = np.clip(np.arange(height) - round(down * height), 0, height - 1)
    columns = np.clip(np.arange(width) - round(right * width), 0, width - 1)
    return Image.fromarray(pixels[rows][:, columns])


def pictures(root: Path, *, splits: tuple[str, ...] = ("train", "test"), num: int = 8) -> Path:
    """Different scenes in class folders under splits."""
    for number, (split, label, i) in enumerate((s, c, i) for s in splits for c in ("ant", "bee") for i in range(num)):
        folder = root / split / label
        folder.mkdir(parents=True, exist_ok=True)
        scene(number).save(folder / f"{i}.png")
    return root


def kinds(findings: convlens.Findings) -> dict[str, Any]:
    return {finding.kind: finding for finding in findings.findings}


def test_a_sound_set_is_sound(tmp_path: Path) -> None:
    """Different pictures, all readable, in both splits: nothing falsifies, and no pair is made up; a rare one may be
    named."""
    findings = convlens.check(pictures(tmp_path / "data", num=25))
    assert not findings.falsifies
    assert kinds(findings).keys() <= {"few", "outliers"}
    assert findings.clusters == () and findings.exclusions == ()


def test_twins_across_splits_are_found_however_they_differ(tmp_path: Path) -> None:
    """Copies, compressed anew, shifted, cropped, mirrored and darkened ones: each is found, with how it differs."""
    data = pictures(tmp_path / "data")
    image = {
        name: Image.open(data / "train" / name)
        for name in ("ant/0.png", "ant/1.png", "ant/2.png", "bee/0.png", "bee/1.png", "bee/2.png")
    }
    test = data / "test"
    shutil.copy(data / "train/ant/0.png", test / "ant/copy.png")
    image["ant/1.png"].convert("RGB").save(test / "ant/again.jpg", quality=60)
    moved(image["ant/2.png"], 0.08, -0.06).save(test / "ant/moved.png")
    image["bee/0.png"].crop((5, 0, 64, 64)).save(test / "bee/cropped.png")
    image["bee/1.png"].transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(test / "bee/mirrored.png")
    image["bee/2.png"].point(lambda v: 0.7 * v + 10).save(test / "bee/darker.png")
    findings = convlens.check(data)
    assert findings.falsifies
    pairs = {
        frozenset(s.name for s in one): detail
        for f in findings.findings
        if f.kind.endswith("-across")
        for one, detail in zip(f.sets, f.details, strict=True)
    }
    expected = {
        ("train/ant/0.png", "test/ant/copy.png"): "every pixel",
        ("train/ant/1.png", "test/ant/again.jpg"): "nearly",
        ("train/ant/2.png", "test/ant/moved.png"): "shifted",
        ("train/bee/0.png", "test/bee/cropped.png"): "",
        ("train/bee/1.png", "test/bee/mirrored.png"): "mirrored",
        ("train/bee/2.png", "test/bee/darker.png"): "nearly",
    }
    assert pairs.keys() == set(map(frozenset, expected))
    for names, words in expected.items():
        assert words in pairs[frozenset(names)]
    assert [name for name, _ in findings.exclusions] == sorted(names[0] for names in expected)


@pytest.mark.slow
@pytest.mark.training
def test_the_exclusions_make_it_sound(tmp_path: Path, command: Command) -> None:
    """check --write-exclusions, then --exclude: check is content, and train and evaluate leave those samples out."""
    data = pictures(tmp_path / "data", num=12)
    shutil.copy(data / "train/ant/0.png", data / "test/ant/copy.png")
    run = command("check", data, "--write-exclusions", "out.jsonl", "--json")
    assert run.returncode == 1
    document = json.loads(run.stdout)
    assert document["falsifies"] and document["exclusions"][0]["path"] == "train/ant/0.png"
    again = command("check", data, "--exclude", "out.jsonl")
    assert again.returncode == 0, again.stdout
    trained = command("train", data, "--exclude", "out.jsonl", "--preset", "natural", "--epochs", 1, "--json")
    assert trained.returncode == 0, trained.stderr
    record = json.loads(trained.stdout)
    assert sum(record["dataset"]["num_samples"].values()) == 48
    report = command("evaluate", "last", data, "--exclude", "out.jsonl", "--json")
    assert report.returncode == 0, report.stderr
    assert json.loads(report.stdout)["n"] == 25


def test_without_a_split_of_its_own_the_one_that_train_would_make_is_judged(tmp_path: Path) -> None:
    """The doctor's splits are those of train, and near duplicates that train would part are found across them."""
    data = tmp_path / "data"
    for i in range(60):
        for label in ("ant", "bee"):
            (data / label).mkdir(parents=True, exist_ok=True)
            image = scene(i + (1000 if label == "bee" else 0))
            image.save(data / label / f"{i}.png")
            image.convert("RGB").save(data / label / f"{i}-again.jpg", quality=70)
    findings = convlens.check(data)
    assert findings.falsifies and len(findings.clusters) == 120
    dataset = convlens.pack(data)
    names = dataset.sample_names()
    split = {names[row]: s for s in ("train", "val", "test") for row in dataset.rows(s).tolist()}
    assert {s.name: s.split for s in findings.samples} == split
    findings.write_groups(tmp_path / "groups.csv")
    grouped = convlens.check(tmp_path / "groups.csv")
    assert not grouped.falsifies, "in the table of groups twins go together"


def test_equal_pixels_under_two_labels_falsify(tmp_path: Path) -> None:
    """The same picture called two things: both are named, and both are to be left out."""
    data = pictures(tmp_path / "data")
    Image.open(data / "train/ant/0.png").save(data / "train/bee/other.bmp")
    found = kinds(findings := convlens.check(data))
    assert found["exact-conflict"].severity == FALSIFIES
    assert {name for name, _ in findings.exclusions} == {"train/ant/0.png", "train/bee/other.bmp"}


def test_every_other_fault_has_a_finding(tmp_path: Path) -> None:
    """Broken files, classes that differ between splits, empty and tiny ones, imbalance, hidden folders, animations."""
    data = pictures(tmp_path / "data")
    (data / "train/ant/broken.png").write_bytes((data / "train/ant/1.png").read_bytes()[:60])
    (data / "train/ant/photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    (data / "train/wasp").mkdir()
    scene(500).save(data / "train/wasp/0.png")
    (data / "test/nothing").mkdir()
    (data / "train/.cache/x").mkdir(parents=True)
    scene(501).save(data / "train/.cache/x/0.png")
    frames = [scene(502), scene(503)]
    frames[0].save(data / "train/ant/film.gif", save_all=True, append_images=frames[1:])
    (data / "train/ant/notes.txt").write_text("x")
    findings = convlens.check(data)
    found = kinds(findings)
    assert {"unreadable", "classes", "untested", "tiny", "imbalance", "hidden", "frames", "note", "few"} <= found.keys()
    assert findings.falsifies
    reasons = dict(zip((s[0].name for s in found["unreadable"].sets), found["unreadable"].details, strict=True))
    assert reasons.keys() == {"train/ant/broken.png", "train/ant/photo.heic"}
    assert "heif-convert" in reasons["train/ant/photo.heic"]
    titles = " ".join(f.title for f in findings.findings)
    assert "'wasp'" in titles and "'nothing'" in titles and ".cache" in titles


def test_arrays_are_checked_too(tmp_path: Path) -> None:
    """Arrays have names split/number: a test image that is in train is found and can be excluded by its name."""
    images = np.stack([np.asarray(scene(i, 32)) for i in range(80)])
    x, x_test = images[:60], images[60:].copy()
    y, y_test = np.arange(60) % 2, np.arange(20) % 2
    x_test[7] = x[31]
    findings = convlens.check((x, y, x_test, y_test))
    assert [name for name, _ in findings.exclusions] == ["train/31"]
    dataset = convlens.pack((x, y, x_test, y_test), tmp_path / "packed", exclude=["train/31"])
    assert dataset.num_listed == 79 and "train/31" not in dataset.sample_names()
    with pytest.raises(DataError, match="train/60"):
        convlens.pack((x, y, x_test, y_test), tmp_path / "other", exclude=["train/60"])
    with pytest.raises(UsageError, match="arrays have no paths"):
        findings.write_groups(tmp_path / "groups.csv")
    np.savez(tmp_path / "data.npz", x=images, y=np.arange(80) % 2)
    with pytest.raises(UsageError, match="arrays have no paths"):
        convlens.check(tmp_path / "data.npz").write_groups(tmp_path / "groups.csv")


def test_the_page_shows_names_and_no_markup(tmp_path: Path) -> None:
    """The page holds the pictures themselves, needs nothing from elsewhere, and escapes the names of files."""
    data = pictures(tmp_path / "<b>data")
    shutil.copy(data / "train/ant/0.png", data / "test/ant/<script>alert(1)<b>.png")
    findings = convlens.check(data)
    findings.save(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page
    assert page.count("data:image/jpeg;base64,") >= 2
    assert "http" not in page.replace("http-equiv", "")
    with pytest.raises(UsageError, match="exists already"):
        findings.save(tmp_path / "page.html")


@pytest.mark.parametrize("name", [pytest.param("natural8_30px", marks=pytest.mark.slow), "ants_bees"])
def test_planted_twins_on_real_photographs(name: str, tmp_path: Path) -> None:
    """Twenty exact and twenty altered duplicates are all found, and nearly all other pairs are the same picture too.

    natural8 has turntable pictures of fruit, a frame or two apart: such pairs are right. What is counted as wrong here
    are pairs of different classes.
    """
    source = shared(name, tmp_path)
    files = sorted(path for path in source.rglob("*.*") if path.is_file())
    rng = random.Random(3)
    if len(files) > 1500:
        files = sorted(rng.sample(files, 1500))
    planted: set[tuple[int, int]] = set()
    images = [decode(path.read_bytes()) for path in files]
    labels = [path.parent.name for path in files]
    for number, at in enumerate(rng.sample(range(len(files)), 40)):
        image = Image.fromarray(images[at][:, :, 0] if images[at].shape[2] == 1 else images[at])
        if number >= 20:
            image = altered(image, number, rng)
        planted.add((at, len(images)))
        pixels = np.asarray(image)
        images.append(pixels[:, :, None] if pixels.ndim == 2 else pixels)
        labels.append(labels[at])
    pairs = same_pictures(Compared.of(iter(images), [image.shape[1] / image.shape[0] for image in images]))
    found = {(pair.a, pair.b) for pair in pairs}
    assert planted <= found, [(files[a].name, b - len(files)) for a, b in planted - found]
    wrong = [pair for pair in pairs if labels[pair.a] != labels[pair.b]]
    assert len(wrong) <= 0.05 * len(pairs)


def altered(image: Image.Image, number: int, rng: random.Random) -> Image.Image:
    """Compressed anew, shifted, mirrored or cropped, in turn."""
    if number % 4 == 0:
        page = io.BytesIO()
        image.save(page, "JPEG", quality=60)
        return Image.open(page)
    if number % 4 == 1:
        return moved(image, rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1))
    if number % 4 == 2:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    width, height = image.size
    return image.crop((round(0.07 * width), 0, width, height))


def test_validation_that_stands_in_train_is_named(tmp_path: Path) -> None:
    """Own val/ with pictures of train: the pairs are found, though training holds those pictures back."""
    root = pictures(tmp_path / "data", num=12)
    shutil.copytree(root / "train", root / "val")
    found = kinds(convlens.check(root))
    assert "exact-across" in found and "across train and val" in found["exact-across"].title


def test_groups_on_both_sides_of_the_datas_own_split_falsify(tmp_path: Path) -> None:
    """Patients of whom some pictures are train and others test: a finding, the exclusions of which make it sound."""
    root = tmp_path / "data"
    for number, (split, label, patient, i) in enumerate(
        (s, c, p, i) for s in ("train", "test") for c in ("ant", "bee") for p in range(6) for i in range(2)
    ):
        own = patient if patient < 2 or split == "train" else patient + 10  # two patients of each class are in both
        folder = root / split / label / f"{label}-{own}"
        folder.mkdir(parents=True, exist_ok=True)
        scene(number).save(folder / f"{split}{i}.png")
    findings = convlens.check(root, group="parent")
    found = [finding for finding in findings.findings if finding.kind == "groups-across"]  # val is drawn from train
    assert sum(len(finding.sets) for finding in found) == 4 and {one.severity for one in found} == {FALSIFIES}
    assert all("on both sides of" in one.title and "and test" in one.title for one in found)
    assert {Path(name).parent.name for name, _ in findings.exclusions} == {"ant-0", "ant-1", "bee-0", "bee-1"}
    findings.write_exclusions(tmp_path / "out.jsonl")
    assert not convlens.check(root, group="parent", exclude=tmp_path / "out.jsonl").falsifies
    assert not convlens.check(root).falsifies


def test_a_class_that_has_lost_its_training_images_falsifies(tmp_path: Path) -> None:
    """With the data's own split too: what train refuses, check does not call sound."""
    root = pictures(tmp_path / "data")
    for path in (root / "train" / "ant").iterdir():
        path.write_bytes(b"broken")
    findings = convlens.check(root)
    assert findings.falsifies and kinds(findings)["classes"].title == "no training image of class 'ant' is left"
    assert "imbalance" not in kinds(findings)
    x = np.stack([np.asarray(scene(k, 32)) for k in range(60)])
    y = np.arange(60) % 2
    np.savez(tmp_path / "d.npz", x_train=x[:40], y_train=y[:40] + 1, x_test=x[40:], y_test=y[40:])
    assert kinds(convlens.check(tmp_path / "d.npz"))["classes"].severity == FALSIFIES


def test_what_cannot_be_seen_is_said_where_something_was_found_too(tmp_path: Path) -> None:
    """The sentence names it with findings and without, and for small pictures that more are missed."""
    root = pictures(tmp_path / "data", num=25)
    sound = convlens.check(root).verdict
    shutil.copy(root / "train" / "ant" / "0.png", root / "test" / "ant" / "copy.png")
    wrong = convlens.check(root).verdict
    for verdict in (sound, wrong):
        assert "not seen are copies altered more" in verdict and "inverted or exchanged colours" in verdict
        assert "one in ten" not in verdict
    assert wrong.startswith("a score on this data would be wrong; check it again when that is mended")
    np.savez(tmp_path / "d.npz", x=np.stack([np.asarray(scene(k, 32)) for k in range(60)]), y=np.arange(60) % 2)
    assert "of copies as small as these about one in ten is missed" in convlens.check(tmp_path / "d.npz").verdict


def test_names_that_no_table_can_hold_are_refused_and_the_rest_is_written(tmp_path: Path, command: Command) -> None:
    """A name with a backslash or a byte that is no text: the table of groups is refused in one line, after exclusions
    and page."""
    root = pictures(tmp_path / "data")
    shutil.copy(root / "train" / "ant" / "0.png", root / "test" / "ant" / "back\\slash.png")
    done = command(
        "check",
        root,
        "--out",
        tmp_path / "a.html",
        "--write-groups",
        tmp_path / "g.csv",
        "--write-exclusions",
        "e.jsonl",
    )
    assert done.returncode == 2 and "cannot stand in a table" in done.stderr
    assert (tmp_path / "a.html").is_file() and not (tmp_path / "g.csv").exists()
    same = command("check", root, "--out", "y.html", "--write-exclusions", "./y.html")
    assert same.returncode == 2 and "different files" in same.stderr


def test_mixed_depths_are_said(tmp_path: Path) -> None:
    """16-bit pictures beside those of 8 bits: how they are read stands in a note."""
    root = pictures(tmp_path / "data")
    for path in (root / "test").rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16).save(path)
    notes = convlens.pack(root).notes
    assert any("16 of the 32 pictures have more than 8 bits, with 65,535 for white" in note for note in notes)
