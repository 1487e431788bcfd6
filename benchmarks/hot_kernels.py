"""The kernels that a training step or a picture spends its time in on CUDA, as it launches them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import warp as wp

from ngp_warp.kernels import (
    adam,
    adam_portable,
    composite,
    eikonal,
    grid_cuda,
    linear_portable,
    march,
    march_growing,
    march_lanes,
    occupancy,
    packed,
    radiance_counts,
    samplers,
    sphere_trace,
    view_rays,
)
from ngp_warp.kernels import grid_jacobian_portable as grid_jacobian
from ngp_warp.kernels import grid_portable as grid
from ngp_warp.kernels import spherical_harmonics as harmonics
from ngp_warp.kernels.grid import GridShape
from ngp_warp.kernels.mlp_cuda import make_mlp_cuda_kernels
from ngp_warp.kernels.mlp_cuda_stages import BLOCK_DIM
from ngp_warp.primitives.image import kernels as image
from ngp_warp.primitives.nerf.kernels import draw
from ngp_warp.primitives.sdf.kernels import distance
from ngp_warp.primitives.sdf.kernels import samples as sdf_samples
from ngp_warp.primitives.sdf.sign import SIGNS
from ngp_warp.primitives.volume.kernels import events, fields, paths, samples, targets

# inputs, width, hidden layers, outputs, output activation: an image, a distance field, a scene's
# density and colour, a medium; then eight levels of four features
NETWORKS = [
    (32, 64, 2, 3, "none"),
    (32, 64, 2, 1, "none"),
    (32, 64, 1, 16, "none"),
    (32, 64, 2, 3, "sigmoid"),
    (32, 128, 2, 4, "none"),
]
ADAM = (0.9, 0.99, 1e-15)
TABLE_STEP = adam.TableStep(
    n_features=2, beta1=ADAM[0], beta2=ADAM[1], epsilon=ADAM[2], flagged=False
)


@dataclass(frozen=True)
class Hot:
    """A kernel, and what the table calls it."""

    part: str
    name: str
    module: Any
    key: str
    """How the names of its functions in machine code begin."""
    block_dim: int = 256


def hot_kernels() -> list[Hot]:
    """Return them, part by part."""
    return [*_grids(), *_networks(), *_optimizer(), *_scene(), *_distance(), *_others()]


def _of(part: str, name: str, kernel: Any) -> Hot:
    return Hot(part, name, kernel.module, re.sub("[.<>]", "_", kernel.key))


def _grids() -> Iterator[Hot]:
    for n_dims in (2, 3):
        for n_features in (2, 4):
            for dtype in ("float32", "float16"):
                shape = GridShape(
                    n_dims=n_dims, n_features=n_features, interpolation="linear", dtype=dtype
                )
                what = f"{n_dims}D, F={n_features}, {dtype}"
                yield _of("grid", f"forward, {what}", grid_cuda.forward_kernel(shape))
                if n_dims == 3:
                    kernel = grid_jacobian.forward_kernel(shape)
                    yield _of("grid", f"forward with dy/dx, {what}", kernel)
            shape = GridShape(n_dims=n_dims, n_features=n_features, interpolation="linear")
            what = f"{n_dims}D, F={n_features}"
            for fixed in (False, True):
                how = ", fixed point" if fixed else ""
                kernel = grid_cuda.backward_kernel(shape, fixed)
                yield _of("grid", f"backward, {what}{how}", kernel)
            if n_dims == 3:
                kernel = grid_jacobian.backward_kernel(shape)
                yield _of("grid", f"backward with dy/dx, {what}", kernel)
                kernel = grid.input_gradient_kernel(shape)
                yield _of("grid", f"positions' gradient, {what}", kernel)


def _networks() -> Iterator[Hot]:
    for n_in, width, layers, n_out, output in NETWORKS:
        made = make_mlp_cuda_kernels(n_in, width, layers, n_out, "relu", output)
        what = f"{n_in}-{width}x{layers}-{n_out} {output}"
        for stage, label in (("forward", "forward"), ("backward", "backward"), ("huber", "train")):
            module = made.stage(stage)
            kernel = module.forward if stage == "forward" else module.propagate
            yield _network(f"{label}, {what}", kernel)
        if module.weight_gradient is not None:
            yield _network(f"weight gradient, {what}", module.weight_gradient)
    for name, kernel in (
        ("layer", linear_portable.layer_kernel("relu", False)),
        ("layer's gradient", linear_portable.layer_kernel("relu", True)),
        ("weight gradient", linear_portable.weight_gradient_kernel()),
    ):
        yield _of("network", f"unfused {name}", kernel)
    yield _of("network", "eikonal term, 3D", eikonal.eikonal_kernel(3))
    yield _of("network", "eikonal tangent, relu", eikonal.tangent_kernel("relu"))


def _network(name: str, kernel: Any) -> Hot:
    hot = _of("network", name, kernel)
    return replace(hot, block_dim=BLOCK_DIM)


def _optimizer() -> Iterator[Hot]:
    for n_features in (2, 4):
        for fixed in (False, True):
            how = ", fixed point" if fixed else ""
            step = replace(TABLE_STEP, n_features=n_features, half=True, fixed_point=fixed)
            kernel = adam_portable.table_kernel(step)
            yield _of("Adam", f"table, F={n_features}, float16 copy{how}", kernel)
    kernel = adam_portable.table_kernel(replace(TABLE_STEP, n_features=4, flagged=True))
    yield _of("Adam", "table, F=4, flagged", kernel)
    yield _of("Adam", "weights", adam_portable.weights_kernel(*ADAM, 1e-6))
    yield _of("Adam", "average", adam_portable.average_kernel(0.95))
    yield _of("Adam", "schedule", adam.advance_kernel)


def _scene() -> Iterator[Hot]:
    shape = composite.CompositeShape("huber", "srgb", False, False, False)
    refined = composite.CompositeShape("huber", "srgb", True, True, True)
    yield _of("scene", "draw pixels", draw.pick_kernel(wp.uint8, False, False))
    rays = draw.ray_kernel(wp.uint8, False, False, "random", "srgb", False)
    yield _of("scene", "make rays", rays)
    for name, kernel in (
        ("march, count", march.count_kernel),
        ("march, count, equal steps", march_lanes.count_kernel),
        ("march, fill", march.fill_kernel),
        ("march, fill, equal steps", march_lanes.fill_kernel),
        ("march, starts, growing steps", march_growing.start_kernel),
        ("march, count, growing steps", march_growing.count_kernel),
        ("march, fill, growing steps", march_growing.fill_kernel),
        ("mark cells", march.meet_kernel),
        ("harmonics", harmonics.harmonics_kernel),
        ("transmittance", packed.transmittance_kernel),
        ("keep", packed.keep_kernel),
        ("composite, train", composite.train_kernel(shape)),
        ("composite, train, all refined", composite.train_kernel(refined)),
        ("composite, render", composite.render_kernel(False, "srgb")),
        ("join gradients", packed.geometry_gradient_kernel),
        ("rays' gradients", packed.ray_gradient_kernel),
        ("count samples", packed.counters_kernel),
        ("count depths", radiance_counts.depth_kernel),
        ("next count", radiance_counts.finish_kernel),
        ("rays of a view", view_rays.ray_kernel),
        ("picture of a view", view_rays.picture_kernel),
        ("occupancy, draw", occupancy.draw_kernel),
        ("occupancy, store", occupancy.store_kernel),
        ("occupancy, threshold", occupancy.threshold_kernel),
        ("occupancy, bits", occupancy.bits_kernel),
        ("occupancy, coarse bits", occupancy.coarse_kernel),
    ):
        yield _of("scene", name, kernel)


def _distance() -> Iterator[Hot]:
    for sign in SIGNS:
        search = "wide" if sign == "normal" else "portable"
        yield _of("distance", f"query, {sign}", distance.query_kernel(sign, search))
    near = sdf_samples.near_kernel("normal", "wide")
    yield _of("distance", "refresh near points, normal", near)
    yield _of("distance", "surface points", sdf_samples.surface_samples)
    yield _of("distance", "pool to batch", sdf_samples.pool_samples)
    yield _of("distance", "sphere trace, advance", sphere_trace.advance_kernel)


def _others() -> Iterator[Hot]:
    for kind in ("stratified", "uniform", "halton", "sobol"):
        yield _of("image", f"sampler {kind}, 2D", samplers.sample_kernel(kind, 2))
    kernel = image.target_kernel(wp.uint8, 3, True, False)
    yield _of("image", "targets, 8 bits, bilinear", kernel)
    dense = fields.DENSE
    yield _of("volume", "targets, trilinear", samples.value_kernel(1, True))
    yield _of("volume", "path tracer, pixels", paths.pixel_kernel(dense))
    yield _of("volume", "path tracer, pool", targets.target_kernel(dense))
    yield _of("volume", "learned light, events", events.event_kernel(4))
    yield _of("volume", "learned light, composite", events.composite_kernel(4))
