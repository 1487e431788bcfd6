"""Features at the corners of a sparse octree's cells, interpolated.

At level l, in the cell of side 2^-l that holds x, with f = 2^l x - cell and corners c of bits c_d:
    y_lj = sum_c w_c(f) T[corner(c), j],   w_c = prod_d a_d,  a_d = f_d or 1 - f_d,
and 0 where the tree has no cell; levels lie one after another in y, or are summed. x outside the
unit cube is in no cell, and nor is what is no number. Source: Takikawa et al. 2021 (NGLOD), section
3.1. Differentiable in the table and in x, twice: with s_d = +-2^l the slope of a_d,
    dx_d = sum_lcj dy_lj T_cj s_d prod_{e != d} a_e,
    S = <v, dx>, u_c = v . dw_c/dx:  dS/d dy_lj = sum_c u_c T_cj,  dS/d T_cj = sum u_c dy_lj,
    dS/dx_d = sum_lc (sum_j dy_lj T_cj) s_d sum_{e != d} v_e s_e prod_{k != d, e} a_k.
Twin: tests/reference/octree.py.

One walk from the root by the bits of x finds the cells of all levels. A CPU scatters level by level
instead, each an item, so that no two items write one address; CUDA uses atomics.
"""

import functools
from collections.abc import Callable

import warp as wp

from ngp_warp.kernels.octree_walk import OctreeShape, along, points, product, walk
from ngp_warp.launch import module_options


def _corners(shape: OctreeShape, each: Callable[[int], str]) -> str:
    """Return a text for each corner, T pointing to its features."""
    return "\n".join(
        f"{{ const float* T = table.data + (size_t)corners[{c}] * {shape.n_features}; {each(c)} }}"
        for c in range(1 << shape.n_dims)
    )


def _each_feature(shape: OctreeShape, text: str) -> str:
    return f"for (int j = 0; j < {shape.n_features}; ++j) {text}"


# A cell's rows in registers: the compiler cannot know that y and the table are not one array
def _loaded(shape: OctreeShape) -> str:
    return f"float rows[{shape.n_features}];" + _each_feature(
        shape, "rows[j] = dy.data[at + row + j * 32];"
    )


def _summed(shape: OctreeShape, body: str, array: str) -> str:
    return (
        f"float sums[{shape.n_features}] = {{}};"
        + body
        + _each_feature(shape, f"{array}.data[at + row + j * 32] += sums[j];")
    )


@functools.cache
def forward_kernel(shape: OctreeShape) -> wp.Kernel:
    """Return the kernel of the features."""
    gather = _corners(
        shape,
        lambda c: (
            f"const float w = {product(shape, c, ())};"
            + _each_feature(shape, "sums[j] += w * T[j];")
        ),
    )
    each = _summed(shape, gather, "y")
    zero = f"for (int r = 0; r < {shape.n_rows}; ++r) y.data[at + r * 32] = 0.f;"

    @wp.func_native(points(shape, zero + walk(shape, each)))
    def encode_item(
        x: wp.array[float],
        table: wp.array[float],
        child: wp.array[int],
        corner: wp.array[int],
        first_cell: int,
        item: int,
        y: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def octree_forward(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, n_dims, 32]
        table: wp.array[float],  # [n_entries, F]
        child: wp.array[int],  # [n_inner, 2^n_dims]
        corner: wp.array[int],  # [n_cells, 2^n_dims]
        first_cell: int,
        # out
        y: wp.array[float],  # [n_blocks, n_rows, 32]
    ):
        """y_lj = sum_c w_c T_cj."""
        encode_item(x, table, child, corner, first_cell, begin + wp.tid(), y)

    return octree_forward


@functools.cache
def backward_kernel(shape: OctreeShape) -> wp.Kernel:
    """Return the kernel of the gradient in the positions."""
    axes = range(shape.n_dims)
    each = _loaded(shape) + _corners(
        shape,
        lambda c: (
            "float t = 0.f;"
            + _each_feature(shape, "t += rows[j] * T[j];")
            + "".join(f"g{d} += t * {product(shape, c, (d,))};" for d in axes)
        ),
    )
    before = "".join(f"float g{d} = 0.f;" for d in axes)
    after = "".join(f"dx.data[at_x + {d * 32}] = g{d};" for d in axes)

    @wp.func_native(points(shape, before + walk(shape, each) + after))
    def differentiate_item(
        x: wp.array[float],
        table: wp.array[float],
        child: wp.array[int],
        corner: wp.array[int],
        first_cell: int,
        dy: wp.array[float],
        item: int,
        dx: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def octree_backward(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, n_dims, 32]
        table: wp.array[float],  # [n_entries, F]
        child: wp.array[int],  # [n_inner, 2^n_dims]
        corner: wp.array[int],  # [n_cells, 2^n_dims]
        first_cell: int,
        dy: wp.array[float],  # [n_blocks, n_rows, 32]
        # out
        dx: wp.array[float],  # [n_blocks, n_dims, 32]
    ):
        """dx = sum_lcj dy_lj T_cj dw_c/dx."""
        differentiate_item(x, table, child, corner, first_cell, dy, begin + wp.tid(), dx)

    return octree_backward


