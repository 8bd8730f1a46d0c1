"""Random folders of pictures: first the right reading is drawn, then a layout that says it.

Owns the layouts that people have, as generators. A reading is rows of (path, label, split, group); what lies
beside is `unused` and has to be named. Nothing here looks at the reader: what it gets wrong is found by comparison.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import BinaryIO

from convlens.data.sources.tree import Entry, Tree, join

_CLASSES = (
    "cats dogs|Cat Dog Bird|0 1 2 3 4 5 6 7 8 9|1 2 10 11|n01440764 n02102040 n02979186|glioma meningioma notumor"
    "|Apple___Black_rot Apple___healthy Tomato___Early_blight|ok defect|NORMAL PNEUMONIA|猫 犬|Äpfel Birnen Öl"
    "|train bus bicycle|sneakers trainers boots|test_tube beaker flask|contest protest latest|buildings forest sea"
    "|a b c d e f|Speed limit (20km_h)/Stop/No entry|evaluation-kit toolbox|class_1 class_2 class_3|A_upper b_lower"
    "|red apple/green pear/validated ticket|runs walks|images texts"
)
CLASS_SETS = tuple(tuple(one.split("/") if "/" in one else one.split()) for one in _CLASSES.split("|"))
# What people call the folders of their splits, each a format of one word for train, val and test.
_SPLIT_WORDS = (
    ("train", "val", "test"),
    ("train", "valid", "test"),
    ("train", "validation", "test"),
    ("training", "validation", "testing"),
    ("Train", "Val", "Test"),
    ("TRAIN", "DEV", "TEST"),
    ("train", "eval", "holdout"),
    ("Training", "Validation", "Testing"),
    ("train", "dev", "hold-out"),
)
_SPLIT_FORMATS = (
    "{}", "{}", "{}", "{}_set", "{}set", "{}-set", "seg_{}", "{} images", "{}_data", "1_{}", "{}2017", "my-{}", "{}Set",
    "imgs_{}", "{}_v2", "dataset.{}", "{} pictures",
)  # fmt: skip
_STEMS = (
    "img_{:03}",
    "{:04}",
    "DSC{:05}",
    "{label} ({})",
    "{label}.{}",
    "{label}_{:02}",
    "photo-{}",
    "{:x}7fe1",
    "scan {}",
)
_SUFFIXES = (".jpg", ".jpg", ".png", ".JPG", ".jpeg", ".JPEG", ".bmp", ".webp", ".tif")
_WRAPPERS = ("data", "dataset", "archive", "images", "my pictures", "natural_images", "v1.0", "raw", "PetImages")
_LITTER = (".DS_Store", "Thumbs.db", "desktop.ini", "._x.jpg")
_GROUPS = ("patient_{}", "s{}", "writer-{}", "{:03}", "session {}")

Row = tuple[str, str, str | None, str | None]


class MemoryTree(Tree):
    """A tree of names held in memory."""

    def __init__(self, content: dict[str, bytes]) -> None:
        self.location = "memory"
        self.content = content
        self.names: dict[str, dict[str, bool]] = {"": {}}
        for path in content:
            parent, is_folder = path, path.endswith("/")
            parent = path.rstrip("/")
            while parent:
                above, name = posixpath.split(parent)
                self.names.setdefault(above, {})[name] = is_folder
                if is_folder:
                    self.names.setdefault(parent, {})
                parent, is_folder = above, True

    def listed(self, path: str) -> list[Entry]:
        return sorted(Entry(name, is_folder) for name, is_folder in self.names[path].items())

    def read(self, path: str) -> bytes:
        return self.content[path]

    def open(self, path: str) -> BinaryIO:
        return io.BytesIO(self.content[path])

    def stat(self, path: str) -> tuple[int | None, tuple[int, ...]]:
        return (len(self.content[path]), ()) if path in self.content else (None, ())

    def is_file(self, path: str) -> bool:
        return path in self.content

    def resolved(self, path: str = "") -> str:
        return join("memory", path)

    def write(self, root: Path) -> None:
        """The same on a disk."""
        for path, data in self.content.items():
            if path.endswith("/"):
                (root / path).mkdir(parents=True, exist_ok=True)
            else:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(data)


@dataclass
class Drawn:
    """A tree with the one right reading of it, or (`rows` None) one that has to be refused.

    `unused` are files that must be named as unused; `options` what a person says beside the folder; `offers` words that
    a refusal has to hold, for it names the way in.
    """

    kind: str
    files: dict[str, bytes]
    rows: set[Row] | None
    unused: set[str] = field(default_factory=set)
    options: dict[str, str] = field(default_factory=dict)
    offers: tuple[str, ...] = ()


class _Maker:
    """What all layouts draw from."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.files: dict[str, bytes] = {}
        self.unused: set[str] = set()
        self.rows: set[Row] = set()
        self.number = 0

    def picture(self, folder: str, label: str = "x", split: str | None = None, group: str | None = None) -> str:
        """A picture in a folder, of a name that is free there."""
        self.number += self.random.randint(1, 3)
        stem = self.random.choice(_STEMS).format(self.number, label=label)
        path = join(folder, stem + self.random.choice(_SUFFIXES))
        self.files[path] = b"picture"
        if label != "x":
            self.rows.add((path, label, split, group))
        return path

    def pictures(
        self, folder: str, label: str, split: str | None = None, group: str | None = None, most: int = 3
    ) -> None:
        for _ in range(self.random.randint(1, most)):
            self.picture(folder, label, split, group)

    def spare(self, path: str, data: bytes = b"text") -> str:
        """A file that is not read and must be named."""
        self.files[path] = data
        self.unused.add(path)
        return path

    def classes(self) -> tuple[str, ...]:
        chosen = self.random.choice(CLASS_SETS)
        return chosen[: max(2, self.random.randint(2, len(chosen)))]

    def split_names(self, splits: tuple[str, ...]) -> dict[str, str]:
        """split -> folder name, in one person's manner."""
        words = self.random.choice(_SPLIT_WORDS)
        form = self.random.choice(_SPLIT_FORMATS)
        return {split: form.format(words[("train", "val", "test").index(split)]) for split in splits}

    def splits(self) -> tuple[str, ...]:
        return self.random.choice(
            (("train", "test"), ("train", "val"), ("train", "val", "test"), ("train", "val", "test"))
        )

    def top(self) -> str:
        """Perhaps a wrapper folder or two."""
        depth = self.random.choice((0, 0, 0, 1, 1, 2))
        top = ""
        for _ in range(depth):
            top = join(top, self.random.choice(_WRAPPERS))
        return top

    def noise(self, top: str, folders: list[str]) -> None:
        """What lies about in people's folders."""
        draw = self.random.random
        if draw() < 0.3:
            self.spare(join(top, self.random.choice(("README.md", "LICENSE.txt", "notes.docx", "classes.txt"))))
        if draw() < 0.2:
            self.files[join(self.random.choice([top, *folders]), self.random.choice(_LITTER))] = b"litter"
        if draw() < 0.1:
            self.files[join(top, "__MACOSX/._x.jpg")] = b"litter"
        if draw() < 0.1:
            self.spare(join(top, "docs/guide.pdf.txt"))
        if draw() < 0.15:
            self.spare(join(self.random.choice(folders), "list.txt"))
        if draw() < 0.15:
            self.unused.add(self.picture(top))
        if draw() < 0.1:  # what convlens itself leaves in the folder that it works in
            self.spare(join(top, "runs/mnist-1/run.json"), b'{"kind": "convlens-run", "format_version": 3}')
            self.spare(join(top, "runs/mnist-1/inputs.png"))
            self.spare(join(top, "runs/mnist-1/model.safetensors"))
        if draw() < 0.05:
            self.spare(join(top, "metadata.csv"), b"date,place\n2020-01-01,Bonn\n")

    def done(self, kind: str, *, refuse: tuple[str, ...] | None = None, **options: str) -> Drawn:
        rows = self.rows if refuse is None else None
        return Drawn(kind, self.files, rows, self.unused, options, refuse or ())


