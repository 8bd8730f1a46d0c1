"""Classes in the names of files: `cat.0.jpg`, `n01440764_10026.JPEG`, `img_dog_3.png`.

Owns the expressions that are offered where pictures lie side by side. None of them is used unless a person says so.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

# On a file's path; the group is the class. Number, mark and suffix follow or go before.
_PATTERNS = (
    r"(n\d{8})[-._ (][^/]*$",  # ImageNet's
    r"([A-Za-z][A-Za-z ]*[A-Za-z])[-._ ]*\(?\d+\)?\.\w+$",
    r"([A-Za-z][A-Za-z_-]*[A-Za-z])[-._ ]*\(?\d+\)?\.\w+$",
    r"\d+[-._ ]*([A-Za-z][A-Za-z_-]*[A-Za-z])\.\w+$",
    r"[-_](\d)\.\w+$",
)
_LEAD = r"(?:img|image|photo|pic|picture|dsc|scan|frame)[-._ ]+"


class Offer(NamedTuple):
    """An expression that reads a class from every path, and the classes that it finds, the most frequent first."""

    pattern: str
    classes: tuple[str, ...]


def suggest_label(paths: Sequence[str]) -> Offer | None:
    """The first expression that matches every path and tells a few classes apart, each with two pictures or more."""
    for pattern in [p for plain in _PATTERNS for p in (rf"{_LEAD}{plain}", rf"(?:^|/){plain}")]:
        matches = [re.search(pattern, path) for path in paths]
        found = Counter(match.group(1) for match in matches if match is not None)
        if sum(found.values()) == len(paths) and 2 <= len(found) <= len(paths) // 2 and min(found.values()) >= 2:
            return Offer(pattern, tuple(name for name, _ in found.most_common()))
    return None
