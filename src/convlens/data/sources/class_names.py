"""Names of classes: their order, and those that look as if they were one.

Owns both, for every kind of source.
"""

import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from convlens.text import listed

# Letters of other scripts that cannot be told from Latin ones by eye (a part of Unicode's confusables).
_ALIKE = str.maketrans(
    "АВЕЅІЈКМНОРСТУХаеѕіјорсухѵһԁɡΑΒΕΖΗΙΚΜΝΟΡΤΥΧοαν‐‑‒–—−’‘`´",
    "ABESIJKMHOPCTYXaesijopcyxvhdgABEZHIKMNOPTYXoav------''''",
)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names in the order of their classes' numbers: as numbers where all are, else as text."""
    names = set(names)
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def skeleton(name: str) -> str:
    """What is left of a name without case, blanks and marks, letters of one shape taken for one."""
    plain = unicodedata.normalize("NFKC", name).translate(_ALIKE).casefold()
    return "".join(c for c in plain if c.isalnum()) or plain


def _number(name: str) -> str | None:
    """A number in one form, `1` and `01` and `1.0` alike; None of other names."""
    try:
        return str(float(name)) if math.isfinite(float(name)) else None
    except ValueError:
        return None


def alike(names: Sequence[str]) -> list[str]:
    """A note on each group of names that differ in case, blanks, letters of one shape, or as numbers are written."""
    of: dict[str, list[str]] = defaultdict(list)
    for name in names:
        of[_number(name) or skeleton(name)].append(name)
    return [
        f"the classes {listed(same)} look alike: if they are one, give them one name"
        for same in of.values()
        if len(same) > 1
    ]
