"""Warm start: a training that begins with the weights of a finished model, its parent.

Owns which tensors are taken over and which are made anew, what a run and a card say of the parent, and the check that
no image the parent learned from stands in the new test split.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convlens import files
from convlens.architecture import Plan, parse, plan
from convlens.architecture.families import FAMILIES, family
from convlens.data.image.decode import DECODER_VERSION
from convlens.data.image.framing import FRAMING_VERSION, InputSpec
from convlens.data.packed.dataset import Dataset
from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import is_packed, reopen
from convlens.errors import ConvlensError, DataError, ModelFileError, RunError, UsageError
from convlens.modelfile import ModelCard, ParentFacts, read_model
from convlens.network.build import Network, tensors_of
from convlens.network.pretrained import model_path
from convlens.seen import MAX_PARTS, Seen
from convlens.text import counted, listed, shown


@dataclass(frozen=True)
class Parent:
    """The model that a training starts from. `seen` is the record of all images that it or its own parents were
    trained or validated on; None where that cannot be known any more."""

    path: Path
    sha256: str
    card: ModelCard
    tensors: Mapping[str, NDArray[Any]]
    seen: Seen | None
    plan: Plan

    def options_for(self, asked: PackOptions, data: Any) -> PackOptions:
        """The options that pack images as the parent takes them; of a set that is packed already, those asked for.
        Raises UsageError where others were asked for."""
        spec = self.card.input_spec
        own = {"size": (spec.height, spec.width)} | {
            n: getattr(spec, n) for n in ("channels", "framing", "region", "value_range", "crop_frac")
        }
        if self.card.is_adopted:  # from many pictures of all kinds: size and framing may be others
            own |= {name: value for name in ("size", "framing") if (value := getattr(asked, name)) is not None}
            own["crop_frac"] = spec.crop_frac if own["framing"] == "crop" else 1.0
        for name, value in own.items():
            wanted = getattr(asked, name)
            if wanted is not None and wanted != value:
                raise UsageError(
                    f"`parent` takes pictures as its model does ({name} {shown(value)}), not {shown(wanted)}"
                )
        return asked if is_packed(data) else asked.replace(**own)

    def architecture_for(self, size: tuple[int, int] | None) -> str:
        """The sentence for pictures of that size (height, width): the model's own, or for weights of a known family and
        another size the family's. Raises UsageError where the two do not go together."""
        origin, spec = self.card.origin, self.card.input_spec
        if origin is None or origin.name not in FAMILIES or size in (None, (spec.height, spec.width)):
            return self.card.architecture
        assert size is not None, "another one"
        if size[0] != size[1]:
            raise UsageError(f"{origin.name} takes square pictures, not {size[0]}×{size[1]}")
        return family(origin.name).sentence(size[0])

    def facts(self) -> ParentFacts:
        """As run.json and the card have it."""
        card = self.card
        return ParentFacts(
            path=str(self.path.resolve()),
            sha256=self.sha256,
            created=card.created,
            class_names=card.class_names,
            input=card.input_spec,
            dataset={}
            if card.dataset is None
            else {"name": card.dataset.name, "fingerprint": card.dataset.fingerprint},
        )


def read_parent(what: Any, progress: Any = "none") -> Parent:
    """The parent named by whatever names a model. Raises ModelFileError, RunError."""
    path = model_path(what)
    file = read_model(path)
    if file.card.seen is not None and len(file.card.seen.parts) >= MAX_PARTS:
        raise ModelFileError(f"{shown(path, 200)} has {MAX_PARTS} generations before it: train one from nothing")
    return Parent(path, files.sha256_of_file(path), file.card, file.tensors, seen_by(file.card, progress), file.plan)


def seen_by(card: ModelCard, progress: Any = "none") -> Seen | None:
    """Which pictures a model was made with: its own record, or, of a model without one and without a parent, that of
    its data, where it is at hand; None where that cannot be known. Of weights that convlens only took over none, which
    `origin` tells of."""
    if card.dataset is None:
        return Seen(())
    if card.seen is not None or card.has_parent:
        return card.seen
    try:
        return seen_in(reopen(card.dataset, progress=progress), None)
    except (ConvlensError, OSError):
        return None


def is_comparable(dataset: Dataset, spec: InputSpec, seen: Seen | None = None) -> bool:
    """Whether equal pictures have equal keys in a data set and in the record of a model with this input: they were
    decoded and framed alike, or there is no key to compare with. (A large JPEG is decoded at a fraction, the same
    picture in another format is not.)"""
    if seen is not None and not seen.parts:
        return True
    if seen is not None and seen.decodes_otherwise(dataset.decoded, len(dataset)):
        return False
    own, versions = dataset.input_spec, (dataset.card.decoder_version, dataset.card.framing_version)
    is_alike = own == spec.with_statistics(own.mean, own.std)
    return is_alike and versions == (DECODER_VERSION, FRAMING_VERSION)


