"""What identifies a training, resolved from what the caller said or read back from a run.

Owns defaults, the refusal of changed values on resuming, and the first content of run.json.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convlens.architecture import Architecture, Plan, parse, plan
from convlens.data.image.framing import InputSpec
from convlens.data.packed.dataset import DEFAULT_VAL_FRAC, Dataset
from convlens.data.packed.exclusions import exclusions
from convlens.data.packed.options import PackOptions, parse_region, parse_size
from convlens.data.packed.pack import is_packed_folder, open_data, reopen
from convlens.errors import DataError, RunError, SentenceError, UsageError
from convlens.files import sha256_of
from convlens.network.compute import Compute, has_compiler, resolve
from convlens.network.memory import check_memory
from convlens.presets import DEFAULT_PRESET, Preset, preset_named, what_it_takes
from convlens.progress import Progress
from convlens.recipe import Recipe
from convlens.run import FORMAT_VERSION, RUN_FILE, Run, find_model
from convlens.text import listed, shown
from convlens.training.warm_start import Parent, check_lineage, parent_again, read_parent

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Setup:
    """What identifies a training, everything automatic resolved."""

    dataset: Dataset
    plan: Plan
    recipe: Recipe
    preset: str | None
    seed: int
    compute: Compute
    test: bool
    keep_filters: bool = False
    choices: tuple[str, ...] = ()
    parent: Parent | None = None
    folds: int | None = None

    @property
    def spec(self) -> InputSpec:
        """The network's input; a parent's weights go with the mean and std that it was trained with."""
        spec = self.dataset.input_spec
        return (
            spec
            if self.parent is None
            else spec.with_statistics(self.parent.card.input_spec.mean, self.parent.card.input_spec.std)
        )

    @property
    def identity(self) -> str:
        """SHA-256 of what the bits depend on: a checkpoint belongs to this and nothing else."""
        parts = [
            str(self.plan.architecture),
            self.recipe.to_json(),
            self.seed,
            self.dataset.fingerprint,
            self.dataset.val_frac,
            self.compute.to_json(),
        ]
        parts += [self.parent.sha256] if self.parent else []
        parts += ["merged"] if self.dataset.is_merged else []
        return sha256_of(json.dumps(parts, sort_keys=True).encode())

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.recipe.num_steps(self.dataset.counts["train"])

    def record(self) -> dict[str, Any]:
        """run.json before the first step."""
        return {
            "kind": "convlens-run",
            "format_version": FORMAT_VERSION,
            "status": "running",
            "created": now(),
            "dataset": self.dataset.identity(),
            "architecture": str(self.plan.architecture),
            "preset": self.preset,
            "recipe": self.recipe.to_json(),
            "seed": self.seed,
            "compute": self.compute.to_json(),
            "test_asked": self.test,
            "keep_filters": self.keep_filters,
            "choices": list(self.choices),
            "parent": None if self.parent is None else self.parent.to_json(),
            "folds": self.folds,
            "cross_validation": None,
            "num_parameters": self.plan.num_parameters,
            "multiply_adds": self.plan.multiply_adds,
            "num_steps": self.num_steps,
            "step": 0,
            "versions": versions(),
            "train_s": 0.0,
            "images_per_s": None,
            "val_s": 0.0,
            "checkpoint_s": 0.0,
            "val": None,
            "test": None,
        }


@dataclass(frozen=True)
class Given:
    """What the caller said; None where nothing was."""

    data: Any
    preset: str | None
    architecture: str | None
    recipe: Recipe | None
    seed: int | None
    val_frac: float | None
    device: str | None
    threads: int | None
    memory_format: str | None
    compile: bool | None
    size: int | str | tuple[int, int] | None
    channels: int | None
    framing: str | None
    group: str | None
    keep_filters: bool
    region: str | tuple[int, int, int, int] | None = None
    exclude: str | Path | Iterable[str] | None = None
    settings: Mapping[str, Any] | None = None
    augment: str | None = None
    time: str | float | None = None
    folds: int | None = None
    parent: Any = None
    num_trainings: int = 1  # that share a time: seeds, and folds with the training on all images after them

    @property
    def options(self) -> PackOptions:
        """How pictures are packed. Raises UsageError, DataError."""
        return PackOptions(
            parse_size(self.size),
            self.channels,
            self.framing,
            self.group,
            region=parse_region(self.region),
            exclude=exclusions(self.exclude),
        )


def wishes_of(given: Given) -> tuple[Preset, Architecture, Recipe, int]:
    """Preset, sentence, recipe and seed as given or by default: what can be wrong with them is found before a folder of
    pictures is packed. Raises UsageError, SentenceError, RecipeError."""
    chosen = preset_named(DEFAULT_PRESET if given.preset is None else given.preset)
    architecture = parse(chosen.architecture if given.architecture is None else str(given.architecture))
    recipe = chosen.recipe if given.recipe is None else given.recipe
    if not isinstance(recipe, Recipe):
        raise UsageError(f"recipe must be a Recipe, not {type(recipe).__name__}")
    recipe = recipe.replace(**given.settings) if given.settings else recipe
    seed = 0 if given.seed is None else given.seed
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise UsageError(f"seed must be a whole number from 0 to {MAX_SEED}, not {shown(seed)}")
    return chosen, architecture, recipe, seed


def new_setup(
    given: Given, test: bool, data_root: str | Path | None, bar: Progress, choices: tuple[str, ...] = ()
) -> Setup:
    """The setup of a new training; `choices` says what was chosen for it, and why. Raises ConvlensError for whatever
    cannot be."""
    chosen, architecture, recipe, seed = wishes_of(given)
    device = "auto" if given.device is None else given.device
    compute = resolve(device, recipe.precision, given.threads, given.memory_format, given.compile)
    val_frac = DEFAULT_VAL_FRAC if given.val_frac is None else given.val_frac
    data = "mnist" if given.data is None else given.data
    dataset = open_data(data, given.options, data_root=data_root, val_frac=val_frac, progress=bar)
    if given.folds is not None:
        dataset = dataset.merged()
    _need_every_class(dataset)
    parent = None if given.parent is None else read_parent(given.parent, bar)
    if parent is not None and (note := check_lineage(parent, dataset)) is not None:
        bar.line(f"note: {note}")
    if test and dataset.counts["test"] == 0:
        raise DataError(f"{dataset.name} has no test images: leave --test away")
    try:
        network_plan = plan(architecture, dataset.input_spec.shape, len(dataset.class_names))
    except SentenceError:
        if given.architecture is None:
            raise SentenceError(what_it_takes(chosen, dataset.input_spec.shape, len(dataset.class_names))) from None
        raise
    check_memory(network_plan, recipe, compute)
    if network_plan.num_parameters == 0:
        raise SentenceError("the network has nothing to learn: no layer of it has parameters")
    if given.keep_filters and not any(leaf.layer.name == "conv" for leaf in network_plan.leaves):
        raise UsageError("--keep-filters keeps those of the first convolution, and this network has none")
    is_preset = recipe == chosen.recipe and str(architecture) == str(parse(chosen.architecture))
    if recipe.patience and dataset.counts["val"] == 0:
        raise UsageError("patience looks at validation images, and there are none: leave it away, or --val-frac")
    return Setup(
        dataset,
        network_plan,
        recipe.replace(precision=compute.precision),
        chosen.name if is_preset else None,
        seed,
        compute,
        test,
        given.keep_filters,
        choices,
        parent,
        given.folds,
    )


def _need_every_class(dataset: Dataset) -> None:
    """Raises DataError unless each class has an image left to learn from once validation is set aside."""
    counts = np.bincount(dataset.labels("train"), minlength=len(dataset.class_names))
    empty = [name for name, count in zip(dataset.class_names, counts, strict=True) if count == 0]
    if empty:
        raise DataError(
            f"{dataset.name} has no training image of class {listed(empty)} once validation is set aside: give more "
            "pictures, another --group, or a smaller --val-frac"
        )


def setup_of(run: Run, given: Given, test: bool, data_root: str | Path | None, bar: Progress) -> Setup:
    """The setup that a run was begun with. Raises RunError where something else is asked for now."""
    record = run.record
    try:
        stored = record["compute"]
        recipe, seed = Recipe.from_json(record["recipe"]), record["seed"]
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed {seed}")
        architecture = parse(record["architecture"])
        _refuse_changes(run, given, record, recipe)
        if given.data is None:
            dataset = reopen(record["dataset"], data_root=data_root, progress=bar)
        else:
            options = PackOptions.from_json(record["dataset"]["options"])
            is_packed = isinstance(given.data, Dataset) or is_packed_folder(given.data)
            dataset = open_data(
                given.data,
                None if is_packed else options,
                data_root=data_root,
                val_frac=float(record["dataset"]["val_frac"]),
                progress=bar,
            )
            dataset = dataset.merged() if record["dataset"].get("is_merged") else dataset
        if dataset.fingerprint != record["dataset"]["fingerprint"]:
            raise RunError(
                f"{shown(run.path, 200)} was begun with other data (fingerprint "
                f"{record['dataset']['fingerprint'][:12]}, now {dataset.fingerprint[:12]})"
            )
        compute = resolve(
            str(stored["device"]),
            str(stored["precision"]),
            int(stored["threads"]),
            stored.get("memory_format"),
            stored.get("compile"),
        )
        if stored.get("compile") and not compute.compile:
            raise RunError(
                f"{shown(run.path, 200)} was begun compiled, and no compiler is here: its bits cannot be "
                "continued; begin a new run"
            )
        network_plan = plan(architecture, dataset.input_spec.shape, len(dataset.class_names))
        return Setup(
            dataset,
            network_plan,
            recipe,
            record["preset"],
            seed,
            compute,
            test or bool(record["test_asked"]),
            bool(record.get("keep_filters")),
            tuple(record.get("choices", ())),
            parent_again(record.get("parent")),
            record.get("folds"),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise RunError(f"{shown(run.path / RUN_FILE, 200)} is damaged ({shown(error)})") from error


def _refuse_changes(run: Run, given: Given, record: Mapping[str, Any], recipe: Recipe) -> None:
    changed: list[tuple[str, object, object]] = []

    def compare(name: str, now: object, then: object) -> None:
        if now is not None and now != then:
            changed.append((name, now, then))

    preset = None if given.preset is None else preset_named(given.preset)
    compare("preset", given.preset, record["preset"])
    sentence = None if given.architecture is None else str(parse(str(given.architecture)))
    compare("architecture", sentence, record["architecture"])
    wanted = given.recipe if given.recipe is not None else preset.recipe if preset and record["preset"] else None
    if given.settings:
        wanted = (recipe if wanted is None else wanted).replace(**given.settings)
    if wanted is not None:
        wanted = wanted if wanted.precision != "auto" else wanted.replace(precision=recipe.precision)
        then_json = recipe.to_json()
        for name, now in wanted.to_json().items():
            compare(name, now, then_json[name])
    compare("seed", given.seed, record["seed"])
    compare("val_frac", given.val_frac, record["dataset"]["val_frac"])
    can_compile = has_compiler(str(record["compute"]["device"]))  # a wish that fell back may be said again
    compiled = None if given.compile is None else given.compile and can_compile
    compare("compile", compiled, bool(record["compute"].get("compile")))
    compare("folds", given.folds, record.get("folds"))
    if given.parent is not None:
        parent = (record.get("parent") or {}).get("path")
        compare("from", str(find_model(given.parent).resolve()), parent)
    compare("keep_filters", given.keep_filters or None, bool(record.get("keep_filters")))
    for name in ("threads", "memory_format"):
        compare(name, getattr(given, name), record["compute"].get(name))
    device = None if given.device in (None, "auto") else resolve(str(given.device)).device
    compare("device", device, record["compute"]["device"])
    options = given.options.to_json()
    for name, then in record["dataset"]["options"].items():
        compare(name, options[name] or None, then)
    if changed:
        name, now, then = changed[0]
        raise RunError(
            f"{shown(run.path, 200)} was begun with {name} {shown(then)}, not {shown(now)}: a resumed run keeps its "
            "values; leave it away, or begin a new run"
        )


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    return {
        "convlens": version("convlens"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": sys.platform,
    }


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