# ---------------------------------------------------------------- layouts with one reading


def _class_folders(make: _Maker) -> Drawn:
    """CLASS/*"""
    top, classes = make.top(), make.classes()
    for label in classes:
        make.pictures(join(top, label), label, most=5)
        if make.random.random() < 0.15:  # pictures one folder deeper are of the class too
            make.pictures(join(top, f"{label}/more"), label)
    make.noise(top, [join(top, label) for label in classes])
    return make.done("CLASS/*")


def _groups(make: _Maker) -> Drawn:
    """CLASS/GROUP/*, the parent named as the group."""
    top, classes, form = make.top(), make.classes(), make.random.choice(_GROUPS)
    for label in classes:
        for number in make.random.sample(range(1, 9), make.random.randint(1, 3)):
            make.pictures(join(top, f"{label}/{form.format(number)}"), label, group=form.format(number))
    return make.done("CLASS/GROUP/*, --group parent", group="parent")


def _named_groups(make: _Maker) -> Drawn:
    """Folders within the class folders that are named as bursts, patients ..., with pictures beside them."""
    top, classes = make.top(), [label.replace("train", "tram") for label in make.classes()]
    splits = make.splits() if make.random.random() < 0.5 else (None,)
    form = make.random.choice(("burst-{:04d}", "Patient {}", "video_{:02d}", "session{}"))
    for split in splits:
        for label in classes:
            folder = join(top, label if split is None else f"{split}/{label}")
            for number in make.random.sample(range(1, 9), make.random.randint(1, 3)):
                name = form.format(number)
                of_person = name.startswith("Patient")  # who may be in other classes too
                group = name.lower() if of_person else join(split or "", f"{label}/{name}")
                make.pictures(join(folder, name), label, split, group=group)
            if make.random.random() < 0.3:
                make.pictures(folder, label, split)
    return make.done("CLASS/burst-N/*" if splits == (None,) else "SPLIT/CLASS/burst-N/*")


