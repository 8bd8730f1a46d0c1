"""Every error that convlens raises on purpose.

Owns the exception tree. Knows nothing of what the rest does.

    ConvlensError                 one line: what was wrong, where, what to do; exit code 2
    ├── UsageError                an option or argument that cannot be
    ├── SentenceError             an architecture that cannot be read, or does not fit its input
    ├── RecipeError               a recipe value out of its range
    ├── DataError                 a data set that cannot be used
    │   └── ImageError            one picture that cannot be read
    ├── ModelFileError            a model file or checkpoint that is not what it should be
    ├── RecordError               a JSON document that is not what was written
    ├── RunError                  a run folder that exists, is missing, or is in use
    ├── StorageError              a disk that is full, a folder that cannot be written
    ├── DeviceError               a device or precision that is not there
    └── TrainingError             a training that cannot go on
        ├── DivergedError         a loss that is not finite
        └── ProcessError          another process of the training that is lost, or does not fit

`assert` is for our own mistakes only: a traceback always means a bug in convlens.
"""

from collections.abc import Sequence


class ConvlensError(Exception):
    """Base of all: its message is a single line for a person (a sentence error adds a caret line, and its other
    mistakes)."""


class UsageError(ConvlensError):
    """An option or argument that cannot be."""


class SentenceError(ConvlensError):
    """An architecture that cannot be read or does not fit.

    `column` counts from 1 in the sentence as given (None when no single place is to blame). `others` are the mistakes
    that stand beside the first.
    """

    def __init__(
        self,
        message: str,
        *,
        text: str | None = None,
        column: int | None = None,
        others: "Sequence[SentenceError]" = (),
    ) -> None:
        self.reason = message
        self.text = text
        self.column = column
        self.others = tuple(others)
        if text is not None and column is not None:
            message = f"column {column}: {message}\n{_excerpt_with_caret(text, column)}"
        super().__init__("\n".join([message, *map(str, self.others)]))


def _excerpt_with_caret(text: str, column: int, width: int = 72) -> str:
    """The part of a one-line `text` around `column` (from 1), and a caret under it."""
    flat = "".join(" " if character.isspace() else character for character in text)
    start = max(0, min(column - 1 - width // 2, len(flat) - width))
    excerpt = flat[start : start + width]
    lead = "…" if start > 0 else ""
    tail = "…" if start + width < len(flat) else ""
    return f"  {lead}{excerpt}{tail}\n  {' ' * (len(lead) + column - 1 - start)}^"


class RecipeError(ConvlensError):
    """A recipe value out of its range."""


class DataError(ConvlensError):
    """A data set that cannot be used."""


class ImageError(DataError):
    """One picture that cannot be read."""


class ModelFileError(ConvlensError):
    """A model file or checkpoint that is not what it should be."""


class RecordError(ConvlensError):
    """A JSON document that is read back and is not what was written; its message names the file and the field."""


class RunError(ConvlensError):
    """A run folder that exists, is missing, or is in use."""


class StorageError(ConvlensError):
    """A disk that is full, a folder that cannot be written."""


class DeviceError(ConvlensError):
    """A device or precision that is not there."""


class TrainingError(ConvlensError):
    """A training that cannot go on."""


class DivergedError(TrainingError):
    """A loss that is not finite. `step` counts from 0."""

    def __init__(self, message: str, *, step: int) -> None:
        super().__init__(message)
        self.step = step


class ProcessError(TrainingError):
    """A process of a training that is lost, does not come, or has other code or data than the others. `is_told`: by the
    process that leads, to whoever reads."""

    def __init__(self, message: str, *, is_told: bool = False) -> None:
        super().__init__(message)
        self.is_told = is_told
