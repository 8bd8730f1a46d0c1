"""explain: a network's layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convlens import files
from convlens.commands import terminal
from convlens.commands.options import OUTPUT, Json, Overwrite, flag
from convlens.errors import UsageError
from convlens.render import tables
from convlens.render.tables import share_bar, styled
from convlens.text import shown

if TYPE_CHECKING:
    from convlens.architecture.explain import Explanation
    from convlens.architecture.rows import Row


def explain(
    what: Annotated[str, typer.Argument(metavar="SENTENCE|MODEL", help="An architecture as text, or a model.")],
    input: Annotated[str | None, flag("height x width x channels.", show_default="28x28x1")] = None,
    classes: Annotated[int | None, flag("Number of classes.", show_default="10")] = None,
    torch: Annotated[bool, flag("Print the network as plain torch source.", OUTPUT, "--torch")] = False,
    svg: Annotated[
        str | None, flag("Draw the maps to scale and the growing receptive field.", OUTPUT, metavar="FILE")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Show a network's layers: shapes, formulas, parameters, multiply-adds, receptive fields."""
    import convlens

    if torch and json:
        raise UsageError("--torch and --json cannot both be printed: choose one")
    terminal.check_new_file(svg, "--svg", (".svg",), overwrite=overwrite)
    explanation = convlens.explain(what, input=input, classes=classes)
    if svg is not None:
        files.write_text(Path(svg), explanation.svg())
        terminal.note(f"written: {shown(svg, 200)}")
    if torch:
        tables.print_text(explanation.torch_source().rstrip("\n"))
    elif json:
        tables.print_json(explanation.to_json())
    else:
        _print(explanation)


_COLOURS = {"conv": "cyan", "linear": "blue", "dropout": "dim", "flatten": "dim", "residual": "bold"}
_COLOURS |= dict.fromkeys(("maxpool", "avgpool", "globalavgpool", "globalmaxpool"), "green")
_COLOURS |= dict.fromkeys(("batchnorm", "groupnorm", "scale"), "magenta")


_TABLE_WIDTH = 112  # columns that the table of layers needs; a narrower terminal gets a block a layer


def _print(explanation: Explanation) -> None:
    """Each layer with its formula and its shares of the costs under it, and the remarks."""
    tables.print_text(f"{explanation.plan.architecture}\n")
    if tables.terminal_width() >= _TABLE_WIDTH:
        _print_layers_as_table(explanation)
    else:
        _print_layers_as_blocks(explanation)
    tables.print_text("\n" + explanation.summary())
    tables.print_text("receptive field in input pixels; total stride: how far it moves from one unit to the next")
    tables.print_text("bars: share of all parameters, of all multiply-adds")
    for remark in explanation.remarks:
        tables.print_text(f"note: {remark}")


def _print_layers_as_table(explanation: Explanation) -> None:
    numbers = ("parameters", "multiply-adds", "total stride")
    table = tables.new_table("address", "layer", "output", *numbers[:2], "receptive field", numbers[2], right=numbers)
    for row, (address, layer, output, formula, parameters, products, field, stride) in explanation.lines():
        indent = " " * (2 * row.depth + 2)
        under = [indent + text for text in (formula, row.node.layer.padding_words(row.node.input_shape)) if text]
        bars = [share_bar(share) if share else "" for share in explanation.shares(row)]
        table.add_row(
            styled(address, "dim"),
            styled(layer, _colour(row), *under),
            styled(output),
            styled(parameters, "", bars[0]),
            styled(products, "", bars[1]),
            styled(field),
            styled(stride),
        )
    tables.print_table(table)


def _print_layers_as_blocks(explanation: Explanation) -> None:
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for row, (address, layer, output, formula, parameters, products, field, stride) in explanation.lines():
        under = [text for text in (formula, row.node.layer.padding_words(row.node.input_shape)) if text]
        costs = [
            f"{number} {name} {share_bar(share)}"
            for number, name, share in zip(
                (parameters, products), ("parameters", "multiply-adds"), explanation.shares(row), strict=True
            )
            if share
        ]
        under += ["  ".join(costs)] if costs else []
        under.append(f"output {output}, receptive field {field}, total stride {stride}")
        table.add_row(styled(address.strip(), "dim"), styled(layer.strip(), _colour(row), *under))
    tables.print_table(table)


def _colour(row: Row) -> str:
    return _COLOURS.get(row.node.layer.name, "yellow")