def _splits_above(make: _Maker) -> Drawn:
    """SPLIT/CLASS/*"""
    top, classes, splits = make.top(), make.classes(), make.splits()
    names = make.split_names(splits)
    wrapped = make.random.random() < 0.25
    for split in splits:
        folder = join(top, f"{names[split]}/{names[split]}" if wrapped else names[split])
        for label in classes:
            make.pictures(join(folder, label), label, split)
    folders = [join(top, name) for name in names.values()]
    if make.random.random() < 0.15:  # pictures that nobody labelled, under another name
        make.unused.add(make.picture(join(top, make.random.choice(("seg_pred", "samples", "screenshots")))))
    if make.random.random() < 0.05:  # the whole data set once more, inside itself
        for split in splits:
            for label in classes:
                make.unused.add(make.picture(join(top, f"copy_of_data/{names[split]}/{label}")))
    make.noise(top, folders)
    return make.done("SPLIT/SPLIT/CLASS/*" if wrapped else "SPLIT/CLASS/*")


def _splits_below(make: _Maker) -> Drawn:
    """CLASS/SPLIT/*"""
    top, classes, splits = make.top(), make.classes(), make.splits()
    names = make.split_names(splits)
    for label in classes:
        for split in splits:
            make.pictures(join(top, f"{label}/{names[split]}"), label, split)
    return make.done("CLASS/SPLIT/*")


def _unlabelled_test(make: _Maker) -> Drawn:
    """train/CLASS/*, and pictures of test without labels"""
    top, classes = make.top(), make.classes()
    splits = make.random.choice((("train", "test"), ("train", "val", "test")))
    names = make.split_names(splits)
    for split in splits[:-1]:
        for label in classes:
            make.pictures(join(top, f"{names[split]}/{label}"), label, split if len(splits) > 2 else None)
    inside = make.random.choice(("", "", f"/{names['test']}", "/unknown"))
    for _ in range(3):
        make.unused.add(make.picture(join(top, names["test"] + inside)))
    return make.done("train/CLASS/*, test/* without labels")


