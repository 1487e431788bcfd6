"""Rows of the comparison of devices: distances to meshes and through fields, volumes, light."""

import functools
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_compare import Arrays, Row, Side, Tolerance, to_device, zeros
from benchmarks.made_inputs import cloud, torus
from ngp_warp.config import GridEncodingConfig, NetworkConfig, OptimizerConfig, TrainingConfig
from ngp_warp.encodings.grid import resolve
from ngp_warp.field import Field
from ngp_warp.launch import run_stages
from ngp_warp.primitives.sdf.samples import Batches
from ngp_warp.primitives.sdf.sign import SIGNS
from ngp_warp.primitives.sdf.truth import SignedDistance
from ngp_warp.primitives.volume.config import VolumeConfig
from ngp_warp.primitives.volume.describe import load
from ngp_warp.primitives.volume.grid import Volume, world_cube
from ngp_warp.primitives.volume.light import Light
from ngp_warp.primitives.volume.medium import Medium
from ngp_warp.primitives.volume.neural_tracer import NeuralTracer
from ngp_warp.primitives.volume.path_tracer import PathTracer
from ngp_warp.primitives.volume.projection import KINDS, project
from ngp_warp.primitives.volume.radiance_task import RadianceTask
from ngp_warp.primitives.volume.task import DensityTask, estimate
from ngp_warp.primitives.volume.transport import collisions, transmittances
from ngp_warp.rays.cameras import orbit
from ngp_warp.rays.sphere_trace import SphereTracer

DISTANCE = Tolerance(1e-4, "float32 distances, of points at an edge to either face", outliers=1e-3)
TRACED = Tolerance(2e-3, "marches that end within 1e-5 of the surface; rays that graze it",
                   outliers=1e-2)  # fmt: skip
HIT = Tolerance(0.0, "truth values; rays that graze the surface", outliers=5e-3)
# One decision of a path that falls otherwise makes another path of it.
PATHS = Tolerance(2e-3, "float32; paths whose decision lies within rounding go another way",
                  outliers=2e-2)  # fmt: skip
PIXELS = Tolerance(2e-3, "float32 along rays; edges of surfaces and of the box", outliers=1e-2)
# A point has 128 paths of a hundred decisions each, and one of them weighs a hundredth.
MEANS = Tolerance(1e-2, "means of paths, of which one may go another way", outliers=0.1)
MOMENTS = Tolerance(2e-3, "float32 sums, places in cells", whole=True)
LIT_MOMENTS = Tolerance(3e-2, "float32 sums over paths, a few of which go another way", whole=True)
SAMPLED = Tolerance(1e-4, "one rounding of float32 where it is fused; picks at edges of faces",
                    outliers=2e-3)  # fmt: skip

_LIGHT = Light(sun_azimuth=40.0, sun_elevation=50.0)


def _truth(sign: Any, side: Side) -> SignedDistance:
    search = "portable" if side.serves_cuda else None
    return SignedDistance(*torus(48, 24), sign, side.device, search)


def _distance(small: bool, sign: str, side: Side) -> Arrays:
    points = np.random.default_rng(0).random((2**11 if small else 2**16, 3), dtype=np.float32)
    truth = _truth(sign, side)
    return {"distance": truth.query(points), "near": truth.query(points, 0.05)}


def _batches(small: bool, sign: str, side: Side) -> Arrays:
    """A mesh's samples after two steps."""
    n = 2**11 if small else 2**14
    step = to_device(np.array([0], np.int64), side.device)
    x, target = zeros(n * 3, side.device), zeros(n, side.device)
    batches = Batches(_truth(sign, side), n, 3, step, x, target)
    for number in (1, 2):
        step.fill_(number)
        run_stages(batches.stages())
    return {"x": x.numpy(), "target": target.numpy()}


def _ball(device: str, resolution: int = 64) -> Field:
    """A field that interpolates a ball's distance: one dense level, a network that adds nothing."""
    encoding = GridEncodingConfig(
        grid_type="dense", n_levels=1, n_features_per_level=1, base_resolution=resolution,
        per_level_scale=1.0,
    )  # fmt: skip
    field = Field(
        3, 1, encoding=resolve(encoding), network=NetworkConfig(n_hidden_layers=0),
        optimizer=OptimizerConfig(), seed=0, device=device, trainable=False,
    )  # fmt: skip
    (level,) = field.encoding.levels
    n = level.resolution
    axis = (np.arange(n) - 0.5) / level.scale  # vertex i lies where x * scale + 0.5 = i
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    table = np.zeros(field.table.value.size, np.float32)
    table[: n**3] = (np.sqrt((x - 0.5) ** 2 + (y - 0.5) ** 2 + (z - 0.5) ** 2) - 0.3).reshape(-1)
    field.table.value.assign(table)
    field.weights.value.fill_(1.0)
    return field


def _trace(small: bool, side: Side) -> Arrays:
    camera = orbit(30, 20, 1.6, width=48 if small else 256, height=48 if small else 256)
    y, x = np.mgrid[0 : camera.height, 0 : camera.width]
    pose, n = camera.camera_to_world(), x.size
    half = camera.height / 2
    tangent = np.tan(np.radians(camera.fov / 2))
    local = np.stack([(x + 0.5) / half - 1, 1 - (y + 0.5) / half, np.full(x.shape, -1 / tangent)])
    d = local.reshape(3, n).T @ pose[:3, :3].T
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    found = SphereTracer(_ball(side.device)).trace(np.tile(pose[:3, 3], (n, 1)), d, margin=0.1)
    return {"t": found.t, "hit": found.hit, "clearance": found.clearance}


