"""Writes docs/python.md, the reference of the Python interface, from signatures and docstrings.

    python docs/python_reference.py

What is public stands in `convlens.__all__`; of a class, what has no underscore before it and a docstring.
"""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import convlens
from convlens.sklearn import ConvlensClassifier

PAGE = Path(__file__).resolve().parent / "python.md"
_HEAD = """# Python reference

Every public name of `convlens`, from its source (`docs/python_reference.py` makes this page). How they go together is
in the [README](../README.md); words are in the [glossary](glossary.md). Whatever a person can do wrong raises a
`convlens.ConvlensError` with one line that says what was wrong, where, and what to do (a parameter that a function does
not have: Python's own TypeError). The [scikit-learn estimator](#convlenssklearnconvlensclassifier) stands at the end;
[shipping](shipping.md#in-scikit-learn) says how it is used. `progress` is "auto", "bar", "lines" or "none".
"""
_JOBS = ["train", "evaluate", "predict", "load", "check", "pack", "explain", "look", "film", "compare", "verify"]
_JOBS += ["review", "serve", "export", "runs", "adopt", "parse"]
_WIDTH = 110


def page() -> str:
    """The whole page."""
    names = [*_JOBS, *(name for name in convlens.__all__ if name not in _JOBS)]
    links = ", ".join(f"[`{name}`](#{name.lower()})" for name in names)
    entries = [_entry(name, getattr(convlens, name)) for name in names]
    estimator = _class("convlens.sklearn.ConvlensClassifier", ConvlensClassifier)
    return "\n".join([_HEAD, links, "", *entries, estimator])


def _entry(name: str, value: Any) -> str:
    if inspect.isclass(value):
        return _class(name, value)
    if callable(value):
        return f"## {name}\n\n{_code(name, value)}\n\n{_text(value)}\n"
    known = ", ".join(f"`{key}`" for key in value)
    return f"## {name}\n\nA mapping from a preset's name to its sentence and recipe: {known}.\n"


def _class(name: str, value: type) -> str:
    parts = [f"## {name}\n", _text(value), ""]
    if names := [one for one in inspect.get_annotations(value) if not one.startswith("_")]:
        parts.append(f"Fields: {', '.join(f'`{one}`' for one in names)}.\n")
    is_error = issubclass(value, Exception)
    for member, own in [] if is_error else sorted(vars(value).items()):
        if member.startswith("_") or not (own.__doc__ or "").strip() or isinstance(own, str | int | float | tuple):
            continue
        if isinstance(own, property):
            parts.append(f"- `{member}`: {_line(own)}")
        elif inspect.isfunction(own) or isinstance(own, classmethod | staticmethod):
            function = own if inspect.isfunction(own) else own.__func__
            parts.append(f"- `{member}{_signature(function, of_class=True)}`: {_line(function)}")
    return "\n".join(parts) + "\n"


def _line(value: Any) -> str:
    return " ".join((inspect.getdoc(value) or "").split())


def _text(value: Any) -> str:
    """A docstring as Markdown: programs and tables in it as they stand."""
    found = []
    for paragraph in (inspect.getdoc(value) or "").split("\n\n"):
        is_set = re.search(r"(?m)^    |\S {3,}\S", paragraph)
        found.append(f"```text\n{paragraph}\n```" if is_set else paragraph)
    return "\n\n".join(found)


def _signature(function: Callable[..., Any], *, of_class: bool = False) -> str:
    """Parameters and what is returned, with short names of types."""
    found = inspect.signature(function)
    parameters = [one for one in list(found.parameters.values())[of_class:] if one.kind != one.VAR_POSITIONAL]
    text = re.sub(r"\b(?:[a-z_]+\.)+([A-Z]\w*|ndarray|dtype)", r"\1", str(found.replace(parameters=parameters)))
    text = re.sub(r"ndarray\[tuple\[Any, \.\.\.\], dtype\[(?:numpy\.)?(\w+)\]\]", r"NDArray[\1]", text)
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)


def _code(name: str, function: Callable[..., Any]) -> str:
    text = f"{name}{_signature(function)}"
    if len(text) <= _WIDTH:
        return f"```python\n{text}\n```"
    inside, _, after = text.partition("(")[2].rpartition(") ->")
    depth, parts, at = 0, [], 0
    for place, sign in enumerate(inside):
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth == 0:
            parts.append(inside[at:place].strip())
            at = place + 1
    parts.append(inside[at:].strip())
    lines = "".join(f"    {part},\n" for part in parts)
    return f"```python\n{name}(\n{lines}) ->{after}\n```"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
