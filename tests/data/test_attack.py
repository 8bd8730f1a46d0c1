"""Bytes that mean harm: cut, flipped, bombs, and a folder of them."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convlens
from convlens.data.image.decode import MAX_PIXELS, decode, quiet_pillow
from convlens.errors import ImageError
from convlens.recipe import Recipe
from tests.helpers import read_lines, scene

QUICK = Recipe(lr=0.02, epochs=1, batch_size=16, precision="float32")


def small_files() -> dict[str, bytes]:
    """A small picture in each format."""
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    found = {}
    for kind, options in (
        ("PNG", {}),
        ("JPEG", {"quality": 80}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
        ("PPM", {}),
    ):
        page = io.BytesIO()
        image.save(page, kind, **options)
        found[kind] = page.getvalue()
    return found


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that says it has so many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(4096))) + chunk(b"IEND", b"")
    )


def text_bomb() -> bytes:
    """A PNG whose compressed comment unpacks to 200 megabytes."""
    plain = small_files()["PNG"]
    packed = zlib.compress(bytes(200_000_000), 9)
    body = b"zTXt" + b"k\0\0" + packed
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return plain[:33] + chunk + plain[33:]


def animated_bomb() -> bytes:
    """A GIF whose only frame is small and whose canvas is as large as the format allows."""
    data = bytearray(small_files()["GIF"])
    data[6:10] = b"\xff\xff\xff\xff"
    return bytes(data)


@pytest.mark.parametrize("kind", small_files())
def test_truncation_at_every_length(kind: str) -> None:
    """Each beginning of a file is a picture or an ImageError of one line, and never anything else."""
    data = small_files()[kind]
    for end in range(len(data)):
        try:
            decode(data[:end])
        except ImageError as error:
            assert "\n" not in str(error) and str(error)


@pytest.mark.parametrize("kind", small_files())
def test_flipped_bits(kind: str) -> None:
    """Every bit of the first 96 bytes and a thousand others, flipped one at a time: a picture or an ImageError."""
    data = small_files()[kind]
    rng = np.random.default_rng(1)
    places = [*range(min(96, len(data)) * 8), *rng.integers(0, len(data) * 8, 1000).tolist()]
    with quiet_pillow():
        for place in places:
            broken = bytearray(data)
            broken[place // 8] ^= 1 << place % 8
            try:
                assert decode(bytes(broken)).size <= 3 * MAX_PIXELS
            except ImageError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["pixels", "more", "comment", "gif", "tiff"])
def test_bombs_are_refused_in_bounded_memory(name: str) -> None:
    """Pictures that unpack to gigabytes are refused from the header, or cost a fraction of what they claim."""
    tiff = bytearray(small_files()["TIFF"])
    bomb = {
        "pixels": png_bomb(60_000, 60_000),
        "more": png_bomb(2**31 - 1, 2**31 - 1),
        "comment": text_bomb(),
        "gif": animated_bomb(),
        "tiff": bytes(tiff[:4]) + struct.pack("<I", 8) + b"\xff" * 400,
    }[name]
    if sys.platform != "linux":
        pytest.skip("peak memory is read from /proc")
    before = peak_bytes()
    with pytest.raises(ImageError):
        decode(bomb)
    assert peak_bytes() - before < 150e6


def peak_bytes() -> int:
    """The most memory that this process ever had."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in status if line.startswith("VmHWM:")).split()[1])


