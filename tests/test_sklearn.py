"""convlens among scikit-learn's classifiers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convlens
from convlens.errors import RecipeError, UsageError
from tests.conftest import TINY, shapes
from tests.helpers import folder

pytest.importorskip("sklearn", minversion="1.6", reason="scikit-learn 1.6 is not installed")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from convlens.sklearn import ConvlensClassifier

QUICK: dict[str, Any] = {"architecture": TINY, "epochs": 4, "batch_size": 32, "lr": 0.02}


@pytest.mark.slow
@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [ConvlensClassifier(architecture="flatten linear(classes)", epochs=3, batch_size=16)]
)
def test_estimator_checks(estimator: Any, check: Any) -> None:
    """scikit-learn's own checks, all of them (two skip themselves: without pandas, and without its array API)."""
    check(estimator)


def test_fit_predict_score() -> None:
    """Pictures as arrays of three and four dimensions and as rows: the same answers; labels come back as they were
    given, probabilities in the order of `classes_`."""
    x, y = shapes(300)
    names = np.array(["zebra", "ant", "bee"])[y]
    model = ConvlensClassifier(**QUICK).fit(x, names)
    new_x, new_y = shapes(100, 1)
    assert model.classes_.tolist() == ["ant", "bee", "zebra"]
    assert model.score(new_x, np.array(["zebra", "ant", "bee"])[new_y]) > 0.9
    p = model.predict_proba(x)
    assert p.shape == (300, 3) and np.allclose(p.sum(axis=1), 1)
    assert (model.classes_[p.argmax(axis=1)] == model.predict(x)).all()
    rows = ConvlensClassifier(**QUICK).fit(x.reshape(300, -1), names)
    assert np.allclose(rows.predict_proba(x.reshape(300, -1)), p, atol=1e-6) and rows.n_features_in_ == 256
    assert np.allclose(ConvlensClassifier(**QUICK).fit(x[..., None], names).predict_proba(x[..., None]), p, atol=1e-6)
    numbers = ConvlensClassifier(**QUICK).fit(x, y * 10 - 5)
    assert set(numbers.predict(x)) <= {-5, 5, 15} and numbers.predict(x).dtype == y.dtype


def test_a_fitted_one_is_a_model(tmp_path: Path) -> None:
    """What takes a model takes a fitted estimator; a promise that it cannot keep is said."""
    x, y = shapes(400)
    model = ConvlensClassifier(**QUICK, val_frac=0.4, threads=1).fit(x, y)
    new = {"test": shapes(90, 1)}
    assert convlens.evaluate(model, new, progress="none").n == 90
    model.save(tmp_path / "model.safetensors")
    convlens.evaluate(tmp_path / "model.safetensors", new, reject=0.4, progress="none")
    with pytest.warns(UserWarning, match="promise of model.safetensors"):
        ConvlensClassifier.load(tmp_path / "model.safetensors")


def test_paths_and_files(tmp_path: Path) -> None:
    """Paths of pictures; the saved file is a model like any other, and comes back as an estimator."""
    root = folder(tmp_path / "data", range(60))
    paths = sorted(root.rglob("*.jpg")) or sorted(root.rglob("*.*"))
    y = [path.parent.name for path in paths]
    model = ConvlensClassifier(**QUICK, size=16).fit(paths, y)
    assert model.score([str(path) for path in paths], y) > 0.7
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match="exists already"):
        model.save(tmp_path / "m.safetensors")
    found = convlens.predict(tmp_path / "m.safetensors", paths[:5], progress="none")
    again = ConvlensClassifier.load(tmp_path / "m.safetensors")
    assert (again.predict(paths) == model.predict(paths)).all() and again.score(paths, y) == model.score(paths, y)
    assert np.array_equal(again.predict_proba(paths), model.predict_proba(paths))
    assert [one.label for one in found] == model.predict(paths[:5]).tolist()
    others = ConvlensClassifier.load(tmp_path / "m.safetensors", classes=["z", "a"])
    assert set(others.predict(paths)) <= {"a", "z"} and others.classes_.tolist() == ["a", "z"]
    assert np.array_equal(others.predict_proba(paths)[:, ::-1], model.predict_proba(paths))
    with pytest.raises(UsageError, match="has 2 classes, `classes` 3"):
        ConvlensClassifier.load(tmp_path / "m.safetensors", classes=list("abc"))


