"""Rows of blocked arrays copied, added and filled: launches for encodings made of encodings."""

import warp as wp

from ngp_warp.kernels import rows as kernels
from ngp_warp.kernels.vector import block_items
from ngp_warp.launch import Launch, record


def scratch(n_blocks: int, n_rows: int, device: str) -> wp.array:
    """Return a blocked array of any values, which launches will hold."""
    return wp.empty(n_blocks * n_rows * 32, dtype=float, device=device)


def copy_rows(
    source: wp.array, target: wp.array, rows: tuple[int, int], *, at: int = 0, to: int = 0, n: int
) -> Launch:
    """Record target[:, to : to + n] = source[:, at : at + n].

    Args:
        source: blocked.
        target: blocked.
        rows: those of source and of target.
        at: first row in source.
        to: first row in target.
        n: how many.
    """
    device = str(source.device)
    n_items = kernels.copy_items(source.size // (32 * max(rows[0], 1)), n, device)
    args = [source, rows[0], at, n, rows[1], to, target]
    return record(kernels.copy_rows_kernel(), n_items, args, device)


def add_rows(source: wp.array, n: int, target: wp.array, target_rows: int, first: int) -> Launch:
    """Record target[:, first : first + n] += source[:, 0 : n], which are all rows of source."""
    device = str(source.device)
    n_items = block_items(source.size // (32 * n), device)
    args = [source, n, target_rows, first, target]
    return record(kernels.add_rows_kernel(), n_items, args, device)


def fill_rows(value: float, n: int, target: wp.array, target_rows: int, first: int = 0) -> Launch:
    """Record target[:, first : first + n] = value."""
    device = str(target.device)
    n_items = block_items(target.size // (32 * target_rows), device)
    return record(
        kernels.fill_rows_kernel(), n_items, [value, n, target_rows, first, target], device
    )
