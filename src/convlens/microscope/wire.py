"""What goes to the page: one JSON header with typed arrays behind it.

Owns the format. Four bytes say how long the header is (little-endian), the header is JSON padded with spaces, and each
array lies at its `offset` behind it, at a multiple of 8 bytes, so that the browser can look at it without copying.
Maps never travel as JSON numbers.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPES = {"uint8": "u1", "int32": "i4", "float32": "f4", "float64": "f8"}


def packed(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Header and arrays as bytes. bool arrays go as uint8, int64 ones as int32."""
    described: dict[str, Any] = {}
    parts: list[bytes] = []
    offset = 0
    for name, array in arrays.items():
        kind = {"bool": "uint8", "int64": "int32"}.get(array.dtype.name, array.dtype.name)
        data = np.ascontiguousarray(array, dtype=kind).astype(f"<{_TYPES[kind]}", copy=False).tobytes()
        described[name] = {"type": _TYPES[kind], "shape": list(array.shape), "offset": offset}
        parts += [data, bytes(-len(data) % 8)]
        offset += len(data) + len(parts[-1])
    text = json.dumps({**header, "arrays": described}, allow_nan=False).encode("ascii")
    text += b" " * (-(len(text) + 4) % 8)
    return b"".join([len(text).to_bytes(4, "little"), text, *parts])


def quantised(values: NDArray[np.float32]) -> tuple[NDArray[np.uint8], float, float]:
    """Values as 0..255 between two ends, and the ends: 0 and the largest, or the same on both sides of 0."""
    reach = float(np.abs(values).max(initial=0.0))
    reach = reach if reach > 1e-35 else 1.0  # smaller ones have no 255 levels in float32
    low = -reach if values.min(initial=0.0) < 0 else 0.0
    scaled = (values - np.float32(low)) * np.float32(255 / (reach - low))
    return np.rint(scaled).clip(0, 255).astype(np.uint8), low, reach
