"""A classifier as one module: from framed images to everything that `predict` says of them.

Owns the torch form of what stands behind the network: views, scaled probabilities, what is unfamiliar, thresholds.
Their NumPy forms (`metrics.Scaling`, `unfamiliarity`, `thresholds`) are what it is held against.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from convlens.classifier import Classifier
from convlens.network.forward import channel_statistics
from convlens.thresholds import Thresholds
from convlens.unfamiliarity import Unfamiliarity


class WholeClassifier(nn.Module):
    """`forward(images uint8 (N, H, W, C))` gives the outputs that `output_names` names, in that order:

    logits          float32 (N, K), of the views that the model classifies by
    probabilities   float32 (N, K), scaled as validation says
    label           int64 (N,), the answer's class, as a promise has it where there is one
    unfamiliarity   float32 (N,), the score, if the model has one
    unfamiliar      bool (N,), whether it is above its threshold, or no ink was found; if either can be told
    uncertain       bool (N,), whether a promise gives no answer, if the model has one
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        card = classifier.card
        self.network, self.views, self.scaling = classifier.network, classifier.views, classifier.scaling
        self.finds_ink = card.input_spec.framing == "ink"
        self.known: Unfamiliarity | None = card.unfamiliarity
        self.thresholds: Thresholds | None = classifier.thresholds
        self.class_numbers = {name: k for k, name in enumerate(card.class_names)}
        for number, layer in enumerate(self.known.layers if self.known else ()):
            self.register_buffer(f"centres_{number}", torch.from_numpy(layer.centres_KS.copy()))
            self.register_buffer(f"whitening_{number}", torch.from_numpy(layer.whitening_SS.copy()))

    @property
    def output_names(self) -> tuple[str, ...]:
        """What it gives."""
        names = ["logits", "probabilities", "label"]
        names += ["unfamiliarity"] if self.known is not None else []
        names += ["unfamiliar"] if self.known is not None or self.finds_ink else []
        return (*names, "uncertain") if self.thresholds is not None else tuple(names)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        addresses = () if self.known is None else self.known.addresses
        num, is_mirrored = images.shape[0], self.views == "mirror"
        with channel_statistics(self.network.layers, addresses) as statistics:
            # In one pass: a second would write all weights a second time.
            logits = self.network(torch.cat([images, images.flip(2)]) if is_mirrored else images)
        if is_mirrored:
            logits, statistics = (logits[:num] + logits[num:]) / 2, [one[:num] for one in statistics]
        below = logits.amax(1, keepdim=True) - logits
        p = (-(below / self.scaling.temperature + self.scaling.curvature * below**2)).softmax(1)
        label, uncertain = self._answers(p)
        found = [logits, p, label]
        unfamiliar = (images == 0).flatten(1).all(1) if self.finds_ink else None
        if self.known is not None:
            score = self._score(statistics, logits)
            is_far = score > self.known.record.threshold
            found.append(score)
            unfamiliar = is_far if unfamiliar is None else unfamiliar | is_far
        found += [] if unfamiliar is None else [unfamiliar]
        return tuple(found) if uncertain is None else (*found, uncertain)

    def _score(self, statistics: list[Tensor], logits: Tensor) -> Tensor:
        """`Unfamiliarity.scores`."""
        assert self.known is not None
        record = self.known.record
        score = (record.max_logit.mean - logits.amax(1)) / record.max_logit.sd
        for number, (one, x) in enumerate(zip(record.layers, statistics, strict=True)):
            # In double precision: a difference of squares loses what float32 has.
            centres, whitening = (getattr(self, f"{part}_{number}").double() for part in ("centres", "whitening"))
            z = x.double() @ whitening
            squares = (z**2).sum(1, keepdim=True) - 2 * (z @ centres.T) + (centres**2).sum(1)
            nearest = squares.amin(1).clamp(min=0)
            distance = (nearest if record.power == 2 else nearest.sqrt()).float()
            score = score + (distance - one.distance.mean) / one.distance.sd / math.sqrt(len(record.layers))
        return score

    def _answers(self, p: Tensor) -> tuple[Tensor, Tensor | None]:
        """`Thresholds.answers`."""
        made = self.thresholds
        if made is None:
            return p.argmax(1), None
        if made.reject is not None:
            return p.argmax(1), p.amax(1) < made.reject.threshold
        numbers = [self.class_numbers[one.class_name] for one in made.require]
        is_all = len(set(numbers)) == len(self.class_numbers)
        others = p if is_all else p.index_fill(1, torch.tensor(numbers), -1.0)
        label, taken = others.argmax(1), torch.zeros_like(p[:, 0], dtype=torch.bool)
        for one, k in zip(made.require, numbers, strict=True):
            called = ~taken & (p[:, k] >= one.threshold)
            label, taken = torch.where(called, torch.full_like(label, k), label), taken | called
        return label, ~taken if is_all else torch.zeros_like(taken)


def facts_of(classifier: Classifier) -> dict[str, Any]:
    """What a program that has the file alone must know, as JSON: class names, input, what is promised."""
    card = classifier.card
    return {
        "class_names": list(card.class_names),
        "input": card.input_spec.to_json(),
        "views": classifier.views,
        "promise": None if classifier.thresholds is None else str(classifier.thresholds),
        "unfamiliar_above": None if card.unfamiliarity is None else card.unfamiliarity.record.threshold,
    }
