"""Compositing along rays in Warp's own language: transmittance, colour, loss and gradients.

Source: Max 1995 (emission and absorption), Mueller et al. 2022, appendix E; Barron et al. 2022,
equation 15 (distortion). With thickness s_j and T_j the transmittance before sample j, its weight
is w_j = T_j - T_{j+1}, T_{j+1} = T_j exp(-s_j). Where G_j is the loss's gradient in w_j and G_end
that in the transmittance behind the last sample, the gradient in s_j is
T_{j+1} G_j - sum_{k > j} w_k G_k - T_end G_end. Differentiable in raw densities, colours,
backgrounds and exposures. Twin: tests/reference/composite.py.

The colour's loss of a ray is its weight times the mean over channels; a ray's distances are scaled
to its way through the box for the distortion. The gradient goes through the clamp of raw densities
(kernels/packed.py), so that a density that is too high can fall again.
"""

import functools
from dataclasses import dataclass

import warp as wp

from ngp_warp.kernels.access import put_rows, put_value, rows_at, value_at
from ngp_warp.kernels.loss import LOSSES
from ngp_warp.kernels.packed import Kept, samples_of
from ngp_warp.kernels.ray_lanes import (
    any_lane,
    of_first_lane,
    of_last_lane,
    product_before,
    ray_lanes,
    ray_rounds,
    ray_sum,
    sum_before,
    sum_behind,
)
from ngp_warp.kernels.vector import SCALAR
from ngp_warp.launch import module_options

DEPTH_CHUNKS = 64
"""Parts in which rays with a known depth are counted."""

_LN2 = wp.constant(0.6931471805599453)

wp.set_module_options(module_options())


@dataclass(frozen=True)
class CompositeShape:
    """What a training kernel is compiled for."""

    loss: str
    color_space: str
    exposure: bool
    background_gradients: bool
    distortion: bool


@wp.struct
class Rays:
    """A batch's rays; see RayBatch."""

    count: wp.array[int]
    weight: wp.array[float]
    target: wp.array[float]
    background: wp.array[float]
    depth_target: wp.array[float]
    exposure: wp.array[float]
    n_samples: wp.array[int]
    span: wp.array[float]  # [n_rays * 3]: entry, first lattice point, exit


@wp.struct
class Composited:
    """What becomes of a batch's rays; see RayBatch."""

    color: wp.array[float]
    opacity: wp.array[float]
    depth: wp.array[float]
    loss: wp.array[float]
    d_background: wp.array[float]
    d_exposure: wp.array[float]


@wp.func
def decode(p: float):
    """Light of an sRGB value, and its derivative."""
    if p <= 0.0:
        return 0.0, 0.0
    if p <= 0.04045:
        return p / 12.92, 1.0 / 12.92
    base = (p + 0.055) / 1.055
    light = wp.pow(base, 2.4)
    return light, 2.4 / 1.055 * light / base


@wp.func
def encode(light: float):
    """sRGB value of a light, and its derivative."""
    if light <= 0.0031308:
        return light * 12.92, 12.92
    root = wp.pow(light, 1.0 / 2.4)
    return 1.055 * root - 0.055, 1.055 / 2.4 * root / light


@functools.cache
def _expose(exposure: bool, color_space: str) -> wp.Function:
    """Return the function from a value and an exposure to what is shown.

    It also gives the derivatives in both.
    """
    srgb = color_space == "srgb"

    @wp.func
    def expose(p: float, exposures: wp.array[float], i: int):
        if wp.static(exposure):
            gain = wp.exp(exposures[i] * _LN2)
            if wp.static(srgb):
                light, slope = decode(p)
                shown, d_shown = encode(light * gain)
                return shown, d_shown * gain * slope, d_shown * light * gain * _LN2
            return p * gain, gain, p * gain * _LN2
        return p, 1.0, 0.0

    return expose


@functools.cache
def _loss(name: str) -> tuple[wp.Function, wp.Function]:
    """Return the functions of a loss's value and gradient at (prediction, target)."""
    value, gradient = LOSSES[name]
    text = f"{SCALAR}const float d = p - t; (void)d; return "

    @wp.func_native(f"{text}{value};")
    def loss_value(p: float, t: float) -> float: ...

    @wp.func_native(f"{text}{gradient};")
    def loss_slope(p: float, t: float) -> float: ...

    return loss_value, loss_slope


@wp.func
def sample_at(kept: Kept, rgb: wp.array[float], k: int, end: int):
    """What passes a sample, its distance and its colour; from ``end`` on there is none."""
    passes = float(1.0)
    distance = float(0.0)
    emitted = wp.vec3(0.0, 0.0, 0.0)
    if k < end:
        passes = wp.exp(-value_at(kept.thickness, k))
        distance = value_at(kept.distance, k)
        emitted = rows_at(rgb, k)
    return passes, distance, emitted


