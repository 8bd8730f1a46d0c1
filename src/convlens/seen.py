"""Which pictures a model was made with: a record of two bytes a picture that travels in the model file.

Owns the record's form and its bounds. A picture's key is the start of the SHA-256 of its pixels as framed, so that a
record says nothing but whether a picture that one has at hand was among those. Keys are reduced modulo 10,000 times
their number, sorted, and delta-coded (Elias-Fano: the low 13 bits as they are, the rest as the lengths of runs of
zeros), which takes 15.3 bits a picture; of pictures that were not seen one in 10,000 is taken for one that was.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from convlens.data.image.decode import DECODER_VERSION
from convlens.data.image.framing import FRAMING_VERSION
from convlens.errors import ModelFileError
from convlens.records import Count, Record

FALSE_POSITIVES = 1e-4  # of pictures that were not seen, for each part of a record
MAX_KEPT = 10_000_000  # pictures; of more, those with the lowest keys are recorded
_RANGE_A_PICTURE = round(1 / FALSE_POSITIVES)
_ALL, MAX_PARTS = 2**32, 100
_LOW_BITS = 13  # floor(log2(_RANGE_A_PICTURE)) is what takes the fewest


class PartFacts(Record, frozen=True):
    """What one training looked at, as a card has it: how many pictures, of which `num_keys` are recorded, all those
    whose key has its upper 32 bits below `below` (2^32: all of them). `num_reduced` were JPEGs that were decoded at a
    fraction of their size, `num_large` others that are as large; `num_wide` were no bytes, `num_unframed` ink in arrays
    that were taken as they are."""

    num_pictures: Count
    num_keys: Annotated[int, Meta(ge=0, le=MAX_KEPT)]
    below: Annotated[int, Meta(ge=1, le=_ALL)]
    num_reduced: Count = 0
    num_large: Count = 0
    num_wide: Count = 0
    num_unframed: Count = 0

    @property
    def modulus(self) -> np.uint64:
        """What keys are reduced by."""
        return np.uint64(max(1, self.num_keys) * _RANGE_A_PICTURE)

    @property
    def num_bytes(self) -> int:
        """Of the keys, coded."""
        high = self.num_keys + (int(self.modulus) >> _LOW_BITS) + 1
        return -(-self.num_keys * _LOW_BITS // 8) + -(-high // 8)


class SeenRecord(Record, frozen=True):
    """A record, as a card has it; the keys of its parts are the tensors `seen.0`, `seen.1` …"""

    decoder_version: Count
    framing_version: Count
    parts: Annotated[tuple[PartFacts, ...], Meta(max_length=MAX_PARTS)]

    @property
    def shapes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of each of its tensors."""
        return {f"seen.{n}": ("uint8", (part.num_bytes,)) for n, part in enumerate(self.parts)}


