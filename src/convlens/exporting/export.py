"""`export`: a model in another format, which is checked before it is left.

Owns which formats there are, and the pictures that each is checked with.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convlens import files
from convlens.checks import checked, choice, real
from convlens.classifier import Classifier, load, pictures_of
from convlens.data.image.decode import Pixels, read_bytes
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.image_rows import evenly
from convlens.data.packed.pack import reopen
from convlens.data.sources.recognise import open_source
from convlens.errors import ConvlensError, DataError, UsageError
from convlens.exporting.card import card_markdown
from convlens.exporting.framing_graph import check_framing, with_framing
from convlens.exporting.int8 import quantised
from convlens.exporting.kit import SELFTEST_PICTURES, check_wheels, is_kit, other_files_in, run_selftest, write_kit
from convlens.exporting.onnx_file import check_installed, compared, compared_whole, drawn, onnx_of
from convlens.exporting.torch_folder import check_torch, write_torch
from convlens.progress import Progress, open_progress
from convlens.run import RUN_FILE, refuse_in_training
from convlens.text import listed, shown

FORMATS, INPUTS = ("onnx", "kit", "torch", "card"), ("framed", "image")
_FOLDERS = ("kit", "torch")
_SUFFIXES = {"onnx": ".onnx", "card": ".md"}
_DEFAULTS = {"onnx": "{}.onnx", "kit": "{}-kit", "torch": "{}-torch", "card": "{}.md"}
_PICTURES, _DRAWN = 200, 50  # that a file is checked with


@dataclass(frozen=True)
class Exported:
    """What was written, and what it was checked by, in words."""

    path: Path
    format: str
    num_bytes: int
    checked: tuple[str, ...]

    def lines(self) -> list[str]:
        """What a person wants to know of it."""
        return [f"{shown(self.path, 200)}: {self.num_bytes:,} bytes", *self.checked]

    def to_json(self) -> dict[str, Any]:
        """As `export --json` prints it."""
        facts = {"path": str(self.path), "format": self.format, "bytes": self.num_bytes}
        return facts | {"checked": list(self.checked)}

    def __str__(self) -> str:
        return "\n".join(self.lines())


def export(
    model: Any = "last",
    out: str | Path | None = None,
    *,
    format: str = "onnx",
    input: str = "framed",
    pictures: Any = None,
    int8: bool = False,
    max_loss: float = 0.3,
    wheels: str | None = None,
    no_pictures: bool = False,
    views: str | None = None,
    raw: bool = False,
    overwrite: bool = False,
    data_root: str | Path | None = None,
    progress: str | Progress = "auto",
) -> Exported:
    """Write a model in a form that runs without convlens, and check that it answers as the model does.

    `model`, `views` and `raw` are what `load` takes. `out` is new (by default called as the run, in this folder); what
    is there is replaced only with `overwrite`. The check is by 200 pictures of the model's own training and
    validation images, or of `pictures` (paths, patterns, folders, arrays), and by 50 random ones: where a probability
    is more than 1e-4 off, or a label another, there is no file.

    `format` "onnx": one file, opset 18, IR 9 (onnxruntime from 1.18 on). In: `images`, framed uint8 (N, H, W, C), as
    `load(model).frame` gives each. Out: `logits` and `probabilities` float32 (N, K), `label` int64 (N,), and where the
    model can tell it `unfamiliarity` float32 (N,), `unfamiliar` and `uncertain` bool (N,). Class names, framing, card
    and hashes stand in the metadata. With `input` "image" the framing is in the file too (of `pad`, `crop`, `stretch`):
    it takes `image`, one decoded picture, uint8 (height, width, 3), of any size; onnxruntime's CPU provider alone is
    known to resize as convlens does. `int8` quantises weights and activations to eight bits, by training pictures, and
    says what that costs on validation; where it is more than `max_loss` points of accuracy there is no file.

    "kit": a folder for a machine without convlens: that file, `predict.py`, which decodes and frames by convlens's own
    source, `requirements.txt` with hashes, a model card, and a self-test, which has been run, with some of those
    pictures, or with `no_pictures` with drawn ones alone. `wheels`, one of linux_x86_64,
    linux_aarch64, win_amd64, macosx_arm64, puts beside it what such a machine must install, for this Python's version.
    "torch": a folder with the weights and one source file that needs torch and Pillow alone: network, class names,
    framing (not of `ink`), `predict(path)`. "card": a model card in Markdown. Raises UsageError, ImageError, DataError,
    StorageError, and as `load` does.
    """
    checked("format", format, choice(FORMATS))
    checked("input", input, choice(INPUTS))
    if format != "onnx" and input != "framed":
        raise UsageError(f"`input` is for format onnx, not for {format}")
    if format != "onnx" and int8:
        raise UsageError(f"`int8` is for format onnx, not for {format}")
    checked("max_loss", max_loss, real(0, 100))
    if format != "kit" and (wheels is not None or no_pictures):
        raise UsageError(f"`wheels` and `no_pictures` are for format kit, not for {format}")
    machine = check_wheels(wheels)
    if format in ("onnx", "kit"):
        check_installed()
    with open_progress(progress) as bar:
        classifier = load(model, "cpu", views, raw=raw or None)
        refuse_in_training(classifier.path)
        place = Path(_DEFAULTS[format].format(_name_of(classifier)) if out is None else out)
        if format in _FOLDERS:
            _check_new_folder(place, format, replace=overwrite)
        else:
            files.check_new_file(place, (_SUFFIXES[format],), replace=overwrite, hint="`overwrite=True`")
        if format == "card":
            files.write_text(place, card_markdown(classifier))
            return Exported(place, format, place.stat().st_size, ("from the model file and its run folder",))
        if input == "image":
            check_framing(classifier.card.input_spec)
        if format == "torch":
            check_torch(classifier)
        found = _pictures_for(classifier, pictures, data_root, bar)
        if format == "torch":
            images = np.concatenate([found.framed, drawn(classifier, _DRAWN)])
            with files.new_folder(place, replace=overwrite) as folder:
                lines = write_torch(folder, classifier, images, found.whole)
            return Exported(place, format, _size_of(place), (*lines, found.where))
        if input == "image" and not found.whole:
            raise UsageError("no whole pictures are at hand to check the framing with: name some (`pictures`)")
        bar.line("writing ONNX")
        data = onnx_of(classifier)
        bar.line("checking it against the model")
        parity = compared(data, classifier, found.framed, drawn(classifier, _DRAWN))
        lines = ["checked by onnx.checker", f"{parity}; {found.where}"]
        if format == "kit":
            with files.new_folder(place, replace=overwrite) as folder:
                chosen = [] if no_pictures else _some(found.whole, SELFTEST_PICTURES)
                lines += write_kit(folder, data, classifier, chosen, machine)
                bar.line("running its self-test")
                lines.append(run_selftest(folder))
            return Exported(place, format, _size_of(place), tuple(lines))
        if int8:
            if (identity := classifier.card.dataset) is None:
                raise UsageError("`int8` needs the data that the model was trained on: these are weights of others")
            if classifier.thresholds is not None:
                raise UsageError(
                    "what the model promises was set by its answers in float, and eight bits may not keep it: leave "
                    "`int8` away, or take the promise out first (evaluate with `require=none`)"
                )
            bar.line("quantising, and measuring what it costs")
            small = quantised(data, reopen(identity, data_root=data_root, progress=bar), max_loss)
            in_float = [f"in float it {line}" if line.startswith("answers as") else line for line in lines]
            data, lines = small.data, [*in_float, *small.lines]
        if input == "image":
            data = with_framing(data, classifier.card.input_spec)
            lines.append(str(compared_whole(data, classifier, found.whole, least=0.0 if int8 else None)))
        files.write_bytes(place, data)
    return Exported(place, format, len(data), tuple(lines))


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _check_new_folder(place: Path, format: str, *, replace: bool) -> None:
    """Raises RunError, UsageError unless a new folder may be made there, or with `replace` in another kit's place."""
    if format != "kit" or not is_kit(place):
        if replace and os.path.lexists(place):
            raise UsageError(f"{shown(place, 200)} is no kit, and is not replaced: name another folder")
        files.refuse_existing(place)
    elif not replace:
        raise UsageError(f"{shown(place, 200)} exists already: name another folder, or say `overwrite=True`")
    elif others := other_files_in(place):
        raise UsageError(
            f"{shown(place, 200)} holds files that are not the kit's ({listed(others, 3)}): move them first"
        )


