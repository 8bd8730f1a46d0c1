"""What copies across splits are worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convlens
from convlens.doctor.control import AS_IT_IS, CONTROL, WITHOUT
from convlens.errors import DataError
from tests.conftest import write_folders


def _with_copies(root: Path, *, num_copies: int) -> Path:
    """Three classes of noise: 40 training pictures and 10 of test each, and copies of some, brightened, in test."""
    rng = np.random.default_rng(0)

    def noise() -> Image.Image:
        small = rng.integers(0, 220, (8, 8, 3), dtype=np.uint8)
        return Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC)

    for label in "abc":
        for split in ("train", "test"):
            (root / split / label).mkdir(parents=True)
        for number in range(40):
            picture = noise()
            picture.save(root / "train" / label / f"{number}.png")
            if number < num_copies:
                picture.point(lambda v: min(255, v + 12)).save(root / "test" / label / f"copy{number}.png")
        for number in range(10):
            noise().save(root / "test" / label / f"{number}.png")
    return root


@pytest.mark.slow
def test_the_control_tells_copies_from_fewer_images(workplace: Path) -> None:
    """On noise all skill is copies: far better than chance with them and in the control, chance without."""
    findings = convlens.check(_with_copies(workplace / "data", num_copies=15), control=True, progress="none")
    scores = {what: score.accuracy for what, score in findings.control}
    assert list(scores) == [AS_IT_IS, WITHOUT, CONTROL] and {s.n for _, s in findings.control} == {75}
    assert scores[AS_IT_IS] > 0.5 and scores[CONTROL] > 0.5 and scores[WITHOUT] < 0.45
    assert findings.to_json()["control"][WITHOUT]["n"] == 75


def test_a_control_of_nothing_is_refused(tmp_path: Path) -> None:
    """Without copies across splits there is nothing to compare, and a packed set cannot be trained on anew."""
    root = _with_copies(tmp_path / "data", num_copies=0)
    with pytest.raises(DataError, match="no copies across splits"):
        convlens.check(root, control=True, progress="none")
    packed = convlens.pack(write_folders(tmp_path / "other", 4), out=tmp_path / "packed")
    with pytest.raises(convlens.ConvlensError, match="name the folder"):
        convlens.check(packed.folder, control=True, progress="none")


def test_the_verdict_says_what_was_looked_for(tmp_path: Path) -> None:
    """Nobody is told that all is well without being told of what."""
    findings = convlens.check(_with_copies(tmp_path / "data", num_copies=0), progress="none")
    assert not findings.falsifies and "not seen are copies altered more" in findings.verdict
    findings.save(tmp_path / "page.html")
    assert "not seen are copies altered more" in (tmp_path / "page.html").read_text(encoding="utf-8")
