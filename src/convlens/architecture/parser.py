"""The sentence: text to layers and back.

Owns the grammar (docs/sentence.md), the canonical form, the bounds that make a stranger's sentence safe to read,
and messages that point at the very column. Knows nothing of shapes (`plan.py`).
"""

import re
from dataclasses import MISSING, dataclass, field
from typing import Any, NamedTuple

from convlens.architecture.arguments import MAX_NUMBER, WORDS
from convlens.architecture.layers import LAYER_NAMES, SIMPLE_LAYERS, Layer, Repeat, Residual, chain_text
from convlens.errors import SentenceError
from convlens.text import did_you_mean, shown

MAX_CHARACTERS = 20_000
MAX_NESTING = 16
MAX_LAYERS = 1_000  # after repeats are written out
_MOST_MISTAKES = 10
_COMMA = "layers stand side by side with spaces between them: leave the comma away"
# What other frameworks and textbooks call a layer.
_APPLIED = ("softmax", "logsoftmax", "log_softmax")


@dataclass(frozen=True)
class Architecture:
    """An architecture: its layers, and the text they were read from (for messages; it takes no part in ==)."""

    layers: tuple[Layer, ...]
    source: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        """The canonical sentence: `parse(str(architecture)) == architecture`."""
        return chain_text(self.layers)


class Token(NamedTuple):
    """A piece of the sentence."""

    kind: str  # name, number, string, end, or the character itself
    text: str
    column: int  # from 1


_TOKEN = re.compile(
    r"(?P<name>[A-Za-z_][A-Za-z_0-9]*)"
    r"|(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<string>'[^']*'|\"[^\"]*\")"
    r"|(?P<mark>[(),|=])"
    r"|(?P<space>\s+)"
)


def parse(text: str) -> Architecture:
    """Read a sentence. Raises SentenceError, with the column and what would be right, where it is not one."""
    if not isinstance(text, str):
        raise SentenceError(f"a sentence is text, not {type(text).__name__}")
    if len(text) > MAX_CHARACTERS:
        raise SentenceError(f"the sentence has {len(text):,} characters; {MAX_CHARACTERS:,} is the limit")
    return _Parser(text).sentence()


