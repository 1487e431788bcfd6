"""What a process sends of a table's gradient, and what it adds of the others' (CPU).

A message has ``most`` numbers of groups, then as many rows of n gradients. Twin:
tests/test_exchange.py. The vector Adam's flags say which groups are touched.
"""

import functools

import warp as wp

from ngp_warp.kernels.adam import FLAGS_PER_ITEM
from ngp_warp.launch import module_options

N_ITEMS = 64
"""Items of ``add_kernel``."""
# Groups between asking for a cache line and using it.
AHEAD = 8

wp.set_module_options(module_options())

_LIST = f"""
const int first = item * {FLAGS_PER_ITEM};
const int end = first + {FLAGS_PER_ITEM} < n_groups ? first + {FLAGS_PER_ITEM} : n_groups;
int list[{FLAGS_PER_ITEM}], n_listed = 0;
for (int i = first; i < end; i += 8) {{
    unsigned long long eight = 0;
    __builtin_memcpy(&eight, touched.data + i, end - i < 8 ? end - i : 8);
    for (int b = 0; eight; ++b, eight >>= 8) if (eight & 255) list[n_listed++] = i + b;
}}
"""


@functools.cache
def count_kernel() -> wp.Kernel:
    """Return the kernel that counts the touched groups among ``FLAGS_PER_ITEM``."""

    @wp.func_native(_LIST + "counts.data[item] = n_listed;")
    def count_item(
        n_groups: int, item: int, touched: wp.array[wp.uint8], counts: wp.array[int]
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def count_touched(
        begin: int,
        # in
        n_groups: int,
        touched: wp.array[wp.uint8],  # [n_groups]
        # out
        counts: wp.array[int],  # [n_items]
    ):
        """Number of touched groups of an item."""
        count_item(n_groups, begin + wp.tid(), touched, counts)

    return count_touched


@functools.cache
def pick_kernel(n: int) -> wp.Kernel:
    """Return the kernel that moves the gradients of touched groups, n values each, to a message."""
    text = f"""{_LIST}
int k = offsets.data[item];
int* ids = (int*)message.data;
float* rows = message.data + most.data[0];
for (int l = 0; l < n_listed; ++l, ++k) {{
    if (l + {AHEAD} < n_listed)
        __builtin_prefetch(gradient.data + (size_t)list[l + {AHEAD}] * {n}, 1);
    float* G = gradient.data + (size_t)list[l] * {n};
    ids[k] = list[l];
    for (int j = 0; j < {n}; ++j) {{ rows[(size_t)k * {n} + j] = G[j] * scale; G[j] = 0.f; }}
}}
"""

    @wp.func_native(text)
    def pick_item(
        n_groups: int,
        scale: float,
        item: int,
        touched: wp.array[wp.uint8],
        offsets: wp.array[int],
        most: wp.array[int],
        gradient: wp.array[float],
        message: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def pick_touched(
        begin: int,
        # in
        n_groups: int,
        scale: float,
        touched: wp.array[wp.uint8],  # [n_groups]
        offsets: wp.array[int],  # [n_items]: touched groups before
        most: wp.array[int],  # [1]: rows of a message
        # in and out
        gradient: wp.array[float],  # [n_groups, n]; zero where it was touched
        # out
        message: wp.array[float],  # [most], int32, then [most, n]
    ):
        """Row k: scale times the gradient of the k-th touched group."""
        pick_item(n_groups, scale, begin + wp.tid(), touched, offsets, most, gradient, message)

    return pick_touched


@functools.cache
def add_kernel(n: int) -> wp.Kernel:
    """Return the kernel that adds a process's message to a table's gradient; N_ITEMS items."""
    text = f"""
const long long count = counts.data[process], m = most.data[0];
const int first = (int)(count * item / {N_ITEMS}), end = (int)(count * (item + 1) / {N_ITEMS});
const float* message = messages.data + (size_t)process * m * {n + 1};
const int* ids = (const int*)message;
const float* rows = message + m;
for (int k = first; k < end; ++k) {{
    if (k + {AHEAD} < end)
        __builtin_prefetch(gradient.data + (size_t)ids[k + {AHEAD}] * {n}, 1);
    float* G = gradient.data + (size_t)ids[k] * {n};
    for (int j = 0; j < {n}; ++j) G[j] += rows[(size_t)k * {n} + j];
    touched.data[ids[k]] = 1;
}}
"""

    @wp.func_native(text)
    def add_item(
        process: int,
        item: int,
        counts: wp.array[int],
        most: wp.array[int],
        messages: wp.array[float],
        gradient: wp.array[float],
        touched: wp.array[wp.uint8],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def add_touched(
        begin: int,
        # in
        process: int,
        counts: wp.array[int],  # [n_processes]
        most: wp.array[int],  # [1]
        messages: wp.array[float],  # [n_processes, most * (n + 1)]
        # in and out
        gradient: wp.array[float],  # [n_groups, n]
        touched: wp.array[wp.uint8],  # [n_groups]
    ):
        """Add each row to the gradient of its group, and mark that; groups come once each."""
        add_item(process, begin + wp.tid(), counts, most, messages, gradient, touched)

    return add_touched
