"""Scenes of every common format to `Scene`: what the format is, and which reader takes it."""

from collections.abc import Callable
from pathlib import Path

from ngp_warp.primitives.nerf.scene.checks import Checks
from ngp_warp.primitives.nerf.scene.detect import READERS, detect
from ngp_warp.primitives.nerf.types import Scene

__all__ = ["load_scene", "read_scene"]


def load_scene(
    path: str | Path,
    *,
    format: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Scene:
    """Read a scene: poses, lenses and where the photos are; of the photos only their headers.

    Args:
        path: the folder, a transforms*.json, a folder of a COLMAP model, or a poses_bounds.npy.
        format: "transforms", "colmap" or "llff"; None: what the folder holds, in this order.
        report: is given a line for each thing that is worth knowing and no error.

    Returns:
        The scene, with at least one view.

    Raises:
        ConfigError: another ``format``.
        DataError: the first thing that is wrong: where, what, and how to mend it.
    """
    return read_scene(path, format, Checks(report=report))


def read_scene(path: str | Path, format: str | None, checks: Checks) -> Scene:
    """Read a scene as `load_scene`, with the given treatment of what is wrong."""
    path = Path(path)
    return READERS[detect(path, format, checks)](path, checks)
