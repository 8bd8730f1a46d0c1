"""Which split a name speaks of: `train`, `Training_set`, `seg_test`, `my-holdout.v2`.

Owns the words, and the taking apart of names into words.
"""

import re

_WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "holdout", "tst"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
# What people write beside such a word, or directly behind it: it says nothing of the class of a picture.
_FILLING = frozenset(
    {
        "set", "sets", "data", "dataset", "split", "splits", "folder", "dir", "img", "imgs", "image",
        "images", "pic", "pics", "picture", "pictures", "photo", "photos", "part", "crops", "labeled",
        "labelled", "unlabeled", "unlabelled", "final", "full", "new", "the", "my", "seg", "v",
    }
)  # fmt: skip


def words_of(name: str) -> list[str]:
    """The words of a name in lower case: parted at marks, digits and capitals; `trainset` and `TRAINset` are two."""
    name = re.sub(r"(?i)hold[ _-]?out", "holdout", name)
    return [word for run in re.findall(r"[^\W\d_]+", name) for word in _parted(run)]


def _parted(run: str) -> list[str]:
    """The words of a run of letters."""
    low = run.lower()
    if low in _SPLIT_OF:
        return [low]
    for start in _SPLIT_OF:
        if low.startswith(start) and low[len(start) :] in _FILLING:
            return [start, low[len(start) :]]
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+", run)]


def split_of(name: str) -> str | None:
    """The split that a name has a word of: train, val or test; None where it has none, or words of two."""
    found = {_SPLIT_OF[word] for word in words_of(name) if word in _SPLIT_OF}
    return found.pop() if len(found) == 1 else None


def is_plain(name: str) -> bool:
    """Whether a name says nothing but a split: `Test`, `test_images`, not `test_tube`."""
    return split_of(name) is not None and all(word in _SPLIT_OF or word in _FILLING for word in words_of(name))
