"""The table of layouts in docs/own-images.md, made by reading them: `python -m tests.data.sources.matrix` writes it."""

from __future__ import annotations

import tempfile
import zipfile
from collections import Counter
from pathlib import Path

from convlens.commands.terminal import as_typed
from convlens.data.sources.base import ReadOptions
from convlens.data.sources.recognise import open_tree
from convlens.data.sources.tree import DiskTree, Tree
from convlens.data.sources.zip_file import ZipTree
from convlens.errors import DataError
from tests.data.sources.random_trees import KINDS, Drawn, MemoryTree, draw_kind
from tests.data.sources.test_npz import GOOD, IN_MEMORY

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "own-images.md"
BEGIN, END = "<!-- made by tests/data/sources/matrix.py -->", "<!-- end -->"
_EACH = 8


def _outcome(tree: Tree, drawn: Drawn) -> str:
    """What becomes of a tree: read rightly, refused with what is offered, or wrong."""
    try:
        source = open_tree(tree, "data", ReadOptions(**drawn.options))
    except DataError as error:
        if drawn.rows is not None:
            return "wrong: refused"
        offered = [as_typed(offer + "`").strip("` ") for offer in drawn.offers if offer in str(error)]
        if len(offered) < len(drawn.offers):
            return "wrong: refused without a way in"
        return "refused" + (
            f", offers {', '.join(offered)}" if offered and offered[0].startswith("--") else ", said why"
        )
    return "read" if {tuple(row) for row in source.rows()} == drawn.rows else "wrong"  # type: ignore[union-attr]


def _in_containers(drawn: Drawn) -> tuple[str, str]:
    """The outcome in a folder on a disk, and in a zip file."""
    with tempfile.TemporaryDirectory() as place:
        folder, path = Path(place) / "data", Path(place) / "data.zip"
        MemoryTree(drawn.files).write(folder)
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in drawn.files.items():
                archive.writestr(name, data)
        return _outcome(DiskTree(folder), drawn), _outcome(ZipTree(path), drawn)


def table() -> str:
    """Layouts of files in folders and zip files, then arrays."""
    lines = ["| what lies there | in a folder | in a zip file |", "|---|---|---|"]
    for _, kind in KINDS:
        found: dict[str, set[tuple[str, str]]] = {}
        times: Counter[str] = Counter()
        for seed in range(_EACH * 8):
            drawn = draw_kind(kind, seed)
            times[drawn.kind] += 1
            if times[drawn.kind] > _EACH // 2:
                continue
            if len(found) < _EACH or drawn.kind in found:
                found.setdefault(drawn.kind, set()).add(_in_containers(drawn))
        for name, outcomes in sorted(found.items()):
            cells = " | ".join(", ".join(sorted({one[k] for one in outcomes})) for k in (0, 1))
            lines.append(f"| `{name}` | {cells} |" if "*" in name else f"| {name} | {cells} |")
    arrays = ", ".join(name for name, *_ in GOOD)
    memory = ", ".join(name for name, *_ in IN_MEMORY)
    return "\n".join([*lines, "", f"In an `.npz`: {arrays}. In Python: {memory}."])


def main() -> None:
    """Put the table into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
