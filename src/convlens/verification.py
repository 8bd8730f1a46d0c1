"""`verify`: whether a report's numbers are those of its model, its data and the ledger.

Owns the comparison. Everything is measured anew: what is written in the report is believed nowhere but where it says
which model and split it is about.
"""

import html
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convlens import files
from convlens.classifier import Classifier, load
from convlens.data.packed.corrections import labels_of
from convlens.data.packed.dataset import DataIdentity, Dataset
from convlens.data.packed.exclusions import exclusions
from convlens.data.packed.pack import is_packed, is_packed_folder, open_data, reopen, without_gone
from convlens.data.sources.base import SPLITS, ReadOptions
from convlens.data.sources.named import NAMED_SETS
from convlens.data.sources.recognise import open_source
from convlens.doctor.checking import check
from convlens.errors import ConvlensError, RecordError, UsageError
from convlens.evaluation.evaluate import OWN_DATA, Report, choose_images, measure, without
from convlens.evaluation.report import FOLDS, report_title
from convlens.evaluation.test_ledger import Ledger, Openings, inspect_test, ledger_path, openings_until, plan_hash
from convlens.progress import Progress, open_progress
from convlens.records import json_value
from convlens.render.pages import notebook
from convlens.run import MODEL_FILE, REPORT_FILE, RUN_FILE, Run
from convlens.text import counted, listed, shown

_MAX_REPORT_BYTES, _MAX_VALUES = 64 << 20, 5_000_000
_TOLERANCE = 1e-6  # relative, of losses and probabilities on another machine; counts must be the same
_UNCOMPARED = frozenset({"model", "openings"})
_PLACES = ("name", "source", "packed")  # of the data set: where it lies, not what it is
_META = re.compile(r'<meta name="convlens-report" content="([^"]*)">')


@dataclass(frozen=True)
class Verification:
    """What `verify` found: what differs, and what could not be looked at; `num_compared` values of the report were.
    `elsewhere` says which copy of the data was measured, and what lies elsewhere than when the report was made."""

    report: Path
    num_compared: int
    differs: tuple[str, ...]
    unknown: tuple[str, ...]
    elsewhere: tuple[str, ...] = ()

    @property
    def is_confirmed(self) -> bool:
        """Whether everything was looked at, and nothing differs."""
        return not self.differs and not self.unknown

    def to_json(self) -> dict[str, Any]:
        """As `verify --json` prints it."""
        facts = {"report": str(self.report), "num_compared": self.num_compared, "is_confirmed": self.is_confirmed}
        return facts | {name: list(getattr(self, name)) for name in ("differs", "unknown", "elsewhere")}

    def lines(self) -> list[str]:
        """The finding first."""
        what = f"{shown(self.report, 200)}: {counted(self.num_compared, 'value')} compared"
        elsewhere = [f"the data: {one}" for one in self.elsewhere]
        if self.is_confirmed:
            return [f"confirmed: {what}, all as model, data and ledger say", *elsewhere]
        differs, unknown = (f"differs: {one}" for one in self.differs), (f"not known: {one}" for one in self.unknown)
        return [f"not confirmed: {what}", *differs, *unknown, *elsewhere]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        return notebook(lines=self.lines())


