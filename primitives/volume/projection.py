"""Pictures of a dense volume's values, as of scans and simulations: what a camera sees of them.

The field lies on the voxels: trilinear between their middles, and constant over the half voxel
that is beyond the outermost ones. Outside that box there is nothing. Lengths along a ray are in
voxels, so that axes with thick voxels are sampled as finely as the others, and opacities are per
voxel whatever its shape.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import check_choice, check_range
from ngp_warp.errors import ConfigError
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.pictures import linear_to_srgb, srgb_to_linear
from ngp_warp.primitives.tiles import check_memory, pixel_offsets
from ngp_warp.primitives.volume.grid import Index, check_window, checked_transform, magnitudes
from ngp_warp.primitives.volume.kernels.fields import DenseField
from ngp_warp.primitives.volume.kernels.projection import (
    project_maximum,
    project_surface,
    project_transfer,
)
from ngp_warp.primitives.volume.kernels.sight import TILE, ArrayView
from ngp_warp.primitives.volume.transfer_function import TransferFunction
from ngp_warp.rays.cameras import Camera

Kind = Literal["mip", "surface", "transfer"]
KINDS: tuple[Kind, ...] = ("mip", "surface", "transfer")
Color = tuple[float, float, float]

MAX_SPP = 4096
_ALBEDO = (0.84, 0.74, 0.62)
"""Of surfaces, linear RGB: plaster, bright enough that no side is dark."""
_CROSSING = 1e-3
"""Voxels along the ray to which a surface is narrowed."""
_EDGE = 0.06
"""Change per voxel, as a share of the transfer function's range, that is shaded as a surface."""


@dataclass(frozen=True)
class Projection:
    """A picture of values."""

    color: np.ndarray
    """float32 [h, w, 3], display values (sRGB) 0 to 1. Without a background, of what is there
    alone: not premultiplied, and black where there is nothing."""
    opacity: np.ndarray
    """float32 [h, w], 0 to 1: of a surface or a MIP the share of the pixel's rays that meet it."""
    value: np.ndarray | None = None
    """MIP: float32 [h, w], the largest value along a ray, mean of the pixel's rays; NaN where all
    miss the box."""
    depth: np.ndarray | None = None
    """Surface: float32 [h, w], distance from the camera in the world, mean of the rays that hit;
    NaN where none does."""
    normal: np.ndarray | None = None
    """Surface: float32 [h, w, 3], unit, world axes, towards the camera; 0 where nothing is hit."""


