"""A run's folder: config.json, metrics.json, checkpoints/, renders/, exports/."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.checkpoint import read_checkpoint, read_header
from ngp_warp.config import from_dict
from ngp_warp.errors import CheckpointError, ConfigError, ResourceError
from ngp_warp.files import atomic_path

KEPT_CHECKPOINTS = 2


@dataclass(frozen=True)
class Run:
    """A run's folder, as ``open_run`` finds it or ``fit`` leaves it."""

    path: Path
    checkpoint: Path
    """The checkpoint that queries, renders and exports read."""
    header: dict[str, Any]
    """Its header: primitive, source, config, step, n_steps, data, curve."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """metrics.json; empty while the run has not ended."""

    @property
    def primitive(self) -> str:
        """Name of the primitive."""
        return self.header["primitive"]

    @property
    def source(self) -> Path:
        """The file that was fitted."""
        return Path(self.header["source"])

    @property
    def config(self) -> Any:
        """The resolved config, as the primitive's dataclass."""
        from ngp_warp.primitives import get

        return from_dict(get(self.primitive).config, self.header["config"], str(self.checkpoint))

    def arrays(self) -> dict[str, np.ndarray]:
        """Read the checkpoint's arrays, checked to be whole.

        Raises:
            CheckpointError: cut short or altered.
        """
        return read_checkpoint(self.checkpoint)[1]

    def query(self, points: Any) -> Any:
        """Return the field's values at points; see ``ngp_warp.field.Field.query``."""
        return self._field().query(points)

    def value_and_gradient(self, points: Any) -> tuple[Any, Any]:
        """Return values and Jacobians; see ``ngp_warp.field.Field.value_and_gradient``."""
        return self._field().value_and_gradient(points)

    def _field(self) -> Any:
        """Return the field on the device of ``resolve_device``, loaded once."""
        from ngp_warp.decode import load_field

        if "field" not in self.__dict__:
            # A frozen dataclass may still keep what can be read again at any time.
            self.__dict__["field"] = load_field(self)
        return self.__dict__["field"]


def open_run(path: str | Path) -> Run:
    """Open a run by its folder, a ``latest`` link or one of its checkpoints.

    Raises:
        CheckpointError: there is no run, or it has no checkpoint yet.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"there is no run {path}")
    if path.is_file():
        folder = path.resolve().parent.parent
        header = read_header(path)
        return Run(folder, path, header, _read_metrics(folder))
    checkpoints = list_checkpoints(path)
    if not checkpoints:
        raise CheckpointError(
            f"{path} holds no checkpoint (looked for {path}/checkpoints/step-*.safetensors)"
        )
    return Run(path, checkpoints[-1], read_header(checkpoints[-1]), _read_metrics(path))


def describe(path: str | Path) -> dict[str, Any]:
    """Return what a run or checkpoint holds: ``ngp info``; the checkpoint is checked to be whole.

    Raises:
        CheckpointError: there is none, or it is cut short or altered.
    """
    run = open_run(path)
    header, arrays = read_checkpoint(run.checkpoint)
    values = [a for name, a in arrays.items() if name.endswith(".value")]
    return {
        "run": str(run.path),
        "checkpoint": str(run.checkpoint),
        "primitive": run.primitive,
        "source": str(run.source),
        "step": header["step"],
        "steps": header["n_steps"],
        "parameters": int(sum(a.size for a in values)),
        "bytes": run.checkpoint.stat().st_size,
        "data": header["data"],
        "config": header["config"],
        "metrics": run.metrics,
    }


def list_checkpoints(folder: Path) -> list[Path]:
    """Return a run's checkpoints, oldest first."""
    return sorted((folder / "checkpoints").glob("step-*.safetensors"))


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the file of the checkpoint after ``step`` steps; names sort by step."""
    return folder / "checkpoints" / f"step-{step:010d}.safetensors"


def new_folder(out: Path | None, source: Path, task: str) -> Path:
    """Make a run's folder: ``out``, or outputs/<input>/<task>/<time> with a ``latest`` beside it.

    Raises:
        ConfigError: ``out`` already holds a run.
        ResourceError: it cannot be made or written.
    """
    folder = out or Path("outputs") / source.stem / task / time.strftime("%Y-%m-%d_%H%M%S")
    if (folder / "config.json").exists() or list_checkpoints(folder):
        raise ConfigError(f"{folder} already holds a run; give --resume {folder} or another --out")
    try:
        for name in ("checkpoints", "renders", "exports"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        if out is None:
            _link_latest(folder)
    except OSError as error:
        raise ResourceError(f"cannot make the folder {folder}: {error.strerror}") from error
    return folder


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON beside and rename.

    Raises:
        ResourceError: the folder cannot be written, or the disk is full.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


def _link_latest(folder: Path) -> None:
    """Point ``latest`` at the newest run, where the file system has links."""
    link = folder.parent / "latest"
    temporary = folder.parent / f".latest-{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.name, target_is_directory=True)
    temporary.replace(link)


def _read_metrics(folder: Path) -> dict[str, Any]:
    path = folder / "metrics.json"
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
