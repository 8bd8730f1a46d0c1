"""Files whose names say that they are altered copies of others: `p3_rot6.png` and `aug_p3_1.png` of `p3.png`.

Owns the words and patterns by which tools and people name what they augmented. Looks at no pixels, so that what it
finds is a hint: `checking.py` trusts it where pixels bear it out.
"""

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from convlens.data.sources.tree import stem_of

_WORDS = (
    "aug|augmented|augmentation|rot|rotate|rotated|rotation|turned|flip|flipped|flop|hflip|vflip|fliplr|flipud|flip_lr|"
    "flip_ud|mirror|mirrored|bright|brighter|brightness|dark|darker|darkened|noise|noisy|gauss|gaussian|blur|blurred|"
    "blurry|crop|cropped|zoom|zoomed|shift|shifted|shear|sheared|warp|warped|scale|scaled|resized|contrast|saturation|"
    "saturated|sat|hue|jitter|colou?rjitter|gr[ae]y|gr[ae]yscale|cutout|erased|elastic|distorted|sharp|sharpened|"
    "transform|transformed|copy|kopie|copie|copia|dup|duplicate"
)
_WORD = re.compile(rf"(?<![^\W\d_])(?:{_WORDS})(?![^\W\d_])(?:[-_ ]?[-+]?\d+(?:\.\d+)?(?:deg|px)?)?", re.IGNORECASE)
_COUNTER = re.compile(r"[-_ ]*(?:\(\d+\)|[-_ ]\d+)$")
_SEPARATORS = " -_.()[]"
# Roboflow's exports, and Augmentor's, give each copy the original's name and a number of its own.
_BY_TOOLS = (
    re.compile(r"^(?P<of>.+?)_(?:jpe?g|png|bmp|webp)\.rf\.[0-9a-f]{20,}$", re.IGNORECASE),
    re.compile(r"^.*_original_(?P<of>.+?)_[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.IGNORECASE),
)


def named_copies(names: Sequence[str], labels: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (a, b), a < b, of files of one class by number, of which the one is named as a copy of the other, or both
    are as copies of a third. Of several originals that lie in one folder with the copy is meant, or none."""
    called: dict[tuple[str, str], list[int]] = defaultdict(list)
    stems = [stem_of(name).lower() for name in names]
    for number, key in enumerate(zip(labels, stems, strict=True)):
        called[key].append(number)
    first: dict[tuple[str, str], int] = {}
    pairs = set()
    for number, (name, label, stem) in enumerate(zip(names, labels, stems, strict=True)):
        found = [tool["of"] for tool in (one.match(stem) for one in _BY_TOOLS) if tool]
        originals = [first.setdefault((label, of), number) for of in found]
        for of in _originals_of(stem):
            beside = [
                one for one in called.get((label, of), []) if posixpath.dirname(names[one]) == posixpath.dirname(name)
            ]
            anywhere = called.get((label, of), [])
            originals += (beside or anywhere)[:1] if len(beside) == 1 or len(anywhere) == 1 else []
        if originals and originals[0] != number:
            pairs.add((min(originals[0], number), max(originals[0], number)))
    return sorted(pairs)


def _originals_of(stem: str) -> Iterator[str]:
    """What the original of a copy with such a name may be called, the likeliest first."""
    rest = _WORD.sub("_", stem).strip(_SEPARATORS)
    if rest != stem.strip(_SEPARATORS) and rest:
        rest = re.sub(r"_{2,}", "_", rest)
        yield rest
        yield _COUNTER.sub("", rest)
    elif (plain := _COUNTER.sub("", stem)) != stem and stem.endswith(")"):  # "p3 (1)", as a second download is called
        yield plain
