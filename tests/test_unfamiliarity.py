"""The score of what a network was not trained on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance

from convlens.architecture import parse, plan
from convlens.architecture.layers import Activation
from convlens.errors import ModelFileError
from convlens.modelfile import ModelFile, read_model, write_model
from convlens.presets import PRESETS
from convlens.run import Run
from convlens.unfamiliarity import Unfamiliarity, layers_to_look_at, num_statistics
from tests.helpers import TINY_COLOUR


def drawn(num: int, seed: int, shift: float = 0.0) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Statistics of two layers, labels of three classes, and logits."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, num)
    means = [rng.normal(size=(num, c)) @ np.diag(np.arange(1, c + 1)) + labels[:, None] + shift for c in (4, 6)]
    return means, labels, rng.normal(size=(num, 3)) + 5 * np.eye(3)[labels]


def fitted(num_held_out: int = 2_000) -> Unfamiliarity:
    means, labels, _ = drawn(3_000, 0)
    held_out, _, logits = drawn(num_held_out, 1)
    return Unfamiliarity.fitted(("2", "5"), means, labels, held_out, logits)


def test_the_distance_is_mahalanobis_to_the_nearest_class() -> None:
    """One layer, logits all alike: the score is scikit-learn's Mahalanobis distance to the nearest class mean, but for
    its scale and the thousandth that is added to variances."""
    (means, _), labels, _ = drawn(3_000, 0)
    found = Unfamiliarity.fitted(("2",), [means], labels, [means], np.zeros((len(means), 3)))
    centres = np.stack([means[labels == k].mean(axis=0) for k in range(3)])
    shared = EmpiricalCovariance(assume_centered=True).fit(means - centres[labels])
    far = np.sqrt(np.stack([shared.mahalanobis(means - centre) for centre in centres]).min(axis=0))
    scores = found.scores([means], np.zeros((len(means), 3)))
    assert np.corrcoef(scores, far)[0, 1] > 0.9999


def test_the_promised_rate_of_false_alarms_holds_on_new_pictures() -> None:
    """Over 200 draws of what is like the training images the threshold is exceeded by 1 % on average; shifted pictures
    exceed it, and so do those whose logits are low."""
    rates = []
    for seed in range(200):
        found = fitted(400 + seed)
        means, _, logits = drawn(500, 100 + seed)
        rates.append((found.scores(means, logits) > found.record.threshold).mean())
    assert 0.006 < np.mean(rates) < 0.012
    found = fitted()
    far, _, logits = drawn(500, 7, shift=30.0)
    near, _, _ = drawn(500, 7)
    assert (found.scores(far, logits) > found.record.threshold).all()
    assert (found.scores(near, logits - 60) > found.record.threshold).all()


def test_layers_fit_into_a_tenth_of_the_weights_or_64_kb() -> None:
    """For each preset's network, with ten classes: what is kept is at most that, from the first activation on; a layer
    whose covariance so few images cannot tell is left out."""
    for name, preset in PRESETS.items():
        shape = (3, 64, 64) if preset.parent else (1, 28, 28)
        if preset.parent:
            continue
        network = plan(parse(preset.architecture), shape, 10)
        found = layers_to_look_at(network, 4_000)
        sizes = {leaf.address: num_statistics(leaf) for leaf in network.leaves}
        assert found, name
        assert sum(sizes[a] * (sizes[a] + 10) for a in found) <= max(16_384, network.num_parameters // 10), name
        assert layers_to_look_at(network, 20) == (), name
    assert layers_to_look_at(plan(parse("flatten linear(classes)"), (1, 28, 28), 10), 4_000) == ()


def test_it_travels_in_the_model_file_and_damage_is_named(run: Run, tmp_path: Path) -> None:
    """Written and read again it gives the same scores; a file whose layers are not those of its network is refused."""
    file = read_model(run.model)
    addresses = [leaf.address for leaf in file.plan.leaves if isinstance(leaf.layer, Activation)][:2]
    sizes = {leaf.address: num_statistics(leaf) for leaf in file.plan.leaves}
    rng = np.random.default_rng(0)
    k = file.plan.num_classes
    means = [rng.normal(size=(400, sizes[a])).astype(np.float32) for a in addresses]
    logits = rng.normal(size=(400, k))
    found = Unfamiliarity.fitted(addresses, means, rng.integers(0, k, 400), means, logits)
    _write(file, tmp_path / "m.safetensors", found)
    assert found.record.to_json()["power"] == 1
    again = read_model(tmp_path / "m.safetensors").card.unfamiliarity
    assert again is not None and again.record == found.record
    assert np.array_equal(again.scores(means, logits), found.scores(means, logits))
    squared = replace(found, record=found.record.replace(power=2.0))
    _write(file, tmp_path / "2.safetensors", squared)
    before = read_model(tmp_path / "2.safetensors").card.unfamiliarity
    assert before is not None and not np.allclose(before.scores(means, logits), found.scores(means, logits))
    layers = found.record.layers
    for wrong in (
        found.record.replace(layers=(*layers, layers[0])),
        found.record.replace(layers=layers[::-1]),
        found.record.replace(layers=(layers[0].replace(address="99"),)),
        found.record.replace(layers=(layers[0].replace(statistics=layers[0].statistics + 1),)),
    ):
        _write(
            file,
            tmp_path / "w.safetensors",
            replace(found, record=wrong, layers=(2 * found.layers)[: len(wrong.layers)]),
        )
        with pytest.raises(ModelFileError, match="unfamiliar"):
            read_model(tmp_path / "w.safetensors")


def _write(file: ModelFile, path: Path, found: Unfamiliarity) -> None:
    write_model(path, replace(file.card, unfamiliarity=found), file.tensors)


def test_residual_networks_are_looked_into() -> None:
    """Activations inside residuals and repeats count too; not those that see less than 3×3 pixels."""
    sentence = f"repeat(2, residual(conv(3, 3, padding=1) batchnorm relu)) {TINY_COLOUR}"
    found = layers_to_look_at(plan(parse(sentence), (3, 32, 32), 4), 4_000)
    assert len(found) == 1 and found[0].count(".") == 2, found
    network = plan(parse(f"conv(8, 2) gelu {TINY_COLOUR}"), (3, 32, 32), 4)
    assert layers_to_look_at(network, 4_000) == ("4",)
