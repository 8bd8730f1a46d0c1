"""What lies elsewhere: fetched once, gone on with, checked; every way in which a server fails is one line."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convlens
from convlens import files
from convlens.data.sources import fetching, named
from convlens.data.sources.fetching import FetchError, fetch, is_address, without_secrets
from convlens.errors import ConvlensError, DataError, StorageError, UsageError
from convlens.progress import Progress
from tests.conftest import shapes
from tests.helpers import folder


class Server(ThreadingHTTPServer):
    """Files by path, and what is asked of it; `behave` says how a path fails the next times."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.behave: dict[str, list[str]] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.ended = threading.Event()
        self.has_ranges = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def _answer(self, *, has_body: bool) -> None:
        path, wanted = self.path.partition("?")[0], self.headers.get("Range", "")
        self.server.asked.append((self.command, path, wanted))
        how = self.server.behave.get(path, [])
        act = how.pop(0) if how and has_body else ""
        if act.isdigit() or path not in self.server.files:
            self.send_response(int(act or 404))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = self.server.files[path]
        mark = f'"{hashlib.md5(content).hexdigest()}"'
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.has_ranges else 0
        if self.headers.get("If-Range", mark) != mark:
            begin = 0
        if act == "silent":
            self.server.ended.wait(20)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.send_header("ETag", mark)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if has_body:
            part = content[begin:]
            self.wfile.write(part[: len(part) // 2] if act in ("short", "stalls") else part)
        if act == "stalls":
            self.wfile.flush()
            self.server.ended.wait(20)
        if act in ("short", "stalls"):
            self.close_connection = True

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetching, "_WAIT_S", 0.0)
    monkeypatch.setattr(fetching, "_CHUNK", 1000)
    found = Server()
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.ended.set()
    found.shutdown()
    found.server_close()


CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 50_000, dtype=np.uint8))
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


@pytest.mark.parametrize("how", [[], ["503"], ["short"], ["short", "429", "short"]])
def test_what_passes_is_tried_again(server: Server, tmp_path: Path, how: list[str]) -> None:
    """A busy server, a connection that is lost: the rest is asked for, not all of it, and the file is whole."""
    server.files["/a.bin"], server.behave["/a.bin"] = CONTENT, list(how)
    fetch([f"{server.address}/a.bin"], tmp_path / "a.bin", Progress(), known_hash=MD5)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert sum(bool(wanted) for _, _, wanted in server.asked) == (
        len(how) - how.index("short") if "short" in how else 0
    )
    assert not (tmp_path / ".a.bin.part").exists()
    before = len(server.asked)
    fetch([f"{server.address}/a.bin"], tmp_path / "a.bin", Progress(), known_hash=MD5)
    assert len(server.asked) == before, "what is there is not asked for"


def test_another_process_goes_on(server: Server, tmp_path: Path) -> None:
    """What came before an end stays, and the next try asks for the rest; where the file has changed meanwhile, or the
    server knows no ranges, for all of it."""
    server.files["/a.bin"] = CONTENT
    for changed, has_ranges in ((False, True), (False, False), (True, True)):
        place = tmp_path / f"{changed}{has_ranges}"
        server.files["/a.bin"], server.has_ranges = CONTENT, True
        server.behave["/a.bin"] = 4 * ["short"]
        with pytest.raises(FetchError, match=r"bytes of it are kept: the same command goes on"):
            fetch([f"{server.address}/a.bin"], place / "a.bin", Progress())
        part = place / ".a.bin.part"
        assert CONTENT.startswith(part.read_bytes()) and part.stat().st_size > 40_000
        server.has_ranges = has_ranges
        if changed:
            server.files["/a.bin"] = CONTENT[::-1]
        fetch([f"{server.address}/a.bin"], place / "a.bin", Progress())
        assert (place / "a.bin").read_bytes() == server.files["/a.bin"]


