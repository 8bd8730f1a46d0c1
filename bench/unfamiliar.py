"""How well a model tells what it was not trained on, against what it might be shown.

    python bench/unfamiliar.py MODEL [NAME=DATA ...]

AUROC of the model's score (`unfamiliarity.py`), of one minus its largest probability and of its energy, of validation
images against noise of three kinds, letters in ten fonts (grey models alone) and whatever data is named: framed as the
training pictures were, and as JPEGs of the same quality where those are JPEGs (`NAME=DATA:jpeg75` gives the quality).
The share of each that the model calls unfamiliar comes last.
"""

import io
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from sklearn.metrics import roc_auc_score

import convlens
from convlens.classifier import Classifier
from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import open_data, reopen

FONTS = (
    *("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "DejaVuSans-Bold", "DejaVuSerif-Italic"),
    *("LiberationSans-Regular", "LiberationSerif-Regular", "LiberationMono-Regular"),
    *("LiberationSansNarrow-Bold", "LiberationSerif-BoldItalic"),
)
LIKE_DIGITS = "OILSZQ"
MOST = 2_000


def letters(classifier: Classifier, without: str = "") -> NDArray[np.uint8]:
    """Capital letters in ten fonts, upright and slanted to either side."""
    found = []
    for name in FONTS:
        font = ImageFont.truetype(f"{name}.ttf", 60)
        for letter in sorted(set("ABCDEFGHIJKLMNOPQRSTUVWXYZ") - set(without)):
            for slant in (-0.3, 0.0, 0.3):
                image = Image.new("L", (140, 140))
                ImageDraw.Draw(image).text((45, 35), letter, fill=255, font=font)
                sheared = (1, slant, -70 * slant, 0, 1, 0)
                image = image.transform(image.size, Image.Transform.AFFINE, sheared, Image.Resampling.BICUBIC)
                found.append(classifier.frame(np.asarray(image)))
    return np.stack(found)


def noise(val: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Uniform, Gaussian with the mean and spread of the images, and their own pixels in another order."""
    rng = np.random.default_rng(0)
    some = val[:MOST]
    yield "uniform noise", rng.integers(0, 256, some.shape, dtype=np.uint8)
    yield "Gaussian noise", rng.normal(some.mean(), some.std(), some.shape).clip(0, 255).astype(np.uint8)
    yield "shuffled pixels", rng.permuted(some.reshape(len(some), -1, some.shape[3]), axis=1).reshape(some.shape)


def named(classifier: Classifier, what: str) -> NDArray[np.uint8]:
    """At most 2,000 images of a data set, in the model's shape."""
    data, _, quality = what.partition(":jpeg")
    spec = classifier.card.input_spec
    framing = spec.framing if spec.channels == 1 else "crop"
    dataset = open_data(data, PackOptions(size=(spec.height, spec.width), framing=framing, channels=spec.channels))
    images: NDArray[np.uint8] = np.array(dataset.images("train")[:])
    images = images[np.random.default_rng(0).permutation(len(images))[:MOST]]
    if not quality:
        return images
    return np.stack([_as_jpeg(image, int(quality)) for image in images])


def _as_jpeg(image_HWC: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    written = io.BytesIO()
    Image.fromarray(image_HWC).save(written, "JPEG", quality=quality)
    return np.asarray(Image.open(written))


def scorers(classifier: Classifier) -> dict[str, Callable[[Any], NDArray[np.float64]]]:
    """What is compared, each larger for what is less familiar."""
    known = classifier.card.unfamiliarity
    assert known is not None, "the model has no score: too few validation images"

    def energy(found: Any) -> NDArray[np.float64]:
        logits = found[0].astype(np.float64)
        top = logits.max(axis=1)
        value: NDArray[np.float64] = -(top + np.log(np.exp(logits - top[:, None]).sum(axis=1)))
        return value

    return {
        "1 - largest probability": lambda found: 1 - classifier.probabilities(found[0]).max(axis=1),
        "energy": energy,
        "the model's own": lambda found: known.scores(found[1], found[0]),
    }


def main(model: str, others: list[str]) -> None:
    """Print the table."""
    classifier = convlens.load(model)
    known, card = classifier.card.unfamiliarity, classifier.card
    assert known is not None and card.dataset is not None
    val = np.array(reopen(card.dataset).images("val")[:])
    sets = dict(noise(val))
    if card.input_spec.channels == 1:
        sets |= {"letters": letters(classifier), f"letters without {LIKE_DIGITS}": letters(classifier, LIKE_DIGITS)}
    sets |= {one.partition("=")[0]: named(classifier, one.partition("=")[2]) for one in others}
    mine = classifier.outputs(val, known.addresses)
    methods = scorers(classifier)
    print(f"{'against':28}{'n':>6}" + "".join(f"{name:>26}" for name in methods) + "  called unfamiliar")
    for name, images in sets.items():
        found = classifier.outputs(images, known.addresses)
        line = f"{name:28}{len(images):6,}"
        for score in methods.values():
            inside, outside = score(mine), score(found)
            truth = np.repeat([0, 1], [len(inside), len(outside)])
            line += f"{roc_auc_score(truth, np.concatenate([inside, outside])):26.4f}"
        called = (known.scores(found[1], found[0]) > known.record.threshold).mean()
        print(f"{line}  {100 * called:.1f} %", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
