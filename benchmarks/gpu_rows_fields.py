"""Rows of the comparison of devices: radiance fields, their marching and their pictures."""

from functools import partial
from typing import Any

import numpy as np
import warp as wp

from benchmarks.gpu_compare import Arrays, Row, Side, Tolerance
from ngp_warp import launch
from ngp_warp.config import GridEncodingConfig, NetworkConfig, OptimizerConfig
from ngp_warp.encodings.grid import resolve
from ngp_warp.kernels import occupancy
from ngp_warp.launch import run_stages
from ngp_warp.radiance.batch import RayBatch, make_batch
from ngp_warp.radiance.field import RadianceField
from ngp_warp.radiance.marching import Samples, make_lattice
from ngp_warp.radiance.settings import CELLS, RadianceSettings
from ngp_warp.radiance.vanilla import VanillaField, VanillaSettings
from ngp_warp.radiance.viewed import FieldView
from ngp_warp.rays.cameras import Camera
from ngp_warp.rays.lenses import Lens

# A sample at a cell's face is marched on one device and skipped on the other.
RAYS = Tolerance(2e-3, "float32 steps along rays; samples at faces of cells", outliers=2e-2)
MARCHED = Tolerance(0.0, "whole numbers; a sample at a cell's face may be left out", outliers=2e-2)
MOMENTS = Tolerance(2e-3, "float32 sums over samples, some of them at faces of cells", whole=True)
HALF_RAYS = Tolerance(3e-2, "half operands on tensor cores, float32 on a CPU", outliers=2e-2)
HALF_MOMENTS = Tolerance(0.1, "half operands, and signs of ReLUs' sums within them", whole=True)
CELL_BITS = Tolerance(0.0, "cells whose value is within rounding of the threshold", outliers=1e-3)
VALUES = Tolerance(2e-3, "float32 exponentials of network outputs, places in cells", outliers=1e-3)
COPIES = Tolerance(0.0, "bytes that are copied")

UNFUSED = NetworkConfig(n_neurons=32, n_hidden_layers=1, backend="unfused")
UNFUSED_COLOR = NetworkConfig(n_neurons=32, backend="unfused", output_activation="sigmoid")
FULL: dict[str, Any] = {
    "density_network": UNFUSED,
    "color_network": UNFUSED_COLOR,
    "ray_gradients": True,
    "background_gradients": True,
    "exposure": True,
    "n_views": 5,
    "n_latent_dims": 3,
    "depth_weight": 0.3,
    "distortion_weight": 0.2,
    "aabb_scale": 2,
    "cone_angle": 1 / 128,
}

GROWING: dict[str, Any] = {"aabb_scale": 4, "cone_angle": 1 / 128}


def _settings(small: bool, **changes: Any) -> RadianceSettings:
    encoding = resolve(
        GridEncodingConfig(n_levels=8, log2_hashmap_size=14, finest_resolution=256, dtype="float16")
    )
    values = {
        "encoding": encoding,
        "density_network": NetworkConfig(n_hidden_layers=1),
        "color_network": NetworkConfig(output_activation="sigmoid"),
        "steps": 128 if small else 256,
        # room for all samples: rays without are left out, by other rules on a CPU
        "batch_samples": 2**14 if small else 2**18,
        "max_rays": 2**7 if small else 2**10,
    }
    return RadianceSettings(**{**values, **changes})


