"""How unlike a network's training images a picture is: an out-of-distribution score that travels in the model file.

Owns the score, how it is fitted, and its bounds. The maps of the first activation that sees 3×3 pixels are reduced to
mean and standard deviation of each channel; of these it takes the Mahalanobis distance to the nearest class mean under
the covariance that the classes share (K. Lee et al., NeurIPS 2018), and takes off the largest logit (D. Hendrycks et
al., ICML 2022), each in standard deviations of validation images. docs/decisions.md says what it was chosen over.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from convlens.architecture.layers import Activation
from convlens.architecture.plan import Node, Plan
from convlens.records import Count, Name, Number, Record, Share

LEAST_IMAGES = 100  # held out, below which no threshold can be promised
FALSE_ALARMS = 0.01  # of pictures like the training images, that the threshold calls unfamiliar
_LEAST_SEEN = 3  # pixels across: to a network like those of Keller Jordan's airbench, 2×2 of them are a whitening
_LEAST_VALUES, _SHARE = 16_384, 10  # that are kept: 64 KB, or a tenth of the weights
_SHRUNK = 1e-3  # of the mean variance, added to each: channels that never fired have none
_IMAGES_A_STATISTIC = 4  # from which on a covariance can be told

Statistics = Sequence[NDArray[np.floating]]  # of each layer (N, S)


class Measured(Record, frozen=True):
    """Mean and standard deviation over validation images."""

    mean: Number
    sd: Number


class LayerFacts(Record, frozen=True):
    """A layer, by its address, how many statistics of its channels there are (`num_statistics`), and the distances that
    validation images have in it."""

    address: Name
    statistics: Annotated[int, Meta(ge=1, le=8192)]
    distance: Measured


class UnfamiliarityRecord(Record, frozen=True, kw_only=True):
    """What a card says of it; the rest are the tensors `unfamiliar.ADDRESS.centres` (K, S) and `.whitening` (S, S).
    A score above `threshold` is had by a share `false_alarms` of pictures like the `num_images` of validation. Models
    of before add up two layers' distances, to the `power` of 2, over the root of two."""

    layers: Annotated[tuple[LayerFacts, ...], Meta(min_length=1, max_length=100)]
    max_logit: Measured
    threshold: Number
    false_alarms: Share
    num_images: Count
    power: Number = 2.0

    def scores(self, distances: Sequence[NDArray[np.float64]], logits_NK: NDArray[np.floating]) -> NDArray[np.float64]:
        """float64 (N,), from each layer's distances (N,), to its power, and logits."""
        scores_N = -_standard(logits_NK.max(axis=1), self.max_logit)
        for one, distances_N in zip(self.layers, distances, strict=True):
            scores_N += _standard(distances_N, one.distance) / math.sqrt(len(self.layers))
        return scores_N

    def shapes(self, num_classes: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of each of its tensors."""
        parts = {"centres": num_classes, "whitening": 0}
        return {
            f"unfamiliar.{one.address}.{part}": ("float32", (rows or one.statistics, one.statistics))
            for one in self.layers
            for part, rows in parts.items()
        }


class _Layer(NamedTuple):
    centres_KS: NDArray[np.float32]  # class means, whitened
    whitening_SS: NDArray[np.float32]


@dataclass(frozen=True)
class Unfamiliarity:
    """The score of one network."""

    record: UnfamiliarityRecord
    layers: tuple[_Layer, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """The layers whose statistics it takes."""
        return tuple(one.address for one in self.record.layers)

    @classmethod
    def read(cls, record: UnfamiliarityRecord, tensors: Mapping[str, NDArray[Any]]) -> Self:
        """As it stands in a file."""
        names = (f"unfamiliar.{one.address}" for one in record.layers)
        return cls(record, tuple(_Layer(tensors[f"{n}.centres"], tensors[f"{n}.whitening"]) for n in names))

    @classmethod
    def fitted(
        cls,
        addresses: Sequence[str],
        learned: Statistics,
        labels_N: NDArray[np.int64],
        held_out: Statistics,
        logits_MK: NDArray[np.floating],
    ) -> Self:
        """To training images, by the statistics of each layer (N, S) and their labels; the threshold to validation
        images, by theirs (M, S) and their logits."""
        layers = tuple(_fitted_layer(x_NS, labels_N, logits_MK.shape[1]) for x_NS in learned)
        distances = [_distance(layer, x_MS, power=1) for layer, x_MS in zip(layers, held_out, strict=True)]
        return cls._with_threshold(addresses, layers, distances, logits_MK)

    @classmethod
    def fitted_by_folds(
        cls,
        addresses: Sequence[str],
        statistics: Statistics,
        labels_N: NDArray[np.int64],
        fold_N: NDArray[np.int64],
        logits_NK: NDArray[np.floating],
    ) -> Self:
        """To all images that were learned from, by the statistics (N, S) that the delivered network has of them; the
        threshold to the distances of each fold's images from the centres of the others, and to their logits by the
        fold's network (cross-conformal: V. Vovk, 2015). The layers are early ones, whose channels know no single
        picture."""
        num_classes = logits_NK.shape[1]
        layers = tuple(_fitted_layer(x_NS, labels_N, num_classes) for x_NS in statistics)
        distances = distances_by_folds(statistics, labels_N, fold_N, num_classes)
        return cls._with_threshold(addresses, layers, distances, logits_NK)

    @classmethod
    def _with_threshold(
        cls,
        addresses: Sequence[str],
        layers: tuple[_Layer, ...],
        distances: Sequence[NDArray[np.float64]],
        logits_MK: NDArray[np.floating],
    ) -> Self:
        """The score, by what these images have of it that were held out: each layer's distances (M,), and
        logits (M, K)."""
        num = len(logits_MK)
        facts = tuple(
            LayerFacts(address, len(layer.whitening_SS), _measured(distances_M))
            for address, layer, distances_M in zip(addresses, layers, distances, strict=True)
        )
        record = UnfamiliarityRecord(
            layers=facts,
            max_logit=_measured(logits_MK.max(axis=1)),
            threshold=0.0,
            false_alarms=FALSE_ALARMS,
            num_images=num,
            power=1.0,
        )
        scores_M = np.sort(record.scores(distances, logits_MK))
        # The rank that a new picture exceeds so rarely (V. Vovk et al., 2005): conformal, whatever the distribution.
        rank = min(num, math.ceil((num + 1) * (1 - FALSE_ALARMS)))
        return cls(record.replace(threshold=float(scores_M[rank - 1])), layers)

    def scores(self, statistics: Statistics, logits_NK: NDArray[np.floating]) -> NDArray[np.float64]:
        """float64 (N,), larger for what is less like the training images."""
        power = self.record.power
        distances = [_distance(layer, x_NS, power) for layer, x_NS in zip(self.layers, statistics, strict=True)]
        return self.record.scores(distances, logits_NK)

    def are_unfamiliar(self, statistics: Statistics, logits_NK: NDArray[np.floating]) -> NDArray[np.bool_]:
        """bool (N,): whose score is above the threshold."""
        return self.scores(statistics, logits_NK) > self.record.threshold

    def to_json(self) -> dict[str, Any]:
        """What a card says of it."""
        return self.record.to_json()

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The tensors of the model file."""
        return {
            f"unfamiliar.{one.address}.{part}": array
            for one, layer in zip(self.record.layers, self.layers, strict=True)
            for part, array in (("centres", layer.centres_KS), ("whitening", layer.whitening_SS))
        }


def distances_by_folds(
    statistics: Statistics, labels_N: NDArray[np.int64], fold_N: NDArray[np.int64], num_classes: int
) -> list[NDArray[np.float64]]:
    """Of each layer the distance (N,) of each image from the centres of the other folds."""
    distances = [np.zeros(len(labels_N)) for _ in statistics]
    for fold in np.unique(fold_N).tolist():
        out_N = fold_N == fold
        for x_NS, distances_N in zip(statistics, distances, strict=True):
            others = _fitted_layer(x_NS[~out_N], labels_N[~out_N], num_classes)
            distances_N[out_N] = _distance(others, x_NS[out_N], power=1)
    return distances


def num_statistics(node: Node) -> int:
    """How many statistics a layer's output has: mean and standard deviation of each channel of maps, else its values
    themselves."""
    return node.output_shape[0] * (2 if len(node.output_shape) == 3 else 1)


def layers_to_look_at(network: Plan, num_images: int) -> tuple[str, ...]:
    """The address of the first activation that sees 3×3 pixels, fits into a tenth of the weights, or 64 KB, and whose
    covariance so many training images can tell; none where there is none. Early layers see how a picture is made; what
    it shows, the largest logit says."""
    most, num_classes = max(_LEAST_VALUES, network.num_parameters // _SHARE), network.num_classes
    for node in network.leaves:
        num, seen = num_statistics(node), min(axis.size for axis in node.receptive)
        size, needed = num * (num + num_classes), _IMAGES_A_STATISTIC * num + num_classes
        if isinstance(node.layer, Activation) and seen >= _LEAST_SEEN and size <= most and needed <= num_images:
            return (node.address,)
    return ()


def _fitted_layer(statistics_NS: NDArray[np.floating], labels_N: NDArray[np.int64], num_classes: int) -> _Layer:
    x_NS = statistics_NS.astype(np.float64)
    counts_K = np.bincount(labels_N, minlength=num_classes)
    centres_KS = np.full((num_classes, x_NS.shape[1]), x_NS.mean(axis=0))  # of a class without images
    for k in np.flatnonzero(counts_K):
        centres_KS[k] = x_NS[labels_N == k].mean(axis=0)
    apart_NS = x_NS - centres_KS[labels_N]
    covariance_SS = apart_NS.T @ apart_NS / max(1, len(x_NS) - int((counts_K > 0).sum()))
    variance = float(np.trace(covariance_SS)) / len(covariance_SS)
    covariance_SS += max(_SHRUNK * variance, 1e-12) * np.eye(len(covariance_SS))
    whitening_SS = np.linalg.inv(np.linalg.cholesky(covariance_SS)).T
    return _Layer((centres_KS @ whitening_SS).astype(np.float32), whitening_SS.astype(np.float32))


def _distance(layer: _Layer, x_NS: NDArray[np.floating], power: float) -> NDArray[np.float64]:
    """The distance to the nearest class mean to this power, float64 (N,)."""
    z_NS, centres_KS = x_NS.astype(np.float64) @ layer.whitening_SS, layer.centres_KS.astype(np.float64)
    squares_NK = (z_NS**2).sum(axis=1)[:, None] - 2 * z_NS @ centres_KS.T + (centres_KS**2).sum(axis=1)
    nearest_N: NDArray[np.float64] = np.maximum(squares_NK.min(axis=1), 0.0) ** (power / 2)
    return nearest_N


def _measured(values_N: NDArray[np.floating]) -> Measured:
    return Measured(float(values_N.mean()), max(1e-9, float(values_N.std())))


def _standard(values_N: NDArray[np.floating], over: Measured) -> NDArray[np.float64]:
    return (values_N.astype(np.float64) - over.mean) / over.sd
