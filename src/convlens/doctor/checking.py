"""`check`: looks a data set over before anything is trained on it.

Owns what is looked for, and in which order. Every sample is decoded once, into the cache; near-duplicates are looked
for over all splits, test among them: no model sees it, so that is written down as an inspection and is no opening.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlens.data.image.decode import Pixels, decode, quiet_pillow
from convlens.data.packed.checked import keep_checked
from convlens.data.packed.contents import Contents, reasons
from convlens.data.packed.corrections import Correction
from convlens.data.packed.dataset import DEFAULT_VAL_FRAC, Dataset, in_split
from convlens.data.packed.exclusions import exclusions
from convlens.data.packed.headers import Headers, read_headers
from convlens.data.packed.options import PackOptions
from convlens.data.packed.pack import is_packed_folder, open_data, open_listed
from convlens.data.packed.splits import TEST_FRAC, mixed
from convlens.data.sources.base import SPLITS, ArraySource, ReadOptions, Source
from convlens.data.sources.listing import hidden_pictures
from convlens.data.sources.recognise import open_source
from convlens.doctor.findings import FALSIFIES, NOTE, WARNING, Finding, Findings, Sample
from convlens.doctor.named_copies import named_copies
from convlens.doctor.near_duplicates import SIDE, Compared, compared_at, same_pictures
from convlens.doctor.outliers import outliers
from convlens.doctor.shortcuts import MOST_MEASURED, file_features, look_features, shortcut
from convlens.errors import ImageError, UsageError
from convlens.evaluation.test_ledger import inspect_test
from convlens.metrics import IMBALANCED
from convlens.progress import Progress, open_progress
from convlens.text import by, counted, listed, percent, shown

_TINY_CLASS, _FEW_TEST = 20, 500
_NAMED = 60  # of pictures that a note counts
_BORNE_OUT = 0.5  # of the pairs that names show may be unseen, for names to be believed
_ORDER = {FALSIFIES: 0, WARNING: 1, NOTE: 2}
_ACROSS = (
    "the same picture on both sides of a split is learned by heart and then counted as right"  # what is wrong with it
)


def check(
    data: Any,
    *,
    group: str | None = None,
    layout: str | None = None,
    label: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    exclude: str | Path | Iterable[str] | None = None,
    data_root: str | Path | None = None,
    control: bool = False,
    labels: bool = False,
    against: Any = None,
    progress: str | Progress = "auto",
) -> Findings:
    """Look a data set over: what cannot be read, what is there twice, what would falsify a score.

    `control` trains three times, to measure what copies across splits are worth: as it is, without them, and with as
    many others left out. `labels` trains five folds, a few seconds each, and names the labels that they contradict
    (`Findings.write_labels` lists them, `review` shows them to a person). `against` is a model: `data`, which needs no
    labels, is then held against the images that it was validated on, and nothing else is looked for. All others are as
    `train` takes them. Raises DataError where it cannot be listed at all, UsageError, StorageError."""
    with open_progress(progress) as bar:
        if against is not None:
            if control or labels or exclude is not None:
                raise UsageError(
                    "`against` compares pictures with a model's: leave `control`, `labels` and `exclude` away"
                )
            from convlens.doctor.against import look_against  # torch, which nothing else here needs

            read = ReadOptions(group, layout, label, path_column, label_column)
            return look_against(data, against, read, data_root, bar)
        problems: list[Finding] = []
        source, headers = None, None
        if isinstance(data, Dataset) or is_packed_folder(data):
            options = PackOptions(exclude=exclusions(exclude))
            dataset = open_data(data, options)
        else:
            read = ReadOptions(group, layout, label, path_column, label_column)
            said: list[str] = []
            source = open_source(data, read, data_root=data_root, problems=said, progress=bar)
            if len(source.class_names) < 2:
                said.append(f"there is one class only: {shown(source.class_names[0])!r}")
            problems += [Finding("classes", FALSIFIES, line, _CLASSES) for line in said]
            if source.shape is None:  # files
                headers = read_headers(source, bar, by_name=True)
            largest = max(max(size) for size in headers.sizes) if headers else max(source.shape or (SIDE,))
            side = compared_at(largest)
            options = PackOptions(
                (side, side), 3, "stretch", all_test=True, exclude=exclusions(exclude), **read._asdict()
            )
            dataset = open_listed(source, options, val_frac=DEFAULT_VAL_FRAC, progress=bar)
        looked = _Check(dataset, source, headers, problems, bar)
        findings = looked.findings()
        if source is not None:
            lines = [(one.severity, one.title) for one in findings.findings]
            keep_checked(dataset, lines, findings.verdict)
        said_options = PackOptions(exclude=options.exclude, **options.read._asdict())
        if labels:
            from convlens.doctor.labels import suspects  # torch, which nothing else here needs

            found, accuracy = suspects(data, said_options, data_root, headers, bar)
            findings = looked.with_suspects(findings, found, accuracy)
        if not control:
            return findings
        if source is None:
            raise UsageError("`control` trains on a source: name the folder, not the packed set")
        from convlens.doctor.control import measure_control  # torch, which nothing else here needs

        copies = [name for name, _ in findings.exclusions if name not in dataset.card.options.exclude]
        scores = measure_control(data, findings.samples, copies, said_options, data_root, bar)
        return replace(findings, control=scores)


_CLASSES = "give every split the same class folders, each with pictures: a class that is missing shifts no label here, "
_CLASSES += "but cannot be learned or cannot be measured"


Sets = Iterable[Sequence[Sample]]


@dataclass(frozen=True)
class _Duplicate:
    """Two samples, by row, that show the same picture; `is_exact` where every pixel is the same."""

    a: int
    b: int
    is_exact: bool
    how: str


class _Check:
    """One data set being looked over."""

    def __init__(
        self,
        dataset: Dataset,
        source: Source | None,
        headers: Headers | None,
        problems: list[Finding],
        bar: Progress,
    ) -> None:
        self.source, self.headers, self.bar, self.found = source, headers, bar, problems
        self.are_small = False
        opened = inspect_test(dataset, "check")
        self.dataset = opened.merged()
        self.rows = self.dataset.rows("train")
        self.labels = self.dataset.labels("train")
        self.splits = _splits_of(opened, source)
        self.lines = dataset.samples()
        names = dataset.sample_names()
        # Of files, how each is read; arrays are packed as they are.
        self.readers = {s.name: s.read for s in source.samples()} if source is not None and source.shape is None else {}
        self.samples = [
            Sample(name, dataset.class_names[label], split, row)
            for row, (name, label, split) in enumerate(zip(names, self.labels.tolist(), self.splits, strict=True))
        ]

    def findings(self) -> Findings:
        contents = self.contents()
        facts = self.facts(contents)
        self.look_at_files()
        self.look_at_classes()
        self.look_for_shortcuts()
        self.look_for_outliers()
        pairs = self.near_duplicates()
        self.judge(pairs)
        straddling = self.straddling_groups()
        clusters = self.clusters(pairs)
        grouped = {line.path: line.group for line in self.lines if line.group is not None}
        if any(None in (of := {grouped.get(s.name) for s in cluster}) or len(of) > 1 for cluster in clusters):
            several = sum(len(c) for c in clusters)
            remedy = "`group` can say which belong together, where the pictures lie as files in a folder"
            if self.source is not None and self.source.folder is not None:
                drawn = ", that never straddle a split: its splits are drawn anew"
                kept = "; it keeps the data's split: delete its column `split` for one that no group straddles"
                remedy = (
                    "`write_groups=FILE.csv` makes a table that train takes in the folder's place and in which they "
                    f"are groups{kept if self.has_own_splits else drawn}"
                )
            self.add(
                "groups", NOTE, f"{several:,} samples show {len(clusters):,} pictures more than once", remedy, clusters
            )
        before = dict.fromkeys(self.dataset.card.options.exclude, "left out when this was checked")
        exclude = sorted({**before, **straddling, **dict(self.exclusions(pairs))}.items())
        self.found.sort(key=lambda finding: _ORDER[finding.severity])
        location = self.dataset.source
        return Findings(
            self.dataset.name,
            location,
            tuple(facts),
            tuple(self.found),
            tuple(clusters),
            tuple(exclude),
            tuple(self.samples),
            self.has_own_splits,
            self.source.folder if self.source is not None else _folder_of(self.dataset),
            self.views(),
            {} if self.source is None else self.source.unused,
            contents=contents,
            are_small=self.are_small,
            groups=self.groups(pairs),
        )

    def with_suspects(self, findings: Findings, found: Sequence[Correction], accuracy: float) -> Findings:
        """With the labels in doubt as a finding, of which the pictures can be shown."""
        by_name = {sample.name: sample for sample in self.samples}
        listed = [one for one in found if one.is_suspect and one.path in by_name]
        about = f"networks that did not learn from them, right for {percent(accuracy, 1)}"
        title = f"{counted(len(listed), 'label')} to look at again: contradicted by {about}"
        remedy = "`write_labels=FILE.csv` lists them, and `convlens review FILE.csv DATA` shows them to you one by one"
        details = [f"labelled {shown(one.label, 40)}, perhaps {shown(one.suggested, 40)}" for one in listed]
        finding = Finding(
            "labels", WARNING, title, remedy, tuple((by_name[one.path],) for one in listed), tuple(details)
        )
        self.found = [*findings.findings, *([finding] if listed else [])]
        self.found.sort(key=lambda one: _ORDER[one.severity])
        return replace(findings, findings=tuple(self.found), views=self.views(), suspects=tuple(found))

    def add(
        self, kind: str, severity: str, title: str, remedy: str, sets: Sets = (), details: Iterable[str] = ()
    ) -> None:
        self.found.append(Finding(kind, severity, title, remedy, tuple(map(tuple, sets)), tuple(details)))

    @property
    def has_own_splits(self) -> bool:
        """Whether the splits came with the data."""
        return self.dataset.card.split_by == "source"

    def straddling_groups(self) -> dict[str, str]:
        """Groups on both sides of a split that came with the data, as a finding; and what to leave out, with why."""
        group_of = {line.path: line.group for line in self.lines if line.group is not None}
        if not self.has_own_splits or not group_of:
            return {}
        members: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
        for sample in self.samples:
            if sample.name in group_of:
                members[group_of[sample.name]][sample.split].append(sample)
        excluded: dict[str, str] = {}
        for one, other in (("train", "test"), ("val", "test"), ("train", "val")):
            across = {name: parts for name, parts in members.items() if parts.get(one) and parts.get(other)}
            if not across:
                continue
            title = f"{counted(len(across), 'group')} on both sides of {one} and {other}"
            remedy = (
                "what was learned from and what is measured belong together: put each group on one side, or "
                f"`write_exclusions=FILE` lists what to leave out of {one}, for `exclude`"
            )
            sets = [(parts[one][0], parts[other][0]) for parts in across.values()]
            self.add("groups-across", FALSIFIES, title, remedy, sets, [f"group {shown(n, 60)}" for n in across])
            for name, parts in across.items():
                for sample in parts[one]:
                    excluded.setdefault(sample.name, f"of the group {shown(name, 60)}, which is in {other} too")
        return excluded

    # ------------------------------------------------------------ sizes and files

    def facts(self, contents: Contents) -> list[tuple[str, str]]:
        facts = contents.rows()
        if self.headers is None:
            shape = self.source.shape if self.source is not None else None
            return facts if shape is None else [*facts, ("sizes", f"{by(shape)}, height × width × channels")]
        found = self.headers
        sizes = sorted(found.sizes, key=lambda size: size[0] * size[1])
        ratios = sorted(w / h for h, w in found.sizes.elements())
        few, many = sizes[0], sizes[-1]
        span = "" if few == many else f" to {many[1]:,}×{many[0]:,} ({len(sizes):,} sizes)"
        ratio = f"{ratios[0]:.2f} to {ratios[-1]:.2f}, median {ratios[len(ratios) // 2]:.2f}"
        kinds = ", ".join(f"{n:,} {'grey' if c == 1 else 'colour'}" for c, n in sorted(found.channels.items()))
        if len(found.channels) > 1 and min(found.channels.values()) >= 0.01 * sum(found.channels.values()):
            why = "if the classes differ in it, a network learns that and nothing else: `channels=1` makes all grey"
            self.add("channels", WARNING, f"grey and colour pictures are mixed ({kinds})", why)
        if ratios[-1] / ratios[0] > 4:
            title = f"the pictures' shapes differ much (width / height {ratio})"
            remedy = "framing pad keeps all of each picture; `region` cuts the same part of each"
            self.add("aspect", NOTE, title, remedy)
        span = f"{few[1]:,}×{few[0]:,}{span}, width × height"
        return [*facts, ("sizes", span), ("width / height", ratio), ("channels", kinds)]

    def contents(self) -> Contents:
        """What train would be given, as it is counted here."""
        counts = Counter((sample.label, sample.split) for sample in self.samples)
        classes = {name: {s: counts[name, s] for s in SPLITS} for name in self.dataset.class_names}
        made_by = "the data" if self.has_own_splits else "train, like this"
        if self.has_own_splits and self.source is not None and "val" not in self.source.counts:
            made_by += ", val by train"
        packed, source = self.dataset, self.source
        return Contents(
            classes,
            made_by,
            packed.input_spec.value_range,
            reasons(packed),
            packed.card.num_excluded,
            packed.notes if source is None else packed.reading_notes or (),
            None if source is None else source.unused,
        )

    def look_at_files(self) -> None:
        unread = [line for line in self.lines if line.status == "quarantined"]
        if unread:
            samples = [(Sample(line.path, line.label or "", line.split or ""),) for line in unread]
            title = f"{counted(len(unread), 'file')} that cannot be read, in no split"
            remedy = "repair or remove them; until then they are counted beside every score"
            self.add("unreadable", WARNING, title, remedy, samples, [line.reason or "" for line in unread])
        if several := sum(line.remark is not None for line in self.lines):
            title = f"{counted(several, 'picture')} with several frames or pages; the first is used"
            self.add("frames", NOTE, title, "save the one that you mean as a picture of its own")
        if self.source is None:
            return
        tree = self.source.tree
        hidden = hidden_pictures(tree) if tree is not None and tree.resolved() == self.source.location else {}
        if hidden:
            title = (
                f"{counted(sum(hidden.values()), 'picture')} in hidden folders, which are not read: {listed(hidden)}"
            )
            self.add("hidden", NOTE, title, "rename the folders if these pictures are meant")
        for note in self.dataset.reading_notes or ():
            self.add("note", NOTE, note, "nothing needs to be done if that is meant")

    def look_at_classes(self) -> None:
        names, num_classes = self.dataset.class_names, len(self.dataset.class_names)
        of = {split: np.array([s == split for s in self.splits], bool) for split in SPLITS}
        parts = {split: np.bincount(self.labels[of[split]], minlength=num_classes) for split in SPLITS}
        train, test = parts["train"] + parts["val"], parts["test"]
        total = train + test
        lost = [names[k] for k in np.flatnonzero(train == 0)]
        if lost and not any(finding.kind == "classes" for finding in self.found):
            left_out = Counter(line.label for line in self.lines if line.status == "excluded")
            why = f": {left_out[lost[0]]:,} of {shown(lost[0])} are left out by `exclude`" if left_out[lost[0]] else ""
            self.add("classes", FALSIFIES, f"no training image of class {listed(lost)} is left{why}", _CLASSES)
        if test.any() and (lost := [names[k] for k in np.flatnonzero((test == 0) & (train > 0))]):
            remedy = "its errors stay unseen: give more pictures, or measure with `folds`"
            self.add("untested", WARNING, f"class {listed(lost)} has no test image", remedy)
        tiny = [f"{shown(names[k], 30)} ({total[k]:,})" for k in np.flatnonzero((total < _TINY_CLASS) & (total > 0))]
        if tiny:
            more = f" and {len(tiny) - 8:,} more" if len(tiny) > 8 else ""
            title = f"classes with fewer than {_TINY_CLASS} images: {', '.join(tiny[:8])}{more}"
            remedy = "their scores rest on a handful of pictures: collect more, or join classes"
            self.add("tiny", WARNING, title, remedy)
        most, fewest = int(train.argmax()), int(np.where(train > 0, train, train.max() + 1).argmin())
        if train[most] >= IMBALANCED * max(1, train[fewest]) and fewest != most:
            title = f"{shown(names[most], 30)} has {train[most]:,} training images, {shown(names[fewest], 30)} "
            share = percent(total[most] / total.sum(), 0)
            title += f"{train[fewest]:,}: always answering the largest class is right for {share}"
            remedy = (
                "look at balanced accuracy, which comes first in what train and evaluate print; `balance=weights` "
                "raised it wherever that was measured"
            )
            self.add("imbalance", WARNING, title, remedy)
        if 0 < test.sum() < _FEW_TEST:
            title = f"only {counted(int(test.sum()), 'test image')}"
            self.add("few", NOTE, title, "train with `folds=5` measures on all images instead")

    def look_for_shortcuts(self) -> None:
        """Whether the class can be told without looking at what the pictures show."""
        if len(self.dataset.class_names) < 2:
            return
        rows = np.random.default_rng(0).permutation(len(self.samples))[:MOST_MEASURED]
        labels = self.labels[rows]
        known = [("brightness and borders", look_features(self.dataset.images_at(rows)[:]))]
        if self.readers and self.source is not None and self.source.tree is not None:
            contents = (bytes(self.readers[self.samples[row].name]()) for row in rows.tolist())
            known.append(("the files themselves", file_features(contents)))
        for what, features in known:
            found = shortcut(features, labels)
            if found is not None and found.is_one:
                title = (
                    f"the class can be told from {what} ({', '.join(found.features)}) for "
                    f"{percent(found.accuracy, 1)} of {found.n:,} samples, without looking at what they show; always "
                    f"answering the largest class is right for {percent(found.majority, 1)}"
                )
                remedy = (
                    "a network may learn that and nothing else, and be worth nothing on other pictures: take those of "
                    "all classes in one way, or look at what it looks at (convlens look)"
                )
                self.add("shortcut", WARNING, title, remedy)

    def look_for_outliers(self) -> None:
        """Pictures unlike all others, whatever their class."""
        found = outliers(self.dataset.images_at(self.rows))
        if found:
            title = f"{counted(len(found), 'picture')} unlike all others: noise, black, of another kind, or only rare"
            remedy = "look whether they belong to the data; a list of their names leaves them out (`exclude`)"
            details = [f"{one.distance:.1f} × as far from its like as usual: {one.reason}" for one in found]
            self.add("outliers", NOTE, title, remedy, [(self.samples[one.row],) for one in found], details)

    # ------------------------------------------------------------ duplicates

    def near_duplicates(self) -> list[_Duplicate]:
        """All pairs that show the same picture: those of equal pixels (each with the first of its kind), and others."""
        keys = self.dataset.pixel_keys("train")
        found: dict[tuple[int, int], _Duplicate] = {}
        first: dict[int, int] = {}
        order = np.argsort(keys, kind="stable")
        repeated = order[np.isin(keys[order], keys[order][1:][keys[order][1:] == keys[order][:-1]])]
        for row in repeated.tolist():
            other = first.setdefault(int(keys[row]), row)
            if other != row:
                is_exact = self.are_same_pixels(other, row)
                found[other, row] = _Duplicate(
                    other, row, is_exact, "every pixel is the same" if is_exact else "the same when seen small"
                )
        # Of pictures with equal pixels one is compared with the rest.
        kept = np.setdiff1d(np.arange(len(keys)), np.array([row for _, row in found], np.int64))
        images = self.dataset.images_at(kept)
        images.check()
        spec, known = self.dataset.input_spec, self.headers.aspects if self.headers is not None else {}
        aspects = [known.get(self.samples[row].name, spec.width / spec.height) for row in kept.tolist()]
        pictures = Compared.of(iter(images), aspects, compared_at(max(spec.height, spec.width)))
        self.are_small = pictures.is_small
        for pair in same_pictures(pictures, self.bar):
            a, b = int(kept[pair.a]), int(kept[pair.b])
            is_exact = pair.is_in_place and self.are_same_pixels(a, b)
            found[a, b] = _Duplicate(a, b, is_exact, "every pixel is the same" if is_exact else pair.how)
        if plain := int(pictures.are_plain.sum()):
            title = f"{counted(plain, 'picture')} so plain that of copies only exact ones are seen"
            rows = kept[pictures.are_plain].tolist()
            self.add(
                "plain", NOTE, title, "look whether they show anything", [(self.samples[row],) for row in rows[:_NAMED]]
            )
        if outlines := kept[pictures.are_outlines & ~pictures.are_plain].tolist():
            title = (
                f"{counted(len(outlines), 'picture')} with little but an outline on black or white, where any two of a "
                "kind look like turned or cut copies: only equal ones are seen, as they are, mirrored or turned by "
                "quarters"
            )
            remedy = "if altered copies were made, say with `group` which belong together"
            self.add("outlines", NOTE, title, remedy, [(self.samples[row],) for row in outlines[:_NAMED]])
        return [*found.values(), *self.named(list(found.values()))]

    def named(self, pairs: list[_Duplicate]) -> list[_Duplicate]:
        """Pairs that only their names show, where pixels bear out what most of such names say."""
        if not self.readers:
            return []
        same = self.roots(pairs)
        named = named_copies([s.name for s in self.samples], [s.label for s in self.samples])
        unseen = [(a, b) for a, b in named if same[a] != same[b]]
        if len(unseen) <= _BORNE_OUT * len(named):
            return [_Duplicate(a, b, False, "an altered copy, as it is named") for a, b in unseen]
        title = f"{counted(len(unseen), 'file')} named like an altered copy of another, without looking like one"
        remedy = "if they are copies, say which belong together with `group`; a copy on both sides of a split falsifies"
        self.add("named", WARNING, title, remedy, [(self.samples[a], self.samples[b]) for a, b in unseen])
        return []

    def are_same_pixels(self, a: int, b: int) -> bool:
        """Whether two samples agree in every pixel, as they are in their files."""
        if not self.readers:
            return bool((self.values(a) == self.values(b)).all())
        try:
            first, second = (bytes(self.readers[self.samples[row].name]()) for row in (a, b))
            if first == second:
                return True
            with quiet_pillow():
                one, two = decode(first), decode(second)
        except (ImageError, KeyError):
            return False
        return one.shape[:2] == two.shape[:2] and bool((one == two).all())

    def values(self, row: int) -> NDArray[Any]:
        """An array's own values (H, W, C), which are not those that it is compared by; of a packed set its pixels."""
        if not isinstance(self.source, ArraySource):
            return self.dataset.images_at(np.array([row]))[0]
        split, number = self.samples[row].name.rsplit("/", 1)
        values: NDArray[Any] = self.source.splits[None if split == "all" else split].images_NHWC[int(number)]
        return values

    def judge(self, pairs: list[_Duplicate]) -> None:
        """What the pairs mean: across splits, under two labels, or merely there twice."""
        for is_exact, kind, what in ((True, "exact", "exact duplicates"), (False, "near", "near-duplicates")):
            found = [one for one in pairs if one.is_exact == is_exact]
            apart = [one for one in found if self.samples[one.a].split != self.samples[one.b].split]
            for (s, t), across in self.by_splits(apart).items():
                title = f"{counted(len(across), 'pair')} of {what} across {s} and {t}"
                remedy = f"{_ACROSS}: `write_exclusions=FILE` lists those to leave out of {s}, for `exclude`"
                self.add_pairs(f"{kind}-across", FALSIFIES, title, remedy, across)
            conflicts = [one for one in found if self.samples[one.a].label != self.samples[one.b].label]
            if conflicts:
                title = f"{counted(len(conflicts), 'pair')} of {what} under two labels"
                remedy = "look whether both labels are right"
                if is_exact:
                    remedy = "one of the two labels is wrong: correct it, or leave both out with `write_exclusions`"
                self.add_pairs(f"{kind}-conflict", FALSIFIES if is_exact else WARNING, title, remedy, conflicts)
            within = [one for one in found if self.samples[one.a].split == self.samples[one.b].split]
            if within:
                title = f"{counted(len(within), 'pair')} of {what} within one split"
                remedy = "they count twice: keep one of each, or let them be where that is meant"
                self.add_pairs(f"{kind}-within", WARNING if is_exact else NOTE, title, remedy, within)

    def by_splits(self, pairs: list[_Duplicate]) -> dict[tuple[str, str], list[_Duplicate]]:
        found: dict[tuple[str, str], list[_Duplicate]] = defaultdict(list)
        for one in pairs:
            s, t = sorted((self.samples[one.a].split, self.samples[one.b].split), key=SPLITS.index)
            found[s, t].append(one)
        return dict(sorted(found.items(), key=lambda item: (-SPLITS.index(item[0][1]), SPLITS.index(item[0][0]))))

    def add_pairs(self, kind: str, severity: str, title: str, remedy: str, pairs: list[_Duplicate]) -> None:
        sets = [(self.samples[one.a], self.samples[one.b]) for one in pairs]
        self.add(kind, severity, title, remedy, sets, [one.how for one in pairs])

    def roots(self, pairs: list[_Duplicate]) -> list[int]:
        """The lowest row of those that are the same as each, over chains of pairs."""
        lowest = list(range(len(self.samples)))

        def root(row: int) -> int:
            while lowest[row] != row:
                lowest[row] = lowest[lowest[row]]
                row = lowest[row]
            return row

        for one in pairs:
            a, b = root(one.a), root(one.b)
            lowest[max(a, b)] = min(a, b)
        return [root(row) for row in range(len(lowest))]

    def groups(self, pairs: list[_Duplicate]) -> dict[str, str]:
        """By name the group of each sample that is in one: those of a picture, those that the data says are one, and
        over chains of both; a group that the data names keeps its name."""
        said: dict[str, str] = {line.path: line.group for line in self.lines if line.group is not None}
        first: dict[str, int] = {}
        together = list(pairs)
        for row, sample in enumerate(self.samples):
            if sample.name in said:
                a = first.setdefault(said[sample.name], row)
                together += [_Duplicate(a, row, False, "")] if a != row else []
        roots = self.roots(together)
        sizes, names = Counter(roots), dict[int, str]()
        for row, root in enumerate(roots):
            if group := said.get(self.samples[row].name):
                names.setdefault(root, group)
        free = (name for number in count(1) if (name := f"same-{number}") not in set(said.values()))
        names |= {root: next(free) for root in sorted(sizes) if sizes[root] > 1 and root not in names}
        of = {self.samples[row].name: names[root] for row, root in enumerate(roots) if root in names}
        return {line.path: line.group for line in self.lines if line.group is not None} | of

    def clusters(self, pairs: list[_Duplicate]) -> list[tuple[Sample, ...]]:
        """The samples that show one picture, over chains of pairs."""
        root = self.roots(pairs)
        members: dict[int, list[Sample]] = defaultdict(list)
        for row in sorted({row for one in pairs for row in (one.a, one.b)}):
            members[root[row]].append(self.samples[row])
        return [tuple(samples) for samples in members.values()]

    def exclusions(self, pairs: list[_Duplicate]) -> list[tuple[str, str]]:
        """What must go for a score to mean something: of duplicates across splits those that are learned from or chosen
        by, for test stays what it is; of equal pixels under two labels both."""
        reasons: dict[str, str] = {}
        for cluster in self.clusters(pairs):
            last = max((s.split for s in cluster), key=SPLITS.index)
            kept = next(s for s in cluster if s.split == last)
            for s in cluster:
                if s.split != last:
                    reasons.setdefault(s.name, f"shows the same as {shown(kept.name, 200)} in {last}")
        for one in pairs:
            a, b = self.samples[one.a], self.samples[one.b]
            if one.is_exact and a.label != b.label:
                for s, other in ((a, b), (b, a)):
                    reasons[s.name] = (
                        f"has the pixels of {shown(other.name, 200)}, which is called {shown(other.label)}"
                    )
        return sorted(reasons.items())

    def views(self) -> dict[int, Callable[[], bytes | Pixels]]:
        """What can be drawn of each sample in a finding: how its file, or its pixels, are read."""
        rows = {s.picture for f in self.found for one in f.sets for s in one if s.picture is not None}
        images = self.dataset.images_at(self.rows)
        return {row: self.readers.get(self.samples[row].name, partial(images.__getitem__, row)) for row in rows}


def _splits_of(dataset: Dataset, source: Source | None) -> list[str]:
    """The split of each sample: the data's own, or the one that `train` would make."""
    if source is None or dataset.card.split_by == "source":
        found = {row: split for split in SPLITS for row in dataset.rows(split).tolist()}
        return [found.get(row, "val") for row in range(len(dataset))]  # val holds back what is in train
    rows = np.arange(len(dataset))
    split_keys, labels = dataset.split_keys(rows), dataset.labels_at(rows)
    is_test = in_split(mixed(split_keys), labels, TEST_FRAC)
    is_val = np.zeros(len(rows), bool)
    is_val[~is_test] = in_split(split_keys[~is_test], labels[~is_test], DEFAULT_VAL_FRAC)
    return ["test" if test else "val" if val else "train" for test, val in zip(is_test, is_val, strict=True)]


def _folder_of(dataset: Dataset) -> Path | None:
    """The folder that a packed set's names are relative to; None for arrays and archives."""
    location = Path(dataset.source)
    if dataset.card.arrays is not None or location.suffix.lower() == ".zip":
        return None
    return location.parent if location.suffix.lower() in (".csv", ".tsv") else location
