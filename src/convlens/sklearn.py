"""convlens as a scikit-learn classifier: in pipelines, cross-validation and grid searches.

Owns how feature matrices become pictures, and a fitted model that travels as the bytes of its model file.
"""

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from convlens import files
from convlens.checks import checked, whole
from convlens.classifier import Classifier, load
from convlens.data.image.values import range_in
from convlens.errors import ImageError, UsageError
from convlens.experiment import train

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import validate_data
except ImportError as error:
    raise UsageError("convlens.sklearn needs scikit-learn 1.6 or newer: pip install scikit-learn") from error

_SUFFIX = ".safetensors"
_BEYOND = 0.05  # of the numbers may lie beyond what was fitted on
_AUTOMATIC = 1_000  # images, from which on some are held out to calibrate by, unless it is said how many
_BATCH = 256


class ConvlensClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A convolutional network as a scikit-learn classifier.

    `X` is pictures: arrays (N, H, W) or (N, H, W, C), paths of files (N,), or rows of pixels (N, H·W), which become
    square pictures where H·W is a square number, and strips one pixel high otherwise. Numbers in none of the ranges
    that pictures have (0..1, 0..255, 0..65,535, −1..1) are scaled by the least and the greatest of the training data.
    `y` is one label a picture.

    preset, architecture, epochs, lr, batch_size, augment, size, channels, framing, device
                  as `convlens.train` takes them; None: chosen or found
    recipe        more of the recipe's fields, by name
    threads       CPU threads; with the same number the same seed gives the same bits, which `n_jobs` changes otherwise
    val_frac      share of the training pictures that are held out to calibrate the probabilities by; None: 0.1 from
                  1,000 pictures on, else none
    random_state  the seed, a whole number
    verbose       whether training says what it does

    Fitted, it has `classes_` (K,), `n_features_in_` of rows, and `model_bytes_`, the model file: `save` writes it, and
    `load` makes an estimator of one. `predict_proba` gives calibrated probabilities where pictures were held out.
    """

    def __init__(
        self,
        *,
        preset: str | None = None,
        architecture: str | None = None,
        epochs: float | None = None,
        lr: float | None = None,
        batch_size: int | None = None,
        augment: str | None = None,
        size: int | None = None,
        channels: int | None = None,
        framing: str | None = None,
        recipe: Mapping[str, Any] | None = None,
        val_frac: float | None = None,
        device: str | None = "auto",
        threads: int | None = None,
        random_state: int | None = 0,
        verbose: bool = False,
    ) -> None:
        self.preset = preset
        self.architecture = architecture
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.augment = augment
        self.size = size
        self.channels = channels
        self.framing = framing
        self.recipe = recipe
        self.val_frac = val_frac
        self.device = device
        self.threads = threads
        self.random_state = random_state
        self.verbose = verbose

    # ------------------------------------------------------------ fitting

    def fit(self, X: Any, y: Any) -> Self:
        """Train on all of `X` (N, …) with the labels `y` (N,). Raises ConvlensError, and ValueError as scikit-learn
        does."""
        if not _are_pictures(X):
            X, y = validate_data(self, X, y, dtype="numeric")
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        check_classification_targets(y)
        if len(X) == 0:
            raise ValueError("X has no pictures")
        if len(X) != len(y):
            raise ValueError(f"X has {len(X):,} pictures, y {len(y):,} labels")
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"a classifier needs two classes, and y has one class ({self.classes_[0]!r})")
        self.low_high_, self.are_rows_ = _own_range(X), not _are_pictures(X)
        self.are_fractions_ = self.low_high_ is None and _are_fractions(X)
        given = {
            name: getattr(self, name) for name in ("epochs", "lr", "batch_size") if getattr(self, name) is not None
        }
        options = {name: getattr(self, name) for name in ("preset", "architecture", "augment", "size", "channels")}
        options |= {"framing": self.framing, "device": self.device, "threads": self.threads, "seed": self._seed()}
        val_frac = (0.1 if len(y) >= _AUTOMATIC else 0.0) if self.val_frac is None else self.val_frac
        progress = "auto" if self.verbose else "none"
        with files.temporary_folder() as folder:
            run = train(
                {"train": (self._pictures(X), np.array([str(one) for one in self.classes_])[numbers])},
                out=folder / "run",
                recipe={**dict(self.recipe or {}), **given},
                val_frac=val_frac,
                progress=progress,
                **options,
            )
            self.model_bytes_ = files.read_regular(run.model, 1 << 32)
        self.__dict__.pop("_classifier", None)
        names = self.classifier_.class_names  # now, so that predicting changes nothing
        self.columns_ = np.array([names.index(normalize("NFC", str(one))) for one in self.classes_])
        return self

    def _seed(self) -> int:
        seed: Any = 0 if self.random_state is None else self.random_state
        if isinstance(seed, np.random.RandomState):
            seed = seed.randint(2**31)
        return int(checked("random_state", seed.item() if isinstance(seed, np.generic) else seed, whole(0)))

    def _pictures(self, X: Any) -> Any:
        """What `train` and `frame` take: pictures as they came, rows as pictures."""
        if _are_pictures(X) and not isinstance(X, np.ndarray):
            return [self._scaled(one) if isinstance(one, np.ndarray) else one for one in X]
        values = np.asarray(X)
        if values.dtype.kind in "OUS":
            return [str(path) for path in values]
        values = self._scaled(values)
        if values.ndim != 2:
            return values
        side = math.isqrt(values.shape[1])
        height, width = (side, side) if side * side == values.shape[1] else (1, values.shape[1])
        return values.reshape(-1, height, width)

    def _scaled(self, values: NDArray[Any]) -> NDArray[Any]:
        """Numbers as bytes, where they are in no range that pictures have; what a scaler left a little beyond 0..1,
        having been fitted to other pictures, clipped. Raises ValueError where too much is beyond."""
        if self.low_high_ is None:
            if not getattr(self, "are_fractions_", False) or values.dtype.kind != "f":
                return values
            beyond = float(((values < 0) | (values > 1)).mean())
            if beyond > _BEYOND:
                raise ValueError(
                    f"fitted on numbers in 0..1, and {100 * beyond:.0f} % of these are beyond: scale them alike"
                )
            return values.clip(0, 1)
        low, high = self.low_high_
        share = (values.astype(np.float64) - low) / (high - low if high > low else 1.0)
        return np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)

    # ------------------------------------------------------------ answering

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest class of each picture, (N,)."""
        found: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)] if self._is_fitted() else X
        return found

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The probability of each of `classes_`, float64 (N, K). Raises ImageError where a picture cannot be read."""
        self._is_fitted()
        if not self.are_rows_ and isinstance(X, np.ndarray) and X.dtype.kind not in "OUS" and X.ndim < 3:
            raise ValueError(
                f"X is one picture {X.shape}, or rows: fitted on pictures, it takes (N, H, W) or (N, H, W, C), so of "
                "one picture X[None]"
            )
        if not _are_pictures(X):
            X = validate_data(self, X, reset=False, dtype="numeric")
        classifier, pictures = self.classifier_, self._pictures(X)
        found = []
        for start in range(0, len(pictures), _BATCH):
            framed = np.stack([classifier.frame(one) for one in pictures[start : start + _BATCH]])
            found.append(classifier.probabilities(classifier.logits(framed)))
        return np.concatenate(found)[:, self.columns_] if found else np.zeros((0, len(self.classes_)))

    @property
    def classifier_(self) -> Classifier:
        """The model as `convlens.load` gives it: `look`, `evaluate`, `export` and the others take it once `save` has
        written it."""
        self._is_fitted()
        found: Classifier | None = self.__dict__.get("_classifier")
        if found is None:
            with files.temporary_folder() as folder:
                files.write_bytes(folder / f"model{_SUFFIX}", self.model_bytes_)
                found = load(folder / f"model{_SUFFIX}", self.device)
            self.__dict__["_classifier"] = found
        return found

    def _is_fitted(self) -> bool:
        if not hasattr(self, "model_bytes_"):
            raise NotFittedError(
                f"this {type(self).__name__} instance is not fitted yet: call fit with pictures and labels first"
            )
        return True

    # ------------------------------------------------------------ files

    def save(self, path: str | Path, *, replace: bool = False) -> None:
        """Write the model file (.safetensors), which `convlens` commands and `load` take; a file that is there is
        replaced only if `replace`. Raises StorageError, and UsageError where numbers were scaled, of which the file
        knows nothing."""
        self._is_fitted()
        if self.low_high_ is not None:
            low, high = self.low_high_
            raise UsageError(
                f"the pictures' numbers ({low:g} to {high:g}) were scaled, which a model file does not keep: scale "
                "them to 0..1 or 0..255 before fit"
            )
        path = Path(path)
        files.check_new_file(path, (_SUFFIX,), replace=replace)
        files.write_bytes(path, self.model_bytes_)

    @classmethod
    def load(cls, model: Any = "last", classes: Any = None) -> Self:
        """A fitted estimator of a model file or run. `classes` are the labels in the order of its classes; by default
        the names of its classes, or where all of them are written numbers, those numbers. Raises as `convlens.load`
        does, UsageError."""
        classifier = load(model)
        found = cls()
        found.model_bytes_ = files.read_regular(classifier.path, 1 << 32)
        labels = _labels_of(classifier.class_names) if classes is None else np.asarray(classes)
        found.classes_, found.columns_ = np.unique(labels, return_index=True)
        if not len(labels) == len(found.classes_) == len(classifier.class_names):
            num = f"{len(classifier.class_names):,} classes"
            raise UsageError(
                f"the model has {num}, `classes` {len(labels):,} labels, {len(found.classes_):,} different"
            )
        found.low_high_, found.are_rows_, found.are_fractions_ = None, False, False
        if classifier.thresholds is not None:
            warnings.warn(
                f"the promise of {classifier.path.name} ({classifier.thresholds}) is not kept here: scikit-learn "
                "takes the likeliest class; `classifier_.predict` answers by it",
                stacklevel=2,
            )
        return found

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_classifier", None)  # other processes make their own, of the bytes
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.non_deterministic = False
        return tags


def _labels_of(names: Sequence[str]) -> NDArray[Any]:
    """Labels whose text is what the classes are called: a model file knows texts alone."""
    for kind in (int, float):
        with suppress(ValueError):
            if all(str(kind(name)) == name for name in names):
                return np.array([kind(name) for name in names])
    return np.array([name == "True" for name in names]) if set(names) == {"False", "True"} else np.array(names)


def _are_pictures(X: Any) -> bool:
    """Whether X is pictures as such: arrays of three or four dimensions, paths, bytes; else it is rows of pixels."""
    if isinstance(X, np.ndarray):
        is_text = X.ndim == 1 and X.dtype.kind in "OUS" and len(X) > 0 and isinstance(X[0], str | Path)
        return is_text or X.ndim in (3, 4)
    if not isinstance(X, list | tuple) or len(X) == 0:
        return False
    first = X[0]
    return isinstance(first, str | os.PathLike | bytes) or getattr(first, "ndim", 0) >= 2 or hasattr(first, "getbands")


def _own_range(X: Any) -> tuple[float, float] | None:
    """The least and greatest number, where they are in none of the ranges that pictures have."""
    if not isinstance(X, np.ndarray) or X.dtype.kind not in "biuf":
        return None
    try:
        range_in(X)
    except ImageError:
        low, high = float(X.min()), float(X.max())
        if not math.isfinite(high - low):
            raise ValueError("X has values that are not finite") from None
        return low, high
    return None


def _are_fractions(X: Any) -> bool:
    """Whether X is an array of numbers in 0..1."""
    return isinstance(X, np.ndarray) and X.dtype.kind == "f" and range_in(X) == (0, 1)
