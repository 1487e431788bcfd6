"""Between point-major arrays [n, d], as users hold them, and blocked ones [n_blocks, d, 32].

A transposition: differentiable trivially; twin: tests/reference/layout.py.
"""

import warp as wp

from ngp_warp.launch import module_options

wp.set_module_options(module_options())


@wp.kernel
def to_blocked(
    begin: int,
    # in
    points: wp.array2d(dtype=float),  # [n, n_rows]
    n_rows: int,
    # out
    blocked: wp.array(dtype=float),  # [n_blocks, n_rows, 32]
):
    """Row r of point i goes to ((i / 32) n_rows + r) 32 + i % 32; the padding repeats point 0."""
    i = begin + wp.tid()
    source = wp.where(i < points.shape[0], i, 0)
    for r in range(n_rows):
        blocked[((i / 32) * n_rows + r) * 32 + i % 32] = points[source, r]


@wp.kernel
def from_blocked(
    begin: int,
    # in
    blocked: wp.array(dtype=float),  # [n_blocks, n_rows, 32]
    n_rows: int,
    # out
    points: wp.array2d(dtype=float),  # [n, n_rows]
):
    """The inverse of ``to_blocked``, without the padding."""
    i = begin + wp.tid()
    for r in range(n_rows):
        points[i, r] = blocked[((i / 32) * n_rows + r) * 32 + i % 32]


@wp.kernel
def set_row(
    begin: int,
    # in
    row: int,
    n_rows: int,
    n_points: int,
    # out
    blocked: wp.array(dtype=float),  # [n_blocks, n_rows, 32]
):
    """One in ``row``, zero in the others and in the padding: a unit vector for a Jacobian."""
    i = begin + wp.tid()
    for r in range(n_rows):
        one = wp.where(r == row and i < n_points, 1.0, 0.0)
        blocked[((i / 32) * n_rows + r) * 32 + i % 32] = one