@functools.cache
def _volume(n_channels: int) -> Volume:
    values = cloud(40)
    if n_channels > 1:
        values = np.stack([values, np.roll(values, 5, 0), np.roll(values, 9, 1)], axis=-1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cloud.npy"
        np.save(path, values)
        return load(path, VolumeConfig())


def _config(volume: Volume, device: str, **changes: Any) -> VolumeConfig:
    config = VolumeConfig(
        encoding=GridEncodingConfig(n_levels=4, n_features_per_level=4, log2_hashmap_size=14),
        network=NetworkConfig(n_neurons=32, n_hidden_layers=1, backend="unfused"),
        training=TrainingConfig(batch_size=2**12, steps=1),
        **changes,
    )
    return estimate(volume, config, device)[0]


def _density_step(n_channels: int, target: Any, side: Side) -> Arrays:
    volume = _volume(n_channels)
    config = _config(volume, side.device, target=target)
    task = DensityTask(volume, config, side.device)
    run_stages(task.stages())
    return {n: p.first_moment.numpy() for n, p in task.field.parameters().items()}


def _radiance_task(side: Side) -> RadianceTask:
    volume = _volume(1)
    config = _config(volume, side.device, mode="radiance")
    return RadianceTask(volume, config, side.device)


def _radiance_step(side: Side) -> Arrays:
    """Light at points, and a step on paths that the pool holds."""
    task = _radiance_task(side)
    run_stages(task.stages())
    moments = {n: p.first_moment.numpy() for n, p in task.field.parameters().items()}
    return {**moments, "light at points": task._truth, "majorants": task.field.majorants.numpy()}


def _medium(side: Side) -> Medium:
    return Medium.from_values(cloud(40), device=side.device)


def _light(small: bool, side: Side) -> Arrays:
    """Transmittances, collisions and densities."""
    medium, rng, n = _medium(side), np.random.default_rng(0), 2**9 if small else 2**13
    low, high = np.array([0.0, 0, 0]), np.array([40.0, 40, 40])
    origins = rng.uniform(low - 20, high + 20, (n, 3))
    directions = rng.uniform(low + 10, high - 10, (n, 3)) - origins
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found = {"density": medium.densities(rng.uniform(low, high, (n, 3)))}
    for method in ("ratio", "delta"):
        made = transmittances(medium, origins, directions, spp=8, method=method)
        found[method] = made.mean
    hits = collisions(medium, _LIGHT, origins, directions)
    return {**found, "hit": hits.hit, "points": hits.points, "radiance": hits.radiances}


def _pictures(small: bool, learned: bool, side: Side) -> Arrays:
    size = 24 if small else 128
    if learned:
        task = _radiance_task(side)
        camera = orbit(30, 20, 1.8, width=size, height=size).moved(*task.medium.cube)
        rng = np.random.default_rng(0)
        # densities about half of the largest, so that rays collide
        weights = task.field.weights
        weights.assign(np.abs(rng.normal(size=weights.value.size)).astype(np.float32) * 0.2)
        table = task.field.table
        table.assign(rng.random(table.value.size, dtype=np.float32))
        tracer: Any = NeuralTracer(task.field, _LIGHT, camera)
    else:
        medium = _medium(side)
        camera = orbit(30, 20, 1.8, width=size, height=size).moved(*medium.cube)
        tracer = PathTracer(medium, _LIGHT, camera)
    tracer.add(2)
    picture = tracer.picture()
    return {"color": picture.color, "opacity": picture.opacity}


def _projection(small: bool, kind: Any, side: Side) -> Arrays:
    values, size = cloud(40), 48 if small else 256
    camera = orbit(35, 25, 1.9, width=size, height=size)
    camera = camera.moved(*world_cube(values.shape, np.eye(4), (0, 0, 0)))
    found = project(values, None, (0, 0, 0), camera, kind=kind, device=side.device)
    arrays = {"color": found.color, "opacity": found.opacity, "value": found.value}
    arrays |= {"depth": found.depth, "normal": found.normal}
    return {name: a for name, a in arrays.items() if a is not None}


def rows(small: bool) -> list[Row]:
    """Return the rows of this module."""
    made = []
    for sign in SIGNS:
        run = partial(_distance, small, sign)
        made.append(Row(f"distances, sign {sign}", run, DISTANCE, on_cpu=True))
        if small and sign != "normal":
            continue  # a pool of these takes seconds to fill by the slower kernels
        run = partial(_batches, small, sign)
        made.append(Row(f"samples of a mesh, sign {sign}", run, SAMPLED, on_cpu=True))
    made.append(Row("sphere tracing", partial(_trace, small), TRACED, {"hit": HIT}))
    light = {"light at points": MEANS, "majorants": Tolerance(0.0, "copied")}
    hits = {"hit": HIT, "density": replace(PATHS, outliers=0.0)}
    made += [
        Row("volume step", partial(_density_step, 1, None), MOMENTS),
        Row("volume step of vectors, trilinear", partial(_density_step, 3, "trilinear"), MOMENTS),
        Row("volume's light, step", _radiance_step, LIT_MOMENTS, light),
        Row("volume's light, rays", partial(_light, small), PATHS, hits),
        Row("volume, path traced", partial(_pictures, small, False), PATHS),
        Row("volume, learned", partial(_pictures, small, True), PATHS),
    ]
    for kind in KINDS:
        made.append(Row(f"projection, {kind}", partial(_projection, small, kind), PIXELS))
    return made
