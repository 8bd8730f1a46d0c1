"""Checks of single values: whole numbers, numbers, choices, switches.

Owns what each may be and the words for it. A check returns the value in its normal form, or raises ValueError with what
it must be; `checked` puts the value's name before that, as an error of convlens.
"""

from collections.abc import Callable, Iterable
from typing import Any

from convlens.errors import ConvlensError, UsageError
from convlens.text import did_you_mean, shown

Check = Callable[[Any], Any]


class UnknownError(ValueError):
    """A word that is none of those there are; its message stands alone."""


def whole(low: int, high: int | None = None) -> Check:
    """A whole number from `low` to `high` (None: as large as it likes)."""
    words = f"a whole number from {low} {'on' if high is None else f'to {high:,}'}"

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
            raise ValueError(words)
        return value

    return check


def real(low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> Check:
    """A number between two bounds, which belong to it unless open; it becomes a float."""
    plain = "" if open_low or open_high else f"from {low:g} to {high:g}"
    words = plain or f"{'above' if open_low else 'from'} {low:g} {'to below' if open_high else 'up to'} {high:g}"

    def check(value: Any) -> float:
        right = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        if not right or (open_low and value == low) or (open_high and value == high):
            raise ValueError(f"a number {words}")
        return float(value)

    return check


def boolean(value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def choice(known: Iterable[str]) -> Check:
    """One of some words; the error names the nearest."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in known:
            raise UnknownError(f"{shown(value)!r}{did_you_mean(str(value), known)}: there are {', '.join(known)}")
        return value

    return check


def checked(name: str, value: Any, check: Check, error: type[ConvlensError] = UsageError) -> Any:
    """The value as `check` makes it normal. Raises `error` that names the value, what it must be and what it is."""
    try:
        return check(value)
    except UnknownError as unknown:
        raise error(f"unknown {name} {unknown}") from None
    except ValueError as what:
        raise error(f"{name} must be {what}, not {_as_given(value)}") from None


def _as_given(value: Any) -> str:
    """A value as it was given: text in quotes, numbers without noughts that nobody typed."""
    if isinstance(value, str):
        return repr(shown(value))
    return f"{value:g}" if isinstance(value, float) else shown(value)
