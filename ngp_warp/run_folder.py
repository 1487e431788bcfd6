"""A run's folder: config.json, metrics.json, checkpoints/, renders/, exports/.

How it is made, taken back where a run comes to nothing, and read.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ngp_warp.errors import CheckpointError, ConfigError, ResourceError
from ngp_warp.files import atomic_path

_SUBFOLDERS = ("checkpoints", "renders", "exports")


def list_checkpoints(folder: Path) -> list[Path]:
    """Return a run's checkpoints, oldest first."""
    return sorted((folder / "checkpoints").glob("step-*.safetensors"))


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the file of the checkpoint after ``step`` steps; names sort by step."""
    return folder / "checkpoints" / f"step-{step:010d}.safetensors"


def read_blocks(folder: Path) -> dict[str, Any]:
    """Return config.json of a run in blocks; empty where the folder holds none."""
    try:
        values = _read_json(folder / "config.json")
    except CheckpointError:
        return {}
    return values if isinstance(values, dict) and "blocks" in values else {}


def read_metrics(folder: Path) -> dict[str, Any]:
    """Return metrics.json; empty while the run has not ended.

    Raises:
        CheckpointError: it cannot be read.
    """
    return _read_json(folder / "metrics.json")


def check_out(out: Path | None) -> None:
    """Raise unless a run may be put into ``out``.

    Raises:
        ConfigError: it already holds a run.
        ResourceError: it is a file.
    """
    if out is not None and (list_checkpoints(out) or read_blocks(out)):
        raise ConfigError(f"{out} already holds a run; give --resume {out} or another --out")
    if out is not None and os.path.lexists(out) and not out.is_dir():
        raise ResourceError(f"cannot make the folder {out}: a file of that name is there")


@contextmanager
def new_folder(
    out: Path | None, source: Path, task: str, subfolders: Sequence[str] = _SUBFOLDERS
) -> Iterator[Path]:
    """Make a run's folder, and take it back where the block raises before the first checkpoint.

    Args:
        out: the folder; None: outputs/<input>/<task>/<time>, with a ``latest`` link beside it.
        source: the input.
        task: the command.
        subfolders: that it gets.

    Raises:
        ConfigError: ``out`` already holds a run.
        ResourceError: it cannot be made or written.
    """
    check_out(out)
    parent = Path("outputs") / (source.stem or "input") / task
    folder = out or parent / time.strftime("%Y-%m-%d_%H%M%S")
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    latest = parent / "latest"
    linked = latest.readlink() if latest.is_symlink() else None
    try:
        try:
            if out is None:
                folder = _make_another(folder)
                made[:1] = [folder]
                with suppress(OSError):  # a file system without links
                    _link(latest, folder.name)
            for name in subfolders:
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(f"cannot make the folder {folder}: {error.strerror}") from error
        yield folder
    except BaseException:
        if not list_checkpoints(folder):
            with suppress(OSError):
                if out is None:
                    latest.unlink() if linked is None else _link(latest, linked)
            with suppress(OSError):
                _take_back(folder, made, subfolders)
        raise


def _make_another(folder: Path) -> Path:
    """Make a folder of this name or, where another run of this second has it, with a number."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    another, number = folder, 1
    while True:
        try:
            another.mkdir()
            return another
        except FileExistsError:
            number += 1
            another = folder.with_name(f"{folder.name}-{number}")


def _take_back(folder: Path, made: list[Path], subfolders: Sequence[str]) -> None:
    """Remove what a run without a checkpoint has left; folders that were there before stay."""
    if folder in made:
        shutil.rmtree(folder)
        for parent in made[1:]:
            parent.rmdir()  # not where something else has come to lie there
        return
    (folder / "config.json").unlink(missing_ok=True)
    for name in subfolders:
        with suppress(OSError):
            (folder / name).rmdir()


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON beside and rename.

    Raises:
        ResourceError: the folder cannot be written, or the disk is full.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


def _link(link: Path, target: str | Path) -> None:
    """Point ``link`` at a folder beside it, replacing the link that may be there."""
    temporary = link.with_name(f".{link.name}-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target, target_is_directory=True)
    temporary.replace(link)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
