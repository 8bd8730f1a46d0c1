"""The program of a kit: pictures to answers, beside `model.onnx`, with onnxruntime, Pillow and numpy alone.

Owns its command line, watching a folder, keeping pictures and the self-test. `exporting.kit` writes it as one file,
`predict.py`, with everything of convlens that it uses: the very functions that decode and frame here.
"""

import argparse
import csv
import glob
import io
import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from convlens import files
from convlens.data.image.decode import REFUSED_SUFFIXES, SUFFIXES, Pixels, quiet_pillow, read_bytes
from convlens.data.prefetch import is_small, prefetch
from convlens.errors import ConvlensError, ImageError, ModelFileError, UsageError
from convlens.records import json_value
from convlens.runtime.kept import KEEP, is_to_keep, keep_picture
from convlens.runtime.onnx_model import MOST_APART, OnnxModel
from convlens.runtime.prediction import Asked, Prediction, csv_header, csv_rows
from convlens.text import counted, shown, table_cell

MODEL, SUMS, SELFTEST, EXPECTED = "model.onnx", "SHA256SUMS", "selftest", "expected.json"
_POLL_S, _PATIENCE_S = 0.2, 5.0  # between two looks; before a picture that is unchanged counts as damaged


class InputSpec(NamedTuple):
    """What the network takes, as `convlens.InputSpec`: size in pixels, channels, and how pictures are framed to it."""

    height: int
    width: int
    channels: int
    framing: str
    region: tuple[int, int, int, int] | None = None
    value_range: tuple[float, float] = (0, 255)
    crop_frac: float = 1.0


def main(arguments: list[str] | None = None, here: Path | None = None) -> int:
    """The exit code: 0, 1 where some pictures cannot be read, 2 where none can, or something else is wrong."""
    asked = _parser().parse_args(arguments)
    here = Path(__file__).resolve().parent if here is None else here
    for stream in (sys.stdout, sys.stderr):  # names in other scripts, on a console that has none
        with suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    with suppress(AttributeError, ValueError):  # as a service is stopped: what is answered is kept
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with quiet_pillow():
            return _selftest(here) if asked.selftest else _answer(here, asked)
    except ConvlensError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 0 if asked.watch else 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="predict.py",
        description="Classify pictures with model.onnx, which lies beside this program.",
        epilog="Exit code 0; 1 where some pictures cannot be read; 2 where none can, or something else is wrong.",
    )
    add = parser.add_argument
    add("pictures", nargs="*", metavar="PICTURE", help="pictures, folders, patterns; - reads paths from standard input")
    add("--csv", metavar="FILE", help="write a row for each as CSV; with --watch one that is there is gone on with")
    add("--overwrite", action="store_true", help="replace a CSV file that is there")
    add("--jsonl", action="store_true", help="print a line of JSON for each answer, as it comes")
    add("--top", type=int, default=3, metavar="N", help="how many classes to give for each (3)")
    add("--min-probability", type=float, default=0.0, metavar="SHARE", help="less probable answers are uncertain (0.9)")
    add("--recursive", action="store_true", help="of folders also the folders below")
    add("--watch", metavar="FOLDER", help="answer each new picture in a folder, until Ctrl-C or SIGTERM")
    add(
        "--keep",
        choices=KEEP,
        help="keep pictures that are uncertain, unfamiliar or unreadable, or all",
    )
    add("--kept", default="kept", metavar="FOLDER", help="where to keep them (kept)")
    add("--threads", type=int, default=0, metavar="N", help="cores to use (all)")
    add("--selftest", action="store_true", help="check this folder's files, and its answers on this machine")
    return parser


def _model(here: Path, threads: int = 0) -> OnnxModel:
    """The model beside the program. Raises ModelFileError where it is not the one that was exported."""
    try:
        data = (here / MODEL).read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {shown(here / MODEL, 200)}: {error.strerror or error}") from error
    if files.sha256_of(data) != _sums(here).get(MODEL):
        raise _damaged(MODEL)
    return OnnxModel(data, MODEL, threads)


def _damaged(name: str) -> ModelFileError:
    return ModelFileError(f"{shown(name, 200)} is damaged: its SHA-256 is not the one in {SUMS}; copy the kit again")


def _sums(here: Path) -> dict[str, str]:
    """The hashes of the kit's files, by their names. Raises ModelFileError."""
    try:
        lines = (here / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"cannot read {shown(here / SUMS, 200)}, so nothing here can be checked: copy the kit again"
        ) from error
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


# ---------------------------------------------------------------- answering


class _Answered(NamedTuple):
    """An answer, the picture as it came, and as the network takes it (None where it cannot be read)."""

    answer: Prediction
    data: bytes
    framed: Pixels | None