def seen_in(dataset: Dataset, parent: Parent | None) -> Seen | None:
    """The record of all that a training on this data set looks at: train, val, and what its parent saw. None where it
    is not known what that was."""
    if not is_comparable(dataset, dataset.input_spec) or (parent is not None and parent.seen is None):
        return None
    keys = np.concatenate([dataset.pixel_keys("train"), dataset.pixel_keys("val")])
    return Seen.of(keys, None if parent is None else parent.seen, dataset.decoded)


def check_lineage(parent: Parent, dataset: Dataset) -> str | None:
    """Raises DataError where the new test split holds images that the parent learned from: more than the few that its
    record takes for such by chance, or that a score then leaves out.

    Returns a line to say what a person should know of it.
    """
    if parent.seen is None or not is_comparable(dataset, parent.card.input_spec, parent.seen):
        return (
            "which images the parent was trained on is not known, or they were framed otherwise: whether some of them "
            "are in the new validation and test splits was not checked"
        )
    leaked = parent.seen.has(dataset.pixel_keys("test"))
    if leaked.sum() > parent.seen.most_by_chance(len(leaked)):
        names, rows = dataset.sample_names(), dataset.rows("test")
        raise DataError(
            f"{int(leaked.sum()):,} of the {len(leaked):,} test images of {dataset.name} were used to train the "
            f"parent, {shown(names[rows[int(leaked.argmax())]])} among them: their score would be worth nothing. Put "
            "them into train, leave them out (`exclude`), or train without `parent`"
        )
    notes = []
    if leaked.any():
        num = counted(int(leaked.sum()), "test image")
        notes.append(f"{num} that the parent was made with will be left out of scores")
    known = parent.seen.has(dataset.pixel_keys("val"))
    if known.sum() > parent.seen.most_by_chance(len(known)):
        notes.append(
            f"{int(known.sum()):,} of the {len(known):,} validation images were looked at when the parent was made (it "
            "learned from them, or was validated by them): what is measured on validation counts them"
        )
    return "; ".join(notes) or None


def class_changes(parent: Parent, class_names: tuple[str, ...]) -> str | None:
    """A line on what becomes of the classes of a model that a training begins with, where they are others; None of
    weights that convlens only took over, whose classes nobody trained for."""
    before = parent.card.class_names
    if parent.card.is_adopted or class_names == before:
        return None
    kept = [name for name in class_names if name in before]
    added = [name for name in class_names if name not in before]
    dropped = [name for name in before if name not in class_names]
    said = [
        f"{what} {listed(names)}" for what, names in (("kept", kept), ("added", added), ("dropped", dropped)) if names
    ]
    line = f"the classes of the parent: {'; '.join(said) or 'in another order'}. The last layer is learned anew"
    if dropped:
        line += (
            f", and the model will not know {listed(dropped)}: to keep all, put pictures of every class into the data"
        )
    return line


def measured_validation(
    dataset: Dataset, spec: InputSpec, before: Seen | None, *, is_grown: bool
) -> tuple[NDArray[np.bool_], bool]:
    """Which validation images are measured, bool (N,), and whether some of them may have been seen by a parent (or one
    of its own): the few that its record may have by chance are left out, where it has more of them all are measured."""
    keys = dataset.pixel_keys("val")
    everything = np.ones(len(keys), bool)
    if not is_grown:
        return everything, False
    if before is None or not is_comparable(dataset, spec, before):
        return everything, True
    known = before.has(keys)
    return (everything, True) if known.sum() > before.most_by_chance(len(keys)) else (~known, False)


def inherit(network: Network, parent: Parent, class_names: tuple[str, ...]) -> list[str]:
    """Copy the parent's tensors into a freshly made network; returns the names of those that stay as they were made.

    These are the ones whose shape the number of classes decides, where the classes are not the same in the same order.
    """
    head = set(head_of(network.plan)) if class_names != parent.card.class_names else set()
    tensors = tensors_of(network)
    # By their order, for the sentence for another size may have other addresses.
    with torch.no_grad():
        for name, own in zip(network.plan.tensors, parent.plan.tensors, strict=True):
            if name not in head:
                tensors[name].copy_(torch.from_numpy(np.array(parent.tensors[own])))
    return sorted(head)


def head_of(network_plan: Plan) -> list[str]:
    """The names of the tensors whose shape depends on the number of classes."""
    more = plan(parse(str(network_plan.architecture)), network_plan.input_shape, network_plan.num_classes + 1)
    return [name for name, shape in network_plan.tensors.items() if more.tensors[name] != shape]


def parent_again(facts: ParentFacts | None) -> Parent | None:
    """The parent of a run that is resumed. Raises RunError where its file is not the one that it was."""
    if facts is None:
        return None
    path = Path(facts.path)
    if not files.is_file(path) or files.sha256_of_file(path) != facts.sha256:
        raise RunError(f"the parent {shown(path, 200)} is not there any more, or has changed: begin a new run")
    return read_parent(path)
