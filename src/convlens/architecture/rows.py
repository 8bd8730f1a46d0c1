"""The rows of the table: each layer in its place, and what is said of it in words and for machines.

Owns the order of the table and the wording of single cells; the numbers come from `plan.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from convlens.architecture.layers import Axis, Layer, Residual, Shape, _Windowed
from convlens.architecture.plan import Node, Plan
from convlens.architecture.windows import sources
from convlens.text import by


@dataclass(frozen=True)
class Row:
    """One layer of the table. `depth` is its nesting; a residual has a row of its own after its children."""

    node: Node
    depth: int

    @property
    def title(self) -> str:
        """The layer as the sentence writes it; a residual's own row is where its sum is taken."""
        return title_of(self.node)


def title_of(node: Node) -> str:
    """What a layer is called in tables and pictures."""
    return "+ sum of the residual" if isinstance(node.layer, Residual) else str(node.layer)


def rows(plan: Plan) -> list[Row]:
    """The layers in order; each residual follows its own children, where the sum is taken."""
    return _rows(plan.nodes, 0)


def _rows(nodes: tuple[Node, ...], depth: int) -> list[Row]:
    rows: list[Row] = []
    for node in nodes:
        if isinstance(node.layer, Residual):
            rows += _rows(node.body + node.shortcut, depth + 1)
            rows.append(Row(node, depth))
        elif node.body:
            rows += _rows(node.body, depth + 1)
        else:
            rows.append(Row(node, depth))
    return rows


def by_axis(receptive: tuple[Axis, Axis], part: str) -> str:
    """`size` or `step` of both axes, as one number where they agree."""
    high, wide = (getattr(axis, part) for axis in receptive)
    return str(high) if high == wide else by((high, wide))


def receptive_field(node: Node, input_shape: Shape) -> str:
    """The receptive field in input pixels, with a word where that of every unit covers the whole image."""
    sizes = node.output_shape[1:] if len(node.output_shape) == 3 else (1, 1)
    # The first unit must see to the last pixel, and the last one from the first on.
    whole = all(
        axis.start + axis.size >= num_pixels and axis.start + (num_units - 1) * axis.step <= 0
        for axis, num_units, num_pixels in zip(node.receptive, sizes, input_shape[1:], strict=True)
    )
    return f"{by(axis.size for axis in node.receptive)}{' (all)' if whole else ''}"


def rows_json(plan: Plan) -> list[dict[str, Any]]:
    """The rows for machines. Shapes are [C, H, W] or [C]; receptive fields in input pixels."""
    reads = sources(plan)
    return [_row_json(row, reads[row.node.address]) for row in rows(plan)]


def _row_json(row: Row, reads: Sequence[str]) -> dict[str, Any]:
    node = row.node
    return (
        {"address": node.address, "depth": row.depth, "reads": list(reads), "kind": node.layer.name}
        | {"layer": node.layer.name if node.body else str(node.layer), "title": row.title}
        | {"window": _window_json(node.layer), "padding": node.layer.padding_words(node.input_shape)}
        | {"input_shape": list(node.input_shape), "output_shape": list(node.output_shape)}
        | {"formula": node.formula, "num_parameters": node.num_parameters, "multiply_adds": node.multiply_adds}
        | {"receptive_field": [axis.size for axis in node.receptive]}
        | {"total_stride": [axis.step for axis in node.receptive]}
        | {"receptive_start": [axis.start for axis in node.receptive]}
    )


def _window_json(layer: Layer) -> dict[str, Any] | None:
    """How a window moves over its map: (high, wide) each; `padding` is what lies above and left of the map."""
    if not isinstance(layer, _Windowed):
        return None
    (above, _), (left, _) = layer.paddings()
    return {
        "kernel": list(layer.kernel()),
        "stride": list(layer.strides()),
        "dilation": list(layer.dilations()),
        "padding": [above, left],
    }
