"""Decoding and framing: what each kind of picture becomes, and that framing is what MNIST's makers did."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from convlens.data.image.decode import MAX_PIXELS, decode, decode_reduced, read_header
from convlens.data.image.framing import FRAMINGS, InputSpec, fit, picture, spare, to_channels
from convlens.data.image.ink import is_framed_ink
from convlens.data.packed.pack import open_data
from convlens.errors import ImageError, UsageError

INK = InputSpec(28, 28, 1, "ink")


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


RAMP = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
RGB = np.stack([RAMP, RAMP[:, ::-1], RAMP // 2], axis=2)


def test_modes_become_grey_or_rgb() -> None:
    """Golden pixels: what each mode becomes."""
    grey, colour = Image.fromarray(RAMP), Image.fromarray(RGB)
    assert np.array_equal(decode(encoded(grey))[:, :, 0], RAMP)
    assert np.array_equal(decode(encoded(colour)), RGB)
    wide = Image.fromarray(RAMP.astype(np.uint16) * 257)
    assert np.array_equal(decode(encoded(wide))[:, :, 0], RAMP), "a 16-bit ramp keeps its range"
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
    assert np.array_equal(decode(frames)[:, :, :1][:, :, 0], RAMP), "the first frame"


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


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([f for f in FRAMINGS if f != "ink"]),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([1, 3]),
    st.sampled_from([1, 3]),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(0, 2**32 - 1),
)
def test_framing_gives_the_asked_shape_and_is_idempotent(
    framing: str, h: int, w: int, c_in: int, c_out: int, out_h: int, out_w: int, seed: int
) -> None:
    """Any picture comes out in the input's shape, and a framed one comes back unchanged."""
    spec = InputSpec(out_h, out_w, c_out, framing)
    pixels = np.random.default_rng(seed).integers(0, 256, (h, w, c_in), dtype=np.uint8)
    framed = fit(pixels, spec)
    assert framed.shape == (out_h, out_w, c_out) and framed.dtype == np.uint8
    assert np.array_equal(fit(framed, spec), framed)


def test_pad_cuts_nothing_off_and_fills_with_the_edge() -> None:
    """A wide picture is letterboxed with the mean of the edges that are extended; crop cuts, stretch squeezes."""
    wide = np.full((10, 40), 100, np.uint8)
    wide[:, :4] = 0
    padded = fit(wide, InputSpec(20, 20, 1, "pad"))[:, :, 0]
    assert padded[0, 0] == padded[-1, -1] == 90
    assert padded[10, 0] < 30 and padded[10, 15] == 100
    assert fit(wide, InputSpec(20, 20, 1, "crop")).min() == 100
    assert fit(wide, InputSpec(20, 20, 1, "stretch"))[10, 0, 0] < 40


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
    """Pictures are uint8 (H, W) or (H, W, 1, 3 or 4) and not endless strips."""
    spec = InputSpec(8, 8, 1)
    odd: list[tuple[NDArray[Any], str]] = [
        (np.zeros((4, 4)), "uint8"),
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


# ---------------------------------------------------------------- ink


def test_mnist_passes_ink_unchanged() -> None:
    """At least 99.9 % of MNIST's own images (a third of train, all of val) come back as they were."""
    mnist = open_data("mnist")
    images = np.concatenate([mnist.images("train")[::3], mnist.images("val")])
    same = [np.array_equal(fit(image, INK), image) for image in images]
    assert np.mean(same) >= 0.999


def drawing(side: int, width: int, ink: int, ground: int, at: tuple[float, float] = (0.5, 0.5)) -> NDArray[np.uint8]:
    image = Image.new("L", (side, side), ground)
    x, y, r = at[0] * side, at[1] * side, side * 0.2
    draw = ImageDraw.Draw(image)
    draw.line((x, y - 1.5 * r, x, y + 1.5 * r), fill=ink, width=width)
    draw.line((x - r / 2, y - r, x, y - 1.5 * r), fill=ink, width=width)
    return np.asarray(image)


@pytest.mark.parametrize(("ink", "ground"), [(0, 255), (255, 0), (60, 200), (230, 120)])
@pytest.mark.parametrize(
    ("side", "width"), [(28, 2), (200, 4), (600, 1), (900, 1), (900, 12), (900, 80), (3000, 1), (3000, 3), (3000, 30)]
)
@pytest.mark.parametrize("at", [(0.5, 0.5), (0.3, 0.35), (0.7, 0.6)])
def test_ink_meets_the_convention(side: int, width: int, ink: int, ground: int, at: tuple[float, float]) -> None:
    """Whatever its polarity, size, pen and place, ink comes out bright on 0, 20 px long, centred, and idempotent."""
    framed = fit(drawing(side, width, ink, ground, at), INK)[:, :, 0]
    assert is_framed_ink(framed)
    assert framed.max() == 255 and np.median(framed) == 0
    assert np.array_equal(fit(framed, INK)[:, :, 0], framed)


def test_ink_sees_through_even_shade() -> None:
    """A sheet that darkens from corner to corner gives the same ink as an evenly lit one."""
    sheet = drawing(400, 10, 0, 255).astype(np.float64)
    y, x = np.mgrid[0:400, 0:400] / 400
    shaded = (sheet / 255 * (220 - 70 * x - 50 * y)).clip(0, 255).astype(np.uint8)
    plain, seen = fit(drawing(400, 10, 0, 255), INK), fit(shaded, INK)
    assert np.abs(plain.astype(int) - seen).mean() < 6


def test_an_empty_sheet_is_empty() -> None:
    """A picture without ink becomes an empty one, not an error and not noise blown up."""
    assert fit(np.full((50, 60), 255, np.uint8), INK).max() == 0


def test_a_large_photograph_costs_bounded_memory() -> None:
    """Ink is found on a reduced copy: a 16-megapixel sheet needs no array of doubles of its size."""
    import tracemalloc

    sheet = drawing(4000, 60, 20, 240)
    tracemalloc.start()
    framed = fit(sheet, INK)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert is_framed_ink(framed[:, :, 0])
    assert peak_bytes < 150e6


def test_own_digits_are_framed_like_mnist(tmp_path: Path) -> None:
    """All of the digits drawn by people meet MNIST's convention after framing."""
    from tests.conftest import shared

    for path in sorted(shared("drawn_digits", tmp_path).rglob("*.*")):
        framed = fit(decode(path.read_bytes()), INK)[:, :, 0]
        assert is_framed_ink(framed), path.name
