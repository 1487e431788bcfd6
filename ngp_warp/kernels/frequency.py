"""Frequency encoding: an input coordinate's sines and cosines of doubling frequency.

    y = (x, sin(2^0 pi x), cos(2^0 pi x), ..., sin(2^(L-1) pi x), cos(2^(L-1) pi x))

each for all coordinates, x itself if it is wanted. Source: Mildenhall et al. 2020, equation 4;
their code includes x. Differentiable in x. Twin: tests/reference/frequency.py.

2^k x and its distance from a multiple of 1/2 are exact in float32, so that the error of the highest
frequency is that of the lowest. One text serves 16 points of a block (CPU) and one point (CUDA).
"""

import functools
import math

import warp as wp

from ngp_warp.kernels.vector import on_both
from ngp_warp.launch import module_options

# Taylor series on +-pi / 4: sin to z^9, cos to z^8, errors below 3e-8
SIN_COS = """
auto sin_cos_pi = [&](v16 a, v16& sine, v16& cosine) {
    const v16 n = vfloor(a * 2.f + 0.5f), half = vfloor(n * 0.5f);
    const v16 z = (a - n * 0.5f) * 3.14159265f, q = z * z;
    const v16 s = z + z * q * (-1.f / 6.f + q * (1.f / 120.f + q * (-1.f / 5040.f
        + q * (1.f / 362880.f))));
    const v16 c = 1.f + q * (-0.5f + q * (1.f / 24.f + q * (-1.f / 720.f + q * (1.f / 40320.f))));
    // n counts quarter turns; an odd number swaps the two
    const v16 odd = n - half * 2.f, back = half - vfloor(half * 0.5f) * 2.f;
    const v16 sign = 1.f - back * 2.f;
    sine = (odd > 0.5f ? c : s) * sign;
    cosine = (odd > 0.5f ? -s : c) * sign;
};
"""


def _on_both(text: str) -> str:
    """Return a snippet of ``text`` for one point (CUDA) or the two vectors of a block (CPU)."""
    return on_both(text, SIN_COS)


def _text(n_dims: int, n_frequencies: int, identity: bool, backward: bool) -> str:
    """Return the text of one pass over the coordinates and their frequencies."""
    plain = n_dims if identity else 0
    if backward:
        start = "v16 sum = *(const v16*)(Y + d * 32);" if identity else "v16 sum = (v16)(0.f);"
        each = f"""
        const v16 ds = *(const v16*)(Y + row * 32), dc = *(const v16*)(Y + (row + {n_dims}) * 32);
        sum += (ds * c - dc * s) * (scale * {math.pi:.9g}f);"""
        end = "*(v16*)(dx.data + at) = sum;"
    else:
        start = "*(v16*)(Y + d * 32) = v;" if identity else ""
        each = f"""
        *(v16*)(Y + row * 32) = s;
        *(v16*)(Y + (row + {n_dims}) * 32) = c;"""
        end = ""
    return f"""
float* Y = y.data + ((size_t)block * n_rows + first_row) * 32 + offset;
for (int d = 0; d < {n_dims}; ++d) {{
    const size_t at = ((size_t)block * {n_dims} + d) * 32 + offset;
    const v16 v = *(const v16*)(x.data + at);
    {start}
    float scale = 1.f;
    for (int k = 0; k < {n_frequencies}; ++k, scale *= 2.f) {{
        v16 s, c;
        sin_cos_pi(v * scale, s, c);
        const int row = {plain} + 2 * k * {n_dims} + d;{each}
    }}
    {end}
}}"""


@functools.cache
def forward_kernel(n_dims: int, n_frequencies: int, identity: bool) -> wp.Kernel:
    """Return the kernel of the encoding."""

    @wp.func_native(_on_both(_text(n_dims, n_frequencies, identity, backward=False)))
    def encode_item(
        x: wp.array[float], n_rows: int, first_row: int, item: int, y: wp.array[float]
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def frequency_forward(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, n_dims, 32]
        n_rows: int,  # of y
        first_row: int,  # of the encoding in y
        # out
        y: wp.array[float],  # [n_blocks, n_rows, 32]
    ):
        """Rows of y = (x, sin(2^k pi x), cos(2^k pi x))."""
        encode_item(x, n_rows, first_row, begin + wp.tid(), y)

    return frequency_forward


@functools.cache
def backward_kernel(n_dims: int, n_frequencies: int, identity: bool) -> wp.Kernel:
    """Return the kernel of the gradient in the inputs."""

    @wp.func_native(_on_both(_text(n_dims, n_frequencies, identity, backward=True)))
    def differentiate_item(
        x: wp.array[float],
        n_rows: int,
        first_row: int,
        y: wp.array[float],
        item: int,
        dx: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def frequency_backward(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, n_dims, 32]
        n_rows: int,  # of dy
        first_row: int,  # of the encoding in dy
        dy: wp.array[float],  # [n_blocks, n_rows, 32]
        # out
        dx: wp.array[float],  # [n_blocks, n_dims, 32]
    ):
        """dx = dy_x + sum over k of 2^k pi (dy_sin cos(2^k pi x) - dy_cos sin(2^k pi x))."""
        differentiate_item(x, n_rows, first_row, dy, begin + wp.tid(), dx)

    return frequency_backward
