"""A kit: the folder that goes to the machine where pictures are classified, and needs no convlens there.

Owns what lies in it: the ONNX file, `predict.py` (one file; decoding and framing are the very source of `data/image`),
what to install with hashes, a self-test, and the hashes of all of it.
"""

import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from convlens import files
from convlens.classifier import Classifier, predict
from convlens.data.image.decode import Pixels, read_header
from convlens.data.image.values import to_uint8
from convlens.errors import ConvlensError, UsageError
from convlens.exporting.bundle import bundled
from convlens.exporting.card import card_markdown
from convlens.network.compute import versions
from convlens.runtime.kit_program import EXPECTED, MODEL, SELFTEST, SUMS
from convlens.runtime.onnx_model import NEAR
from convlens.runtime.prediction import row_of
from convlens.text import by, counted, shown

PLATFORMS = {  # and the tags that pip knows them by
    "linux_x86_64": ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"),
    "linux_aarch64": (
        "manylinux_2_28_aarch64",
        "manylinux_2_27_aarch64",
        "manylinux_2_17_aarch64",
        "manylinux2014_aarch64",
    ),
    "win_amd64": ("win_amd64",),
    "macosx_arm64": ("macosx_14_0_arm64", "macosx_11_0_arm64", "macosx_10_9_universal2"),
}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
REQUIREMENTS, _README = (Path(__file__).with_name(f"kit-{name}") for name in ("requirements.txt", "README.md"))
PROGRAM, README = "predict.py", "README.md"
_NUM_CLOUDS, _CLOUD = 16, 192  # pictures, and pixels of their sides, about
SELFTEST_PICTURES = 8  # of the model's own, beside those that are drawn
_DEADLINE_S = 900  # of pip, and of the self-test


class Wheels(NamedTuple):
    """For which machine what must be installed is put beside the kit, and with which Python there (3.12)."""

    platform: str
    python: str


def write_kit(
    folder: Path, onnx: bytes, classifier: Classifier, pictures: Sequence[Any], wheels: Wheels | None
) -> list[str]:
    """Fill a folder; what was put there, in words. `pictures` are those of the self-test, as bytes or arrays, beside
    drawn ones. Raises UsageError, StorageError."""
    said = []
    files.write_bytes(folder / MODEL, onnx)
    program = bundled("convlens.runtime.kit_program", "main", own=("InputSpec",))
    files.write_text(folder / PROGRAM, _program_text(classifier, program))
    files.write_text(folder / "requirements.txt", REQUIREMENTS.read_text(encoding="utf-8"))
    files.write_text(folder / "MODEL_CARD.md", card_markdown(classifier))
    num = _write_selftest(folder / SELFTEST, classifier, pictures)
    said.append(f"{SELFTEST}/: {counted(num, 'picture')} with the answers expected")
    if wheels is not None:
        _download(folder / "wheels", wheels)
        said.append(f"wheels/: for {wheels.platform}, Python {wheels.python}")
    files.write_text(folder / README, _readme(classifier, wheels))
    listed = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = [f"{files.sha256_of_file(path)}  {path.relative_to(folder).as_posix()}" for path in listed]
    files.write_text(folder / SUMS, "\n".join(sums) + "\n")
    return said


def run_selftest(folder: Path) -> str:
    """What a kit's self-test says, here, in a process of its own. Raises UsageError where it fails."""
    command = [sys.executable, "-P", str(folder / PROGRAM), "--selftest"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_DEADLINE_S)
    except subprocess.TimeoutExpired:
        raise UsageError(f"the kit's self-test took longer than {_DEADLINE_S} s") from None
    if done.returncode:
        raise UsageError(f"the kit fails its own self-test: {shown(done.stderr.strip().removeprefix('error: '), 300)}")
    return f"self-test: {done.stdout.strip()}"


def is_kit(folder: Path) -> bool:
    """Whether a folder is a kit, so that another may take its place."""
    return all(files.is_file(folder / name) for name in (MODEL, PROGRAM, SUMS))


def other_files_in(folder: Path) -> list[str]:
    """The files in a kit that were not exported with it: tables, pictures that were kept."""
    lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    own = {line.partition("  ")[2] for line in lines} | {SUMS}
    found = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return sorted(path.as_posix() for path in found if path.as_posix() not in own and "__pycache__" not in path.parts)


def _program_text(classifier: Classifier, program: str) -> str:
    about = (
        f'"""Classify pictures with {MODEL}: python {PROGRAM} --help. Needs onnxruntime, Pillow and numpy.\n\n'
        f"Made by convlens {versions()['convlens']} of its own source: what decodes and frames pictures here is, word\n"
        f'for word, what does it there. {len(classifier.class_names):,} classes.\n"""\n\n'
    )
    start = "from __future__ import annotations\n\n"
    return f'#!/usr/bin/env python3\n{about}{start}{program}\n\nif __name__ == "__main__":\n    sys.exit(main())\n'


# ---------------------------------------------------------------- the self-test


