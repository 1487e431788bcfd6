"""The multiresolution grid encoding: hash, dense or tiled, in two or three dimensions."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import GridEncodingConfig
from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.kernels import grid as vector
from ngp_warp.kernels import grid_cuda, grid_portable
from ngp_warp.kernels.grid_cuda_access import WIDEST
from ngp_warp.launch import check_size

# Warp arrays count their elements in 32 bits.
MAX_PARAMS = 2**31 - 1
# Tables whose gradients a GPU needs as long to look at as to flag what a batch moves: of a plane,
# whose near points share flags, and of space (20 and 80 microseconds at 3.35 TB/s).
_LARGE = {2: 2**24, 3: 2**26}


@dataclass(frozen=True, kw_only=True)
class GridLevel:
    """One resolution of a grid."""

    scale: float
    """A position x in the unit cube lies at x * scale + 0.5 in vertex coordinates."""
    resolution: int
    """Vertices along an axis."""
    size: int
    """Entries of the level's table."""
    offset: int
    """Entries of the levels before."""
    mode: int
    """kernels.grid.DENSE, HASH or TILED."""


def resolve(config: GridEncodingConfig, finest_resolution: int | None = None) -> GridEncodingConfig:
    """Return the config with every None replaced by the field's usual default.

    Args:
        config: L, F and T default to 16, 2 and 2^19; per_level_scale follows from
            finest_resolution where it is not given.
        finest_resolution: used where the config has none.

    Raises:
        ConfigError: neither a scale nor a finest resolution, or one below base_resolution.
    """
    n_levels = config.n_levels or 16
    finest = config.finest_resolution or finest_resolution
    scale = config.per_level_scale
    if scale is None:
        if finest is None:
            raise ConfigError("give encoding.per_level_scale or encoding.finest_resolution")
        if finest < config.base_resolution:
            raise ConfigError(
                f"encoding.finest_resolution must be at least encoding.base_resolution "
                f"({config.base_resolution}), got {finest}"
            )
        ratio = finest / config.base_resolution
        scale = float(np.exp(np.log(ratio) / (n_levels - 1))) if n_levels > 1 else 1.0
    return replace(
        config,
        n_levels=n_levels,
        n_features_per_level=config.n_features_per_level or 2,
        log2_hashmap_size=config.log2_hashmap_size or 19,
        per_level_scale=scale,
        finest_resolution=round(config.base_resolution * scale ** (n_levels - 1)),
    )


