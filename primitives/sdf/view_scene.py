"""What the Open3D window shows: the original, the result beside it, labels and a colour scale.

Everything is in the picture's frame: the original's largest extent is 1, y points up, and the two
stand side by side along the axis that points to the right.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.sdf.open3d_loader import load_open3d
from ngp_warp.primitives.sdf.raycasting import Raycasting

Mesh = tuple[np.ndarray, np.ndarray]

_AZIMUTH, _ELEVATION = np.radians(25.0), np.radians(12.0)
_GAP = 0.15
_TEXT_HEIGHT = 0.045
# Open3D's letters are about this many units high.
_LETTER = 13.0
_N_COLORS = 16
_ORIGINAL_COLOR = (0.78, 0.78, 0.78)
_RESULT_COLOR = (0.55, 0.70, 0.90)


def camera_axes() -> np.ndarray:
    """Return float64 [3, 3]: unit vectors to the right, up and towards the viewer, as rows."""
    front = np.array(
        [
            np.sin(_AZIMUTH) * np.cos(_ELEVATION),
            np.sin(_ELEVATION),
            np.cos(_AZIMUTH) * np.cos(_ELEVATION),
        ]
    )
    right = np.cross([0.0, 1.0, 0.0], front)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(front, right), front])


@dataclass(frozen=True)
class Scene:
    """Open3D geometry.

    Attributes:
        meshes: of the original and the result, lit.
        labels: their names, unlit.
        legend: the colour scale; shown with the error colours only.
        errors: float64 [n], every vertex of the result: distance to the original, input units.
        colors: float64 [n, 3], the same as colours from 0 to 1.
    """

    meshes: tuple[Any, Any]
    labels: list[Any]
    legend: list[Any]
    errors: np.ndarray
    colors: np.ndarray

    def color(self, error_colors: bool) -> None:
        """Colour the result by its distance to the original, or plainly."""
        result = self.meshes[1]
        if error_colors:
            result.vertex_colors = load_open3d().utility.Vector3dVector(self.colors)
        else:
            result.paint_uniform_color(_RESULT_COLOR)

    def bounds(self, with_legend: bool) -> np.ndarray:
        """Return float64 [2, 3], the least and greatest coordinates along ``camera_axes``."""
        shown = [*self.meshes, *self.labels, *(self.legend if with_legend else ())]
        points = np.concatenate([np.asarray(one.vertices) for one in shown]) @ camera_axes().T
        return np.stack([points.min(axis=0), points.max(axis=0)])


def build_scene(original: Mesh, result: Mesh, up: str) -> Scene:
    """Place both meshes, label them and measure the result's vertices.

    Args:
        original: vertices float [n, 3] in input units and faces integer [m, 3].
        result: the same of the extracted mesh, in the same units and position.
        up: the input's axis that points up, "y" or "z".

    Raises:
        DataError: one of them has no faces, or the original has no extent.
    """
    first, second, scale = _placed(original, result, up)
    errors = Raycasting(*first, distance_only=True).distance(second[0]) / scale
    axes = camera_axes()
    left, right = first[0] @ axes.T, second[0] @ axes.T
    right[:, 0] += _GAP + left[:, 0].max() - right[:, 0].min()
    bottom = min(left[:, 1].min(), right[:, 1].min()) - 0.6 * _GAP
    middles = [float(p[:, 0].min() + p[:, 0].max()) / 2 for p in (left, right)]
    top = round_up(float(np.percentile(errors, 99)))
    scene = Scene(
        meshes=(_mesh(*first), _mesh(right @ axes, second[1])),
        labels=[
            _text(text, (middle, bottom), axes)
            for text, middle in zip(("original", "result"), middles, strict=True)
        ],
        legend=_legend(top, (middles[1], bottom - 0.1), axes),
        errors=errors.astype(np.float64),
        colors=_colors(errors / top),
    )
    scene.meshes[0].paint_uniform_color(_ORIGINAL_COLOR)
    return scene


def _placed(original: Mesh, result: Mesh, up: str) -> tuple[Mesh, Mesh, float]:
    """Return both without unused vertices in the picture's frame, and its scale."""
    meshes = []
    for name, (vertices, faces) in (("original", original), ("result", result)):
        if len(faces) == 0:
            raise DataError(f"the {name} has no faces: there is nothing to show")
        used, index = np.unique(np.asarray(faces), return_inverse=True)
        meshes.append((np.asarray(vertices, np.float64)[used], index.reshape(-1, 3)))
    corners = meshes[0][0]
    centre = (corners.min(axis=0) + corners.max(axis=0)) / 2
    extent = float(np.ptp(corners, axis=0).max())
    if not 0 < extent < np.inf:
        raise DataError("the original has no extent: there is nothing to show")
    first, second = ((_upright((v - centre) / extent, up), f) for v, f in meshes)
    return first, second, 1.0 / extent


