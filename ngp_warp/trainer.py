"""The only training loop.

Every schedule depends on the step alone: ``--seconds`` is turned once, after a timed warm-up, into
a number of steps that the checkpoint keeps. A step is a fixed list of recorded launches.

Of several processes the first one decides, and writes; after each step (on CUDA after some) all
agree on how to go on. With one process, that costs nothing.
"""

import contextlib
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp import exchange, launch, loading
from ngp_warp.config import TrainingConfig
from ngp_warp.decode import load_state
from ngp_warp.distributed import current
from ngp_warp.errors import ConfigError, LostError, PeerError
from ngp_warp.pace import Clock, Due, Length, interruptible
from ngp_warp.primitive import Progress, Report, Task
from ngp_warp.recording import recorded_step, synchronize
from ngp_warp.saving import Saver

# The least share of --seconds whose pace decides the number of steps; a task has its own.
_WARM_UP_MIN_SHARE = 0.02
# The share of the steps after which a table is quantized; their number is known by then.
_QUANTIZE_SHARE = 0.4
_REPORT_SECONDS = 0.2
# Time between points of the learning curve: grows, so that a long run has a few thousand.
_CURVE_SECONDS, _CURVE_POINTS = 0.05, 512


@dataclass
class TrainingState:
    """What a resumed run needs beside the parameters."""

    step: int = 0
    n_steps: int = 0
    """0: not decided yet."""
    seconds: float = 0.0
    """Training time so far."""
    curve: list[list[float]] = field(default_factory=list)
    """[step, seconds, batch metric]."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM; the run was saved before this was raised. Says how to go on."""