def _name_of(classifier: Classifier) -> str:
    """What the file is called: as the run, or the model's file."""
    path = classifier.path
    return path.parent.name if files.is_file(path.parent / RUN_FILE) else path.stem


class _Real(NamedTuple):
    """Pictures to check a file with: framed, uint8 (N, H, W, C), whole, as bytes or arrays, and where they are from."""

    framed: Pixels
    whole: list[Any]
    where: str


def _pictures_for(classifier: Classifier, pictures: Any, data_root: str | Path | None, bar: Progress) -> _Real:
    """Those that were named, else some that the model was made with; none where its data is not at hand. Raises
    ImageError."""
    spec = classifier.card.input_spec
    none = np.zeros((0, spec.height, spec.width, spec.channels), np.uint8)
    if pictures is not None:
        chosen = _some(pictures_of(pictures), _PICTURES)
        framed = np.stack([classifier.frame(one) for one in chosen])
        whole = [read_bytes(Path(one)) if isinstance(one, str | Path) else one for one in chosen]
        return _Real(framed, whole, "of the pictures that were named")
    identity = classifier.card.dataset
    if identity is None:
        return _Real(none, [], "no real ones are at hand (`pictures` names some)")
    try:
        dataset = reopen(identity, data_root=data_root, progress=bar)
    except DataError as error:
        return _Real(none, [], f"its own data is not at hand ({error}); `pictures` names others")
    parted = replace(dataset, is_merged=False)  # what folds merged: test is not needed here
    rows = np.sort(np.concatenate([parted.rows("train"), parted.rows("val")]))
    rows = evenly(rows, _PICTURES)
    return _Real(np.array(parted.images_at(rows)[:]), _whole(dataset, rows, data_root), f"of {shown(dataset.name, 80)}")


def _whole(dataset: Dataset, rows: NDArray[np.int64], data_root: str | Path | None) -> list[Any]:
    """These pictures as they came, bytes or values; none where the source is not there any more."""
    names = dataset.sample_names()
    wanted = {names[row] for row in rows.tolist()}
    with suppress(ConvlensError, OSError):
        source = open_source(dataset.source, dataset.card.options.read, data_root=data_root)
        return [sample.read() for sample in source.samples() if sample.name in wanted]
    return []


def _some(listed: Sequence[Any], most: int) -> list[Any]:
    return [listed[int(at)] for at in evenly(np.arange(len(listed)), most)]
