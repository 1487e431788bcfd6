"""Adam on CUDA: a thread has some entries of a table, a weight or an average.

Source and twin as kernels/adam.py, which serves the CPU.
"""

import functools

import warp as wp

from ngp_warp.kernels.adam import CORRECTED_RATE, COUNT_MAX, LEARNING_RATE, TableStep
from ngp_warp.kernels.grid import GROUP
from ngp_warp.kernels.grid_portable import FIXED_POINT
from ngp_warp.launch import module_options

# Values of a thread, at least: one wide access each of gradient, value and moments.
_WIDTH = 4
# Threads that share a list of flagged groups, and the groups that they look at.
BLOCK = 256
_LISTED = 4 * BLOCK


def table_items(n_groups: int, step: TableStep, device: str) -> int:
    """Return the number of items of ``table_kernel``.

    One for four values, or for an entry that has more; on CUDA, where flagged groups are listed, a
    thread block for ``_LISTED`` groups.
    """
    if step.flagged and device != "cpu":
        return -(-n_groups // _LISTED) * BLOCK
    return n_groups * GROUP * step.n_features // _width(step)


def weight_items(n: int) -> int:
    """Return the number of items of ``weights_kernel``."""
    return n


def average_items(n: int) -> int:
    """Return the number of items of ``average_kernel``."""
    return n


def _width(step: TableStep) -> int:
    """Return the values that a thread steps at a time."""
    return max(step.n_features, _WIDTH)


def _functions_text(step: TableStep) -> str:
    """Return the text of what the two devices do each in their own way."""
    n = _width(step)
    return f"""
#ifdef __CUDA_ARCH__
// to 2 units in the last place each: exact ones are 45 instructions a value
auto share = [](float a, float v) -> float {{
    float root;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(root) : "f"(v));
    return __fdividef(a, root + {step.epsilon!r}f);
}};
auto move = [](auto* to, const auto* from) {{  // n values, up to 16 bytes at a time
    constexpr int size = {n} * sizeof(*to), step = size < 16 ? 8 : 16;
    WP_PRAGMA_UNROLL
    for (int i = 0; i < size / step; ++i) {{
        if (step == 16) ((float4*)to)[i] = ((const float4*)from)[i];
        else ((float2*)to)[i] = ((const float2*)from)[i];
    }}
}};
#else
auto share = [](float a, float v) -> float {{ return a / (sqrtf(v) + {step.epsilon!r}f); }};
auto move = [](auto* to, const auto* from) {{ for (int i = 0; i < {n}; ++i) to[i] = from[i]; }};
#endif
"""


def _step_text(step: TableStep, leave: str) -> str:
    """Return the text that steps the values from ``first`` on, or leaves."""
    n, n_features, beta1, beta2 = _width(step), step.n_features, step.beta1, step.beta2
    number = "long long" if step.fixed_point else "float"
    unit = 1.0 / FIXED_POINT
    value = f"(float)((double)raw[j] * {unit!r})" if step.fixed_point else "raw[j]"
    rounded = "q > 0.f ? rintf(p[j] / q) * q : p[j]" if step.quantized else "p[j]"
    halves = f"""
    alignas(16) wp::half h[{n}];
    for (int j = 0; j < {n}; ++j) h[j] = wp::float_to_half({rounded});
    move(half_value.data + first, h);"""
    return f"""
alignas(16) {number} raw[{n}];
move(raw, gradient.data + first);
float g[{n}], rate[{n}];
bool any = false;
for (int j = 0; j < {n}; ++j) {{ g[j] = {value}; any |= raw[j] != 0; }}
if (!any) {leave};
alignas(16) {number} zeros[{n}] = {{}};
move(gradient.data + first, zeros);
for (int e = 0; e < {n // n_features}; ++e) {{
    bool moved = false;
    for (int f = 0; f < {n_features}; ++f) moved |= raw[e * {n_features} + f] != 0;
    unsigned short& steps = count.data[first / {n_features} + e];
    const int now = steps + (moved && steps < {COUNT_MAX});
    steps = now;
    const float r = schedule.data[{LEARNING_RATE}] * correction.data[now];
    for (int f = 0; f < {n_features}; ++f) rate[e * {n_features} + f] = r;
}}
alignas(16) float p[{n}], m[{n}], v[{n}];
move(p, value.data + first);
move(m, first_moment.data + first);
move(v, second_moment.data + first);
for (int j = 0; j < {n}; ++j) {{
    const bool moves = g[j] != 0.f;
    const float first_m = {beta1!r}f * m[j] + {1.0 - beta1!r}f * g[j];
    const float second_m = {beta2!r}f * v[j] + {1.0 - beta2!r}f * g[j] * g[j];
    const float stepped = p[j] - share(rate[j] * first_m, second_m);
    m[j] = moves ? first_m : m[j];
    v[j] = moves ? second_m : v[j];
    p[j] = moves ? stepped : p[j];
}}
move(value.data + first, p);
move(first_moment.data + first, m);
move(second_moment.data + first, v);
{"const float q = quantum.data[0];" if step.quantized else ""}{halves if step.half else ""}
"""


def _table_text(step: TableStep) -> str:
    n, values = _width(step), GROUP * step.n_features
    one = f"const size_t first = (size_t)item * {n};"
    if not step.flagged:
        return f"{_functions_text(step)}{one}{_step_text(step, 'return')}"
    # flagged groups lie anywhere: listed first, so that all lanes of a warp have something to do
    return f"""{_functions_text(step)}
#ifdef __CUDA_ARCH__
__shared__ int n_listed;
__shared__ unsigned short list[{_LISTED}];
const int thread = item % {BLOCK}, lane = thread % 32, begin = item / {BLOCK} * {_LISTED};
if (thread == 0) n_listed = 0;
__syncthreads();
for (int k = thread; k < {_LISTED}; k += {BLOCK}) {{
    const bool set = begin + k < n_groups && touched.data[begin + k];
    const unsigned mask = __ballot_sync(0xffffffffu, set);
    int at = 0;
    if (lane == 0) at = atomicAdd(&n_listed, __popc(mask));
    at = __shfl_sync(0xffffffffu, at, 0);
    if (set) {{
        list[at + __popc(mask & ((1u << lane) - 1u))] = k;
        touched.data[begin + k] = 0;
    }}
}}
__syncthreads();
const int n_items = n_listed * {values // n};
for (int i = thread; i < n_items; i += {BLOCK}) {{
    const size_t first = (size_t)(begin + list[i / {values // n}]) * {values}
        + i % {values // n} * {n};
    {_step_text(step, "continue")}
}}
#else
{one}
if (!touched.data[first / {values}]) return;
{_step_text(step, "return")}
#endif
"""


@functools.cache
def table_kernel(step: TableStep) -> wp.Kernel:
    """Return the kernel of a sparse Adam step for some entries of a table.

    Without flags it looks at all gradients: to set a flag would be another access of the caches
    for every corner of every point, where most entries get a gradient in the end.
    """
    gradient_type = wp.array[wp.int64 if step.fixed_point else float]

    @wp.func_native(_table_text(step))
    def adam_item(
        n_groups: int,
        item: int,
        schedule: wp.array[float],
        correction: wp.array[float],
        gradient: gradient_type,
        touched: wp.array[wp.uint8],
        value: wp.array[float],
        half_value: wp.array[wp.float16],
        first_moment: wp.array[float],
        second_moment: wp.array[float],
        count: wp.array[wp.uint16],
        quantum: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def adam_table_portable(
        begin: int,
        # in
        n_groups: int,
        schedule: wp.array[float],  # [N_SCHEDULE]
        correction: wp.array[float],  # [COUNT_MAX + 1]
        # in and out
        gradient: gradient_type,  # [n_entries, F], set to zero
        touched: wp.array[wp.uint8],  # [n_groups], or empty; on CUDA set to zero
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
            n_groups, begin + wp.tid(), schedule, correction, gradient, touched, value, half_value,
            first_moment, second_moment, count, quantum,
        )  # fmt: skip

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
