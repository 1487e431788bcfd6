"""The eikonal term of points with a Jacobian J = dy/dx of the features and a slope q = df/dy.

    g = J^T q,  v = scale (1 - 1 / |g|) g,  t = J v,  residual = (|g| - 1)^2

With scale = 2 w / n, v is the gradient in g of w times the mean residual (zero where g is), t the
gradient in q. Source: Gropp et al. 2020 (Implicit Geometric Regularization), equation 2. What
follows in the network is differentiated in kernels/mlp_eikonal.py and by the two small kernels here
(any device). Twin: tests/reference/eikonal.py.
"""

import functools

import warp as wp

from ngp_warp.kernels.mlp import ACTIVATIONS, CURVATURES
from ngp_warp.kernels.vector import MATH, SCALAR, TYPES
from ngp_warp.launch import module_options


def eikonal_text(n_dims: int) -> str:
    """Return the text for 16 points (CPU) or one (CUDA).

    It reads J, Q and writes V, T, pointers to float whose rows are 32 floats apart; uses ``n_in``,
    ``inside`` and ``scale``; and sets ``residual``.
    """
    axes = range(n_dims)
    entry = "*(const v16*)(J + (size_t)({d} * n_in + k) * 32)"
    return "\n".join(
        [
            *(f"v16 g{d} = (v16)(0.f);" for d in axes),
            "for (int k = 0; k < n_in; ++k) {",
            "const v16 q = *(const v16*)(Q + (size_t)k * 32);",
            *(f"g{d} += {entry.format(d=d)} * q;" for d in axes),
            "}",
            f"const v16 norm = vsqrt({' + '.join(f'g{d} * g{d}' for d in axes)});",
            "const v16 factor = norm > 0.f ? scale - scale / norm : (v16)(0.f);",
            "const v16 residual = inside ? (norm - 1.f) * (norm - 1.f) : (v16)(0.f);",
            *(f"const v16 v{d} = inside ? g{d} * factor : (v16)(0.f);" for d in axes),
            *(f"*(v16*)(V + {d * 32}) = v{d};" for d in axes),
            "for (int k = 0; k < n_in; ++k) *(v16*)(T + (size_t)k * 32) = ",
            " + ".join(f"{entry.format(d=d)} * v{d}" for d in axes) + ";",
        ]
    )


def _on_both(text: str) -> str:
    """Return a snippet of ``text`` for one point (CUDA) or the two vectors of a block (CPU).

    It may use ``block``, ``offset`` (where the points' floats start in a row) and ``lane`` (the
    points' numbers in the block).
    """
    return f"""
#ifdef __CUDA_ARCH__
{SCALAR}
const int block = item / 32, lane = item % 32, offset = lane; (void)lane;
{text}
#else
{TYPES}{MATH}
const i16 LANES = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};
const int block = item;
for (int offset = 0; offset < 32; offset += 16) {{
const i16 lane = LANES + offset; (void)lane;
{text}
}}
#endif
"""


def block_items(n_blocks: int, device: str) -> int:
    """Return the number of items of the kernels here: blocks on a CPU, points on CUDA."""
    return n_blocks if device == "cpu" else n_blocks * 32