def _field(side: Side, settings: RadianceSettings) -> RadianceField:
    """Return a field that is no fog, marched in some balls."""
    rng = np.random.default_rng(1)
    axis = (np.arange(CELLS) + 0.5) / CELLS
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    seen = np.zeros((settings.n_cascades, CELLS, CELLS, CELLS), bool)
    for c in rng.uniform(0.25, 0.75, (4, 3)):
        seen |= (x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2 < 0.2**2
    field = RadianceField(
        settings, optimizer=OptimizerConfig(), seed=0, device=side.device, backend=side.backend,
        visible=seen,
    )  # fmt: skip
    for p in field.parameters().values():
        p.assign((p.value.numpy() + rng.normal(size=p.value.size) * 0.2).astype(np.float32))
    return field


def _rays(n: int, settings: RadianceSettings, device: str) -> RayBatch:
    rng = np.random.default_rng(2)
    batch = make_batch(settings, n, device)
    origin = rng.uniform(-0.5, 1.5, (n, 3))
    direction = rng.uniform(0.2, 0.8, (n, 3)) - origin
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    given = {"origin": origin, "direction": direction, "jitter": rng.random(n)}
    given |= {name: rng.random((n, 3)) for name in ("target", "background")}
    given |= {"weight": rng.choice([0.5, 1.0], n), "depth_target": rng.random(n)}
    if settings.exposure:
        given["exposure"] = rng.uniform(-0.5, 0.5, (n, 3))
    for name, values in given.items():
        getattr(batch, name).assign(values.astype(np.float32).reshape(-1))
    if settings.n_views:
        batch.view.assign(rng.integers(0, settings.n_views, n).astype(np.int32))
    return batch


_OUT = ("color", "opacity", "depth", "loss")


def _radiance_step(small: bool, changes: dict[str, Any], side: Side) -> Arrays:
    settings = _settings(small, **changes)
    field = _field(side, settings)
    batch = _rays(settings.max_rays, settings, side.device)
    run_stages([[field.optimizer.advance()], *field.train_stages(batch)])
    found = {name: getattr(batch, name).numpy() for name in _OUT}
    for name in ("d_origin", "d_direction", "d_background", "d_exposure"):
        if getattr(batch, name).size:
            found[name] = getattr(batch, name).numpy()
    if field.backend != "vector" and changes:
        # the fused kernels end a ray earlier than they march it
        found["n_samples"] = batch.n_samples.numpy()
    moments = {f"moment {n}": p.first_moment.numpy() for n, p in field.parameters().items()}
    return {**found, **moments}


def _marched(small: bool, changes: dict[str, Any], side: Side) -> Arrays:
    settings = _settings(small, density_network=UNFUSED, color_network=UNFUSED_COLOR, **changes)
    field, n = _field(side, settings), settings.max_rays
    samples = Samples(n, settings.batch_samples, side.device)
    batch = _rays(n, settings, side.device)
    lattice, bits = make_lattice(settings), field.occupancy.bits
    run_stages(samples.march_stages(lattice, bits, batch, shared=side.serves_cuda))
    of_ray = samples.ray.numpy()[: samples.total.numpy()[1]]
    found = {"n_samples": samples.n.numpy(), "span": samples.span.numpy()}
    for name in ("distance", "length"):
        values = getattr(samples, name).numpy()[: of_ray.size]
        found[f"sums of {name}"] = np.bincount(of_ray, values, n)
    return found


def _radiance_render(small: bool, side: Side) -> Arrays:
    settings = _settings(small, density_network=UNFUSED, color_network=UNFUSED_COLOR)
    field = _field(side, settings)
    batch = _rays(settings.max_rays, settings, side.device)
    rays = [getattr(batch, name).numpy().reshape(-1, 3) for name in ("origin", "direction")]
    made = field.render_rays(*rays, background=(1.0, 0.5, 0.2))
    lens = Lens(width=64, height=48, fx=60.0, fy=60.0, cx=31.0, cy=25.0, k1=-0.1, k2=0.02, p1=1e-3)
    back = Camera(position=(0.9, 1.0, 2.2)).camera_to_world()[:3]
    view = FieldView(pose=back, lens=lens, color=(1.0, 0.5, 0.2))
    seen = field.renderer.views().window(view, 0, 0, 64, 16 if small else 48)
    points = np.random.default_rng(0).random((2**12, 3), dtype=np.float32)
    found = {"color": made.color, "opacity": made.opacity, "depth": made.depth}
    found |= {"view": seen.color, "view's opacity": seen.opacity, "view's depth": seen.depth}
    density, color = field.density(points), field.color(points[: 2**9], rays[1][:1].repeat(512, 0))
    return {**found, "density": density, "color at points": color}


def _occupancy(small: bool, side: Side) -> Arrays:
    field = _field(side, _settings(small, density_network=UNFUSED, color_network=UNFUSED_COLOR))
    field.fill_occupancy()
    stages = [[field.optimizer.advance()], *field.occupancy_stages()]
    for _ in range(3):
        run_stages(stages)
    grid = field.occupancy
    names = ("values", "threshold", "bits", "slice_sums")
    return {name: getattr(grid, name).numpy() for name in names}


def _marks(side: Side) -> Arrays:
    """Marks that several processes exchange: picked out, turned over, put back."""
    rng = np.random.default_rng(0)
    n, n_cells = 1000, 2**15
    arrays = {
        "plan": np.array([0, 1, 64], np.int32),
        "count": np.array([n], np.int32),
        "cells": rng.permutation(n_cells).astype(np.int32),
        "met": rng.integers(0, 2, n_cells, np.uint8),
        "marks": np.ones(1024, np.uint8),
    }
    plan, count, cells, met, marks = (wp.array(a, device=side.device) for a in arrays.values())
    args = [plan, count, cells]
    pick = launch.record(occupancy.pick_marks_kernel, 1024, [*args, met, marks], side.device)
    put = launch.record(occupancy.put_marks_kernel, 1024, [*args, marks, met], side.device)
    pick.run()
    picked = marks.numpy().copy()
    marks.assign(1 - picked)
    put.run()
    return {"picked": picked, "met": met.numpy()}


def _vanilla(small: bool, side: Side) -> Arrays:
    sizes: dict[str, Any] = {
        "n_neurons": 32,
        "n_hidden_layers": 3,
        "skip_layer": 2,
        "n_head_neurons": 16,
    }
    settings = VanillaSettings(
        **sizes, n_coarse=16, n_fine=32, max_rays=32 if small else 256,
        density_activation="softplus",
    )  # fmt: skip
    field = VanillaField(settings, optimizer=OptimizerConfig(learning_rate=1e-3), seed=0,
                         device=side.device, backend=side.backend)  # fmt: skip
    batch = _rays(settings.max_rays, _settings(small), side.device)
    run_stages([[field.optimizer.advance()], *field.train_stages(batch)])
    found = {name: getattr(batch, name).numpy() for name in ("color", "opacity", "loss")}
    return {**found, "moment": field.weights.first_moment.numpy()}


def rows(small: bool) -> list[Row]:
    """Return the rows of this module."""
    half: dict[str, Tolerance] = dict.fromkeys(("moment network", "moment encoding"), HALF_MOMENTS)
    single = {f"moment {n}": MOMENTS for n in ("network", "encoding", "latents")}
    single["n_samples"] = MARCHED
    sequential = {"bits": CELL_BITS}
    return [
        Row("radiance step", partial(_radiance_step, small, {}), HALF_RAYS, half, on_cpu=True),
        Row("radiance step, all gradients", partial(_radiance_step, small, FULL), RAYS, single),
        Row("marching, equal steps", partial(_marched, small, {}), RAYS, {"n_samples": MARCHED},
            on_cpu=True),
        Row("marching, growing steps", partial(_marched, small, GROWING), RAYS,
            {"n_samples": MARCHED}, on_cpu=True),
        Row("radiance pictures and points", partial(_radiance_render, small), RAYS),
        Row("occupancy grid", partial(_occupancy, small), VALUES, sequential),
        Row("marks of occupied cells", _marks, COPIES),
        Row("original NeRF's step", partial(_vanilla, small), RAYS, {"moment": MOMENTS},
            on_cpu=True),
    ]  # fmt: skip
