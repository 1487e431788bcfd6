"""Adam on the CPU, and the sum over chunks of the network's weight gradients.

Source: Kingma and Ba 2015; Mueller et al. 2022, section 4: table entries without a gradient are
skipped, and the bias correction counts each entry's own steps. Twin: tests/reference/adam.py.

``schedule`` holds what changes with the step, so that a recorded launch needs no new arguments.
"""

import functools
from dataclasses import dataclass

import warp as wp

from ngp_warp.errors import ShapeError
from ngp_warp.kernels.grid import GROUP
from ngp_warp.kernels.vector import TYPES
from ngp_warp.launch import module_options

FLAGS_PER_ITEM = 2048
WEIGHTS_PER_ITEM = 128
# Touched groups between asking for a cache line and using it.
AHEAD = 6
AVERAGE_PER_ITEM = 16384
wp.set_module_options(module_options())
# schedule: learning rate; its product with the network's bias correction
LEARNING_RATE, CORRECTED_RATE, N_SCHEDULE = 0, 1, 2
COUNT_MAX = 65535


def weight_items(n: int) -> int:
    """Return the number of items of ``weights_kernel``."""
    return -(-n // WEIGHTS_PER_ITEM)


def average_items(n: int) -> int:
    """Return the number of items of ``average_kernel``."""
    return -(-n // AVERAGE_PER_ITEM)


@dataclass(frozen=True, kw_only=True)
class TableStep:
    """What a table's kernel is compiled for."""

    n_features: int
    beta1: float
    beta2: float
    epsilon: float
    half: bool = False
    """Keep a float16 copy."""
    fixed_point: bool = False
    """Gradients are integers; portable backend only."""
    quantized: bool = False
    """Round the copy to multiples of ``quantum``."""
    flagged: bool = True
    """Look at flagged groups alone; False: portable backend only."""


def table_items(n_groups: int, step: TableStep, device: str) -> int:
    """Return the number of items of ``table_kernel``, whatever the step."""
    return -(-n_groups // FLAGS_PER_ITEM)


@functools.cache
def table_kernel(step: TableStep) -> wp.Kernel:
    """Return the kernel of a sparse Adam step over the touched groups of a table."""
    if step.fixed_point or not step.flagged:
        raise ShapeError("gradients in fixed point or without flags are for the portable backend")
    n_features, beta1, beta2, epsilon = step.n_features, step.beta1, step.beta2, step.epsilon
    half, quantized = step.half, step.quantized
    n = GROUP * n_features
    half_entries = f"_Float16* H = (_Float16*)half_value.data + (size_t)i * {n};" if half else ""
    rounded = "q > 0.f ? __builtin_rintf(P[j] / q) * q : P[j]" if quantized else "P[j]"
    store_half = f"for (int j = 0; j < {n}; ++j) H[j] = (_Float16)({rounded});" if half else ""
    read_quantum = "const float q = quantum.data[0];" if quantized else ""
    text = f"""{TYPES}
const int first = item * {FLAGS_PER_ITEM};
const int end = first + {FLAGS_PER_ITEM} < n_groups ? first + {FLAGS_PER_ITEM} : n_groups;
const float lr = schedule.data[{LEARNING_RATE}];
{read_quantum}
// Touched groups lie anywhere: list them first, so that their cache lines can be asked for ahead.
int list[{FLAGS_PER_ITEM}], n_listed = 0;
for (int i = first; i < end; i += 8) {{
    unsigned long long eight = 0;
    __builtin_memcpy(&eight, touched.data + i, end - i < 8 ? end - i : 8);
    for (int b = 0; eight; ++b, eight >>= 8) if (eight & 255) list[n_listed++] = i + b;
}}
for (int l = 0; l < n_listed; ++l) {{
    const int i = list[l];
    if (l + {AHEAD} < n_listed) {{
        const size_t a = (size_t)list[l + {AHEAD}] * {n};
        __builtin_prefetch(gradient.data + a, 1);
        __builtin_prefetch(value.data + a, 1);
        __builtin_prefetch(first_moment.data + a, 1);
        __builtin_prefetch(second_moment.data + a, 1);
    }}
    touched.data[i] = 0;
    float* G = gradient.data + (size_t)i * {n};
    float* P = value.data + (size_t)i * {n};
    float* M = first_moment.data + (size_t)i * {n};
    float* V = second_moment.data + (size_t)i * {n};
    unsigned short* C = count.data + (size_t)i * {GROUP};
    {half_entries}
    float rate[{n}];
    for (int e = 0; e < {GROUP}; ++e) {{
        bool any = false;
        for (int f = 0; f < {n_features}; ++f) any |= G[e * {n_features} + f] != 0.f;
        C[e] += any && C[e] < {COUNT_MAX};
        for (int f = 0; f < {n_features}; ++f)
            rate[e * {n_features} + f] = lr * correction.data[C[e]];
    }}
    for (int j = 0; j < {n}; ++j) {{
        float g = G[j];
        float m = {beta1!r}f * M[j] + {1.0 - beta1!r}f * g;
        float v = {beta2!r}f * V[j] + {1.0 - beta2!r}f * g * g;
        float p = P[j] - rate[j] * m / (__builtin_sqrtf(v) + {epsilon!r}f);
        bool moved = g != 0.f;
        M[j] = moved ? m : M[j]; V[j] = moved ? v : V[j]; P[j] = moved ? p : P[j];
        G[j] = 0.f;
    }}
    {store_half}
}}
"""

    @wp.func_native(text)
    def adam_item(
        n_groups: int,
        item: int,
        schedule: wp.array[float],
        correction: wp.array[float],
        gradient: wp.array[float],
        touched: wp.array[wp.uint8],
        value: wp.array[float],
        half_value: wp.array[wp.float16],
        first_moment: wp.array[float],
        second_moment: wp.array[float],
        count: wp.array[wp.uint16],
        quantum: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def adam_table(
        begin: int,
        # in
        n_groups: int,
        schedule: wp.array[float],  # [N_SCHEDULE]
        correction: wp.array[float],  # [COUNT_MAX + 1], bias correction after so many steps
        # in and out
        gradient: wp.array[float],  # [n_entries, F], set to zero
        touched: wp.array[wp.uint8],  # [n_groups], set to zero
        value: wp.array[float],  # [n_entries, F]
        half_value: wp.array[wp.float16],  # [n_entries, F] or empty
        first_moment: wp.array[float],  # [n_entries, F]
        second_moment: wp.array[float],  # [n_entries, F]
        count: wp.array[wp.uint16],  # [n_entries]
        # in
        quantum: wp.array[float],  # [1], 0: not yet; or empty
    ):
        """p -= rate m / (sqrt(v) + epsilon) for every parameter whose gradient is not zero."""
        adam_item(
            n_groups,
            begin + wp.tid(),
            schedule,
            correction,
            gradient,
            touched,
            value,
            half_value,
            first_moment,
            second_moment,
            count,
            quantum,
        )

    return adam_table


@functools.cache
def weights_kernel(beta1: float, beta2: float, epsilon: float, l2: float) -> wp.Kernel:
    """Return the kernel of a dense Adam step with an L2 penalty, for the network's weights."""
    text = f"""
const int first = item * {WEIGHTS_PER_ITEM};
const int end = first + {WEIGHTS_PER_ITEM} < n ? first + {WEIGHTS_PER_ITEM} : n;
const float rate = schedule.data[{CORRECTED_RATE}];
for (int i = first; i < end; ++i) {{
    float g = gradient.data[i] + {l2!r}f * value.data[i];
    float m = {beta1!r}f * first_moment.data[i] + {1.0 - beta1!r}f * g;
    float v = {beta2!r}f * second_moment.data[i] + {1.0 - beta2!r}f * g * g;
    first_moment.data[i] = m; second_moment.data[i] = v;
    value.data[i] -= rate * m / (sqrtf(v) + {epsilon!r}f);
}}
"""

    @wp.func_native(text)
    def adam_weights_item(
        n: int,
        item: int,
        schedule: wp.array[float],
        gradient: wp.array[float],
        value: wp.array[float],
        first_moment: wp.array[float],
        second_moment: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def adam_weights(
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
        adam_weights_item(
            n, begin + wp.tid(), schedule, gradient, value, first_moment, second_moment
        )

    return adam_weights


@functools.cache
def average_kernel(decay: float) -> wp.Kernel:
    """Return the kernel of one step of an exponential moving average of the parameters."""
    text = f"""
const int first = item * {AVERAGE_PER_ITEM};
const int end = n - first < {AVERAGE_PER_ITEM} ? n : first + {AVERAGE_PER_ITEM};
for (int i = first; i < end; ++i)
    average.data[i] = {decay!r}f * average.data[i] + {1.0 - decay!r}f * value.data[i];
"""

    @wp.func_native(text)
    def average_item(n: int, item: int, value: wp.array[float], average: wp.array[float]): ...

    @wp.kernel(module="unique", module_options=module_options())
    def update_average(
        begin: int,
        # in
        n: int,
        value: wp.array[float],  # [n]
        # in and out
        average: wp.array[float],  # [n]
    ):
        """average = decay average + (1 - decay) value; its bias is removed where it is read."""
        average_item(n, begin + wp.tid(), value, average)

    return update_average


@wp.kernel
def advance_kernel(
    begin: int,
    # in
    n_steps: wp.array(dtype=wp.int64),  # [1]; 0: not known yet, no decay
    learning_rate: float,
    decay_start: float,
    final: float,
    beta1: wp.float64,
    beta2: wp.float64,
    increment: wp.int64,  # 1; 0 where the step is another optimizer's
    # in and out
    step: wp.array(dtype=wp.int64),  # [1]
    # out
    schedule: wp.array(dtype=float),  # [N_SCHEDULE]
):
    """step += increment; the rate is constant, then falls exponentially to its final share."""
    t = step[0] + increment
    step[0] = t
    rate = wp.float64(learning_rate)
    start = wp.float64(decay_start) * wp.float64(n_steps[0])
    span = wp.float64(n_steps[0]) - start
    if n_steps[0] > wp.int64(0) and wp.float64(t) > start and span > wp.float64(0.0):
        share = (wp.float64(t) - start) / span
        rate = rate * wp.pow(wp.float64(final), wp.min(share, wp.float64(1.0)))
    one = wp.float64(1.0)
    correction = wp.sqrt(one - wp.pow(beta2, wp.float64(t))) / (one - wp.pow(beta1, wp.float64(t)))
    schedule[0] = wp.float32(rate)
    schedule[1] = wp.float32(rate * correction)
