"""A classifier as plain torch: a folder with its weights and one source file, which needs torch and Pillow alone.

Owns the text around the network: reading the weights, framing a picture with Pillow, `predict(path)`. What `explain
--torch` prints stands between.
"""

import io
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convlens import files
from convlens.classifier import Classifier
from convlens.data.image.decode import Pixels
from convlens.data.image.values import BYTES
from convlens.errors import ImageError, UsageError
from convlens.explaining import explain
from convlens.exporting.onnx_file import SAME_LABELS
from convlens.runtime.onnx_model import MOST_APART
from convlens.text import by

SOURCE, WEIGHTS = "model.py", "model.safetensors"

_READING = '''import json
import struct
from pathlib import Path

from PIL import Image, ImageOps, ImageStat

_KINDS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_KINDS |= {"I64": torch.int64, "U8": torch.uint8}


def read_safetensors(path):
    """The tensors of a safetensors file: the header's length in eight bytes, the header in JSON, the values."""
    data = bytearray(Path(path).read_bytes())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    found = {}
    for name, one in header.items():
        if name != "__metadata__":
            first, last = (start + offset for offset in one["data_offsets"])
            values = torch.empty(0) if first == last else torch.frombuffer(data[first:last], dtype=_KINDS[one["dtype"]])
            found[name] = values.reshape(one["shape"])
    return found


tensors = read_safetensors(Path(__file__).with_name("model.safetensors"))
'''

_PREDICTING = '''

def frame(picture):
    """A picture (a path or an open file) as the network takes it: uint8 (1, {height}, {width}, {channels}), framed by
    {framing} as the training pictures were. Of 8 bits; transparency is laid on white."""
    with Image.open(picture) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError("a picture of more than 8 bits: convlens and its kit read it")
        image = ImageOps.exif_transpose(image)
        if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            ground = Image.new("RGBA", image.size, "white")
            ground.alpha_composite(image)
            image = ground
        image = image.convert("{mode}")
{region}    width, height = image.size
{fitted}    values = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return values.reshape(1, {height}, {width}, {channels})


def predict(picture, top=3):
    """[(class, probability), …] of a picture, the likeliest first. What is unfamiliar, and what is promised, convlens,
    its kit and its ONNX file say."""
    found, numbers = probabilities(frame(picture))[0].topk(min(top, len(class_names)))
    return [(class_names[k], p) for k, p in zip(numbers.tolist(), found.tolist())]


if __name__ == "__main__":
    import sys

    for path in sys.argv[1:]:
        for name, p in predict(path):
            share = ">99.9" if p >= 0.9995 else "<0.1" if p < 0.0005 else f"{{100 * p:.1f}}"
            print(f"{{path}}: {{name}} {{share}} %")
'''

_FITTED = {
    "stretch": "    image = image.resize(({width}, {height}), Image.Resampling.BICUBIC)\n",
    "crop": """    if (height, width) != ({height}, {width}):
        scale = max({height} / height, {width} / width) / {crop_frac!r}
        size = max({width}, round(width * scale)), max({height}, round(height * scale))
        image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = (size[0] - {width}) // 2, (size[1] - {height}) // 2
        image = image.crop((left, top, left + {width}, top + {height}))
""",
    "pad": """    if (height, width) != ({height}, {width}):
        scale = min({height} / height, {width} / width)
        inner = min({width}, max(1, round(width * scale))), min({height}, max(1, round(height * scale)))
        image = image.resize(inner, Image.Resampling.BICUBIC)
        if inner[1] < {height}:  # bars in the mean colour of the edges that they extend
            edges = [(0, 0, inner[0], 1), (0, inner[1] - 1, inner[0], inner[1])]
        else:
            edges = [(0, 0, 1, inner[1]), (inner[0] - 1, 0, inner[0], inner[1])]
        both = [ImageStat.Stat(image.crop(edge)).mean for edge in edges]
        colour = tuple(round((one + other) / 2) for one, other in zip(*both))
        framed = Image.new(image.mode, ({width}, {height}), colour)
        framed.paste(image, (({width} - inner[0]) // 2, ({height} - inner[1]) // 2))
        image = framed
""",
}


def check_torch(classifier: Classifier) -> None:
    """Raises UsageError where a few lines of Pillow cannot frame as the model's pictures are, or it was loaded to
    answer otherwise than its file says, which is what the source is made of."""
    spec = classifier.card.input_spec
    if not classifier.is_as_trained:
        raise UsageError("plain torch classifies as the model was trained to: leave `views` and `raw` away")
    if spec.framing == "ink":
        raise UsageError("framing 'ink' is too long for plain torch: format kit has it, word for word")
    if spec.value_range != BYTES:
        raise UsageError("the model's pictures have more than 8 bits: format kit reads them")


def write_torch(folder: Path, classifier: Classifier, framed_NHWC: Pixels, whole: Sequence[Any]) -> list[str]:
    """Fill a folder and hold it against the classifier, on framed pictures, uint8 (N, H, W, C), and on files, as bytes;
    what was checked, in words. Raises UsageError where answers differ."""
    files.write_bytes(folder / WEIGHTS, files.read_regular(classifier.path, 1 << 40))
    files.write_text(folder / SOURCE, _source(classifier))
    made = runpy.run_path(str(folder / SOURCE))
    ours_NK = classifier.probabilities(classifier.logits(framed_NHWC))
    theirs_NK = made["probabilities"](torch.from_numpy(framed_NHWC.copy())).numpy()
    apart = float(np.abs(theirs_NK - ours_NK).max(initial=0))
    if not apart <= MOST_APART:
        raise UsageError(f"the torch source answers otherwise: a probability is {apart:.2g} off")
    said = [f"answers as the model does: {len(framed_NHWC):,} images, probabilities at most {apart:.1g} apart"]
    num = num_same = 0
    for data in (one for one in whole if isinstance(one, bytes)):
        try:
            label = made["predict"](io.BytesIO(data), top=1)[0][0]
            ours = classifier.probabilities(classifier.logits(classifier.frame(data)[None]))[0]
        except (ImageError, ValueError):  # of more than 8 bits
            continue
        num, num_same = num + 1, num_same + (label == classifier.class_names[int(ours.argmax())])
    if num_same < SAME_LABELS * num:
        raise UsageError(
            f"the torch source would answer otherwise: the same label for {num_same:,} of {num:,} pictures"
        )
    return [*said, f"from files the same label for {num_same:,} of {num:,}"] if num else said


def _source(classifier: Classifier) -> str:
    spec = classifier.card.input_spec
    source = explain(classifier.path).torch_source()
    start = source.index("from safetensors.torch import load_file")
    end = source.index("weights = {", start)
    values = {
        "height": spec.height,
        "width": spec.width,
        "channels": spec.channels,
        "framing": spec.framing,
        "crop_frac": spec.crop_frac,
        "mode": "L" if spec.channels == 1 else "RGB",
    }
    x, y, width, height = spec.region or (0, 0, 0, 0)
    region = f"    image = image.crop(({x}, {y}, {x + width}, {y + height}))\n" if spec.region else ""
    fitted = _FITTED[spec.framing].format(**values)
    head = (
        f'"""A classifier of convlens as plain torch: {len(classifier.class_names):,} classes, '
        f'{by((spec.height, spec.width))} pixels.\n\nNeeds torch and Pillow: python {SOURCE} PICTURE …\n"""\n\n'
    )
    return head + source[:start] + _READING + source[end:] + _PREDICTING.format(**values, region=region, fitted=fitted)
