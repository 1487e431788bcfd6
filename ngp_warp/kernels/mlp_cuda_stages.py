"""Warp modules of the fused network on CUDA: one for each network and stage."""

from dataclasses import dataclass
from functools import cache

import warp as wp

from ngp_warp.kernels.mlp_cuda_fused import GROUP, gradient_text
from ngp_warp.kernels.mlp_cuda_gradient import propagate_text
from ngp_warp.kernels.mlp_cuda_layout import MlpLayout
from ngp_warp.kernels.mlp_cuda_source import forward_text
from ngp_warp.kernels.mlp_cuda_weights import prepare_text, reduce_text, weight_gradient_text

WARP = 32
BLOCK_DIM = GROUP


@dataclass(frozen=True, eq=False)
class Stage:
    """One Warp module: everything that a pass launches."""

    module: wp.Module
    prepare: wp.Kernel
    forward: wp.Kernel | None
    propagate: wp.Kernel | None
    weight_gradient: wp.Kernel | None
    """None where ``propagate`` makes the weights' gradient too."""
    reduce: wp.Kernel | None

    def block_dim(self, device: wp.Device) -> int:
        """Threads of a block: one warp of those that a CPU plays, where warps need not meet."""
        fused = self.propagate is not None and self.weight_gradient is None
        return BLOCK_DIM if device.is_cuda or fused else WARP


@cache
def make_stage(layout: MlpLayout, name: str, fused: bool) -> Stage:
    """Generate the Warp module of a stage.

    Args:
        layout: the network.
        name: "forward", "backward" or a loss.
        fused: gradients by one kernel, see mlp_cuda_fused.
    """
    sizes = f"{layout.n_in}_{layout.n_neurons}x{layout.n_hidden_layers}_{layout.n_out}"
    kinds = f"{layout.activation}_{layout.output_activation}"
    how = "_fused" if fused and name != "forward" else ""
    module = wp.get_module(f"ngp_warp.mlp_cuda_{name}{how}_{sizes}_{kinds}")
    # lean launches: with 32-aligned dimensions a warp stays whole, and its index is tid / 32
    module.options.update(
        {"enable_backward": False, "default_grid_stride": False, "block_dim": BLOCK_DIM}
    )
    prepare = _prepare_kernel(module, prepare_text(layout))
    if name == "forward":
        return Stage(
            module, prepare, _forward_kernel(module, forward_text(layout)), None, None, None
        )
    if fused:
        propagate = _fused_kernel(module, gradient_text(layout, name))
        weight_gradient = None
    else:
        propagate = _propagate_kernel(module, propagate_text(layout, name))
        weight_gradient = _weight_gradient_kernel(module, weight_gradient_text(layout))
    reduce = _reduce_kernel(module, reduce_text(layout))
    return Stage(module, prepare, None, propagate, weight_gradient, reduce)


def _prepare_kernel(module: wp.Module, text: str) -> wp.Kernel:
    @wp.func_native(text)
    def prepare_native(tid: int, weights: wp.array[float], fragments: wp.array[wp.uint32]): ...

    @wp.kernel(module=module)
    def prepare(weights: wp.array[float], fragments: wp.array[wp.uint32]):
        prepare_native(wp.tid(), weights, fragments)

    return prepare


def _forward_kernel(module: wp.Module, text: str) -> wp.Kernel:
    @wp.func_native(text)
    def forward_native(
        tid: int,
        fragments: wp.array[wp.uint32],
        x: wp.array3d[float],
        count: wp.array[int],
        y: wp.array3d[float],
    ): ...

    @wp.kernel(module=module)
    def forward(
        # in
        fragments: wp.array[wp.uint32],
        x: wp.array3d[float],
        count: wp.array[int],
        # out
        y: wp.array3d[float],
    ):
        forward_native(wp.tid(), fragments, x, count, y)

    return forward


def _propagate_kernel(module: wp.Module, text: str) -> wp.Kernel:
    @wp.func_native(text)
    def propagate_native(
        tid: int,
        fragments: wp.array[wp.uint32],
        x: wp.array3d[float],
        target: wp.array3d[float],
        n_points: int,
        count: wp.array[int],
        first_block: int,
        scale: float,
        unscale: float,
        dx: wp.array3d[float],
        loss_sums: wp.array[float],
        scratch: wp.array[wp.uint32],
    ): ...

    @wp.kernel(module=module)
    def propagate(
        # in
        fragments: wp.array[wp.uint32],
        x: wp.array3d[float],
        target: wp.array3d[float],
        n_points: int,
        count: wp.array[int],
        first_block: int,
        scale: float,
        unscale: float,
        # out
        dx: wp.array3d[float],
        loss_sums: wp.array[float],
        scratch: wp.array[wp.uint32],
    ):
        propagate_native(
            wp.tid(), fragments, x, target, n_points, count, first_block, scale, unscale, dx,
            loss_sums, scratch,
        )  # fmt: skip

    return propagate


def _fused_kernel(module: wp.Module, text: str) -> wp.Kernel:
    @wp.func_native(text)
    def fused_native(
        tid: int,
        fragments: wp.array[wp.uint32],
        x: wp.array3d[float],
        target: wp.array3d[float],
        n_points: int,
        count: wp.array[int],
        n_chunks: int,
        scale: float,
        unscale: float,
        dx: wp.array3d[float],
        loss_sums: wp.array[float],
        partials: wp.array[float],
    ): ...

    @wp.kernel(module=module)
    def propagate(
        # in
        fragments: wp.array[wp.uint32],
        x: wp.array3d[float],
        target: wp.array3d[float],
        n_points: int,
        count: wp.array[int],
        n_chunks: int,
        scale: float,
        unscale: float,
        # out
        dx: wp.array3d[float],
        loss_sums: wp.array[float],
        partials: wp.array[float],
    ):
        fused_native(
            wp.tid(), fragments, x, target, n_points, count, n_chunks, scale, unscale, dx,
            loss_sums, partials,
        )  # fmt: skip

    return propagate


def _weight_gradient_kernel(module: wp.Module, text: str) -> wp.Kernel:
    @wp.func_native(text)
    def weight_gradient_native(
        tid: int,
        scratch: wp.array[wp.uint32],
        n_blocks: int,
        first_block: int,
        count: wp.array[int],
        blocks_per_chunk: int,
        accumulate: int,
        partials: wp.array[float],
    ): ...

    @wp.kernel(module=module)
    def weight_gradient(
        scratch: wp.array[wp.uint32],
        n_blocks: int,
        first_block: int,
        count: wp.array[int],
        blocks_per_chunk: int,
        accumulate: int,
        partials: wp.array[float],
    ):
        weight_gradient_native(
            wp.tid(), scratch, n_blocks, first_block, count, blocks_per_chunk, accumulate, partials
        )

    return weight_gradient


def _reduce_kernel(module: wp.Module, text: str) -> wp.Kernel:
    @wp.func_native(text)
    def reduce_native(
        tid: int,
        partials: wp.array[float],
        n_chunks: int,
        unscale: float,
        gradient: wp.array[float],
    ): ...

    @wp.kernel(module=module)
    def reduce(partials: wp.array[float], n_chunks: int, unscale: float, gradient: wp.array[float]):
        reduce_native(wp.tid(), partials, n_chunks, unscale, gradient)

    return reduce
