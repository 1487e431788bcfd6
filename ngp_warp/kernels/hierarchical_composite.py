"""Compositing of a fixed number of samples a ray, and the gradient of its squared error.

Source: Mildenhall et al. 2020, equations 3, 5 and 6. Their quadrature begins a sample's interval at
the sample; here it lies about it, as in their resampling (kernels/hierarchical.py), so that a
constant density is integrated exactly.

    tau_s = scale act(raw_s) |interval_s|,  T_s = exp(-sum over r < s of tau_r)
    w_s = T_s - T_(s+1),  colour = sum over s of w_s c_s + T_n background

Differentiable in the colours c and the raw densities. Twin: tests/reference/hierarchical.py.
Arrays as in kernels/hierarchical.py.
"""

import functools

import warp as wp

from ngp_warp.kernels.hierarchical import interval_edge, ray_vector
from ngp_warp.kernels.linear_portable import activation_function, slope_function
from ngp_warp.launch import module_options


@functools.cache
def composite_kernel(activation: str) -> wp.Kernel:
    """Return the kernel of colour, opacity, depth and weights; activation: of the density."""
    act = activation_function(activation)

    @wp.kernel(module="unique", module_options=module_options())
    def composite_rays(
        begin: int,
        # in
        first_ray: int,
        count: wp.array[int],  # [1]
        segment: wp.array[float],  # [n_rays, 2]
        t: wp.array[float],  # [n_rays, n_samples]
        n_samples: int,
        raw: wp.array[float],  # [.., raw_rows, 32]: row 0
        raw_rows: int,
        rgb: wp.array[float],  # [.., 3, 32]
        scale: float,  # thickness of a unit of distance and density
        background: wp.array[float],
        evaluations: int,  # samples of both networks
        # out
        weights: wp.array[float],  # [n_rays, n_samples]
        after: wp.array[float],  # [n_rays, n_samples]: T_(s+1)
        color: wp.array[float],
        opacity: wp.array[float],
        depth: wp.array[float],
        counts: wp.array[int],
    ):
        """w_s = T_s (1 - exp(-tau_s)), and the sums of w c, w and w t, for a ray."""
        i = begin + wp.tid()
        r = first_ray + i
        near = segment[i * 2]
        far = segment[i * 2 + 1]
        first = i * n_samples
        light = float(1.0)
        reach = float(0.0)
        sums = wp.vec3(0.0, 0.0, 0.0)
        left = near
        for s in range(n_samples):
            p = first + s
            right = interval_edge(t, first, s + 1, n_samples, near, far)
            tau = scale * act(raw[(p / 32) * raw_rows * 32 + p % 32]) * (right - left)
            left = right
            passed = wp.exp(-tau)
            w = light * (1.0 - passed)
            light = light * passed
            c = (p / 32) * 96 + p % 32
            sums += w * wp.vec3(rgb[c], rgb[c + 32], rgb[c + 64])
            reach += w * t[p]
            weights[p] = w
            after[p] = light
        if r < count[0]:
            for a in range(3):
                color[r * 3 + a] = sums[a] + light * background[r * 3 + a]
            opacity[r] = 1.0 - light
            depth[r] = reach
            counts[r] = evaluations

    return composite_rays


@functools.cache
def composite_gradient_kernel(activation: str) -> wp.Kernel:
    """Return the kernel of the squared error and its gradient; activation: of the density."""
    act, slope = activation_function(activation), slope_function(activation)

    @wp.kernel(module="unique", module_options=module_options())
    def composite_gradient(
        begin: int,
        # in
        first_ray: int,
        count: wp.array[int],  # [1]
        segment: wp.array[float],  # [n_rays, 2]
        t: wp.array[float],  # [n_rays, n_samples]
        n_samples: int,
        raw: wp.array[float],  # [.., raw_rows, 32]: row 0
        raw_rows: int,
        rgb: wp.array[float],  # [.., 3, 32]
        scale: float,
        background: wp.array[float],
        weights: wp.array[float],  # [n_rays, n_samples]
        after: wp.array[float],  # [n_rays, n_samples]
        color: wp.array[float],
        target: wp.array[float],
        ray_weight: wp.array[float],
        accumulate: int,  # add to the loss
        # out
        loss: wp.array[float],  # [.., 2]: loss, squared error
        d_raw: wp.array[float],  # [.., raw_rows, 32]: row 0
        d_rgb: wp.array[float],  # [.., 3, 32]
    ):
        """Gradient of the mean over rays and channels of weight (colour - target)^2, for a ray.

        B_s, the light that arrives behind sample s - 1 if it had nothing before it, gives
        dL/dtau_s = T_(s+1) g (c_s - B_(s+1)) with B_s = (1 - e^-tau_s) c_s + e^-tau_s B_(s+1),
        g = dL/dcolour.
        """
        i = begin + wp.tid()
        r = first_ray + i
        near = segment[i * 2]
        far = segment[i * 2 + 1]
        first = i * n_samples
        g = wp.vec3(0.0, 0.0, 0.0)
        behind = float(0.0)
        if r < count[0]:
            error = ray_vector(color, r) - ray_vector(target, r)
            g = error * (2.0 * ray_weight[r] / (3.0 * float(count[0])))
            behind = wp.dot(g, ray_vector(background, r))
            before = float(0.0)
            if accumulate != 0:
                before = loss[r * 2]
            loss[r * 2] = before + ray_weight[r] * wp.dot(error, error)
            loss[r * 2 + 1] = wp.dot(error, error)
        right = far
        for k in range(n_samples):
            s = n_samples - 1 - k
            p = first + s
            left = interval_edge(t, first, s, n_samples, near, far)
            at = (p / 32) * raw_rows * 32 + p % 32
            c = (p / 32) * 96 + p % 32
            h = act(raw[at])
            thickness = scale * (right - left)
            passed = wp.exp(-h * thickness)
            right = left
            light = wp.dot(g, wp.vec3(rgb[c], rgb[c + 32], rgb[c + 64]))
            d_raw[at] = after[p] * (light - behind) * thickness * slope(h)
            behind = (1.0 - passed) * light + passed * behind
            for a in range(3):
                d_rgb[c + a * 32] = weights[p] * g[a]

    return composite_gradient
