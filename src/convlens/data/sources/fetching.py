"""Files from elsewhere: fetched once into the cache, checked, and gone on with where they were broken off.

Owns the one way in which anything is fetched, by its address: `https://` and `http://` by requests, other protocols
(`s3://`, `hf://`, `gs://` …) by fsspec. A file appears under its name when it is whole and has the hash that is known
of it (pooch sees to that); what has come before stays beside it as `.NAME.part`.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from convlens import files
from convlens.errors import DataError, UsageError
from convlens.progress import Progress
from convlens.text import shown

_TRIES, _WAIT_S = 4, 1.0  # for what may pass: a lost connection, a server that is busy
_CONNECT_S, _SILENT_S = 10.0, 30.0
_CHUNK = 1 << 20
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_MEANINGS = {401: "it wants a login", 403: "forbidden", 404: "not there", 410: "gone"}


class FetchError(DataError):
    """A file that cannot be fetched."""


class _PassingError(FetchError):
    """What another try may mend."""


class Answer(NamedTuple):
    """What a server sends of a file: chunks from `offset` on, how large the whole is (None: unsaid), and a mark that is
    another when the file has changed (empty: none)."""

    chunks: Iterator[bytes]
    offset: int
    num_bytes: int | None
    mark: str


_Ask = Callable[[str, int | None, str], Answer]  # an address, an offset (None: only what it is), the mark known


def is_address(what: Any) -> bool:
    """Whether a text is an address, as `https://…` or `s3://…`."""
    return isinstance(what, str) and re.match(r"[a-z][a-z0-9+.-]+://", what) is not None


def is_web(address: str) -> bool:
    """Whether it is requests that fetches from there."""
    return address.startswith(("https://", "http://"))


def without_secrets(address: str) -> str:
    """An address as it may be shown and kept: without what signs it. Raises UsageError where it has a password."""
    parts = urlsplit(address)
    if parts.password is not None:
        raise UsageError(f"{parts.scheme}://…@{parts.hostname}: no passwords in addresses; logins belong into ~/.netrc")
    is_signed = re.search(r"(?i)sig|token|key|secret|credential|auth|password", parts.query)
    return parts._replace(query="", fragment="").geturl() if is_signed else address


def fetch(addresses: Sequence[str], path: Path, bar: Progress, *, known_hash: str | None = None) -> str:
    """Fetch a file, if it is not there, from the first of some addresses that has it; the mark it has there.
    `known_hash` is like `md5:…`. Raises FetchError with what each address said, StorageError, UsageError."""
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    kept, failed = Kept(path), list[str]()

    def downloader(url: str, to: Any, _: Any) -> None:
        _download(url, to, kept, bar, known_hash)

    for address in addresses:
        try:
            pooch.retrieve(address, known_hash, path.name, path.parent, downloader=downloader)
            return kept.text()
        except FetchError as error:
            failed.append(str(error))
        except ValueError:  # pooch's word for another hash
            kept.clear()
            failed.append(
                f"{shown(without_secrets(address), 200)} has another file than its makers published (its hash is not "
                f"{known_hash})"
            )
        except OSError as error:
            raise files.storage_error(error, path) from error
    raise FetchError("; ".join(failed))


class Kept:
    """What has come of a file, and the mark of the file that it is the beginning of."""

    def __init__(self, path: Path) -> None:
        self.part, self._mark = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.mark")

    def text(self) -> str:
        """The mark; empty where there is none."""
        with suppress(OSError, UnicodeDecodeError):
            return files.read_regular(self._mark, 1 << 12).decode()
        return ""

    def num_bytes(self) -> int:
        """How much has come."""
        return self.part.stat().st_size if files.is_file(self.part) else 0

    def begin(self, mark: str) -> None:
        """What comes now is of the file with this mark."""
        files.write_text(self._mark, mark)

    def clear(self) -> None:
        """Forget what has come."""
        files.remove_file(self.part)
        files.remove_file(self._mark)


def mark_at(address: str) -> str:
    """The mark that a file has there now; empty where nobody says. Raises FetchError where nobody answers."""
    try:
        return (_on_the_web if is_web(address) else _by_fsspec)(address, None, "").mark
    except _PassingError as error:
        raise FetchError(f"{without_secrets(address)}: {error}") from error


def _download(address: str, to: Any, kept: Kept, bar: Progress, known_hash: str | None) -> None:
    """All of a file, into the place that pooch checks it in."""
    ask = _on_the_web if is_web(address) else _by_fsspec
    for attempt in range(_TRIES):
        try:
            _go_on(ask, address, kept, bar, is_checked=known_hash is not None)
            files.move_file(kept.part, Path(to))
            return
        except _PassingError as error:
            if attempt == _TRIES - 1:
                num = kept.num_bytes()
                rest = f" ({num:,} bytes of it are kept: the same command goes on there)" if num else ""
                raise FetchError(f"{shown(without_secrets(address), 200)}: {error}{rest}") from error
            bar.line(f"{shown(without_secrets(address), 200)}: {error}; it is tried again")
            time.sleep(_WAIT_S * 2**attempt)


def _go_on(ask: _Ask, address: str, kept: Kept, bar: Progress, *, is_checked: bool) -> None:
    """Fetch what is missing. Raises _PassingError where less came than was promised."""
    mark, begun = kept.text(), kept.num_bytes()
    if not (mark or is_checked):  # nobody could tell whether the rest is of the same file
        begun = 0
    answer = ask(address, begun, mark)
    if answer.offset == 0 or (answer.mark != mark and not is_checked):
        if answer.offset:
            answer = ask(address, 0, "")
        kept.begin(answer.mark)
    name = urlsplit(address).path.rpartition("/")[2] or address
    bar.start(f"fetching {shown(name, 60)}", answer.num_bytes or 0, unit="bytes")
    bar.advance(answer.offset)
    num = answer.offset
    with files.opened_to_write_on(kept.part, answer.offset) as file:
        for chunk in answer.chunks:
            file.write(chunk)
            num += len(chunk)
            bar.advance(len(chunk))
    if answer.num_bytes is not None and num != answer.num_bytes:
        raise _PassingError(f"it ended after {num:,} of {answer.num_bytes:,} bytes")


def _on_the_web(address: str, offset: int | None, mark: str) -> Answer:
    """Ask a web server for a file from an offset on, or (None) only for what it is."""
    import requests

    headers = {"Accept-Encoding": "identity"}  # the file as it lies there, whose hash is known
    if offset:
        headers |= {"Range": f"bytes={offset}-"} | ({"If-Range": mark} if mark.startswith('"') else {})
    try:
        response = requests.request(
            "HEAD" if offset is None else "GET",
            address,
            headers=headers,
            stream=True,
            timeout=(_CONNECT_S, _SILENT_S),
            allow_redirects=True,
        )
    except requests.exceptions.Timeout as error:
        raise _PassingError("no answer in time") from error
    except requests.exceptions.ConnectionError as error:
        if "resolve" in str(error):  # urllib3's word where a name has no address: no network, or no such host
            where = shown(without_secrets(address), 200)
            raise FetchError(f"{where} cannot be reached (no network, or no such host)") from error
        raise _PassingError("it cannot be reached") from error
    except requests.exceptions.RequestException as error:
        raise FetchError(f"{shown(without_secrets(address), 200)}: {shown(error, 120)}") from error
    status = response.status_code
    if status == 416 and offset:  # as long as the file, or longer
        return _on_the_web(address, 0, "")
    if status in _PASSING:
        raise _PassingError(f"it answers {status}")
    if not 200 <= status < 300:
        meaning = f", {_MEANINGS[status]}" if status in _MEANINGS else ""
        raise FetchError(f"{shown(without_secrets(address), 200)} answers {status}{meaning}")
    begun = offset if status == 206 and offset else 0
    length = response.headers.get("Content-Length", "")
    num_bytes = begun + int(length) if length.isdigit() else None
    now = response.headers.get("ETag", "") or response.headers.get("Last-Modified", "")

    def chunks() -> Iterator[bytes]:
        import urllib3

        try:
            yield from response.raw.stream(_CHUNK, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            is_late = isinstance(error, urllib3.exceptions.TimeoutError)
            what = f"nothing came for {_SILENT_S:g} s" if is_late else "the connection was lost"
            raise _PassingError(what) from error

    return Answer(chunks(), begun, num_bytes, now)


def file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it. Raises UsageError where its package is missing."""
    scheme = address.partition("://")[0]
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise UsageError(f"{scheme}:// is read by fsspec: pip install 'convlens[remote]'") from error
    try:
        found: tuple[Any, str] = url_to_fs(address)
        return found
    except ImportError as error:
        raise UsageError(f"{scheme}:// needs another package: {shown(error, 160)}") from error
    except ValueError as error:
        raise UsageError(f"{shown(address, 120)} is no address that can be read: {shown(error, 120)}") from error


