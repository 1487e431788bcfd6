"""The fused network on CUDA tensor cores: half operands, float32 sums and master weights.

Source: the idea of Mueller et al. 2022 that activations stay in registers from layer to layer; the
kernels are this project's own, see mlp_cuda_source. Twins: tests/reference/mlp.py, losses.py.

Differentiable: ``backward`` and ``train_pass`` give the gradient with respect to the weights and
the inputs; no launch is on a tape.

Half gradients. The mean's factor 1 / (n_points n_out) would push every delta of a large batch below
the smallest half (6e-8). So ``train_pass`` carries the gradient of the *sum* of losses, times
``loss_scale``, in half, and applies 1 / (loss_scale n_points n_out) in float32 where results leave
the kernels. Then a delta does not depend on the batch's size; overflow saturates instead of
becoming infinite. ``backward`` does the same with a ``scale`` of the caller's choice.

All sums run in a fixed order: results repeat bit by bit. Nothing allocates or synchronises, so that
a step can be captured in a CUDA graph once ``kernels.load(device, stage)`` has been called.
"""

from typing import Any, Literal

import warp as wp

from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.kernels import mlp_cuda_network as network
from ngp_warp.kernels.loss import LOSSES
from ngp_warp.kernels.mlp_cuda_layout import MlpLayout
from ngp_warp.kernels.mlp_cuda_network import (
    BLOCK,
    MlpCudaKernels,
    Scratch,
    check_scratch,
    make_mlp_cuda_kernels,
    make_scratch,
    n_blocks,
)
from ngp_warp.kernels.mlp_cuda_stages import BLOCK_DIM, Stage
from ngp_warp.kernels.mlp_cuda_weights import n_jobs

__all__ = [
    "BLOCK", "Half", "MlpCudaKernels", "Scratch", "backward", "forward", "make_mlp_cuda_kernels",
    "make_scratch", "n_blocks", "train_pass",
]  # fmt: skip


Half = Literal["both", "points", "weights"]
"""Of a gradient pass: what gives dx, and the sum of the chunks' weight gradients."""


def forward(
    kernels: MlpCudaKernels,
    weights: wp.array,
    x: wp.array,
    n_points: int,
    y: wp.array,
    scratch: Scratch,
    count: wp.array | None = None,
) -> None:
    """Evaluate y = network(x).

    Args:
        kernels: the network.
        weights: [n_weights] float32, layer after layer, W [n_out, n_in] row-major.
        x: [n_blocks, n_in, 32] float32, blocked.
        n_points: points in x; the rest of the last block is padding, and its y is arbitrary.
        y: out, [n_blocks, n_out, 32] float32, blocked.
        scratch: of ``make_scratch``.
        count: int32 [1]: blocks behind so many points are left out; None: none are.

    Raises:
        ShapeError: an array of the wrong shape, device or alignment.
    """
    layout = kernels.layout
    _check("weights", weights, (layout.n_weights,), x.device)
    _check("x", x, (n_blocks(n_points), layout.n_in, BLOCK), x.device)
    _check("y", y, (n_blocks(n_points), layout.n_out, BLOCK), x.device)
    check_scratch(kernels, n_points, scratch, x.device, training=False)
    stage = kernels.stage("forward")
    _prepare(stage, layout, weights, scratch)
    _launch(
        stage, stage.forward, n_blocks(n_points) * 32, [scratch.fragments, x, count, y], x.device
    )