def _missing_class(make: _Maker) -> Drawn:
    """SPLIT/CLASS/*, a class without pictures in val or test"""
    top, classes, splits = make.top(), CLASS_SETS[0] + ("birds",), make.splits()
    names = make.split_names(splits)
    for split in splits:
        for label in classes:
            if split == "train" or label != "birds":
                make.pictures(join(top, f"{names[split]}/{label}"), label, split)
    return make.done("SPLIT/CLASS/*, a class missing from val and test")


_PATH_COLUMNS = (
    "path",
    "file",
    "filename",
    "image",
    "image_id",
    "id",
    "img",
    "file_name",
    "Filename",
    "image_path",
    "ID",
)
_LABEL_COLUMNS = ("label", "class", "target", "category", "breed", "y", "Label", "diagnosis", "species")
_SPLIT_COLUMNS = ("split", "subset", "set", "Split", "partition")


def _written(make: _Maker, header: list[str], lines: list[list[str]], *, is_tsv: bool = False) -> bytes:
    """A table in somebody's program's manner: delimiter, encoding, line ends."""
    delimiter = "\t" if is_tsv else make.random.choice((",", ",", ",", ";", "\t"))
    text = "".join(delimiter.join(f'"{c}"' if delimiter in c else c for c in line) + "\n" for line in [header, *lines])
    encoding = make.random.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252"))
    try:
        return text.replace("\n", make.random.choice(("\n", "\r\n"))).encode(encoding)
    except UnicodeEncodeError:
        return text.encode("utf-8")


def _table(make: _Maker) -> Drawn:
    """A table that names the files, beside a folder of them"""
    classes, folder = make.classes(), make.random.choice(("images", "pictures", "train_images", "img", ""))
    with_splits = make.random.random() < 0.4
    paths = []
    for label in classes:
        for split in ("train", "val", "test") if with_splits else (None,):
            for _ in range(make.random.randint(2, 4)):
                make.number += 1
                path = join(folder, f"{make.random.choice(('img', 'IMG_', 'p'))}{make.number:04}.jpg")
                make.files[path] = b"picture"
                make.rows.add((path, label, split, None))
                paths.append((path, label, split))
    make.random.shuffle(paths)
    said = {
        "whole": lambda path: path,
        "name alone": posixpath.basename,
        "without suffix": lambda path: posixpath.splitext(posixpath.basename(path))[0],
        "other folder": lambda path: "/kaggle/input/" + posixpath.basename(path),
        "backslashes": lambda path: path.replace("/", "\\"),
        "windows": lambda path: "C:\\data\\" + path.replace("/", "\\"),
    }
    how = make.random.choice(list(said))
    header = [make.random.choice(_PATH_COLUMNS), make.random.choice(_LABEL_COLUMNS)]
    lines = [[said[how](path), label] for path, label, _ in paths]
    if with_splits:
        header.append(make.random.choice(_SPLIT_COLUMNS))
        words = make.random.choice(_SPLIT_WORDS)
        for line, (_, _, split) in zip(lines, paths, strict=True):
            line.append(words[("train", "val", "test").index(str(split))])
    if make.random.random() < 0.3:
        header.append("width")
        for line in lines:
            line.append(str(make.random.randint(100, 200)))
    if make.random.random() < 0.3:
        order = list(range(len(header)))
        make.random.shuffle(order)
        header = [header[k] for k in order]
        lines = [[line[k] for k in order] for line in lines]
    file = make.random.choice(("labels.csv", "train.csv", "annotations.csv", "data.tsv"))
    if file == "train.csv" and with_splits:
        file = "labels.csv"
    make.files[file] = _written(make, header, lines, is_tsv=file.endswith(".tsv"))
    if make.random.random() < 0.3:
        make.spare("README.txt")
    if make.random.random() < 0.3:
        make.unused.add(make.picture(folder))
    return make.done(f"table, paths: {how}")


