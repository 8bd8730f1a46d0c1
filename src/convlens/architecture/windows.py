"""What a unit reads: the values of the layer before that meet in it, and the pixels of the input behind them.

Owns the way back through a plan, from a unit to its window, its sources and its exact receptive field. Pure Python.
`plan.py` gives receptive fields as a formula for all units of a layer at once; at the borders of a map a unit sees
less, and `pixels_seen` says what.
"""

from typing import NamedTuple

from convlens.architecture.layers import Conv, Flatten, GroupNorm, Linear, Residual, _GlobalPool, _Windowed
from convlens.architecture.plan import Node, Plan
from convlens.errors import UsageError
from convlens.text import by, shown

INPUT = "input"  # the address of the picture itself, normalised

Unit = tuple[int, ...]  # (channel, row, column) of a map, (index,) of a vector


class Window(NamedTuple):
    """The rows and columns of the map before that one unit reads, kernel row by kernel row; None: padding that is not
    there in the map (zeros of a convolution; pooling passes over it)."""

    rows: tuple[int | None, ...]
    columns: tuple[int | None, ...]


class Box(NamedTuple):
    """A rectangle of pixels: rows top to below bottom, columns left to right of it."""

    top: int
    left: int
    bottom: int
    right: int


def window(layer: _Windowed, shape: tuple[int, ...], row: int, column: int) -> Window:
    """The window of the output unit at (row, column), for maps of `shape` (C, h, w) coming in."""
    mode = layer.padding_mode if isinstance(layer, Conv) else "zeros"
    rows, columns = (
        tuple(_inside(at * stride - before + tap * dilation, size, mode) for tap in range(kernel))
        for at, size, kernel, stride, dilation, (before, _) in zip(
            (row, column), shape[1:], layer.kernel(), layer.strides(), layer.dilations(), layer.paddings(), strict=True
        )
    )
    return Window(rows, columns)


def _inside(index: int, size: int, mode: str) -> int | None:
    """Where in a map of `size` an index lies that may be in its padding."""
    if 0 <= index < size:
        return index
    if mode == "reflect":
        return -index if index < 0 else 2 * (size - 1) - index
    if mode == "replicate":
        return min(max(index, 0), size - 1)
    if mode == "circular":
        return index % size
    return None


def sources(plan: Plan) -> dict[str, tuple[str, ...]]:
    """For each layer that has values of its own, in the order of the table: where what it reads comes from.

    A residual reads two, the end of its body and that of its shortcut; all others one. The first reads `INPUT`.
    """
    found: dict[str, tuple[str, ...]] = {}

    def chain(nodes: tuple[Node, ...], before: str) -> str:
        for node in nodes:
            if isinstance(node.layer, Residual):
                found[node.address] = (chain(node.body, before), chain(node.shortcut, before))
                before = node.address
            elif node.body:
                before = chain(node.body, before)
            else:
                found[node.address] = (before,)
                before = node.address
        return before

    # A residual's own entry is made after its children's: the order of the table.
    chain(plan.nodes, INPUT)
    return found


def nodes_by_address(plan: Plan) -> dict[str, Node]:
    """Every layer that has values of its own (simple layers and residual sums), in the order of the table."""
    found: dict[str, Node] = {}

    def collect(nodes: tuple[Node, ...]) -> None:
        for node in nodes:
            collect(node.body + node.shortcut)
            if not node.body or isinstance(node.layer, Residual):
                found[node.address] = node

    collect(plan.nodes)
    return found


def parse_unit(text: str, plan: Plan) -> tuple[str, Unit]:
    """`5:12,3,4` (layer 5, channel 12, row 3, column 4) or `9:3` as (address, unit).

    Raises UsageError that says which are there.
    """
    address, colon, numbers = text.partition(":")
    parts = numbers.split(",")
    if not colon or not all(part.strip().isascii() and part.strip().isdigit() and len(part) < 12 for part in parts):
        raise UsageError(f"write a unit as LAYER:CHANNEL,ROW,COLUMN, like 0:3,5,5, or LAYER:INDEX, not {shown(text)!r}")
    address, unit = address.strip(), tuple(int(part) for part in parts)
    check_unit(plan, address, unit)
    return address, unit


