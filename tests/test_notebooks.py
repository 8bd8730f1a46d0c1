"""The notebooks run from the first cell to the last, as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, workplace: Path) -> None:
    """In a kernel of its own, in an empty folder: no error, nothing on standard error; pictures and tables stand in
    the outputs, and what trains has one display that was updated, in which all that was said remains."""
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    client = pytest.importorskip("nbclient", reason="nbclient is not installed").NotebookClient
    book = client(nbformat.read(path, 4), timeout=600, resources={"metadata": {"path": str(workplace)}}).execute()
    outputs: list[dict[str, Any]] = [one for cell in book.cells if cell.cell_type == "code" for one in cell.outputs]
    assert not [one for one in outputs if one["output_type"] == "error" or one.get("name") == "stderr"], outputs
    shown = [one["data"] for one in outputs if "data" in one]
    pages = [data["text/html"] for data in shown if "text/html" in data]
    assert sum("<table" in page for page in pages) >= 3 and any("data:image/png;base64," in page for page in pages)
    trained = next(cell for cell in book.cells if "convlens.train(" in cell.source)
    said = trained.outputs[0]["data"]["text/plain"]
    assert " parameters, " in said and "\nepoch " in said and "%\n" not in said, said


def test_notebooks_are_kept_as_they_open() -> None:
    """No outputs (numbers of another day), no execution counts, the plain Python 3 kernel that Colab, Kaggle and
    JupyterLab have; each begins with a heading and installs convlens where it is not there."""
    assert [path.stem for path in NOTEBOOKS] == ["mnist", "own_pictures"]
    for path in NOTEBOOKS:
        book = json.loads(path.read_text(encoding="utf-8"))
        code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
        assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
        assert (book["nbformat"], book["metadata"]["kernelspec"]["name"]) == (4, "python3")
        assert book["cells"][0]["source"][0].startswith("# ") and "%pip install" in "".join(code[0]["source"])
