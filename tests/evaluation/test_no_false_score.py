"""Scores that would count what a model has learned from: the ways that were found by an attack."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convlens
from convlens.data.packed.pack import pack
from convlens.data.sources.named import mnist_arrays
from convlens.errors import UsageError
from convlens.evaluation.calibration import calibrate
from convlens.evaluation.test_ledger import Tried, open_test
from convlens.recipe import Recipe
from convlens.run import Run
from tests.conftest import QUICK, TINY, shapes
from tests.helpers import folder, trained, trained_on

_QUICK = Recipe(lr=0.02, epochs=3, batch_size=16, precision="float32")


def noise(root: Path, num: int = 12, side: int = 24, seed: int = 0, suffix: str = ".png") -> Path:
    """Three class folders of noise: whoever is better than chance on it has learned it by heart."""
    rng = np.random.default_rng(seed)
    for label in "abc":
        (root / label).mkdir(parents=True)
        for number in range(num):
            pixels = rng.integers(0, 255, (side // 4, side // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
            Image.fromarray(pixels).save(root / label / f"{number}{suffix}")
    return root


def train(data: Path, **options: object) -> convlens.Run:
    return convlens.train(data, architecture=TINY, recipe=_QUICK, progress="none", **options)  # type: ignore[arg-type]


def as_png(folder: Path, into: Path) -> Path:
    """The same pictures, every pixel, as PNG."""
    for path in folder.rglob("*.jpg"):
        place = into / path.relative_to(folder).with_suffix(".png")
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.save(place)
    return into


def test_one_picture_as_jpeg_and_as_png_never_straddles_a_split(tmp_path: Path) -> None:
    """A JPEG that is decoded at a fraction and the same picture as PNG, which is not, go to one split."""
    root = noise(tmp_path / "one", 20, side=96, suffix=".jpg")
    as_png(root, root)
    dataset = pack(root, size=24)
    split_of = {line.path: line.split for line in dataset.samples()}
    assert len(split_of) == 120 and {"train", "test"} <= set(split_of.values())
    assert all(split_of[path] == split_of[path.replace(".jpg", ".png")] for path in split_of if path.endswith("jpg"))


def test_pictures_of_the_own_test_that_are_learned_from_are_left_out_whatever_their_format(workplace: Path) -> None:
    """JPEGs in train, the same pictures as PNG in test: nothing is left to measure. In val: none of it is."""
    root = noise(workplace / "mix" / "train", 10, side=96, suffix=".jpg").parent
    as_png(root / "train", root / "test")
    run = train(root, size=24)
    with pytest.raises(convlens.ConvlensError, match=r"no test images but \d+ that the model was made with"):
        convlens.evaluate(run, progress="none")
    (root / "test").rename(root / "val")
    noise(root / "test", 3, seed=4)
    assert train(root, size=24).val is None


def test_other_formats_of_large_pictures_get_no_plain_score(workplace: Path) -> None:
    """Whether PNGs are those that a model learned from as JPEGs decoded at a fraction cannot be known: it is said."""
    jpegs = noise(workplace / "jpegs", 12, side=96, suffix=".jpg")
    pngs = as_png(jpegs, workplace / "pngs")
    run = train(jpegs, size=24)
    assert convlens.evaluate(run, pngs, progress="none").lines()[0].startswith("may count pictures it was made with")
    grown = convlens.train(pngs, parent=run, test=True, progress="none", recipe={"epochs": 1})
    assert grown.test is not None and str(grown.test).startswith("may count")
    with pytest.raises(convlens.ConvlensError, match="could be held out"):
        convlens.train(pngs, parent=run, folds=2, progress="none", recipe={"epochs": 1})


def test_the_labels_of_a_copy_count(workplace: Path) -> None:
    """A copy with two classes exchanged is other data: measured are its own labels, without what was learned from."""
    root = noise(workplace / "noise")
    run = train(root)
    own = convlens.evaluate(run, progress="none")
    swapped = workplace / "swapped"
    shutil.copytree(root / "a", swapped / "b")
    shutil.copytree(root / "b", swapped / "a")
    shutil.copytree(root / "c", swapped / "c")
    report = convlens.evaluate(run, swapped, progress="none")
    assert report.dataset.name == "swapped" and report.n == own.n
    columns = own.confusion_KK.sum(axis=0)
    assert (report.confusion_KK.sum(axis=0) == columns).all(), "the same answers"
    assert (report.confusion_KK[[1, 0, 2]] == own.confusion_KK).all(), "under the labels that the copy has"
    same = convlens.evaluate(run, shutil.copytree(root, workplace / "copy"), progress="none")
    assert same.dataset.name == "noise" and same.score == own.score


def test_validation_of_a_grown_model_is_marked_where_the_parent_saw_it(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Own val/ with pictures that the parent learned from: marked in the run, in its text and on evaluation; and where
    the parent has no record of what it saw."""
    first = noise(workplace / "first")
    grown_on = noise(workplace / "more" / "train", seed=1).parent
    noise(grown_on / "test", 4, seed=2)
    shutil.copytree(first, grown_on / "val")
    for omit in (False, True):
        parent = train(first, omit_record=omit, out=workplace / f"parent-{omit}")
        if omit:
            shutil.move(first, workplace / "gone")
            monkeypatch.setenv("CONVLENS_CACHE", str(workplace / "another-cache"))
        run = convlens.train(
            grown_on, parent=parent, progress="none", recipe={"epochs": 1}, out=workplace / f"grown-{omit}"
        )
        assert run.val is not None and run.val.may_count_seen and "may count" in str(run.val)
        if omit:
            assert convlens.evaluate(run, split="val", progress="none").may_count_seen
        else:
            report = convlens.evaluate(run, split="val", progress="none")
            assert report.n == Run(parent.path).record.dataset.num_samples.test and not report.may_count_seen


