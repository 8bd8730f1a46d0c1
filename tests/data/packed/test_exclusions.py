"""Lists of samples to leave out: which samples they mean, in the data itself and in tables that stand for it."""

import json
import shutil
from pathlib import Path

import pytest

import convlens
from convlens.choosing.sizes import sample_of
from convlens.data.packed.corrections import Correction, Relabelled, write_corrections
from convlens.data.packed.exclusions import matched
from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import open_data, open_listed
from convlens.data.sources.recognise import open_source
from convlens.errors import DataError, RunError
from tests.helpers import folder, trained

NAMES = ("train/ant/0.png", "train/ant/1.png", "train/bee/0.png", "test/ant/0.png")


@pytest.mark.parametrize(
    ("asked", "names", "gone"),
    [
        (["train/ant/1.png"], ["train/ant/1.png"], []),
        (["train/ant/"], ["train/ant/0.png", "train/ant/1.png"], []),  # a folder
        (["test"], ["test/ant/0.png"], []),
        (["train/bee/0.png", "train/bee/9.png"], ["train/bee/0.png"], ["train/bee/9.png"]),  # gone since
        (["bee/0.png"], ["train/bee/0.png"], []),  # a list made further down
        (["data/train/ant/1.png", "data/test/ant/0.png"], ["test/ant/0.png", "train/ant/1.png"], []),  # further up
        (["data/train/ant/1.png", "data/train/ant/7.png"], ["train/ant/1.png"], ["train/ant/7.png"]),
    ],
)
def test_names_that_a_list_means(asked: list[str], names: list[str], gone: list[str]) -> None:
    """Samples, folders, and lists made from another root; what is gone is told."""
    assert matched(asked, NAMES, "data") == (tuple(names), tuple(gone))


def test_a_list_that_could_mean_two_things_or_none_is_refused() -> None:
    """Two beginnings fit, or nothing does: leaving out the wrong ones, or none, would be silent."""
    with pytest.raises(DataError, match=r"could mean 'train/ant/0.png' or 'test/ant/0.png'"):
        matched(["ant/0.png"], NAMES, "data")
    with pytest.raises(DataError, match=r"none of the samples to leave out is in data: 'ant/7.png'"):
        matched(["ant/7.png"], NAMES, "data")


def test_exclusions_and_groups_in_any_combination(workplace: Path) -> None:
    """A list made for a folder serves the table that stands for it and the other way round; pictures that are gone
    since are a note, from both; a list made while another was in force holds that one too."""
    root = folder(workplace / "data", range(60))
    shutil.copy(root / "ant" / "2.png", root / "ant" / "copy.png")
    (root / "bee" / "broken.png").write_bytes(b"broken")
    Path("mine.txt").write_text("bee/1.png\nant/0.png\n")
    found = convlens.check(root, exclude="mine.txt")
    found.write_exclusions("all.jsonl")
    found.write_groups("groups.csv")
    listed = {json.loads(line)["path"] for line in Path("all.jsonl").read_text().splitlines()}
    assert {"bee/1.png", "ant/0.png"} <= listed
    table = Path("groups.csv").read_text()
    assert "data/bee/broken.png,bee," in table and "data/ant/0.png" not in table
    Path("tables").mkdir()
    found.write_groups("tables/groups.csv")  # what such a table does not name is told, wherever it lies
    for where in ("groups.csv", "tables/groups.csv"):
        told = " ".join(convlens.pack(where).notes)
        assert "ant/0.png" in told and "bee/1.png" in told, told
    whole = convlens.check(root)
    whole.write_groups("whole.csv")
    packed = convlens.pack("whole.csv", exclude="mine.txt")
    assert packed.card.options.exclude == ("data/ant/0.png", "data/bee/1.png") and packed.num_quarantined == 1
    (root / "ant" / "0.png").unlink()
    again = convlens.pack("whole.csv", exclude="mine.txt")
    assert again.fingerprint == packed.fingerprint and again.num_quarantined == 1
    from_folder = convlens.pack(root, exclude="mine.txt")
    assert any("1 name to leave out, of which there is no sample: 'ant/0.png'" in note for note in from_folder.notes)
    run = trained(root, exclude="mine.txt")
    (root / "bee" / "1.png").unlink()  # all that was left out is gone: the model is measured as before
    assert convlens.evaluate(run, root, progress="none").n > 0


def test_a_folder_that_is_gone_is_missing_files_and_nothing_else(workplace: Path) -> None:
    """A table outside its pictures' folders, one of which is gone: its one file is counted as unreadable."""
    root = folder(workplace / "data", range(60))
    (root / "rare").mkdir()
    shutil.copy(root / "ant" / "2.png", root / "rare" / "only.png")
    Path("tables").mkdir()
    rows = [f"../data/{place.parent.name}/{place.name},{place.parent.name}" for place in sorted(root.rglob("*.png"))]
    Path("tables/t.csv").write_text("\n".join(["path,label", *rows]).replace("only.png,rare", "only.png,ant"))
    shutil.rmtree(root / "rare")
    assert convlens.pack("tables/t.csv").num_quarantined == 1


