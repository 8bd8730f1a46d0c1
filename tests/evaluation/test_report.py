"""The report: what it says, that it cannot be fooled by names, and that it needs nothing beside it."""

import html
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convlens
from convlens.errors import UsageError
from convlens.evaluation.report import first_sentence
from convlens.metrics import score
from convlens.run import REPORT_FILE
from tests.conftest import QUICK, TINY, Command, shapes

HOSTILE = ("<script>alert(1)</script>", 'a"onload="x', "c&amp;|`*")


class _Page(HTMLParser):
    """Tags, attributes and text of a page; raises where tags are not closed in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", list[str]()
        self.feed(page)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data + " "


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> convlens.Run:
    """A run whose classes have names that would break a page."""
    x, y = shapes(700)
    folder = tmp_path_factory.mktemp("hostile")
    np.savez(folder / "h.npz", x=x, y=np.array(HOSTILE)[y])
    return convlens.train(
        folder / "h.npz", architecture=TINY, recipe=QUICK, out=folder / "run", progress="none", val_frac=0.2
    )


def test_every_run_has_a_report_of_what_was_measured(hostile: convlens.Run) -> None:
    """On validation, test being sealed: the sentence says so; its numbers are those of the run; nothing comes from
    elsewhere, nothing runs, and it is well formed."""
    text = (hostile.path / REPORT_FILE).read_text(encoding="utf-8")
    page = _Page(text)
    assert hostile.val is not None and f"{100 * hostile.val.accuracy:.2f} %" in page.text
    assert "by which it was chosen" in page.text and "Nothing was measured on test" in page.text
    assert f"{hostile.val.n:,} pictures" in page.text
    assert all(tag not in ("script", "link", "iframe", "object") for tag, _ in page.tags)
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), attributes
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "<script>alert" not in text and "alert(1)" in page.text
    assert len(text) < 3_000_000


def test_a_report_of_test_says_that_it_took_no_part(hostile: convlens.Run, tmp_path: Path) -> None:
    """As a page, as Markdown and as JSON: the same numbers; nothing that is there is replaced."""
    report = convlens.evaluate(hostile, progress="none")
    for suffix in (".html", ".md", ".json"):
        report.save(tmp_path / f"r{suffix}")
    assert report.openings is not None
    page = _Page((tmp_path / "r.html").read_text(encoding="utf-8")).text
    written = (tmp_path / "r.md").read_text(encoding="utf-8")
    for text in (page, written):
        assert "took no part in making it" in text and f"{100 * report.accuracy:.2f} %" in text
        assert f"{report.n:,}" in text and report.dataset.fingerprint in text
        assert "always the largest class" in text and "nearest neighbours" in text
    found = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert found["accuracy"] == report.accuracy and found["confusion"] == report.confusion_KK.tolist()
    with pytest.raises(UsageError, match="exists already"):
        report.save(tmp_path / "r.html")
    with pytest.raises(UsageError, match=r"must end in \.html"):
        report.save(tmp_path / "r.docx")


def test_a_run_s_report_follows_its_test(workplace: Path) -> None:
    """Sealed until test is opened, by whichever command; a later look at validation, at raw probabilities or at a part
    leaves it as it is."""
    recipe = QUICK.replace(label_smoothing=0.2)
    run = convlens.train(shapes(900), architecture=TINY, recipe=recipe, val_frac=0.2, progress="none")
    page = run.path / REPORT_FILE
    assert "othing was measured on test" in page.read_text(encoding="utf-8")
    assert run.to_json()["test"] is None
    convlens.evaluate(run, progress="none")
    after = page.read_text(encoding="utf-8")
    assert "othing was measured on test" not in after and "took no part" in after
    for others in (
        {"split": "val"},
        {"raw": True},
        {"exclude": ["all/0", "all/1", "all/2", "all/3", "all/4", "all/5"]},
    ):
        convlens.evaluate(run, progress="none", **others)
        assert page.read_text(encoding="utf-8") == after, others


@pytest.mark.parametrize("has_parent", [False, True])
def test_the_command_in_it_trains_the_same_model(
    hostile: convlens.Run, tmp_path: Path, command: Command, has_parent: bool
) -> None:
    """What it says under Again, typed, comes to the same weights; of a model that began with another one's, too."""
    if has_parent:
        x, y = shapes(300, 5)
        np.savez(tmp_path / "other.npz", x=x, y=np.array(HOSTILE)[y])
        options: dict[str, Any] = {"recipe": {"epochs": 1, "lr": 0.003}, "seed": 3, "progress": "none"}
        hostile = convlens.train(tmp_path / "other.npz", parent=hostile, out=tmp_path / "child", **options)
    text = (hostile.path / REPORT_FILE).read_text(encoding="utf-8")
    typed, checked = re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL)
    assert shlex.split(html.unescape(checked))[:2] == ["convlens", "verify"]
    words = shlex.split(html.unescape(typed))
    assert words[:2] == ["convlens", "train"]
    again = tmp_path / "again"
    done = command(*words[1:], "--out", again)
    assert done.returncode == 0, done.stderr
    a, b = (convlens.load(one).network.state_dict() for one in (hostile, convlens.Run(again)))
    assert all(bool((a[name] == b[name]).all()) for name in a)


