"""`explain`: the table of a network's layers, remarks on it, and its forms for people, machines and torch.

Owns what is said about an architecture; the numbers come from `plan.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from convlens.architecture.drawing import drawing
from convlens.architecture.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    Linear,
    Residual,
    _Windowed,
)
from convlens.architecture.plan import Node, Plan
from convlens.architecture.rows import Row, by_axis, receptive_field, rows, rows_json
from convlens.architecture.torch_source import torch_source
from convlens.render.pages import notebook
from convlens.text import by


@dataclass(frozen=True)
class Explanation:
    """What `explain` returns: the plan, with its table and remarks.

    `title` names what is explained, `loading` holds the lines that load a model's weights into `torch_source()`.
    """

    plan: Plan
    title: str = ""
    loading: Sequence[str] = ()

    @property
    def rows(self) -> list[Row]:
        """The layers in order; each residual follows its own children, where the sum is taken."""
        return rows(self.plan)

    @property
    def remarks(self) -> list[str]:
        """What a careful reader of the sentence would point out."""
        return remarks(self.plan)

    def torch_source(self) -> str:
        """The same network as runnable torch source."""
        return torch_source(self.plan, self.loading)

    def svg(self) -> str:
        """The network drawn: its maps to scale, and the receptive field of one unit of each layer."""
        return drawing(self.plan, self.summary())

    def to_json(self) -> dict[str, Any]:
        """The table for machines. Shapes are [C, H, W] or [C]; receptive fields in input pixels."""
        plan = self.plan
        return (
            {"architecture": str(plan.architecture), "input_shape": list(plan.input_shape)}
            | {"classes": plan.num_classes, "num_parameters": plan.num_parameters}
            | {"multiply_adds": plan.multiply_adds, "layers": rows_json(plan), "remarks": self.remarks}
        )

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Header and cells as text, one row a layer."""
        header = ["address", "layer", "output", "formula", "parameters", "multiply-adds", "receptive field"]
        header.append("total stride")
        cells = []
        for row in self.rows:
            node = row.node
            indent = "  " * row.depth
            own = not node.body
            cells.append(
                [
                    indent + node.address,
                    indent + row.title,
                    by(node.output_shape),
                    node.formula,
                    _count(node.num_parameters) if own else "",
                    _count(node.multiply_adds) if own else "",
                    receptive_field(node, self.plan.input_shape),
                    by_axis(node.receptive, "step"),
                ]
            )
        return header, cells

    def lines(self) -> list[tuple[Row, list[str]]]:
        """The rows, each with its cells as text."""
        return list(zip(self.rows, self.table()[1], strict=True))

    def shares(self, row: Row) -> tuple[float, float]:
        """A row's share of the parameters and of the multiply-adds, 0..1; 0 for a sum, whose parts have their rows."""
        if row.node.body:
            return 0.0, 0.0
        return (
            row.node.num_parameters / max(1, self.plan.num_parameters),
            row.node.multiply_adds / max(1, self.plan.multiply_adds),
        )

    def summary(self) -> str:
        """Totals, as one line."""
        plan = self.plan
        return (
            f"input {by(plan.input_shape)}, {plan.num_classes} classes: {plan.num_parameters:,} parameters, "
            f"{plan.multiply_adds:,} multiply-adds an image"
        )

    def __str__(self) -> str:
        header, cells = self.table()
        widths = [max(len(row[i]) for row in [header, *cells]) for i in range(len(header))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [header, *cells]]
        return "\n".join([str(self.plan.architecture), *lines, self.summary(), *(f"- {r}" for r in self.remarks)])

    def _repr_html_(self) -> str:
        header, cells = self.table()
        return notebook(header=header, rows=cells, lines=[self.summary()], items=self.remarks)


def _count(number: int) -> str:
    return f"{number:,}" if number else "–"


def remarks(plan: Plan) -> list[str]:
    """What is legal but probably not meant, each as one sentence with its address."""
    found = []
    for chain in _chains(plan.nodes):
        found += _remarks_on_pairs(chain)
    for leaf in plan.leaves:
        if isinstance(leaf.layer, _Windowed):
            found += _remark_on_unread(leaf, leaf.layer)
            if leaf.output_shape[0] == leaf.input_shape[0] and (remark := leaf.layer.order_remark()):
                found.append(f"{leaf.address} {remark}")
    last = plan.leaves[-1]
    if isinstance(last.layer, Activation):
        found.append(f"{last.address} {last.layer} is the last layer: logits should be free to take any value")
    if isinstance(last.layer, Linear) and last.output_shape != (plan.num_classes,):
        num = last.output_shape[0]
        found.append(
            f"{last.address} {last.layer} is for data of {num:,} class{'' if num == 1 else 'es'}, not of "
            f"{plan.num_classes:,}: linear(classes) fits whatever it is trained on"
        )
    return found


def _chains(nodes: tuple[Node, ...]) -> list[list[Node]]:
    """Runs of leaves that directly follow one another; a residual ends a run."""
    chains: list[list[Node]] = [[]]
    for node in nodes:
        if isinstance(node.layer, Residual):
            chains += [*_chains(node.body), *_chains(node.shortcut), []]
        elif node.body:
            inner = _chains(node.body)
            chains[-1] += inner[0]
            chains += inner[1:]
        else:
            chains[-1].append(node)
    return chains


def _remarks_on_pairs(chain: list[Node]) -> list[str]:
    found = []
    for index, node in enumerate(chain):
        if not isinstance(node.layer, Conv | Linear):
            continue
        following = chain[index + 1 :]
        if following and isinstance(following[0].layer, BatchNorm) and getattr(node.layer, "bias", False):
            found.append(
                f"{node.address} {node.layer} has a bias that the batchnorm after it takes away again: bias=False "
                f"saves {node.tensors['bias'][0]} parameters"
            )
        after = next((n for n in following if not isinstance(n.layer, Dropout | Flatten)), None)
        if after is not None and type(after.layer) is type(node.layer):
            what = "linear layers" if isinstance(node.layer, Linear) else "convolutions"
            found.append(
                f"{node.address} {node.layer} and {after.address} {after.layer}: two {what} with no activation "
                "between them can compute nothing that one could not"
            )
    return found


def _remark_on_unread(leaf: Node, layer: _Windowed) -> list[str]:
    rows, columns = layer.unread((leaf.input_shape[1], leaf.input_shape[2]))
    if not rows and not columns:
        return []
    parts = [
        f"{n} of {of} {what}"
        for n, of, what in ((rows, leaf.input_shape[1], "rows"), (columns, leaf.input_shape[2], "columns"))
        if n
    ]
    return [f"{leaf.address} {layer}: no window reads {' and '.join(parts)} of its {by(leaf.input_shape[1:])} map"]
