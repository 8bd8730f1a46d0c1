"""One run being trained, between its lock and its model file: restore, fit, validate, checkpoint, save.

Owns what a run folder holds at each moment. The compute is `loop.py`'s; who asks for what is `experiment.py`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from convlens import files
from convlens.errors import DivergedError, RunError, TrainingError
from convlens.metrics import Score, score
from convlens.modelfile import ModelCard, write_model
from convlens.network.build import arrays_of, build, tensors_of
from convlens.network.compute import settled
from convlens.network.forward import logits_of
from convlens.network.memory import on_device, ran_out_of_memory
from convlens.progress import Progress
from convlens.run import (
    CHECKPOINTS,
    FILTERS,
    LOG_FILE,
    MODEL_FILE,
    SEEN_FILE,
    Run,
    score_of,
    update_record,
)
from convlens.text import shown
from convlens.training import checkpoint
from convlens.training.batches import Batches
from convlens.training.loop import State, averaged, new_state, train_steps
from convlens.training.setup import Setup, now, versions
from convlens.training.warm_start import inherit, seen_in

Stop = Callable[[], bool]
_CHECKPOINT_VERSION = 2
_CURVE_POINTS, _FILM_FRAMES = 100, 60
_NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "alloc_failed")  # torch's words for it


@contextmanager
def _torchs_errors_in_one_line(setup: Setup) -> Iterator[None]:
    """Within it, having no memory left and a compiler that fails are a TrainingError; other errors pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        words = str(error).lower()
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(part in words for part in _NO_MEMORY):
            raise ran_out_of_memory(setup.plan, setup.recipe, setup.compute) from error
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise TrainingError(f"torch.compile failed ({shown(error)}): leave --compile away") from error
        raise


