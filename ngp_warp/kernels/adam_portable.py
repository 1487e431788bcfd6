"""Adam in Warp's own language: one thread a table entry, a weight or an average (CUDA).

Source and twin as kernels/adam.py, which serves the CPU.
"""

import functools

import warp as wp

from ngp_warp.kernels.adam import CORRECTED_RATE, COUNT_MAX, LEARNING_RATE
from ngp_warp.kernels.grid import GROUP
from ngp_warp.kernels.grid_portable import FIXED_POINT
from ngp_warp.launch import module_options


def table_items(n_groups: int) -> int:
    """Return the number of items of ``table_kernel``: entries."""
    return n_groups * GROUP


def weight_items(n: int) -> int:
    """Return the number of items of ``weights_kernel``."""
    return n


def average_items(n: int) -> int:
    """Return the number of items of ``average_kernel``."""
    return n


@wp.func
def _snap(value: float, step: float) -> float:
    if step > 0.0:
        return wp.rint(value / step) * step
    return value


@functools.cache
def table_kernel(
    n_features: int,
    beta1: float,
    beta2: float,
    epsilon: float,
    half: bool,
    fixed_point: bool,
    quantized: bool,
) -> wp.Kernel:
    """Return the kernel of a sparse Adam step for an entry of a table."""
    n, group, count_max = wp.constant(n_features), wp.constant(GROUP), wp.constant(COUNT_MAX)
    b1, b2, eps = wp.constant(beta1), wp.constant(beta2), wp.constant(epsilon)
    gradient_type = wp.array[wp.int64 if fixed_point else float]
    unit = wp.constant(1.0 / FIXED_POINT)

    @wp.kernel(module="unique", module_options=module_options())
    def adam_table_portable(
        begin: int,
        # in
        n_groups: int,
        schedule: wp.array[float],  # [N_SCHEDULE]
        correction: wp.array[float],  # [COUNT_MAX + 1]
        # in and out
        gradient: gradient_type,  # [n_entries, F], set to zero
        touched: wp.array[wp.uint8],  # [n_groups]; cleared by a launch of its own, after all read
        value: wp.array[float],  # [n_entries, F]
        half_value: wp.array[wp.float16],  # [n_entries, F] or empty
        first_moment: wp.array[float],  # [n_entries, F]
        second_moment: wp.array[float],  # [n_entries, F]
        count: wp.array[wp.uint16],  # [n_entries]
        # in
        quantum: wp.array[float],  # [1], 0: not yet; or empty
    ):
        """p -= rate m / (sqrt(v) + epsilon) for every parameter whose gradient is not zero."""
        entry = begin + wp.tid()
        if touched[entry / group] == wp.uint8(0):
            return
        moved = bool(False)
        for f in range(n):
            if gradient[entry * n + f] != gradient.dtype(0):
                moved = True
        if not moved:
            return
        steps = wp.min(int(count[entry]) + 1, count_max)
        count[entry] = wp.uint16(steps)
        rate = schedule[wp.static(LEARNING_RATE)] * correction[steps]
        for f in range(n):
            j = entry * n + f
            g = float(0.0)
            if wp.static(fixed_point):
                g = float(wp.float64(gradient[j]) * wp.float64(unit))
            else:
                g = float(gradient[j])
            gradient[j] = gradient.dtype(0)
            if g != 0.0:
                m = b1 * first_moment[j] + (1.0 - b1) * g
                v = b2 * second_moment[j] + (1.0 - b2) * g * g
                first_moment[j] = m
                second_moment[j] = v
                p = value[j] - rate * m / (wp.sqrt(v) + eps)
                value[j] = p
                if wp.static(quantized):
                    p = _snap(p, quantum[0])
                if wp.static(half):
                    half_value[j] = wp.float16(p)

    return adam_table_portable


@functools.cache
def weights_kernel(beta1: float, beta2: float, epsilon: float, l2: float) -> wp.Kernel:
    """Return the kernel of a dense Adam step with an L2 penalty, for a weight."""
    b1, b2, eps = wp.constant(beta1), wp.constant(beta2), wp.constant(epsilon)
    penalty = wp.constant(l2)

    @wp.kernel(module="unique", module_options=module_options())
    def adam_weights_portable(
        begin: int,
        # in
        n: int,
        schedule: wp.array[float],  # [N_SCHEDULE]
        gradient: wp.array[float],  # [n]
        # in and out
        value: wp.array[float],  # [n]
        first_moment: wp.array[float],  # [n]
        second_moment: wp.array[float],  # [n]
    ):
        """p -= rate m / (sqrt(v) + epsilon)."""
        i = begin + wp.tid()
        g = gradient[i] + penalty * value[i]
        m = b1 * first_moment[i] + (1.0 - b1) * g
        v = b2 * second_moment[i] + (1.0 - b2) * g * g
        first_moment[i] = m
        second_moment[i] = v
        rate = schedule[wp.static(CORRECTED_RATE)]
        value[i] = value[i] - rate * m / (wp.sqrt(v) + eps)

    return adam_weights_portable


@functools.cache
def average_kernel(decay: float) -> wp.Kernel:
    """Return the kernel of one step of an exponential moving average of the parameters."""
    d = wp.constant(decay)

    @wp.kernel(module="unique", module_options=module_options())
    def update_average_portable(
        begin: int,
        # in
        n: int,
        value: wp.array[float],  # [n]
        # in and out
        average: wp.array[float],  # [n]
    ):
        """average = decay average + (1 - decay) value; its bias is removed where it is read."""
        i = begin + wp.tid()
        average[i] = d * average[i] + (1.0 - d) * value[i]

    return update_average_portable