def verify(
    report: str | Path | Run,
    data: Any = None,
    *,
    model: Any = None,
    exclude: str | Path | Iterable[str] | None = None,
    labels: str | Path | None = None,
    device: str | None = "auto",
    data_root: str | Path | None = None,
    progress: str | Progress = "auto",
) -> Verification:
    """Measure the model of a report anew, on its data, and name whatever in the report, the model, the data or the
    ledger is not as the report says.

    `report` is a report (.html or .json) or a run, whose report and record are looked at. `data` and `model` say where
    they are now, should that not be where the report has them, `exclude` and `labels` are the files that were given to
    `evaluate`. Where the report has what `check` found, the data is checked anew. The look at test is written down as
    an inspection.
    Raises UsageError for what is no report, and as `evaluate` does where nothing can be measured.
    """
    run = report if isinstance(report, Run) else Run(Path(report))
    is_run = isinstance(report, Run) or files.is_file(run.path / RUN_FILE)
    path = run.path / REPORT_FILE if is_run else Path(str(report))
    text, said = _read(path)
    unknown: list[str] = []
    if (said.get("before_labels_file") is None) != (labels is None):
        has = "was measured by a labels file: say which with `labels`"
        if labels is not None:
            has = "was measured without a labels file (labels changed in training are in its data): leave `labels` away"
        raise UsageError(f"{shown(path, 200)} {has}")
    said["weights"].setdefault("curvature", 0.0)  # of reports of before
    said.setdefault("promises", [])
    said.setdefault("data_check", None)
    is_old = "num_classes" not in said
    place = _model(said, path, run if is_run else None) if model is None else model
    w = said["weights"]
    is_raw = (w.get("temperature"), w.get("curvature", 0)) == (1, 0)  # if that is not so, the probabilities tell
    classifier = load(place, device, _views(said), raw=is_raw)
    found: list[Openings | None] = []

    def look(dataset: Dataset, opened: Classifier) -> tuple[Dataset, Openings]:
        openings, doubts = _ledger(said, dataset, opened)
        unknown.extend(doubts)
        found.append(openings)
        return inspect_test(dataset, "verify"), openings or Openings(0, 0)

    with open_progress(progress) as bar:
        here = None if data is None else _own_data_at(data, classifier, said, data_root, bar)
        if isinstance(here, str):
            return Verification(path, 0, (here,), ())
        classifier, wanted = (classifier, data) if here is None else (here, None)
        chosen = choose_images(classifier, wanted, said["split"], ReadOptions(), data_root, bar)
        chosen = without(chosen, said["split"], exclusions(exclude))
        chosen = replace(chosen, corrections=() if labels is None else tuple(labels_of(labels)))
        if said["data_check"] is not None:
            unknown += _check_again(chosen.dataset, data, data_root, bar)
        again = measure(classifier, chosen, said["split"], look)
    again = again if said["data_check"] is not None else replace(again, checked=None)
    if found:
        again = replace(again, openings=found[0])
    again, elsewhere = _as_placed(said, again)
    own = json_value(json.dumps(again.to_json()).encode(), "what was measured", _MAX_VALUES)
    if is_old:
        del own["num_classes"]
    if not any("recall_interval" in one for one in said["classes"]):  # of before
        own["classes"] = [{k: v for k, v in one.items() if not k.endswith("_interval")} for one in own["classes"]]
    differs, num = [], 0
    if not said["promises"] and classifier.thresholds is not None:
        differs.append(
            f"the model promises something since ({classifier.thresholds}), so that its file is another: "
            "`evaluate` with `require=none` takes that out"
        )
    for where, here, there in _compared(said, own):
        num += 1
        if not _alike(here, there):
            differs.append(f"{where} is {shown(here, 60)} in the report, {shown(there, 60)} measured anew")
    if said.get("openings") is not None and found and found[0] is not None:
        if "since" not in said["openings"]:  # of before
            own["openings"] = {n: v for n, v in own["openings"].items() if n not in ("since", "num_own")}
        for where, here, there in _compared(said["openings"], own["openings"]):
            num += 1
            if here != there:
                differs.append(f"openings.{where} is {shown(here, 60)} in the report, {shown(there, 60)} in the ledger")
    if text is not None and not differs and not unknown:
        differs += _page_differs(text, replace(again, model=Path(said["model"])))
    if is_run:
        differs += _record_differs(run, again)
    if data is None and not (chosen.dataset.card.arrays or chosen.dataset.source in NAMED_SETS):
        where = shown(chosen.dataset.source, 200)
        elsewhere = (f"measured on its packed copy; whether {where} still holds it is told where that is named",)
    return Verification(path, num, tuple(differs), tuple(unknown), elsewhere)


def _own_data_at(
    place: Any, classifier: Classifier, said: dict[str, Any], data_root: str | Path | None, bar: Progress
) -> Classifier | str | None:
    """The classifier with its own data, of which the report is, at another place, or what is otherwise there; None
    where the report is of other data."""
    identity, told = classifier.card.dataset, said.get("dataset")
    if identity is None or not isinstance(told, dict) or told.get("fingerprint") != identity.fingerprint:
        return None
    try:
        options = None
        if not is_packed(place):
            options = without_gone(identity.options, open_source(place, identity.options.read, data_root=data_root))
        dataset = open_data(place, options, data_root=data_root, val_frac=identity.val_frac, progress=bar)
    except ConvlensError as error:
        return f"the data at {shown(place, 200)} cannot be read as that of the report: {error}"
    if not identity.is_of(dataset.card):
        return f"the data at {shown(place, 200)} is not that of the report: {_what_differs(dataset, identity)}"
    here = dataset.identity()
    there = identity.replace(name=here.name, source=here.source, packed=here.packed)
    return replace(classifier, card=replace(classifier.card, dataset=there))