@pytest.mark.parametrize(
    ("act", "words"),
    [("401", "login"), ("403", "403, forbidden"), ("404", "404, not there"), ("410", "gone"), ("500", "answers 500"),
     ("short", "kept"), ("silent", "no answer in time"), ("stalls", "nothing came")],
)  # fmt: skip
def test_a_server_that_fails_is_one_line(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str, words: str
) -> None:
    """Which address, what it said; nothing is under the file's name."""
    monkeypatch.setattr(fetching, "_SILENT_S", 0.3)
    monkeypatch.setattr(fetching, "_TRIES", 1 if act in ("silent", "stalls") else 4)
    server.files["/a.bin"], server.behave["/a.bin"] = CONTENT, 9 * [act]
    with pytest.raises(FetchError, match=words) as caught:
        fetch([f"{server.address}/a.bin"], tmp_path / "a.bin", Progress(), known_hash=MD5)
    assert "\n" not in str(caught.value) and "/a.bin" in str(caught.value)
    assert not (tmp_path / "a.bin").exists()
    if act.startswith("4"):
        assert len(server.asked) == 1, "what will not pass is asked once"


def test_mirrors_and_wrong_hashes(server: Server, tmp_path: Path) -> None:
    """The next address is asked where one has nothing or another file; where all fail each says why."""
    server.files |= {"/bad/a.bin": CONTENT[:-1] + b"x", "/good/a.bin": CONTENT}
    places = [f"{server.address}/{one}/a.bin" for one in ("none", "bad", "good")]
    fetch(places, tmp_path / "a.bin", Progress(), known_hash=MD5)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    with pytest.raises(FetchError, match=r"404, not there; .*another file than its makers published"):
        fetch(places[:2], tmp_path / "b" / "a.bin", Progress(), known_hash=MD5)
    assert [path.name for path in (tmp_path / "b").iterdir()] == []