def grid_levels(config: GridEncodingConfig, n_dims: int) -> list[GridLevel]:
    """Return the levels of a resolved config, by the convention of Mueller et al.'s reference.

    scale_l = b^l N_min - 1; resolution = ceil(scale) + 1; entries = resolution^d rounded up to 8,
    at most T (hash) or N_min^d (tiled). A level whose vertices all have an entry is dense.

    Raises:
        ConfigError: a table too large to be indexed.
    """
    levels = []
    offset = 0
    capacity = 1 << int(config.log2_hashmap_size or 0)
    for index in range(config.n_levels or 0):
        # float32 like the reference, so that ceil() falls on the same side; rounded from float64,
        # as NumPy's own float32 functions are another bit on another processor (and at 1.75)
        log2_scale = np.float32(np.log2(np.float64(np.float32(config.per_level_scale))))
        growth = np.float32(np.exp2(np.float64(np.float32(index) * log2_scale)))
        scale = float(np.float32(growth * np.float32(config.base_resolution) - np.float32(1)))
        resolution = int(np.ceil(scale)) + 1
        # Python integers: 1386**3 wraps a 32-bit int, and the level would pass as dense
        n_vertices = resolution**n_dims
        size = -(-n_vertices // 8) * 8
        if config.grid_type == "hash":
            size = min(size, capacity)
        elif config.grid_type == "tiled":
            size = min(size, -(-(config.base_resolution**n_dims) // 8) * 8)
        mode = vector.DENSE
        if n_vertices > size:
            mode = vector.HASH if config.grid_type == "hash" else vector.TILED
        levels.append(
            GridLevel(scale=scale, resolution=resolution, size=size, offset=offset, mode=mode)
        )
        offset += size
        if offset * (config.n_features_per_level or 0) > MAX_PARAMS:
            raise ConfigError(
                f"the grid needs more than {MAX_PARAMS} parameters at level {index} (resolution "
                f"{resolution}, {size} entries); lower encoding.log2_hashmap_size, n_levels or "
                "finest_resolution"
            )
    return levels


def level_strides(level: GridLevel, n_dims: int) -> list[int]:
    """Return the index stride of every axis; 0 for an axis that a tiled level leaves out."""
    strides, stride = [], 1
    for _ in range(n_dims):
        strides.append(stride if stride <= level.size else 0)
        stride *= level.resolution
    return strides


class GridEncoding:
    """Features of a position: interpolated entries of a table a level.

    Args:
        n_dims: 2 or 3.
        config: resolved (see ``resolve``).
        device: "cpu" or a CUDA device.
        backend: "vector" (CPU only), "portable", or "auto": the faster one.

    Positions are blocked [n_blocks, n_dims, 32] in the unit cube (clamped to it); features are
    blocked [n_blocks, n_rows, 32] with row level * F + feature.
    """

    def __init__(self, n_dims: int, config: GridEncodingConfig, device: str, backend: str = "auto"):
        if n_dims not in {2, 3}:
            raise ConfigError(f"a grid encoding has 2 or 3 dimensions, got {n_dims}")
        if backend == "vector" and device != "cpu":
            raise ConfigError(f"the grid's vector backend runs on a CPU, not on {device}")
        self.config = config
        self.n_dims = n_dims
        self.device = device
        self.backend = backend if backend != "auto" else "vector" if device == "cpu" else "portable"
        self.levels = grid_levels(config, n_dims)
        self.n_levels = len(self.levels)
        self.n_features = int(config.n_features_per_level or 0)
        self.n_outputs = self.n_levels * self.n_features
        self.n_entries = self.levels[-1].offset + self.levels[-1].size
        self.n_params = self.n_entries * self.n_features
        self.shape = vector.GridShape(
            n_dims=n_dims,
            n_features=self.n_features,
            interpolation=config.interpolation,
            dtype="float16" if self.config.half else "float32",
        )
        self.scale = wp.array([v.scale for v in self.levels], dtype=float, device=device)
        meta = np.zeros((self.n_levels, vector.N_META), np.uint32)
        for row, v in zip(meta, self.levels, strict=True):
            row[[vector.OFFSET, vector.SIZE, vector.MODE]] = v.offset, v.size, v.mode
            row[[vector.STRIDE_Y, vector.STRIDE_Z]] = [*level_strides(v, n_dims), 0][1:3]
        self.meta = wp.array(meta.ravel(), device=device)

    @property
    def flagged(self) -> bool:
        """Whether training should flag the entries that get a gradient.

        A CPU's kernels always do. On CUDA a flag costs as much as an addition, but a table may be
        so large that Adam should not look at all of it.
        """
        return self.device == "cpu" or self.n_params > _LARGE[self.n_dims]

    @property
    def table_dtype(self) -> Any:
        """Warp dtype of the table that forward reads."""
        return wp.float16 if self.config.half else wp.float32

    def initial_table(self, seed: int) -> np.ndarray:
        """Return float32 [n_params], uniform in +-1e-4 (Mueller et al. 2022, section 4)."""
        rng = np.random.default_rng([seed, 1])
        return (rng.random(self.n_params, dtype=np.float32) * 2 - 1) * np.float32(1e-4)

    def forward(
        self,
        x: wp.array,
        table: wp.array,
        out: wp.array,
        n_rows: int,
        count: wp.array | None = None,
    ) -> launch.Launch:
        """Record features = interpolated entries, into rows 0 to n_outputs of ``out``.

        Args:
            x: positions, blocked, flat float32 [n_blocks * n_dims * 32].
            table: flat [n_params] of ``table_dtype``.
            out: features, blocked, flat float32 [n_blocks * n_rows * 32].
            n_rows: rows of ``out``, at least n_outputs (auxiliary inputs follow).
            count: int32 [1], read at each run: points that count; the others' features may be
                anything. None: all.
        """
        n_blocks = self.n_blocks(x)
        check_size("table", table, self.n_params, self.device)
        check_size("out", out, n_blocks * n_rows * 32, self.device)
        self._check_aligned("table", table)
        if self.backend == "vector":
            n_runs = -(-n_blocks // vector.BLOCKS_PER_ITEM)
            args = [x, table, self.scale, self.meta, self.n_levels, n_rows, n_blocks, out]
            kernel = vector.forward_kernel(self.shape)
            return launch.record(kernel, n_runs * self.n_levels, args, self.device)
        n_items, per_item = grid_cuda.items(n_blocks * 32, self.n_levels)
        args = [x, table, self.scale, self.meta, self.n_levels, per_item, n_rows, n_blocks]
        args += [count, out]
        return launch.record(grid_cuda.forward_kernel(self.shape), n_items, args, self.device)

    def backward(
        self,
        x: wp.array,
        d_out: wp.array,
        d_table: wp.array,
        touched: wp.array | None,
        n_rows: int,
    ) -> launch.Launch:
        """Record d_table += weights times d_out.

        Args:
            x: as in ``forward``.
            d_out: gradient of the features, laid out like ``out``; zero where a block is padded.
            d_table: flat float32 [n_params], added to; or int64 for a sum in fixed point
                (``FIXED_POINT``) that does not depend on the order, portable backend only.
            touched: uint8 [n_entries / GROUP], set to 1 where something was added; or None, on CUDA
                alone.
            n_rows: rows of ``d_out``.
        """
        n_blocks = self.n_blocks(x)
        check_size("d_out", d_out, n_blocks * n_rows * 32, self.device)
        check_size("d_table", d_table, self.n_params, self.device)
        self.check_flags(touched)
        self._check_aligned("d_table", d_table)
        if self.backend == "vector":
            kernel = vector.backward_kernel(self.shape)
            args = [x, d_out, self.scale, self.meta, n_rows, n_blocks, d_table, touched]
            return launch.record(kernel, self.n_levels, args, self.device, shards=self.n_levels)
        kernel = grid_cuda.backward_kernel(self.shape, fixed_point=d_table.dtype == wp.int64)
        n_items, per_item = grid_cuda.items(n_blocks * 32, self.n_levels)
        args = [x, d_out, self.scale, self.meta, self.n_levels, per_item, n_rows, n_blocks]
        args += [d_table, touched]
        # one shard on a CPU, where atomics of two shards would lose sums
        return launch.record(kernel, n_items, args, self.device, shards=1)

    def _check_aligned(self, name: str, array: wp.array) -> None:
        """Raise ShapeError unless an array begins where a GPU's widest accesses may."""
        if self.device != "cpu" and (array.ptr or 0) % WIDEST:
            raise ShapeError(
                f"{name} must begin at a multiple of {WIDEST} bytes on {self.device}, it "
                f"begins at {array.ptr:#x}; copy it"
            )

    def make_flags(self) -> wp.array | None:
        """Return the flags that the backward passes need, none set; None on CUDA."""
        if self.device != "cpu":
            return None
        return wp.zeros(self.n_entries // vector.GROUP, dtype=wp.uint8, device=self.device)

    def check_flags(self, touched: wp.array | None) -> None:
        """Raise ShapeError unless ``touched`` is what the backward passes take."""
        if touched is not None or self.device == "cpu":
            check_size("touched", touched, self.n_entries // vector.GROUP, self.device)

    def input_gradient(
        self, x: wp.array, d_out: wp.array, table: wp.array, dx: wp.array, n_rows: int
    ) -> launch.Launch:
        """Record dx = the positions' gradient; arguments as in ``forward`` and ``backward``."""
        n_points = self.n_blocks(x) * 32
        check_size("d_out", d_out, n_points * n_rows, self.device)
        check_size("table", table, self.n_params, self.device)
        check_size("dx", dx, x.size, self.device)
        kernel = grid_portable.input_gradient_kernel(self.shape)
        args = [x, d_out, table, self.scale, self.meta, self.n_levels, n_rows, dx]
        return launch.record(kernel, n_points, args, self.device)

    def second_order(
        self,
        x: wp.array,
        d_out: wp.array,
        v: wp.array,
        table: wp.array,
        n_rows: int,
        *,
        dd_out: wp.array,
        d_table: wp.array,
        touched: wp.array | None,
        ddx: wp.array | None,
    ) -> list[launch.Launch]:
        """Record the adjoint of ``input_gradient`` for a loss on dx.

        Args:
            x: positions.
            d_out: what ``input_gradient`` was given.
            v: gradient of the loss in dx, blocked like x.
            table: what is read.
            n_rows: rows of d_out and dd_out.
            dd_out: out, gradient of the loss in d_out, blocked like d_out.
            d_table: float32, added to.
            touched: set where d_table was added to.
            ddx: out, gradient of the loss in x, blocked like x; None: not wanted.
        """
        n_points = self.n_blocks(x) * 32
        check_size("v", v, x.size, self.device)
        for name, array in (("d_out", d_out), ("dd_out", dd_out)):
            check_size(name, array, n_points * n_rows, self.device)
        for name, array in (("table", table), ("d_table", d_table)):
            check_size(name, array, self.n_params, self.device)
        self.check_flags(touched)
        kernel = grid_portable.second_order_kernel(self.shape)
        args = [x, d_out, v, table, self.scale, self.meta, n_rows, n_points // 32]
        args += [dd_out, d_table, touched]
        # a shard is a level on a CPU, so that no two write one address
        n_items, shards = n_points * self.n_levels, self.n_levels
        launches = [launch.record(kernel, n_items, args, self.device, shards=shards)]
        return launches + self.second_order_positions(x, d_out, v, table, n_rows, ddx)

    def second_order_positions(
        self,
        x: wp.array,
        d_out: wp.array,
        v: wp.array,
        table: wp.array,
        n_rows: int,
        ddx: wp.array | None,
    ) -> list[launch.Launch]:
        """Record the part of ``second_order`` for the positions; nothing if ddx is None."""
        if ddx is None:
            return []
        check_size("ddx", ddx, x.size, self.device)
        kernel = grid_portable.second_order_position_kernel(self.shape)
        args = [x, d_out, v, table, self.scale, self.meta, self.n_levels, n_rows, ddx]
        return [launch.record(kernel, self.n_blocks(x) * 32, args, self.device)]

    def n_blocks(self, x: wp.array) -> int:
        """Return the blocks of 32 positions in x, which is whole blocks on this device."""
        n_blocks = x.size // (self.n_dims * 32)
        check_size("x", x, n_blocks * self.n_dims * 32, self.device)
        return n_blocks