def asked(function: Callable[[], Any], address: str) -> Any:
    """What fsspec answers. Raises FetchError, _PassingError: its backends raise whatever their libraries do."""
    where = shown(without_secrets(address), 200)
    try:
        return function()
    except FileNotFoundError as error:
        raise FetchError(f"{where} is not there") from error
    except PermissionError as error:
        raise FetchError(f"{where} is forbidden: it may want a login") from error
    except (OSError, TimeoutError) as error:
        raise _PassingError(f"{where}: {shown(error, 160) or type(error).__name__}") from error
    except Exception as error:
        raise FetchError(f"{where} cannot be read: {shown(error, 160) or type(error).__name__}") from error


def _by_fsspec(address: str, offset: int | None, mark: str) -> Answer:
    system, path = file_system(address)
    facts = asked(lambda: system.info(path), address)
    num_bytes = facts.get("size")
    now = str(facts.get("ETag") or asked(lambda: system.ukey(path), address))

    def chunks() -> Iterator[bytes]:
        file = asked(lambda: system.open(path, "rb"), address)
        with file:
            asked(lambda: file.seek(offset or 0), address)
            while chunk := asked(lambda: file.read(_CHUNK), address):
                yield chunk

    return Answer(chunks() if offset is not None else iter(()), offset or 0, num_bytes, now)
