"""Which format a folder or a file is of."""

import os
from collections.abc import Callable
from pathlib import Path

from ngp_warp.config import check_choice
from ngp_warp.primitives.nerf.scene import colmap, llff, transforms
from ngp_warp.primitives.nerf.scene.checks import Checks, SceneError
from ngp_warp.primitives.nerf.types import Scene

READERS: dict[str, Callable[[Path, Checks], Scene]] = {
    "transforms": transforms.read,
    "colmap": colmap.read,
    "llff": llff.read,
}
_HOLDS: dict[str, Callable[[Path], bool]] = {
    "transforms": lambda path: bool(transforms.find(path)),
    "colmap": lambda path: colmap.find(path) is not None,
    "llff": lambda path: llff.find(path) is not None,
}


def detect(path: Path, format: str | None, checks: Checks) -> str:
    """Return the name of the format that a scene is of.

    Args:
        path: a folder or a file.
        format: what it is said to be; None: what is there, in the order of `READERS`.
        checks: is told of further formats in the folder.

    Raises:
        ConfigError: another ``format``.
        DataError: there is no scene.
    """
    if not os.path.lexists(path):
        raise SceneError(str(path), "does not exist", "give the folder of a scene")
    if format is not None:
        check_choice("format", format, tuple(READERS))
        return format
    held = [name for name, holds in _HOLDS.items() if holds(path)]
    if not held:
        raise SceneError(
            str(path),
            "no transforms*.json, COLMAP model (cameras, images, as .bin or .txt) or "
            "poses_bounds.npy is there",
            "give the folder that holds one; photos alone: ngp process-photos",
        )
    if len(held) > 1:
        checks.note(f"{path} is read as {held[0]}; it also holds {' and '.join(held[1:])}")
    return held[0]