@functools.cache
def eikonal_kernel(n_dims: int) -> wp.Kernel:
    """Return the kernel of the eikonal term."""
    text = _on_both(
        f"""
    const size_t first = (size_t)(first_block + block), in = (size_t)n_in * 32;
    const float* J = jacobian.data + first * {n_dims} * in + offset;
    const float* Q = q_.data + first * in + offset;
    float* V = v_.data + first * {n_dims * 32} + offset;
    float* T = t_.data + (size_t)block * in + offset;
    const auto inside = lane + (first_block + block) * 32 < n_points;
    {eikonal_text(n_dims)}
    *(v16*)(residuals.data + first * 32 + offset) = residual;
    """
    )

    @wp.func_native(text)
    def eikonal_item(
        jacobian: wp.array[float],
        q_: wp.array[float],
        n_in: int,
        n_points: int,
        scale: float,
        first_block: int,
        item: int,
        v_: wp.array[float],
        t_: wp.array[float],
        residuals: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def eikonal_term(
        begin: int,
        # in
        jacobian: wp.array[float],  # [.., n_dims, n_in, 32]
        q: wp.array[float],  # [.., n_in, 32]
        n_in: int,
        n_points: int,
        scale: float,
        first_block: int,  # of every array but t
        # out
        v: wp.array[float],  # [.., n_dims, 32], zero in the padding
        t: wp.array[float],  # [n_blocks, n_in, 32], zero in the padding
        residuals: wp.array[float],  # [.., 32], zero in the padding
    ):
        """g = J^T q; v = scale (1 - 1 / |g|) g; t = J v; residual = (|g| - 1)^2."""
        item = begin + wp.tid()
        eikonal_item(jacobian, q, n_in, n_points, scale, first_block, item, v, t, residuals)

    return eikonal_term


def _elementwise(expression: str) -> str:
    """Return a snippet that works through the rows of a block with h (and z) of an activation."""
    rows = f"""
    for (int j = 0; j < n_rows; ++j) {{
        const size_t at = ((size_t)block * n_rows + j) * 32 + offset;
        const size_t h_at = ((size_t)(h_block + block) * n_rows + j) * 32 + offset;
        const v16 h = *(const v16*)(h_.data + h_at), z = h; (void)h; (void)z;
        {expression}
    }}"""
    return _on_both(rows)


@functools.cache
def tangent_kernel(activation: str) -> wp.Kernel:
    """Return the kernel of an activation's tangent and the second-order part of its adjoint."""
    slope, curvature = ACTIVATIONS[activation][1], CURVATURES.get(activation, "(v16)(0.f)")
    text = _elementwise(
        f"""
        const v16 u = *(const v16*)(u_.data + at);
        *(v16*)(r_.data + at) = *(const v16*)(q_.data + at) * u * ({curvature});
        *(v16*)(u_.data + at) = u * ({slope});
        """
    )

    @wp.func_native(text)
    def tangent_item(
        h_: wp.array[float],
        h_block: int,
        q_: wp.array[float],
        n_rows: int,
        item: int,
        u_: wp.array[float],
        r_: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def eikonal_tangent(
        begin: int,
        # in
        h: wp.array[float],  # [.., n_rows, 32], what act' is taken of
        h_block: int,
        q: wp.array[float],  # [n_blocks, n_rows, 32], df/dh
        n_rows: int,
        # in and out
        u: wp.array[float],  # [n_blocks, n_rows, 32]: the sums' tangent, then the activations'
        # out
        r: wp.array[float],  # [n_blocks, n_rows, 32]; may be q
    ):
        """t = act'(z) u, in place of u; r = act''(z) u q."""
        tangent_item(h, h_block, q, n_rows, begin + wp.tid(), u, r)

    return eikonal_tangent


@functools.cache
def delta_kernel(activation: str) -> wp.Kernel:
    """Return the kernel of the gradient in an activation's sums."""
    slope = ACTIVATIONS[activation][1]
    text = _elementwise(
        f"""
        const size_t p_at = ((size_t)(p_block + block) * n_rows + j) * 32 + offset;
        *(v16*)(d_.data + at) = *(const v16*)(p_.data + p_at) * ({slope})
            + *(const v16*)(r_.data + at);
        """
    )

    @wp.func_native(text)
    def delta_item(
        p_: wp.array[float],
        p_block: int,
        r_: wp.array[float],
        h_: wp.array[float],
        h_block: int,
        n_rows: int,
        item: int,
        d_: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def eikonal_delta(
        begin: int,
        # in
        p: wp.array[float],  # [.., n_rows, 32], gradient in the activations
        p_block: int,
        r: wp.array[float],  # [n_blocks, n_rows, 32]
        h: wp.array[float],  # [.., n_rows, 32], what act' is taken of
        h_block: int,
        n_rows: int,
        # out
        d: wp.array[float],  # [n_blocks, n_rows, 32]; may be p
    ):
        """d = p act'(z) + r."""
        delta_item(p, p_block, r, h, h_block, n_rows, begin + wp.tid(), d)

    return eikonal_delta
