"""Sums and products of several encodings' features, row by row.

With q_i = J_i v the tangent of encoding i along v, and the others' product P_i = prod_{j != i} y_j:
    sum      y = sum_i y_i     g_i = dy
    product  y = prod_i y_i    g_i = dy P_i
    S = <v, sum_i J_i^T g_i>:  d_dy = sum_i q_i (P_i),   dS/dy_i = h_i = dy sum_{j != i} q_j P_ij,
where P_ij lacks both; a sum has no h. No division, so that zeros are as good as any value.
Source: tiny-cuda-nn's reductions. Twin: tests/reference/reduction.py. One text serves 16 points
of a block (CPU) and one point (CUDA).
"""

import functools

import warp as wp

from ngp_warp.kernels.vector import on_both
from ngp_warp.launch import module_options

SUM, PRODUCT = "sum", "product"


def _snippet(reduction: str, body: str) -> str:
    """Return the text of a pass over the rows; part(array, i) is the row of encoding i."""
    others = """
        v16 p = (v16)(1.f);
        for (int l = 0; l < n_parts; ++l) if (l != i && l != j) p *= part(y, l);
        return p;"""
    return on_both(f"""
for (int r = 0; r < n_rows; ++r) {{
    const size_t row = ((size_t)block * n_rows + r) * 32 + offset;
    auto part = [&](auto& a, int i) -> v16& {{
        return *(v16*)(a.data + (((size_t)block * n_parts + i) * n_rows + r) * 32 + offset);
    }};
    auto others = [&](int i, int j) -> v16 {{
        {others if reduction == PRODUCT else "return (v16)(1.f);"}
    }};
    {body}
}}""")


@functools.cache
def forward_kernel(reduction: str) -> wp.Kernel:
    """Return the kernel of the sum or product."""
    start, step = ("0.f", "+=") if reduction == SUM else ("1.f", "*=")
    body = f"""
    v16 value = (v16)({start});
    for (int i = 0; i < n_parts; ++i) value {step} part(y, i);
    *(v16*)(reduced.data + row) = value;"""

    @wp.func_native(_snippet(reduction, body))
    def reduce_item(
        y: wp.array[float], n_parts: int, n_rows: int, item: int, reduced: wp.array[float]
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def reduction_forward(
        begin: int,
        # in
        y: wp.array[float],  # [n_blocks, n_parts, n_rows, 32]
        n_parts: int,
        n_rows: int,
        # out
        reduced: wp.array[float],  # [n_blocks, n_rows, 32]
    ):
        """The sum or product of y_i."""
        reduce_item(y, n_parts, n_rows, begin + wp.tid(), reduced)

    return reduction_forward


@functools.cache
def backward_kernel(reduction: str) -> wp.Kernel:
    """Return the kernel of the parts' gradients."""
    body = """
    const v16 d = *(const v16*)(dy.data + row);
    for (int i = 0; i < n_parts; ++i) part(g, i) = d * others(i, i);"""

    @wp.func_native(_snippet(reduction, body))
    def spread_item(
        y: wp.array[float],
        dy: wp.array[float],
        n_parts: int,
        n_rows: int,
        item: int,
        g: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def reduction_backward(
        begin: int,
        # in
        y: wp.array[float],  # [n_blocks, n_parts, n_rows, 32]; a sum's may be None
        dy: wp.array[float],  # [n_blocks, n_rows, 32]
        n_parts: int,
        n_rows: int,
        # out
        g: wp.array[float],  # [n_blocks, n_parts, n_rows, 32]
    ):
        """g_i = dy P_i."""
        spread_item(y, dy, n_parts, n_rows, begin + wp.tid(), g)

    return reduction_backward


@functools.cache
def second_order_kernel(reduction: str) -> wp.Kernel:
    """Return the kernel of the gradients of S in dy and, for a product, the parts."""
    parts = """
    for (int i = 0; i < n_parts; ++i) {
        v16 sum = (v16)(0.f);
        for (int j = 0; j < n_parts; ++j) if (j != i) sum += part(q, j) * others(i, j);
        part(h, i) = sum * *(const v16*)(dy.data + row);
    }"""
    body = f"""
    v16 tangent = (v16)(0.f);
    for (int i = 0; i < n_parts; ++i) tangent += part(q, i) * others(i, i);
    if (d_dy.data) *(v16*)(d_dy.data + row) = tangent;
    {parts if reduction == PRODUCT else ""}"""

    @wp.func_native(_snippet(reduction, body))
    def differentiate_twice(
        y: wp.array[float],
        dy: wp.array[float],
        q: wp.array[float],
        n_parts: int,
        n_rows: int,
        item: int,
        d_dy: wp.array[float],
        h: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def reduction_second_order(
        begin: int,
        # in
        y: wp.array[float],  # [n_blocks, n_parts, n_rows, 32]; a sum's may be None
        dy: wp.array[float],  # [n_blocks, n_rows, 32]
        q: wp.array[float],  # [n_blocks, n_parts, n_rows, 32]
        n_parts: int,
        n_rows: int,
        # out
        d_dy: wp.array[float],  # [n_blocks, n_rows, 32], or None
        h: wp.array[float],  # [n_blocks, n_parts, n_rows, 32]; a sum's may be None
    ):
        """d_dy = sum_i q_i P_i; h_i = dy sum_{j != i} q_j P_ij."""
        differentiate_twice(y, dy, q, n_parts, n_rows, begin + wp.tid(), d_dy, h)

    return reduction_second_order
