"""Positions in blocks of a volume, and the volume's values at positions.

A position is a share of the box, [0, 1)^3, until it has its value; then it lies in the unit cube of
``frame.Frame``. Not differentiable. Twin: tests/reference/volume_samples.py. One item is a block of
32 points on a CPU, a point on CUDA.
"""

import functools

import warp as wp

from ngp_warp.kernels.samplers import HASH, LANES
from ngp_warp.launch import module_options

BLOCK = 8
"""Voxels along a side of a block."""


@functools.cache
def block_kernel() -> wp.Kernel:
    """Return the kernel of random positions in chosen blocks."""
    text = f"""{HASH}
for (int u = u_begin; u < u_end; ++u) {{
    const int k = offset + block * 32 + u;
    const unsigned i = (unsigned)(first_point + k);
    // one random place in each share of the list: neighbours in the batch are near in space
    const long long at = (long long)(((double)k + unit(bits(i, 3u))) / n_points * n_blocks);
    const int b = at < n_blocks ? (int)at : n_blocks - 1;
    for (unsigned d = 0; d < 3u; ++d) {{
        const int voxels = d == 0 ? nx : d == 1 ? ny : nz;
        const int low = blocks.data[3 * b + d] * {BLOCK};
        const int width = voxels - low < {BLOCK} ? voxels - low : {BLOCK};
        const float p = ((float)low + (float)width * unit(bits(i, d))) / (float)voxels;
        x.data[(block * 3 + d) * 32 + u] = p < 1.f ? p : 0.99999994f;
    }}
}}
"""

    @wp.func_native(text)
    def block_item(
        seed: int,
        step: wp.array[wp.int64],
        first_point: int,
        offset: int,
        n_points: int,
        blocks: wp.array[int],
        n_blocks: int,
        nx: int,
        ny: int,
        nz: int,
        item: int,
        x: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def block_positions(
        begin: int,
        # in
        seed: int,
        step: wp.array[wp.int64],  # [1]
        first_point: int,  # number in the batch of the first point in blocks
        offset: int,  # number among those of the first of these points
        n_points: int,  # of the batch, in blocks
        blocks: wp.array[int],  # [n_blocks, 3], in blocks
        n_blocks: int,
        nx: int,  # voxels of the box
        ny: int,
        nz: int,
        # out
        x: wp.array[float],  # [n_points / 32, 3, 32], shares of the box, in [0, 1)
    ):
        """Uniform positions in the blocks, as many in each (blocks at the box's end are cut)."""
        item = begin + wp.tid()
        block_item(seed, step, first_point, offset, n_points, blocks, n_blocks, nx, ny, nz, item, x)

    return block_positions


_VOXEL = """
    int at[3];
    for (int d = 0; d < 3; ++d) {
        at[d] = (int)(px[d * 32 + u] * (float)shape[d]);
        at[d] = at[d] < shape[d] - 1 ? at[d] : shape[d] - 1;
    }
    const size_t first = (((size_t)at[0] * ny + at[1]) * nz + at[2]) * CHANNELS;
    for (int c = 0; c < CHANNELS; ++c)
        target.data[(block * CHANNELS + c) * 32 + u] = (values.data[first + c] - low) * gain;
    for (int d = 0; d < 3; ++d)
        px[d * 32 + u] = ((float)at[d] + margin) / side;
"""
_TRILINEAR = """
    float place[3], f[3];
    int at[3], next[3];
    for (int d = 0; d < 3; ++d) {
        // from middle to middle: in the outer half of a voxel at the box's faces nothing changes
        const float s = px[d * 32 + u] * (float)shape[d] - 0.5f;
        place[d] = s < 0.f ? 0.f : s > (float)(shape[d] - 1) ? (float)(shape[d] - 1) : s;
        at[d] = (int)place[d];
        next[d] = at[d] + 1 < shape[d] ? at[d] + 1 : at[d];
        f[d] = place[d] - (float)at[d];
    }
    for (int c = 0; c < CHANNELS; ++c) {
        auto v = [&](int i, int j, int k) {
            return values.data[(((size_t)i * ny + j) * nz + k) * CHANNELS + c];
        };
        auto line = [&](int i, int j) {
            return v(i, j, at[2]) * (1.f - f[2]) + v(i, j, next[2]) * f[2];
        };
        auto plane = [&](int i) {
            return line(i, at[1]) * (1.f - f[1]) + line(i, next[1]) * f[1];
        };
        const float value = plane(at[0]) * (1.f - f[0]) + plane(next[0]) * f[0];
        target.data[(block * CHANNELS + c) * 32 + u] = (value - low) * gain;
    }
    for (int d = 0; d < 3; ++d)
        px[d * 32 + u] = (place[d] + margin) / side;
"""


@functools.cache
def value_kernel(n_channels: int, trilinear: bool) -> wp.Kernel:
    """Return the kernel of the values at a batch's positions."""
    body = (_TRILINEAR if trilinear else _VOXEL).replace("CHANNELS", str(n_channels))
    text = f"""{LANES}
float* px = x.data + block * 96;
const int shape[3] = {{nx, ny, nz}};
for (int u = u_begin; u < u_end; ++u) {{{body}}}
"""

    @wp.func_native(text)
    def value_item(
        values: wp.array[float],
        nx: int,
        ny: int,
        nz: int,
        low: float,
        gain: float,
        margin: float,
        side: float,
        item: int,
        x: wp.array[float],
        target: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def volume_targets(
        begin: int,
        # in
        values: wp.array[float],  # [nx, ny, nz, n_channels]; addressed in 64 bits
        nx: int,
        ny: int,
        nz: int,
        low: float,  # a target is (value - low) * gain
        gain: float,
        margin: float,  # of ``frame.Frame``, plus 0.5
        side: float,
        # in and out
        x: wp.array[float],  # [n_blocks, 3, 32]: shares of the box; then in the unit cube
        # out
        target: wp.array[float],  # [n_blocks, n_channels, 32]
    ):
        """The volume's value at the nearest voxel's middle, or between the middles."""
        value_item(values, nx, ny, nz, low, gain, margin, side, begin + wp.tid(), x, target)

    return volume_targets
