"""Batches of a volume's values: a part everywhere in its box, a part in its occupied blocks."""

from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch, samplers
from ngp_warp.encodings.octree_cells import morton_codes
from ngp_warp.primitives.volume.frame import Frame
from ngp_warp.primitives.volume.grid import Volume
from ngp_warp.primitives.volume.kernels.samples import BLOCK, block_kernel, value_kernel
from ngp_warp.primitives.volume.transfer import Transfer
from ngp_warp.views import flat_view


def occupied(volume: Volume) -> np.ndarray:
    """Return bool [x, y, z]: the active voxels that do not hold the background's value."""
    values = volume.values.reshape(*volume.values.shape[:3], -1)
    differs = np.zeros(values.shape[:3], bool)
    for c, background in enumerate(volume.background):
        differs |= values[..., c] != np.float32(background)
    return differs if volume.active is None else differs & volume.active


def occupied_blocks(mask: np.ndarray) -> np.ndarray:
    """Return the blocks that hold an occupied voxel, int32 [n, 3], along a Morton curve."""
    starts = [np.arange(0, n, BLOCK) for n in mask.shape]
    reduced = mask
    for axis, start in enumerate(starts):
        reduced = np.logical_or.reduceat(reduced, start, axis=axis)
    blocks = np.argwhere(reduced).astype(np.int32)
    return blocks[np.argsort(morton(blocks), kind="stable")]


def morton(blocks: np.ndarray) -> np.ndarray:
    """Return the places of blocks int [n, 3] along a Morton curve, int64 [n]."""
    # z in the lowest bit: the fastest in memory
    return morton_codes(blocks[:, ::-1], 20).astype(np.int64)


class Batches:
    """Records the drawing of positions and targets.

    Args:
        volume: what is drawn from.
        frame: to the unit cube.
        transfer: from values to targets.
        blocks: occupied ones, int32 [n, 3].
        n_points: of a batch, a multiple of 64.
        share: of them in the blocks.
        seed: of the random numbers.
        trilinear: values anywhere instead of at voxels' middles.
        part: which of how many equal parts of a batch of so many times the points this is.
        device: "cpu" or a CUDA device.
    """

    def __init__(
        self,
        volume: Volume,
        frame: Frame,
        transfer: Transfer,
        blocks: np.ndarray,
        *,
        n_points: int,
        share: float,
        seed: int,
        trilinear: bool,
        device: str,
        part: tuple[int, int] = (0, 1),
    ):
        self._values: Any = flat_view(np.ascontiguousarray(volume.values), device)
        self._shape = volume.values.shape[:3]
        self._n_channels = volume.n_channels
        self._frame, self._transfer = frame, transfer
        self._blocks = wp.array(blocks.reshape(-1), dtype=wp.int32, device=device)
        self._n_points, self._seed, self._trilinear = n_points, seed, trilinear
        self._part = part
        self._n_in_blocks = round(share * n_points / 32) * 32 if len(blocks) else 0
        self._device = device

    def stages(self, step: wp.array, x: wp.array, target: wp.array) -> list[list[launch.Launch]]:
        """Record the batch of a step.

        Args:
            step: int64 [1], the run's step.
            x: out, blocked [n_blocks, 3, 32], in the unit cube.
            target: out, blocked [n_blocks, n_channels, 32].
        """
        n_everywhere = self._n_points - self._n_in_blocks
        device = self._device
        draw = []
        if n_everywhere:
            most: Any = x[: 3 * n_everywhere]
            args = ["stratified", 3, self._seed, step, most, device, self._part]
            draw.append(samplers.sample(*args))
        if self._n_in_blocks:
            rest: Any = x[3 * n_everywhere :]
            index, n_parts = self._part
            args = [self._seed, step, n_everywhere * n_parts, index * self._n_in_blocks]
            args += [self._n_in_blocks * n_parts, self._blocks]
            args += [self._blocks.size // 3, *self._shape, rest]
            n_items = self._n_in_blocks // (32 if device == "cpu" else 1)
            draw.append(launch.record(block_kernel(), n_items, args, device))
        kernel = value_kernel(self._n_channels, self._trilinear)
        args = [self._values, *self._shape, self._transfer.low, self._transfer.gain]
        args += [self._frame.margin + 0.5, float(self._frame.side), x, target]
        n_items = self._n_points // (32 if device == "cpu" else 1)
        return [draw, [launch.record(kernel, n_items, args, device)]]
