"""What encodings are compared on: a picture, a mesh and a scene."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from benchmarks.encoded_field import EncodedField, Stages
from benchmarks.encodings import Fitted, Problem
from benchmarks.table_encoding import TableEncoding
from benchmarks.training_step import read_photo
from benchmarks.visual_hull import visual_hull
from ngp_warp import launch, samplers
from ngp_warp.config import (
    GridEncodingConfig,
    Loss,
    NetworkConfig,
    OptimizerConfig,
    TrainingConfig,
)
from ngp_warp.encodings.encoding import Encoding
from ngp_warp.primitive import report_nothing
from ngp_warp.primitives.image.kernels import target_kernel
from ngp_warp.primitives.nerf.config import NerfConfig
from ngp_warp.primitives.nerf.data import load as load_scene
from ngp_warp.primitives.nerf.finish import measure as evaluate
from ngp_warp.primitives.nerf.task import NerfTask, estimate
from ngp_warp.primitives.sdf.config import SdfConfig
from ngp_warp.primitives.sdf.data import load
from ngp_warp.primitives.sdf.samples import Batches, surface_points
from ngp_warp.primitives.sdf.truth import SignedDistance
from ngp_warp.trainer import Trainer
from ngp_warp.views import flat_view

_EVALUATED = 2**18
_MOST_PIXELS = 2**22
"""Pixels, about, in which a picture is measured."""
_SURFACE, _SURFACE_RESOLUTION = 2**22, 512
"""Points of a mesh, and cells along an axis of which they miss few (4% of the armadillo's)."""
_NEAR = 0.01
"""Half the side of cubes about surface points in which a distance is measured, in unit space."""

Query = Callable[[np.ndarray], np.ndarray]
"""Values float32 [n, n_outputs] at points [n, n_dims] of the unit cube."""


def fitting(
    n_outputs: int,
    loss: Loss,
    draw: Callable[..., Stages],
    measure: Callable[[Query], float],
    n_points: int = 2**15,
) -> Callable[[Encoding, NetworkConfig, OptimizerConfig, TrainingConfig], Fitted]:
    """Return the ``fit`` of a problem of samples.

    Args:
        n_outputs: values of a point.
        loss: of the values.
        draw: (step, x, target) -> stages that fill a batch of points and their values.
        measure: values at points -> the metric.
        n_points: of a batch.
    """

    def fit(
        encoding: Encoding,
        network: NetworkConfig,
        optimizer: OptimizerConfig,
        length: TrainingConfig,
    ) -> Fitted:
        field = EncodedField(encoding, network, n_outputs, optimizer)
        n_steps = field.train(draw, n_points, loss, length.seconds, length.steps or 0)
        return Fitted(field.n_params, n_steps, measure(field.query))

    return fit


def image_problem(path: Path, name: str = "image", side: int = 0) -> Problem:
    """Return a photo, or its middle of ``side`` pixels; PSNR in 8 bits of its pixels or a part.

    Raises:
        DataError: it is no 8-bit RGB photo.
    """
    photo = read_photo(path)
    side = side or max(photo.shape[:2])
    top, left = (max((n - side) // 2, 0) for n in photo.shape[:2])
    pixels = np.ascontiguousarray(photo[top : top + side, left : left + side])
    height, width = pixels.shape[:2]
    rows, columns = np.indices((height, width)).reshape(2, -1)
    points = np.stack([(columns + 0.5) / width, (rows + 0.5) / height], axis=1)
    skip = max(len(points) // _MOST_PIXELS, 1)

    def draw(step: wp.array, x: wp.array, target: wp.array) -> Stages:
        sample = samplers.sample("stratified", 2, 0, step, x, "cpu")
        kernel = target_kernel(wp.uint8, 3, bilinear=False, asinh=False)
        args = [flat_view(pixels, "cpu"), width, height, 1 / 255, x, target]
        return [[sample], [launch.record(kernel, x.size // 64, args, "cpu")]]

    def measure(query: Query) -> float:
        found = np.rint(np.clip(query(points[::skip]), 0, 1) * 255)
        error = np.square(found - pixels.reshape(-1, 3)[::skip]).mean(dtype=np.float64)
        return -10 * math.log10(max(float(error) / 255**2, 1e-12))

    finest = max(width, height)
    fit = fitting(3, "l2", draw, measure)
    return Problem(name, "PSNR", 2, finest, (6e-3, 1e-3), fit, points, finest)


def mesh_problem(path: Path) -> Problem:
    """Return a mesh's signed distance; IoU of points near the surface: an octree knows no others.

    Raises:
        DataError: the mesh cannot be read.
    """
    data = load(path, SdfConfig(), report_nothing)
    truth = SignedDistance(*data.unit_mesh, data.sign, "cpu")
    rng = np.random.default_rng(0x454E43)
    near = surface_points(truth, _EVALUATED, 2) + rng.uniform(-_NEAR, _NEAR, (_EVALUATED, 3))
    points = np.clip(near, 0, 1).astype(np.float32)
    inside = truth.query(points) < 0

    def draw(step: wp.array, x: wp.array, target: wp.array) -> Stages:
        return Batches(truth, target.size, 0, step, x, target).stages()

    def measure(query: Query) -> float:
        found = query(points)[:, 0] < 0
        return np.count_nonzero(found & inside) / max(np.count_nonzero(found | inside), 1)

    surface = surface_points(truth, _SURFACE, 1)
    fit = fitting(1, "mape", draw, measure)
    return Problem("distance", "IoU", 3, 1024, (3e-3, 3e-4), fit, surface, _SURFACE_RESOLUTION)


def scene_problem(path: Path, *, hull_resolution: int = 256, **settings: Any) -> Problem:
    """Return a scene's radiance field; PSNR of the views held back, as ``ngp nerf`` has it.

    All encodings are trained by ``ngp nerf``'s own loop, in stages of whole batches.

    Args:
        path: what ``ngp nerf`` takes.
        hull_resolution: cells along an axis in which the object is looked for; see ``visual_hull``.
        settings: of ``NerfConfig``, for all.

    Raises:
        DataError: the scene cannot be read, or its photos have no opacity.
    """
    # the encoding says no more than how its table, which is another's, is stored
    base = NerfConfig(encoding=GridEncodingConfig(dtype="float32"), **settings)
    data = load_scene(path, base, report_nothing)
    resolved, _ = estimate(data, base, "cpu")

    def fit(
        encoding: Encoding,
        network: NetworkConfig,
        optimizer: OptimizerConfig,
        length: TrainingConfig,
    ) -> Fitted:
        training = replace(resolved.training, seconds=length.seconds, steps=length.steps)
        config = replace(resolved, density_network=network, optimizer=optimizer, training=training)
        task = NerfTask(data, config, "cpu", TableEncoding(encoding))
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "checkpoints").mkdir()
            state = Trainer(task, training, Path(folder), {}, report_nothing).train()
        task.field.use_average()
        psnr = evaluate(task.field, data, report_nothing).metrics["psnr"]
        return Fitted(task.field.n_params, state.step, psnr)

    hull = visual_hull(data.train, data.frame, hull_resolution)
    finest = int(resolved.encoding.finest_resolution or 0)
    network = base.density_network
    return Problem("scene", "PSNR", 3, finest, (1e-2, 1e-3), fit, hull, hull_resolution, network)