class Trainer:
    """Trains a task and keeps its checkpoints.

    Args:
        task: what is trained.
        training: how long, and how often to save.
        folder: the run's folder.
        header: what a checkpoint's header holds beside the state.
        report: told of progress.
        state: of a resumed run.
    """

    def __init__(
        self,
        task: Task,
        training: TrainingConfig,
        folder: Path,
        header: dict[str, Any],
        report: Report,
        state: TrainingState | None = None,
    ):
        self.task = task
        self.training = training
        self.folder = folder
        self.header = header
        self.report = report
        self.state = state or TrainingState()
        self.optimizer = task.field.optimizer
        self.device = task.field.device
        self.group = current()
        if training.steps is not None:
            self.state.n_steps = training.steps
        self.saver = Saver(folder, task.field, report)
        self._length = Length()

    def train(self) -> TrainingState:
        """Train to the last step and save.

        Raises:
            Interrupted: after the step in flight was finished and saved.
            ResourceError: there is no room for a checkpoint, the last could not be written, or
                another process of the run is gone.
            PeerError: another process has failed.
            ConfigError: the values have become infinite.
        """
        state = self.state
        # Before all else: the moving average that is evaluated counts the steps.
        self.optimizer.step.assign(np.array([state.step], np.int64))
        self.optimizer.n_steps.assign(np.array([state.n_steps], np.int64))
        if state.step and state.step == state.n_steps:
            return state  # resumed at its end: nothing to train, nothing to save
        with self.group.together():
            if self.group.leads:
                self.saver.make_room()
            self.report(Progress(stage="compile"))
            with loading.together(launch.num_threads()):
                stages = self.task.stages()
            step = recorded_step(stages, self.device)
        state.seconds += self.task.fill_seconds
        with interruptible() as signalled:

            def stopped() -> bool:
                return signalled() or self.group.abandoned

            try:
                self._loop(step, Clock(state.seconds), stopped)
                self.saver.wait()
                interrupted = self.group.agree(stopped())[0]
            except LostError as lost:
                self.saver.advise(lost)
                raise
        if interrupted:
            total = f" of {state.n_steps}" if state.n_steps else ""
            raise Interrupted(
                f"interrupted and saved after step {state.step}{total}; continue with "
                f"--resume {self.folder}"
            )
        return state

    def _loop(self, step: Callable[[], None], clock: Clock, stopped: Callable[[], bool]) -> None:
        state, group = self.state, self.group
        due = Due(clock)
        quantized = False
        stop = bool(group.agree(stopped())[0])
        while (not state.n_steps or state.step < state.n_steps) and not stop:
            step()
            state.step += 1
            save = False
            if group.agrees_after(state.step, state.n_steps):
                stop, save = self._agree(due, stopped)
            if state.n_steps and state.step >= _QUANTIZE_SHARE * state.n_steps and not quantized:
                synchronize(self.device)
                self.optimizer.quantize()  # a no-op on a resumed run that already is
                quantized = True
            if save:
                state.seconds = clock.seconds()
                self._save_for_all(background=True)
        synchronize(self.device)
        state.seconds = clock.seconds()
        with group.together():
            if group.leads:
                self._note_metric(state.seconds)
        self._save_for_all()

    def _agree(self, due: Due, stopped: Callable[[], bool]) -> tuple[bool, bool]:
        """Return whether to stop and whether to save now; take over the number of steps.

        Raises:
            PeerError: the first process has failed.
        """
        state, save = self.state, False
        if self.group.leads:
            try:
                save = self._lead(due)
            except BaseException:
                with contextlib.suppress(LostError):
                    self.group.agree(1, 0, 0, 0, soon=True)
                raise
        mine = 0, stopped(), save, state.n_steps
        failed, stop, saves, n_steps = self.group.agree(*mine, soon=True)
        if failed:
            raise PeerError("the first process has ended the run")
        if n_steps != state.n_steps:
            self._set_length(n_steps)
        return bool(stop), bool(saves)

    def _lead(self, due: Due) -> bool:
        """Decide the length, tell how far the run has come; return whether to save now."""
        now = due.clock.seconds()
        if not self.state.n_steps:
            self._decide_length(due.clock)
        if now - due.noted >= max(_CURVE_SECONDS, now / _CURVE_POINTS):
            due.noted = now
            self._note_metric(now)
        if now - due.reported >= _REPORT_SECONDS:
            due.reported = now
            self._report(now)
        if now - due.saved >= max(self.training.checkpoint_seconds, 10 * self.saver.seconds):
            due.saved = now
            return True
        return False

    def _set_length(self, n_steps: int) -> None:
        self.state.n_steps = n_steps
        self.optimizer.n_steps.assign(np.array([n_steps], np.int64))

    def _decide_length(self, clock: Clock) -> None:
        """Once the warm-up is over, turn --seconds into steps."""
        seconds = self.training.seconds
        assert seconds is not None
        # The learning rate is constant until its decay, so the length is not missed before that.
        decay_start = self.optimizer.config.decay_start or 0.0
        share = max(min(self.task.warm_up_share, 0.8 * decay_start), _WARM_UP_MIN_SHARE)
        n_steps = self._length.decide(
            self.state.step, seconds, share, clock, partial(synchronize, self.device)
        )
        if n_steps is not None:
            self._set_length(n_steps)

    def _note_metric(self, now: float) -> None:
        """Add a point to the learning curve."""
        synchronize(self.device)
        state, metric = self.state, self.task.batch_metric()
        if not math.isfinite(metric):
            raise ConfigError(
                f"training diverged: values are no longer finite after step {state.step}; lower "
                "--optimizer.learning-rate"
            )
        state.curve.append([state.step, now, metric])

    def _report(self, now: float) -> None:
        state = self.state
        per_step = now / max(state.step, 1)
        self.report(
            Progress(
                stage="train",
                step=state.step,
                total=state.n_steps,
                metric_name=self.task.metric_name,
                metric=state.curve[-1][2] if state.curve else None,
                seconds_left=per_step * (state.n_steps - state.step) if state.n_steps else None,
                samples_per_second=self.task.samples(state.step) / now,
            )
        )

    def _save_for_all(self, *, background: bool = False) -> None:
        """Save once, what all processes have; see ``save``.

        Raises:
            ResourceError: it could not be written, or the processes have come to differ.
        """
        group = self.group
        if group.size > 1:
            exchange.unite(group, self.device)
            synchronize(self.device)
            group.check_equal(self._digest(), "values")
        with group.together():
            if group.leads:
                self.save(background=background)

    def _digest(self) -> int:
        digest = 0
        for p in self.task.field.parameters().values():
            digest = zlib.crc32(p.value.numpy(), digest)
        return digest

    def save(self, *, background: bool = False) -> None:
        """Write a checkpoint; see ``Saver.save``."""
        state = self.state
        header = {
            **self.header,
            "step": state.step,
            "n_steps": state.n_steps,
            "seconds": state.seconds,
            "curve": list(state.curve),
        }
        self.saver.save(state.step, header, background=background)


def restore(task: Task, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> TrainingState:
    """Load a checkpoint into a task.

    Raises:
        CheckpointError: it does not fit the task.
    """
    load_state(task.field, arrays)
    return TrainingState(header["step"], header["n_steps"], header["seconds"], header["curve"])
