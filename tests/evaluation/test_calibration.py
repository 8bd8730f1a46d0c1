"""What a finished model learns from its validation images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convlens
from convlens.evaluation.calibration import calibration_of
from convlens.metrics import Scaling, best_scaling, best_temperature, calibration_error, cross_entropy, softmax
from convlens.modelfile import read_model
from tests.conftest import QUICK, TINY, shapes


def drawn(num: int, seed: int, truth: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose right temperature is `truth`, and labels drawn from what they then say."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (num, 5))
    p = softmax(logits, truth)
    return logits, np.array([rng.choice(5, p=row) for row in p])


@pytest.mark.parametrize("truth", [0.3, 2.0])
def test_the_right_temperature_is_found_and_new_images_agree(truth: float) -> None:
    """Fitted to 2,000 images: within a tenth of the truth, and others are calibrated by it, at a lower loss."""
    found = calibration_of(*drawn(2_000, 0, truth))
    assert found.temperature == pytest.approx(truth, rel=0.1)
    logits, labels = drawn(20_000, 1, truth)
    assert calibration_error(softmax(logits, found.temperature), labels) < 0.02
    assert cross_entropy(logits / found.temperature, labels) < cross_entropy(logits, labels)
    assert found.loss_after < found.loss_before and found.num_images == 2_000


def test_nothing_is_changed_where_nothing_was_shown_to_be_better() -> None:
    """Of 100 sets of 200 images with calibrated logits, few get another temperature than 1, and on new images no such
    temperature costs much."""
    changed = []
    new = drawn(4_000, 999, 1.0)
    for seed in range(100):
        found = calibration_of(*drawn(200, seed, 1.0))
        if found.temperature != 1:
            changed.append(cross_entropy(new[0] / found.temperature, new[1]) - cross_entropy(*new))
    assert len(changed) <= 12
    assert max(changed, default=0) < 0.02


def test_images_that_are_all_right_do_not_ask_for_certainty() -> None:
    """200 of 200 right: the answers become surer, but to about what 200 right answers say, not to 1."""
    logits = 2.0 * np.eye(4)[np.arange(200) % 4]
    found = calibration_of(logits, np.arange(200) % 4)
    sure = softmax(logits, found.temperature).max()
    assert found.temperature < 1 and 0.98 < sure < 0.998


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> convlens.Run:
    """Trained on 1,200 images, 120 and more of them held out."""
    x, y = shapes(1_500)
    recipe = QUICK.replace(label_smoothing=0.2)
    out = tmp_path_factory.mktemp("calibrated") / "run"
    return convlens.train((x, y), architecture=TINY, recipe=recipe, out=out, progress="none", val_frac=0.2)


def test_training_calibrates_what_predict_and_evaluate_say(calibrated: convlens.Run) -> None:
    """Label smoothing makes a network too timid: the model file gets a temperature below 1, with which predictions are
    surer than raw ones, of the same classes, and the loss on test is lower."""
    card = read_model(calibrated.model).card
    assert card.calibration is not None and card.calibration.temperature < 1
    x, _ = shapes(50, seed=5)
    sure, raw = (convlens.predict(calibrated, list(x), raw=raw, progress="none") for raw in (False, True))
    assert [p.label for p in sure] == [p.label for p in raw]
    assert np.mean([p.probability for p in sure]) > np.mean([p.probability for p in raw])
    after, before = (convlens.evaluate(calibrated, raw=raw, progress="none") for raw in (False, True))
    assert after.accuracy == before.accuracy and after.score.loss < before.score.loss
    assert after.expected_calibration_error < before.expected_calibration_error


def test_noise_is_unfamiliar_and_pictures_of_the_kind_are_not(calibrated: convlens.Run) -> None:
    """A model that can tell says so beside its label; without enough validation images it says nothing."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)
    assert all(p.unfamiliar for p in convlens.predict(calibrated, list(noise), progress="none"))
    x, _ = shapes(200, seed=6)
    answers = convlens.predict(calibrated, list(x), progress="none")
    assert sum(bool(p.unfamiliar) for p in answers) <= 12
    assert answers[0].to_json()["unfamiliar"] is False


