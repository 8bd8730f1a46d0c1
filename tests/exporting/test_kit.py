"""A kit classifies pictures on a machine without convlens, as the model does."""

from __future__ import annotations

import ast
import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convlens
from convlens.cli import main
from convlens.data.image.decode import read_header
from convlens.exporting.bundle import bundled
from convlens.exporting.kit import PLATFORMS, SELFTEST_PICTURES
from convlens.runtime.prediction import row_of
from tests.data.image.test_decode import golden, saved
from tests.helpers import SOURCE, folder, scene, trained

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

# What a machine with a kit has not got.
BARE = """
import runpy, sys
for name in ("convlens", "torch", "simplejpeg", "msgspec", "typer", "onnx", "platformdirs", "filelock"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def program(kit: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-c", BARE, str(kit / "predict.py"), *map(str, arguments)]


def said(kit: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(program(kit, *arguments), capture_output=True, text=True, check=False, timeout=200)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> convlens.Run:
    place = tmp_path_factory.mktemp("kits")
    return trained(folder(place / "data", range(60)), size=16, out=place / "run")


@pytest.fixture(scope="module")
def kit(run: convlens.Run) -> Path:
    return convlens.export(run, run.path.with_name("kit"), format="kit", progress="none").path


def test_a_kit_answers_as_predict_does(run: convlens.Run, kit: Path, workplace: Path) -> None:
    """Where torch, convlens and its libraries cannot be imported: the same labels and probabilities, in the same words
    and columns; exit codes; the rows' hashes are those of the input and of the model file."""
    for number in range(8):
        scene(number, 90).save(workplace / f"{number}.jpg")
    (workplace / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    done = said(kit, workplace, "--jsonl")
    assert done.returncode == 1 and "1 of 9 pictures cannot be read" in done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    ours = [one.to_json() for one in convlens.predict(run, sorted(map(str, workplace.iterdir())), progress="none")]
    digest = convlens.files.sha256_of_file(run.model)
    for row, answer in zip(rows, ours, strict=True):
        named = row.pop("row", None)
        if "error" in answer:
            assert row == answer and named is None
            continue
        assert re.fullmatch(rf"[0-9a-f]{{12}}-{digest[:12]}-[0-9a-f]{{12}}", named)
        answer.pop("seen")
        assert row["label"] == answer["label"] and row.keys() == answer.keys()
        assert abs(row["probability"] - answer["probability"]) < 1e-5
    assert said(kit, workplace, "--csv", workplace / "out.csv").returncode == 1
    table = list(csv.reader((workplace / "out.csv").open(encoding="utf-8")))
    assert table[0] == [
        "path",
        "label1",
        "probability1",
        "label2",
        "probability2",
        "answer",
        "unfamiliar",
        "row",
        "error",
    ]
    assert [line[1] for line in table[1:]] == [row["label"] or "" for row in rows]


def test_the_self_test_finds_what_is_damaged(kit: Path, workplace: Path) -> None:
    """A byte of any file, a missing file, another input (a version that decodes otherwise): said, exit code 2; and a
    damaged model answers nothing."""
    assert said(kit, "--selftest").returncode == 0
    for name in ("model.onnx", "predict.py", "requirements.txt", "selftest/01.png"):
        shutil.rmtree(workplace / "kit", ignore_errors=True)
        shutil.copytree(kit, workplace / "kit")
        data = bytearray((workplace / "kit" / name).read_bytes())
        data[-1] ^= 1
        (workplace / "kit" / name).write_bytes(data if name != "predict.py" else bytes(data[:-1]) + b"#\n")
        done = said(workplace / "kit", "--selftest")
        assert done.returncode == 2 and f"{name} is damaged" in done.stderr and done.stderr.count("\n") == 1
        if name == "model.onnx":
            done = said(workplace / "kit", kit / "selftest")
            assert done.returncode == 2 and "model.onnx is damaged" in done.stderr and not done.stdout
    (workplace / "kit" / "MODEL_CARD.md").unlink()
    assert "cannot read MODEL_CARD.md" in said(workplace / "kit", "--selftest").stderr
    (workplace / "kit" / "SHA256SUMS").unlink()
    assert "nothing here can be checked" in said(workplace / "kit", "--selftest").stderr
    shutil.rmtree(workplace / "kit")
    shutil.copytree(kit, workplace / "kit")
    framed_otherwise = workplace / "kit" / "predict.py"
    framed_otherwise.write_text(
        framed_otherwise.read_text(encoding="utf-8").replace("Resampling.BICUBIC", "Resampling.BILINEAR"),
        encoding="utf-8",
    )
    sums = workplace / "kit" / "SHA256SUMS"
    digest = convlens.files.sha256_of_file(framed_otherwise)
    sums.write_text(re.sub(r"[0-9a-f]{64}(?=  predict.py)", digest, sums.read_text(encoding="utf-8")), encoding="utf-8")
    assert "becomes another input here" in said(workplace / "kit", "--selftest").stderr


@pytest.mark.slow
def test_watching_a_folder(kit: Path, workplace: Path) -> None:
    """Each new picture gives a row; one of which half is there is waited for; a picture that is never whole gets its
    error; stopped by SIGTERM with exit code 0, started again on the same table, which is gone on with."""
    line, table = workplace / "line", workplace / "out.csv"
    line.mkdir()
    data = saved(scene(1, 400), "JPEG")
    (line / "half.jpg").write_bytes(data[: len(data) // 2])
    command = program(kit, "--watch", line, "--csv", table, "--keep", "all", "--kept", workplace / "kept")

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with start() as process:
        assert process.stdout is not None and process.stderr is not None
        scene(2, 64).save(line / "a.png")
        assert process.stdout.readline().startswith(f"{line / 'a.png'}: ")
        (line / "half.jpg").write_bytes(data)
        assert process.stdout.readline().startswith(f"{line / 'half.jpg'}: ")
        (line / "never.jpg").write_bytes(data[:500])
        assert "no answer: damaged or truncated" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0 and "stopped" in process.stderr.read()
    with table.open("a", encoding="utf-8") as file:
        file.write(f"{line / 'later.png'},ant,0.9")  # a row that a crash cut short: its picture has none
    with start() as process:
        assert process.stdout is not None
        scene(3, 64).save(line / "later.png")
        assert process.stdout.readline().startswith(f"{line / 'later.png'}: ")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert [Path(row["path"]).name for row in rows] == ["a.png", "half.jpg", "never.jpg", "later.png"]
    kept = {path.stem: path for path in (workplace / "kept").glob("*.json")}
    for row in rows:
        if row["row"]:
            stored = json.loads(kept[row["row"]].read_text(encoding="utf-8"))
            picture = workplace / "kept" / stored["picture"]
            assert picture.read_bytes() == Path(row["path"]).read_bytes() and len(stored["logits"]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name pictures or a folder"),
        (["nowhere.png"], "nowhere.png: cannot be read"),
        (["empty"], "empty holds no pictures: --recursive looks into the folders below"),
        (["*.nothing"], "no file matches"),
        (["a.png", "--csv", "there.csv"], "exists already"),
        (["a.png", "--top", "0"], "--top must be 1 or more"),
        (["a.png", "--watch", "empty"], "not both"),
        (["--watch", "nowhere"], "--watch nowhere is no folder"),
        (["--watch", "empty", "--csv", "there.csv"], "no table of these columns"),
        (["--watch", "empty", "--csv", "empty"], "cannot be read"),
        (["--watch", "empty", "--keep", "all", "--kept", "empty"], "lies in the folder that is watched"),
        (["--watch", ".", "--recursive", "--keep", "all"], "lies in the folder that is watched"),
    ],
)
def test_bad_input_is_one_line(kit: Path, workplace: Path, arguments: list[str], words: str) -> None:
    """What is wrong, exit code 2, no traceback, nothing replaced."""
    (workplace / "empty").mkdir()
    (workplace / "there.csv").write_text("precious\n", encoding="utf-8")
    scene(1).save(workplace / "a.png")
    done = said(kit, *arguments)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert (workplace / "there.csv").read_text(encoding="utf-8") == "precious\n"


def test_the_program_is_the_very_source() -> None:
    """Every function and class in it is, word for word, one of convlens; it imports nothing that a kit has not got."""
    text = bundled("convlens.runtime.kit_program", "main", own=("InputSpec",))
    tree = ast.parse(text)
    place = ""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            before = text[: text.index(f"\n{ast.get_source_segment(text, node)}")]
            place = re.findall(r"# -{8} (\S+)", before)[-1]
            source = (SOURCE.parent / place).read_text(encoding="utf-8")
            assert str(ast.get_source_segment(text, node)) in source, (place, node.name)
    roots = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    roots |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    others = {root.partition(".")[0] for root in roots} - sys.stdlib_module_names
    assert others == {"numpy", "PIL", "onnxruntime", "simplejpeg"}  # the last only where it is there


def test_two_things_of_one_name_are_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that would give one name to two things make no program, rather than one that mixes them up."""
    (tmp_path / "twin_a.py").write_text("SIDE = 1\ndef one():\n    return SIDE\n", encoding="utf-8")
    (tmp_path / "twin_b.py").write_text(
        "from convlens.data.image.background import SIDE as PAPER, otsu\nSIDE = 2\ndef two():\n"
        "    return SIDE, PAPER, otsu\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "def one" in bundled("twin_a", "one")
    with pytest.raises(AssertionError, match="SIDE"):
        bundled("twin_b", "two")


@pytest.mark.slow
def test_what_is_private_stays_here(
    run: convlens.Run, kit: Path, workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """From the command line: with `--no-pictures` no picture of the data is in the kit; a kit is replaced only by
    --overwrite, and nothing else is; a card; unknown machines."""
    assert main(["export", str(run.path), "--format", "kit", "--no-pictures", "--out", "k"]) == 0
    assert "self-test: " in capfd.readouterr().out
    num = len(list((kit / "selftest").glob("*"))) - len(list(Path("k/selftest").glob("*")))
    assert num == SELFTEST_PICTURES
    assert main(["export", str(run.path), "--format", "kit", "--out", "k"]) == 2
    assert "exists already: name another folder, or say --overwrite" in capfd.readouterr().err
    assert main(["export", str(run.path), "--format", "kit", "--out", "k", "--overwrite"]) == 0
    (workplace / "k" / "out.csv").write_text("rows", encoding="utf-8")
    assert main(["export", str(run.path), "--format", "kit", "--out", "k", "--overwrite"]) == 2
    assert "files that are not the kit's ('out.csv')" in capfd.readouterr().err and (workplace / "k/out.csv").exists()
    (workplace / "mine").mkdir()
    (workplace / "mine" / "thesis.txt").write_text("all of it", encoding="utf-8")
    capfd.readouterr()
    assert main(["export", str(run.path), "--format", "kit", "--out", "mine", "--overwrite"]) == 2
    assert "is no kit, and is not replaced" in capfd.readouterr().err and (workplace / "mine/thesis.txt").exists()
    assert main(["export", str(run.path), "--format", "kit", "--wheels", "amiga", "--out", "w"]) == 2
    told = capfd.readouterr().err
    assert all(name in told for name in PLATFORMS)
    assert main(["export", str(run.path), "--format", "kit", "--input", "image"]) == 2
    assert "--input is for format onnx" in capfd.readouterr().err
    assert main(["export", str(run.path), "--format", "card"]) == 0
    card = Path("run.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense:") and str(run.val and run.val.n) in card and "No test score is known" in card


@pytest.mark.slow
@pytest.mark.parametrize(("framing", "channels"), [("pad", 3), ("crop", 1), ("stretch", 3), ("ink", 1)])
def test_a_thousand_pictures_of_every_kind(framing: str, channels: int, workplace: Path) -> None:
    """The same input tensor to the bit and the same label for 1,000 pictures of every kind that the decoder knows:
    formats, modes, 16 bits, palettes, transparency, orientations, large JPEGs."""
    data = folder(workplace / "data", range(60))
    run = trained(data, size=24, framing=framing, channels=channels, out="run")
    kit = convlens.export(run, "kit", format="kit", progress="none").path
    place = workplace / "pictures"
    place.mkdir()
    for number, (content, _) in enumerate(golden().values()):
        (place / f"golden{number:03}.{read_header(content).format.lower()}").write_bytes(content)
    rng = np.random.default_rng(0)
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        *(("JPEG", mode, {"quality": q}) for mode in ("L", "RGB", "CMYK") for q in (60, 95)),
        *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        *(("WEBP", mode, {"lossless": lossless}) for mode in ("RGB", "RGBA") for lossless in (True, False)),
        *(("TIFF", mode, {}) for mode in ("1", "L", "RGB", "RGBA", "CMYK", "I;16", "F")),
        *((kind, mode, {}) for kind in ("BMP", "GIF", "PPM") for mode in ("1", "L", "RGB")),
    ]
    while (number := len(list(place.iterdir()))) < 1_000:
        kind, mode, options = kinds[number % len(kinds)]
        image = scene(number, int(rng.integers(8, 400))).resize((int(rng.integers(8, 400)), int(rng.integers(8, 400))))
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        elif mode == "F":
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.float32) / 255)
        else:
            image = image.convert(mode)
        if kind == "JPEG" and number % 3 == 0:
            exif = Image.Exif()
            exif[0x0112] = 1 + number % 8
            options = options | {"exif": exif}
        (place / f"{number:04}.{kind.lower()}").write_bytes(saved(image, kind, **options))
    done = said(kit, place, "--jsonl")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    classifier = convlens.load(run)
    ours = convlens.predict(run, sorted(map(str, place.iterdir())), progress="none")
    assert len(rows) == len(ours) >= 1_000
    num_read = 0
    for row, answer in zip(rows, ours, strict=True):
        assert answer.path is not None and row["path"] == answer.path and row.get("error") == answer.error
        if answer.error is None:
            num_read += 1
            framed = classifier.frame(answer.path)
            assert row["row"].startswith(row_of(framed, "", answer)[:12]), answer.path
            assert row["label"] == answer.label, answer.path
    assert num_read > 950