def _what_differs(dataset: Dataset, identity: DataIdentity) -> str:
    """What samples are otherwise than in the data that was used, as far as a packed copy of that is in the cache."""
    try:
        before = {line.path: line for line in reopen(identity).samples()}
    except (ConvlensError, OSError):
        return f"its fingerprint is {dataset.fingerprint[:12]}, in the report {identity.fingerprint[:12]}"
    now = {line.path: line for line in dataset.samples()}
    found = {
        "missing": [path for path in before if path not in now],
        "new": [path for path in now if path not in before],
        "another picture": [p for p in now if p in before and now[p].sha256 != before[p].sha256],
        "of another class": [p for p in now if p in before and now[p].label != before[p].label],
        "in another group": [p for p in now if p in before and now[p].group != before[p].group],
        "in another split": [p for p in now if p in before and now[p].split != before[p].split],
    }
    parts = [f"{len(paths):,} {what} ({listed(paths, 3)})" for what, paths in found.items() if paths]
    return "; ".join(parts) or "classes or options of packing are others"


def _as_placed(said: dict[str, Any], again: Report) -> tuple[Report, tuple[str, ...]]:
    """What was measured as it would be called where the report was made, if its data has the same fingerprint; and what
    is called otherwise here."""
    there, here, notes, measured = said.get("dataset"), again.dataset, said.get("notes"), again.measured
    assert measured is not None, "every report of `measure` has it"
    if not isinstance(there, dict) or there.get("fingerprint") != here.fingerprint:
        return again, ()
    both = {name: (there.get(name), getattr(here, name)) for name in _PLACES}
    other = {name: old for name, (old, new) in both.items() if isinstance(old, str) and new not in (None, old)}
    card = measured.dataset.card.replace(**{name: other[name] for name in other if name != "packed"})
    measured, model = replace(measured, dataset=replace(measured.dataset, card=card)), measured.classifier
    if model.card.dataset is not None and model.card.dataset.fingerprint == here.fingerprint:
        of_model = replace(model.card, dataset=model.card.dataset.replace(**other))
        measured = replace(measured, classifier=replace(model, card=of_model))
    if isinstance(notes, list) and {*map(str, notes)} ^ {*again.notes} == {OWN_DATA}:  # the data was named, or was not
        again = replace(again, notes=tuple(map(str, notes)))
    elsewhere = tuple(
        f"{name} {shown(other[name])} in the report, here {shown(getattr(here, name))}, the same" for name in other
    )
    return replace(again, dataset=here.replace(**other), measured=measured), elsewhere


def _check_again(dataset: Dataset, data: Any, data_root: str | Path | None, bar: Progress) -> list[str]:
    """Look the data over as `check` did, so that what it finds is known; and why that could not be done."""
    options, place = dataset.card.options, dataset.source if data is None else data
    if isinstance(place, Dataset) or is_packed_folder(place):
        return ["what the check of the data found: the set is packed, and its source is what is checked"]
    try:
        options = without_gone(options, open_source(place, options.read, data_root=data_root))
        check(place, exclude=options.exclude or None, data_root=data_root, progress=bar, **options.read._asdict())
    except ConvlensError as error:
        return [f"what the check of the data found: {error}"]
    return []


def _read(path: Path) -> tuple[str | None, dict[str, Any]]:
    """The page's text (None of JSON), and the numbers in it. Raises UsageError."""
    where = shown(path, 200)
    try:
        data = files.read_regular(path, _MAX_REPORT_BYTES)
        text = None if path.suffix.lower() == ".json" else data.decode("utf-8")
        if text is not None:
            meta = _META.search(text)
            if meta is None:
                raise UsageError(f"{where} is no report of convlens (.html or .json), or of before reports had numbers")
            data = html.unescape(meta[1]).encode()
        said = json_value(data, where, _MAX_VALUES)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {where}: {getattr(error, 'strerror', None) or 'it is no text'}") from error
    except RecordError as error:
        raise UsageError(f"{where} is no report: {error}") from error
    needed = {"model": str, "split": str, "weights": dict, "n": int}
    if not isinstance(said, dict) or not all(isinstance(said.get(name), kind) for name, kind in needed.items()):
        raise UsageError(f"{where} is no report of convlens")
    if said["split"] not in (*SPLITS, FOLDS):
        raise UsageError(f"{where} is of the split {shown(said['split'])}, which there is not")
    return text, said


