"""Framing as an ONNX graph: from one decoded picture of any size to what the network takes.

Owns the graph's form of `data.image.framing` for `pad`, `crop` and `stretch`. onnxruntime's antialiased cubic filter on
bytes is Pillow's but for its rounding: of a thousand pixels some differ by one. Other runtimes and providers are known
to filter otherwise, or to refuse.
"""

from typing import Any

import numpy as np

from convlens.data.image.framing import InputSpec
from convlens.errors import UsageError

_GREY = (19595, 38470, 7471)  # ITU-R 601 in 65536ths, as Pillow rounds it


def check_framing(spec: InputSpec) -> None:
    """Raises UsageError where a graph cannot frame as the model's pictures are."""
    if spec.framing == "ink":
        raise UsageError(
            "framing 'ink' looks for the drawing, which no graph can: leave `input` away, and frame with convlens"
        )
    if spec.region is not None:
        raise UsageError("a region is cut from pictures of one size, which no graph can check: leave `input` away")


def framing_graph(spec: InputSpec, opset: int, ir_version: int) -> Any:
    """A model from `image`, uint8 (h, w, 3) RGB, to `images`, uint8 (1, H, W, C)."""
    from onnx import TensorProto, helper

    graph = _Graph()
    height, width = spec.height, spec.width
    shape = graph("Cast", graph("Shape", "image"), to=TensorProto.DOUBLE)
    rows, columns = (graph("Gather", shape, graph.constant(np.int64(axis)), axis=0) for axis in (0, 1))
    ratios = [graph("Div", graph.constant(np.float64(side)), own) for side, own in ((height, rows), (width, columns))]
    pixels = graph("Transpose", graph("Unsqueeze", "image", graph.constant(np.array([0]))), perm=[0, 3, 1, 2])
    pixels = pixels if spec.channels == 3 else _grey(graph, pixels)

    def resized(sides: list[str]) -> str:
        size = graph(
            "Cast",
            graph("Concat", *(graph("Unsqueeze", s, graph.constant(np.array([0]))) for s in sides), axis=0),
            to=TensorProto.INT64,
        )
        return graph("Resize", pixels, "", "", size, mode="cubic", cubic_coeff_a=-0.5, antialias=1,
                     coordinate_transformation_mode="half_pixel", exclude_outside=1, axes=[2, 3])  # fmt: skip

    def rounded(own: str, scale: str) -> str:
        return graph("Round", graph("Mul", own, scale))  # half to even, as Python's

    wanted = [graph.constant(np.float64(side)) for side in (height, width)]
    if spec.framing == "stretch":
        found = resized(wanted)
    elif spec.framing == "crop":
        scale = graph("Div", graph("Max", *ratios), graph.constant(np.float64(spec.crop_frac)))
        sides = [graph("Max", side, rounded(own, scale)) for side, own in zip(wanted, (rows, columns), strict=True)]
        starts = graph(
            "Concat", *(_halved(graph, side, want) for side, want in zip(sides, wanted, strict=True)), axis=0
        )
        ends = graph("Add", starts, graph.constant(np.array([height, width])))
        found = graph("Slice", resized(sides), starts, ends, graph.constant(np.array([2, 3])))
    else:
        scale, one = graph("Min", *ratios), graph.constant(np.float64(1))
        sides = [
            graph("Min", side, graph("Max", one, rounded(own, scale)))
            for side, own in zip(wanted, (rows, columns), strict=True)
        ]
        found = _padded(graph, resized(sides), sides, wanted)
    graph("Transpose", found, output="images", perm=[0, 2, 3, 1])
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["height", "width", 3])
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, [1, height, width, spec.channels])
    made = helper.make_graph(graph.nodes, "framing", [image], [images], graph.constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


class _Graph:
    """Nodes as they are called; each call gives the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def __call__(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        name = output or f"framing_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any) -> str:
        from onnx import numpy_helper

        name = f"framing_constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def _grey(graph: _Graph, pixels: str) -> str:
    """RGB bytes (1, 3, h, w) to grey ones (1, 1, h, w)."""
    from onnx import TensorProto

    weights = graph.constant(np.array(_GREY, np.int32).reshape(1, 3, 1, 1))
    weighted = graph("Mul", graph("Cast", pixels, to=TensorProto.INT32), weights)
    total = graph("ReduceSum", weighted, graph.constant(np.array([1])), keepdims=1)
    rounded = graph("Add", total, graph.constant(np.int32(1 << 15)))
    return graph("Cast", graph("Div", rounded, graph.constant(np.int32(1 << 16))), to=TensorProto.UINT8)


def _halved(graph: _Graph, large: str, small: str) -> str:
    """(large - small) // 2 as int64 (1,)."""
    from onnx import TensorProto

    half = graph("Floor", graph("Div", graph("Sub", large, small), graph.constant(np.float64(2))))
    return graph("Unsqueeze", graph("Cast", half, to=TensorProto.INT64), graph.constant(np.array([0])))


def _padded(graph: _Graph, inner: str, sides: list[str], wanted: list[str]) -> str:
    """The resized picture (1, C, h, w) in the middle of bars of the mean colour of the edges that they extend."""
    from onnx import TensorProto

    values = graph("Cast", inner, to=TensorProto.FLOAT)

    def edges(axis: int) -> str:
        ends = graph("Gather", values, graph.constant(np.array([0, -1])), axis=axis)
        return graph("ReduceMean", ends, graph.constant(np.array([2, 3])), keepdims=1)

    fill = graph("Round", graph("Where", graph("Less", sides[0], wanted[0]), edges(2), edges(3)))
    before = [_halved(graph, want, side) for want, side in zip(wanted, sides, strict=True)]
    whole = [
        graph("Unsqueeze", graph("Cast", graph("Sub", want, side), to=TensorProto.INT64), graph.constant(np.array([0])))
        for want, side in zip(wanted, sides, strict=True)
    ]
    after = [graph("Sub", all_, one) for all_, one in zip(whole, before, strict=True)]
    none = graph.constant(np.array([0, 0]))
    pads = graph("Concat", none, *before, none, *after, axis=0)
    padded = graph("Pad", graph("Sub", values, fill), pads)
    return graph("Cast", graph("Add", padded, fill), to=TensorProto.UINT8)
