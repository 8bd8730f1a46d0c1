"""The only decoder: the bytes of a picture to uint8 pixels (H, W, C).

Owns which formats are read, how each pixel mode becomes grey or RGB, and the ceiling on pixels, which is checked
from the header before anything is decoded. Knows nothing of sizes or networks. docs/formats.md has the table.
"""

import ctypes.util
import hashlib
import io
import math
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Importing a plugin registers its format; Image.open knows only those that are registered.
from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin  # isort: skip
from PIL import PngImagePlugin, PpmImagePlugin, TiffImagePlugin, WebPImagePlugin  # isort: skip

from convlens.data.image.values import to_uint8
from convlens.errors import ImageError
from convlens.text import MAKER, shown

try:
    import simplejpeg
except ImportError:  # in a kit: Pillow decodes all of it, to the same pixels
    simplejpeg = None

Pixels = NDArray[np.uint8]

DECODER_VERSION = 4  # raised whenever the same bytes would give other pixels; packed sets are then made anew
MAX_PIXELS = 64_000_000  # once decoded; of JPEGs, which can be decoded at a fraction, 64 times as many before
_STRIP_PIXELS = 1 << 20
_COMMENT, _JFIF_START = 0xFE, b"\xff\xd8\xff\xe0"
_PLAIN_MARKERS = (0xE0, 0xDB, 0xC4, 0xDD)  # of a JPEG: JFIF, quantisation and Huffman tables, restarts
MAX_FILE_BYTES = 256 * 1024 * 1024
SOFTWARE = 0x0131  # of EXIF: who made it
_ORIENTATION, _ON_THEIR_SIDE = 0x0112, (5, 6, 7, 8)  # of EXIF
_PLUGINS = (
    PngImagePlugin.PngImageFile,
    JpegImagePlugin.JpegImageFile,
    WebPImagePlugin.WebPImageFile,
    BmpImagePlugin.BmpImageFile,
    GifImagePlugin.GifImageFile,
    TiffImagePlugin.TiffImageFile,
    PpmImagePlugin.PpmImageFile,
)
FORMATS = tuple(plugin.format for plugin in _PLUGINS)
SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm", ".pbm"]
)
# Pictures that people have and that are not read: they are quarantined by name rather than passed over.
_OTHERS = ".heic .heif .avif .psd .eps .svg .svgz .pdf .ai .xcf .jp2 .j2k .jxl .ico .tga .exr .dcm .pcx .wmf .emf"
_RAW = ".dng .cr2 .cr3 .nef .arw .orf .raf .rw2"
REFUSED_SUFFIXES = frozenset(f"{_OTHERS} {_RAW}".split())

