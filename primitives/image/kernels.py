"""Targets at sampled positions, and the positions of a raster.

Image coordinates: the unit square, y down, pixel centres at (i + 0.5) / size. Not differentiable.
Twin: tests/reference/image.py. One item is a block of 32 points on a CPU, a point on CUDA.
"""

import functools

import warp as wp

from ngp_warp.kernels.samplers import LANES
from ngp_warp.launch import module_options

# Odd to the last bit; a * a would overflow where the square root is a long before
_ASINH = """
auto transfer = [&](float v) {
    const float a = fabsf(v * gain);
    const float y = a < 1e-3f ? a - a * a * a * (1.f / 6.f)
                  : a < 1e4f ? logf(a + sqrtf(a * a + 1.f)) : logf(a) + 0.69314718f;
    return v < 0.f ? -y : y;
};
"""
_LINEAR = "auto transfer = [&](float v) { return v * gain; };"

_PIXEL = """
    x0 = x0 < width - 1 ? x0 : width - 1; y0 = y0 < height - 1 ? y0 : height - 1;
    const size_t at = ((size_t)y0 * width + x0) * CHANNELS;
    for (int c = 0; c < CHANNELS; ++c)
        target.data[(block * CHANNELS + c) * 32 + u] = transfer((float)pixels.data[at + c]);
    px[u] = ((float)x0 + 0.5f) / (float)width;
    py[u] = ((float)y0 + 0.5f) / (float)height;
"""
_BILINEAR = """
    const float sx = px[u] * (float)width - 0.5f, sy = py[u] * (float)height - 0.5f;
    const float fx = sx - floorf(sx), fy = sy - floorf(sy);
    auto clamp = [](int i, int n) { return i < 0 ? 0 : i < n ? i : n - 1; };
    const int xa = clamp((int)floorf(sx), width), xb = clamp((int)floorf(sx) + 1, width);
    const int ya = clamp((int)floorf(sy), height), yb = clamp((int)floorf(sy) + 1, height);
    auto at = [&](int x, int y, int c) {
        return transfer((float)pixels.data[((size_t)y * width + x) * CHANNELS + c]);
    };
    for (int c = 0; c < CHANNELS; ++c)
        target.data[(block * CHANNELS + c) * 32 + u] =
            (at(xa, ya, c) * (1.f - fx) + at(xb, ya, c) * fx) * (1.f - fy)
            + (at(xa, yb, c) * (1.f - fx) + at(xb, yb, c) * fx) * fy;
"""


@functools.cache
def target_kernel(dtype: type, n_channels: int, bilinear: bool, asinh: bool) -> wp.Kernel:
    """Return the kernel of the targets at a batch's positions."""
    body = (_BILINEAR if bilinear else _PIXEL).replace("CHANNELS", str(n_channels))
    text = f"""{LANES}{_ASINH if asinh else _LINEAR}
float* px = x.data + block * 64;
float* py = px + 32;
for (int u = u_begin; u < u_end; ++u) {{
    int x0 = (int)(px[u] * (float)width), y0 = (int)(py[u] * (float)height);
    (void)x0; (void)y0;
    {body}
}}
"""
    pixel_type = wp.array[dtype]

    @wp.func_native(text)
    def target_item(
        pixels: pixel_type,
        width: int,
        height: int,
        gain: float,
        item: int,
        x: wp.array[float],
        target: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def image_targets(
        begin: int,
        # in
        pixels: pixel_type,  # [height, width, n_channels]; addressed in 64 bits
        width: int,
        height: int,
        gain: float,
        # in and out
        x: wp.array[float],  # [n_blocks, 2, 32]; moved to the pixel's centre unless bilinear
        # out
        target: wp.array[float],  # [n_blocks, n_channels, 32]
    ):
        """The image's values, after the transfer."""
        target_item(pixels, width, height, gain, begin + wp.tid(), x, target)

    return image_targets


@functools.cache
def raster_kernel() -> wp.Kernel:
    """Return the kernel of the positions of pixels ``first``, ``first`` + 1, ... of a box."""
    text = f"""{LANES}
for (int u = u_begin; u < u_end; ++u) {{
    const long long i = first.data[0] + block * 32 + u;
    x.data[block * 64 + u] = (float)((left + (double)(i % box_width) + 0.5) * step_x);
    x.data[block * 64 + 32 + u] = (float)((top + (double)(i / box_width) + 0.5) * step_y);
}}
"""

    @wp.func_native(text)
    def raster_item(
        first: wp.array[wp.int64],
        left: wp.float64,
        top: wp.float64,
        box_width: int,
        step_x: wp.float64,
        step_y: wp.float64,
        item: int,
        x: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def raster_positions(
        begin: int,
        # in
        first: wp.array[wp.int64],  # [1], index of the first pixel in the box, row by row
        left: wp.float64,  # whole numbers, but for a block of a larger picture
        top: wp.float64,
        box_width: int,
        step_x: wp.float64,  # 1 / width of the whole raster
        step_y: wp.float64,
        # out
        x: wp.array[float],  # [n_blocks, 2, 32]
    ):
        """((left + column + 0.5) / width, (top + row + 0.5) / height)."""
        raster_item(first, left, top, box_width, step_x, step_y, begin + wp.tid(), x)

    return raster_positions