def test_own_validation_that_is_learned_from_is_left_out(workplace: Path) -> None:
    """Of val/ only what is not in train is measured, by training and evaluation alike."""
    root = noise(workplace / "own" / "train").parent
    noise(root / "val", 4, seed=3)
    for label in "abc":
        shutil.copy(root / "train" / label / "0.png", root / "val" / label / "again.png")
    run = train(root)
    assert run.val is not None and run.val.n == 12
    assert convlens.evaluate(run, split="val", progress="none").n == 12


def test_another_runs_model_leaves_the_record_alone(workplace: Path) -> None:
    """A model file put into the place of a run's own is measured, and the run's record keeps its own numbers."""
    root = noise(workplace / "noise")
    one, other = train(root, out="one"), train(root, seed=5, out="other")
    shutil.copy(one.model, other.model)
    report = convlens.evaluate(other, progress="none")
    assert "tells of another model" in report.asides[-1]
    assert convlens.runs(workplace)[-1].test is None


def test_a_test_score_ends_with_the_weights_that_it_was_measured_with(workplace: Path) -> None:
    """Interrupted, evaluated, resumed: the score of the unfinished weights is gone, and the one asked for is made."""
    root, asked = noise(workplace / "noise"), iter([False] * 3 + [True] * 1000)
    run = train(root, test=True, stop=lambda: next(asked))
    assert run.status == "interrupted"
    early = convlens.evaluate(run, progress="none")
    assert any("unfinished" in note for note in early.asides) and convlens.runs()[0].test == early.score
    finished = convlens.train(resume=run, progress="none")
    dataset, _ = open_test(pack(root), Tried(TINY, _QUICK, 0))
    logits = convlens.load(finished).logits(dataset.images("test"))
    right = (logits.argmax(axis=1) == dataset.labels("test")).mean()
    assert finished.test is not None and finished.test.accuracy == pytest.approx(right)
    assert convlens.evaluate(finished, progress="none").score == finished.test


def test_files_that_change_places_are_packed_anew(tmp_path: Path) -> None:
    """Two files of equal size and time exchanged, as a person mends a label: the cache notices."""
    root = noise(tmp_path / "noise", suffix=".bmp")
    for path in root.rglob("*.bmp"):
        os.utime(path, ns=(10**18, 10**18))
    before = pack(root).fingerprint
    one, two = root / "a" / "0.bmp", root / "b" / "0.bmp"
    one.rename(root / "x")
    two.rename(one)
    (root / "x").rename(two)
    assert pack(root).fingerprint != before


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=["INT", "TERM", "HUP"])
def test_a_signal_while_a_class_is_being_made_is_the_end(number: signal.Signals, workplace: Path) -> None:
    """A signal in the middle of an import ends the process at once with its code, and no traceback."""
    program = (
        "import dataclasses, runpy, signal, sys\n"
        "number = int(sys.argv.pop())\n"
        "old = dataclasses.Field.__set_name__\n"
        "def new(self, owner, name):\n"
        "    if owner.__name__ == 'Batches': signal.raise_signal(number)\n"
        "    return old(self, owner, name)\n"
        "dataclasses.Field.__set_name__ = new\n"
        "runpy.run_module('convlens', run_name='__main__', alter_sys=False)\n"
    )
    arguments = [sys.executable, "-c", program, "train", "mnist", str(int(number))]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=workplace, timeout=120, check=False)
    assert done.returncode == 128 + number and "Traceback" not in done.stderr, done.stderr