def check_address(plan: Plan, address: str) -> None:
    """Raises UsageError unless there is such a layer; lists those that are."""
    known = nodes_by_address(plan)
    if address not in known:
        listed = list(known) if len(known) <= 40 else [*list(known)[:39], "…"]
        raise UsageError(f"there is no layer {shown(address, 40)!r}: there are {', '.join(listed)}")


def check_unit(plan: Plan, address: str, unit: Unit) -> None:
    """Raises UsageError unless the layer has such a unit."""
    check_address(plan, address)
    check_place(nodes_by_address(plan)[address].output_shape, unit, f"layer {address}")


def check_place(shape: tuple[int, ...], unit: Unit, of: str) -> None:
    """Raises UsageError unless values of `shape` have such a unit; `of` says whose values."""
    if len(unit) != len(shape) or not all(0 <= i < n for i, n in zip(unit, shape, strict=True)):
        what = "channel, row, column" if len(shape) == 3 else "index"
        last = ",".join(str(n - 1) for n in shape)
        raise UsageError(
            f"{of} has no unit {shown(','.join(map(str, unit)), 60)}: its {by(shape)} values are written {what}, "
            f"from {','.join('0' * len(shape))} to {last}"
        )


# ---------------------------------------------------------------- the way back to the input


class _Needed(NamedTuple):
    """Which values of one layer are read: rows and columns of a map (of any channel), or indices of a vector; all of
    a vector, which may have millions, without listing them."""

    rows: frozenset[int] = frozenset()
    columns: frozenset[int] = frozenset()
    indices: frozenset[int] = frozenset()
    all_indices: bool = False

    def __bool__(self) -> bool:
        return self.all_indices or bool(self.indices or (self.rows and self.columns))

    def with_those(self, other: "_Needed") -> "_Needed":
        return _Needed(
            self.rows | other.rows,
            self.columns | other.columns,
            self.indices | other.indices,
            self.all_indices or other.all_indices,
        )


def pixels_seen(plan: Plan, address: str, unit: Unit) -> Box | None:
    """The exact receptive field of one unit: the box around every pixel of the input that can move its value.

    None where it sees nothing but padding. Normalisation with statistics of the training counts as seeing one value,
    group norm as seeing the whole map. Raises UsageError for a unit that is not there.
    """
    check_unit(plan, address, unit)
    nodes, reads = nodes_by_address(plan), sources(plan)
    start = _Needed(frozenset(unit[1:2]), frozenset(unit[2:3])) if len(unit) == 3 else _Needed(indices=frozenset(unit))
    needed = {address: start}
    for here in reversed(list(reads)):
        if here not in needed:
            continue
        for source, need in zip(reads[here], _before(nodes[here], needed.pop(here), len(reads[here])), strict=True):
            if need:
                needed[source] = needed.get(source, _Needed()).with_those(need)
    found = needed.get(INPUT)
    if found is None:
        return None
    return Box(min(found.rows), min(found.columns), max(found.rows) + 1, max(found.columns) + 1)


def _before(node: Node, need: _Needed, num_sources: int) -> tuple[_Needed, ...]:
    """What of each source `need` of a node's output is made from."""
    layer, shape = node.layer, node.input_shape
    if isinstance(layer, _GlobalPool | GroupNorm) and len(shape) == 3:
        return (_Needed(frozenset(range(shape[1])), frozenset(range(shape[2]))),)
    if isinstance(layer, GroupNorm) and not need.all_indices:
        assert isinstance(layer.num_groups, int), "a plan's layers are bound"
        size = shape[0] // layer.num_groups
        groups = {i // size for i in need.indices}
        return (_Needed(indices=frozenset(i for g in groups for i in range(g * size, (g + 1) * size))),)
    if isinstance(layer, Linear):
        return (_Needed(all_indices=True),)
    if isinstance(layer, Flatten):
        _, height, width = shape
        if need.all_indices:
            return (_Needed(frozenset(range(height)), frozenset(range(width))),)
        rows = frozenset(i // width % height for i in need.indices)
        return (_Needed(rows, frozenset(i % width for i in need.indices)),)
    if isinstance(layer, _Windowed):
        windows = [window(layer, shape, row, 0).rows for row in need.rows]
        rows = frozenset(i for taps in windows for i in taps if i is not None)
        windows = [window(layer, shape, 0, column).columns for column in need.columns]
        return (_Needed(rows, frozenset(i for taps in windows for i in taps if i is not None)),)
    return (need,) * num_sources
