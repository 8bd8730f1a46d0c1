"""What people and their tools do to pictures before they split them."""

import io
import math
import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

Alteration = Callable[[Image.Image, random.Random], Image.Image]
_BICUBIC, _TURN = Image.Resampling.BICUBIC, Image.Transpose


def _angle(rng: random.Random) -> float:
    return rng.choice([-1, 1]) * rng.uniform(3, 20)


def _inside(image: Image.Image, angle: float) -> Image.Image:
    """Turned, and cut to the largest part of its shape that has no corners filled in."""
    width, height = image.size
    sin, cos = math.sin(math.radians(abs(angle))), math.cos(math.radians(abs(angle)))
    share = min(width / (width * cos + height * sin), height / (width * sin + height * cos))
    left, top = round(width * (1 - share) / 2), round(height * (1 - share) / 2)
    return image.rotate(angle, _BICUBIC).crop((left, top, width - left, height - top))


def _cut(image: Image.Image, rng: random.Random, across: float, down: float) -> Image.Image:
    width, height = round(image.width * across), round(image.height * down)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def _shifted(image: Image.Image, rng: random.Random) -> Image.Image:
    """By up to a tenth of its sides, edges repeated."""
    pixels = np.asarray(image)
    places = [np.clip(np.arange(size) - round(rng.uniform(-0.1, 0.1) * size), 0, size - 1) for size in pixels.shape[:2]]
    return Image.fromarray(pixels[places[0]][:, places[1]])


def _marked(image: Image.Image, rng: random.Random) -> Image.Image:
    """With a rectangle, a strip or a stamp over a tenth."""
    image = image.copy()
    draw, ratio = ImageDraw.Draw(image), rng.uniform(0.5, 2)
    area = 0.1 * image.width * image.height
    width, height = min(image.width, round(math.sqrt(area * ratio))), min(image.height, round(math.sqrt(area / ratio)))
    kind = rng.choice(["white", "black", "red", "strip", "stamp"])
    if kind == "strip":
        width, height = image.width, round(0.1 * image.height)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    box = (left, top, left + width, top + height)
    if kind == "stamp":
        draw.rectangle(box, outline="white", width=2)
        for down in range(0, height, 10):
            draw.text((left, top + down), "SAMPLE COPY SAMPLE"[: max(1, width // 6)], fill="white")
    else:
        draw.rectangle(box, fill="white" if kind == "strip" else kind)
    return image


def _noisy(image: Image.Image, rng: random.Random) -> Image.Image:
    pixels = np.asarray(image) + np.random.default_rng(rng.randrange(1 << 30)).normal(0, 15, (*image.size[::-1], 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _compressed(image: Image.Image) -> Image.Image:
    page = io.BytesIO()
    image.save(page, "JPEG", quality=20)
    return Image.open(page).convert("RGB")


ALTERATIONS: dict[str, Alteration] = {
    "turned a little": lambda image, rng: image.rotate(_angle(rng), _BICUBIC),
    "turned by 20 degrees": lambda image, rng: image.rotate(rng.choice([-20, 20]), _BICUBIC),
    "turned, corners white": lambda image, rng: image.rotate(_angle(rng), _BICUBIC, fillcolor=(255, 255, 255)),
    "turned and enlarged": lambda image, rng: image.rotate(_angle(rng), _BICUBIC, expand=True),
    "turned and cut": lambda image, rng: _inside(image, _angle(rng)),
    "turned by a quarter": lambda image, rng: image.transpose(rng.choice([_TURN.ROTATE_90, _TURN.ROTATE_270])),
    "turned by a half": lambda image, rng: image.transpose(_TURN.ROTATE_180),
    "mirrored": lambda image, rng: image.transpose(_TURN.FLIP_LEFT_RIGHT),
    "mirrored and turned": lambda image, rng: image.transpose(_TURN.FLIP_LEFT_RIGHT).rotate(_angle(rng), _BICUBIC),
    "mirrored and by a quarter": lambda image, rng: image.transpose(rng.choice([_TURN.TRANSPOSE, _TURN.TRANSVERSE])),
    "darkened": lambda image, rng: ImageEnhance.Brightness(image).enhance(0.6),
    "lightened": lambda image, rng: ImageEnhance.Brightness(image).enhance(1.5),
    "grey": lambda image, rng: ImageEnhance.Color(image).enhance(0),
    "paler": lambda image, rng: ImageEnhance.Color(image).enhance(0.5),
    "stronger in colour": lambda image, rng: ImageEnhance.Color(image).enhance(2),
    "marked": _marked,
    "cut": lambda image, rng: _cut(image, rng, 0.7, 0.7),
    "cut unevenly": lambda image, rng: _cut(image, rng, rng.uniform(0.7, 1), rng.uniform(0.7, 1)),
    "cut on one side": lambda image, rng: _cut(
        image, rng, *rng.choice([(rng.uniform(0.7, 0.85), 1), (1, rng.uniform(0.7, 0.85))])
    ),
    "cut and made square": lambda image, rng: _cut(image, rng, 0.7, 0.7).resize((224, 224), _BICUBIC),
    "shifted": _shifted,
    "blurred": lambda image, rng: image.filter(ImageFilter.GaussianBlur(2)),
    "noisy": _noisy,
    "of half the size": lambda image, rng: image.resize((image.width // 2, image.height // 2), _BICUBIC),
    "compressed": lambda image, rng: _compressed(image),
}
