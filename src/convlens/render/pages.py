"""Pages and notebook views: HTML from plain rows, texts and pixel arrays.

Owns the templates, their one stylesheet, and the escaping of whatever is put into them. Knows no value of the house.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files as resources
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convlens.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FunctionLoader
    from markupsafe import Markup, escape

    def load(name: str) -> str:
        return resources("convlens.render").joinpath("templates", name).read_text(encoding="utf-8")

    def code(text: str) -> Markup:
        """What stands in backticks, as code."""
        return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(printable(text)))))

    def shown_in_pages(value: Any) -> Any:
        return printable(value) if type(value) is str else value

    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(load), finalize=shown_in_pages
    )
    environment.filters["code"] = code
    return environment


def page(template: str, **values: Any) -> str:
    """A whole page, one file that needs nothing beside it, from a template in `templates/`."""
    return _templates().get_template(template).render(**values)


def notebook(
    title: str = "",
    *,
    lines: Sequence[str] = (),
    header: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
    items: Sequence[str] = (),
    source: str = "",
    image: str = "",
) -> str:
    """What a notebook shows of a value: a title, lines, a table, a list, source text, a picture (a data URL)."""
    values = {"title": title, "lines": lines, "header": header, "rows": rows, "items": items}
    return page("notebook.html", source=source, image=image, **values)


def data_url(data: bytes, kind: str) -> str:
    """Bytes of an image of a kind like "image/png" as a URL that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def thumbnail(pixels_HWC: NDArray[np.uint8], side: int) -> str:
    """A small view of uint8 (H, W, 1 or 3) as a data URL, enlarged in whole steps up to `side` pixels."""
    from PIL import Image

    flat = pixels_HWC[:, :, 0] if pixels_HWC.shape[2] == 1 else pixels_HWC
    times = max(1, side // max(flat.shape[:2]))
    image = Image.fromarray(np.ascontiguousarray(flat.repeat(times, 0).repeat(times, 1)))
    written = io.BytesIO()
    image.convert("RGB").save(written, "JPEG", quality=85)
    return data_url(written.getvalue(), "image/jpeg")