@dataclass(frozen=True)
class SeenPart:
    """A part and its keys: uint64, sorted, modulo `facts.modulus`."""

    facts: PartFacts
    keys: NDArray[np.uint64]

    def told_of(self, keys_N: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """bool (N,): of which pictures the record can tell whether they were seen."""
        return (keys_N >> np.uint64(32)) < np.uint64(self.facts.below)

    def has(self, keys_N: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """bool (N,): which pictures it has."""
        return np.isin(keys_N % self.facts.modulus, self.keys) & self.told_of(keys_N)


@dataclass(frozen=True)
class Seen:
    """A record: the training's own pictures first, then what its parents looked at besides."""

    parts: tuple[SeenPart, ...]

    @classmethod
    def of(
        cls, keys: NDArray[np.uint64], before: Self | None = None, decoded: tuple[int, int, int, int] = (0, 0, 0, 0)
    ) -> Self:
        """A record of pictures by their full keys, uint64, in any order, and of what was recorded before."""
        keys = np.unique(keys)
        if before is not None:
            keys = keys[~before.has(keys)]
        num_pictures, below = len(keys), _ALL
        if num_pictures > MAX_KEPT:
            below = int(keys[MAX_KEPT] >> np.uint64(32))
            keys = keys[(keys >> np.uint64(32)) < np.uint64(below)]
        facts = PartFacts(num_pictures, len(keys), below, *decoded)
        own = SeenPart(facts, np.sort(keys % facts.modulus))
        return cls((own, *(before.parts if before is not None else ())))

    @classmethod
    def read(cls, record: SeenRecord, tensors: Mapping[str, NDArray[np.uint8]]) -> Self | None:
        """The record that stands in a file; None where its keys are of pixels that convlens made otherwise then.
        Raises ModelFileError."""
        if (record.decoder_version, record.framing_version) != (DECODER_VERSION, FRAMING_VERSION):
            return None
        parts = [(facts, tensors[name]) for facts, name in zip(record.parts, record.shapes, strict=True)]
        return cls(tuple(SeenPart(facts, _decoded(coded, facts)) for facts, coded in parts))

    def has(self, keys_N: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """bool (N,): which pictures, by their full keys, were seen."""
        found = np.zeros(len(keys_N), bool)
        for part in self.parts:
            found |= part.has(keys_N)
        return found

    def told_of(self, keys_N: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """bool (N,): of which pictures the whole record can tell; all, unless it is a sample."""
        found = np.ones(len(keys_N), bool)
        for part in self.parts:
            found &= part.told_of(keys_N)
        return found

    def decodes_otherwise(self, decoded: tuple[int, int, int, int], num: int) -> bool:
        """Whether equal pictures may have other keys in a set of `num`, of which so many were JPEGs decoded at a
        fraction, others as large, and no bytes: one of the two made other pixels of the same picture."""
        facts = [part.facts for part in self.parts]
        num_reduced, num_large, num_wide, _ = decoded
        was_reduced, was_large = any(one.num_reduced for one in facts), any(one.num_large for one in facts)
        was_wide = any(one.num_wide for one in facts)
        was_bytes = any(one.num_wide < one.num_pictures for one in facts)
        kinds = (was_wide and num_wide < num) or (was_bytes and num_wide > 0)
        return (was_reduced and num_large > 0) or (was_large and num_reduced > 0) or kinds

    def frames_otherwise(self, decoded: tuple[int, int, int, int]) -> bool:
        """Whether some of the same pictures (one in twenty at most) may have other keys in another set: ink in arrays
        was taken as it is in one of the two, and framed in the other."""
        return any(part.facts.num_unframed for part in self.parts) != (decoded[3] > 0)

    def most_by_chance(self, num: int) -> int:
        """Of `num` pictures that were not seen, more than so many are taken for seen once in a million times at most
        (a Chernoff bound of the binomial)."""
        expected = num * FALSE_POSITIVES * len(self.parts)
        most = math.ceil(expected)
        while most < num and expected - most + most * math.log(max(most, 1) / max(expected, 1e-300)) < math.log(1e6):
            most += 1
        return most

    # ------------------------------------------------------------ in a model file

    def to_json(self) -> dict[str, Any]:
        """What a card says of it; the keys are `tensors`."""
        return SeenRecord(DECODER_VERSION, FRAMING_VERSION, tuple(part.facts for part in self.parts)).to_json()

    def tensors(self) -> dict[str, NDArray[np.uint8]]:
        """The keys of each part, coded: uint8, as `seen.0`, `seen.1` …"""
        return {f"seen.{number}": _coded(part) for number, part in enumerate(self.parts)}


def _coded(part: SeenPart) -> NDArray[np.uint8]:
    low = np.empty((len(part.keys), _LOW_BITS), np.uint8)
    for bit in range(_LOW_BITS):
        low[:, bit] = (part.keys >> np.uint64(bit)) & np.uint64(1)
    high = (part.keys >> np.uint64(_LOW_BITS)).astype(np.int64) + np.arange(len(part.keys))
    ones = np.zeros(8 * part.facts.num_bytes - 8 * -(-len(part.keys) * _LOW_BITS // 8), np.uint8)
    ones[high] = 1
    return np.concatenate([np.packbits(low.reshape(-1)), np.packbits(ones)])


def _decoded(coded: NDArray[np.uint8], facts: PartFacts) -> NDArray[np.uint64]:
    """The keys again. Raises ModelFileError where there are not so many."""
    num_low = -(-facts.num_keys * _LOW_BITS // 8)
    low = np.unpackbits(coded[:num_low], count=facts.num_keys * _LOW_BITS).reshape(facts.num_keys, _LOW_BITS)
    high = np.flatnonzero(np.unpackbits(coded[num_low:]))
    if len(high) != facts.num_keys:
        raise ModelFileError("the record of the pictures that the model was made with is damaged")
    keys = (high - np.arange(facts.num_keys)).astype(np.uint64) << np.uint64(_LOW_BITS)
    for bit in range(_LOW_BITS):
        keys |= low[:, bit].astype(np.uint64) << np.uint64(bit)
    return keys
