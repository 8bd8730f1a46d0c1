"""What the doctor found: findings with what each means and what to do, in words, as JSON, and as lists for `train`.

Owns the values and their texts. Looks at no data.
"""

import csv
import io
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convlens import files
from convlens.data.image.decode import Pixels, quiet_pillow
from convlens.data.image.framing import InputSpec, picture
from convlens.data.packed.contents import Contents
from convlens.data.packed.corrections import Correction, write_corrections
from convlens.errors import ImageError, UsageError
from convlens.metrics import Score
from convlens.render.pages import notebook, page, thumbnail
from convlens.text import counted, percent, shown
from convlens.text import number as plain

_SETS, _PER_SET, _VIEW_PX = 60, 8, 112  # of a finding that the page draws; the rest are counted
_ENOUGH, _TOLD = 100, 4  # pictures, below which nothing unlike means little; differences that a line names
FALSIFIES, WARNING, NOTE = "falsifies", "warning", "note"


def _is_text(name: str) -> bool:
    """Whether a file's name is text, and no bytes that are none."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


CALLED = "share called"  # begins what is said of a class's share of the answers


@dataclass(frozen=True)
class Sample:
    """One sample: its name (a path relative to the data, or an array's split/number), its class, split and number of
    the picture among those that can be shown (None where it cannot be read)."""

    name: str
    label: str
    split: str
    picture: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Name, label and split."""
        return {"name": self.name, "label": self.label, "split": self.split}


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    `kind` is a word for programs. `severity` is falsifies (a score measured on this data would be wrong), warning or
    note. `sets` are the samples that it is about, those that belong together in one tuple; `details` a line for each of
    them.
    """

    kind: str
    severity: str
    title: str
    remedy: str
    sets: tuple[tuple[Sample, ...], ...] = ()
    details: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        sets: list[dict[str, Any]] = [{"samples": [s.to_json() for s in found]} for found in self.sets]
        for one, detail in zip(sets, self.details, strict=False):
            one["detail"] = detail
        rest = list(self.details[len(sets) :])
        return {"kind": self.kind, "severity": self.severity, "title": self.title, "remedy": self.remedy} | {
            "sets": sets,
            "details": rest,
        }


@dataclass(frozen=True)
class PropertyShift:
    """One property held against that of the model's own held-out pictures: its values there and here, how far apart
    they are (points of shares; standard deviations), the p-value among all that were looked at, and how large a
    difference would have been seen with a chance of 80 % (infinite: none)."""

    what: str
    there: float
    here: float
    apart: float
    p: float
    smallest_seen: float
    is_share: bool

    @property
    def is_told(self) -> bool:
        """Whether chance alone does not explain it (5 %, all properties together)."""
        return self.p < 0.05

    @property
    def row(self) -> tuple[str, str]:
        """What and value, for people."""
        if self.is_share:
            values = f"{percent(self.here)} here, {percent(self.there)} there"
            size = f"{100 * self.smallest_seen:.1f} points more"
        else:
            values = f"{plain(self.here, 3)} here, {plain(self.there, 3)} there, {self.apart:+.2f} sd"
            size = f"{self.smallest_seen:.2f} sd"
        seen = (
            f"{size} would be seen with 80 %" if math.isfinite(self.smallest_seen) else "too few to see any difference"
        )
        p = f"p = {self.p:.2g}" if self.p >= 1e-6 else "p < 0.000001"
        return self.what, f"{values} ({p}; {seen})".replace("-", "−")

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        facts = {"what": self.what, "there": self.there, "here": self.here, "apart": self.apart, "p": self.p}
        seen = self.smallest_seen if math.isfinite(self.smallest_seen) else None
        return facts | {"smallest_seen": seen, "is_share": self.is_share, "is_told": self.is_told}


@dataclass(frozen=True)
class Shift:
    """Pictures held against those that a model was validated on: `n` of them, against `n_there`; `num_unread` more
    could not be read."""

    n: int
    n_there: int
    num_unread: int
    differences: tuple[PropertyShift, ...]

    @property
    def verdict(self) -> str:
        """One line: like what the model was trained on, how they are not, or that too few can tell."""
        told = [one for one in self.differences if one.is_told]
        if told:
            how = "; ".join(f"{one.what}: {one.row[1].partition(' (')[0]}" for one in told[:_TOLD])
            more = f"; and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
            if all(one.what.startswith(CALLED) for one in told):
                return (
                    "these are answered in other shares than what the model was trained on, which may be the world's "
                    f"doing, or what was chosen; no property of the pictures differs. {how}{more}"
                )
            return f"these are not like what the model was trained on. {how}{more}"
        first = self.differences[0]
        share = first.there + first.smallest_seen
        seen = f"a {first.what} from {100 * share:.0f} % on" if share <= 1 else f"no {first.what}, however large,"
        if self.n < _ENOUGH:
            return (
                f"nothing unlike was found, but {counted(self.n, 'picture')} tell little: {seen} would have been seen, "
                "a single picture of something else need not be"
            )
        classes = [one for one in self.differences if one.what.startswith(CALLED)]
        sought = [one.what for one in self.differences if one not in classes] + ["the share of each class"]
        unread = (
            f"; of {counted(self.num_unread, 'picture')} that cannot be read nothing is known"
            if self.num_unread
            else ""
        )
        return (
            "these are like what the model was trained on, as far as was looked. "
            f"Looked at: {', '.join(sought)}; {seen} would have been seen{unread}"
        )

    def to_json(self) -> dict[str, Any]:
        """Everything."""
        facts: dict[str, Any] = {
            "n": self.n,
            "n_there": self.n_there,
            "num_unread": self.num_unread,
            "verdict": self.verdict,
        }
        return facts | {"differences": [one.to_json() for one in self.differences]}


@dataclass(frozen=True)
class Findings:
    """All findings on one data set, the gravest first. `facts` are its sizes and counts as (what, value);
    `clusters` the samples that show the same pictures, proposed as groups; `exclusions` what must go for a score to
    mean something, as (name, reason); `views` how samples' files or pixels are read, by number; `unused` the files that
    are not read, by reason; `control` test scores by what was left out of training; `are_small` that copies were looked
    for among pictures of few pixels; `suspects` labels that a person should look at, the most doubtful first (None:
    not looked for); `groups` the group of each sample that is in one, by name; `shift` how the pictures differ from
    those of a model, where they were held against them."""

    name: str
    location: str
    facts: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]
    clusters: tuple[tuple[Sample, ...], ...] = ()
    exclusions: tuple[tuple[str, str], ...] = ()
    samples: tuple[Sample, ...] = ()
    has_own_splits: bool = False
    folder: Path | None = None
    views: Mapping[int, Callable[[], bytes | Pixels]] = field(default_factory=dict, repr=False, compare=False)
    unused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    control: tuple[tuple[str, Score], ...] = ()
    contents: Contents | None = None
    are_small: bool = False
    suspects: tuple[Correction, ...] | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    shift: Shift | None = None

    @property
    def verdict(self) -> str:
        """Whether a score can be believed, and what was not looked for; of pictures held against a model's, whether
        they are like those."""
        if self.shift is not None:
            return self.shift.verdict
        kinds = {finding.kind for finding in self.findings}
        found = "nothing was found that would falsify a score"
        if self.falsifies:
            found = "a score on this data would be wrong; check it again when that is mended, for more may be seen then"
        sought = (
            "Looked for: equal pictures, and copies compressed anew, turned, mirrored, cut to no less than 0.7 of the "
            "sides, lightened, darkened, paler, stronger in colour or grey, blurred, or with a mark on up to a tenth; "
            "not seen are copies altered more or in several ways at once, in inverted or exchanged colours or in "
            "frames, nor other pictures of the same thing"
        )
        if self.are_small:
            sought += "; of copies as small as these about one in ten is missed"
        if kinds & {"plain", "outlines"}:
            sought += "; of plain pictures and outlines, which a note counts, only equal ones are seen"
        sought += "; of pictures unlike all others those that have few of their kind here, up to one in a hundred"
        return f"{found}. {sought}"

    @property
    def falsifies(self) -> bool:
        """Whether something was found that would falsify a score."""
        return any(finding.severity == FALSIFIES for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """As `check --json` prints it."""
        return (
            {"name": self.name, "location": self.location, "falsifies": self.falsifies}
            | {"verdict": self.verdict}
            | {"contents": None if self.contents is None else self.contents.to_json()}
            | {"facts": dict(self.facts), "findings": [finding.to_json() for finding in self.findings]}
            | {"groups": [[s.name for s in cluster] for cluster in self.clusters]}
            | {"unused": {reason: list(paths) for reason, paths in self.unused.items()}}
            | {"control": {what: score.to_json() for what, score in self.control}}
            | {"shift": None if self.shift is None else self.shift.to_json()}
            | {"suspect_labels": None if self.suspects is None else [one.to_json() for one in self.suspects]}
            | {"exclusions": [{"path": path, "reason": reason} for path, reason in self.exclusions]}
        )

    def save(self, path: str | Path, *, replace: bool = False) -> None:
        """Write the page with the pictures (.html); a file that is there is replaced only if `replace`. Raises
        UsageError, StorageError."""
        path = Path(path)
        files.check_new_file(path, (".html", ".htm"), replace=replace)
        with quiet_pillow():
            findings = [self._shown(finding) for finding in self.findings]
        about: dict[str, Any] = {
            "name": shown(self.name, 200),
            "location": shown(self.location, 400),
            "facts": self.facts,
        }
        about |= {"verdict": self.verdict, "falsifies": self.falsifies}
        files.write_text(path, page("findings.html", findings=findings, **about))

    def _shown(self, finding: Finding) -> dict[str, Any]:
        """A finding as plain rows, the first of its samples as pictures."""
        rows = []
        for number, samples in enumerate(finding.sets[:_SETS]):
            views = [
                {"name": shown(s.name, 120), "label": shown(s.label, 40), "split": s.split, "src": self._view(s)}
                for s in samples[:_PER_SET]
            ]
            detail = finding.details[number] if number < len(finding.details) else ""
            rows.append({"views": views, "detail": detail, "more": max(0, len(samples) - _PER_SET)})
        more = max(0, len(finding.sets) - _SETS)
        words = {"severity": finding.severity, "title": finding.title, "remedy": finding.remedy}
        return words | {"rows": rows, "more": more}

    def _view(self, sample: Sample) -> str:
        """A small view of a sample as a data URL; empty where there is none."""
        read = self.views.get(-1 if sample.picture is None else sample.picture)
        if read is None:
            return ""
        try:
            content = read()
            if isinstance(content, bytes):
                content = picture(content, InputSpec(_VIEW_PX, _VIEW_PX, 3, "pad"))
        except ImageError:
            return ""
        return thumbnail(content, _VIEW_PX)

    def write_exclusions(self, path: str | Path, *, replace: bool = False) -> None:
        """Write the list of samples to leave out, for `exclude`. Raises UsageError, StorageError."""
        path = Path(path)
        files.check_new_file(path, replace=replace)
        lines = [json.dumps({"path": name, "reason": reason}) for name, reason in self.exclusions]
        files.write_text(path, "".join(f"{line}\n" for line in lines))

    def write_labels(self, path: str | Path, *, replace: bool = False) -> None:
        """Write the table of labels to look at, for `review`, and for `labels` of train and evaluate once there are
        decisions. Raises UsageError where they were not looked for, StorageError."""
        if self.suspects is None:
            raise UsageError("labels were not looked at: say `labels` too")
        path = Path(path)
        files.check_new_file(path, (".csv",), replace=replace)
        write_corrections(path, self.suspects)

    def write_groups(self, path: str | Path, *, replace: bool = False) -> None:
        """Write a table path,label,group[,split] that `train` takes in the folder's place: samples that show the same
        picture, and those of one group, share a group, and straddle none of the splits that are drawn; where the data
        has its own, the table keeps them. Files that cannot be read stand in it too, to be counted. Raises UsageError
        for arrays and names that no table can hold, StorageError."""
        path, root = Path(path), self.folder
        files.check_new_file(path, (".csv",), replace=replace)
        if root is None:
            raise UsageError(
                "groups are for picture files in a folder: arrays have no paths to write down; unpack a zip file"
            )
        if not root.exists():
            raise UsageError(f"the pictures {shown(root, 200)} are not there any more: there is nothing to write down")
        unread = [s for one in self.findings if one.kind == "unreadable" for (s,) in one.sets]
        rows = sorted([*self.samples, *unread], key=lambda s: s.name)
        odd = [s.name for s in rows if "\\" in s.name or not s.name.isprintable() or not _is_text(s.name)]
        if odd:
            raise UsageError(f"the name {shown(odd[0])} cannot stand in a table: rename the file ({len(odd):,} such)")
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["path", "label", "group", *(["split"] if self.has_own_splits else [])])
        here = path.absolute().parent
        for s in rows:
            try:
                relative = os.path.relpath(root / s.name, here)
            except ValueError:  # another drive of Windows
                relative = str(root / s.name)
            split = [s.split] if self.has_own_splits else []
            writer.writerow([Path(relative).as_posix(), s.label, self.groups.get(s.name, s.name), *split])
        files.write_text(path, text.getvalue())

    def _repr_html_(self) -> str:
        items = [f"{f.severity}: {f.title}. {f.remedy}" for f in self.findings] or ["nothing was found"]
        return notebook(self.name, items=items)
