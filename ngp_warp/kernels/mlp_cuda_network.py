"""A fused network on CUDA: which kernels it has, and the memory that they need between them."""

from dataclasses import dataclass
from typing import Any

import warp as wp

from ngp_warp import loading
from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.kernels.mlp_cuda_functions import ACTIVATIONS
from ngp_warp.kernels.mlp_cuda_fused import GROUP, fits
from ngp_warp.kernels.mlp_cuda_layout import MlpLayout
from ngp_warp.kernels.mlp_cuda_stages import Stage, make_stage

BLOCK = 32  # points of a block, and lanes of a warp
# Blocks whose activations are in scratch at a time: bounds scratch memory whatever the batch
SLICE_BLOCKS = 4096
# Of the two kernels' partial weight gradients: 512 points, so that 2^17 points make some 1000 warps
CHUNK_BLOCKS = 16
# Thread blocks of the one kernel that a multiprocessor has registers for, and their shared memory
_RESIDENT, _RESIDENT_BYTES = 3, 46592
# Of each thread block's shared memory, the system's own
_SYSTEM_BYTES = 1024


@dataclass(frozen=True, eq=False)
class MlpCudaKernels:
    """The kernels of one network, made (and compiled) by stage when first used."""

    layout: MlpLayout
    fused: bool
    """Gradients are made by one kernel, see mlp_cuda_fused; else by two, through scratch memory."""

    def stage(self, name: str) -> Stage:
        """Kernels of "forward", "backward", or of training with the loss of that name."""
        return make_stage(self.layout, name, self.fused)

    def load(self, device: Any, *stages: str) -> None:
        """Compile and load the stages before a graph is captured (see ``loading``)."""
        device = wp.get_device(device)
        for name in stages:
            stage = self.stage(name)
            loading.want(stage.module, str(device), stage.block_dim(device))


def make_mlp_cuda_kernels(
    n_in: int,
    n_neurons: int,
    n_hidden_layers: int,
    n_out: int,
    activation: str,
    output_activation: str,
) -> MlpCudaKernels:
    """Describe a network's kernels; nothing is compiled before its first use.

    Args:
        n_in: inputs, 1 to 256.
        n_neurons: width of the hidden layers: 16, 32, 64 or 128.
        n_hidden_layers: at least 1.
        n_out: outputs, 1 to 256.
        activation: of the hidden layers, a key of ``ACTIVATIONS``.
        output_activation: of the outputs, likewise.

    Raises:
        ConfigError: a value outside of these.
    """
    for name, value in (("n_in", n_in), ("n_out", n_out)):
        if not 1 <= value <= 256:
            raise ConfigError(
                f"network {name} must be from 1 to 256 in the fused kernel, got {value}"
            )
    if n_neurons not in (16, 32, 64, 128):
        raise ConfigError(
            f"network.n_neurons must be 16, 32, 64 or 128 when fused, got {n_neurons}"
        )
    if n_hidden_layers < 1:
        raise ConfigError(f"network.n_hidden_layers must be at least 1, got {n_hidden_layers}")
    for value in (activation, output_activation):
        if value not in ACTIVATIONS:
            raise ConfigError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {value}")
    layout = MlpLayout(n_in, n_neurons, n_hidden_layers, n_out, activation, output_activation)
    return MlpCudaKernels(layout, fits(layout))


@dataclass(frozen=True)
class ScratchSizes:
    """Lengths of the scratch arrays."""

    fragments: int
    """uint32: the weights in half, in fragment order, also transposed."""
    activations: int
    """uint32: activations and deltas in half of one slice of the points."""
    partials: int
    """float32: [n_chunks, n_weights] partial weight gradients."""


@dataclass(frozen=True, eq=False)
class Scratch:
    """Scratch arrays, reused by every call."""

    fragments: wp.array
    activations: wp.array | None
    partials: wp.array | None


def scratch_sizes(
    kernels: MlpCudaKernels, n_points: int, device: Any, training: bool = True
) -> ScratchSizes:
    """Scratch that calls with up to ``n_points`` points need (``forward`` alone: not training)."""
    layout = kernels.layout
    n_fragments = 2 * 128 * layout.n_fragments
    if not training:
        return ScratchSizes(n_fragments, 0, 0)
    blocks = n_blocks(n_points)
    if kernels.fused:
        return ScratchSizes(n_fragments, 0, n_chunks(blocks, device) * layout.n_weights)
    activations = min(blocks, SLICE_BLOCKS) * layout.n_scratch_tiles * 256
    return ScratchSizes(n_fragments, activations, slice_chunks(blocks) * layout.n_weights)


def make_scratch(
    kernels: MlpCudaKernels, n_points: int, device: Any, training: bool = True
) -> Scratch:
    """Allocate the scratch arrays of ``scratch_sizes``."""
    sizes = scratch_sizes(kernels, n_points, device, training)
    return Scratch(
        wp.empty(sizes.fragments, dtype=wp.uint32, device=device),
        wp.empty(sizes.activations, dtype=wp.uint32, device=device) if sizes.activations else None,
        wp.empty(sizes.partials, dtype=float, device=device) if training else None,
    )


def n_blocks(n_points: int) -> int:
    """Blocks of 32 points, the last one padded."""
    return -(-n_points // BLOCK)


def most_chunks(device: Any) -> int:
    """Thread blocks of the one kernel that a device runs at a time; those of an H100 on a CPU."""
    device = wp.get_device(device)
    if not device.is_cuda:
        return 396
    shared = device.max_shared_memory_per_block + _SYSTEM_BYTES  # a multiprocessor's
    return device.sm_count * max(min(_RESIDENT, shared // _RESIDENT_BYTES), 1)


def n_chunks(blocks: int, device: Any) -> int:
    """Thread blocks of the one kernel, each with a partial weight gradient, for so many blocks.

    As many as run at a time: another turn for a few would take as long as for all.
    """
    return min(-(-blocks * BLOCK // GROUP), most_chunks(device))


def slice_chunks(blocks: int) -> int:
    """Partial weight gradients of the two kernels, for so many blocks."""
    return -(-min(blocks, SLICE_BLOCKS) // CHUNK_BLOCKS)


def check_scratch(
    kernels: MlpCudaKernels, n_points: int, scratch: Scratch, device: wp.Device, training: bool
) -> None:
    """Raise ShapeError unless the scratch arrays are long enough."""
    sizes = scratch_sizes(kernels, n_points, device, training)
    for name in ("fragments", "activations", "partials"):
        array, wanted = getattr(scratch, name), getattr(sizes, name)
        length = 0 if array is None else array.shape[0]
        if length < wanted or (array is not None and array.device != device):
            raise ShapeError(
                f"scratch.{name} must have {wanted} entries on {device}, got {length}: call "
                f"make_scratch for {n_points} points"
            )
