"""Training that starts from a model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import convlens
from convlens.errors import ConvlensError, DataError, RunError, UsageError
from convlens.files import cache_folder
from convlens.modelfile import read_model
from convlens.training.warm_start import head_of
from tests.helpers import NET, folder, splits, trained


def test_a_model_grown_on_the_same_classes_starts_as_its_parent(tmp_path: Path, workplace: Path) -> None:
    """Before the first step the child is the parent, head and all; the card names the parent and its data."""
    root = folder(tmp_path / "data", range(80))
    parent = trained(root)
    folder(root, range(1000, 1040))
    child = convlens.train(root, parent=parent.path, progress="none", stop=lambda: True)
    one, other = read_model(parent.model), read_model(child.model)
    assert all(np.array_equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
    assert other.card.training is not None and other.card.training.parent is not None and one.card.dataset is not None
    assert other.card.training.parent.path == str(parent.model.resolve())
    assert other.card.training.parent.dataset["fingerprint"] == one.card.dataset.fingerprint
    assert (other.card.input_spec.mean, other.card.recipe) == (one.card.input_spec.mean, one.card.recipe)
    assert ("warm start", str(parent.model.resolve())) in child.summary()
    finished = convlens.train(resume=child.path, progress="none")
    assert finished.status == "complete"


def test_new_classes_get_a_new_head(tmp_path: Path, workplace: Path) -> None:
    """Where classes differ the head is made anew and everything before it is taken over."""
    parent = trained(folder(tmp_path / "data", range(80)))
    grown = folder(tmp_path / "more", range(3000, 3120), ("ant", "bee", "wasp"))
    child = convlens.train(grown, parent=parent.path, progress="none", stop=lambda: True)
    one, other = read_model(parent.model), read_model(child.model)
    head = head_of(other.plan)
    assert head == ["8.weight", "8.bias"] and other.tensors["8.weight"].shape[0] == 3
    assert all(np.array_equal(one.tensors[name], other.tensors[name]) for name in one.tensors if name not in head)


def test_what_the_parent_learned_from_may_not_be_tested_on(
    tmp_path: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A test split that holds the parent's training images is refused by name, over generations; of one alone, which
    the record might have by chance, it is said that scores leave it out, and they do."""
    parent = trained(folder(tmp_path / "data", range(80)))
    leaking = tmp_path / "leaking"
    folder(leaking / "train", range(4000, 4040))
    learned = [name for name, split in splits(convlens.pack(tmp_path / "data")).items() if split == "train"]
    folder(leaking / "test", range(4100, 4110))
    shutil.copy(tmp_path / "data" / learned[0], leaking / "test" / learned[0])
    one = convlens.train(leaking, parent=parent.path, test=True, progress="lines")
    assert "1 test image that the parent was made with" in capsys.readouterr().err
    assert one.test is not None and one.test.n == 10
    shutil.rmtree(one.path)
    for name in learned[1:5]:
        shutil.copy(tmp_path / "data" / name, leaking / "test" / name)
    with pytest.raises(DataError, match="used to train the parent"):
        convlens.train(leaking, parent=parent.path, progress="none")
    clean = folder(tmp_path / "clean", range(5000, 5080))
    child = convlens.train(clean, parent=parent.path, progress="none")
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(DataError, match="used to train the parent"):
        convlens.train(leaking, parent=child.path, progress="none")
    assert not [path for path in Path("runs").iterdir() if path.name.startswith(("leaking", ".leaking"))]


def test_what_cannot_be_known_is_said(tmp_path: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A lone model file without a record, its data gone: training goes on, and says that nothing could be checked."""
    parent = trained(folder(tmp_path / "data", range(80)), omit_record=True)
    shutil.copy(parent.model, tmp_path / "lone.safetensors")
    for packed in (cache_folder() / "packed").glob("data-*"):
        shutil.rmtree(packed, ignore_errors=True)
    shutil.rmtree(tmp_path / "data")
    convlens.train(
        folder(tmp_path / "clean", range(5000, 5080)), parent=tmp_path / "lone.safetensors", progress="lines"
    )
    assert "was not checked" in capsys.readouterr().err


def test_odd_wishes_are_refused(tmp_path: Path, workplace: Path) -> None:
    """Another input, architecture or preset than the parent's; a parent that changed before a resumption."""
    root = folder(tmp_path / "data", range(80))
    parent = trained(root)
    wishes: list[tuple[dict[str, object], type[ConvlensError], str]] = [
        ({"size": 32}, UsageError, "as its model does"),
        ({"framing": "crop"}, UsageError, "as its model does"),
        ({"preset": "natural"}, UsageError, "architecture"),
        ({"architecture": NET}, UsageError, "architecture"),
    ]
    for wish, error, words in wishes:
        with pytest.raises(error, match=words):
            convlens.train(root, parent=parent.path, progress="none", **wish)  # type: ignore[arg-type]
    child = convlens.train(root, parent=parent.path, progress="none", stop=lambda: True)
    parent.model.write_bytes(parent.model.read_bytes() + b" ")
    with pytest.raises(RunError, match="has changed"):
        convlens.train(resume=child.path, progress="none")
