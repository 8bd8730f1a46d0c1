"""Pictures become pixels, or an error that says why not."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from convlens.data.image import decode as decoding
from convlens.data.image.decode import MAX_PIXELS, content_digest, decode, decode_reduced, read_header
from convlens.data.image.framing import InputSpec, fit, picture, spare, to_channels
from convlens.data.image.values import is_finer, range_in, to_uint8
from convlens.errors import ImageError, UsageError
from tests.helpers import scene

RAMP = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)  # 16 bits, from end to end


GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


COLOUR = np.stack([GREY, GREY[::-1], GREY.T], axis=2)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    page = io.BytesIO()
    image.save(page, kind, **options)
    return page.getvalue()


def golden() -> dict[str, tuple[bytes, NDArray[np.uint8]]]:
    """Name -> (the file, what it must become)."""
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 10, 20, 5, 250, 90])
    palette.putpixel((1, 0), 1)
    transparent = np.zeros((1, 3, 4), np.uint8)
    transparent[0, 0], transparent[0, 1], transparent[0, 2] = (255, 0, 0, 255), (255, 0, 0, 128), (255, 0, 0, 0)
    white_strokes = np.zeros((1, 2, 4), np.uint8)
    white_strokes[0, 0] = 255
    bits = np.array([[0, 255], [255, 0]], np.uint8)
    frames = [Image.fromarray(np.full((2, 2), v, np.uint8)) for v in (10, 200)]
    return {
        "8-bit grey": (saved(Image.fromarray(GREY), "PNG"), GREY[..., None]),
        "8-bit RGB": (saved(Image.fromarray(COLOUR), "PNG"), COLOUR),
        "RGB as BMP": (saved(Image.fromarray(COLOUR), "BMP"), COLOUR),
        "RGB as lossless WebP": (saved(Image.fromarray(COLOUR), "WEBP", lossless=True), COLOUR),
        "RGB as TIFF": (saved(Image.fromarray(COLOUR), "TIFF"), COLOUR),
        "RGB as PPM": (saved(Image.fromarray(COLOUR), "PPM"), COLOUR),
        "16-bit grey PNG keeps its range": (saved(Image.fromarray(RAMP), "PNG"), GREY[..., None]),
        "16-bit grey TIFF keeps its range": (saved(Image.fromarray(RAMP), "TIFF"), GREY[..., None]),
        "16-bit RGB PNG: the high byte": (
            png_16(np.full((1, 1, 3), 0x80FF, ">u2"), 2),
            np.full((1, 1, 3), 0x80, np.uint8),
        ),
        "1-bit PNG": (saved(Image.fromarray(bits).convert("1"), "PNG"), bits[..., None]),
        "1-bit TIFF": (saved(Image.fromarray(bits).convert("1"), "TIFF"), bits[..., None]),
        "palette becomes RGB": (saved(palette, "PNG"), np.array([[[200, 10, 20], [5, 250, 90]]], np.uint8)),
        "transparency is laid on white": (
            saved(Image.fromarray(transparent), "PNG"),
            np.array([[[255, 0, 0], [255, 127, 127], [255, 255, 255]]], np.uint8),
        ),
        "white strokes on nothing are laid on black": (
            saved(Image.fromarray(white_strokes), "PNG"),
            np.array([[[255] * 3, [0] * 3]], np.uint8),
        ),
        "grey and alpha": (
            saved(Image.fromarray(np.array([[[0, 255], [0, 0]]], np.uint8)), "PNG"),
            np.array([[[0], [255]]], np.uint8),
        ),
        "CMYK TIFF": (
            saved(Image.fromarray(np.array([[[0, 255, 255, 0]]], np.uint8), "CMYK"), "TIFF"),
            np.array([[[255, 0, 0]]], np.uint8),
        ),
        "GIF: the first frame": (
            saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
            np.full((2, 2, 1), 10, np.uint8),
        ),
        "TIFF: the first page": (
            saved(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
            np.full((2, 2, 1), 10, np.uint8),
        ),
        "an embedded profile is left aside": (
            saved(Image.fromarray(COLOUR), "PNG", icc_profile=b"profile"),
            COLOUR,
        ),
    }


def png_16(values: NDArray[Any], colour_type: int) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", golden())
def test_golden_pixels(name: str) -> None:
    """Each kind of picture becomes just these pixels."""
    data, expected = golden()[name]
    found = decode(data)
    if name.startswith("GIF"):  # a palette of greys comes as RGB
        expected = np.repeat(expected, found.shape[2], axis=2)
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_orientation_comes_out_upright(orientation: int, kind: str) -> None:
    """EXIF's eight orientations: stored turned or mirrored, read as it was seen."""
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8], upright[8:, 16:] = 255, 120
    back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # FLIP_LEFT_RIGHT, ROTATE_180 …
    image = Image.fromarray(upright)
    stored = image if back is None else image.transpose(Image.Transpose(back))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    found = decode(saved(stored, kind, exif=exif, **options))
    assert found.shape[:2] == upright.shape
    assert np.abs(found[:, :, 0].astype(int) - upright).max() <= (12 if kind == "JPEG" else 0)