@pytest.fixture
def hostile(tmp_path: Path) -> tuple[Path, set[str]]:
    """A folder of two classes with sound pictures and all sorts of others; the names of those that must be refused."""
    root = tmp_path / "hostile"
    for number in range(40):
        folder = root / ("ant" if number % 2 else "bee")
        folder.mkdir(parents=True, exist_ok=True)
        scene(number, 24).save(folder / f"{number}.png")
    files = small_files()
    bad: dict[str, bytes] = {
        "empty.png": b"",
        "zeros.jpg": bytes(500),
        "text.png": b"not a picture at all\n" * 20,
        "half.png": files["PNG"][: len(files["PNG"]) // 2],
        "half.jpg": files["JPEG"][: len(files["JPEG"]) // 2],
        "bomb.png": png_bomb(60_000, 60_000),
        "strip.png": strip(),
        "photo.heic": b"\0\0\0\x18ftypheic\0\0\0\0",
        "vector.svg": b"<svg/>",
        "old.psd": b"8BPS\0\1",
        "page.eps": b"%!PS-Adobe-3.0",
        "web.jpg": b"<!DOCTYPE html>",
        "archive.png": b"PK\3\4" + bytes(50),
        "float.tif": float_tiff(),
    }
    good = {"wrong-name.png": files["JPEG"], "really-png.jpg": files["PNG"], "really-gif.bmp": files["GIF"]}
    for name, data in (bad | good).items():
        (root / "ant" / name).write_bytes(data)
    refused = {f"ant/{name}" for name in bad}
    for name in odd_names():
        try:
            (root / "bee" / name).write_bytes(files["PNG"])
        except (OSError, ValueError, UnicodeError):  # a file system that does not take it
            continue
    try:
        (root / "ant" / "loop").symlink_to(root)
        (root / "ant" / "dangling.png").symlink_to(root / "nowhere.png")
        os.mkfifo(root / "ant" / "pipe.png")
        refused |= {"ant/dangling.png", "ant/pipe.png"}
    except (OSError, AttributeError, NotImplementedError):
        pass
    return root, refused


def odd_names() -> list[str]:
    names = [
        "with space.png",
        "line\nbreak.png",
        "שלום.png",
        "\u202egnp.png",
        "🐝.png",
        "'quote\".png",
        "-rf.png",
        "x" * 240 + ".png",
        "a.b.c.PNG",
        "%s%n.png",
        "tab\t.png",
    ]
    return [*names, os.fsdecode(b"bytes-\xff\xfe.png")] if sys.platform == "linux" else names


def strip() -> bytes:
    page = io.BytesIO()
    Image.new("L", (20_000, 2)).save(page, "PNG")
    return page.getvalue()


def float_tiff() -> bytes:
    """Numbers beyond every range."""
    page = io.BytesIO()
    Image.fromarray(np.full((4, 4), 1e9, np.float32)).save(page, "TIFF")
    return page.getvalue()


def test_a_hostile_folder_is_packed_with_every_reason_in_the_ledger(hostile: tuple[Path, set[str]]) -> None:
    """Nothing is lost or passed over: each file is a sample or stands in samples.jsonl with why not."""
    root, refused = hostile
    dataset = convlens.pack(root, size=16)
    lines = read_lines(dataset.folder / "samples.jsonl")
    quarantined = {line["path"]: line["reason"] for line in lines if line["status"] == "quarantined"}
    assert quarantined.keys() == refused
    assert all(reason and "\n" not in reason for reason in quarantined.values())
    assert "heif-convert" in quarantined["ant/photo.heic"]
    assert "too many pixels" in quarantined["ant/bomb.png"]
    assert dataset.num_listed == len(lines) == sum(dataset.counts.values()) + dataset.num_quarantined
    names = dataset.sample_names()
    labels = np.load(dataset.folder / "labels.npy")
    for row, name in enumerate(names):
        label = dataset.class_names[int(labels[row])]
        assert name.startswith(f"{label}/"), "no label moves by one because of a file that was left out"


def test_a_hostile_folder_is_checked_and_trained_on(hostile: tuple[Path, set[str]], workplace: Path) -> None:
    """The doctor names every broken file; training and evaluation go through and count them."""
    root, refused = hostile
    found = {f.kind: f for f in convlens.check(root).findings}
    assert {s.name for one in found["unreadable"].sets for s in one} == refused
    run = convlens.train(
        root, recipe=QUICK, size=16, architecture="conv(4, 3) relu flatten linear(classes)", test=True, progress="none"
    )
    assert run.status == "complete"
    report = convlens.evaluate(run, progress="none")
    assert report.num_quarantined == len(refused)
    json.dumps(report.to_json())
