"""Checking a scene: every key and file, all problems at once, and what it holds."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.config import check_choice
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.image.data import load_image
from ngp_warp.primitives.nerf.frame import Frame, choose_frame
from ngp_warp.primitives.nerf.maps import check_depth, check_mask
from ngp_warp.primitives.nerf.photo_files import open_photo
from ngp_warp.primitives.nerf.scene import read_scene
from ngp_warp.primitives.nerf.scene.checks import Checks, Problem
from ngp_warp.primitives.nerf.scene.detect import READERS
from ngp_warp.primitives.nerf.scene.oddities import field_of_view, find_oddities, outside_box
from ngp_warp.primitives.nerf.scene.splits import SPLITS
from ngp_warp.primitives.nerf.types import Scene
from ngp_warp.radiance.settings import AABB_SCALES
from ngp_warp.rays.lenses import Lens


@dataclass(frozen=True)
class Validation:
    """What was found."""

    scene: Scene | None
    """The views that are sound; None: none could be read."""
    frame: Frame | None
    """Its box; None where there are no views, or no box can be made."""
    problems: tuple[Problem, ...]
    """Errors and warnings."""
    notes: tuple[str, ...]
    """What the reader chose."""

    @property
    def errors(self) -> list[Problem]:
        """What keeps the scene from being trained."""
        return [problem for problem in self.problems if problem.severity == "error"]

    @property
    def warnings(self) -> list[Problem]:
        """What is odd."""
        return [problem for problem in self.problems if problem.severity == "warning"]


def validate(
    path: str | Path,
    *,
    format: str | None = None,
    aabb_scale: int | None = None,
    progress: Report = report_nothing,
) -> Validation:
    """Check a scene as thoroughly as can be without training: all photos are decoded.

    Args:
        path: as `load_scene` takes it.
        format: as `load_scene` takes it.
        aabb_scale: side of the box in sides of the inner cube; None: the file's, or chosen.
        progress: is told how many photos were decoded.

    Raises:
        ConfigError: another ``format``, or ``aabb_scale`` is no power of two from 1 to 128.
    """
    if aabb_scale is not None:
        check_choice("aabb_scale", aabb_scale, AABB_SCALES)
    if format is not None:
        check_choice("format", format, tuple(READERS))
    checks = Checks(collect=True)
    scene = frame = None
    with checks.part():
        scene = read_scene(path, format, checks)
    if scene is not None and scene.views:
        with checks.part():
            frame = choose_frame(scene, aabb_scale)
        _decode(scene, checks, progress)
        if frame is not None:
            find_oddities(scene, frame, checks)
    else:
        scene = None  # its reader said why
    return Validation(scene, frame, tuple(checks.problems), tuple(checks.notes))


def _decode(scene: Scene, checks: Checks, progress: Report) -> None:
    """Decode every photo, mask and depth map."""
    for index, view in enumerate(scene.views):
        progress(Progress(stage="load", step=index, total=len(scene.views)))
        with checks.part():
            load_image(view.image)
        for path, check in ((view.mask, check_mask), (view.depth, check_depth)):
            with checks.part():
                if path is not None:
                    file = open_photo(path, [(view.lens.width, view.lens.height)])
                    check(file)
                    file.decode()


def summary_of(result: Validation) -> dict[str, Any]:
    """Return what a scene holds, as plain values for a table."""
    counts = {"errors": len(result.errors), "warnings": len(result.warnings)}
    scene, frame = result.scene, result.frame
    if scene is None:
        return counts
    views = scene.views
    splits = Counter(view.split for view in views)
    return {
        "format": scene.format,
        "views": len(views),
        **{f"{split}_views": splits[split] for split in SPLITS if splits[split]},
        "sizes": _counted(f"{v.lens.width}x{v.lens.height}" for v in views),
        "lenses": _counted(lens_name(v.lens) for v in views),
        "field_of_view": _range([field_of_view(v.lens) for v in views], "degrees"),
        "masks": sum(v.mask is not None for v in views),
        "depth_maps": sum(v.depth is not None for v in views),
        "points": 0 if scene.points is None else len(scene.points),
        **({} if frame is None else _box_summary(scene, frame)),
        **counts,
    }


def _box_summary(scene: Scene, frame: Frame) -> dict[str, Any]:
    positions = np.stack([view.pose[:, 3] for view in scene.views])
    distances = np.linalg.norm(positions - frame.centre, axis=1)
    x, y, z = frame.centre
    return {
        "aabb_scale": frame.aabb_scale,
        "box_side": frame.distance_from_box(1.0),
        "box_centre": f"{x:.4g}, {y:.4g}, {z:.4g}",
        "camera_distances": _range(distances.tolist(), "from the centre"),
        "cameras_outside": int(np.count_nonzero(outside_box(frame.to_box(positions)))),
    }


def lens_name(lens: Lens) -> str:
    """Return in words what kind of lens it is."""
    bent = [k for k in ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2") if getattr(lens, k)]
    kind = "fisheye" if lens.fisheye else "perspective" if bent else "pinhole"
    return f"{kind} with {', '.join(bent)}" if bent else kind


def _counted(names: Any) -> str:
    counts = Counter(names).most_common()
    shown = ", ".join(f"{name} ({n})" for name, n in counts[:4])
    return shown + (f" and {len(counts) - 4} more" if len(counts) > 4 else "")


def _range(values: list[float], unit: str) -> str:
    low, middle, high = min(values), float(np.median(values)), max(values)
    if high - low < 1e-4 * high:
        return f"{middle:.4g} {unit}"
    return f"{low:.4g} to {high:.4g}, median {middle:.4g} {unit}"
