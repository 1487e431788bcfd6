"""The only training loop.

Every schedule depends on the step alone: ``--seconds`` is turned once, after a timed warm-up, into
a number of steps that the checkpoint keeps. A step is a fixed list of recorded launches; on CUDA
they are captured into one graph.
"""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch, loading
from ngp_warp.checkpoint import DISK_ADVICE, save_checkpoint
from ngp_warp.config import TrainingConfig
from ngp_warp.decode import load_state, state_arrays
from ngp_warp.errors import ConfigError, NgpError
from ngp_warp.files import check_free_space
from ngp_warp.primitive import Progress, Report, Task
from ngp_warp.run import KEPT_CHECKPOINTS, checkpoint_path, list_checkpoints
from ngp_warp.steps import recorded_step

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
        if training.steps is not None:
            self.state.n_steps = training.steps
        self._halfway: tuple[int, float] | None = None
        self._write_seconds = 0.0
        self._writer: threading.Thread | None = None
        self._write_error: NgpError | None = None

    def train(self) -> TrainingState:
        """Train to the last step and save.

        Raises:
            Interrupted: after the step in flight was finished and saved.
            ResourceError: there is no room for a checkpoint, or the last could not be written.
            ConfigError: the values have become infinite.
        """
        state = self.state
        # Before all else: the moving average that is evaluated counts the steps.
        self.optimizer.step.assign(np.array([state.step], np.int64))
        self.optimizer.n_steps.assign(np.array([state.n_steps], np.int64))
        if state.step and state.step == state.n_steps:
            return state  # resumed at its end: nothing to train, nothing to save
        for unfinished in (self.folder / "checkpoints").glob(".step-*.tmp-*"):
            unfinished.unlink(missing_ok=True)  # what a killed run was writing
        check_free_space(self.folder, self._checkpoint_bytes(), "a checkpoint", DISK_ADVICE)
        self.report(Progress(stage="compile"))
        with loading.together(launch.num_threads()):
            stages = self.task.stages()
        step = recorded_step(stages, self.device)
        state.seconds += self.task.fill_seconds
        with _interruptible() as stopped:
            self._loop(step, _Clock(state.seconds), stopped)
        self._wait_for_writer()
        if stopped():
            total = f" of {state.n_steps}" if state.n_steps else ""
            raise Interrupted(
                f"interrupted and saved after step {state.step}{total}; continue with "
                f"--resume {self.folder}"
            )
        return state

    def _loop(self, step: Callable[[], None], clock: "_Clock", stopped: Callable[[], bool]) -> None:
        state = self.state
        saved = noted = reported = clock.seconds()
        quantized = False
        while (not state.n_steps or state.step < state.n_steps) and not stopped():
            step()
            state.step += 1
            now = clock.seconds()
            if not state.n_steps:
                self._decide_length(clock)
            if state.n_steps and state.step >= _QUANTIZE_SHARE * state.n_steps and not quantized:
                self.optimizer.quantize()  # a no-op on a resumed run that already is
                quantized = True
            if now - noted >= max(_CURVE_SECONDS, now / _CURVE_POINTS):
                noted = now
                self._note_metric(now)
            if now - reported >= _REPORT_SECONDS:
                reported = now
                self._report(now)
            if now - saved >= max(self.training.checkpoint_seconds, 10 * self._write_seconds):
                saved = now
                state.seconds = now
                self.save(background=True)
        self._synchronize()
        state.seconds = clock.seconds()
        self._note_metric(state.seconds)
        self.save()

    def _decide_length(self, clock: "_Clock") -> None:
        """Once the warm-up is over, turn --seconds into steps by the pace of its later half.

        The first half finds cold caches; checkpoints that are being written slow both.
        """
        state, seconds = self.state, self.training.seconds
        assert seconds is not None
        # The learning rate is constant until its decay, so the length is not missed before that.
        decay_start = self.optimizer.config.decay_start or 0.0
        warm_up = seconds * max(min(self.task.warm_up_share, 0.8 * decay_start), _WARM_UP_MIN_SHARE)
        if self._halfway is None and clock.seconds() >= 0.5 * warm_up:
            self._synchronize()
            self._halfway = (state.step, clock.seconds())
        elif self._halfway is not None and clock.seconds() >= warm_up:
            self._synchronize()
            before, then = self._halfway
            pace = (clock.seconds() - then) / (state.step - before)
            state.n_steps = state.step + round(max(seconds - clock.seconds(), 0.0) / pace)
            self.optimizer.n_steps.assign(np.array([state.n_steps], np.int64))

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


class _Clock:
    """Seconds of training, those of the runs before included."""

    def __init__(self, before: float):
        self._start = time.perf_counter() - before

    def seconds(self) -> float:
        return time.perf_counter() - self._start


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a flag, so that no step is cut in two.

    A second signal acts at once. Outside the main thread signals are left alone.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(number: int, frame: Any) -> None:
        received.append(number)
        for name, handler in before.items():
            signal.signal(name, handler)

    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    for name in before:
        signal.signal(name, note)
    try:
        yield lambda: bool(received)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