_SIGNATURES = (
    (b"%PDF", "PDF"),
    (b"%!PS", "EPS"),
    (b"8BPS", "Photoshop"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML or SVG"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "gzip"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
    (b"gimp xcf", "GIMP's XCF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\x01\0", "an icon (ICO)"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"FUJIFILM", "a camera's raw file"),
)
_HEIF_BRANDS = b"heic heix mif1 msf1 heim heis hevc hevx".split()
_HEIC = (
    "HEIC, which is not read: convert it to JPEG first, with 'heif-convert IN.heic OUT.jpg' or, on a Mac, "
    "'sips -s format jpeg IN.heic --out OUT.jpg'"
)


class Header(NamedTuple):
    """What a picture's header says: size in pixels as it will be shown, channels (1 grey, 3 colour), format, and
    whether its values are no bytes."""

    height: int
    width: int
    channels: int
    format: str
    is_wide: bool = False


def read_bytes(path: Path | str) -> bytes:
    """The bytes of a picture file. Raises ImageError where it cannot be read, is empty or too large."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path takes longer than to read a small file
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, a device never ends
            raise ImageError("no file, but a folder, pipe or device")
        if status.st_size > MAX_FILE_BYTES:
            raise ImageError(f"{status.st_size:,} bytes is more than the limit of {MAX_FILE_BYTES:,}")
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - the same
            data = file.readall()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a null byte in the name
        raise ImageError(f"cannot be read: {error}") from error
    return data


def read_header(data: bytes) -> Header:
    """Size, channels and format from the header alone. Raises ImageError as `decode` does."""
    if (plain := _plain_jpeg(data)) is not None:
        return Header(*plain, "JPEG")
    with _open(data) as image:
        width, height = image.size
        try:
            orientation = _orientation(image)
        except Exception:  # decode() says what is wrong with it
            orientation = 1
        if orientation in _ON_THEIR_SIDE and image.format != "TIFF":  # of a TIFF Pillow says the upright size
            width, height = height, width
        return Header(height, width, _num_channels(image), str(image.format), _is_wide(image))


Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels


class Reduced(NamedTuple):
    """Pixels (H, W, C) as `pixels_of` gives them, the box of them that the picture fills, and the whole picture's
    (height, width).

    A picture of 333 rows is reduced to a quarter as 84 rows, of which it fills 83.25. `is_first` says that the file has
    more frames or pages than this one, `is_jpeg` that it is compressed as JPEG, `is_reduced` that it was decoded at a
    fraction."""

    pixels: NDArray[Any]
    box: Box
    whole: tuple[int, int]
    is_first: bool = False
    is_jpeg: bool = False
    is_reduced: bool = False


def decode(data: bytes) -> Pixels:
    """The pixels of a picture: uint8 (H, W, 1) for grey or (H, W, 3) for colour, upright (EXIF), first frame.

    Values that are no bytes are read in the range of their kind (`values.to_uint8`: 16 bits become 8 by rounding
    v / 257); transparency is laid on white (on black where it would vanish on
    white); palettes and CMYK become RGB. Raises ImageError with the reason.
    """
    return to_uint8(decode_reduced(data, lambda height, width: 1).pixels)


def decode_reduced(data: bytes, spare: Callable[[int, int], float]) -> Reduced:
    """As `decode`, a large JPEG at 1/2, 1/4 or 1/8 of its size: libjpeg's inverse DCT of the low frequencies alone, and
    one beyond MAX_PIXELS at as much as it takes.

    `spare` says of an upright picture's (height, width) how many times larger than needed it is. Raises ImageError
    with the reason.
    """
    if simplejpeg is not None and (plain := _plain_jpeg(data)) is not None and spare(*plain[:2]) < 2:
        # The same pixels as Pillow's, in a tenth of the time: of a small one, most of that is Python's.
        with suppress(ValueError):  # what is damaged is left to Pillow
            height, width, channels = plain
            pixels = simplejpeg.decode_jpeg(data, "GRAY" if channels == 1 else "RGB")
            return Reduced(pixels, (0, 0, width, height), (height, width), is_jpeg=True)
    with _open(data) as image:
        try:
            whole = image.size
            if image.format in ("JPEG", "MPO"):
                on_its_side = _orientation(image) in _ON_THEIR_SIDE
                reduction = spare(*whole) if on_its_side else spare(whole[1], whole[0])
                reduction = max(reduction, next(f for f in (1, 2, 4, 8) if math.prod(whole) <= f * f * MAX_PIXELS))
                factor = next((f for f in (8, 4, 2) if f <= min(reduction, *whole)), 1)
                if factor > 1:
                    image.draft(None, (whole[0] // factor, whole[1] // factor))
            drafted, orientation = image.size, _orientation(image)
            pixels = pixels_of(image)
            is_first = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
        except (ImageError, MemoryError):
            raise
        except Exception as error:  # Pillow's plugins raise whatever their parsing runs into
            raise ImageError(f"damaged or truncated {image.format}: {shown(error)}") from error
    height, width = pixels.shape[:2]
    is_jpeg = image.format in ("JPEG", "MPO")
    if drafted == whole:
        return Reduced(pixels, (0, 0, width, height), (height, width), is_first, is_jpeg)
    # What the last row and column have too much lies where turning the picture upright has put it.
    over_x, over_y = (n - m / factor for n, m in zip(drafted, whole, strict=True))
    if orientation in _ON_THEIR_SIDE:
        over_x, over_y = over_y, over_x
    left, top = over_x if orientation in (2, 3, 6, 7) else 0, over_y if orientation in (3, 4, 7, 8) else 0
    upright = whole if orientation in _ON_THEIR_SIDE else (whole[1], whole[0])
    return Reduced(pixels, (left, top, left + width - over_x, top + height - over_y), upright, is_first, is_jpeg, True)


def content_digest(data: bytes, decoded: Reduced) -> bytes:
    """SHA-256 of what a picture shows, whatever size it is decoded or framed to: what splits are drawn from.

    Of a JPEG the compressed image without its metadata; of others the decoded pixels as grey, so that the same picture
    as PNG and as BMP, as grey and as RGB, has one digest. Values that are no bytes count as they are, so that no range
    that is found later moves a picture."""
    if decoded.is_jpeg:
        return _jpeg_digest(data)
    pixels = decoded.pixels
    digest = hashlib.sha256(str(pixels.shape[:2]).encode())
    rows = max(1, _STRIP_PIXELS // pixels.shape[1])
    for start in range(0, len(pixels), rows):
        part = pixels[start : start + rows]
        grey = part[:, :, 0] if part.shape[2] == 1 else np.asarray(Image.fromarray(part).convert("L"))
        digest.update(np.ascontiguousarray(grey).data)
    return digest.digest()


def _jpeg_digest(data: bytes) -> bytes:
    """SHA-256 of a JPEG without its APPn and comment segments."""
    kept, at = [], 2
    for marker, start, at in _segments(data):
        if not (0xE0 <= marker <= 0xEF or marker == _COMMENT):
            kept.append(data[start:at])
    return hashlib.sha256(b"".join([*kept, memoryview(data)[at:]])).digest()


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """A JPEG's segments before the start of scan, behind which the compressed image follows: marker, start and end
    (ITU-T T.81, annex B)."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        end = at + 2 + (data[at + 2] << 8 | data[at + 3])
        yield data[at + 1], at, end
        at = end


def _plain_jpeg(data: bytes) -> tuple[int, int, int] | None:
    """(height, width, channels) of a small JPEG that says nothing but that it is one: a JFIF of 8 bits, grey or YCbCr,
    without EXIF, profile or comment. None for all others."""
    if not data.startswith(_JFIF_START) or data[6:11] != b"JFIF\0":
        return None
    found, end = None, 0
    for marker, start, end in _segments(data):
        if marker in (0xC0, 0xC1, 0xC2) and start + 10 <= min(end, len(data)) and data[start + 4] == 8:
            height, width = data[start + 5] << 8 | data[start + 6], data[start + 7] << 8 | data[start + 8]
            found = height, width, data[start + 9]
        elif marker not in _PLAIN_MARKERS:
            return None
    if found is None or data[end : end + 2] != b"\xff\xda":
        return None
    height, width, channels = found
    is_plain = channels in (1, 3) and 0 < height * width <= min(_STRIP_PIXELS, MAX_PIXELS)
    return found if is_plain else None


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Without Pillow's warnings on odd metadata and on bombs above its own limit: ours is lower and final.

    Filters are the process's: enter it in one thread, around those that decode.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


@cache
def _quiet_libtiff() -> None:
    """Keep libtiff, which Pillow decodes TIFF with, from writing lines of its own to the terminal. The library is the
    one beside Pillow in its wheels, or the system's; on Windows it is inside Pillow and out of reach."""
    inside = Path(Image.__file__).parent
    beside = [*inside.with_name("pillow.libs").glob("libtiff*"), *inside.glob(".dylibs/libtiff*")]
    for path in [str(path) for path in beside] or [ctypes.util.find_library("tiff") or ""]:
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(path)
            library.TIFFSetErrorHandler(None)
            library.TIFFSetWarningHandler(None)


def _open(data: bytes) -> Image.Image:
    if data[:2] in (b"II", b"MM"):
        _quiet_libtiff()
    if not data:
        raise ImageError("empty file (0 bytes)")
    is_jpeg = data.startswith(b"\xff\xd8\xff")
    try:
        # Pillow's own limit is for all formats, and JPEGs can be decoded at a fraction.
        file = io.BytesIO(data)
        image = JpegImagePlugin.jpeg_factory(file) if is_jpeg else Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(f"too many pixels: the limit is {MAX_PIXELS:,}") from error
    except Exception as error:
        raise ImageError(_what_it_is_instead(data)) from error
    if image.info.get("Software") == MAKER or image.info.get("comment") == MAKER.encode() or _is_own_webp(image):
        raise ImageError("a picture that convlens has drawn, which is never read as data")
    width, height = image.size
    most = 64 * MAX_PIXELS if is_jpeg else MAX_PIXELS
    if width * height > most:
        raise ImageError(f"too many pixels: {width}×{height}, the limit is {most:,}")
    if width < 1 or height < 1:
        raise ImageError(f"no pixels: {width}×{height}")
    if image.format == "TIFF" and (bands := _bands_of_tiff(data)) > 4:
        raise ImageError(_too_many(bands))
    return image


def _too_many(bands: int) -> str:
    return f"a TIFF of {bands} bands: grey, RGB and RGBA are read; choose the bands that are meant"


def _is_own_webp(image: Image.Image) -> bool:
    return image.format == "WEBP" and "exif" in image.info and image.getexif().get(SOFTWARE) == MAKER


def _what_it_is_instead(data: bytes) -> str:
    start = data[:64].lstrip()
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        if brand in _HEIF_BRANDS:
            return _HEIC
        if brand in (b"avif", b"avis"):
            return "AVIF, which is not read: convert it to JPEG or PNG first"
        return "not a picture that is read, but a video or a camera's raw file"
    for signature, name in _SIGNATURES:
        if start.lower().startswith(signature.lower()):
            return f"not a picture that is read, but {name}"
    if (bands := _bands_of_tiff(data)) > 4:
        return _too_many(bands)
    if bands:
        return (
            "a TIFF of a kind that is not read, or a damaged one: 8 or 16 bits and 32-bit floats of one band are read"
        )
    if data.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")):
        return "damaged or truncated: its header cannot be read"
    return f"not a picture in a format that is read ({', '.join(FORMATS)})"


def _bands_of_tiff(data: bytes) -> int:
    """Samples a pixel of a TIFF; 0 where that cannot be read, or it is none."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return 0
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file = io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        bands = directory.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)
    except Exception:  # Pillow's plugins raise whatever their parsing runs into
        return 0
    return bands if isinstance(bands, int) else 0


def looks_like_a_picture(start: bytes) -> bool:
    """Whether a file begins as a picture does, of a format that is read or of one that is told apart from others."""
    if start[:4] == b"RIFF":
        return start[8:12] == b"WEBP"
    known = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*")
    is_bmp = (
        start[:2] == b"BM"
        and len(start) > 18
        and start[14:18] in (b"\x28\0\0\0", b"\x0c\0\0\0", b"\x6c\0\0\0", b"\x7c\0\0\0")
    )
    is_netpbm = start[:1] == b"P" and start[1:2] in b"123456" and start[2:3] in b" \t\r\n" and len(start) > 3
    return start.startswith(known) or is_bmp or is_netpbm or (start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS)


def _orientation(image: Image.Image) -> int:
    """How the picture is to be turned, as EXIF or XMP has it; 1 is upright."""
    if image.format == "JPEG" and not image.info.keys() & {"exif", "xmp"}:
        return 1  # to look takes as long as to decode a small picture
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) else 1


def _num_channels(image: Image.Image) -> int:
    return 1 if image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;") else 3


def _is_white_zero(image: Image.Image) -> bool:
    """Whether a TIFF's 0 is white, which Pillow turns round in bytes alone."""
    tags: Any = getattr(image, "tag_v2", {})
    return bool(tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0)


def _is_wide(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;")


def pixels_of(image: Image.Image) -> NDArray[Any]:
    """(H, W, C) of an open PIL image: uint8 as `decode` says, or the values as they are where they are no bytes:
    uint16, int32 or float32, (H, W, 1). Raises ImageError where it cannot be read."""
    try:
        image.load()
        orientation = _orientation(image)
        if _is_wide(image):
            is_negative = image.format == "TIFF" and image.mode.startswith("I;16") and _is_white_zero(image)
            if image.mode == "I;16B":  # as ImageJ writes; Pillow can hardly do anything with it
                image = image.convert("I")
            low, high = image.getextrema()
            # Pillow opens PNGs and PGMs of 16 bits as 32.
            is_16_bit = image.mode != "F" and low >= 0 and high <= 65_535  # type: ignore[operator]  # of one band
            kind = np.uint16 if is_16_bit else np.float32 if image.mode == "F" else np.int32
            values = _gathered(image, orientation, 1, kind, np.asarray)
            return 65_535 - values if is_negative else values
        if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
            return _without_transparency(image, orientation)
        channels = _num_channels(image)
        mode = "L" if channels == 1 else "RGB"

        def of_part(part: Image.Image) -> NDArray[Any]:
            return np.asarray(part if part.mode == mode else part.convert(mode))

        return _gathered(
            image,
            orientation,
            channels,
            np.uint8,
            of_part,
        )
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever their parsing runs into
        raise ImageError(f"damaged or truncated {image.format or 'picture'}: {shown(error)}") from error


def _gathered(
    image: Image.Image, orientation: int, channels: int, kind: Any, values_of: Callable[[Image.Image], NDArray[Any]]
) -> NDArray[Any]:
    """(H, W, C) of a picture, upright, a strip at a time: a large one takes little more than itself."""
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // max(1, width))
    if rows >= height and orientation == 1:
        return np.asarray(values_of(image), kind).reshape(height, width, channels)
    upright = (width, height) if orientation in _ON_THEIR_SIDE else (height, width)
    pixels = np.empty((*upright, channels), kind)
    as_stored = _turned(pixels, _BACK.get(orientation, orientation))
    for top in range(0, height, rows):
        part = values_of(image.crop((0, top, width, min(height, top + rows))))
        as_stored[top : top + rows] = part.reshape(-1, width, channels)
    return pixels


_BACK = {6: 8, 8: 6}  # the others are undone by themselves


def _turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """A view of pixels as an EXIF orientation turns them."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    down = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    across = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return pixels[down, across]


def _without_transparency(image: Image.Image, orientation: int) -> Pixels:
    """A picture laid on white, or on black where it would vanish on white; grey stays grey."""
    channels = _num_channels(image)
    alphas: set[int] = set()

    def laid_on(ground: int) -> Callable[[Image.Image], Pixels]:
        def values_of(part: Image.Image) -> Pixels:
            rgba = np.asarray(part.convert("RGBA"))
            alphas.update((int(rgba[:, :, 3].min()), int(rgba[:, :, 3].max())))
            return _blended(rgba, ground)[:, :, :channels]

        return values_of

    pixels = _gathered(image, orientation, channels, np.uint8, laid_on(255))
    if len(alphas) > 1 and pixels.min() == pixels.max():
        pixels = _gathered(image, orientation, channels, np.uint8, laid_on(0))  # white strokes on a transparent ground
    return pixels


def without_transparency(rgba: Pixels) -> Pixels:
    """uint8 (H, W, 4) laid on white as (H, W, 3); on black where it would vanish on white."""
    pixels, alpha = _blended(rgba, 255), rgba[:, :, 3]
    if alpha.min() != alpha.max() and pixels.min() == pixels.max():
        pixels = _blended(rgba, 0)
    return pixels


def _blended(rgba: Pixels, ground: int) -> Pixels:
    """uint8 (H, W, 4) laid on a grey as (H, W, 3)."""
    pixels = np.empty((*rgba.shape[:2], 3), np.uint8)
    for start in range(0, len(rgba), 64):  # few rows at a time: the products need four times the memory
        part = rgba[start : start + 64].astype(np.uint32)
        opaque = part[:, :, 3:]
        pixels[start : start + 64] = (part[:, :, :3] * opaque + ground * (255 - opaque) + 127) // 255
    return pixels