def _write_selftest(folder: Path, classifier: Classifier, pictures: Sequence[Any]) -> int:
    """Pictures, and what the model itself says of them, and which input it takes them for."""
    files.make_folder(folder)
    expected, model_sha256 = [], files.sha256_of_file(classifier.path)
    value_range = classifier.card.input_spec.value_range
    for number, one in enumerate([*pictures, *_drawn(classifier)], 1):
        try:
            data = one if isinstance(one, bytes) else _png(to_uint8(np.asarray(one), value_range))
            suffix = read_header(data).format.lower()
            answer = predict(classifier, data, top=len(classifier.class_names), progress="none")[0]
        except ConvlensError:  # a picture that cannot be read tests nothing
            continue
        name = f"{number:02}.{suffix}"
        files.write_bytes(folder / name, data)
        most, *others = [share for _, share in answer.top]
        said = answer.to_json() | {"row": row_of(classifier.frame(data), model_sha256, answer)}
        kept = {key: said[key] for key in ("label", "top", "row")}
        expected.append({"picture": name, **kept, "is_near": bool(others) and most - others[0] <= NEAR})
    files.write_json(folder / EXPECTED, {"kind": "convlens-selftest", "format_version": 1, "pictures": expected})
    return len(expected)


def _drawn(classifier: Classifier) -> list[bytes]:
    """Pictures of noise and shapes in the ways that pictures come: PNG with a transparent ground, of 16 bits, a large
    JPEG, which is decoded at a fraction, a grey one, GIF, WebP; and coloured clouds of many sizes, some of which
    another version of Pillow resizes, or brings to grey, otherwise."""
    spec, rng = classifier.card.input_spec, np.random.default_rng(0)
    height, width = 5 * spec.height + 3, 4 * spec.width + 1
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = np.stack([np.sin(9 * x + 3 * y + k) * np.cos(7 * y - k) for k in range(3)], axis=2)
    scene = np.clip(127 + 90 * waves + rng.normal(0, 12, waves.shape), 0, 255).astype(np.uint8)
    sheet = np.full((height, width), 255, np.uint8)
    sheet[height // 4 : 3 * height // 4, width // 2 : width // 2 + max(2, width // 12)] = 20
    alpha = np.dstack([scene, np.where(x + y < 0.6, 255, 0).astype(np.uint8)])
    kinds: list[tuple[Pixels | Any, str]] = [(scene, "JPEG"), (sheet, "PNG"), (alpha, "PNG"), (sheet, "JPEG")]
    kinds += [(sheet.astype(np.uint16) * 257, "PNG"), (scene, "WEBP"), (scene, "GIF")]
    for high, wide in rng.uniform(0.2, 2.5, (_NUM_CLOUDS, 2)) * max(_CLOUD, spec.height, spec.width) + 8:
        coarse = rng.integers(0, 256, (max(2, int(high) // 8), max(2, int(wide) // 8), 3), np.uint8)
        cloud = Image.fromarray(coarse).resize((int(wide), int(high)), Image.Resampling.BICUBIC)
        kinds.append((np.asarray(cloud), "JPEG"))
    found = []
    for pixels, kind in kinds:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        found.append(file.getvalue())
    return found


def _png(pixels: Pixels) -> bytes:
    """Pixels as a PNG file, losslessly."""
    pixels = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


# ---------------------------------------------------------------- what to install


def check_wheels(platform: str | None) -> Wheels | None:
    """The machine that wheels are for, with this Python. Raises UsageError."""
    if platform is None:
        return None
    if platform not in PLATFORMS:
        raise UsageError(f"unknown platform {shown(platform)!r}: there are {', '.join(PLATFORMS)}")
    return Wheels(platform, f"{sys.version_info.major}.{sys.version_info.minor}")


def _download(folder: Path, wheels: Wheels) -> None:
    """What requirements.txt names, by pip, which checks the hashes. Raises UsageError where it cannot."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "-r", str(REQUIREMENTS), "-d", str(folder)]
    command += ["--python-version", wheels.python]
    command += [word for tag in PLATFORMS[wheels.platform] for word in ("--platform", tag)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_DEADLINE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"pip could not fetch the wheels ({shown(error)})") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise UsageError(f"pip could not fetch the wheels ({shown(lines[-1].removeprefix('ERROR: '), 200)})")


def _readme(classifier: Classifier, wheels: Wheels | None) -> str:
    spec, promise = classifier.card.input_spec, classifier.thresholds
    without = "" if wheels is None else f"The wheels are for {wheels.platform} and Python {wheels.python}.\n\n"
    return _README.read_text(encoding="utf-8").format(
        classes=", ".join(map(shown, classifier.class_names)),
        promise="" if promise is None else f"It promises: {promise}.\n",
        offline="" if wheels is None else " --no-index --find-links wheels",
        without=without,
        size=by((spec.height, spec.width)),
        colours="grey" if spec.channels == 1 else "RGB",
        framing=spec.framing,
    )