@dataclass(frozen=True)
class _Scene:
    """What all kinds of pictures need, on a device."""

    field: Any
    held: wp.array  # a struct holds addresses, which do not keep arrays
    size: Any
    view: Any
    camera: Camera
    spp: int
    step: float
    device: str
    progress: Report

    def run(
        self, kernel: Any, args: list[Any], sums: list[wp.array], *, moved: bool = False
    ) -> None:
        """Add one ray a pixel, ``spp`` times; ``moved``: each time, steps begin elsewhere."""
        n = TILE**2 * -(-self.camera.width // TILE) * -(-self.camera.height // TILE)
        for sample, offset in enumerate(pixel_offsets(self.spp).tolist()):
            # otherwise layers of equal steps would show as rings
            start = [(sample + 0.5) / self.spp] if moved else []
            ray = [self.field, self.size, self.view, wp.vec2(*offset), self.step, *start]
            launch.launch(kernel, n, [*ray, *args, *sums], self.device)
            self.progress(Progress(stage="write", step=sample + 1, total=self.spp))

    def zeros(self, *dtypes: Any) -> list[wp.array]:
        """Return an array a type, a number a pixel."""
        n = self.camera.width * self.camera.height
        return [wp.zeros(n, dtype=dtype, device=self.device) for dtype in dtypes]

    def means(self, sums: wp.array, counts: np.ndarray | float) -> np.ndarray:
        """Return sums over counts as a picture, float32 [h, w] or [h, w, 3]; NaN: of nothing."""
        values = sums.numpy()
        counts = np.broadcast_to(counts, len(values)).reshape(-1, *[1] * (values.ndim - 1))
        with np.errstate(invalid="ignore"):
            means = values / counts
        return means.reshape(self.camera.height, self.camera.width, *values.shape[1:])


def project(
    values: np.ndarray,
    to_world: np.ndarray | None,
    first: Index,
    camera: Camera,
    *,
    kind: Kind,
    level: float | None = None,
    below: bool = False,
    transfer: TransferFunction | None = None,
    shaded: bool = True,
    window: tuple[float, float] | None = None,
    spp: int = 4,
    background: Color | None = (1.0, 1.0, 1.0),
    step: float = 0.5,
    device: str = "cpu",
    progress: Report = report_nothing,
) -> Projection:
    """Return a picture of a volume.

    Args:
        values: [x, y, z], or [x, y, z, channel]: of vectors the length is shown.
        to_world: float64 [4, 4], index to world; None: the index itself.
        first: index of the first value.
        camera: in world coordinates (``camera.moved(*world_cube(...))`` for one of the unit cube).
        kind: "mip": the largest value along a ray, grey on black, as radiologists expect;
            "surface": where the field first crosses a level, in even light; where the box cuts
            what is inside, the cut is shown; "transfer": emission and absorption.
        level: of a surface; None: halfway between the smallest and the largest value, with
            ``below`` 0.
        below: inside is what lies below the level (signed distances), not above.
        transfer: colours and opacities; None: the preset "grey" over the values' range.
        shaded: whether the transfer function's colours are lit where the value changes.
        window: of a MIP: the values shown as black and white; None: the smallest and the largest.
        spp: rays a pixel.
        background: of surface and transfer, sRGB 0 to 1; None: nothing, for a transparent picture.
        step: at most so many voxels along a ray from sample to sample.
        device: "cpu" or a CUDA device.
        progress: told of the samples done.

    Raises:
        ShapeError: values of another shape, or a transform that is none.
        DataError: values that are not finite, or a singular transform.
        ConfigError: a setting out of its range.
        ResourceError: a picture that does not fit in memory.
    """
    check_choice("kind", kind, KINDS)
    check_range("spp", spp, 1, MAX_SPP)
    check_range("step", step, 1e-3, 1e3)
    check_range("level", level, -math.inf)
    if background is not None and not all(0 <= c <= 1 for c in background):
        raise ConfigError(f"the background must be three numbers from 0 to 1, got {background}")
    check_memory(camera)
    values = magnitudes(values)
    view = _view(checked_transform(to_world), first, camera)
    field, held = _field(values, device)
    size = wp.vec3(*(float(n) for n in values.shape))
    scene = _Scene(field, held, size, view, camera, spp, step, device, progress)
    if kind == "mip":
        return _maximum(scene, _window(values, window))
    if kind == "surface":
        if level is None:
            level = 0.0 if below else sum(_range(values)) / 2
        return _surface(scene, level, below, background)
    if transfer is None:
        low, high = _range(values)
        transfer = TransferFunction.preset("grey", low, high if high > low else low + 1)
    return _transfer(scene, transfer, shaded, background)


def _maximum(scene: _Scene, window: tuple[float, float]) -> Projection:
    values, counts = scene.zeros(wp.float32, wp.float32)
    scene.run(project_maximum, [], [values, counts])
    value, opacity = scene.means(values, counts.numpy()), scene.means(counts, scene.spp)
    low, high = window
    grey = np.nan_to_num(np.clip((value - low) / (high - low), 0, 1)) * opacity
    color = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
    return Projection(color=color, opacity=opacity, value=value)


def _surface(scene: _Scene, level: float, below: bool, background: Color | None) -> Projection:
    vec3: Any = wp.vec3
    colors, counts, depths, normals = scene.zeros(vec3, wp.float32, wp.float32, vec3)
    halvings = max(math.ceil(math.log2(scene.step / _CROSSING)), 0)
    args = [level, -1.0 if below else 1.0, halvings, wp.vec3(*_ALBEDO)]
    scene.run(project_surface, args, [colors, counts, depths, normals])
    opacity = scene.means(counts, scene.spp)
    normal = scene.means(normals, 1.0) @ scene.camera.camera_to_world()[:3, :3].T
    normal /= np.maximum(np.linalg.norm(normal, axis=2, keepdims=True), 1e-12)
    return Projection(
        color=_over(scene.means(colors, scene.spp), opacity, background),
        opacity=opacity,
        depth=scene.means(depths, counts.numpy()),
        normal=normal.astype(np.float32),
    )


def _transfer(
    scene: _Scene, transfer: TransferFunction, shaded: bool, background: Color | None
) -> Projection:
    vec3, vec4 = (wp.vec3, wp.vec4)
    colors, opacities = scene.zeros(vec3, wp.float32)
    table = wp.array(transfer.table(), dtype=vec4, device=scene.device)
    edge = _EDGE * (transfer.high - transfer.low) if shaded else 0.0
    args = [table, transfer.low, transfer.high, edge]
    scene.run(project_transfer, args, [colors, opacities], moved=True)
    opacity = scene.means(opacities, scene.spp)
    return Projection(
        color=_over(scene.means(colors, scene.spp), opacity, background), opacity=opacity
    )


def _over(light: np.ndarray, opacity: np.ndarray, background: Color | None) -> np.ndarray:
    """Return premultiplied linear light over a background as display values, float32 [h, w, 3]."""
    share = opacity[..., None]
    if background is None:
        light = light / np.where(share > 0, share, 1)
    else:
        light = light + (1 - share) * srgb_to_linear(np.array(background))
    return linear_to_srgb(np.clip(light, 0, 1))


def _range(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _window(values: np.ndarray, window: tuple[float, float] | None) -> tuple[float, float]:
    """Return the values shown as black and white, never the same."""
    if window is None:
        low, high = _range(values)
        return low, high if high > low else low + 1
    check_window(window)
    return window


def _field(values: np.ndarray, device: str) -> tuple[Any, wp.array]:
    """Return values as kernels take them, and the array that is to be kept while they do."""
    # interpolation needs two along each axis
    flat = [(0, int(n == 1)) for n in values.shape]
    if any(after for _, after in flat):
        values = np.pad(values, flat, mode="edge")
    array = wp.array(values, dtype=wp.float32, device=device, copy=False)
    field: Any = DenseField()
    field.values = array
    return field, array


def _view(to_world: np.ndarray, first: Index, camera: Camera) -> Any:
    """Return the camera as kernels take it."""
    pose, pixel = camera.camera_to_world(), camera.pixel_size
    linear = np.linalg.inv(to_world[:3, :3])
    view: Any = ArrayView()
    # float64 until here: world coordinates may be far from 0
    view.origin = (linear @ (pose[:3, 3] - to_world[:3, 3]) - np.array(first)).tolist()
    view.forward = (linear @ -pose[:3, 2]).tolist()
    view.right, view.up = ((linear @ pose[:3, a] * pixel).tolist() for a in range(2))
    view.pixel = pixel
    # gradients go by the inverse transpose, mirrored volumes included
    view.to_camera = wp.mat33(*(pose[:3, :3].T @ linear.T).ravel().tolist())
    view.width, view.height = camera.width, camera.height
    return view