@functools.cache
def second_order_kernel(shape: OctreeShape) -> wp.Kernel:
    """Return the kernel of the gradients of <v, dx> in dy and x; either may be None."""
    axes = range(shape.n_dims)

    def hessian(c: int, d: int) -> str:
        rest = (f"v{e} * {product(shape, c, (d, e))}" for e in axes if e != d)
        return f"g{d} += t * ({' + '.join(rest)});"

    gather = _corners(
        shape,
        lambda c: (
            f"const float w = {along(shape, c)}; float t = 0.f;"
            + _each_feature(shape, "{ t += rows[j] * T[j]; sums[j] += w * T[j]; }")
            + "".join(hessian(c, d) for d in axes)
        ),
    )
    each = _loaded(shape) + _summed(shape, gather, "if (d_dy.data) d_dy")
    before = "".join(f"const float v{d} = v.data[at_x + {d * 32}]; float g{d} = 0.f;" for d in axes)
    before += (
        f"if (d_dy.data) for (int r = 0; r < {shape.n_rows}; ++r) d_dy.data[at + r * 32] = 0.f;"
    )
    after = "".join(f"dx.data[at_x + {d * 32}] = g{d};" for d in axes)

    @wp.func_native(points(shape, before + walk(shape, each) + f"if (dx.data) {{ {after} }}"))
    def differentiate_twice(
        x: wp.array[float],
        table: wp.array[float],
        child: wp.array[int],
        corner: wp.array[int],
        first_cell: int,
        dy: wp.array[float],
        v: wp.array[float],
        item: int,
        d_dy: wp.array[float],
        dx: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def octree_second_order(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, n_dims, 32]
        table: wp.array[float],  # [n_entries, F]
        child: wp.array[int],  # [n_inner, 2^n_dims]
        corner: wp.array[int],  # [n_cells, 2^n_dims]
        first_cell: int,
        dy: wp.array[float],  # [n_blocks, n_rows, 32]
        v: wp.array[float],  # [n_blocks, n_dims, 32]
        # out
        d_dy: wp.array[float],  # [n_blocks, n_rows, 32], or None
        dx: wp.array[float],  # [n_blocks, n_dims, 32], or None
    ):
        """d_dy_lj = sum_c u_c T_cj; dx = sum_lc (sum_j dy_lj T_cj) (d^2 w_c / dx^2) v."""
        differentiate_twice(x, table, child, corner, first_cell, dy, v, begin + wp.tid(), d_dy, dx)

    return octree_second_order


def _scatter(shape: OctreeShape, second: bool) -> str:
    """Return the text that adds weights times dy: u_c for the second order, else w_c."""

    def each(add: str) -> str:
        return _loaded(shape) + "\n".join(
            f"{{ const float w = {along(shape, c) if second else product(shape, c, ())};"
            f"float* D = d_table.data + (size_t)corners[{c}] * {shape.n_features};"
            + _each_feature(shape, add)
            + "}"
            for c in range(1 << shape.n_dims)
        )

    tangent = "".join(
        f"const float v{d} = v.data[at_x + {d * 32}];" for d in range(shape.n_dims) if second
    )
    point = f"""
    const size_t at_x = (size_t)block * {shape.n_dims * 32} + u;
    const size_t at = (size_t)block * {shape.n_rows * 32} + u;
    const float* X = x.data + at_x;
    {tangent}"""
    return f"""
#ifdef __CUDA_ARCH__
const int block = item / 32, u = item % 32;
{point}
{walk(shape, each("atomicAdd(D + j, w * rows[j]);"))}
#else
const int level = item + {shape.first_level};
for (int block = 0; block < n_blocks; ++block) for (int u = 0; u < 32; ++u) {{
{point}
{walk(shape, each("D[j] += w * rows[j];"), "level")}
}}
#endif
"""


@functools.cache
def scatter_kernel(shape: OctreeShape, second: bool) -> wp.Kernel:
    """Return the kernel of the table's gradients of <y, dy>, or (second) of <v, dx>."""

    @wp.func_native(_scatter(shape, second))
    def scatter_item(
        x: wp.array[float],
        child: wp.array[int],
        corner: wp.array[int],
        first_cell: int,
        dy: wp.array[float],
        v: wp.array[float],
        n_blocks: int,
        item: int,
        d_table: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def octree_scatter(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, n_dims, 32]
        child: wp.array[int],  # [n_inner, 2^n_dims]
        corner: wp.array[int],  # [n_cells, 2^n_dims]
        first_cell: int,
        dy: wp.array[float],  # [n_blocks, n_rows, 32]; zero where a block is padded
        v: wp.array[float],  # [n_blocks, n_dims, 32]; None for the first order
        n_blocks: int,
        # in and out
        d_table: wp.array[float],  # [n_entries, F], added to
    ):
        """d T_cj += w_c dy_lj, or u_c dy_lj; an item is a level on a CPU, a point on CUDA."""
        scatter_item(x, child, corner, first_cell, dy, v, n_blocks, begin + wp.tid(), d_table)

    return octree_scatter
