"""Teaching: pictures are collected class by class into an ordinary folder, and a network is trained on them at once.

Owns that folder and how a training on it is asked for. `CLASS/burst-0001/0001.jpg` is what a camera took in one go,
one group; `CLASS/0001.png` is a picture of its own. The training is `experiment.train`, on all of the pictures.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from convlens import files
from convlens.architecture import parse, plan
from convlens.data.image.decode import SUFFIXES, decode, quiet_pillow
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import open_data
from convlens.data.packed.splits import deal
from convlens.data.sources.class_names import skeleton
from convlens.data.sources.layouts import BURST, is_group
from convlens.data.sources.listing import Folder, list_tree
from convlens.data.sources.split_words import split_of
from convlens.data.sources.tree import DiskTree
from convlens.errors import ImageError, UsageError
from convlens.evaluation.test_ledger import inspect_test
from convlens.experiment import train
from convlens.metrics import Score
from convlens.network.compute import resolve_compute, settled
from convlens.presets import PHOTO, PHOTO_FRAMING
from convlens.progress import Progress
from convlens.run import RUNS_FOLDER, Run
from convlens.text import listed, shown
from convlens.training.fit import network_of
from convlens.training.head import features_at
from convlens.training.plan import TrainingPlan
from convlens.training.warm_start import read_parent

DEFAULT_FOLDER = Path("collected")
MAX_CLASSES, MAX_PICTURES, MAX_FOLDS = 50, 5_000, 5
_SIZES = ((250, 224), (1_000, 160), (MAX_PICTURES, 128))  # up to so many pictures, so many pixels: about two seconds
_NAME = re.compile(r"[^\W_][\w .,'()+&-]{0,59}")
_RESERVED = re.compile(r"(?i)con|prn|aux|nul|com\d|lpt\d")  # no names of files on Windows


class _Watched(Progress):
    """Keeps how far the work is, for whoever asks."""

    def __init__(self) -> None:
        self.what, self.total, self.done = "", 0.0, 0.0

    def start(self, what: str, total: float, unit: str = "") -> None:
        self.what, self.total, self.done = what, total, 0.0

    def advance(self, amount: float = 1, note: str = "") -> None:
        self.done += amount


@dataclass(frozen=True)
class TrainingResult:
    """A training that is done: its run, where its pictures are packed, and the score of pictures that were held out, or
    why there is none."""

    run: Run
    folder: Path
    score: Score | None
    note: str

    def to_json(self) -> dict[str, Any]:
        """As the page shows it."""
        score = None if self.score is None else self.score.to_json() | {"text": str(self.score)}
        return {"run": str(self.run.path), "score": score, "note": self.note}


class Teaching:
    """The folder that is collected into, and what the last training gave."""

    def __init__(self, folder: Path = DEFAULT_FOLDER) -> None:
        self.folder = folder
        self.result: TrainingResult | None = None
        self._watched: _Watched | None = None
        self._prepared: Path | None = None  # a packed set that no training has used

    # ------------------------------------------------------------ pictures

    def status(self) -> dict[str, Any]:
        """The folder, its classes with their pictures, and how a training stands. Raises UsageError, DataError."""
        watched, result = self._watched, self.result
        return {
            "folder": str(self.folder),
            "classes": [
                {"name": one.name, "num_pictures": one.num_pictures, "num_groups": _num_groups(one)}
                for one in self._classes()
                if one.num_pictures
            ],
            "training": watched and {"what": watched.what, "done": min(1.0, watched.done / max(1.0, watched.total))},
            "result": result and result.to_json(),
        }

    def add(self, name: str, burst: str | None, suffix: str, data: bytes) -> str | None:
        """Keep a picture file's bytes as one of a class, and of a burst; `new` begins one. The burst's name, which no
        other class has one of. Raises UsageError, StorageError, ImageError where they are no picture."""
        suffix = suffix.lower()
        if suffix not in SUFFIXES:
            raise ImageError(f"a picture's name ends in one of {' '.join(sorted(SUFFIXES))}, not {shown(suffix, 20)!r}")
        with quiet_pillow():
            decode(data)
        with self._alone():
            classes = self._checked(name)
            if sum(one.num_pictures for one in classes) >= MAX_PICTURES:
                raise UsageError(f"{MAX_PICTURES:,} pictures are collected here at most: train on them from a terminal")
            if burst == "new":
                found = [BURST.fullmatch(sub.name) for one in classes for sub in one.subfolders]
                burst = f"burst-{1 + max((int(match[1]) for match in found if match), default=0):04d}"
                files.make_folder(self.folder / name / burst)
            place = self.folder / name if burst is None else self._burst(name, burst)
            taken = {Path(one).stem for one in files.names_in(files.make_folder(place))}
            number = next(n for n in count(1) if f"{n:04d}" not in taken)
            files.write_bytes(place / f"{number:04d}{suffix}", data)
            return burst

    def discard(self, name: str, burst: str) -> None:
        """Remove a burst and its pictures, the packed ones too. Raises UsageError."""
        with self._alone():
            self._checked(name)
            place = self._burst(name, burst)
            files.remove_folder(place)
            files.remove_if_empty(self.folder / name)
            self._forget()
            if files.is_folder(place):
                raise UsageError(f"{shown(place, 200)} cannot be removed: a program has its pictures open")

    def remove(self, name: str) -> None:
        """Remove a class and its pictures, the packed ones too. Raises UsageError."""
        with self._alone():
            if name not in [one.name for one in self._checked(name)]:
                raise UsageError(f"there is no class {shown(name, 60)!r}")
            files.remove_folder(self.folder / name)
            self._forget()
            if files.is_folder(self.folder / name):
                raise UsageError(f"{shown(self.folder / name, 200)} cannot be removed: a program has its pictures open")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Within it nobody else changes the folder: neither another thread nor another server."""
        name = f"{files.sha256_of(str(self.folder.absolute()).encode())[:16]}.lock"
        with files.lock(files.make_folder(files.state_folder() / "collecting") / name):
            yield

    def _forget(self) -> None:
        """Remove what was packed to be prepared, where no training has used it."""
        if self._prepared is not None:
            files.remove_folder(self._prepared)
            self._prepared = None

    def _burst(self, name: str, burst: str) -> Path:
        """The folder of a burst. Raises UsageError where there is none."""
        place = self.folder / name / burst
        if not (BURST.fullmatch(burst) and files.is_folder(place)):
            raise UsageError(f"there is no burst {shown(burst, 40)!r} of {shown(name, 60)!r}")
        return place

    def _classes(self) -> list[Folder]:
        """The class folders. Raises DataError, UsageError where they are none."""
        if not files.is_folder(self.folder):
            return []
        top = list_tree(DiskTree(self.folder))
        if splits := [one.name for one in top.folders if split_of(one.name)]:
            raise UsageError(f"{shown(self.folder, 200)} holds {listed(splits)}: collect into a folder of your own")
        return top.subfolders

    def _checked(self, name: str) -> list[Folder]:
        """The class folders, to which one of this name can be added. Raises UsageError."""
        if self._watched is not None:
            raise UsageError("a training is going on: wait for its end")
        classes = self._classes()
        if name in (names := [one.name for one in classes]):
            return classes
        if not _NAME.fullmatch(name) or name != name.rstrip(" .") or _RESERVED.fullmatch(name.split(".")[0]):
            raise UsageError(
                f"a class's name begins with a letter or digit and is a folder's name, not {shown(name, 60)!r}"
            )
        if split_of(name) is not None:
            raise UsageError(f"{shown(name, 60)!r} has the word of a split: name the class otherwise")
        if alike := [one for one in names if skeleton(one) == skeleton(name)]:
            raise UsageError(f"there is a class {shown(alike[0], 60)!r} already")
        if len(names) >= MAX_CLASSES:
            raise UsageError(f"{MAX_CLASSES} classes are collected here at most")
        return classes

    # ------------------------------------------------------------ training

    def teach(self, device: str) -> TrainingResult:
        """Train on all pictures: the head of a pretrained network. Where each class has two groups or more, each group
        is first measured by a head that did not learn from it. Raises ConvlensError as training does."""
        with self._alone():
            self._checked_for_training()
            self._watched = _Watched()
        try:
            planned = self._plan(device, self._watched)
            if self._prepared != planned.dataset.folder:
                self._forget()
            self.result, self._prepared = _trained(planned, self._watched), None
            return self.result
        finally:
            self._watched = None

    def prepare(self, device: str) -> None:
        """Have the network look at what was collected, so that `teach` finds that done. Raises ConvlensError."""
        self._checked_for_training()
        planned = self._plan(device, Progress())
        if planned.dataset.folder != self._prepared:
            self._forget()
            is_used = self.result is not None and self.result.folder == planned.dataset.folder
            self._prepared = None if is_used else planned.dataset.folder
        with settled(planned.compute):
            features_at(network_of(planned), planned, planned.dataset.rows("train"), Progress())

    def _plan(self, device: str, bar: Progress) -> TrainingPlan:
        """How the head is trained on all that was collected. Raises ConvlensError."""
        assert PHOTO.parent is not None, "the preset has one"
        parent = read_parent(PHOTO.parent, bar)
        num_pictures = sum(one.num_pictures for one in self._classes())
        side = next((side for most, side in _SIZES if num_pictures <= most), _SIZES[-1][1])
        options = parent.options_for(PackOptions(size=(side, side), framing=PHOTO_FRAMING), self.folder)
        # All of it is learned from, what would be test too.
        dataset = inspect_test(open_data(self.folder, options, progress=bar).merged(), by="teach")
        network = plan(parse(parent.architecture_for((side, side))), dataset.input_spec.shape, len(dataset.class_names))
        # In float32, so that what is learned from is what is measured.
        recipe = PHOTO.recipe.replace(epochs=0, precision="float32", frozen_precision="float32")
        compute = resolve_compute(device, "float32", None, None)
        return TrainingPlan(dataset=dataset, network=network, recipe=recipe, seed=0, compute=compute, parent=parent)

    def _checked_for_training(self) -> None:
        if self._watched is not None:
            raise UsageError("a training is going on: wait for its end")
        if sum(1 for one in self._classes() if one.num_pictures) < 2:
            raise UsageError("there must be pictures of two classes or more: collect some")