def test_more_frames_than_one_are_said() -> None:
    """Animations and several pages are marked, single pictures are not."""
    files = golden()
    is_first = {name: decode_reduced(data, lambda h, w: 1).is_first for name, (data, _) in files.items()}
    assert {name for name, first in is_first.items() if first} == {"GIF: the first frame", "TIFF: the first page"}


REFUSED = {
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heif-convert"),
    "AVIF": (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "AVIF"),
    "a video": (b"\0\0\0\x18ftypisom\0\0\0\0isomiso2", "a video"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS"),
    "PDF": (b"%PDF-1.7\n", "PDF"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "PSD": (b"8BPS\0\1\0\0\0\0\0\0\0\3", "Photoshop"),
    "XCF": (b"gimp xcf v011\0", "XCF"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    "JPEG XL": (b"\xff\x0a\0\0\0\0", "JPEG XL"),
    "ICO": (b"\0\0\1\0\1\0\x10\x10\0\0", "ICO"),
    "a zip": (b"PK\3\4\0\0", "zip"),
    "a web page": (b"<!DOCTYPE html><html>", "web page"),
    "nothing": (b"", "empty"),
    "noise": (bytes(range(200)), "format"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_picture_is_refused_by_name(name: str) -> None:
    """One line that says what the file is instead, and for HEIC how to convert it."""
    data, words = REFUSED[name]
    with pytest.raises(ImageError, match=words) as caught:
        decode(data)
    assert "\n" not in str(caught.value)


def test_pixels_of_unknown_range_are_refused() -> None:
    """Numbers beyond every range that is in use, and such as are none, are refused."""
    cases: list[tuple[NDArray[Any], str]] = [
        (np.array([[0, 70_000]], np.int32), "range nobody knows"),
        (np.array([[-1, 5]], np.int32), "range nobody knows"),
        (np.array([[0, 1e9]], np.float32), "range nobody knows"),
        (np.array([[0, np.nan]], np.float32), "not finite"),
    ]
    for values, words in cases:
        with pytest.raises(ImageError, match=words):
            decode(saved(Image.fromarray(values), "TIFF"))


def test_the_digest_is_of_what_is_seen() -> None:
    """What splits are drawn from knows pictures, not files: metadata, format and colour mode do not count."""

    def digest(data: bytes, side: int = 32) -> bytes:
        return content_digest(data, decode_reduced(data, lambda h, w: max(h, w) / side))

    image = Image.fromarray(COLOUR).convert("L")
    as_png = digest(saved(image, "PNG"))
    assert as_png == digest(saved(image, "BMP")) == digest(saved(image.convert("RGB"), "PNG"))
    assert as_png != digest(saved(image.point(lambda v: v // 2), "PNG"))
    large = Image.fromarray(COLOUR).resize((400, 400))
    exif = Image.Exif()
    exif[0x0110] = "a camera"
    plain, marked = saved(large, "JPEG"), saved(large, "JPEG", exif=exif, comment=b"seen")
    assert plain != marked
    assert digest(plain) == digest(marked) == digest(plain, 200), "the size that it is decoded to does not count either"
    assert digest(plain) != digest(saved(large, "JPEG", quality=50))


def test_a_region_is_cut_alike_from_files_arrays_and_reduced_pictures(tmp_path: Path) -> None:
    """--region takes the same pixels whether a picture comes whole or was reduced while it was decoded."""
    y, x = np.mgrid[0:800, 0:1200]
    image = np.stack([x / 1200 * 255, y / 800 * 255, (x + y) % 256 // 4], axis=2).astype(np.uint8)
    data = saved(Image.fromarray(image), "JPEG", quality=95)
    spec = InputSpec(20, 30, 3, region=(300, 200, 600, 400))
    found = picture(data, spec).astype(int)
    wanted = np.asarray(Image.fromarray(image[200:600, 300:900]).resize((30, 20), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(found - wanted)[:, :, :2].mean() < 2
    with pytest.raises(ImageError, match="outside a picture 1200 pixels wide"):
        picture(data, InputSpec(20, 30, 3, region=(700, 200, 600, 400)))


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


RAMP_8_BIT = np.tile(np.arange(256, dtype=np.uint8), (4, 1))


RGB = np.stack([RAMP_8_BIT, RAMP_8_BIT[:, ::-1], RAMP_8_BIT // 2], axis=2)


def test_modes_become_grey_or_rgb() -> None:
    """Golden pixels: what each mode becomes."""
    grey, colour = Image.fromarray(RAMP_8_BIT), Image.fromarray(RGB)
    assert np.array_equal(decode(encoded(grey))[:, :, 0], RAMP_8_BIT)
    assert np.array_equal(decode(encoded(colour)), RGB)
    wide = Image.fromarray(RAMP_8_BIT.astype(np.uint16) * 257)
    assert np.array_equal(decode(encoded(wide))[:, :, 0], RAMP_8_BIT), "a 16-bit ramp keeps its range"
    assert set(np.unique(decode(encoded(grey.convert("1"))))) == {0, 255}
    assert decode(encoded(colour.convert("P"))).shape == (4, 256, 3)
    assert decode(encoded(colour.convert("CMYK"), "JPEG")).shape == (4, 256, 3)
    half = colour.convert("RGBA")
    half.putalpha(0)
    assert (decode(encoded(half)) == 255).all(), "transparency is laid on white"
    strokes = np.zeros((8, 8, 4), np.uint8)
    strokes[2:4, :, :] = 255
    on_black = decode(encoded(Image.fromarray(strokes)))
    assert on_black.max() == 255 and on_black.min() == 0, "white strokes on nothing stay visible"
    assert np.array_equal(to_channels(strokes, 3), on_black), "an array of the same pixels is the same picture"
    assert decode(encoded(grey.convert("LA"))).shape == (4, 256, 1)
    frames = encoded(grey, "GIF", save_all=True, append_images=[grey.point(lambda v: 0)])
    assert np.array_equal(decode(frames)[:, :, :1][:, :, 0], RAMP_8_BIT), "the first frame"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    """A photograph is turned upright, and its header's size says so."""
    image = Image.fromarray(RGB[:, :16])
    exif = image.getexif()
    exif[0x0112] = orientation
    data = encoded(image, "JPEG", exif=exif)
    header = read_header(data)
    assert decode(data).shape[:2] == (header.height, header.width) == ((4, 16) if orientation < 5 else (16, 4))


def test_pictures_that_cannot_be_read() -> None:
    """Empty, foreign, truncated and over-large files each get their reason; nothing else comes out."""
    good = encoded(Image.fromarray(RGB))
    cases = [
        (b"", "empty"),
        (b"hello", "not a picture"),
        (b"%PDF-1.4", "PDF"),
        (b"8BPS", "Photoshop"),
        (b"<svg xmlns=''/>", "SVG"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (good[:50], "damaged or truncated"),
    ]
    for data, words in cases:
        with pytest.raises(ImageError, match=words):
            decode(data)


def test_every_truncation_is_an_image_error() -> None:
    """Cut at any length, a small picture of any format is read or refused with a reason, never a crash."""
    image = Image.fromarray(RGB[:, :24])
    for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"):
        data = encoded(image, kind)
        for length in range(0, len(data), 1 if len(data) < 400 else 7):
            try:
                assert decode(data[:length]).dtype == np.uint8
            except ImageError as error:
                assert str(error)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]), st.integers(0, 10**6), st.integers(1, 255))
def test_flipped_bits_are_no_crash(format: str, at: int, flip: int) -> None:
    """One changed byte anywhere gives pixels or an ImageError."""
    data = bytearray(encoded(Image.fromarray(RGB[:, :24]), format))
    data[at % len(data)] ^= flip
    try:
        assert decode(bytes(data)).dtype == np.uint8
    except ImageError as error:
        assert "\n" not in str(error)


def test_a_bomb_is_refused_from_its_header() -> None:
    """A PNG of 30,000 × 30,000 pixels in a few bytes is refused before anything is allocated."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    for side in (8_100, 30_000):
        data = (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", b"")
        )
        assert side * side > MAX_PIXELS
        with pytest.raises(ImageError, match="too many pixels"):
            decode(data)


def photograph(height: int, width: int, orientation: int = 1, quality: int = 92) -> bytes:
    """A JPEG with large and small structure, as a camera would write it."""
    y, x = np.mgrid[0:height, 0:width]
    waves = 90 * np.sin(x / 37) + 60 * np.cos(y / 23) + 25 * np.sin((x + 2 * y) / 5)
    pixels = np.stack([128 + waves, 128 - waves, 60 + 0.1 * x + 0 * y], axis=2).clip(0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(pixels), "JPEG", quality=quality, exif=exif)


@pytest.mark.parametrize("framing", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_large_jpegs_are_decoded_at_a_fraction_and_look_the_same(framing: str, orientation: int) -> None:
    """Reduced-size decoding stays within a few grey levels of decoding all pixels, on every framing and side."""
    spec = InputSpec(32, 32, 3, framing)
    data = photograph(700, 1100, orientation)
    whole = decode(data)
    assert whole.shape[:2] == ((1100, 700) if orientation == 6 else (700, 1100))
    difference = np.abs(picture(data, spec).astype(int) - fit(whole, spec).astype(int))
    assert 0 < difference.mean() < 1.5 and difference.max() < 24


def test_how_far_a_jpeg_is_reduced() -> None:
    """To the smallest of 1, 1/2, 1/4, 1/8 that leaves twice what is needed; small pictures and PNGs not at all."""

    def decoded(height: int, width: int, spec: InputSpec) -> tuple[int, ...]:
        return decode_reduced(photograph(height, width), lambda h, w: spare(h, w, spec)).pixels.shape[:2]

    pad, crop = InputSpec(32, 32, 3, "pad"), InputSpec(32, 32, 3, "crop")
    assert decoded(63, 127, pad) == (63, 127) and decoded(64, 128, pad) == (32, 64)
    assert decoded(512, 512, pad) == (64, 64) and decoded(2000, 2000, pad) == (250, 250)
    assert decoded(120, 512, crop) == (120, 512) and decoded(256, 512, crop) == (64, 128)
    assert decoded(1200, 1600, InputSpec(28, 28, 1, "ink")) == (1200, 1600)
    assert decoded(1200, 2100, InputSpec(28, 28, 1, "ink")) == (600, 1050)
    png = encoded(Image.new("RGB", (512, 512)))
    assert decode_reduced(png, lambda h, w: spare(h, w, pad)).pixels.shape == (512, 512, 3)


def test_narrow_jpegs() -> None:
    """A strip is reduced by no more than its shorter side; one that is too long for the framing is called a strip."""
    assert picture(photograph(7, 1000), InputSpec(32, 32, 3)).shape == (32, 32, 3)
    assert picture(photograph(2100, 3), InputSpec(28, 28, 1, "ink")).shape == (28, 28, 1)
    with pytest.raises(ImageError, match="strip whose sides differ 286 times"):
        picture(photograph(7, 2000), InputSpec(32, 32, 3))


def test_a_damaged_large_jpeg_is_an_image_error() -> None:
    """Reduced-size decoding refuses a truncated file as whole decoding does."""
    data = photograph(400, 600)
    for end in (len(data) // 2, len(data) - 40):
        with pytest.raises(ImageError):
            picture(data[:end], InputSpec(32, 32, 3))


def test_odd_arrays_are_refused() -> None:
    """Pictures are numbers (H, W) or (H, W, 1, 3 or 4) and not endless strips."""
    spec = InputSpec(8, 8, 1)
    odd: list[tuple[NDArray[Any], str]] = [
        (np.full((4, 4), "a"), "numbers"),
        (np.full((4, 4), None), "numbers"),
        (np.full((4, 4), 1e6), "range nobody knows"),
        (np.zeros((4, 4, 2), np.uint8), "array"),
        (np.zeros(4, np.uint8), "array"),
        (np.zeros((0, 4), np.uint8), "array"),
        (np.zeros((1, 4000), np.uint8), "strip"),
    ]
    for pixels, words in odd:
        with pytest.raises(ImageError, match=words):
            fit(pixels, spec)
    with pytest.raises(UsageError, match="did you mean 'crop'"):
        InputSpec(8, 8, 1, "corp")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no peak of memory there")
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "I;16"])
def test_a_picture_just_under_the_limit_takes_eight_bytes_a_pixel(mode: str, tmp_path: Path) -> None:
    """Decoding and framing a PNG of 62 million pixels takes at most 8 bytes for each beyond what the process has (and
    a tenth for what the system rounds up)."""
    path, size = tmp_path / "big.png", (8000, 7750)
    Image.new(mode, size).save(path)
    program = (
        "import resource, sys\n"
        "from convlens.data.image.decode import content_digest, quiet_pillow\n"
        "from convlens.data.image.framing import InputSpec, framed\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "with quiet_pillow():\n"
        "    content_digest(data, framed(data, InputSpec(64, 64, int(sys.argv[2])))[1])\n"
        "print((peak() - before) * (1 if sys.platform == 'darwin' else 1024))\n"
    )
    for channels in "13":
        arguments = [sys.executable, "-c", program, str(path), channels]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
        assert int(done.stdout) <= 8.1 * size[0] * size[1], f"{int(done.stdout) / size[0] / size[1]:.1f} bytes a pixel"


def test_jpegs_beyond_the_limit_are_decoded_at_a_fraction(monkeypatch: pytest.MonkeyPatch) -> None:
    """A phone's JPEG of more pixels than are decoded is read at a half or less; other formats so large are refused."""
    monkeypatch.setattr("convlens.data.image.decode.MAX_PIXELS", 10_000)
    image = Image.fromarray(COLOUR).resize((300, 200))
    decoded = decode_reduced(saved(image, "JPEG"), lambda height, width: 1)
    assert decoded.whole == (200, 300) and decoded.pixels.shape == (50, 75, 3) and decoded.is_reduced
    assert decode(saved(image, "JPEG")).shape == (50, 75, 3)
    with pytest.raises(ImageError, match="too many pixels: 300×200"):
        decode(saved(image, "PNG"))
    with pytest.raises(ImageError, match="too many pixels"):
        decode(saved(image.resize((1000, 800)), "JPEG"))


def test_pictures_of_many_bands_are_named() -> None:
    """A TIFF of a satellite's thirteen bands is called that."""
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    ifd[277], ifd[256], ifd[257], ifd[258] = 13, 4, 4, 8
    file = io.BytesIO(b"II*\0\x08\0\0\0")
    file.seek(8)
    ifd.save(file)
    with pytest.raises(ImageError, match="13 bands"):
        decode(file.getvalue())


def _of_pillow(data: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[str, object]:
    """What comes of a JPEG without the shorter way: its pixels, or why there are none."""
    with monkeypatch.context() as context:
        context.setattr(decoding, "_plain_jpeg", lambda data: None)
        return _outcome(data)


def _outcome(data: bytes) -> tuple[str, object]:
    try:
        return "pixels", (read_header(data), decode(data).tobytes(), decode(data).shape)
    except ImageError as error:
        return "refused", str(error)


def test_plain_jpegs_are_decoded_as_pillow_decodes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pixels and headers, whatever the size, quality, subsampling, scan order and colours; and of what is
    truncated or damaged the same pixels, or the same reason."""
    rng = random.Random(4)
    num_plain = 0
    for number in range(60):
        picture = scene(number, rng.choice([1, 7, 8, 16, 31, 32, 33, 64, 100])).convert(rng.choice(["RGB", "RGB", "L"]))
        picture = picture.resize((max(1, picture.width + rng.randrange(-3, 4)), picture.height))
        page = io.BytesIO()
        options = {"quality": rng.choice([5, 50, 75, 95, 100]), "progressive": rng.random() < 0.3}
        picture.save(page, "JPEG", **options, subsampling=rng.choice([0, 1, 2]), optimize=rng.random() < 0.3)
        whole = page.getvalue()
        num_plain += decoding._plain_jpeg(whole) is not None
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.randrange(len(whole) // 2, len(whole))] ^= 1 << rng.randrange(8)
        cut = whole[: rng.randrange(2, len(whole))]
        for data in (whole, whole[:-1], whole[:-2], cut, bytes(damaged), whole + b"behind", whole + whole):
            assert _outcome(data) == _of_pillow(data, monkeypatch), (number, len(data), len(whole))
    assert num_plain == 60


def test_jpegs_that_say_more_are_left_to_pillow() -> None:
    """EXIF, a comment, a colour profile or CMYK: not plain."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode, options in (
        ("RGB", {"exif": exif}),
        ("RGB", {"comment": b"by hand"}),
        ("RGB", {"icc_profile": b"profile"}),
        ("CMYK", {}),
    ):
        page = io.BytesIO()
        scene(1).convert(mode).save(page, "JPEG", **options)
        assert decoding._plain_jpeg(page.getvalue()) is None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1 + 2e-16, (0, 1)),  # scikit-learn's MinMaxScaler
        (-1e-9, 1.0, (0, 1)),
        (-0.01, 1.2, (0, 1)),
        (0.0, 255.0001, (0, 255)),
        (0.0, 260.5, (0, 1_023)),
        (0.0, 4_096.5, (0, 4_095)),
        (-1.0, 0.7, (-1, 1)),
        (0.0, 3.7, None),
        (-0.5, 3.7, None),
    ],
)
def test_fractions_a_little_beyond_a_range(low: float, high: float, expected: tuple[float, float] | None) -> None:
    """Rounding and interpolation shoot over: no set becomes black by it, and what nobody can know is refused."""
    values = np.linspace(low, high, 999).reshape(27, 37)
    if expected is None:
        with pytest.raises(ImageError, match="whose range nobody knows"):
            range_in(values)
        return
    assert range_in(values) == expected
    pixels = to_uint8(values, range_in(values))
    assert abs(int(pixels.max()) - min(255, 255 * high / expected[1])) <= (80 if expected == (-1, 1) else 1)


def test_a_picture_of_fractions_for_a_model_of_bytes() -> None:
    """Brightened by half it is still 0..1 and not black; from there on nobody knows, and it is refused."""
    values = np.linspace(0, 1, 256).reshape(16, 16)
    for factor in (1.0, 1.03, 1.2, 1.5):
        pixels = to_uint8(values * factor)
        assert pixels.max() == 255 and abs(float(pixels.mean()) - 255 * np.clip(values * factor, 0, 1).mean()) < 1
    for factor in (1.6, 2.0, 5.0):
        with pytest.raises(ImageError, match="whose range nobody knows"):
            to_uint8(values * factor)


def test_bytes_in_other_types_lose_nothing() -> None:
    """Bytes divided by 255 or multiplied by 257 are known for bytes; what lies between their steps is not."""
    for values, known in (
        ((GREY / 255).astype(np.float32), (0, 1)),
        (RAMP, (0, 65_535)),
        (GREY.astype(np.int64), (0, 255)),
    ):
        assert not is_finer(values, known)
    assert is_finer((GREY / 255 + 0.001).astype(np.float32), (0, 1)) and is_finer(RAMP // 2, (0, 65_535))


def test_whole_numbers_lie_on_the_ladder() -> None:
    """256 in 16 bits is no byte that shot over."""
    assert range_in(np.array([[0, 256]], np.uint16)) == (0, 1_023)
    assert range_in(np.array([[0.0, 256.0]])) == (0, 1_023)


def test_tiff_of_16_bits_in_every_order() -> None:
    """Big-endian as ImageJ writes it, little-endian, and with 0 for white: the same picture, 16 bits deep."""
    values = np.arange(24 * 16, dtype=np.uint16).reshape(24, 16) * 100
    for photometric, order in ((1, ">"), (0, "<"), (1, "<")):
        stored = values if photometric else 65_535 - values
        data = _tiff(stored, order, {262: photometric})
        found = decode_reduced(data, lambda height, width: 1).pixels
        assert found.dtype == np.uint16 and np.array_equal(found[:, :, 0], values)
        assert read_header(data).is_wide


def test_tiff_on_its_side_has_the_size_of_its_pixels() -> None:
    """An orientation that lays a TIFF on its side is counted once in the header and in the pixels."""
    values = np.arange(24 * 16, dtype=np.uint8).reshape(24, 16)
    for orientation in range(1, 9):
        data = _tiff(values, "<", {274: orientation})
        header, pixels = read_header(data), decode(data)
        assert (header.height, header.width) == pixels.shape[:2] == ((24, 16) if orientation < 5 else (16, 24))


def test_tiff_of_many_bands_or_of_another_kind_is_named() -> None:
    """Five bands are not read as the first three; 64-bit floats are not called damaged."""
    with pytest.raises(ImageError, match="TIFF of 5 bands"):
        decode(_tiff(np.zeros((8, 8, 5), np.uint8), "<", {262: 2, 338: (0, 0)}))
    with pytest.raises(ImageError, match="TIFF of a kind that is not read"):
        decode(_tiff(np.zeros((8, 8)), "<", {339: 3}))


def _tiff(values: NDArray[Any], order: Any, more: dict[int, Any]) -> bytes:
    """An uncompressed TIFF of one strip, as plain as they come; `more` are tags of 16 bits."""
    bands = values.shape[2] if values.ndim == 3 else 1
    pixels = values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags: dict[int, Any] = {256: values.shape[1], 257: values.shape[0], 258: (8 * values.itemsize,) * bands, 259: 1}
    tags |= {262: 1, 273: 8, 277: bands, 278: values.shape[0], 279: len(pixels)} | more
    after = b""
    entries = b""
    place = 8 + len(pixels) + 2 + 12 * len(tags) + 4
    for tag, said in sorted(tags.items()):
        numbers = said if isinstance(said, tuple) else (said,)
        kind = "I" if tag in (273, 279) else "H"
        packed = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        if len(packed) > 4:
            packed, after = struct.pack(f"{order}I", place + len(after)), after + packed
        entries += struct.pack(f"{order}HHI", tag, 4 if kind == "I" else 3, len(numbers)) + packed.ljust(4, b"\0")
    start = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    return start + struct.pack(f"{order}I", 8 + len(pixels)) + pixels + directory + after
