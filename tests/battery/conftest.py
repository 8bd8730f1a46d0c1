"""A folder, a cache and a ledger of its own for each row, and the runs that several rows look at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.battery.helpers import IS_LINUX, TRAIN, done, write_toy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Rows run where signals, pipes and descriptors are what they are on Linux."""
    for item in items:
        if "tests/battery" in item.path.as_posix() and not IS_LINUX:
            item.add_marker(pytest.mark.skip(reason="the battery is for Linux"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with toy.npz in it; cache and state are of this row alone."""
    monkeypatch.setenv("CONVLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CONVLENS_STATE", str(tmp_path / "state"))
    folder = tmp_path / "work"
    folder.mkdir()
    write_toy(folder)
    return folder


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows start several processes at once; two of torch's with two threads each on two cores would wait for one
    another. For each row alone: other tests' processes must compute as they do."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which an undisturbed training has left `runs/toy-1` with checkpoints, beside its cache and state."""
    root = tmp_path_factory.mktemp("whole")
    (root / "work").mkdir()
    write_toy(root / "work")
    env = {**os.environ, "CONVLENS_CACHE": str(root / "cache"), "CONVLENS_STATE": str(root / "state")}
    env["OMP_NUM_THREADS"] = "1"
    code, _, err = done(root / "work", *TRAIN, "--checkpoint-every", "0", env=env)
    assert code == 0, err
    code, _, err = done(root / "work", "evaluate", "runs/toy-1", env=env)
    assert code == 0, err
    return root


@pytest.fixture
def copied(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Makes a copy of that folder, with cache and state; returns its working folder."""

    def copy() -> Path:
        for name in ("work", "cache", "state"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
            shutil.copytree(whole / name, tmp_path / name)
        monkeypatch.setenv("CONVLENS_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("CONVLENS_STATE", str(tmp_path / "state"))
        return tmp_path / "work"

    return copy
