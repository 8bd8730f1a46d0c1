"""Words and numbers as people read them.

Owns the small helpers that messages, tables and pictures share. Knows nothing of what they speak about.
"""

import difflib
from collections.abc import Iterable
from typing import Any

MAKER = "convlens"  # what a picture that convlens draws says of who made it: it is never read as data


def printable(text: str, *, keep: str = "\n") -> str:
    """Text for people, safe in a terminal, a picture or a page: whatever steers instead of showing (escapes, bells,
    marks that turn the direction of writing, lone surrogates) stands there as its escape; `keep` is left as it is."""
    if text.isprintable():
        return text
    text = "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(value: object) -> str:
    """`value` as printable text without a line break."""
    return printable(str(value), keep="")


def shown(value: object, limit: int = 80) -> str:
    """`value` as text that stays on one line and within `limit` characters: safe inside a message."""
    text = one_line(value)
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-limit // 2 + 1 :]}"


def table_cell(value: object) -> str:
    """A text cell of a table that people open in a spreadsheet: printable, and no formula whatever it begins with.
    Numbers stay as they are. Not for tables that convlens reads back."""
    text = one_line(value)
    if text[:1] not in ("=", "+", "-", "@"):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


# As other programs and people say it.
_OTHERWISE_CALLED = {
    **dict.fromkeys(("learning_rate", "learnrate", "learningrate", "learning_rate_init"), "lr"),
    **dict.fromkeys(("num_epochs", "max_epochs", "n_epochs", "max_iter"), "epochs"),
    **dict.fromkeys(("bs", "batchsize"), "batch_size"),
    "wd": "weight_decay",
    "optim": "optimizer",
    **dict.fromkeys(("random_state", "random_seed"), "seed"),
    **dict.fromkeys(("validation_split", "val_split", "validation_fraction"), "val_frac"),
    **dict.fromkeys(("model", "network", "net"), "architecture"),
    **dict.fromkeys(("n_jobs", "num_threads", "workers", "num_workers"), "threads"),
    **dict.fromkeys(("validation", "valid", "dev"), "val"),
    "training": "train",
    "gpu": "cuda",
    **dict.fromkeys(("dense", "fc", "fullyconnected", "fully_connected", "lazylinear"), "linear"),
    **dict.fromkeys(("convolution", "convolutional", "conv2d"), "conv"),
    **dict.fromkeys(("pool", "pooling", "maxpooling", "maxpooling2d", "max_pool"), "maxpool"),
    **dict.fromkeys(("averagepooling", "averagepooling2d", "meanpool"), "avgpool"),
    **dict.fromkeys(("gap", "adaptiveavgpool2d"), "globalavgpool"),
    **dict.fromkeys(("bn", "batchnormalization"), "batchnorm"),
    "swish": "silu",
}


def nearest(word: str, known: Iterable[str]) -> str | None:
    """What others call by this word, if it is one of `known`, else the nearest of those; None where none is near."""
    called, known = _OTHERWISE_CALLED.get(word.lower()), list(known)
    if called in known:
        return called
    return next(iter(difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` for the nearest of `known`, else an empty string."""
    near = nearest(word, known)
    return "" if near is None else f" (did you mean {near!r}?)"


def listed(names: Iterable[object], most: int = 5) -> str:
    """The first names, quoted, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(repr(shown(n)) for n in names[:most]) + more


def tallied(names: Iterable[object], counts: Iterable[int], most: int = 12) -> str:
    """`ants (123), bees (121)`: names with how many of each, the first and the last of many."""
    said = [f"{shown(name, 30)} ({count:,})" for name, count in zip(names, counts, strict=True)]
    return ", ".join(said if len(said) <= most else [*said[: most - 2], "…", said[-1]])


def counted(number: int, thing: str) -> str:
    """`1 pair`, `1,200 pairs`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def by(values: Iterable[object]) -> str:
    """`28×28`, as sizes are written everywhere."""
    return "×".join(map(str, values))


def number(value: float, digits: int = 5) -> str:
    """A number as people read it: so many significant digits, a real minus sign."""
    return f"{value:.{digits}g}".replace("-", "−")


def whole_numbers(text: object, separator: str = "x") -> list[int]:
    """The whole numbers of a text like `24x32`, of a sequence of them, or of one; empty where they are none."""
    parts: Any = text.lower().replace("×", "x").split(separator) if isinstance(text, str) else text
    try:
        return [int(part) for part in ([parts] if isinstance(parts, int) else parts)]
    except (TypeError, ValueError):
        return []


def percent(share: float | None, digits: int = 2) -> str:
    """`99.56 %` of a share in 0..1; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def probability(share: float) -> str:
    """`99.4 %`: nothing is certain, or impossible, for softmax."""
    if share >= 0.9995:
        return ">99.9 %"
    return "<0.1 %" if share < 0.0005 else percent(share, 1)


def wrapped(text: str, width: int) -> str:
    """Text in lines of at most `width` characters."""
    import textwrap

    return "\n".join(textwrap.wrap(text, width)) or text


def short_sentence(sentence: str, most: int = 300) -> str:
    """An architecture for a line of a summary: of a long one its start and its end, whole words."""
    if len(sentence) <= most:
        return sentence
    start, end = sentence[: most // 2].rpartition(" ")[0], sentence[-most // 3 :].partition(" ")[2]
    return f"{start} … {end} ({len(sentence):,} characters: convlens explain shows all)"


_INSTEAD_OF = {  # attributes that other libraries' users look for
    "fit": "convlens.train(data)",
    "compile": "convlens.train(data, lr=…), which takes the whole recipe",
    "Sequential": 'convlens.train(data, architecture="conv(8, 3) relu flatten linear(classes)")',
    "predict": "convlens.predict(model, images)",
    "predict_proba": "convlens.predict(model, images, top=K), or convlens.sklearn.ConvlensClassifier",
    "evaluate": "convlens.evaluate(model)",
    "score": "convlens.evaluate(model).accuracy",
    "summary": "convlens.explain(model)",
    "save": "the model file: run.model, which is copied like any other (shutil.copy)",
    "load_model": "convlens.load(path)",
}


def no_attribute(what: str, name: str) -> AttributeError:
    """The error for a name that a module or an object does not have, with what there is in its place."""
    instead = f": use {_INSTEAD_OF[name]}" if name in _INSTEAD_OF else ""
    return AttributeError(f"{what} has no attribute {name!r}{instead}")
