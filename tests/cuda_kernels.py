"""Every kernel, with arguments of its factory, and one compilation of each module."""

import functools
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import warp as wp

from ngp_warp import launch
from ngp_warp.kernels import (
    active,
    adam,
    adam_portable,
    composite,
    contract,
    coordinates,
    eikonal,
    frequency,
    grid_cuda,
    harmonics,
    hierarchical,
    hierarchical_composite,
    layout,
    linear_portable,
    march,
    march_growing,
    march_lanes,
    occupancy,
    octree,
    packed,
    radiance_counts,
    reduction,
    rows,
    samplers,
    sphere_trace,
    spherical_harmonics,
    view_rays,
)
from ngp_warp.kernels import grid_jacobian_portable as grid_jacobian
from ngp_warp.kernels import grid_portable as grid
from ngp_warp.kernels import loss as losses
from ngp_warp.kernels.grid import GridShape
from ngp_warp.primitives.image import kernels as image
from ngp_warp.primitives.nerf.kernels import draw as nerf_draw
from ngp_warp.primitives.nerf.kernels import environment as nerf_environment
from ngp_warp.primitives.nerf.kernels import refine as nerf_refine
from ngp_warp.primitives.nerf.kernels import visibility as nerf_visibility
from ngp_warp.primitives.sdf.kernels import distance as sdf_distance
from ngp_warp.primitives.sdf.kernels import samples as sdf_samples
from ngp_warp.primitives.sdf.sign import SIGNS
from ngp_warp.primitives.volume.kernels import events as volume_events
from ngp_warp.primitives.volume.kernels import fields as volume_fields
from ngp_warp.primitives.volume.kernels import paths as volume_paths
from ngp_warp.primitives.volume.kernels import projection as volume_projection
from ngp_warp.primitives.volume.kernels import samples as volume_samples
from ngp_warp.primitives.volume.kernels import targets as volume_targets

# Factories whose text is clang's vector extensions; CUDA has kernels of its own for their work.
CPU_ONLY = {
    "ngp_warp.kernels.adam.average_kernel",
    "ngp_warp.kernels.adam.table_kernel",
    "ngp_warp.kernels.adam.weights_kernel",
    "ngp_warp.kernels.exchange.add_kernel",
    "ngp_warp.kernels.exchange.count_kernel",
    "ngp_warp.kernels.exchange.pick_kernel",
    "ngp_warp.kernels.grid.backward_kernel",
    "ngp_warp.kernels.grid.forward_kernel",
    "ngp_warp.kernels.grid_jacobian.backward_kernel",
    "ngp_warp.kernels.grid_jacobian.forward_kernel",
    "ngp_warp.kernels.layout.turn_kernel",
    "ngp_warp.kernels.linear.layer_kernel",
    "ngp_warp.kernels.linear.reduce_kernel",
    "ngp_warp.kernels.linear.slope_kernel",
    "ngp_warp.kernels.linear.weight_gradient_kernel",
    "ngp_warp.kernels.mlp.backward_kernel",
    "ngp_warp.kernels.mlp.forward_kernel",
    "ngp_warp.kernels.mlp.reduce_kernel",
    "ngp_warp.kernels.mlp.train_kernel",
    "ngp_warp.kernels.mlp_eikonal.train_kernel",
    "ngp_warp.kernels.radiance.render_kernel",
    "ngp_warp.kernels.radiance.train_kernel",
    "ngp_warp.kernels.radiance_points.density_kernel",
    "ngp_warp.kernels.radiance_points.scatter_kernel",
}

FLAT = GridShape(n_dims=2, n_features=2, interpolation="linear")
SOLID = GridShape(n_dims=3, n_features=2, interpolation="linear")
# Every width of a load and of an addition, the other interpolations, half tables.
ODD = GridShape(n_dims=2, n_features=1, interpolation="nearest", dtype="float16")
WIDE = GridShape(n_dims=3, n_features=4, interpolation="smoothstep", dtype="float16")
WIDEST = GridShape(n_dims=3, n_features=8, interpolation="smoothstep")
SHAPES = [FLAT, SOLID, ODD, WIDE, WIDEST]
ADAM = (0.9, 0.99, 1e-15)
STEP = adam.TableStep(n_features=2, beta1=ADAM[0], beta2=ADAM[1], epsilon=ADAM[2], flagged=False)
SDF_SEARCHES = [*((sign, "portable") for sign in SIGNS), ("normal", "wide")]
SAMPLERS = [(kind, d) for kind in ("stratified", "uniform", "halton", "sobol") for d in (2, 3)]

