"""What one trains on: the same counts wherever they are asked for."""

from pathlib import Path

import convlens
from convlens.data.packed.contents import Contents
from convlens.data.packed.dataset import Dataset
from tests.conftest import QUICK, TINY, write_folders


def test_contents_are_whole_and_the_same_in_train_pack_and_check(tmp_path: Path) -> None:
    """Classes by split, files that cannot be read and files that are not used, with their reasons."""
    root = write_folders(tmp_path / "data", 20, side=24)
    (root / "circle" / "broken.png").write_bytes(b"\x89PNG")
    (root / "readme.txt").write_text("by hand", encoding="utf-8")
    dataset = convlens.pack(root, tmp_path / "packed")
    packed = Contents.of(dataset).to_json()
    assert sum(packed["splits"].values()) == len(dataset) == sum(sum(c.values()) for c in packed["classes"].values())
    assert packed["quarantined"] == {"damaged or truncated: its header cannot be read": 1}
    assert packed["unused"] == {"no picture": ["readme.txt"]} and packed["values"] == [0, 255]
    trained = convlens.train(root, architecture=TINY, recipe=QUICK, size=24, out=tmp_path / "run", progress="none")
    assert trained.to_json()["contents"] == packed
    assert convlens.load(tmp_path / "run") and "contents" not in convlens.Run(tmp_path / "run").to_json()
    checked = convlens.check(root, progress="none").to_json()["contents"]
    assert checked == packed | {"splits_by": checked["splits_by"]}
    # A packed set alone does not know what lay beside.
    assert Contents.of(Dataset.open(tmp_path / "packed")).to_json()["unused"] is None
    rows = dict(Contents.of(dataset).rows())
    assert rows["quarantined"] == "1 that cannot be read, in no split (1× damaged or truncated)"
    assert rows["unused"].startswith("1 file, no picture (1 .txt)") or "readme.txt" in rows["unused"]