def _in_groups(root: Path, seeds: dict[str, int], num: int = 12) -> Path:
    """train/ and test/ of noise, whose parent folders are groups."""
    for split, seed in seeds.items():
        noise(root / split, num, seed=seed)
        for label in "abc":
            for path in sorted((root / split / label).glob("*.png")):
                place = root / split / label / f"{split}-{label}{int(path.stem) % 4}"
                place.mkdir(exist_ok=True)
                path.rename(place / path.name)
    return root


def test_validation_is_that_of_the_groups_whatever_else_was_packed(workplace: Path) -> None:
    """The same folder packed without its groups has another validation: a grouped run is measured, resumed and shown on
    its own, and data that is named without the groups is told to be the model's by its labels."""
    root = _in_groups(workplace / "data", {"train": 1, "test": 2})
    asked = iter([False] * 2 + [True] * 1000)
    stopped = train(root, group="parent", stop=lambda: next(asked))
    for size in (None, 24, 12):
        pack(root, size=size)
    own = convlens.train(resume=stopped, progress="none")
    whole = train(root, group="parent")
    assert own.val == whole.val and own.val is not None
    assert convlens.evaluate(own, split="val", progress="none").score == own.val
    with pytest.raises(convlens.ConvlensError, match="val images"):
        convlens.evaluate(own, root, split="val", progress="none")
    assert convlens.evaluate(own, root, progress="none").n == convlens.evaluate(own, progress="none").n
    with pytest.raises(convlens.ConvlensError, match="was begun with group parent"):
        convlens.train(root, resume=stopped, group="parent/..", progress="none")


def test_groups_do_not_hide_one_picture_in_two_formats(workplace: Path) -> None:
    """JPEGs in one group, the same pictures as PNG in another: with the data's own split none is measured, and where
    splits are drawn the two groups go together."""
    root, pictures = workplace / "own", noise(workplace / "pictures", 8, side=96, suffix=".jpg")
    for path in sorted(pictures.rglob("*.jpg")):
        group = f"{path.parent.name}{int(path.stem) % 4}"
        place = root / "train" / path.parent.name / f"jpg-{group}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
        as_png(place, root / "test" / path.parent.name / f"png-{group}")
    run = train(root, size=24, group="parent", val_frac=0)
    with pytest.raises(convlens.ConvlensError, match="no test images but 24 that the model was made with"):
        convlens.evaluate(run, progress="none")
    drawn = workplace / "drawn"
    for split in ("train", "test"):
        shutil.copytree(root / split, drawn, dirs_exist_ok=True)
    lines = pack(drawn, size=24, group="parent", layout="class/group").samples()
    splits = {line.path: line.split for line in lines}
    pairs = [(path, path.replace("jpg-", "png-").replace(".jpg", ".png")) for path in splits if path.endswith(".jpg")]
    assert len(pairs) == 24 and all(splits[a] == splits[b] for a, b in pairs)


def test_another_depth_of_the_same_pictures_gets_no_plain_score(workplace: Path) -> None:
    """12 bits in 16, and their exports as bytes, differ by a level: whether they are the same cannot be known."""
    rng = np.random.default_rng(0)
    deep = [rng.integers(0, 4096, (24, 24)).astype(np.uint16) for _ in range(45)]
    for number, values in enumerate(deep):
        for kind, pixels in (("deep", values), ("bytes", (values >> 4).astype(np.uint8))):
            place = workplace / kind / "abc"[number % 3]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{number}.png")
    run = train(workplace / "deep")
    report = convlens.evaluate(run, workplace / "bytes", progress="none")
    assert report.may_count_seen and report.lines()[0].startswith("may count")


def test_bytes_and_the_same_as_floats_are_one_data_set(workplace: Path) -> None:
    """A model of bytes is not scored on its own training pictures as floats, nor the other way round, and two such
    models are compared on what neither learned from."""
    x, y = shapes(400)
    as_bytes, as_floats = (
        trained_on((x, y), out="bytes"),
        trained_on((x / 255.0, y), out="floats", recipe=QUICK.replace(lr=0.004)),
    )
    new_x, new_y = shapes(200, 9)
    all_x, all_y = np.concatenate([x, new_x]), np.concatenate([y, new_y])
    for run, factor in ((as_bytes, 255.0), (as_floats, 1)):
        num_seen = sum(bool(one.seen) for one in convlens.predict(run, x, progress="none"))
        own = convlens.evaluate(run, (x / factor, y), progress="none")
        assert num_seen > 300 and own.n <= 400 - num_seen and not own.may_count_seen
        report = convlens.evaluate(run, (all_x / factor, all_y), progress="none")
        assert report.num_left_out >= num_seen and report.n <= 600 - num_seen and not report.may_count_seen
    found = convlens.compare([as_bytes, as_floats], data=(all_x, all_y), progress="none")
    assert found.n <= 600 - 300 and found.pairs[0].doubtful == ()


