"""The container of docs/serving.md, without an engine: its file is linted, its commands run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

import convlens
from tests.helpers import ROOT, folder, scene, trained

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    found = re.search(rf"```{kind}\n(.*?)```", PAGE, re.S)
    assert found
    return found[1]


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, in order, each on one line."""
    lines = block("dockerfile").replace("\\\n", " ").splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines) if name.isupper()]


def words_of(name: str) -> list[str]:
    """The words of an instruction in its exec form."""
    found: list[str] = json.loads(dict(instructions())[name].removeprefix("CMD "))
    return found


def test_the_dockerfile_is_clean() -> None:
    """hadolint finds nothing; a slim image, a user that is not root, by number."""
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, "-"], input=block("dockerfile"), capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stdout, done.stdout
    found = dict(instructions())
    assert "-slim" in found["FROM"] and int(found["USER"]) > 0 and words_of("HEALTHCHECK")[0] == "python"


def test_the_compose_file_is_read() -> None:
    """As YAML: read-only, without capabilities, a token that must be given, the port that the server listens on."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    (service,) = yaml.safe_load(block("yaml"))["services"].values()
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and service["tmpfs"] == ["/tmp"]
    assert service["environment"]["CONVLENS_TOKEN"].startswith("${CONVLENS_TOKEN:?")
    assert service["ports"] == [f"{dict(instructions())['EXPOSE']}:8023"]


def test_it_installs_what_convlens_asks_for() -> None:
    """The same versions as pyproject.toml, of what it names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {*project["dependencies"], *project["optional-dependencies"]["serve"]}
    installed = re.findall(r"'([^']+)'", dict(instructions())["RUN"])
    assert len(installed) > 10 and set(installed) <= asked


@pytest.mark.slow
def test_its_commands_run(tmp_path: Path) -> None:
    """In a bare environment: what RUN installs; CMD serves the file, HEALTHCHECK succeeds, a picture is answered, torch
    is not there; SIGTERM ends it. The model's folder and the work folder can only be read."""
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")
    run = trained(folder(tmp_path / "data", range(60)), size=16, out=tmp_path / "run")
    place = tmp_path / "srv"
    place.mkdir()
    convlens.export(run, place / "model.onnx", progress="none")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CONVLENS", "PYTHON"))}
    venv.create(tmp_path / "bare", with_pip=True, symlinks=True)
    programs = tmp_path / "bare" / "bin"
    if not programs.is_dir():
        pytest.skip("the container's commands are those of Linux")
    pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check"]
    probe = subprocess.run(
        [*pip, "download", "--no-deps", "-q", "-d", str(tmp_path / "probe"), "filelock"], check=False
    )
    if probe.returncode:
        pytest.skip("no package index can be reached")
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(place), str(ROOT)], check=True, env=clean)
    (wheel,) = place.glob("convlens-*.whl")
    steps = dict(instructions())["RUN"].replace("/srv/convlens-*.whl", str(wheel)).split("&&")
    for step in steps:
        if (words := shlex.split(step))[0] == "pip":
            subprocess.run([*pip, "-q", *words[1:]], check=True, stdout=subprocess.DEVNULL, env=clean)
    assert subprocess.run([programs / "python", "-c", "import torch"], stderr=subprocess.DEVNULL, env=clean).returncode
    shutil.rmtree(tmp_path / "run")
    settings = dict(part.split("=") for part in dict(instructions())["ENV"].split())
    kept = {name: value.replace("/tmp", str(tmp_path / "tmp")) for name, value in settings.items()}
    environment = clean | kept | {"CONVLENS_TOKEN": "a-token-of-ours", "PATH": f"{programs}:{os.environ['PATH']}"}
    port = "18023"
    words = [*words_of("CMD"), "--port", port]
    words[words.index("/srv/model.onnx")] = str(place / "model.onnx")
    place.chmod(0o555)
    with subprocess.Popen(words, cwd=place, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None and "is open at" in process.stderr.readline()
            healthy = [word.replace(":8023", f":{port}") for word in words_of("HEALTHCHECK")]
            assert subprocess.run(healthy, env=environment, timeout=20).returncode == 0
            scene(3, 60).save(tmp_path / "a.png")
            headers = {"Authorization": "Bearer a-token-of-ours"}
            body = (tmp_path / "a.png").read_bytes()
            said = httpx.post(f"http://127.0.0.1:{port}/predict", content=body, headers=headers, timeout=20)
            assert said.status_code == 200 and said.json()["row"]
        finally:
            process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM
    assert {path.name for path in place.iterdir()} == {"model.onnx", wheel.name}
