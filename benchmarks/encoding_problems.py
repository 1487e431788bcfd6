"""What encodings are compared on: a picture and a mesh."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import warp as wp

from benchmarks.encoded_field import Stages
from benchmarks.encodings import Problem
from benchmarks.training_step import read_photo
from ngp_warp import launch, samplers
from ngp_warp.primitive import report_nothing
from ngp_warp.primitives.image.kernels import target_kernel
from ngp_warp.primitives.sdf.config import SdfConfig
from ngp_warp.primitives.sdf.data import load
from ngp_warp.primitives.sdf.samples import Batches, surface_points, uniform_points
from ngp_warp.primitives.sdf.truth import SignedDistance
from ngp_warp.views import flat_view

_SIDE = 1024
_EVALUATED = 2**18
_SURFACE = 2**19


def image_problem(path: Path) -> Problem:
    """Return the middle of a photo, at most 1024 pixels a side; PSNR of all pixels in 8 bits.

    Raises:
        DataError: it is no 8-bit RGB photo.
    """
    photo = read_photo(path)
    top, left = (max((n - _SIDE) // 2, 0) for n in photo.shape[:2])
    pixels = np.ascontiguousarray(photo[top : top + _SIDE, left : left + _SIDE])
    height, width = pixels.shape[:2]
    rows, columns = np.indices((height, width)).reshape(2, -1)
    points = np.stack([(columns + 0.5) / width, (rows + 0.5) / height], axis=1)

    def draw(step: wp.array, x: wp.array, target: wp.array) -> Stages:
        sample = samplers.sample("stratified", 2, 0, step, x, "cpu")
        kernel = target_kernel(wp.uint8, 3, bilinear=False, asinh=False)
        args = [flat_view(pixels, "cpu"), width, height, 1 / 255, x, target]
        return [[sample], [launch.record(kernel, x.size // 64, args, "cpu")]]

    def measure(query: Callable[[np.ndarray], np.ndarray]) -> float:
        found = np.rint(np.clip(query(points), 0, 1) * 255)
        error = np.square(found - pixels.reshape(-1, 3)).mean(dtype=np.float64)
        return -10 * math.log10(max(float(error) / 255**2, 1e-12))

    # the octree grows where neighbours differ most
    grey = pixels.mean(axis=2)
    contrast = np.hypot(*np.gradient(grey)).reshape(-1)
    order = np.argsort(-contrast, kind="stable")
    return Problem(
        "image", "PSNR", 2, 3, "l2", max(width, height), (6e-3, 1e-3), draw, measure, points[order]
    )


def mesh_problem(path: Path) -> Problem:
    """Return a mesh's signed distance; IoU of points that are uniform in the unit cube.

    Raises:
        DataError: the mesh cannot be read.
    """
    data = load(path, SdfConfig(), report_nothing)
    truth = SignedDistance(*data.unit_mesh, data.sign, "cpu")
    points = uniform_points(_EVALUATED, 0x454E43)
    inside = truth.query(points) < 0

    def draw(step: wp.array, x: wp.array, target: wp.array) -> Stages:
        return Batches(truth, target.size, 0, step, x, target).stages()

    def measure(query: Callable[[np.ndarray], np.ndarray]) -> float:
        found = query(points)[:, 0] < 0
        return np.count_nonzero(found & inside) / max(np.count_nonzero(found | inside), 1)

    surface = surface_points(truth, _SURFACE, 1)
    return Problem("distance", "IoU", 3, 1, "mape", 1024, (3e-3, 3e-4), draw, measure, surface)