def test_no_winner_where_one_may_have_learned_from_the_pictures(workplace: Path) -> None:
    """Of finer pictures a model of bytes may have learned: the difference is told, and nobody is better for it."""
    x, y = shapes(400)
    runs = [trained_on((x, y), out="one"), trained_on(((x + 0.37) / 256, y), out="other", recipe=Recipe(epochs=0.01))]
    found = convlens.compare(runs, data=((shapes(300, 4)[0] + 0.2) / 256, shapes(300, 4)[1]), progress="none")
    assert (
        found.pairs[0].winner is None and "no winner is named" in str(found) and "may have been made with" in str(found)
    )


def test_the_few_that_a_parent_saw_are_left_out_of_validation(workplace: Path) -> None:
    """As many as chance may take for seen: training and evaluation leave out the same ones."""
    first = noise(workplace / "first")
    parent = train(first, val_frac=0, out=workplace / "parent")
    seen = [line.path for line in pack(first).samples() if line.split == "train"]
    root = noise(workplace / "more" / "train", seed=1).parent
    noise(root / "val", 6, seed=3)
    for label in "abc":
        name = next(path for path in seen if path.startswith(f"{label}/"))
        shutil.copy(first / name, root / "val" / label / "seen.png")
    run = convlens.train(root, parent=parent, progress="none", recipe={"epochs": 1})
    report = convlens.evaluate(run, split="val", progress="none")
    assert run.val is not None and run.val.n == report.n == 18 and not run.val.may_count_seen


def test_ink_that_was_taken_as_it_is_and_framed_is_doubted_where_it_overlaps(workplace: Path) -> None:
    """MNIST's digits as arrays, some of them not quite as the convention has it, and as PNG, framed anew: most are left
    out, and the rest may be among those that were learned from."""
    x, y = (a[:300] for a in mnist_arrays("train"))
    moved = np.roll(x, 3, axis=1)  # off their centre
    x = np.where(np.arange(300)[:, None, None, None] % 30 == 0, moved, x)
    for number, (image, label) in enumerate(zip(x, y.tolist(), strict=True)):
        place = workplace / "png" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[:, :, 0]).save(place / f"{number}.png")
    run = train((x, y))  # type: ignore[arg-type]
    assert convlens.load(run).card.input_spec.framing == "ink"
    report = convlens.evaluate(run, workplace / "png", progress="none")
    assert report.num_left_out > 200 and report.may_count_seen


def test_no_model_is_measured_before_it_is_whole(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its last step and its calibration a run is running, and nobody else measures it: its probabilities, and
    what it calls unfamiliar, would be others a moment later."""
    statuses = []

    def looked_at(path: Path, *rest: Any) -> None:
        statuses.append(convlens.Run(path.parent).status)
        with pytest.raises(UsageError, match="is being trained: wait for its end"):
            convlens.evaluate(path.parent, split="val", progress="none")
        with pytest.raises(UsageError, match="is being trained: wait for its end"):
            convlens.compare([done, path.parent], split="val", progress="none")
        calibrate(path, *rest)

    done = trained_on(shapes(200, 3))
    monkeypatch.setattr("convlens.experiment.calibrate", looked_at)
    run = trained_on(shapes(200, 3), seed=1)
    assert statuses == ["running"] and run.status == "complete"
    assert convlens.evaluate(run, split="val", progress="none").n


def test_unreadable_files_are_counted_whichever_copy_is_opened(workplace: Path) -> None:
    """The same pictures, packed once more without the file that cannot be read, are no stand-in: the score says how
    many files there were."""
    root = folder(workplace / "data", range(60))
    shutil.copytree(root, workplace / "other" / "data")
    (root / "ant" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    run = trained(root, size=16, channels=3)
    packed = pack(root, size=16, channels=3).folder
    assert pack(workplace / "other" / "data", size=16, channels=3).num_quarantined == 0
    shutil.rmtree(packed)
    assert convlens.evaluate(run, progress="none").num_quarantined == 1
