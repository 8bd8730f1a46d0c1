"""The drawing of a network: its maps to scale, and the receptive field, larger from layer to layer, as SVG.

Owns the look of an explanation's SVG. Pure Python; the file needs nothing from elsewhere and follows the reader's light
or dark setting.
"""

import math
from html import escape

from convlens.architecture.plan import Plan
from convlens.architecture.rows import Row, rows
from convlens.architecture.windows import Box, pixels_seen
from convlens.text import by

_SIDE = 76  # drawn height or width of the input's longer side, in SVG units
_TEXT_X, _MAPS_X, _FIELD_X, _WIDTH = 16, 430, 690, 860
_MOST_SHEETS, _SHEET_STEP = 6, 4

_STYLE = """
svg { background: #ffffff; font: 13px system-ui, sans-serif; }
text { fill: #1b1f24; } .dim { fill: #57606a; font-size: 11.5px; } .mono { font-family: ui-monospace, monospace; }
.sheet { fill: #dbe9f6; stroke: #1f5f99; } .vector { fill: #f6d9bd; stroke: #a4500f; }
.picture { fill: #eef1f4; stroke: #57606a; } .seen { fill: #e08214; fill-opacity: .75; stroke: #a4500f; }
.rule { stroke: #d0d7de; }
@media (prefers-color-scheme: dark) {
  svg { background: #12161b; } text { fill: #e6edf3; } .dim { fill: #9aa6b2; }
  .sheet { fill: #1c3a57; stroke: #79b8f3; } .vector { fill: #4a2c12; stroke: #f0a35e; }
  .picture { fill: #232a33; stroke: #9aa6b2; } .rule { stroke: #30363d; }
}
"""


def drawing(plan: Plan, summary: str) -> str:
    """The network as one SVG document: a row a layer, from the input on top to the answer."""
    scale = _SIDE / max(plan.input_shape[1:])
    parts: list[str] = []
    y = 56.0
    parts.append(_row_of_input(plan, scale, y))
    y += _SIDE + 34
    last_map = plan.input_shape
    for row in rows(plan):
        shape = row.node.output_shape
        last_map = shape if len(shape) == 3 else last_map
        height = max(54.0, _height(row.node.output_shape, scale) + 24, plan.input_shape[1] * scale + 18)
        parts.append(f'<line class="rule" x1="{_TEXT_X}" x2="{_WIDTH - 16}" y1="{y - 8:.1f}" y2="{y - 8:.1f}"/>')
        parts.append(_row(plan, row, _middle(shape, last_map), scale, y))
        y += height + 12
    heads = (
        (_TEXT_X, "layer, output-size formula"),
        (_MAPS_X, "maps, to scale"),
        (_FIELD_X, "receptive field of one unit"),
    )
    head = "".join(f'<text class="dim" x="{x}" y="28">{escape(text)}</text>' for x, text in heads)
    title = escape(f"The network {plan.architecture}: {summary}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {_WIDTH} {y:.0f}" width="{_WIDTH}" '
        f'height="{y:.0f}">\n<title>{title}</title>\n<style>{_STYLE}</style>\n{head}\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _row_of_input(plan: Plan, scale: float, y: float) -> str:
    shape = plan.input_shape
    return _lines(
        y, "input", [f"{shape[0]} channel{'s' if shape[0] != 1 else ''} of {by(shape[1:])} pixels"], 0
    ) + _maps(shape, scale, y)


def _middle(shape: tuple[int, ...], last_map: tuple[int, ...]) -> tuple[int, ...]:
    """The unit in the middle; of a flattened map, the one that was in the middle of it."""
    if len(shape) == 3:
        return tuple(n // 2 for n in shape)
    if shape[0] == math.prod(last_map):
        channels, height, width = last_map
        return ((channels // 2 * height + height // 2) * width + width // 2,)
    return (shape[0] // 2,)


def _row(plan: Plan, row: Row, unit: tuple[int, ...], scale: float, y: float) -> str:
    node = row.node
    under = [text for text in (node.formula, node.layer.padding_words(node.input_shape)) if text]
    drawn = _lines(y, f"{node.address}  {row.title}", under, row.depth) + _maps(node.output_shape, scale, y)
    seen = pixels_seen(plan, node.address, unit)
    return drawn + _field(plan.input_shape, seen, scale, y)


def _lines(y: float, title: str, under: list[str], depth: int) -> str:
    x = _TEXT_X + 14 * depth
    lines = [f'<text class="mono" x="{x}" y="{y + 12:.1f}">{escape(_cut(title, 50))}</text>']
    for i, text in enumerate(under):
        lines.append(f'<text class="dim" x="{x}" y="{y + 30 + 16 * i:.1f}">{escape(_cut(text, 64))}</text>')
    return "".join(lines)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _height(shape: tuple[int, ...], scale: float) -> float:
    if len(shape) == 1:
        return 12.0
    return max(2.0, shape[1] * scale) + _SHEET_STEP * (min(shape[0], _MOST_SHEETS) - 1)


def _maps(shape: tuple[int, ...], scale: float, y: float) -> str:
    """A stack of sheets for maps, a strip for a vector, with what it is beside it."""
    if len(shape) == 1:
        width = min(150.0, max(4.0, shape[0] * scale / 2))
        return (
            f'<rect class="vector" x="{_MAPS_X}" y="{y:.1f}" width="{width:.1f}" height="9"/>'
            f'<text class="dim" x="{_MAPS_X}" y="{y + 25:.1f}">{shape[0]:,} values</text>'
        )
    height, width = max(2.0, shape[1] * scale), max(2.0, shape[2] * scale)
    num = min(shape[0], _MOST_SHEETS)
    sheets = "".join(
        f'<rect class="sheet" x="{_MAPS_X + _SHEET_STEP * (num - 1 - i):.1f}" y="{y + _SHEET_STEP * i:.1f}" '
        f'width="{width:.1f}" height="{height:.1f}"/>'
        for i in range(num)
    )
    x = _MAPS_X + width + _SHEET_STEP * num + 8
    return f'{sheets}<text class="dim" x="{x:.1f}" y="{y + 12:.1f}">{shape[0]:,} × {by(shape[1:])}</text>'


def _field(input_shape: tuple[int, ...], seen: Box | None, scale: float, y: float) -> str:
    """The input with the receptive field of the middle unit."""
    height, width = input_shape[1] * scale, input_shape[2] * scale
    drawn = f'<rect class="picture" x="{_FIELD_X}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
    text = "nothing"
    if seen is not None:
        high, wide = seen.bottom - seen.top, seen.right - seen.left
        text = "all of it" if (high, wide) == input_shape[1:] else by((high, wide))
        drawn += (
            f'<rect class="seen" x="{_FIELD_X + seen.left * scale:.1f}" y="{y + seen.top * scale:.1f}" '
            f'width="{wide * scale:.1f}" height="{high * scale:.1f}"/>'
        )
    return f'{drawn}<text class="dim" x="{_FIELD_X + width + 8:.1f}" y="{y + 12:.1f}">{text}</text>'
