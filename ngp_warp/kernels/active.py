"""Lists of rays on their way, from which those that have ended are dropped.

Twin: none; tests/test_active_rays.py has its laws. Not differentiable.
"""

import warp as wp

from ngp_warp.launch import module_options

wp.set_module_options(module_options())

ENDED = 4
"""A ray's status from this on: it has ended."""
_ENDED = wp.constant(ENDED)


@wp.kernel
def flag_kernel(
    begin: int,
    # in
    active: wp.array[int],  # [n]
    status: wp.array[int],  # [n]
    # out
    flags: wp.array[int],  # [n]
):
    """One for each active ray that has not ended."""
    i = begin + wp.tid()
    flags[i] = wp.where(status[active[i]] < _ENDED, 1, 0)


@wp.kernel
def compact_kernel(
    begin: int,
    # in
    active: wp.array[int],  # [n]
    flags: wp.array[int],  # [n]
    sums: wp.array[int],  # [n], inclusive
    # out
    kept: wp.array[int],  # [n]
):
    """The rays that have not ended, in their order."""
    i = begin + wp.tid()
    if flags[i] == 1:
        kept[sums[i] - 1] = active[i]
