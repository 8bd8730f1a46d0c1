"""Choosing under one rate of images a second, so that no test depends on how fast or busy the machine is."""

from types import SimpleNamespace

import pytest

from convlens.choosing import choose, sizes

RATE = 50.0


@pytest.fixture(autouse=True)
def _one_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "time", SimpleNamespace(monotonic=lambda: 0.0))
    for module in (choose, sizes):
        monkeypatch.setattr(module, "rate_of", lambda *_: RATE)