def backward(
    kernels: MlpCudaKernels,
    weights: wp.array,
    x: wp.array,
    dy: wp.array,
    n_points: int,
    dx: wp.array | None,
    dweights: wp.array,
    scratch: Scratch,
    scale: float = 128.0,
    count: wp.array | None = None,
    half: Half = "both",
) -> None:
    """Gradients with respect to x and the weights, from that with respect to y; recomputes y.

    Args:
        kernels: the network.
        weights: [n_weights] float32.
        x: [n_blocks, n_in, 32] float32, blocked.
        dy: [n_blocks, n_out, 32] float32, blocked: dL/dy of the activated outputs.
        n_points: points in x; the padding's dy counts as zero.
        dx: out, [n_blocks, n_in, 32] float32, blocked; None: not wanted.
        dweights: out, [n_weights] float32 (overwritten).
        scratch: of ``make_scratch``.
        scale: dy * scale is carried in half, and should be of the order of 1 to 1000: for a loss
            that is a mean over n values choose 128 n. Results do not depend on it otherwise.
        count: int32 [1]: points from this one on are left out, whatever their dy: their dx is
            zero; None: none are.
        half: "points": all but the weights' sums; "weights": these, after it; or "both".

    Raises:
        ShapeError: an array of the wrong shape, device or alignment.
    """
    _gradients(kernels, "backward", weights, x, dy, n_points, dx, dweights, None, scratch,
               scale, 1.0 / scale, count, half)  # fmt: skip


def train_pass(
    kernels: MlpCudaKernels,
    weights: wp.array,
    x: wp.array,
    target: wp.array,
    n_points: int,
    loss: str,
    dx: wp.array | None,
    dweights: wp.array,
    loss_sums: wp.array,
    scratch: Scratch,
    loss_scale: float = 128.0,
    half: Half = "both",
) -> None:
    """Forward, loss, and its gradients, where the loss is the mean over n_points * n_out values.

    Args:
        kernels: the network.
        weights: [n_weights] float32.
        x: [n_blocks, n_in, 32] float32, blocked.
        target: [n_blocks, n_out, 32] float32, blocked; its padding must be allocated.
        n_points: points in x.
        loss: a key of ``LOSSES``.
        dx: out, [n_blocks, n_in, 32] float32, blocked; None: not wanted.
        dweights: out, [n_weights] float32 (overwritten).
        loss_sums: out, [n_blocks * 2] float32: each block's sums of the loss and of the squared
            error, not divided by anything.
        scratch: of ``make_scratch``.
        loss_scale: factor of the loss gradient while it is half.
        half: as in ``backward``.

    Raises:
        ConfigError: an unknown loss.
        ShapeError: an array of the wrong shape, device or alignment.
    """
    if loss not in LOSSES:
        raise ConfigError(f"loss must be one of {', '.join(LOSSES)}, got {loss}")
    _check("loss_sums", loss_sums, (n_blocks(n_points) * 2,), x.device)
    unscale = 1.0 / (loss_scale * n_points * kernels.layout.n_out)
    _gradients(kernels, loss, weights, x, target, n_points, dx, dweights, loss_sums, scratch,
               loss_scale, unscale, None, half)  # fmt: skip


