"""Tables (.csv) with a header that is known beforehand: read to the last cell, or refused with the line.

Owns their reading. Tables of samples, whose columns have to be recognised, are `tables.py`'s.
"""

import csv
import io
from pathlib import Path

from convlens import files
from convlens.errors import DataError
from convlens.text import counted, shown

_MAX_BYTES = 256 << 20


def read_csv(path: str | Path, what: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, stripped, and of each row that is not empty its line (from 2 on, where no cell has a line break) and
    its cells, as many as the header has. Raises DataError, which calls the file `what`."""
    try:
        text = files.read_regular(Path(path), _MAX_BYTES).decode("utf-8-sig", "surrogateescape")
        table = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except OSError as error:
        raise DataError(f"cannot read {what}: {error.strerror or error}") from error
    except (csv.Error, ValueError) as error:
        raise DataError(f"{what} is no table of UTF-8 text ({shown(error)})") from error
    header = [cell.strip() for cell in table[0]] if table else []
    rows = [(number, cells) for number, cells in enumerate(table[1:], 2) if cells]
    for number, cells in rows:
        if len(cells) != len(header):
            raise DataError(f"{what}, line {number:,}: {counted(len(cells), 'cell')}, the header has {len(header)}")
    return header, rows