def test_the_first_sentence_never_says_more_than_is_known() -> None:
    """Learned from, chosen by, perhaps seen, taken no part: each is said as that."""
    found = score(4 * np.eye(2)[np.arange(50) % 2], np.arange(50) % 2)
    assert "learned from" in first_sentence(found, "train", "d", is_own=True)
    assert "a little less" in first_sentence(found, "val", "d", is_own=True)
    assert "may have learned from" in first_sentence(found.replace(may_count_seen=True), "test", "d", is_own=False)
    assert first_sentence(found, "test", "d", is_own=True).endswith(
        "took no part in making it, it is right for 100.00 %, between 92.87 and 100.00 with 95 % confidence."
    )
    assert "in 7 groups" in first_sentence(found.replace(num_groups=7), "test", "d", is_own=True)


def test_evaluate_writes_it_and_says_where(hostile: convlens.Run, command: Command, workplace: Path) -> None:
    """`--report FILE`; a file that is there is refused before anything is measured, test not opened."""
    done = command("evaluate", hostile.path, "--report", "r.html")
    assert done.returncode == 0 and "written: r.html" in done.stderr and Path("r.html").is_file()
    done = command("evaluate", hostile.path, "--report", "r.html")
    assert done.returncode == 2 and "exists already" in done.stderr and not done.stdout


def test_suspected_labels_are_shown_as_pictures(tmp_path: Path) -> None:
    """Test labels that are wrong, of a network that learned from right ones: a gallery of their own, with Grad-CAM."""
    x, y = shapes(900)
    y_test = y[700:].copy()
    y_test[::20] = (y_test[::20] + 1) % 3
    np.savez(tmp_path / "toy.npz", x_train=x[:700], y_train=y[:700], x_test=x[700:], y_test=y_test)
    run = convlens.train(tmp_path / "toy.npz", architecture=TINY, recipe=QUICK.replace(epochs=6), out=tmp_path / "run",
                         progress="none")  # fmt: skip
    page = convlens.evaluate(run, progress="none").text(".html")
    gallery = page.partition("Labels to look at again")[2].partition("<section>")[0]
    assert gallery.count("check the label") >= 8 and gallery.count("Grad-CAM of the answer") >= 8
    # Those that a person has looked at are not asked for again, whatever networks say of them.
    rows = [f"test/{n},{label},keep," for n, label in enumerate(y_test.tolist())]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,decision,new_label", *rows]) + "\n", encoding="utf-8")
    decided = convlens.evaluate(run, labels=tmp_path / "labels.csv", progress="none").text(".html")
    assert "check the label" not in decided