@wp.func
def vector_sum(v: wp.vec3):
    """The sum of the vectors of a ray's lanes."""
    return wp.vec3(ray_sum(v[0]), ray_sum(v[1]), ray_sum(v[2]))


@functools.cache
def render_kernel(exposure: bool, color_space: str) -> wp.Kernel:
    """Return the kernel of a ray's colour, opacity and depth."""
    expose = _expose(exposure, color_space)

    @wp.kernel(module="unique", module_options=module_options())
    def render(
        begin: int,
        # in
        rays: Rays,
        kept: Kept,
        rgb: wp.array[float],  # [n_blocks, 3, 32]
        # out
        out: Composited,
    ):
        """colour = sum of w c + T background; opacity = 1 - T; depth = sum of w t."""
        lane = (begin + wp.tid()) % ray_lanes()
        r = (begin + wp.tid()) / ray_lanes()
        if not any_lane(r < rays.count[0]):
            return
        first, end = samples_of(rays.count[0], kept.n, kept.end, r)
        t_now = float(1.0)
        color = wp.vec3(0.0, 0.0, 0.0)
        depth = float(0.0)
        for j in range(ray_rounds(end - first)):
            k = first + j * ray_lanes() + lane
            passes, distance, emitted = sample_at(kept, rgb, k, end)
            before = product_before(t_now, passes)
            after = before * passes
            w = before - after
            t_now = of_last_lane(after)
            depth += w * distance
            color += w * emitted
        depth = ray_sum(depth)
        color = vector_sum(color)
        if lane > 0 or r >= rays.count[0]:
            return
        for c in range(3):
            p = color[c] + t_now * rays.background[r * 3 + c]
            shown, _, _ = expose(p, rays.exposure, r * 3 + c)
            out.color[r * 3 + c] = shown
        out.opacity[r] = 1.0 - t_now
        out.depth[r] = depth

    return render


@wp.func
def distortion_sums(
    kept: Kept,
    weights: wp.array[float],
    first: int,
    end: int,
    lane: int,
    entry: float,
    per_span: float,
):
    """The distortion of a ray's weights, sum of w, and sum of w x.

    x is the distance in shares of the way through the box; the distortion is the sum over i, j of
    w_i w_j |x_i - x_j| + sum of w_i^2 length_i / 3, by the sums of what lies before a sample.
    """
    sums = wp.vec3(0.0, 0.0, 0.0)
    for j in range(ray_rounds(end - first)):
        k = first + j * ray_lanes() + lane
        w = float(0.0)
        x = float(0.0)
        length = float(0.0)
        if k < end:
            w = value_at(weights, k)
            x = (value_at(kept.distance, k) - entry) * per_span
            length = value_at(kept.length, k)
        w_before = sum_before(sums[1], w)
        wx_before = sum_before(sums[2], w * x)
        own = 2.0 * w * (x * w_before - wx_before) + w * w * length * per_span / 3.0
        w_last = of_last_lane(w_before + w)
        sums = wp.vec3(sums[0] + own, w_last, of_last_lane(wx_before + w * x))
    return wp.vec3(ray_sum(sums[0]), sums[1], sums[2])


