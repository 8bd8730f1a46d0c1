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
    # (height, width) in double precision, as Python's.
    wanted = graph.constant(np.array([height, width], np.float64))
    sides = graph("Gather", graph("Shape", "image"), graph.constant(np.array([0, 1])))
    own = graph("Cast", sides, to=TensorProto.DOUBLE)
    ratios = graph("Div", wanted, own)
    pixels = graph("Transpose", graph("Unsqueeze", "image", graph.constant(np.array([0]))), perm=[0, 3, 1, 2])
    pixels = pixels if spec.channels == 3 else _grey(graph, pixels)
    if spec.framing == "stretch":
        found = _resized(graph, pixels, spec.channels, wanted)
    elif spec.framing == "crop":
        scale = graph("Div", graph("ReduceMax", ratios), graph.constant(np.float64(spec.crop_frac)))
        grown = graph("Max", wanted, graph("Round", graph("Mul", own, scale)))  # half to even, as Python's
        is_same = graph("Cast", graph("Equal", own, wanted), to=TensorProto.INT32)  # then it is framed already
        both = graph("Cast", graph("ReduceMin", is_same), to=TensorProto.BOOL)
        grown = graph("Where", both, wanted, grown)
        start = _half(graph, graph("Sub", grown, wanted))
        end = graph("Add", start, graph.constant(np.array([height, width])))
        found = graph(
            "Slice", _resized(graph, pixels, spec.channels, grown), start, end, graph.constant(np.array([2, 3]))
        )
    else:
        scaled = graph("Round", graph("Mul", own, graph("ReduceMin", ratios)))
        inner = graph("Min", wanted, graph("Max", graph.constant(np.float64(1)), scaled))
        found = _padded(graph, _resized(graph, pixels, spec.channels, inner), graph("Sub", wanted, inner))
    graph("Transpose", found, output="images", perm=[0, 2, 3, 1])
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["height", "width", 3])
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, [1, height, width, spec.channels])
    made = helper.make_graph(graph.nodes, "framing", [image], [images], graph.constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def with_framing(data: bytes, spec: InputSpec) -> bytes:
    """A file of framed images with the framing before it: `image` in, of which there is one."""
    import onnx

    model = onnx.load_from_string(data)
    opset, about = model.opset_import[0].version, {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    merged = onnx.compose.merge_models(
        framing_graph(spec, opset, model.ir_version), model, io_map=[("images", "images")], name=model.graph.name
    )
    merged.producer_name, merged.producer_version = model.producer_name, model.producer_version
    onnx.helper.set_model_props(merged, about)
    onnx.checker.check_model(merged, full_check=True)
    found: bytes = merged.SerializeToString()
    return found


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


def _resized(graph: _Graph, pixels: str, channels: int, sides: str) -> str:
    """Bytes (1, C, h, w) at other sides (height, width)."""
    from onnx import TensorProto

    how: dict[str, Any] = {"mode": "cubic", "cubic_coeff_a": -0.5, "antialias": 1, "exclude_outside": 1}
    # Of all four axes: onnxruntime, which moves transposes past it, forgets those that an attribute would name.
    size = graph("Concat", graph.constant(np.array([1, channels])), graph("Cast", sides, to=TensorProto.INT64), axis=0)
    return graph("Resize", pixels, "", "", size, coordinate_transformation_mode="half_pixel", **how)


def _half(graph: _Graph, sides: str) -> str:
    """sides // 2 as int64 (2,)."""
    from onnx import TensorProto

    halves = graph("Floor", graph("Div", sides, graph.constant(np.float64(2))))
    return graph("Cast", halves, to=TensorProto.INT64)


def _padded(graph: _Graph, inner: str, missing: str) -> str:
    """The resized picture (1, C, h, w) in the middle of bars, in all `missing` (height, width) wide, of the mean colour
    of the edges that they extend."""
    from onnx import TensorProto

    values = graph("Cast", inner, to=TensorProto.FLOAT)

    def edges(axis: int) -> str:
        ends = graph("Gather", values, graph.constant(np.array([0, -1])), axis=axis)
        return graph("ReduceMean", ends, graph.constant(np.array([2, 3])), keepdims=1)

    is_tall = graph("Less", graph.constant(np.float64(0)), graph("Gather", missing, graph.constant(np.int64(0))))
    fill = graph("Round", graph("Where", is_tall, edges(2), edges(3)))
    before = _half(graph, missing)
    after = graph("Sub", graph("Cast", missing, to=TensorProto.INT64), before)
    none = graph.constant(np.array([0, 0]))
    padded = graph("Pad", graph("Sub", values, fill), graph("Concat", none, before, none, after, axis=0))
    return graph("Cast", graph("Add", padded, fill), to=TensorProto.UINT8)