def _num_groups(folder: Folder) -> int:
    """What of a class folder counts as taken on its own: bursts, and pictures beside them."""
    groups = [one for one in folder.folders if is_group(one)]
    return folder.num_pictures - sum(one.num_pictures for one in groups) + len(groups)


def _trained(planned: TrainingPlan, bar: Progress) -> TrainingResult:
    folds, recipe, folder = _num_folds(planned.dataset), planned.recipe, planned.dataset.folder
    place = files.reserve_folder(RUNS_FOLDER, "taught")
    try:
        run = train(
            planned.dataset,
            parent=PHOTO.parent,
            recipe={name: getattr(recipe, name) for name in ("epochs", "precision", "frozen_precision")},
            folds=folds,
            out=place,
            device=planned.compute.device,
            progress=bar,
        )
    except BaseException:
        files.remove_if_empty(place)
        raise
    if folds is None:
        few = (
            "a class has a single take or picture, so that none can be held out and measured: collect one more of each"
        )
        return TrainingResult(run, folder, None, few)
    return TrainingResult(
        run, folder, run.record.cross_validation, "each take measured by a network that did not learn from it"
    )


def _num_folds(dataset: Dataset) -> int | None:
    """The most folds, up to five, of which each leaves something of each class to learn from; None: there are none."""
    rows, labels, num_classes = dataset.rows("train"), dataset.labels("train"), len(dataset.class_names)
    for folds in range(MAX_FOLDS, 1, -1):
        fold_N = deal(dataset.split_keys(rows), labels, folds)
        if all(
            len(np.unique(labels[fold_N != fold])) == num_classes and (fold_N == fold).any() for fold in range(folds)
        ):
            return folds
    return None