class Session:
    """One run being trained, between the lock and the model file."""

    def __init__(
        self, setup: Setup, run: Run, bar: Progress, checkpoint_every_s: float, stop: Stop | None, *, ended: bool
    ) -> None:
        """`ended`: whether an end was asked for before the first step."""
        self.setup, self.run, self.bar, self.stop, self.ended = setup, run, bar, stop, ended
        self.checkpoint_every_s = checkpoint_every_s
        self.val: Score | None = None
        self.val_s = 0.0
        self.checkpoint_s = 0.0
        self.epoch_losses: list[float] = []  # of the epoch that is going on
        # With patience: the epochs since the lowest validation loss, and the score and step of that.
        self.waited = 0
        self.best_val: Score | None = None
        self.best_step = 0

    def run_to_end(self) -> Run:
        """Restore, train, save. Whatever happens, what is on disk can be loaded or resumed."""
        setup = self.setup
        with settled(setup.compute), _torchs_errors_in_one_line(setup):
            state = self._restored()
            interrupted = False
            try:
                interrupted = self._fit(state)
                self._checkpoint(state)
            except KeyboardInterrupt:
                # Python may have been stopped in the middle of a step: these weights can be used, not resumed
                # from. Resuming goes back to the last checkpoint and comes to the same bits.
                interrupted = True
            except DivergedError as error:
                update_record(self.run.path, status="diverged", step=error.step, ended=now())
                last = checkpoint.newest(self.run.path / CHECKPOINTS)
                kept = (
                    f"the last good checkpoint is that of step {last.step}" if last else "there was no checkpoint yet"
                )
                raise DivergedError(f"{error}; {kept}; run {shown(self.run.path, 200)}", step=error.step) from None
            finally:
                self.bar.stop()
            self._save(state, status="interrupted" if interrupted else "complete")
        if interrupted:
            self.bar.line(
                f"stopped after step {state.step:,} of {setup.num_steps:,}; "
                f"go on with: convlens train --resume {self.run.path}"
            )
        return Run(self.run.path)

    # ------------------------------------------------------------ fitting

    def _restored(self) -> State:
        """A state before its first step, or the newest checkpoint's."""
        setup = self.setup
        started = time.perf_counter()
        network = build(
            setup.plan,
            setup.spec,
            seed=setup.seed,
            device=setup.compute.device,
            memory_format=setup.compute.memory_format,
        )
        if setup.parent is not None:
            inherit(network, setup.plan, setup.parent, setup.dataset.class_names)
        state = new_state(network, setup.recipe)
        state.train_s = time.perf_counter() - started
        last = checkpoint.newest(self.run.path / CHECKPOINTS)
        log_bytes = 0
        if last is None and checkpoint.has_any(self.run.path / CHECKPOINTS):
            self.bar.line("no checkpoint of this run is whole: training begins anew, to the same bits")
        if last is not None and last.extra.get("format_version") != _CHECKPOINT_VERSION:
            raise RunError(
                f"{shown(self.run.path, 200)}: its checkpoints were written by another version of convlens: "
                "resume with that one, or begin a new run"
            )
        if last is not None and last.extra.get("identity") != setup.identity:
            raise RunError(
                f"{shown(self.run.path, 200)}: its checkpoints are of another plan, seed or data than run.json says; "
                "one of them was changed"
            )
        if last is not None:
            checkpoint.restore(state, last)
            log_bytes = int(last.extra["log_bytes"])
            self.epoch_losses = list(last.extra["epoch_losses"])
            self.val_s, self.checkpoint_s = float(last.extra["val_s"]), float(last.extra["checkpoint_s"])
            self.waited, self.best_step = int(last.extra.get("waited", 0)), int(last.extra.get("best_step", 0))
            self.best_val = score_of(last.extra.get("best_val"))
            self.bar.line(f"resuming at step {state.step:,} of {setup.num_steps:,}")
        if (then := self.run.record["versions"]) != (here := versions()):
            changed = ", ".join(f"{k} {then.get(k)} then, {here[k]} now" for k in here if then.get(k) != here[k])
            self.bar.line(f"note: {changed}: the bits may differ from those of a run that was never stopped")
        files.remove_leftovers(self.run.path)
        files.remove_leftovers(self.run.path / CHECKPOINTS)
        files.truncate(self.run.path / LOG_FILE, log_bytes)  # lines of steps that will be done again
        update_record(self.run.path, status="running")
        return state

    def _fit(self, state: State) -> bool:
        """Train to the end; True if `stop` ended it before."""
        setup, bar = self.setup, self.bar
        dataset, recipe, device = setup.dataset, setup.recipe, setup.compute.device
        images = on_device(dataset.images("train"), setup.plan, recipe, setup.compute)
        labels = torch.from_numpy(dataset.labels("train")).to(device)
        batches = Batches.of(recipe, dataset.labels("train"), setup.seed)
        bar.start("training", setup.num_steps, unit="steps")
        bar.advance(state.step)
        last_checkpoint = shown_at = time.monotonic()
        if self.ended:
            return True
        if self._is_out_of_patience():
            return False
        if state.step == 0:
            self._keep_filters(state)
        for losses in train_steps(state, images, labels, batches, recipe, setup.num_steps, setup.compute):
            self.epoch_losses += losses.values
            time_now = time.monotonic()
            if time_now - shown_at >= 0.2:
                shown_at = time_now
                rate = state.step * recipe.batch_size / max(state.train_s, 1e-9)
                bar.advance(0, note=f"loss {losses.values[-1]:.4f}  {rate:,.0f} images/s")
            bar.advance(len(losses.values))
            before = state.step - len(losses.values)
            self._log_steps(before, losses.values)
            if frames_between(before, state.step, setup.num_steps):
                self._keep_filters(state)
            if batches.epochs_done(state.step) > batches.epochs_done(before) or state.step == setup.num_steps:
                self._end_epoch(state)
                if self._is_out_of_patience():
                    bar.line(f"no lower validation loss for {self.waited} epochs: stopped early")
                    return False
            if self.stop is not None and self.stop() and state.step < setup.num_steps:
                return True
            if time_now - last_checkpoint >= self.checkpoint_every_s and state.step < setup.num_steps:
                self._checkpoint(state)
                last_checkpoint = time.monotonic()
        return False

    def _log_steps(self, before: int, losses: tuple[float, ...]) -> None:
        """A line for about each hundredth of the training: what a curve is drawn from while it goes on."""
        every = max(1, self.setup.num_steps // _CURVE_POINTS)
        for step, loss in enumerate(losses, before + 1):
            if step % every == 0:
                files.append_line(self.run.path / LOG_FILE, {"step": step, "loss": loss})

    def _keep_filters(self, state: State) -> None:
        """The first convolution's filters as they are now, if they are to be kept."""
        if not self.setup.keep_filters:
            return
        first = next(leaf for leaf in self.setup.plan.leaves if leaf.layer.name == "conv")
        kernels = arrays_of({"": tensors_of(state.network)[f"{first.address}.weight"]})[""]
        path = self.run.path / FILTERS / f"step-{state.step:09d}.npy"
        files.write_with(path, lambda file: np.save(file, kernels))

    def _end_epoch(self, state: State) -> None:
        setup = self.setup
        epoch = state.step * setup.recipe.batch_size / setup.dataset.counts["train"]
        loss = sum(self.epoch_losses) / len(self.epoch_losses)
        self.epoch_losses.clear()
        self._validate(state)
        self._note_best(state)
        lr = setup.recipe.lr_at(state.step - 1, setup.num_steps)
        files.append_line(
            self.run.path / LOG_FILE,
            {
                "step": state.step,
                "epoch": round(epoch, 4),
                "lr": lr,
                "loss": loss,
                "val": self.val.to_json() if self.val else None,
                "train_s": round(state.train_s, 3),
            },
            durable=True,
        )
        val = f"  val {100 * self.val.accuracy:6.2f} %  val loss {self.val.loss:.4f}" if self.val else ""
        self.bar.line(f"epoch {epoch:5.2f} of {setup.recipe.epochs:g}  loss {loss:.4f}{val}  {state.train_s:.1f} s")

    def _validate(self, state: State) -> None:
        dataset = self.setup.dataset
        if dataset.counts["val"] == 0:
            return
        started = time.perf_counter()
        with averaged(state) as network:
            logits = logits_of(network, dataset.images("val"))
        if not np.isfinite(logits).all():
            raise DivergedError(
                f"the outputs on validation are not finite after step {state.step - 1}: the training has diverged; "
                f"try a lower learning rate (it was {self.setup.recipe.rates})",
                step=state.step - 1,
            )
        self.val = score(logits, dataset.labels("val"))
        self.val_s += time.perf_counter() - started

    def _note_best(self, state: State) -> None:
        """With patience: keep the weights of the lowest validation loss so far."""
        if state.best is None or self.val is None:
            return
        self.waited += 1
        if self.best_val is None or self.val.loss < self.best_val.loss:
            self.waited, self.best_val, self.best_step = 0, self.val, state.step
            with averaged(state) as network, torch.no_grad():
                for name, tensor in tensors_of(network).items():
                    state.best[name].copy_(tensor)

    def _is_out_of_patience(self) -> bool:
        return 0 < self.setup.recipe.patience <= self.waited

    # ------------------------------------------------------------ saving

    def _checkpoint(self, state: State) -> None:
        started = time.perf_counter()
        if not all(bool(t.isfinite().all()) for t in tensors_of(state.network).values()):
            raise DivergedError(
                f"weights are not finite after step {state.step - 1}: the training has diverged; try a lower learning "
                f"rate (it was {self.setup.recipe.rates})",
                step=state.step - 1,
            )
        log = self.run.path / LOG_FILE
        extra = {
            "format_version": _CHECKPOINT_VERSION,
            "identity": self.setup.identity,
            "log_bytes": log.stat().st_size if log.exists() else 0,
            "epoch_losses": self.epoch_losses,
            "val_s": self.val_s,
            "checkpoint_s": self.checkpoint_s,
            "waited": self.waited,
            "best_step": self.best_step,
            "best_val": self.best_val.to_json() if self.best_val else None,
        }
        checkpoint.save(self.run.path / CHECKPOINTS, state, extra)
        self.checkpoint_s += time.perf_counter() - started

    def _save(self, state: State, status: str) -> None:
        """Write the model, then say in run.json how it ended."""
        setup = self.setup
        is_best = state.best is not None and self.best_val is not None
        if is_best:
            self.val = self.best_val
        elif status == "complete" and self.val is None:
            self._validate(state)  # resumed after the last step, before the model was written
        elif status != "complete":
            self.val = None  # of an earlier step than the weights that are saved
        with averaged(state) as network:
            arrays = arrays_of(state.best if is_best and state.best is not None else tensors_of(network))
        seen = seen_in(setup.dataset, setup.parent)
        files.write_with(self.run.path / SEEN_FILE, lambda file: np.save(file, seen))
        write_model(self.run.path / MODEL_FILE, self._card(state, is_best=is_best), arrays)
        num_seen = state.step * setup.recipe.batch_size
        update_record(
            self.run.path,
            status=status,
            step=state.step,
            ended=now(),
            train_s=state.train_s,
            images_per_s=num_seen / state.train_s if state.train_s else None,
            val_s=self.val_s,
            checkpoint_s=self.checkpoint_s,
            val=self.val.to_json() if self.val else None,
        )

    def _cross_validation(self) -> dict[str, Any]:
        found = Run(self.run.path).cross_validation
        return {} if found is None else {"cross_validation": found.to_json()}

    def _card(self, state: State, *, is_best: bool) -> ModelCard:
        setup = self.setup
        step = self.best_step if is_best else state.step
        epochs = step * setup.recipe.batch_size / setup.dataset.counts["train"]
        return ModelCard(
            architecture=str(setup.plan.architecture),
            input_spec=setup.spec,
            class_names=setup.dataset.class_names,
            recipe=setup.recipe,
            preset=setup.preset,
            seed=setup.seed,
            dataset=setup.dataset.identity(),
            training={
                "step": step,
                "num_steps": setup.num_steps,
                "epochs": round(epochs, 4),
                "weights": "best" if is_best else "last" if state.ema is None else "ema",
                **setup.compute.to_json(),
                "train_s": round(state.train_s, 3),
                **({} if setup.parent is None else {"parent": setup.parent.to_json()}),
            },
            metrics={"val": self.val.to_json() if self.val else None, **self._cross_validation()},
            versions=versions(),
            created=now(),
        )


def frames_between(before: int, step: int, num_steps: int) -> bool:
    """Whether a frame of the film lies after step `before`, up to `step`: many early on, when filters change fast."""
    return any(before < round((i / _FILM_FRAMES) ** 2 * num_steps) <= step for i in range(1, _FILM_FRAMES + 1))
