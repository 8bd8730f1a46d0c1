"""The one strict reader of every JSON that is read back: nothing else in the house parses JSON.

Owns what all documents have in common: regular files of a bounded size, UTF-8, no number that is not finite, no name
twice, nothing beside what the document's schema declares, and a seal, the SHA-256 of the document's own content. The
schemas (subclasses of `Record`) stand in the rooms that own the documents. A document comes as it was declared, or as a
`RecordError` that names the file and the field.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import msgspec

from convlens import files
from convlens.errors import ConvlensError, RecordError
from convlens.text import shown

MAX_BYTES = 64 << 20
MAX_LINE_BYTES = 1 << 20
MAX_VALUES = 5_000_000
_SEAL = "sha256"

Name = Annotated[str, msgspec.Meta(max_length=4_096)]  # a name, a path, a date, a version
Text = Annotated[str, msgspec.Meta(max_length=1_000_000)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e300)]
Number = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every schema: a frozen value whose fields are checked, by type and range, when it is read."""

    def to_json(self) -> dict[str, Any]:
        """The fields as they stand in the document."""
        plain: dict[str, Any] = _as_lists(msgspec.to_builtins(self))
        return plain

    def replace(self, **values: Any) -> Self:
        """The same with other values."""
        return msgspec.structs.replace(self, **values)


def _as_lists(value: Any) -> Any:
    """A JSON value with lists for tuples, so that it equals itself when it is read back."""
    if isinstance(value, dict):
        return {name: _as_lists(one) for name, one in value.items()}
    return [_as_lists(one) for one in value] if isinstance(value, list | tuple) else value


R = TypeVar("R")


def parsed(data: bytes, kind: type[R], where: str) -> R:
    """A document of this kind from its bytes. Raises RecordError, which says what is wrong with which field."""
    return converted(json_value(data, where), kind, where)


def converted(value: Any, kind: type[R], where: str) -> R:
    """A document of this kind from a JSON value. Raises RecordError."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, _, field = str(error).replace("`", "").partition(" - at ")
        field = field.removeprefix("$").removeprefix(".") or "the whole"
        raise RecordError(f"{where} is damaged ({shown(field)}: {shown(what, 160)})") from error
    except (ConvlensError, ValueError, TypeError, OverflowError) as error:  # of a value's own check
        raise RecordError(f"{where} is damaged ({shown(str(error).partition(chr(10))[0], 200)})") from error


def versioned(value: Any, document: str, kinds: Mapping[int, type[R]], where: str) -> R:
    """A document that names itself: its `kind` and `format_version` choose among the schemas. Raises RecordError."""
    if not isinstance(value, dict) or value.get("kind") != document:
        found = value.get("kind") if isinstance(value, dict) else value
        raise RecordError(f"{where} is no {document}, but {shown(found)}")
    version = value.get("format_version")
    if not isinstance(version, int) or version not in kinds:
        known = " and ".join(map(str, kinds))
        raise RecordError(f"{where} has format version {shown(version)}, this convlens reads {known}")
    return converted(value, kinds[version], where)


def read_sealed(path: Path, *, most_bytes: int = MAX_BYTES) -> tuple[Any, bool]:
    """The JSON value in a file and whether it had a seal, which is taken off. Raises RecordError where the value is not
    what was sealed. For `versioned`: documents of before have no seal."""
    where = shown(path, 200)
    value = json_value(_bytes(path, most_bytes), where)
    if not isinstance(value, dict) or _SEAL not in value:
        return value, False
    if value.pop(_SEAL) != _digest(value):
        raise RecordError(f"{where} is damaged: it is not what was written (its SHA-256 is another)")
    return value, True


def read_document(
    path: Path, document: str, kinds: Mapping[int, type[R]], *, sealed_from: int, most_bytes: int = MAX_BYTES
) -> R:
    """The document in a file that names itself, by its version; from `sealed_from` on it must have a seal. Raises
    RecordError."""
    where = shown(path, 200)
    value, is_sealed = read_sealed(path, most_bytes=most_bytes)
    found = versioned(value, document, kinds, where)
    if value["format_version"] >= sealed_from and not is_sealed:
        raise RecordError(f"{where} is damaged (it has no SHA-256 of its own)")
    return found


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Replace `path` by a document with the SHA-256 of its content, durably. Raises StorageError."""
    files.write_json(path, value | {_SEAL: _digest(value)})


def read_lines(path: Path, kind: type[R], *, most_bytes: int = MAX_BYTES) -> tuple[list[R], list[str]]:
    """The documents of a file of lines, and what is wrong with each line that holds none; absent: empty.

    A last line that a crash cut short is none of either. Raises RecordError where the file itself cannot be read.
    """
    found: list[R] = []
    damaged: list[str] = []
    lines = raw_lines(path, most_bytes)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            if len(line) > MAX_LINE_BYTES:
                raise RecordError(f"{shown(path, 200)}, line {number:,}, is damaged (it is too long)")
            found.append(parsed(line, kind, f"{shown(path, 200)}, line {number:,},"))
        except RecordError as error:
            if number < len(lines):
                damaged.append(str(error))
    return found, damaged


def raw_lines(path: Path, most_bytes: int = MAX_BYTES) -> list[bytes]:
    """The lines of a file as they are; absent: none. Raises RecordError."""
    return _bytes(path, most_bytes).split(b"\n") if os.path.lexists(path) else []


def _bytes(path: Path, most_bytes: int) -> bytes:
    try:
        return files.read_regular(path, most_bytes)
    except OSError as error:
        raise RecordError(f"cannot read {shown(path, 200)}: {error.strerror or error}") from error


def json_value(data: bytes, where: str, most_values: int = MAX_VALUES) -> Any:
    """The JSON value in some bytes, for `converted` or `versioned`. Raises RecordError; where there are too many
    values, before any is made."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") > most_values:
        raise RecordError(f"{where} is damaged (it has more than {most_values:,} values)")
    try:
        return json.loads(
            data.decode("utf-8-sig"),
            parse_constant=_refuse,
            parse_float=_finite,
            object_pairs_hook=_each_once,
        )
    except RecordError as error:
        raise RecordError(f"{where} is damaged ({error})") from None
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{where} is damaged: it is not JSON ({shown(error)})") from error


def _refuse(word: str) -> None:
    raise RecordError(f"{word} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise RecordError(f"{shown(text, 40)} is no finite number")
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RecordError("a name stands twice")
    return found


def _digest(value: dict[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return files.sha256_of(text.encode("ascii"))
