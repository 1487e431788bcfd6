"""Encodings of one coordinate at a time: identity, frequency, triangle wave, one-blob.

Row d * n + k of y is f_k(x_d), for n functions f_k; the gradients follow from f_k' and f_k'':
    dx_d = sum_k dy_dk f_k'(x_d)
    S = <v, dx>:  dS/d dy_dk = v_d f_k'(x_d),  dS/dx_d = v_d sum_k dy_dk f_k''(x_d).

    identity       f = scale x + offset
    frequency      sin(2^k pi x), cos(2^k pi x)                 (Mildenhall et al. 2020, equation 4)
    triangle_wave  4 |frac(2^(k-1) x + k/4) - 1/2| - 1          (Mueller et al. 2021, section 3.3)
    one_blob       F((k+1)/n - x) - F(k/n - x), F(t) = sum over j in -1, 0, 1 of Q(t + j),
                   Q the integral of the quartic kernel 15/16 (1 - u^2)^2, u = n t, on [-1, 1]
                                                                (Mueller et al. 2019, section 4.3)
Rows, phases, kernel and the blob's way around the ends of [0, 1] are tiny-cuda-nn's. Differentiable
in x, twice. Twin: tests/reference/coordinates.py.

2^k x is exact in float32, so that the highest frequency is as exact as the lowest. One text serves
16 points of a block (CPU) and one point (CUDA).
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import warp as wp

from ngp_warp.kernels.frequency import SIN_COS
from ngp_warp.kernels.vector import on_both
from ngp_warp.launch import module_options

# (k, f, f', f'') to what a pass does with a row
Emit = Callable[[str, str, str, str], str]


@dataclass(frozen=True, kw_only=True)
class Functions:
    """The functions of one coordinate, for which kernels are compiled."""

    kind: str
    """identity, frequency, triangle_wave or one_blob."""
    n: int = 1
    """Frequencies or bins."""
    scale: float = 1.0
    offset: float = 0.0

    @property
    def n_rows(self) -> int:
        """Rows of a coordinate."""
        return 2 * self.n if self.kind == "frequency" else self.n


def _identity(functions: Functions, emit: Emit) -> str:
    scale = f"(v16)({functions.scale:.8e}f)"
    return emit("0", f"v * {scale} + {functions.offset:.8e}f", scale, "(v16)(0.f)")


def _frequency(functions: Functions, emit: Emit) -> str:
    return f"""
    float scale = 1.f;
    for (int k = 0; k < {functions.n}; ++k, scale *= 2.f) {{
        const float w = scale * {math.pi:.8e}f;
        v16 s, c;
        sin_cos_pi(v * scale, s, c);
        {emit("2 * k", "s", "c * w", "s * (-w * w)")}
        {emit("2 * k + 1", "c", "s * -w", "c * (-w * w)")}
    }}"""


def _triangle_wave(functions: Functions, emit: Emit) -> str:
    return f"""
    float scale = 0.5f;
    for (int k = 0; k < {functions.n}; ++k, scale *= 2.f) {{
        v16 w = v * scale + 0.25f * k;
        w = w - vfloor(w) - 0.5f;
        const v16 side = w < 0.f ? (v16)(-4.f) : (v16)(4.f);
        {emit("k", "side * w - 1.f", "side * scale", "(v16)(0.f)")}
    }}"""


def _one_blob(functions: Functions, emit: Emit) -> str:
    n = functions.n
    # The three terms of F never rise together, for the kernel is at most half a period wide: the
    # nearest one has the slope, and those before it count 1 each.
    return f"""
    v16 left = (v16)(0.f), left1 = left, left2 = left;
    for (int k = -1; k < {n}; ++k) {{
        const v16 t = (k + 1) * {1 / n:.8e}f - v;
        const v16 turn = vmin(vmax(vfloor(t + 0.5f), (v16)(-1.f)), (v16)(1.f));
        const v16 u = vmin(vmax((t - turn) * {n}.f, (v16)(-1.f)), (v16)(1.f));
        const v16 q = u * u, rest = 1.f - q;
        const v16 right = turn + u * (0.9375f + q * (-0.625f + q * 0.1875f));
        const v16 right1 = rest * rest * {0.9375 * n:.8e}f;
        const v16 right2 = u * rest * {-3.75 * n * n:.8e}f;
        if (k >= 0) {{
            {emit("k", "right - left", "left1 - right1", "right2 - left2")}
        }}
        left = right; left1 = right1; left2 = right2;
    }}"""


_TEXTS = {
    "identity": _identity,
    "frequency": _frequency,
    "triangle_wave": _triangle_wave,
    "one_blob": _one_blob,
}


def _snippet(functions: Functions, n_dims: int, emit: Emit, before: str, after: str) -> str:
    """Return the text of one pass; Y points to a coordinate's first row in y or dy."""
    text = f"""
const int n_rows = {n_dims * functions.n_rows};
for (int d = 0; d < {n_dims}; ++d) {{
    const size_t at = ((size_t)block * {n_dims} + d) * 32 + offset;
    const size_t row = ((size_t)block * n_rows + d * {functions.n_rows}) * 32 + offset;
    const v16 v = *(const v16*)(x.data + at);
    {before}
    {_TEXTS[functions.kind](functions, emit)}
    {after}
}}"""
    return on_both(text, SIN_COS if functions.kind == "frequency" else "")