class _EnoughError(Exception):
    """So many mistakes that no more are looked for."""


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = self._tokens()
        self.position = 0
        self.mistakes: list[SentenceError] = []

    def error(self, message: str, column: int) -> SentenceError:
        return SentenceError(message, text=self.text, column=column)

    def _tokens(self) -> list[Token]:
        tokens = []
        position = 0
        while position < len(self.text):
            match = _TOKEN.match(self.text, position)
            if match is None:
                raise self.error(f"{self.text[position]!r} has no meaning here", position + 1)
            kind = str(match.lastgroup)
            if kind != "space":
                word = match.group()
                tokens.append(Token(word if kind == "mark" else kind, word, position + 1))
            position = match.end()
        tokens.append(Token("end", "the end", len(self.text) + 1))
        return tokens

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def take(self, kind: str, purpose: str) -> Token:
        token = self.token
        if token.kind != kind:
            raise self.error(f"expected {kind!r} {purpose}, found {shown(token.text, 40)}", token.column)
        self.position += 1
        return token

    def sentence(self) -> Architecture:
        try:
            layers = self.chain(depth=0)
        except _EnoughError:
            layers = ()
        if self.token.kind != "end" and len(self.mistakes) < _MOST_MISTAKES:
            what = _COMMA if self.token.kind == "," else f"expected a layer, found {shown(self.token.text, 40)}"
            self.mistakes.append(self.error(what, self.token.column))
        if self.mistakes:
            first, *others = self.mistakes
            raise SentenceError(first.reason, text=self.text, column=first.column, others=others)
        if not layers:
            raise self.error("the sentence is empty: it needs at least one layer", 1)
        return Architecture(layers, self.text)

    def chain(self, depth: int) -> tuple[Layer, ...]:
        """Layers up to a mark that no layer begins with."""
        if depth > MAX_NESTING:
            raise self.error(f"nested more than {MAX_NESTING} deep", self.token.column)
        layers: list[Layer] = []
        num_layers = 0
        while self.token.kind == "name":
            start = self.position
            try:
                layers.append(self.layer(depth))
            except SentenceError as error:
                # The rest is read on behind it, so that all mistakes are told at once.
                self.mistakes.append(error)
                if len(self.mistakes) >= _MOST_MISTAKES:
                    raise _EnoughError from None
                self.position = self.after(start)
                continue
            num_layers += count_layers(layers[-1])
            if num_layers > MAX_LAYERS:
                column = layers[-1].column or 1
                raise self.error(f"more than {MAX_LAYERS:,} layers, repeats written out", column)
        return tuple(layers)

    def after(self, start: int) -> int:
        """The position behind a layer that begins here, whatever stands in its brackets."""
        position, depth = start + 1, 0
        if self.tokens[position].kind != "(":
            return position
        while self.tokens[position].kind != "end":
            depth += {"(": 1, ")": -1}.get(self.tokens[position].kind, 0)
            position += 1
            if depth == 0:
                break
        return position

    def layer(self, depth: int) -> Layer:
        name = self.take("name", "of a layer")
        if name.text == Repeat.name:
            return self.repeat(name, depth)
        if name.text == Residual.name:
            return self.residual(name, depth)
        kind = SIMPLE_LAYERS.get(name.text)
        if kind is None and name.text.lower() in _APPLIED:
            raise self.error(
                "softmax is applied for you: end with linear(classes), whose values are logits", name.column
            )
        if kind is None:
            hint = did_you_mean(name.text, LAYER_NAMES) or f"; there are {', '.join(LAYER_NAMES)}"
            raise self.error(f"unknown layer {shown(name.text, 40)!r}{hint}", name.column)
        values, columns = self.arguments(kind, name) if self.token.kind == "(" else ({}, {})
        for f in kind.arguments():
            if f.name not in values and f.default is MISSING:
                raise self.error(f"{name.text} needs {f.name}: {_signature(kind)}", name.column)
        try:
            return kind.checked(values, name.column)
        except ValueError as error:
            culprit = str(error).partition(" ")[0]
            raise self.error(f"{name.text}: {error}", columns.get(culprit, name.column)) from None

    def arguments(self, kind: type[Layer], name: Token) -> tuple[dict[str, Any], dict[str, int]]:
        """The arguments in their brackets: values, and the column of each, by name."""
        self.take("(", "")
        known = [f.name for f in kind.arguments()]
        values: dict[str, Any] = {}
        columns: dict[str, int] = {}
        named = False
        while self.token.kind != ")":
            start = self.token
            if start.kind == "name" and self.tokens[self.position + 1].kind == "=":
                self.position += 2
                named = True
                key = start.text
                if key not in known:
                    hint = did_you_mean(key, known) or f"; it takes {_signature(kind)}"
                    raise self.error(f"{name.text} has no argument {shown(key, 40)!r}{hint}", start.column)
            elif named:
                raise self.error("an argument without a name cannot follow one with a name", start.column)
            elif len(values) == len(known):
                raise self.error(f"too many arguments: {_signature(kind)}", start.column)
            else:
                key = known[len(values)]
            if key in values:
                raise self.error(f"{key} is given twice", start.column)
            columns[key] = self.token.column
            values[key] = self.value()
            if self.token.kind == ",":
                self.position += 1
            elif self.token.kind != ")":
                self.take(")", f"or ',' after an argument of {name.text}")
        self.position += 1
        return values, columns

    def value(self) -> Any:
        token = self.token
        self.position += 1
        if token.kind == "number":
            return self.number(token)
        if token.kind == "string":
            return token.text[1:-1]
        if token.kind == "name":
            if token.text in WORDS:
                return token.text
            constants = {"True": True, "False": False, "None": None}
            if token.text in constants:
                return constants[token.text]
            hint = did_you_mean(token.text, (*WORDS, *constants))
            hint = hint or f"; a text stands in quotes ('{shown(token.text, 20)}'), the words are {' and '.join(WORDS)}"
            raise self.error(f"{shown(token.text, 40)!r} is not a value{hint}", token.column)
        if token.kind == "(":
            first = self.number(self.take("number", "in a pair"))
            self.take(",", "between the numbers of a pair")
            second = self.number(self.take("number", "in a pair"))
            self.take(")", "after a pair")
            return (first, second)
        raise self.error(f"expected a value, found {shown(token.text, 40)}", token.column)

    def number(self, token: Token) -> int | float:
        if len(token.text) > 32:
            raise self.error("a number of more than 32 characters", token.column)
        return int(token.text) if token.text.lstrip("+-").isdigit() else float(token.text)

    def repeat(self, name: Token, depth: int) -> Repeat:
        self.take("(", "after repeat: repeat(3, layers)")
        times = self.take("number", "of times")
        number = self.number(times)
        if not isinstance(number, int) or not 1 <= number <= MAX_NUMBER:
            raise self.error(f"repeat needs a whole number from 1 on, not {shown(times.text, 40)}", times.column)
        self.take(",", "after the number of times")
        body = self.body(name, depth)
        self.take(")", "at the end of repeat")
        return Repeat(number, body, column=name.column)

    def residual(self, name: Token, depth: int) -> Residual:
        self.take("(", "after residual: residual(layers | shortcut)")
        body = self.body(name, depth)
        shortcut: tuple[Layer, ...] = ()
        if self.token.kind == "|":
            self.position += 1
            shortcut = self.body(name, depth)
        self.take(")", "at the end of residual")
        return Residual(body, shortcut, column=name.column)

    def body(self, name: Token, depth: int) -> tuple[Layer, ...]:
        column, num_before = self.token.column, len(self.mistakes)
        layers = self.chain(depth + 1)
        if not layers and len(self.mistakes) == num_before:
            raise self.error(f"{name.text} needs at least one layer here", column)
        return layers


def _signature(kind: type[Layer]) -> str:
    arguments = [f.name if f.default is MISSING else f"{f.name}={f.default!r}" for f in kind.arguments()]
    return f"{kind.name}({', '.join(arguments)})" if arguments else f"{kind.name}, without arguments"


def count_layers(layer: Layer) -> int:
    """Simple layers in `layer`, repeats written out."""
    if isinstance(layer, Repeat):
        return layer.times * sum(map(count_layers, layer.body))
    if isinstance(layer, Residual):
        return sum(map(count_layers, layer.body + layer.shortcut))
    return 1
