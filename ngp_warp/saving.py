"""The checkpoints of a run in training: written one at a time, the last two kept."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.checkpoint import DISK_ADVICE, save_checkpoint
from ngp_warp.decode import state_arrays
from ngp_warp.errors import LostError, NgpError
from ngp_warp.files import check_free_space
from ngp_warp.primitive import Progress, Report, Trainable
from ngp_warp.run_folder import checkpoint_path, list_checkpoints

KEPT_CHECKPOINTS = 2


class Saver:
    """Writes checkpoints of a field into a run's folder.

    Args:
        folder: the run's.
        field: what is trained.
        report: told of a checkpoint that could not be written in the background.

    Attributes:
        seconds: that the last one took in the background.
    """

    def __init__(self, folder: Path, field: Trainable, report: Report):
        self.folder, self.field, self.report = folder, field, report
        self.seconds = 0.0
        self._writer: threading.Thread | None = None
        self._error: NgpError | None = None

    def make_room(self) -> None:
        """Remove what a killed run was writing, and see whether a checkpoint has room.

        Raises:
            ResourceError: it has none.
        """
        for unfinished in (self.folder / "checkpoints").glob(".step-*.tmp-*"):
            unfinished.unlink(missing_ok=True)
        n_bytes = sum(array.capacity for array in state_arrays(self.field).values())
        check_free_space(self.folder, n_bytes, "a checkpoint", DISK_ADVICE)

    def save(self, step: int, header: dict[str, Any], *, background: bool = False) -> None:
        """Write a checkpoint; in the background from a copy, while training goes on.

        A background write that fails is reported at the next one: a disk may have room again
        until then, and the run's last checkpoint, which counts, raises.

        Raises:
            ResourceError: it could not be written (not in the background).
        """
        self.wait()
        arrays = {
            name: array.numpy().copy() if background else array.numpy()
            for name, array in state_arrays(self.field).items()
        }
        path = checkpoint_path(self.folder, step)
        if not background:
            _write(path, header, arrays)
            return

        def work() -> None:
            begin = time.perf_counter()
            try:
                _write(path, header, arrays)
                self.seconds = time.perf_counter() - begin
            except NgpError as error:
                self._error = error

        self._writer = threading.Thread(target=work)
        self._writer.start()

    def wait(self) -> None:
        """Wait for the checkpoint that is being written; tell where it could not be."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._error is not None:
            message = f"a checkpoint was not saved: {self._error}; training goes on"
            self._error = None
            self.report(Progress(stage="train", message=message))

    def advise(self, lost: LostError) -> None:
        """Let an error say what there is of a run that another process has left."""
        self.wait()
        advice = "no checkpoint had been saved"
        if checkpoints := list_checkpoints(self.folder):
            step = int(checkpoints[-1].stem.removeprefix("step-"))
            advice = f"the checkpoint after step {step} is kept: continue with --resume "
            advice += str(self.folder)
        lost.args = (f"{lost}; {advice}",)


def _write(path: Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    save_checkpoint(path, header, arrays)
    checkpoints = list_checkpoints(path.parent.parent)
    # Later ones are of the run before, where an earlier checkpoint was resumed.
    at = checkpoints.index(path)
    for old in checkpoints[: max(at + 1 - KEPT_CHECKPOINTS, 0)] + checkpoints[at + 1 :]:
        old.unlink(missing_ok=True)