def round_up(value: float) -> float:
    """Return the next of 1, 2 and 5 times a power of ten; 1e-12 for what is smaller."""
    value = max(value, 1e-12)
    power = 10.0 ** np.floor(np.log10(value))
    # 1 + 1e-9: 0.02 / 0.01 is a little more than 2
    return float(next(m * power for m in (1, 2, 5, 10) if value <= m * power * (1 + 1e-9)))


def _upright(points: np.ndarray, up: str) -> np.ndarray:
    return points if up == "y" else points[:, [0, 2, 1]] * [1.0, 1.0, -1.0]


def _colors(share: np.ndarray) -> np.ndarray:
    from matplotlib import colormaps

    return np.asarray(colormaps["turbo"](np.clip(share, 0.0, 1.0)), np.float64)[:, :3]


def _mesh(vertices: np.ndarray, faces: np.ndarray, lit: bool = True) -> Any:
    o3d = load_open3d()
    mesh = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(vertices),
        o3d.utility.Vector3iVector(np.asarray(faces, np.int32)),
    )
    if lit:  # Open3D shows a mesh without normals in its plain colours.
        mesh.compute_vertex_normals()
    return mesh


def _text(text: str, middle: tuple[float, float], axes: np.ndarray) -> Any:
    """Return a line of text that faces the viewer, its upper edge's middle at ``middle``."""
    letters = load_open3d().t.geometry.TriangleMesh.create_text(text, depth=0.0)
    points = letters.vertex.positions.numpy().astype(np.float64) * (_TEXT_HEIGHT / _LETTER)
    points[:, 0] += middle[0] - (points[:, 0].min() + points[:, 0].max()) / 2
    points[:, 1] += middle[1] - points[:, 1].max()
    mesh = _mesh(points @ axes, letters.triangle.indices.numpy(), lit=False)
    mesh.paint_uniform_color((0.1, 0.1, 0.1))
    return mesh


def _legend(top: float, middle: tuple[float, float], axes: np.ndarray) -> list[Any]:
    """Return the colour scale, 0 to ``top``, its upper edge's middle at ``middle``."""
    width, height = 0.8, 0.035
    left, upper = middle[0] - width / 2, middle[1]
    x = left + width * np.arange(_N_COLORS)[:, None] / _N_COLORS
    step = width / _N_COLORS
    points = np.zeros((_N_COLORS, 4, 3))
    points[:, :, 0] = x + np.array([0.0, step, step, 0.0])
    points[:, :, 1] = upper - height * np.array([1.0, 1.0, 0.0, 0.0])
    quad = np.array([[0, 1, 2], [0, 2, 3]])
    faces = (4 * np.arange(_N_COLORS)[:, None, None] + quad).reshape(-1, 3)
    bar = _mesh(points.reshape(-1, 3) @ axes, faces, lit=False)
    shares = np.repeat((np.arange(_N_COLORS) + 0.5) / _N_COLORS, 4)
    bar.vertex_colors = load_open3d().utility.Vector3dVector(_colors(shares))
    below = upper - height - 0.015
    ticks = [
        _text(text, (left + share * width, below), axes)
        for share, text in ((0.0, "0"), (0.5, f"{top / 2:g}"), (1.0, f"{top:g}+"))
    ]
    title = _text("distance to the original, input units", (middle[0], below - 0.06), axes)
    return [bar, *ticks, title]