def _load(array: str, k: str) -> str:
    return f"*(const v16*)({array}.data + row + ({k}) * 32)"


@functools.cache
def forward_kernel(functions: Functions, n_dims: int) -> wp.Kernel:
    """Return the kernel of the encoding."""

    def emit(k: str, f: str, _f1: str, _f2: str) -> str:
        return f"*(v16*)(y.data + row + ({k}) * 32) = {f};"

    @wp.func_native(_snippet(functions, n_dims, emit, "", ""))
    def encode_item(x: wp.array[float], item: int, y: wp.array[float]): ...

    @wp.kernel(module="unique", module_options=module_options())
    def coordinates_forward(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, n_dims, 32]
        # out
        y: wp.array[float],  # [n_blocks, n_dims * n, 32]
    ):
        """y_dk = f_k(x_d)."""
        encode_item(x, begin + wp.tid(), y)

    return coordinates_forward


@functools.cache
def backward_kernel(functions: Functions, n_dims: int) -> wp.Kernel:
    """Return the kernel of the gradient in the inputs."""

    def emit(k: str, _f: str, f1: str, _f2: str) -> str:
        return f"sum += {_load('dy', k)} * ({f1});"

    before, after = "v16 sum = (v16)(0.f);", "*(v16*)(dx.data + at) = sum;"

    @wp.func_native(_snippet(functions, n_dims, emit, before, after))
    def differentiate_item(
        x: wp.array[float], dy: wp.array[float], item: int, dx: wp.array[float]
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def coordinates_backward(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, n_dims, 32]
        dy: wp.array[float],  # [n_blocks, n_dims * n, 32]
        # out
        dx: wp.array[float],  # [n_blocks, n_dims, 32]
    ):
        """dx_d = sum_k dy_dk f_k'(x_d)."""
        differentiate_item(x, dy, begin + wp.tid(), dx)

    return coordinates_backward


@functools.cache
def second_order_kernel(functions: Functions, n_dims: int) -> wp.Kernel:
    """Return the kernel of the gradients of <v, dx>; either result may be None."""

    def emit(k: str, _f: str, f1: str, f2: str) -> str:
        return f"""
        sum += {_load("dy", k)} * ({f2});
        if (d_dy.data) *(v16*)(d_dy.data + row + ({k}) * 32) = tangent * ({f1});"""

    before = "const v16 tangent = *(const v16*)(v_in.data + at); v16 sum = (v16)(0.f);"
    after = "if (dx.data) *(v16*)(dx.data + at) = sum * tangent;"

    @wp.func_native(_snippet(functions, n_dims, emit, before, after))
    def differentiate_twice(
        x: wp.array[float],
        dy: wp.array[float],
        v_in: wp.array[float],
        item: int,
        d_dy: wp.array[float],
        dx: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def coordinates_second_order(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, n_dims, 32]
        dy: wp.array[float],  # [n_blocks, n_dims * n, 32]
        v: wp.array[float],  # [n_blocks, n_dims, 32]
        # out
        d_dy: wp.array[float],  # [n_blocks, n_dims * n, 32]
        dx: wp.array[float],  # [n_blocks, n_dims, 32]
    ):
        """d_dy_dk = v_d f_k'(x_d); dx_d = v_d sum_k dy_dk f_k''(x_d)."""
        differentiate_twice(x, dy, v, begin + wp.tid(), d_dy, dx)

    return coordinates_second_order