def test_groups_of_the_data_and_of_copies_are_joined(workplace: Path) -> None:
    """Copies of pictures in two groups make these one group in the table; all others keep their own."""
    root = folder(workplace / "data", range(60))
    Path("said.csv").write_text(
        "path,label,group\n"
        + "".join(f"data/{c}/{k}.png,{c},g{k // 4}\n" for k in range(60) for c in [("ant", "bee")[k % 2]])
    )
    shutil.copy(root / "ant" / "0.png", root / "ant" / "20.png")
    convlens.check("said.csv").write_groups("groups.csv")
    groups = dict(line.split(",")[::2] for line in Path("groups.csv").read_text().splitlines()[1:])
    assert groups["data/ant/0.png"] == groups["data/ant/20.png"] == groups["data/bee/21.png"] == "g0"
    assert groups["data/ant/8.png"] == "g2"


def test_a_class_emptied_by_exclusions_is_said_as_that(workplace: Path) -> None:
    """Not as files that cannot be read, which it is not."""
    root = folder(workplace / "data", range(60))
    with pytest.raises(DataError, match=r"no training image is left of class 'bee' \(30 images of it are left out"):
        convlens.pack(root, exclude=["bee"])
    (finding,) = [f for f in convlens.check(root, exclude=["bee"]).findings if f.kind == "classes"]
    assert finding.severity == "falsifies" and "30 of bee are left out" in finding.title


def test_a_labels_file_and_a_list_go_with_the_table_too(workplace: Path) -> None:
    """Both were made for the folder, and both serve the table that stands for it: what one drops does not make the
    other miss. A dropped picture that is gone since is a note; of other data the labels file is refused."""
    root = folder(workplace / "data", range(60))
    convlens.check(root).write_groups("groups.csv")
    rows = [
        Correction("ant/0.png", "ant", "change", "bee"),
        Correction("ant/2.png", "ant", "drop"),
        Correction("bee/1.png", "bee", "keep"),
    ]
    write_corrections(Path("labels.csv"), rows)
    Path("mine.txt").write_text("bee/3.png\nant/4.png\n")
    options = PackOptions(exclude=("ant/4.png", "bee/3.png")).corrected("labels.csv")
    for data, prefix in ((root, ""), ("groups.csv", "data/")):
        packed = open_data(data, options)
        assert packed.card.options.exclude == tuple(f"{prefix}{n}" for n in ("ant/2.png", "ant/4.png", "bee/3.png"))
        labels = dict(zip(packed.sample_names(), packed.labels_at(packed.rows("train")).tolist(), strict=False))
        assert len(packed.card.options.relabelled) == 1 and labels is not None
    run = trained("groups.csv", labels="labels.csv", exclude="mine.txt")
    assert len(run.record.dataset.options.exclude) == 3
    report = convlens.evaluate(run, labels="labels.csv", progress="none")
    assert report.n > 0 and any("1 picture of the whole data dropped in training already" in a for a in report.asides)
    assert any("1 label of the whole data changed" in a for a in convlens.evaluate(run, progress="none").notes)
    (root / "ant" / "2.png").unlink()
    assert any("'ant/2.png'" in note for note in open_data(root, options).notes)
    write_corrections(Path("other.csv"), [Correction("cat/0.png", "ant", "change", "bee")])
    with pytest.raises(DataError, match="of other data"):
        open_data(root, PackOptions().corrected("other.csv"))


def test_parts_of_a_large_folder_know_their_own_labels_alone(workplace: Path) -> None:
    """Sizes are tried on every so-many-th picture: changes of others are none of its business."""
    root = folder(workplace / "data", range(1_200))
    source = open_source(root)
    changed = tuple(Relabelled(f"ant/{n}.png", "ant", "bee") for n in range(0, 40, 2))
    part = sample_of(source, PackOptions(exclude=("bee/1.png",), relabelled=changed))
    names = {sample.name for sample in part.source.samples()}
    assert part.source.num_samples < 600 and 0 < len(part.relabelled) < len(changed)
    assert {one.path for one in part.relabelled} <= names and set(part.exclude) <= names
    open_data_of = open_listed(part.source, part.of(PackOptions((8, 8))), val_frac=0.1, progress="none")
    assert len(open_data_of) == len(names) - len(part.exclude)


def test_a_run_with_a_labels_file_is_resumed_by_the_same_command(workplace: Path) -> None:
    """What the file drops is left out in the run's record; named again it is the same, another file is refused."""
    root = folder(workplace / "data", range(60))
    rows = [Correction("ant/0.png", "ant", "change", "bee"), Correction("ant/2.png", "ant", "drop")]
    write_corrections(Path("labels.csv"), rows)
    run = trained(root, labels="labels.csv", stop=lambda: True)
    assert run.status == "interrupted" and run.record.dataset.options.exclude == ("ant/2.png",)
    assert convlens.train(resume=run, labels="labels.csv", progress="none").status == "complete"
    again = trained(root, labels="labels.csv", stop=lambda: True)
    write_corrections(Path("other.csv"), rows[:1])
    with pytest.raises(RunError, match="was begun with exclude"):
        convlens.train(resume=again, labels="other.csv", exclude=["ant/4.png"], progress="none")