@pytest.mark.parametrize("labels", [[10, 2, -5], [-1.0, 10.0, 2.0], ["bee", "Ant", "10"], [True, False]])
def test_saved_labels_come_back(tmp_path: Path, labels: list[Any]) -> None:
    """Whatever kind they are, in an order in which text and numbers are sorted otherwise."""
    x, y = shapes(90)
    truth = np.array(labels)[y % len(labels)]
    model = ConvlensClassifier(**QUICK).fit(x, truth)
    model.save(tmp_path / "m.safetensors")
    again = ConvlensClassifier.load(tmp_path / "m.safetensors")
    assert again.classes_.tolist() == model.classes_.tolist() == sorted(set(truth.tolist()))
    assert np.array_equal(again.predict_proba(x), model.predict_proba(x))
    assert (again.predict(x) == model.predict(x)).all() and again.predict(x).dtype.kind == truth.dtype.kind
    assert convlens.load(tmp_path / "m.safetensors").predict(x[0])[0].label == str(model.predict(x[:1])[0])


@pytest.mark.slow
def test_in_pipelines_and_searches() -> None:
    """Pipeline, cross-validation and a grid search in two processes, clones, pickles: the model travels as bytes."""
    x, y = shapes(120)
    flat = x.reshape(120, -1)
    line = make_pipeline(FunctionTransformer(lambda rows: 255 - rows), ConvlensClassifier(**QUICK))
    assert line.fit(flat, y).score(flat, y) > 0.8
    assert cross_val_score(ConvlensClassifier(**QUICK), flat, y, cv=2, n_jobs=2).shape == (2,)
    search = GridSearchCV(ConvlensClassifier(**QUICK), {"epochs": [1, 4]}, cv=2, n_jobs=2).fit(x, y)
    assert search.best_params_ == {"epochs": 4} and isinstance(search.best_estimator_.model_bytes_, bytes)
    model = search.best_estimator_
    same = pickle.loads(pickle.dumps(model))
    assert "_classifier" not in same.__dict__ and np.array_equal(same.predict_proba(x), model.predict_proba(x))
    assert clone(model).get_params() == model.get_params() and not hasattr(clone(model), "model_bytes_")


def test_what_is_wrong(tmp_path: Path) -> None:
    """One class, other lengths, no fit, numbers that are no seeds: said as scikit-learn or convlens says it."""
    x, y = shapes(20)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        ConvlensClassifier().predict(x)
    with pytest.raises(ValueError, match="needs two classes"):
        ConvlensClassifier(**QUICK).fit(x, np.zeros(20))
    with pytest.raises(ValueError, match="20 pictures, y 3 labels"):
        ConvlensClassifier(**QUICK).fit(x, y[:3])
    with pytest.raises(UsageError, match="random_state must be a whole number"):
        ConvlensClassifier(**QUICK, random_state=-1).fit(x, y)
    broken = x.astype(float)
    broken[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        ConvlensClassifier(**QUICK).fit(broken, y)
    with pytest.raises(ValueError, match=r"X\[None\]"):  # one picture is not sixteen rows
        ConvlensClassifier(**QUICK).fit(x, y).predict(x[0])
    scaled = ConvlensClassifier(**QUICK).fit(x / 40.0 - 2, y)
    assert np.allclose(scaled.predict_proba(list(x / 40.0 - 2)), scaled.predict_proba(x / 40.0 - 2))
    with pytest.raises(UsageError, match="were scaled, which a model file does not keep"):
        scaled.save(tmp_path / "m.safetensors")
    with pytest.raises(RecipeError, match="lerning_rate"):
        ConvlensClassifier(**QUICK, recipe={"lerning_rate": 1}).fit(x, y)
