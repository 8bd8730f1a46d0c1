"""The strings of an array that NumPy has pickled, without unpickling anything.

Owns the few instructions of such a stream that are understood; anything else is refused. Nothing is imported, called or
built by what the stream says: it is read as data.
"""

from typing import Any

_ARRAY = frozenset(
    {
        "numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct", "numpy ndarray", "numpy dtype",
        "_codecs encode",
    }
)  # fmt: skip
_MARK = object()
_CONSTANTS: dict[str, Any] = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
    "EMPTY_LIST": None,
    "EMPTY_DICT": None,
}
MAX_STRINGS = 100_000_000


def strings_of(stream: bytes) -> list[str]:
    """The strings in order. Raises ValueError where the stream is anything but an array of strings."""
    import pickletools  # large, and hardly ever needed

    stack: list[Any] = []
    memo: dict[int, Any] = {}
    strings: list[str] | None = None
    for code, argument, _ in pickletools.genops(stream):
        name = code.name
        if name in ("PROTO", "FRAME", "STOP", "BUILD", "REDUCE"):
            if name == "REDUCE":
                stack.pop()
            if name == "BUILD":
                stack.pop()
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "STACK_GLOBAL":
                argument = f"{stack[-2]} {stack[-1]}"
                del stack[-2:]
            if argument not in _ARRAY:
                raise ValueError(f"it names {argument!r}")
            stack.append(argument)
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"):
            memo[len(memo) if argument is None else int(argument)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[int(argument or 0)])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("TUPLE", "APPENDS"):
            items = _since_mark(stack)
            if name == "APPENDS" and all(isinstance(item, str) for item in items):
                strings = [*(strings or []), *items]
            elif name == "APPENDS":
                raise ValueError("it holds other things than strings")
            else:
                stack.append(tuple(items))
        elif name == "APPEND":
            item = stack.pop()
            if not isinstance(item, str):
                raise ValueError("it holds other things than strings")
            strings = [*(strings or []), item]
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(name[-1])
            items = stack[-size:]
            del stack[-size:]
            stack.append(tuple(items))
        elif name in _CONSTANTS:
            stack.append([] if name == "EMPTY_LIST" else _CONSTANTS[name])
        elif name in ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"):
            stack.append(str(argument))
        elif name in ("BININT", "BININT1", "BININT2", "BINBYTES", "SHORT_BINBYTES", "LONG1", "INT"):
            stack.append(argument)
        else:
            raise ValueError(f"it has the instruction {name}")
    if strings is None or len(strings) > MAX_STRINGS:
        raise ValueError("it holds no strings")
    return strings


def _since_mark(stack: list[Any]) -> list[Any]:
    place = max(k for k, item in enumerate(stack) if item is _MARK)
    items = stack[place + 1 :]
    del stack[place:]
    return items