@functools.cache
def train_kernel(shape: CompositeShape) -> wp.Kernel:
    """Return the kernel of a ray's loss and its gradients in raw densities and colours."""
    expose = _expose(shape.exposure, shape.color_space)
    value_of, slope_of = _loss(shape.loss)
    # the depth's, at any loss of the colour
    depth_value_of, depth_slope_of = _loss("huber")

    @wp.kernel(module="unique", module_options=module_options())
    def composite(
        begin: int,
        # in
        rays: Rays,
        kept: Kept,
        rgb: wp.array[float],  # [n_blocks, 3, 32]
        depth_counts: wp.array[float],  # [DEPTH_CHUNKS]
        depth_weight: float,
        distortion_weight: float,
        # out
        weights: wp.array[float],  # [capacity]
        behind: wp.array[float],  # [capacity]: transmittance behind a sample
        out: Composited,
        d_rgb: wp.array[float],  # [n_blocks, 3, 32], zero where there is no sample
        d_raw: wp.array[float],  # [capacity], the same
    ):
        """Loss of a ray; gradients of the mean loss (see the head of this module)."""
        lane = (begin + wp.tid()) % ray_lanes()
        item = (begin + wp.tid()) / ray_lanes()
        if not any_lane(item < rays.count[0]):
            return
        first, end = samples_of(rays.count[0], kept.n, kept.end, item)
        rounds = ray_rounds(end - first)
        # a lane without a ray takes part in the warp's sums, and writes nothing
        r = wp.min(item, rays.count[0] - 1)
        writes = lane == 0 and item == r
        t_end = float(1.0)
        color = wp.vec3(0.0, 0.0, 0.0)
        depth = float(0.0)
        for j in range(rounds):
            k = first + j * ray_lanes() + lane
            passes, distance, emitted = sample_at(kept, rgb, k, end)
            before = product_before(t_end, passes)
            after = before * passes
            w = before - after
            if k < end:
                put_value(weights, k, w)
                put_value(behind, k, after)
            t_end = of_last_lane(after)
            depth += w * distance
            color += w * emitted
        depth = ray_sum(depth)
        color = vector_sum(color)
        weight = value_at(rays.weight, r)
        if rays.n_samples[r] < 0:
            weight = 0.0
        counted = weight > 0.0
        per_ray = 1.0 / float(rays.count[0])
        total = float(0.0)
        squares = float(0.0)
        g = wp.vec3(0.0, 0.0, 0.0)
        suffix = float(0.0)
        for c in range(3):
            b = value_at(rays.background, r * 3 + c)
            shown, d_shown, d_stops = expose(color[c] + t_end * b, rays.exposure, r * 3 + c)
            t = value_at(rays.target, r * 3 + c)
            g_shown = float(0.0)
            if counted:
                total += weight * value_of(shown, t) / 3.0
                squares += (shown - t) * (shown - t)
                g_shown = weight * slope_of(shown, t) * per_ray / 3.0
            g[c] = g_shown * d_shown
            suffix += g[c] * b * t_end
            if writes:
                put_value(out.color, r * 3 + c, shown)
                if wp.static(shape.background_gradients):
                    out.d_background[r * 3 + c] = g[c] * t_end
                if wp.static(shape.exposure):
                    out.d_exposure[r * 3 + c] = g_shown * d_stops
        g_depth = float(0.0)
        measured = counted and depth_weight > 0.0 and rays.depth_target[r] > 0.0
        if any_lane(measured):
            n_depths = float(0.0)
            # no constant: unrolled, the loads would take 249 registers
            for chunk in range(lane, depth_counts.shape[0], ray_lanes()):
                n_depths += depth_counts[chunk]
            n_depths = ray_sum(n_depths)
            if measured:
                total += depth_weight * depth_value_of(depth, rays.depth_target[r])
                g_depth = depth_weight * depth_slope_of(depth, rays.depth_target[r]) / n_depths
        per_span = float(0.0)
        entry = float(0.0)
        low = wp.vec3(0.0, 0.0, 0.0)
        if wp.static(shape.distortion):
            if counted and first < end:
                entry = rays.span[r * 3]
                per_span = 1.0 / (rays.span[r * 3 + 2] - entry)
            low = distortion_sums(kept, weights, first, end, lane, entry, per_span)
            total += distortion_weight * low[0]
        if writes:
            put_value(out.opacity, r, 1.0 - t_end)
            put_value(out.depth, r, depth)
            put_value(out.loss, r * 2, total)
            put_value(out.loss, r * 2 + 1, squares)
        high = wp.vec2(0.0, 0.0)
        for back in range(rounds):
            k = first + (rounds - 1 - back) * ray_lanes() + lane
            w = float(0.0)
            distance = float(0.0)
            length = float(0.0)
            emitted = wp.vec3(0.0, 0.0, 0.0)
            if k < end:
                w = value_at(weights, k)
                distance = value_at(kept.distance, k)
                emitted = rows_at(rgb, k)
                if wp.static(shape.distortion):
                    length = value_at(kept.length, k)
            gw = wp.dot(g, emitted)
            gw += g_depth * distance
            if wp.static(shape.distortion):
                x = (distance - entry) * per_span
                w_before = sum_behind(low[1], -w) - w
                wx_before = sum_behind(low[2], -(w * x)) - w * x
                w_behind = sum_behind(high[0], w)
                wx_behind = sum_behind(high[1], w * x)
                slope = 2.0 * (x * w_before - wx_before + wx_behind - x * w_behind)
                slope += 2.0 / 3.0 * w * length * per_span
                gw += distortion_weight * per_ray * slope
                low = wp.vec3(0.0, of_first_lane(w_before), of_first_lane(wx_before))
                high = wp.vec2(of_first_lane(w_behind + w), of_first_lane(wx_behind + w * x))
            g_behind = sum_behind(suffix, w * gw)
            if k < end:
                put_rows(d_rgb, k, w * g)
                g_thickness = value_at(behind, k) * gw - g_behind
                put_value(d_raw, k, value_at(kept.thickness, k) * g_thickness)
            suffix = of_first_lane(g_behind + w * gw)

    return composite
