"""The only training loop.

Every schedule depends on the step alone: ``--seconds`` is turned once, after a timed warm-up, into
a number of steps that the checkpoint keeps. A step is a fixed list of recorded launches.

Of several processes the first one decides, and writes; after each step (on CUDA after some) all
agree on how to go on. With one process, that costs nothing.
"""

import contextlib
import math
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import exchange, launch, loading
from ngp_warp.checkpoint import DISK_ADVICE, save_checkpoint
from ngp_warp.config import TrainingConfig
from ngp_warp.decode import load_state, state_arrays
from ngp_warp.distributed import current
from ngp_warp.errors import ConfigError, LostError, NgpError, PeerError
from ngp_warp.files import check_free_space
from ngp_warp.pace import Clock, Due, Length, interruptible
from ngp_warp.primitive import Progress, Report, Task
from ngp_warp.recording import recorded_step
from ngp_warp.run import KEPT_CHECKPOINTS, checkpoint_path, list_checkpoints

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
        self._length = Length()
        self._write_seconds = 0.0
        self._writer: threading.Thread | None = None
        self._write_error: NgpError | None = None

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
                self._make_room()
            self.report(Progress(stage="compile"))
            with loading.together(launch.num_threads()):
                stages = self.task.stages()
            step = recorded_step(stages, self.device)
        state.seconds += self.task.fill_seconds
        try:
            with interruptible() as stopped:
                self._loop(step, Clock(state.seconds), stopped)
            self._wait_for_writer()
            interrupted = self.group.agree(stopped())[0]
        except LostError as lost:
            self.advise(lost)
            raise
        if interrupted:
            total = f" of {state.n_steps}" if state.n_steps else ""
            raise Interrupted(
                f"interrupted and saved after step {state.step}{total}; continue with "
                f"--resume {self.folder}"
            )
        return state

    def _make_room(self) -> None:
        for unfinished in (self.folder / "checkpoints").glob(".step-*.tmp-*"):
            unfinished.unlink(missing_ok=True)  # what a killed run was writing
        check_free_space(self.folder, self._checkpoint_bytes(), "a checkpoint", DISK_ADVICE)

    def advise(self, lost: LostError) -> None:
        """Let an error say what there is of a run that another process has left."""
        self._wait_for_writer()
        advice = "no checkpoint had been saved"
        if checkpoints := list_checkpoints(self.folder):
            step = int(checkpoints[-1].stem.removeprefix("step-"))
            advice = f"the checkpoint after step {step} is kept: continue with --resume "
            advice += str(self.folder)
        lost.args = (f"{lost}; {advice}",)

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
                self.optimizer.quantize()  # a no-op on a resumed run that already is
                quantized = True
            if save:
                state.seconds = clock.seconds()
                self._save_for_all(background=True)
        self._synchronize()
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
                    self.group.agree(1, 0, 0, 0)
                raise
        mine = 0, stopped(), save, state.n_steps
        failed, stop, saves, n_steps = self.group.agree(*mine)
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
        if now - due.saved >= max(self.training.checkpoint_seconds, 10 * self._write_seconds):
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
        n_steps = self._length.decide(self.state.step, seconds, share, clock, self._synchronize)
        if n_steps is not None:
            self._set_length(n_steps)

    def _note_metric(self, now: float) -> None:
        """Add a point to the learning curve."""
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

    def _synchronize(self) -> None:
        if self.device != "cpu":
            wp.synchronize_device(self.device)

    def _save_for_all(self, *, background: bool = False) -> None:
        """Save once, what all processes have; see ``save``.

        Raises:
            ResourceError: it could not be written, or the processes have come to differ.
        """
        group = self.group
        if group.size > 1:
            exchange.unite(group, self.device)
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
        """Write a checkpoint; in the background from a copy, while training goes on.

        A background write that fails is reported at the next one: a disk may have room again
        until then, and the run's last checkpoint, which counts, raises.

        Raises:
            ResourceError: it could not be written (not in the background).
        """
        self._wait_for_writer()
        state = self.state
        arrays = {
            name: array.numpy().copy() if background else array.numpy()
            for name, array in state_arrays(self.task.field).items()
        }
        header = {
            **self.header,
            "step": state.step,
            "n_steps": state.n_steps,
            "seconds": state.seconds,
            "curve": list(state.curve),
        }
        path = checkpoint_path(self.folder, state.step)
        if not background:
            _write(path, header, arrays)
            return

        def work() -> None:
            begin = time.perf_counter()
            try:
                _write(path, header, arrays)
                self._write_seconds = time.perf_counter() - begin
            except NgpError as error:
                self._write_error = error

        self._writer = threading.Thread(target=work)
        self._writer.start()

    def _wait_for_writer(self) -> None:
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._write_error is not None:
            message = f"a checkpoint was not saved: {self._write_error}; training goes on"
            self._write_error = None
            self.report(Progress(stage="train", message=message))

    def _checkpoint_bytes(self) -> int:
        return sum(array.capacity for array in state_arrays(self.task.field).values())


def restore(task: Task, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> TrainingState:
    """Load a checkpoint into a task.

    Raises:
        CheckpointError: it does not fit the task.
    """
    load_state(task.field, arrays)
    return TrainingState(header["step"], header["n_steps"], header["seconds"], header["curve"])


def _write(path: Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    save_checkpoint(path, header, arrays)
    checkpoints = list_checkpoints(path.parent.parent)
    # Later ones are of the run before, where an earlier checkpoint was resumed.
    at = checkpoints.index(path)
    for old in checkpoints[: max(at + 1 - KEPT_CHECKPOINTS, 0)] + checkpoints[at + 1 :]:
        old.unlink(missing_ok=True)
