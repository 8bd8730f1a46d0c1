"""The arguments of layers: what each kind of value may be, and its normal form.

Owns the checks. A check returns the normal form of a value or raises ValueError with what it must be.
"""

from dataclasses import MISSING, field
from typing import Any

from convlens.checks import Check, whole

Pair = int | tuple[int, int]
Size = int | str  # a number, or one of WORDS

WORDS = ("classes", "channels")
MAX_NUMBER = 1_000_000  # the most channels or features
MAX_PIXELS = 4_096  # the largest window, stride, padding or dilation


def pair(value: Pair) -> tuple[int, int]:
    """An int or a (height, width) pair as a pair."""
    return (value, value) if isinstance(value, int) else value


def check_size(value: Any) -> Size:
    """A number of channels or features, or a word that stands for one."""
    if isinstance(value, str) and value in WORDS:
        return value
    try:
        return int(whole(1, MAX_NUMBER)(value))
    except ValueError as error:
        raise ValueError(f"{error}, or one of the words {' and '.join(WORDS)}") from None


def check_pair(low: int) -> Check:
    """Checks a number from `low` on, or a (height, width) pair of them; equal pairs become one number."""
    number = whole(low, MAX_PIXELS)

    def check(value: Any) -> Pair:
        if isinstance(value, tuple) and len(value) == 2:
            height, width = number(value[0]), number(value[1])
            return height if height == width else (height, width)
        try:
            return int(number(value))
        except ValueError as error:
            raise ValueError(f"{error}, or a pair of them") from None

    return check


def check_padding(value: Any) -> Pair | str:
    """A number, a pair, 'same', or 'valid', which becomes 0."""
    if value == "same":
        return "same"
    if value == "valid":
        return 0  # the same layer, so that it has one canonical form
    try:
        padding: Pair = check_pair(0)(value)
    except ValueError:
        raise ValueError(f"a whole number from 0 to {MAX_PIXELS:,}, a pair of them, 'same' or 'valid'") from None
    return padding


def check_boolean(value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError("True or False")
    return value


def check_choice(*known: str) -> Check:
    """Checks one of some texts."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"one of {', '.join(map(repr, known))}")
        return value

    return check


def check_optional(check_value: Check) -> Check:
    """Checks None, or whatever `check_value` checks."""

    def check(value: Any) -> Any:
        return None if value is None else check_value(value)

    return check


def argument(check: Check, default: Any = MISSING, *, always_shown: bool = False) -> Any:
    """A dataclass field for one argument: how it is checked, its default, whether its text always shows it."""
    metadata = {"check": check, "positional": default is MISSING or always_shown}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)
