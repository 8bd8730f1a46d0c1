"""One run being trained, between its lock and its model file: restore, fit, validate, checkpoint, save.

Owns what a run folder holds at each moment. The training itself is `fit.py`'s; who asks for what is `experiment.py`'s.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from convlens import files
from convlens.data.packed.image_rows import ImageRows
from convlens.errors import DivergedError, RunError
from convlens.metrics import best_temperature, score
from convlens.modelfile import Metrics, ModelCard, TrainingFacts, write_model
from convlens.network.build import arrays_of, tensors_of
from convlens.network.compute import versions
from convlens.progress import Progress
from convlens.run import CHECKPOINTS, FILTERS, LOG_FILE, MODEL_FILE, Run, now, update_record
from convlens.text import percent, shown
from convlens.training import checkpoint
from convlens.training.fit import Fit, fit
from convlens.training.plan import TrainingPlan
from convlens.training.warm_start import measured_validation, seen_in

Stop = Callable[[], bool]
_CURVE_POINTS, _FILM_FRAMES = 100, 60
_LEAST_POINTS = 5
_VALIDATING = 0.05  # share of a training that goes into validating, about
FASTER = {"bfloat16": 1.0, "float32": 3.0}  # times as many images a second are measured as are learned from, about
MOST_HELD_OUT, MOST_LEARNED = 10_000, 4_000  # images of validation and training, that a finished model is calibrated by
_SOON, _LATE = 0.1, 1.25  # share of the steps after which, and times the expected seconds at which, lateness is said


@dataclass(frozen=True)
class Watch:
    """How a run is watched: what shows its progress, seconds between checkpoints (0: after every step), and what is
    asked after each step whether to end."""

    bar: Progress
    checkpoint_every_s: float
    stop: Stop | None = None

    def is_stopped(self) -> bool:
        """Whether an end is asked for."""
        return self.stop is not None and self.stop()


def train_run(plan: TrainingPlan, run: Run, watch: Watch, *, ended: bool) -> Run:
    """Train a run to its end, from its newest checkpoint where it has one; `ended` asks for an end before the first
    step.

    Whatever happens, what is on disk can be loaded or resumed. A run that came to its end has the status `running`
    still: the caller completes it. Raises DivergedError, TrainingError, RunError, StorageError.
    """
    with fit(plan, bar=watch.bar) as fitting:
        _Trainer(plan, run, watch, fitting).run_to_end(ended=ended)
    return Run(run.path)


class _Trainer:
    """A run and its training."""

    def __init__(self, plan: TrainingPlan, run: Run, watch: Watch, fitting: Fit) -> None:
        self.plan, self.run, self.watch, self.bar = plan, run, watch, watch.bar
        self.fitting, self.state = fitting, fitting.state
        parent = plan.parent
        spec, before = (plan.spec, None) if parent is None else (parent.card.input_spec, parent.seen)
        self.measured, self.may_count_seen = measured_validation(
            plan.dataset, spec, before, is_grown=parent is not None
        )
        self.val_images: ImageRows | None = None  # held to their keys once
        self.is_late = False

    def run_to_end(self, *, ended: bool) -> None:
        self.restore()
        interrupted = False
        try:
            interrupted = self.train(ended=ended)
            self.checkpoint()
        except KeyboardInterrupt:
            # Python may have been stopped in the middle of a step: these weights can be used, not resumed
            # from. Resuming goes back to the last checkpoint and comes to the same bits.
            interrupted = True
        except DivergedError as error:
            update_record(self.run.path, status="diverged", step=error.step, ended=now())
            last, _ = checkpoint.newest(self.run.path / CHECKPOINTS)
            kept = (
                f"the last good checkpoint is that of step {last.card.state.step}"
                if last
                else "there was no checkpoint yet"
            )
            raise DivergedError(f"{error}; {kept}; run {shown(self.run.path, 200)}", step=error.step) from None
        finally:
            self.bar.stop()
        self.save(is_whole=not interrupted)
        if interrupted:
            self.bar.line(
                f"stopped after step {self.state.step:,} of {self.plan.num_steps:,}; "
                f"to go on: train(resume={str(self.run.path)!r}), or convlens train --resume {self.run.path}"
            )

    # ------------------------------------------------------------ training

    def restore(self) -> None:
        """Put the newest checkpoint's state in the place of the fresh one, and cut the log back to it."""
        place, where = self.run.path / CHECKPOINTS, shown(self.run.path, 200)
        last, damaged = checkpoint.newest(place)
        for line in damaged:
            self.bar.line(f"note: a newer checkpoint is passed over: {line}" if last else f"note: {line}")
        if last is None and damaged:
            self.bar.line("no checkpoint of this run is whole: training begins anew, to the same bits")
        if last is not None and last.card.identity != self.plan.identity:
            raise RunError(
                f"{where}: its checkpoints are of another plan, seed or data than run.json says; one was changed"
            )
        if last is not None:
            self.state.restore(last.arrays, last.card.state)
            self.bar.line(f"resuming at step {self.state.step:,} of {self.plan.num_steps:,}")
        if (then := self.run.record.versions) != (here := versions()):
            changed = ", ".join(f"{k} {then.get(k)} then, {here[k]} now" for k in here if then.get(k) != here[k])
            self.bar.line(f"note: {changed}: the bits may differ from those of a run that was never stopped")
        files.remove_leftovers(self.run.path)
        files.remove_leftovers(place)
        # Lines of steps that will be done again.
        files.truncate(self.run.path / LOG_FILE, 0 if last is None else last.card.log_bytes)
        update_record(self.run.path, status="running", test=None)  # a score of weights that will be others

    def train(self, *, ended: bool) -> bool:
        """Train to the end; True if it was ended before."""
        plan, state, bar, batches = self.plan, self.state, self.bar, self.fitting.batches
        bar.start("training", plan.num_steps, unit="steps")
        bar.advance(state.step)
        last_checkpoint = shown_at = time.monotonic()
        if ended:
            return True
        if self.is_out_of_patience():
            return False
        if state.step == 0:
            self.keep_filters()
            if plan.recipe.head != "kept" and state.val is None:
                self.begin()
        for losses in self.fitting.steps():
            state.epoch_losses += losses.values
            time_now = time.monotonic()
            if time_now - shown_at >= 0.2:
                shown_at = time_now
                rate = state.step * plan.recipe.batch_size / max(state.train_s, 1e-9)
                bar.advance(0, note=f"loss {losses.values[-1]:.4f}  {rate:,.0f} images/s")
                self.say_if_late()
            bar.advance(len(losses.values))
            before = state.step - len(losses.values)
            self.log_steps(before, losses.values)
            if frames_between(before, state.step, plan.num_steps):
                self.keep_filters()
            if batches.epochs_done(state.step) > batches.epochs_done(before) or state.step == plan.num_steps:
                self.end_epoch()
                if self.is_out_of_patience() and state.step < plan.num_steps:
                    bar.line(f"no lower validation loss for {state.epochs_waited} epochs: stopped early")
                    return False
            if self.watch.is_stopped() and state.step < plan.num_steps:
                return True
            if time_now - last_checkpoint >= self.watch.checkpoint_every_s and state.step < plan.num_steps:
                self.checkpoint()
                last_checkpoint = time.monotonic()
        return False

    def say_if_late(self) -> None:
        """Say once that the machine is slower than it was measured to be. It changes nothing of the training."""
        expected_s, done = self.plan.expected_s, self.state.step / max(1, self.plan.num_steps)
        if self.is_late or expected_s is None or done < _SOON or self.state.train_s < _LATE * expected_s * done:
            return
        self.is_late = True
        self.bar.line(
            f"note: the machine is busy, or slower than it was: the training will take about "
            f"{self.state.train_s / done:.0f} s instead of {max(1.0, expected_s):.0f} s; what it gives stays the same"
        )

    def log_steps(self, before: int, losses: tuple[float, ...]) -> None:
        """A line for about each hundredth of the training: what a curve is drawn from while it goes on."""
        every = max(1, self.plan.num_steps // _CURVE_POINTS)
        for step, loss in enumerate(losses, before + 1):
            if step % every == 0:
                files.append_line(self.run.path / LOG_FILE, {"step": step, "loss": loss})

    def keep_filters(self) -> None:
        """The first convolution's filters as they are now, if they are to be kept."""
        if not self.plan.keep_filters:
            return
        first = next(leaf for leaf in self.plan.network.leaves if leaf.layer.name == "conv")
        kernels = arrays_of({"": tensors_of(self.state.network)[f"{first.address}.weight"]})[""]
        path = self.run.path / FILTERS / f"step-{self.state.step:09d}.npy"
        files.write_with(path, lambda file: np.save(file, kernels))

    def begin(self) -> None:
        """Validate a network that is something before its first step: with patience, steps must then better it."""
        self.validate()
        self.state.note_best()
        if (val := self.state.val) is not None:
            calibrated = "" if self.state.val_loss is None else f" ({self.state.val_loss:.4f} calibrated)"
            self.bar.line(f"head fitted: val {percent(val.accuracy)}  val loss {val.loss:.4f}{calibrated}")

    def end_epoch(self) -> None:
        """Validate, and write the epoch down."""
        plan, state = self.plan, self.state
        epoch = plan.epochs_after(state.step)
        loss = sum(state.epoch_losses) / len(state.epoch_losses)
        state.epoch_losses.clear()
        if self.is_validated(epoch):
            self.validate()
            state.note_best()
        line = (
            {"step": state.step, "epoch": round(epoch, 4)}
            | {"lr": plan.recipe.lr_at(state.step - 1, plan.num_steps), "loss": loss}
            | {
                "val": state.val.to_json() if state.val and self.is_validated(epoch) else None,
                "calibrated_val_loss": state.val_loss if self.is_validated(epoch) else None,
                "train_s": round(state.train_s, 3),
            }
        )
        files.append_line(self.run.path / LOG_FILE, line, durable=True)
        # Validation's is of labels as they are.
        name = "loss of smoothed labels" if plan.recipe.label_smoothing else "loss"
        is_new = state.val is not None and self.is_validated(epoch)
        val = f"  val {percent(state.val.accuracy):>8}  val loss {state.val.loss:.4f}" if is_new and state.val else ""
        val += f" ({state.val_loss:.4f} calibrated)" if state.val_loss is not None else ""
        self.bar.line(f"epoch {epoch:5.2f} of {plan.recipe.epochs:g}  {name} {loss:.4f}{val}  {state.train_s:.1f} s")

    def is_validated(self, epoch: float) -> bool:
        """Whether an epoch ends with a validation: the last, each one where patience looks at them, else so many that
        they take a twentieth of the time, but five times at least, where there are as many."""
        counts, recipe = self.plan.dataset.counts, self.plan.recipe
        if recipe.patience or self.state.step == self.plan.num_steps:
            return True
        num_seen = recipe.num_views * counts["val"]
        every = math.ceil(num_seen / (_VALIDATING * FASTER[self.plan.compute.precision] * counts["train"]))
        every = min(every, math.ceil(recipe.epochs / _LEAST_POINTS))  # of which a curve can be seen
        return math.floor(epoch) % max(1, every) == 0

    def validate(self) -> None:
        """Score the weights on validation, where there is any."""
        dataset = self.plan.dataset
        if not self.measured.any():
            return
        started = time.perf_counter()
        if self.val_images is None:
            self.val_images = self.fitting.measured(dataset.rows("val")[self.measured])
        logits = self.fitting.logits(self.val_images)
        if not np.isfinite(logits).all():
            raise self.diverged("the outputs on validation")
        rows = dataset.rows("val")[self.measured]
        labels_N = dataset.labels_at(rows)
        self.state.val = score(logits, labels_N, dataset.groups_at(rows)).replace(may_count_seen=self.may_count_seen)
        self.state.val_loss = best_temperature(logits, labels_N)[1] if self.state.best is not None else None
        self.state.val_s += time.perf_counter() - started

    def diverged(self, what: str) -> DivergedError:
        """The error for values that are not finite."""
        step = self.state.step - 1
        return DivergedError(
            f"{what} are not finite after step {step}: the training has diverged; try a lower learning rate (it was "
            f"{self.plan.recipe.rates})",
            step=step,
        )

    def is_out_of_patience(self) -> bool:
        return 0 < self.plan.recipe.patience <= self.state.epochs_waited

    # ------------------------------------------------------------ saving

    def checkpoint(self) -> None:
        """Keep the state. Raises DivergedError where its weights are not finite."""
        started = time.perf_counter()
        if not all(bool(t.isfinite().all()) for t in tensors_of(self.state.network).values()):
            raise self.diverged("weights")
        log = self.run.path / LOG_FILE
        log_bytes = log.stat().st_size if log.exists() else 0
        checkpoint.save(self.run.path / CHECKPOINTS, self.state, self.plan.identity, log_bytes)
        self.state.checkpoint_s += time.perf_counter() - started

    def save(self, *, is_whole: bool) -> None:
        """Write the model, then say in run.json how it ended. One that was trained to the end is still `running`: the
        caller completes it, once the model knows how sure it may be."""
        plan, state = self.plan, self.state
        is_best = state.best is not None and state.best_val is not None
        if is_best:
            state.val = state.best_val
            if state.best_step == 0 < state.step:
                self.bar.line("no epoch lowered the validation loss of the fitted head: all of them are undone")
        elif not is_whole:
            state.val = None  # of an earlier step than the weights that are saved
        with state.averaged() as network:
            arrays = arrays_of(state.best if is_best and state.best is not None else tensors_of(network))
        write_model(self.run.path / MODEL_FILE, self.card(is_best=is_best), arrays)
        num_seen = state.step * plan.recipe.batch_size
        seconds = {"train_s": state.train_s, "val_s": state.val_s, "checkpoint_s": state.checkpoint_s}
        rate = num_seen / state.train_s if state.train_s else None
        found = {"images_per_s": rate, "val": state.val}
        status = "running" if is_whole else "interrupted"
        update_record(self.run.path, status=status, step=state.step, ended=now(), **seconds, **found)

    def card(self, *, is_best: bool) -> ModelCard:
        """The card of the model that is saved."""
        plan, state = self.plan, self.state
        step = state.best_step if is_best else state.step
        return ModelCard(
            architecture=str(plan.network.architecture),
            input_spec=plan.spec,
            class_names=plan.dataset.class_names,
            recipe=plan.recipe,
            preset=plan.preset,
            seed=plan.seed,
            dataset=plan.dataset.identity(),
            training=TrainingFacts(
                step=step,
                num_steps=plan.num_steps,
                epochs=round(plan.epochs_after(step), 4),
                weights="best" if is_best else "last" if state.ema is None else "ema",
                **plan.compute.to_json(),
                train_s=round(state.train_s, 3),
                parent=None if plan.parent is None else plan.parent.facts(),
            ),
            metrics=Metrics(val=state.val, cross_validation=Run(self.run.path).cross_validation),
            versions=versions(),
            created=now(),
            seen=seen_in(plan.dataset, plan.parent) if not plan.omit_record else None,
            origin=None if plan.parent is None else plan.parent.card.origin,
        )


def frames_between(before: int, step: int, num_steps: int) -> bool:
    """Whether a frame of the film lies after step `before`, up to `step`: many early on, when filters change fast."""
    return any(before < round((i / _FILM_FRAMES) ** 2 * num_steps) <= step for i in range(1, _FILM_FRAMES + 1))