def test_too_few_images_give_no_made_up_value(arrays: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With fewer than 100 held-out images the model has neither, and how many are needed is said."""
    x, y = shapes(300)
    run = convlens.train((x, y), architecture=TINY, recipe=QUICK, out=tmp_path / "few", progress="lines")
    card = read_model(run.model).card
    assert card.calibration is None and card.unfamiliarity is None
    assert "100 are needed" in capsys.readouterr().err
    (answer,) = convlens.predict(run, x[0], progress="none")
    assert answer.unfamiliar is None and "unfamiliar" not in answer.to_json()


def test_a_kill_after_the_last_step_is_made_good_by_resuming(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended between the weights and their calibration, or between that and the report: resumed, the model has the
    calibration of one that was never ended, and the report is there."""
    from convlens import experiment

    wishes: dict[str, Any] = {"architecture": TINY, "recipe": QUICK.replace(label_smoothing=0.2), "val_frac": 0.2}
    whole = convlens.train(shapes(900), progress="none", **wishes)
    for name in ("calibrate", "evaluate"):

        def end(*_: Any, **__: Any) -> None:
            raise MemoryError

        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(experiment, name, end)
            convlens.train(shapes(900), progress="none", out=f"ended-{name}", **wishes)
        run = convlens.train(shapes(900), resume=f"ended-{name}", progress="none")
        one, other = read_model(whole.model), read_model(run.model)
        assert one.card.calibration == other.card.calibration is not None
        assert one.card.unfamiliarity is not None and other.card.unfamiliarity is not None
        assert one.card.unfamiliarity.record == other.card.unfamiliarity.record
        assert (run.path / "report.html").is_file()


def test_a_curvature_where_no_temperature_does() -> None:
    """Logits whose truth has one: it is found, new images are calibrated by it, the order of classes stays; of logits
    that a temperature calibrates, none in 50 sets of 300 gets one."""
    rng, truth = np.random.default_rng(0), Scaling(1.5, 0.25)

    def draw(num: int) -> tuple[np.ndarray, np.ndarray]:
        logits = rng.normal(0, 2, (num, 5))
        return logits, np.array([rng.choice(5, p=row) for row in softmax(truth.of(logits))])

    logits, labels = draw(12_000)
    found = calibration_of(logits, labels).scaling
    assert found.curvature == pytest.approx(0.25, rel=0.3)
    logits, labels = draw(10_000)
    cooled = Scaling(best_temperature(*draw(12_000))[0])
    errors = [calibration_error(softmax(one.of(logits)), labels) for one in (found, cooled)]
    assert errors[0] < 0.015 < errors[1]
    assert (found.of(logits).argmax(axis=1) == logits.argmax(axis=1)).all()
    assert sum(calibration_of(*drawn(300, seed, 0.5)).curvature > 0 for seed in range(50)) <= 3


def test_the_scaling_is_the_best_there_is() -> None:
    """Newton's method finds what SciPy's minimiser does, smoothed labels included; where the best curvature is negative
    it is none."""
    from scipy.optimize import minimize

    logits, labels = drawn(800, 4, 0.6)
    labels[:60] = (labels[:60] + 1) % 5
    shares = np.full((800, 5), 0.02) + 0.9 * np.eye(5)[labels]

    def loss(at: np.ndarray) -> float:
        below = logits.max(axis=1, keepdims=True) - logits
        p = softmax(-(at[0] * below + at[1] * below**2))
        return float(-(shares * np.log(p)).sum(axis=1).mean())

    best = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12, "maxiter": 4_000})
    found = best_scaling(logits, labels, 0.1)
    if best.x[1] <= 0:
        assert found.curvature == 0
    else:
        assert (1 / found.temperature, found.curvature) == pytest.approx(tuple(best.x), rel=1e-3)