COORDINATES = [
    (coordinates.Functions(kind="identity", scale=2.0, offset=-1.0), 3),
    (coordinates.Functions(kind="frequency", n=12), 3),
    (coordinates.Functions(kind="triangle_wave", n=12), 3),
    (coordinates.Functions(kind="one_blob", n=16), 2),
]
QUADTREE = octree.OctreeShape(n_dims=2, n_features=2, first_level=0, last_level=4)
OCTREE = octree.OctreeShape(n_dims=3, n_features=8, first_level=2, last_level=8, summed=True)

# Factory: the arguments that it is compiled with here.
KERNELS = {
    adam_portable.average_kernel: [(0.95,)],
    adam_portable.table_kernel: [
        (STEP,),
        (replace(STEP, n_features=4, half=True, fixed_point=True),),
        (replace(STEP, n_features=8, half=True, quantized=True, flagged=True),),
        (replace(STEP, n_features=1, fixed_point=True, flagged=True),),
    ],
    adam_portable.weights_kernel: [(*ADAM, 1e-6)],
    composite.render_kernel: [(False, "srgb"), (True, "srgb"), (True, "linear")],
    composite.train_kernel: [
        (composite.CompositeShape("huber", "srgb", False, False, False),),
        (composite.CompositeShape("relative_l2", "srgb", True, True, True),),
    ],
    contract.input_kernel: [()],
    contract.tangent_kernel: [()],
    coordinates.backward_kernel: COORDINATES,
    coordinates.forward_kernel: COORDINATES,
    coordinates.second_order_kernel: COORDINATES,
    eikonal.delta_kernel: [("none",), ("sine",), ("softplus",)],
    eikonal.eikonal_kernel: [(2,), (3,)],
    eikonal.tangent_kernel: [("relu",), ("sine",), ("squareplus",)],
    frequency.backward_kernel: [(3, 10, True), (2, 4, False)],
    frequency.forward_kernel: [(3, 10, True), (2, 4, False)],
    grid_jacobian.backward_kernel: [(FLAT,), (SOLID, True), (WIDE,), (WIDEST,)],
    grid_jacobian.forward_kernel: [(FLAT,), (SOLID,), (WIDE,), (WIDEST,)],
    grid_cuda.backward_kernel: [*((shape,) for shape in SHAPES), (FLAT, True), (WIDE, True)],
    grid_cuda.forward_kernel: [(shape,) for shape in SHAPES],
    grid.input_gradient_kernel: [(SOLID,), (WIDE,)],
    grid.second_order_kernel: [(SOLID,), (WIDE,)],
    grid.second_order_position_kernel: [(SOLID,), (WIDEST,)],
    harmonics.backward_kernel: [(1,), (8,)],
    harmonics.forward_kernel: [(1,), (8,)],
    harmonics.second_order_kernel: [(1,), (8,)],
    hierarchical_composite.composite_gradient_kernel: [("relu",), ("softplus",)],
    hierarchical_composite.composite_kernel: [("relu",), ("softplus",)],
    image.raster_kernel: [()],
    image.target_kernel: [(wp.uint8, 3, False, False), (wp.float32, 4, True, True)],
    linear_portable.layer_kernel: [("none", False), ("sine", False), ("softplus", True)],
    linear_portable.reduce_kernel: [()],
    linear_portable.slope_kernel: [("sigmoid",)],
    linear_portable.weight_gradient_kernel: [()],
    losses.loss_kernel: [(name,) for name in losses.LOSSES],
    octree.backward_kernel: [(QUADTREE,), (OCTREE,)],
    octree.forward_kernel: [(QUADTREE,), (OCTREE,)],
    octree.scatter_kernel: [(QUADTREE, False), (OCTREE, True)],
    octree.second_order_kernel: [(QUADTREE,), (OCTREE,)],
    reduction.backward_kernel: [("sum",), ("product",)],
    reduction.forward_kernel: [("sum",), ("product",)],
    reduction.second_order_kernel: [("sum",), ("product",)],
    rows.add_rows_kernel: [()],
    rows.copy_rows_kernel: [()],
    rows.fill_rows_kernel: [()],
    nerf_draw.pick_kernel: [(wp.uint8, False, False), (wp.float16, True, True)],
    nerf_draw.ray_kernel: [
        (wp.uint8, False, False, "random", "srgb", False),
        (wp.float16, True, True, "environment", "linear", True),
    ],
    nerf_environment.backward_kernel: [("srgb", True), ("linear", True)],
    nerf_environment.lookup_kernel: [("srgb",), ("linear",)],
    nerf_refine.sum_kernel: [(True, True, True), (False, False, True)],
    samplers.sample_kernel: SAMPLERS,
    # the vector search is for a CPU
    sdf_distance.query_kernel: SDF_SEARCHES,
    sdf_samples.near_kernel: SDF_SEARCHES,
    sdf_samples.uniform_kernel: SDF_SEARCHES,
    volume_events.composite_kernel: [(4,)],
    volume_events.event_kernel: [(4,)],
    volume_fields.density_kernel: [(volume_fields.DENSE,)],
    volume_paths.collision_kernel: [(volume_fields.DENSE,)],
    volume_paths.pixel_kernel: [(volume_fields.DENSE,)],
    volume_paths.transmittance_kernel: [
        (volume_fields.DENSE, "ratio"),
        (volume_fields.DENSE, "delta"),
    ],
    volume_samples.block_kernel: [()],
    volume_samples.value_kernel: [(1, False), (1, True), (3, False), (3, True)],
    volume_targets.point_kernel: [(volume_fields.DENSE,)],
    volume_targets.target_kernel: [(volume_fields.DENSE,)],
}
SINGLE = [
    radiance_counts.depth_kernel,
    radiance_counts.latents_kernel,
    adam.advance_kernel,
    packed.counters_kernel,
    packed.density_kernel,
    packed.geometry_gradient_kernel,
    packed.keep_kernel,
    packed.latent_gradient_kernel,
    packed.latent_sum_kernel,
    packed.ray_gradient_kernel,
    packed.ray_sum_kernel,
    packed.transmittance_kernel,
    hierarchical.ray_directions,
    hierarchical.resample,
    hierarchical.sample_positions,
    hierarchical.stratified_samples,
    layout.to_blocked,
    layout.from_blocked,
    layout.set_row,
    march.count_kernel,
    march.fill_kernel,
    march_lanes.count_kernel,
    march_lanes.fill_kernel,
    march_growing.start_kernel,
    march_growing.count_kernel,
    march_growing.fill_kernel,
    march.meet_kernel,
    march.scan_kernel,
    march.total_kernel,
    occupancy.all_bits_kernel,
    occupancy.all_coarse_kernel,
    occupancy.bits_kernel,
    occupancy.coarse_kernel,
    occupancy.draw_kernel,
    occupancy.pick_marks_kernel,
    occupancy.plan_kernel,
    occupancy.put_marks_kernel,
    occupancy.store_kernel,
    occupancy.threshold_kernel,
    rows.spread_rows,
    nerf_environment.row_kernel,
    nerf_refine.centre_kernel,
    nerf_refine.lens_gradient_kernel,
    nerf_refine.lens_kernel,
    nerf_refine.pose_gradient_kernel,
    nerf_refine.pose_kernel,
    nerf_refine.total_kernel,
    nerf_visibility.visible_kernel,
    active.compact_kernel,
    active.flag_kernel,
    sdf_distance.morton_codes,
    sdf_samples.pool_samples,
    sdf_samples.surface_samples,
    sphere_trace.advance_kernel,
    sphere_trace.load_kernel,
    sphere_trace.start_kernel,
    radiance_counts.finish_kernel,
    spherical_harmonics.harmonics_gradient_kernel,
    spherical_harmonics.harmonics_kernel,
    view_rays.picture_kernel,
    view_rays.ray_kernel,
    volume_events.finish_kernel,
    volume_events.start_kernel,
    volume_projection.project_maximum,
    volume_projection.project_surface,
    volume_projection.project_transfer,
    volume_targets.pool_batch,
]