def _one_hot(make: _Maker) -> Drawn:
    """A table with a column for each class"""
    classes = [label for label in make.classes() if not label.isdigit()] or ["cats", "dogs"]
    if len(classes) < 2:
        classes = ["cats", "dogs"]
    lines = []
    for label in classes:
        for _ in range(make.random.randint(2, 4)):
            path = make.picture("images", label)
            lines.append([posixpath.basename(path), *("1" if one == label else "0" for one in classes)])
    make.random.shuffle(lines)
    make.files["labels.csv"] = _written(make, [make.random.choice(_PATH_COLUMNS), *classes], lines)
    return make.done("table, one column a class")


def _no_header(make: _Maker) -> Drawn:
    """A table without a header"""
    classes = make.classes()
    lines = []
    for label in classes:
        for _ in range(make.random.randint(3, 4)):
            lines.append([make.picture("images", label), label])
    make.random.shuffle(lines)
    make.files["labels.csv"] = _written(make, lines[0], lines[1:])
    return make.done("table without a header")


def _kaggle(make: _Maker) -> Drawn:
    """train.csv for train/*, test/* without labels, a sample of a submission"""
    classes = make.classes()
    lines, asked = [], []
    for label in classes:
        for _ in range(make.random.randint(2, 4)):
            lines.append([posixpath.basename(make.picture("train", label)), label])
    for _ in range(3):
        path = make.picture("test")
        make.unused.add(path)
        asked.append([posixpath.basename(path), classes[0]])
    make.random.shuffle(lines)
    make.files["train.csv"] = _written(make, ["id", "label"], lines)
    make.spare("sample_submission.csv", _written(make, ["id", "label"], asked))
    if make.random.random() < 0.5:
        make.spare("test.csv", _written(make, ["id"], [[name] for name, _ in asked]))
    return make.done("train.csv, train/*, test/* without labels")


def _table_a_split(make: _Maker) -> Drawn:
    """train.csv, val.csv and test.csv, each for its split"""
    classes, splits = make.classes(), make.splits()
    words = make.random.choice(_SPLIT_WORDS)
    for split in splits:
        lines = [
            [posixpath.basename(make.picture("images", label, split)), label]
            for label in classes
            for _ in range(make.random.randint(1, 3))
        ]
        name = words[("train", "val", "test").index(split)]
        make.files[f"{name}.csv"] = _written(make, ["filename", "label"], lines)
    return make.done("a table a split")


def _table_in_each_split(make: _Maker) -> Drawn:
    """A folder for each split, with its pictures and a table of them"""
    top, splits = make.top(), make.splits()
    classes = [label for label in make.classes() if not label.isdigit()] or ["cats", "dogs"]
    classes = classes if len(classes) > 1 else ["cats", "dogs"]
    names, is_hot = make.split_names(splits), make.random.random() < 0.5
    for split in splits:
        folder = join(top, names[split])
        lines = []
        for label in classes:
            for _ in range(make.random.randint(1, 3)):
                name = posixpath.basename(make.picture(folder, label, split))
                lines.append([name, *(("1" if one == label else "0" for one in classes) if is_hot else [label])])
        header = ["filename", *(classes if is_hot else ["class"])]
        make.files[join(folder, "_classes.csv" if is_hot else "labels.csv")] = _written(make, header, lines)
    return make.done("SPLIT/*, a table in each")


# ---------------------------------------------------------------- trees that must be refused, with the way in


def _names_of_files(make: _Maker) -> Drawn:
    """CLASS.1.jpg and the like, side by side"""
    classes = make.random.choice((("cat", "dog"), ("n01440764", "n02102040"), ("ok", "defect", "scratch")))
    form = make.random.choice(("{0}.{1}.jpg", "{0}_{1}.JPEG", "img_{0}_{1}.png", "{0} ({1}).jpg", "{0}-{1:04}.png"))
    for label in classes:
        for number in range(1, 6):
            make.files[form.format(label, number)] = b"picture"
    return make.done("class in the names of files", refuse=("`label=",))