def _gradients(
    kernels: MlpCudaKernels,
    name: str,
    weights: wp.array,
    x: wp.array,
    target: wp.array,
    n_points: int,
    dx: wp.array | None,
    dweights: wp.array,
    loss_sums: wp.array | None,
    scratch: Scratch,
    scale: float,
    unscale: float,
    counted: wp.array | None,
    half: Half,
) -> None:
    """Launch a gradient stage, or a half of it."""
    layout, device, blocks = kernels.layout, x.device, n_blocks(n_points)
    _check("weights", weights, (layout.n_weights,), device)
    _check("weight gradient", dweights, (layout.n_weights,), device)
    _check("x", x, (blocks, layout.n_in, BLOCK), device)
    _check("dy" if name == "backward" else "target", target, (blocks, layout.n_out, BLOCK), device)
    if dx is not None:
        _check("dx", dx, (blocks, layout.n_in, BLOCK), device)
    check_scratch(kernels, n_points, scratch, device, training=True)
    stage = kernels.stage(name)
    if half != "weights":
        points = (x, target, n_points, dx, loss_sums, scale, unscale, counted)
        _propagate(kernels, stage, weights, scratch, *points)
    if half != "points":
        chunks = network.n_chunks(blocks, device) if kernels.fused else network.slice_chunks(blocks)
        n_threads = -(-layout.n_weights // 8) * BLOCK_DIM
        args = [scratch.partials, chunks, unscale, dweights]
        # its warps meet on a CPU too
        wp.launch(stage.reduce, dim=n_threads, inputs=args, device=device, block_dim=BLOCK_DIM)


def _propagate(
    kernels: MlpCudaKernels,
    stage: Stage,
    weights: wp.array,
    scratch: Scratch,
    x: wp.array,
    target: wp.array,
    n_points: int,
    dx: wp.array | None,
    loss_sums: wp.array | None,
    scale: float,
    unscale: float,
    counted: wp.array | None,
) -> None:
    """Launch what gives dx and each chunk's weight gradients."""
    _prepare(stage, kernels.layout, weights, scratch)
    if kernels.fused:
        chunks = network.n_chunks(n_blocks(n_points), x.device)
        inputs = [scratch.fragments, x, target, n_points, counted, chunks, scale, unscale]
        outputs = [dx, loss_sums, scratch.partials]
        _launch(stage, stage.propagate, chunks * BLOCK_DIM, inputs + outputs, x.device)
    else:
        arguments = (scratch, x, target, n_points, dx, loss_sums, scale, unscale, counted)
        _gradient_slices(stage, kernels.layout, *arguments)


def _gradient_slices(
    stage: Stage,
    layout: MlpLayout,
    scratch: Scratch,
    x: wp.array,
    target: wp.array,
    n_points: int,
    dx: wp.array | None,
    loss_sums: wp.array | None,
    scale: float,
    unscale: float,
    counted: wp.array | None,
) -> None:
    """Launch the two kernels, slice after slice of the points."""
    device, blocks = x.device, n_blocks(n_points)
    for first in range(0, blocks, network.SLICE_BLOCKS):
        count = min(network.SLICE_BLOCKS, blocks - first)
        inputs = [scratch.fragments, x, target, n_points, counted, first, scale, unscale]
        outputs = [dx, loss_sums, scratch.activations]
        _launch(stage, stage.propagate, count * 32, inputs + outputs, device)
        n_threads = network.slice_chunks(count) * n_jobs(layout) * 32
        inputs = [scratch.activations, count, first, counted, network.CHUNK_BLOCKS, int(first > 0)]
        _launch(stage, stage.weight_gradient, n_threads, [*inputs, scratch.partials], device)


def _prepare(stage: Stage, layout: MlpLayout, weights: wp.array, scratch: Scratch) -> None:
    """Convert the weights to half fragments; a few thousand of them, on every call."""
    n_threads = 2 * 128 * layout.n_fragments
    _launch(stage, stage.prepare, n_threads, [weights, scratch.fragments], weights.device)


def _launch(
    stage: Stage, kernel: wp.Kernel | None, n_threads: int, args: list[Any], device: wp.Device
) -> None:
    block_dim = stage.block_dim(device)
    wp.launch(kernel, dim=n_threads, inputs=args, device=device, block_dim=block_dim)


def _check(name: str, array: wp.array, shape: tuple[int, ...], device: wp.Device) -> None:
    """Raise ShapeError unless the array can be read as the kernels do."""
    if device.is_cpu and not wp.config.enable_cpu_blocks:
        raise ShapeError(f"{name} is on {device}: the tensor-core kernels need a CUDA device")
    if tuple(array.shape) != shape or array.dtype is not wp.float32:
        raise ShapeError(
            f"{name} must be float32 of shape {list(shape)}, "
            f"got {list(array.shape)} of {array.dtype.__name__}"
        )
    if array.device != device:
        raise ShapeError(f"{name} must be on {device}, got {array.device}")
    if not array.is_contiguous or array.ptr % 16:
        raise ShapeError(f"{name} must be contiguous and aligned to 16 bytes; copy it")