def _answer(here: Path, asked: argparse.Namespace) -> int:
    if asked.top < 1 or not 0 <= asked.min_probability <= 1 or asked.threads < 0:
        raise UsageError("--top must be 1 or more, --min-probability from 0 to 1, --threads 0 or more")
    if bool(asked.watch) == bool(asked.pictures):
        raise UsageError("name pictures or a folder, or --watch FOLDER" + (", not both" if asked.watch else ""))
    if asked.csv and os.path.lexists(asked.csv) and not (asked.overwrite or asked.watch):
        raise UsageError(f"--csv {shown(asked.csv, 200)} exists already: name another file, or say --overwrite")
    model = _model(here, asked.threads)
    num_top = min(asked.top, len(model.class_names))
    listed = [] if asked.watch else _listed(asked.pictures, asked.recursive)
    known = _known(asked.csv, num_top) if asked.watch and asked.csv and os.path.lexists(asked.csv) else None
    num = num_unread = num_uncertain = 0
    first: Prediction | None = None
    with ExitStack() as stack:
        write = None
        if asked.csv:
            replaces, goes_on = asked.overwrite and not asked.watch, known is not None
            write = stack.enter_context(csv_rows(Path(asked.csv), num_top, "row", replace=replaces, go_on=goes_on))
        found = _watched(model, asked, known or {}) if asked.watch else _answers(model, listed, asked)
        for answer, data, framed in found:
            num, num_uncertain = num + 1, num_uncertain + bool(answer.uncertain)
            if answer.error is not None:
                num_unread, first = num_unread + 1, first or answer
            if is_to_keep(answer, asked.keep):
                logits = None if framed is None else model.logits(framed)
                keep_picture(Path(asked.kept), data, answer, logits)
            if write is not None:
                write(answer)
            if asked.jsonl:
                print(json.dumps(answer.to_json(), allow_nan=False), flush=True)
            elif write is None or asked.watch:
                print(f"{shown(answer.path, 200)}: {answer.answer}  {answer.likeliest}".rstrip(), flush=True)
    if asked.csv:
        _note(f"written: {shown(asked.csv, 200)}")
    if num_uncertain:
        _note(f"note: {num_uncertain:,} of {counted(num, 'picture')} are uncertain: a person should look at them")
    if first is not None and num_unread == num:
        many = f"none of the {num:,} pictures can be read: " if num > 1 else ""
        raise ImageError(f"{many}{shown(first.path, 200)}: {first.error}")
    if num_unread:
        _note(f"note: {num_unread:,} of {counted(num, 'picture')} cannot be read and have no answer")
    return 1 if num_unread else 0


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _answers(model: OnnxModel, pictures: list[str], asked: argparse.Namespace) -> Iterator[_Answered]:
    """The answers, in order; of those that cannot be read, why. Files are decoded ahead in threads."""

    def read(path: str) -> tuple[bytes, Pixels | str]:
        data = b""
        try:
            data = read_bytes(path)
            return data, model.frame(data)
        except ImageError as error:
            return data, str(error)

    sizes = sorted(map(_size, pictures[:: max(1, len(pictures) // 32)]))
    threads = 0 if not sizes or is_small(sizes[len(sizes) // 2]) else asked.threads or None
    waiting = iter(pictures)
    for group in _batches(prefetch(read, pictures, threads=threads), model.batch_size):
        framed = [one for _, one in group if not isinstance(one, str)]
        answers = model.answers(framed, Asked(asked.top, asked.min_probability))
        for data, one in group:
            path = next(waiting)
            if isinstance(one, str):
                yield _Answered(Prediction(path, "", math.nan, (), one), data, None)
            else:
                yield _Answered(replace(next(answers), path=path), data, one)


def _batches(groups: Iterable[list[Any]], size: int) -> Iterator[list[Any]]:
    """Groups put together until there are at least so many."""
    batch: list[Any] = []
    for group in groups:
        batch += group
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a Path takes longer
    except (OSError, ValueError):
        return 0


# ---------------------------------------------------------------- which pictures


def _listed(given: Iterable[str], recursive: bool) -> list[str]:
    """Pictures, those in folders, those that match patterns, and those that standard input names, one a line. Raises
    ImageError."""
    found: list[str] = []
    for one in given:
        if one == "-":
            found += [path for line in sys.stdin if (path := line.rstrip("\r\n"))]
        elif files.is_folder(one):
            try:
                here = sorted(path for path, _ in _in_folder(one, recursive))
            except OSError as error:
                raise ImageError(f"cannot look into {shown(one, 200)}: {error.strerror or error}") from error
            if not here:
                below = "" if recursive else ": --recursive looks into the folders below"
                raise ImageError(f"folder {shown(one, 200)} holds no pictures{below}")
            found += here
        elif glob.has_magic(one) and not os.path.lexists(one):
            here = sorted(path for path in glob.glob(one) if not files.is_folder(path))  # noqa: PTH207 - as given
            if not here:
                raise ImageError(f"no file matches {shown(one, 200)}")
            found += here
        else:
            found.append(one)
    return found


_Stamp = tuple[int, int]  # when a file was changed, in nanoseconds, and its bytes


def _in_folder(folder: str, recursive: bool) -> Iterator[tuple[str, _Stamp]]:
    """The pictures in a folder, by their names' ends. Raises OSError."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if recursive and entry.is_dir(follow_symlinks=False):
                with suppress(OSError):  # one that is not ours to look into
                    yield from _in_folder(entry.path, recursive)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES | REFUSED_SUFFIXES:  # noqa: PTH122 - ten times as fast
                with suppress(OSError):  # it may be gone meanwhile
                    status = entry.stat()
                    yield entry.path, (status.st_mtime_ns, status.st_size)


def _known(path: str, num_top: int) -> dict[str, int]:
    """The pictures that a CSV file has rows of, and when it was last written, in nanoseconds. Raises UsageError where
    it is another table."""
    header, where = csv_header(num_top, "row"), f"--csv {shown(path, 200)}"
    try:
        written = os.stat(path).st_mtime_ns  # noqa: PTH116 - as given
        data = Path(path).read_bytes()
        whole = data.rfind(b"\n") + 1
        rows = csv.reader(io.StringIO(data[:whole].decode("utf-8"), newline=""))
        first, found = next(rows, None), {row[0]: written for row in rows if len(row) == len(header)}
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{where} cannot be read ({shown(error, 80)}): name another file") from error
    if first != header:
        raise UsageError(f"{where} is no table of these columns: name another file")
    if whole < len(data):  # a row that was cut short: its picture is answered again
        files.truncate(Path(path), whole)
    return found


def _watched(model: OnnxModel, asked: argparse.Namespace, known: dict[str, int]) -> Iterator[_Answered]:
    """The answer to each picture that comes into a folder or is changed there, once it is whole: unchanged between two
    looks and readable, or unchanged for some seconds. Those in `known` are passed over unless they are newer."""
    if not files.is_folder(asked.watch):
        raise UsageError(f"--watch {shown(asked.watch, 200)} is no folder")
    kept = Path(asked.kept).resolve()
    if asked.keep and (
        kept == Path(asked.watch).resolve() or (asked.recursive and Path(asked.watch).resolve() in kept.parents)
    ):
        raise UsageError(f"--kept {shown(asked.kept, 200)} lies in the folder that is watched: name another")
    done: dict[str, _Stamp] = {}
    waiting: dict[str, tuple[_Stamp, float]] = {}  # since when it is unchanged
    is_told = False
    while True:
        start = time.monotonic()
        try:
            here = dict(_in_folder(asked.watch, asked.recursive))
            is_told = False
        except OSError as error:  # a share that is away for a moment
            if not is_told:
                _note(f"note: cannot look into {shown(asked.watch, 200)} ({error.strerror or error}); waiting for it")
            is_told, here = True, {}
        new = {
            path: stamp
            for path, stamp in here.items()
            if done.get(path) != stamp and stamp[0] > known.get(table_cell(path), -1)
        }
        ready = [path for path, stamp in new.items() if path in waiting and waiting[path][0] == stamp]
        waiting = {path: waiting[path] if path in ready else (stamp, start) for path, stamp in new.items()}
        for one in _answers(model, sorted(ready), asked):
            path = str(one.answer.path)
            stamp, since = waiting[path]
            if one.framed is None and start - since < _PATIENCE_S:
                continue  # perhaps its other half comes yet
            done[path] = stamp
            del waiting[path]
            yield one
        done = {path: stamp for path, stamp in done.items() if path in here or is_told}
        time.sleep(max(_POLL_S, time.monotonic() - start if not ready else 0))


# ---------------------------------------------------------------- the self-test


def _selftest(here: Path) -> int:
    """Each file is what was exported, and each picture of the self-test gives the input, label and probabilities that
    it gave there. Raises ModelFileError, which says what is not so."""
    sums = _sums(here)
    for name, digest in sums.items():
        try:
            is_whole = files.sha256_of_file(here / name) == digest
        except OSError as error:
            raise ModelFileError(f"cannot read {shown(name, 200)}: {error.strerror or error}") from error
        if not is_whole:
            raise _damaged(name)
    model, most = _model(here), 0.0
    expected = json_value((here / SELFTEST / EXPECTED).read_bytes(), EXPECTED)["pictures"]
    for one in expected:
        framed = model.frame(read_bytes(here / SELFTEST / one["picture"]))
        answer = next(model.answers([framed], Asked(len(model.class_names))))
        if str(answer.row).partition("-")[0] != one["row"].partition("-")[0]:
            raise ModelFileError(
                f"{one['picture']} becomes another input here than where the kit was made: install the versions that "
                "requirements.txt names"
            )
        found = dict(answer.top)
        apart = max(abs(found[top["label"]] - top["probability"]) for top in one["top"])
        most = max(most, apart)
        if not apart <= MOST_APART or (answer.label != one["label"] and not one["is_near"]):
            raise ModelFileError(
                f"{one['picture']} is answered otherwise here: {shown(answer.label)}, there {shown(one['label'])}, "
                f"probabilities {apart:.2g} apart"
            )
    print(
        f"{counted(len(sums), 'file')} as exported; {counted(len(expected), 'picture')} with the same inputs and "
        f"labels, probabilities at most {most:.1g} apart"
    )
    return 0
