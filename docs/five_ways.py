"""One picture, five ways: command line, Python, page, an ONNX file, a kit. Writes the table in docs/shipping.md.

    python docs/five_ways.py NAME MODEL FOLDER [NAME MODEL FOLDER ...] --most 100

Each model answers the pictures of its folder: `convlens predict`; `load(model).predict`, each picture for itself;
the page's server, as its drawing pad and file picker ask it; an exported ONNX file in onnxruntime; an exported kit, in
which neither convlens nor torch can be imported. The first is what the others are held against.
"""

import argparse
import http.client
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import convlens

DOCS = Path(__file__).resolve().parent
MARKS = "<!-- written by docs/five_ways.py -->\n", "<!-- end -->"
CONVLENS = [sys.executable, "-m", "convlens"]
BARE = """
import runpy, sys
sys.modules |= dict.fromkeys(("convlens", "torch", "simplejpeg"))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
Answer = dict[str, float]  # probabilities by class, the most probable first


def of_rows(text: str) -> list[Answer]:
    """Answers of lines of JSON with all classes."""
    return [{one["label"]: one["probability"] for one in json.loads(line)["top"]} for line in text.splitlines()]


def command_line(model: str, pictures: list[Path], top: int) -> list[Answer]:
    """`convlens predict`, all pictures in one process."""
    command = [*CONVLENS, "predict", model, "-", "--top", str(top), "--jsonl"]
    names = "\n".join(map(str, pictures))
    return of_rows(subprocess.run(command, input=names, check=True, capture_output=True, text=True).stdout)


def python(classifier: Any, pictures: list[Path], top: int) -> list[Answer]:
    """Each picture for itself."""
    return [dict(classifier.predict([path], top=top)[0].top) for path in pictures]


def page(model: str, class_names: tuple[str, ...], pictures: list[Path]) -> Iterator[Answer]:
    """Of a model that averages over mirror images the page shows the mean's answer beside the picture's own."""
    command = [*CONVLENS, "serve", model, "--no-token", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = re.search(r":(\d+)/", line := process.stderr.readline())
        assert found, line
        for path in pictures:
            connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
            connection.request("POST", "/api/see", path.read_bytes())
            data = connection.getresponse().read()
            connection.close()
            size = int.from_bytes(data[:4], "little")
            header = json.loads(data[4 : 4 + size])
            if (both := header.get("mirrored")) is not None:
                yield {class_names[both["label"]]: both["probability"]}
                continue
            place = header["arrays"]["probabilities"]
            p_K = np.frombuffer(data, f"<{place['type']}", place["shape"][0], 4 + size + place["offset"])
            yield {class_names[k]: float(p_K[k]) for k in (-p_K).argsort(kind="stable")}
        process.terminate()


def onnx_file(classifier: Any, pictures: list[Path], folder: Path) -> Iterator[Answer]:
    """Framed by convlens, answered by onnxruntime."""
    path = convlens.export(classifier, folder / "model.onnx", progress="none").path
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for picture in pictures:
        (p_1K,) = session.run(["probabilities"], {"images": classifier.frame(picture)[None]})
        yield {classifier.class_names[k]: float(p_1K[0, k]) for k in (-p_1K[0]).argsort(kind="stable")}


def kit(classifier: Any, pictures: list[Path], folder: Path, top: int) -> list[Answer]:
    """A kit's own program, with neither convlens nor torch."""
    path = convlens.export(classifier, folder / "kit", format="kit", progress="none").path
    command = [sys.executable, "-c", BARE, str(path / "predict.py"), *map(str, pictures), "--top", str(top), "--jsonl"]
    return of_rows(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def row(name: str, model: str, folder: Path, most: int) -> str:
    """A model's row of the table: in how many answers each way differs from the command line's, and by how much."""
    classifier = convlens.load(model, "cpu")
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    pictures = pictures[:: max(1, len(pictures) // most)][:most]
    top = len(classifier.class_names)
    first = command_line(model, pictures, top)
    with tempfile.TemporaryDirectory() as work:
        ways = [
            python(classifier, pictures, top),
            page(model, classifier.class_names, pictures),
            onnx_file(classifier, pictures, Path(work)),
            kit(classifier, pictures, Path(work), top),
        ]
        cells = []
        for way in ways:
            pairs = list(zip(first, way, strict=True))
            others = sum(next(iter(ours)) != next(iter(theirs)) for ours, theirs in pairs)
            apart = max(abs(ours[label] - p) for ours, theirs in pairs for label, p in theirs.items())
            cells.append(f"{others}, {apart:.0e}")
    spec = classifier.card.input_spec
    what = f"{name}: {spec.height}×{spec.width}×{spec.channels}, `{spec.framing}`, {top} classes"
    return f"| {what} | {len(pictures)} | {' | '.join(cells)} |"


def main() -> None:
    """Write the table between its two marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME MODEL FOLDER", help="threes of them")
    parser.add_argument("--most", type=int, default=100)
    asked = parser.parse_args()
    threes = zip(*[iter(asked.models)] * 3, strict=True)
    lines = ["| | pictures | Python | page | ONNX | kit |", "|---|---|---|---|---|---|"]
    lines += [row(name, model, Path(folder), asked.most) for name, model, folder in threes]
    document = DOCS / "shipping.md"
    before, _, rest = document.read_text(encoding="utf-8").partition(MARKS[0])
    table = "\n".join(lines) + "\n"
    document.write_text(before + MARKS[0] + table + MARKS[1] + rest.partition(MARKS[1])[2], encoding="utf-8")
    print(table, end="")


if __name__ == "__main__":
    main()
