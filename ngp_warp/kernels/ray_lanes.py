"""Sums along a ray that 8 lanes of a warp share on CUDA, and one item makes on a CPU.

Lane l of a ray takes samples l, l + 8, ...: neighbours read neighbours, and a ray waits an eighth
as often. What lies before or behind a sample is summed in the samples' own order: it has the
bits of a plain loop; a sum over the lanes has an order of its own, always the same. Not
differentiable. On a CPU ``ray_lanes`` is 1 and the functions return what a plain loop would have.

The number of items must be ``ray_items``. All lanes of a warp must call each function: as many
rounds as the longest of a warp's four rays has, none of them returning before.
"""

import warp as wp

RAY_LANES = 8
"""Most rays have 10 to 40 samples: two to five rounds."""


def ray_items(n_rays: int, device: str) -> int:
    """Return the number of items for n rays: whole warps on CUDA."""
    return n_rays if device == "cpu" else -(-n_rays * RAY_LANES // 32) * 32


def _on_cuda(text: str) -> str:
    return f"""
#ifdef __CUDA_ARCH__
const unsigned all = 0xffffffffu;
const int lane = threadIdx.x % {RAY_LANES}; (void)lane;
{text.replace("LANES", str(RAY_LANES))}
#endif
"""


_SUM = (
    _on_cuda("for (int m = LANES / 2; m > 0; m >>= 1) v += __shfl_xor_sync(all, v, m);")
    + "return v;"
)


@wp.func_native(_on_cuda("return LANES;") + "return 1;")
def ray_lanes() -> int:
    """How many items share a ray; item i is lane i % ray_lanes of ray i / ray_lanes."""
    ...


@wp.func_native(_on_cuda("return __any_sync(all, v);") + "return v;")
def any_lane(v: bool) -> bool:
    """Whether it is true for any lane of the warp."""
    ...


@wp.func_native(
    _on_cuda("""
int rounds = (n + LANES - 1) / LANES;
for (int m = 16; m >= LANES; m >>= 1) rounds = max(rounds, __shfl_xor_sync(all, rounds, m));
return rounds;
""")
    + "return n;"
)
def ray_rounds(n: int) -> int:
    """Rounds for n samples, the most of the warp's rays."""
    ...


@wp.func_native(
    _on_cuda("""
#pragma unroll
for (int l = 0; l < LANES - 1; ++l) {
    const float other = __shfl_sync(all, v, l, LANES);
    if (l < lane) start *= other;
}
""")
    + "return start;"
)
def product_before(start: float, v: float) -> float:
    """The product of start and the values of the lanes before this one."""
    ...


@wp.func_native(
    _on_cuda("""
#pragma unroll
for (int l = 0; l < LANES - 1; ++l) {
    const float other = __shfl_sync(all, v, l, LANES);
    if (l < lane) start += other;
}
""")
    + "return start;"
)
def sum_before(start: float, v: float) -> float:
    """The sum of start and the values of the lanes before this one."""
    ...


@wp.func_native(
    _on_cuda("""
#pragma unroll
for (int l = LANES - 1; l > 0; --l) {
    const float other = __shfl_sync(all, v, l, LANES);
    if (l > lane) start += other;
}
""")
    + "return start;"
)
def sum_behind(start: float, v: float) -> float:
    """The sum of start and the values of the lanes behind this one, from the last on."""
    ...


@wp.func_native(_on_cuda("return __shfl_sync(all, v, LANES - 1, LANES);") + "return v;")
def of_last_lane(v: float) -> float:
    """The last lane's value."""
    ...


@wp.func_native(_on_cuda("return __shfl_sync(all, v, 0, LANES);") + "return v;")
def of_first_lane(v: float) -> float:
    """The first lane's value."""
    ...


@wp.func_native(_SUM)
def ray_sum(v: float) -> float:
    """The sum of the ray's lanes' values, the same bits for every lane."""
    ...


@wp.func_native(_SUM)
def ray_sum_int(v: int) -> int:
    """The same of integers."""
    ...
