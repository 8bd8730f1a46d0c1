"""What is published: wheel and source archive hold what they must, and everything says the same version."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import convlens
from tests.helpers import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def test_everything_says_the_same_version() -> None:
    """pyproject, the package as it is installed, the citation, and the newest part of the changelog."""
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    cited = re.search(r"^version: (\S+)$", citation, re.M)
    newest = re.search(r"^## (\d+\.\d+\.\d+)", changes, re.M)
    assert cited and newest and {VERSION} == {convlens.__version__, cited[1], newest[1]}


@pytest.mark.slow
def test_wheel_and_source_archive(tmp_path: Path) -> None:
    """The wheel, built from the source archive, has every file of the package that git knows and nothing
    beside it; the archive has the licences, the changelog and the citation too."""
    pytest.importorskip("build", reason="build is not installed")
    told = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if told.returncode:
        pytest.skip("this is no clone: git knows no files of it")
    source = tmp_path / "source"
    for name in told.stdout.splitlines():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    assert wheel.name == f"convlens-{VERSION}-py3-none-any.whl" and archive.name == f"convlens-{VERSION}.tar.gz"
    known = {name.removeprefix("src/") for name in told.stdout.splitlines() if name.startswith("src/")}
    with zipfile.ZipFile(wheel) as inside:
        names = {name for name in inside.namelist() if not name.endswith("/")}
    assert {name for name in names if ".dist-info/" not in name} == known
    assert {name.rpartition(".dist-info/")[2] for name in names - known} >= {"METADATA", "entry_points.txt"}
    assert sum("LICENSE" in name for name in names) >= 2
    with tarfile.open(archive) as inside_archive:
        files = {name.partition("/")[2] for name in inside_archive.getnames()}
    assert files >= {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "tests/helpers.py"}