def all_kernels():
    """Each kernel of the lists."""
    made = [factory(*args) for factory, cases in KERNELS.items() for args in cases]
    return [*made, *SINGLE]


class Compiler:
    """Compiles each module once for an architecture, on every core, in the order of the lists."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._pool = ThreadPoolExecutor(launch.num_threads())
        self._texts: dict[tuple[str, int], Future[str]] = {}

    def ptx(self, kernel, arch: int) -> str:
        """The PTX of a kernel's module."""
        if (kernel.module.name, arch) not in self._texts:
            kernels = all_kernels()
            # from this one on: a selection of tests compiles not much more than it asks for
            ahead = kernels[kernels.index(kernel) :][: 2 * launch.num_threads()]
            for item in ahead if kernel in kernels else [kernel]:
                self._submit(item.module, arch)
        return self._texts[kernel.module.name, arch].result()

    def _submit(self, module, arch: int) -> None:
        if (module.name, arch) not in self._texts:
            compile_module = functools.partial(self._compile, module, arch)
            self._texts[module.name, arch] = self._pool.submit(compile_module)

    def _compile(self, module, arch: int) -> str:
        folder = self.folder / f"{module.name}-{arch}"
        (path,) = wp.compile_aot_module(module, arch=arch, module_dir=folder, use_ptx=True)
        return path.read_text()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