def test_a_full_disk_is_one_line(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what came stays for when there is room."""
    server.files["/a.bin"] = CONTENT
    opened = files.opened_to_write_on

    def full(path: Path, num: int | None) -> Any:
        file = opened(path, num)
        write = file.write

        class Full:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *error: object) -> None:
                file.close()

            def write(self, data: bytes) -> None:
                if file.tell() > 20_000:
                    raise OSError(28, "No space left on device")
                write(data)

        return Full()

    with monkeypatch.context() as patch:
        patch.setattr(files, "opened_to_write_on", full)
        with pytest.raises(StorageError, match="no space left"):
            fetch([f"{server.address}/a.bin"], tmp_path / "a.bin", Progress(), known_hash=MD5)
    fetch([f"{server.address}/a.bin"], tmp_path / "a.bin", Progress(), known_hash=MD5)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.asked[-1][2].startswith("bytes=2")


# ---------------------------------------------------------------- named sets


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(head + array.tobytes())


def cifar(num: int, num_classes: int, num_label_bytes: int, names_file: str) -> bytes:
    """A binary archive with so many training and test pictures."""
    rng, out = np.random.default_rng(0), io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        parts = [("data_batch_1.bin", num), ("data_batch_2.bin", num), ("test_batch.bin", num)]
        if num_label_bytes == 2:
            parts = [("train.bin", 2 * num), ("test.bin", num)]
        for name, n in parts:
            records = rng.integers(0, 256, (n, num_label_bytes + 3072), dtype=np.uint8)
            records[:, 0] = 0
            records[:, num_label_bytes - 1] = np.arange(n) % num_classes
            _add(archive, f"cifar/{name}", records.tobytes())
        _add(archive, f"cifar/{names_file}", "\n".join(f"class-{k}" for k in range(num_classes)).encode() + b"\n\n")
    return out.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def published(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, dict[str, bytes]]:
    """Small sets in the formats of the four, on the server, by a mirror; their makers' addresses lead nowhere."""
    monkeypatch.setenv("CONVLENS_CACHE", str(tmp_path / "cache"))  # they are called as the real ones are
    rng = np.random.default_rng(1)
    found: dict[str, dict[str, bytes]] = {}
    for name, what in named.PUBLISHED.items():
        if what.names_file:
            num_classes = 10 if name == "cifar10" else 100
            contents = [cifar(200, num_classes, what.num_label_bytes, what.names_file)]
        else:
            images, labels = rng.integers(0, 256, (100, 28, 28), dtype=np.uint8), np.arange(100, dtype=np.uint8) % 10
            contents = [idx(images), idx(labels), idx(images[::-1].copy()), idx(labels[::-1].copy())]
        found[name] = dict(zip(what.files, contents, strict=True))
        hashes = {file: hashlib.md5(content).hexdigest() for file, content in found[name].items()}
        small = what._replace(files=hashes, addresses=(f"{server.address}/makers/",), folder=None)
        monkeypatch.setitem(named.PUBLISHED, name, small)
        server.files |= {f"/mirror/{name}/{file}": content for file, content in found[name].items()}
    monkeypatch.setenv("CONVLENS_MIRROR", f"{server.address}/mirror")
    return found


@pytest.mark.parametrize("name", list(named.PUBLISHED))
def test_a_named_set_is_fetched_once(
    server: Server, published: dict[str, dict[str, bytes]], name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Licence, size and place are said first; pictures, labels and class names are those of the files; the second time
    nothing is asked for, and offline it is there."""
    dataset = convlens.pack(name, progress="lines")
    said = capfd.readouterr().err
    assert "licence" in said and "MB from 127.0.0.1" in said and str(files.cache_folder() / "sets") in said
    assert dataset.counts["train"] + dataset.counts["val"] == 2 * dataset.counts["test"] or "mnist" in name
    assert dataset.counts["test"] == (100 if "mnist" in name else 200) and dataset.source == name
    num = len(server.asked)
    server.files.clear()
    again = convlens.pack(name, progress="none")
    assert again.fingerprint == dataset.fingerprint and len(server.asked) == num
    if name == "cifar10":
        with tarfile.open(fileobj=io.BytesIO(published[name]["cifar-10-binary.tar.gz"])) as archive:
            member = archive.extractfile("cifar/data_batch_1.bin")
            assert member is not None
            first = np.frombuffer(member.read()[1:3073], np.uint8).reshape(3, 32, 32).transpose(1, 2, 0)
        assert np.array_equal(again.images_at(np.array([0]))[0], first)
        assert again.class_names == tuple(f"class-{k}" for k in range(10))
    if name == "cifar100":
        assert len(again.class_names) == 100


def test_a_named_set_offline_says_where_its_files_belong(
    server: Server, published: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """One line with the addresses and the folder; put there, or named, they serve."""
    server.files.clear()
    with pytest.raises(DataError, match=r"/makers/cifar-10-binary\.tar\.gz answers 404.*`data_root`") as caught:
        convlens.pack("cifar10", progress="none")
    assert str(files.cache_folder() / "sets" / "cifar10") in str(caught.value) and "\n" not in str(caught.value)
    place = tmp_path / "mine"
    place.mkdir()
    for file, content in published["cifar10"].items():
        (place / file).write_bytes(content)
    assert convlens.pack("cifar10", data_root=place, progress="none").counts["test"] == 200
    with pytest.raises(DataError, match=r"kmnist is not in .*train-images"):
        convlens.pack("kmnist", data_root=place, progress="none")


@pytest.mark.parametrize("how", ["pickled", "cut", "a class too many"])
def test_another_archive_of_cifar_is_refused(tmp_path: Path, how: str) -> None:
    """One line that names it."""
    path, out = tmp_path / "cifar-10-binary.tar.gz", io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        if how == "pickled":
            _add(archive, "cifar/data_batch_1", b"pickle")
        else:
            _add(archive, "cifar/batches.meta.txt", b"a\nb\n")
            for name in ("data_batch_1.bin", "test_batch.bin"):
                _add(archive, f"cifar/{name}", bytes([7 if how != "cut" else 0]) + bytes(3072 - (how == "cut")))
    path.write_bytes(out.getvalue())
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz") as caught:
        convlens.pack("cifar10", data_root=tmp_path, progress="none")
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- addresses


def test_data_at_an_address(server: Server, tmp_path: Path) -> None:
    """An .npz on a web server: fetched once, the same data set as the file, fetched anew when it has changed there, and
    used with a note where nobody answers; a run finds it again."""
    x, y = shapes(300, 2)
    for seed, name in ((2, "one.npz"), (3, "two.npz")):
        np.savez(tmp_path / name, x=shapes(300, seed)[0], y=shapes(300, seed)[1])
    address = f"{server.address}/data/set.npz?download=1"
    server.files["/data/set.npz"] = (tmp_path / "one.npz").read_bytes()
    dataset = convlens.pack(address, progress="none")
    assert dataset.fingerprint == convlens.pack((x, y), progress="none").fingerprint
    assert dataset.source == address and any("fetched from" in note for note in dataset.notes)
    asked = [method for method, _, _ in server.asked]
    convlens.pack(address, progress="none")
    assert [method for method, _, _ in server.asked][len(asked) :] == ["HEAD"]
    server.files["/data/set.npz"] = (tmp_path / "two.npz").read_bytes()
    assert convlens.pack(address, progress="none").fingerprint != dataset.fingerprint
    fresh = (tmp_path / "one.npz").read_bytes()
    server.files["/data/set.npz"], server.behave["/data/set.npz"] = fresh, ["403"]
    with pytest.raises(DataError, match="forbidden"):  # changed, and not to be had: the copy stays
        convlens.pack(address, progress="none")
    server.files.clear()
    kept = convlens.pack(address, progress="none")
    assert any("not known" in note for note in kept.notes)


def test_folders_and_patterns_by_fsspec(tmp_path: Path) -> None:
    """`memory://`, as any protocol of fsspec's: class folders, a pattern of shards, one file; the same as on a disk."""
    fsspec = pytest.importorskip("fsspec")
    root = folder(tmp_path / "src", range(60))
    system = fsspec.filesystem("memory")
    for path in sorted(root.rglob("*.png")):
        system.pipe(f"/bucket/parts/{path.relative_to(root).as_posix()}", path.read_bytes())
    system.pipe("/bucket/parts/.hidden", b"x")
    dataset = convlens.pack("memory://bucket/parts", progress="none")
    assert dataset.fingerprint == convlens.pack(root, progress="none").fingerprint
    with pytest.raises(DataError, match="is not there"):
        convlens.pack("memory://bucket/nothing", progress="none")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(system), "isdir", lambda *_: (_ for _ in ()).throw(OSError("the link is down")))
        with pytest.raises(DataError, match=r"bucket/parts: .*the link is down"):
            convlens.pack("memory://bucket/parts", progress="none")
    system.pipe("/bucket/empty/readme.md", b"x")
    with pytest.raises(DataError, match="no files of data"):
        convlens.pack("memory://bucket/empty", progress="none")
    np.savez(tmp_path / "a.npz", x=shapes(300)[0], y=shapes(300)[1])
    system.pipe("/bucket/a.npz", (tmp_path / "a.npz").read_bytes())
    one = convlens.pack("memory://bucket/a.npz", progress="none")
    assert one.fingerprint == convlens.pack(tmp_path / "a.npz", progress="none").fingerprint


@pytest.mark.parametrize(
    ("address", "words"),
    [("https://anna:geheim@example.org/a.zip", "no passwords"), ("nothing://a/b.zip", "no address"),
     ("s3://bucket/a.zip", "needs another package|cannot")],
)  # fmt: skip
def test_addresses_that_cannot_be(address: str, words: str) -> None:
    """One line, which keeps a password to itself."""
    with pytest.raises(ConvlensError, match=words) as caught:
        convlens.pack(address, progress="none")
    assert "geheim" not in str(caught.value) and "\n" not in str(caught.value)


def test_what_an_address_is() -> None:
    """Drives and paths are none; what signs an address is not kept."""
    assert is_address("https://a/b.zip") and is_address("s3://a/b") and is_address("hf://datasets/a/b")
    assert not any(map(is_address, ("C:\\a\\b", "a/b.zip", "mnist", "", None, 3)))
    assert without_secrets("https://a/b.zip?X-Amz-Signature=77&x=1") == "https://a/b.zip"
    assert without_secrets("https://a/b.zip?download=1") == "https://a/b.zip?download=1"
    with pytest.raises(UsageError):
        without_secrets("ftp://a:b@c/d")
