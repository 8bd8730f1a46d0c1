"""Choosing under one rate of images a second, so that no test depends on how fast or busy the machine is."""

import pytest

from convlens.choosing import choose, pretrained, sizes

RATE = 50.0
_RATES = ("outputs", "tuning")


@pytest.fixture(autouse=True)
def _one_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((choose, "rate_of"), (sizes, "rate_of"), *((pretrained, f"rate_of_{w}") for w in _RATES)):
        monkeypatch.setattr(module, name, lambda *_, **__: RATE)
