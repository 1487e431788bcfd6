"""Sums that lanes share along a ray: the bits of a plain loop, whatever other rays do."""

# ruff: noqa: UP018 (Warp's variables)

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.kernels import march
from ngp_warp.kernels.lanes import lane_items
from ngp_warp.kernels.ray_lanes import (
    RAY_LANES,
    of_first_lane,
    of_last_lane,
    product_before,
    ray_items,
    ray_lanes,
    ray_rounds,
    ray_sum,
    sum_before,
    sum_behind,
)
from ngp_warp.launch import module_options


@wp.kernel(module="unique", module_options=module_options())
def along(
    begin: int,
    # in
    ends: wp.array[int],  # [n_rays]
    values: wp.array[float],
    # out
    products: wp.array[float],
    before: wp.array[float],
    behind: wp.array[float],
    sums: wp.array[float],  # [n_rays]
):
    """Products and sums before each value of a ray, sums behind it, and all of them."""
    lane = (begin + wp.tid()) % ray_lanes()
    r = (begin + wp.tid()) / ray_lanes()
    first = wp.int32(0)
    end = wp.int32(0)
    if r < ends.shape[0]:
        end = ends[r]
        if r > 0:
            first = ends[r - 1]
    rounds = ray_rounds(end - first)
    product = float(1.0)
    part = float(0.0)
    total = float(0.0)
    for j in range(rounds):
        k = first + j * ray_lanes() + lane
        v = float(0.0)
        if k < end:
            v = values[k]
        passed = product_before(product, 1.0 - v)
        added = sum_before(part, v)
        if k < end:
            products[k] = passed
            before[k] = added
        product = of_last_lane(passed * (1.0 - v))
        part = of_last_lane(added + v)
        total += v
    total = ray_sum(total)
    if lane == 0 and r < ends.shape[0]:
        sums[r] = total
    part = float(0.0)
    for back in range(rounds):
        k = first + (rounds - 1 - back) * ray_lanes() + lane
        v = float(0.0)
        if k < end:
            v = values[k]
        added = sum_behind(part, v)
        if k < end:
            behind[k] = added
        part = of_first_lane(added + v)


def run(lengths, values, device):
    ends = wp.array(np.cumsum(lengths), dtype=int, device=device)
    given = wp.array(values, dtype=float, device=device)
    sizes = [len(values)] * 3 + [len(lengths)]
    out = [wp.zeros(n, dtype=float, device=device) for n in sizes]
    launch.launch(along, ray_items(len(lengths), device), [ends, given, *out], device)
    return [a.numpy() for a in out]


LENGTHS = [0, 1, RAY_LANES - 1, RAY_LANES, RAY_LANES + 1, 0, 200, 3, 40, 17, 2]


def make_values(n, seed=0):
    return np.random.default_rng(seed).uniform(0, 0.3, n).astype(np.float32)


def plain(values, *, multiply=False):
    """Products of 1 - v or sums before each value, one after another in float32."""
    out, now = np.zeros_like(values), np.float32(multiply)
    for k, v in enumerate(values):
        out[k] = now
        now = now * (np.float32(1) - v) if multiply else now + v
    return out


def test_what_lies_before_and_behind_has_the_bits_of_a_plain_loop(device):
    values = make_values(sum(LENGTHS))
    products, before, behind, sums = run(LENGTHS, values, device)
    for r, part in enumerate(np.split(np.arange(len(values)), np.cumsum(LENGTHS)[:-1])):
        v = values[part]
        np.testing.assert_array_equal(products[part], plain(v, multiply=True))
        np.testing.assert_array_equal(before[part], plain(v))
        np.testing.assert_array_equal(behind[part], plain(v[::-1])[::-1])
        # 200 float32 sums
        np.testing.assert_allclose(sums[r], v.sum(dtype=np.float64), rtol=200 * 2**-24)


def test_a_value_at_another_place_is_noticed(device):
    values = make_values(200)
    before = run([200], values, device)[1]
    assert not np.array_equal(before, plain(np.roll(values, 1)))


def test_other_rays_change_nothing(device):
    values = make_values(sum(LENGTHS))
    everything = run(LENGTHS, values, device)
    for r, part in enumerate(np.split(np.arange(len(values)), np.cumsum(LENGTHS)[:-1])):
        alone = run([len(part)], values[part], device)
        for a, b in zip(alone[:3], everything[:3], strict=True):
            np.testing.assert_array_equal(a, b[part])
        assert alone[3][0] == everything[3][r]


@pytest.mark.parametrize("n", [1, 2, 31, 33, 1000, 40_000])
def test_totals_are_of_the_rays_that_have_room(n, device):
    rng = np.random.default_rng(n)
    sums = np.cumsum(rng.integers(0, 4, n) * rng.integers(0, 2, n)).astype(np.int32)
    on_device = wp.array(sums, dtype=int, device=device)
    total = wp.zeros(2, dtype=int, device=device)
    last = int(sums[-1])
    for capacity in {0, 1, last // 3, last // 2, max(last - 1, 0), last, last + 1}:
        args = [on_device, n, capacity, total]
        launch.launch(march.total_kernel, lane_items(1, device), args, device)
        wanted = [last, sums[sums <= capacity].max(initial=0)]
        np.testing.assert_array_equal(total.numpy(), wanted)