def _views(said: dict[str, Any]) -> str | None:
    views = said["weights"].get("views")
    return views if isinstance(views, str) else None


def _model(said: dict[str, Any], path: Path, run: Run | None) -> Path:
    """Where the model of a report is: in the run, where the report says, or beside it. Raises UsageError."""
    places = [run.model] if run is not None else [Path(said["model"]), path.parent / MODEL_FILE]
    for place in places:
        if files.is_file(place):
            return place
    raise UsageError(f"the model {shown(said['model'], 200)} is not there: say `model`")


def _ledger(said: dict[str, Any], dataset: Dataset, classifier: Classifier) -> tuple[Openings | None, list[str]]:
    """What the ledger says of the report's opening, and what it cannot say."""
    opened, ledger, where = said.get("openings"), Ledger.read(), shown(ledger_path(), 200)
    doubts = [
        f"line {n:,} of {where} does not follow the one before: lines were changed or removed" for n in ledger.broken
    ]
    head = opened.get("head") if isinstance(opened, dict) else None
    line = next((one for one, digest in ledger.lines if digest == head), None)
    if line is None:
        return None, [*doubts, f"the report's opening ({shown(head, 16)}) does not stand in {where}"]
    card = classifier.card
    plan = plan_hash(card.architecture, card.recipe, card.origin, classifier.views)
    if (line.plan, line.test_fingerprint) != (plan, dataset.test_fingerprint):
        doubts.append(f"the report's line in {where} is of another plan or another test set")
    return openings_until(line, ledger), doubts


def _compared(said: Any, own: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(name, value in the report, value measured anew) of every value, down to the single ones."""
    if isinstance(said, dict) and isinstance(own, dict):
        for name in sorted({*said, *own}):
            if where or name not in _UNCOMPARED:
                yield from _compared(said.get(name), own.get(name), f"{where}.{name}" if where else name)
    elif isinstance(said, list) and isinstance(own, list) and len(said) == len(own):
        for number, (here, there) in enumerate(zip(said, own, strict=True)):
            yield from _compared(here, there, f"{where}[{number}]")
    else:
        yield where, said, own


def _alike(here: Any, there: Any) -> bool:
    if isinstance(here, float) and isinstance(there, float):
        return math.isclose(here, there, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return type(here) is type(there) and bool(here == there)


def _page_differs(text: str, again: Report) -> list[str]:
    """What of a page is not what it would be made of now: its numbers are right, its words or pictures may not be."""
    own = again.text()
    if again.measured is not None:  # its title names the run's folder, which may be called otherwise here
        here, there = (html.escape(report_title(again.measured, path)) for path in (None, again.model))
        own = own.replace(here, there)
    if own == text:
        return []
    lines = ([line for line in one.splitlines() if not _META.search(line)] for one in (text, own))
    for number, (one, other) in enumerate(zip(*lines, strict=False), 1):
        if one != other:
            kind = "a picture" if "data:image" in other else "the text"
            plain = " ".join(re.sub(r"<[^>]*>", " ", re.sub(r"data:[^\"]*", "", one)).split())
            return [f"{kind} on line {number:,} of the page is another ({shown(plain, 80)})"]
    return ["the page ends elsewhere"]


def _record_differs(run: Run, again: Report) -> list[str]:
    """Whether the run's own record has the same score."""
    kept = {"test": run.test, "val": run.val, FOLDS: run.cross_validation}.get(again.split)
    if kept is None or again.split != "test":
        # Of others than test the record has the loss before calibration.
        same = kept is None or (kept.accuracy, kept.n) == (again.score.accuracy, again.score.n)
    else:
        score = again.score if kept.num_classes is not None else again.score.replace(num_classes=None)  # of before
        same = all(_alike(a, b) for _, a, b in _compared(kept.to_json(), score.to_json()))
    return [] if same else [f"{again.split} in {RUN_FILE} is {kept}, measured anew {again.score}"]
