"""A picture of a scene: cameras, sparse points and the box from three sides."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.files import atomic_path
from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.primitives.nerf.scene.oddities import pinhole_directions
from ngp_warp.primitives.nerf.scene.splits import SPLITS
from ngp_warp.primitives.nerf.types import Scene, View
from ngp_warp.primitives.pictures import make_figure

_SIDES = ((0, 1, "xy"), (0, 2, "xz"), (1, 2, "yz"))
_COLORS = {"train": "C0", "val": "C2", "test": "C3"}
_MOST_POINTS = 20_000
_FRUSTUM = 0.05  # of the picture's width
_MARGIN = 1.1


def draw_scene(path: Path, scene: Scene, frame: Frame) -> None:
    """Write a PNG with three orthogonal views in scene units.

    The picture shows the inner cube, the cameras and most of the sparse points; of a larger box as
    much as is then in sight.

    Args:
        path: the picture.
        scene: with at least one view.
        frame: its box.

    Raises:
        ResourceError: the folder cannot be written, or the disk is full.
    """
    low, high = _limits(scene, frame)
    length = _FRUSTUM * float((high - low).max())
    frusta = {split: _frusta(scene.views, split, length) for split in SPLITS}
    figure = make_figure(18.0, 7.0)
    for column, (a, b, name) in enumerate(_SIDES):
        axes = figure.add_subplot(1, 3, column + 1, aspect="equal")
        _draw_points(axes, scene, a, b)
        for split in SPLITS:
            _draw_frusta(axes, frusta[split], a, b, _COLORS[split])
        _draw_cubes(axes, frame, a, b)
        axes.set_xlim(low[a], high[a])
        axes.set_ylim(low[b], high[b])
        axes.set_xlabel(name[0])
        axes.set_ylabel(name[1])
        axes.grid(alpha=0.2)
    figure.legend(handles=_legend(scene, frame), loc="outside lower center", ncols=6)
    figure.suptitle(f"{scene.path.name}: {len(scene.views)} views, in the scene's units")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _limits(scene: Scene, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of a cube that holds what the picture is to show."""
    half = 0.5 / frame.aabb_scale
    corners = [frame.to_scene(np.array([[0.5 - half] * 3, [0.5 + half] * 3]))]
    corners.append(np.stack([view.pose[:, 3] for view in scene.views]))
    if scene.points is not None:
        corners.append(np.quantile(scene.points, (0.05, 0.95), axis=0))
    everything = np.concatenate(corners)
    middle = (everything.min(axis=0) + everything.max(axis=0)) / 2
    side = float(np.ptp(everything, axis=0).max()) / 2 * _MARGIN
    return middle - side, middle + side


def _frusta(views: Sequence[View], split: str, length: float) -> np.ndarray:
    """Return the cameras of a split as polylines [n, 11, 3] in scene units."""
    lines = []
    for view in views:
        if view.split != split:
            continue
        lens = view.lens
        u = np.array([0.0, lens.width, lens.width, 0.0])
        v = np.array([0.0, 0.0, lens.height, lens.height])
        directions = pinhole_directions(lens, u, v)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        position = view.pose[:, 3]
        corners = position + length * directions @ view.pose[:, :3].T
        a, b, c, d = corners
        lines.append([position, a, b, position, c, d, position, a, d, c, b])
    return np.array(lines).reshape(-1, 11, 3)


def _draw_frusta(axes: Any, frusta: np.ndarray, a: int, b: int, color: str) -> None:
    from matplotlib.collections import LineCollection

    lines = [line[:, [a, b]] for line in frusta]
    axes.add_collection(LineCollection(lines, colors=color, linewidths=0.7, zorder=3))


def _draw_points(axes: Any, scene: Scene, a: int, b: int) -> None:
    if scene.points is not None:
        points = scene.points[:: max(1, len(scene.points) // _MOST_POINTS)]
        axes.plot(points[:, a], points[:, b], ",", color="0.5", zorder=1)


def _draw_cubes(axes: Any, frame: Frame, a: int, b: int) -> None:
    from matplotlib.patches import Rectangle

    cubes = {0.5 / frame.aabb_scale: "--", 0.5: "-"}  # the inner cube may be the box
    for half, style in cubes.items():
        low, high = frame.to_scene(np.array([[0.5 - half] * 3, [0.5 + half] * 3]))
        side = high[a] - low[a]
        axes.add_patch(
            Rectangle((low[a], low[b]), side, side, fill=False, ls=style, ec="k", zorder=2)
        )


def _legend(scene: Scene, frame: Frame) -> list[Any]:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color="k", label=f"box (aabb_scale {frame.aabb_scale})")]
    if frame.aabb_scale > 1:
        handles.append(Line2D([], [], color="k", linestyle="--", label="inner cube"))
    for split in SPLITS:
        count = sum(view.split == split for view in scene.views)
        if count:
            handles.append(Line2D([], [], color=_COLORS[split], label=f"{count} {split} views"))
    if scene.points is not None:
        label = f"{len(scene.points)} sparse points"
        handles.append(Line2D([], [], color="0.5", marker=".", linestyle="", label=label))
    return handles