def _other_task(make: _Maker) -> Drawn:
    """Segmentation, detection, videos"""
    which = make.random.choice(("masks", "yolo", "coco", "videos", "voc"))
    top = make.top()
    if which == "masks":
        image, mask = make.random.choice((("images", "masks"), ("imgs", "annotations"), ("image", "label")))
        for number in range(5):
            make.files[join(top, f"{image}/{number}.jpg")] = make.files[join(top, f"{mask}/{number}.png")] = b"picture"
    elif which == "yolo":
        inside = make.random.choice(("images/{1}", "{1}/images"))
        for split in ("train", "val"):
            for number in range(4):
                folder = join(top, inside.format("", split))
                make.files[f"{folder}/{number}.jpg"] = b"picture"
                make.files[f"{folder.replace('images', 'labels')}/{number}.txt"] = b"0 0.5 0.5 0.1 0.1\n"
        make.files[join(top, "data.yaml")] = b"nc: 2\n"
    elif which == "coco":
        for split in ("train2017", "val2017"):
            make.files[join(top, f"annotations/instances_{split}.json")] = b'{"images": [], "annotations": []}'
            for number in range(4):
                make.files[join(top, f"{split}/{number:012}.jpg")] = b"picture"
    elif which == "voc":
        for number in range(4):
            make.files[join(top, f"JPEGImages/{number:06}.jpg")] = b"picture"
            make.files[join(top, f"Annotations/{number:06}.xml")] = b"<annotation></annotation>"
    else:
        for video in range(4):
            for number in range(5):
                make.files[join(top, f"video_{video:02}/frame_{number:04}.jpg")] = b"picture"
    return make.done(f"no classification: {which}", refuse=("looks like",))


def _two_readings(make: _Maker) -> Drawn:
    """Trees that say two things"""
    top = make.top()
    classes = ("happy", "sad", "angry")[: make.random.randint(2, 3)]
    which = make.random.choice(("people", "versions", "beside", "twice", "disjoint", "flat", "test among classes"))
    if which == "people":
        for person in range(3):
            for label in classes:
                make.pictures(join(top, f"person{person}/{label}"), label)
    elif which == "versions":
        for version in ("color", "grayscale"):
            for label in classes:
                make.pictures(join(top, f"{version}/{label}"), label)
    elif which == "beside":
        for folder in ("train", "test", "phase2"):
            for label in classes:
                make.pictures(join(top, f"{folder}/{label}"), label)
    elif which == "twice":
        for folder in ("train", "val", "validation"):
            for label in classes:
                make.pictures(join(top, f"{folder}/{label}"), label)
    elif which == "disjoint":
        for folder, labels in (("train", ("a", "b")), ("test", ("c", "d"))):
            for label in labels:
                make.pictures(join(top, f"{folder}/{label}"), label)
    elif which == "flat":
        for folder in ("train", "test"):
            make.pictures(join(top, folder), "x")
    else:
        for folder in (*classes, "test"):
            make.pictures(join(top, folder), "x")
    needs = () if which == "flat" else ("`layout=",)
    return make.done(f"two readings: {which}", refuse=needs)


KINDS: tuple[tuple[int, Callable[[_Maker], Drawn]], ...] = (
    (20, _class_folders), (5, _groups), (5, _named_groups), (20, _splits_above), (8, _splits_below),
    (6, _unlabelled_test),
    (3, _missing_class),    (12, _table), (4, _one_hot), (4, _no_header), (5, _kaggle), (4, _table_a_split),
    (4, _table_in_each_split),
    (3, _names_of_files), (6, _other_task), (8, _two_readings),
)  # fmt: skip


def draw(seed: int) -> Drawn:
    """A tree and its right reading."""
    make = _Maker(seed)
    (kind,) = make.random.choices([kind for _, kind in KINDS], weights=[weight for weight, _ in KINDS])
    return kind(make)


def draw_kind(kind: Callable[[_Maker], Drawn], seed: int) -> Drawn:
    """A tree of one layout."""
    return kind(_Maker(seed))
