"""The record of the pictures that a model was made with: its size, its errors, its generations."""

from __future__ import annotations

import numpy as np
import pytest

from convlens import seen
from convlens.data.image.decode import DECODER_VERSION
from convlens.data.image.framing import FRAMING_VERSION
from convlens.errors import ModelFileError
from convlens.records import converted
from convlens.seen import FALSE_POSITIVES, Seen, SeenRecord


def keys(num: int, stream: int) -> np.ndarray:
    return np.random.default_rng([num, stream]).integers(0, 2**64, num, dtype=np.uint64)


def read_again(record: Seen) -> Seen:
    found = Seen.read(converted(record.to_json(), SeenRecord, "card"), record.tensors())
    assert found is not None
    return found


@pytest.mark.parametrize("num", [0, 1, 7, 1_000, 60_000])
def test_a_record_knows_every_picture_in_two_bytes(num: int) -> None:
    """Written and read again it has all of them, in at most two bytes a picture (and four beside), and takes one in
    10,000 of others for one of them."""
    record = read_again(Seen.of(keys(num, 0)))
    assert record.has(keys(num, 0)).all() and record.told_of(keys(100, 1)).all()
    assert sum(t.nbytes for t in record.tensors().values()) <= 2 * num + 4
    others = record.has(keys(500_000, 1)).mean()
    assert others <= 1.3 * FALSE_POSITIVES


def test_generations_are_kept_apart_and_counted_once() -> None:
    """A child's record has its parent's pictures too; those of both take no room twice."""
    parent = Seen.of(keys(1_000, 0))
    child = read_again(Seen.of(np.concatenate([keys(1_000, 0), keys(500, 1)]), parent))
    assert child.has(keys(1_000, 0)).all() and child.has(keys(500, 1)).all()
    assert [part.facts.num_pictures for part in child.parts] == [500, 1_000]


def test_of_very_many_pictures_a_sample_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit those with the lowest keys stand for all, and it says of which pictures it can tell."""
    monkeypatch.setattr(seen, "MAX_KEPT", 1_000)
    record = read_again(Seen.of(keys(10_000, 0)))
    told_of = record.told_of(keys(10_000, 0))
    assert 800 <= told_of.sum() <= 1_000
    assert np.array_equal(record.has(keys(10_000, 0)), told_of)
    assert record.has(keys(10_000, 5)).mean() < 1e-3


def test_chance_is_bounded() -> None:
    """More than `most_by_chance` of pictures that were never seen turn up less than once in a million times."""
    from scipy.stats import binom

    record = Seen.of(keys(100, 0))
    for num in (1, 50, 10_000, 1_000_000):
        most = record.most_by_chance(num)
        assert binom.sf(most, num, FALSE_POSITIVES) < 1e-6 and most <= 3 + 3 * num * FALSE_POSITIVES + 10


def test_records_that_cannot_be_read() -> None:
    """Of pixels that were made otherwise then, nothing is known; a record with other keys than it says is refused."""
    record = Seen.of(keys(100, 0))
    of_before = SeenRecord(DECODER_VERSION - 1, FRAMING_VERSION, tuple(p.facts for p in record.parts))
    assert Seen.read(of_before, record.tensors()) is None
    whole = SeenRecord(DECODER_VERSION, FRAMING_VERSION, of_before.parts)
    with pytest.raises(ModelFileError, match="damaged"):
        Seen.read(whole, {name: np.zeros_like(t) for name, t in record.tensors().items()})
