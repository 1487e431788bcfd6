"""Refinement of cameras: from parameters to poses, lenses and exposures, and their gradients back.

A pose is exp(w) R0 with the centre q + exp(w) (c0 - q) + unit t, where q is a point that all look
at: a turn about the camera itself and a translation move the picture alike, and a descent tells
them apart slowly (errors of six cameras after 600 steps: 2 percent at most, 23 about themselves); a
lens is its first one with its focal lengths
times exp(p0 +- p1 / 2), its principal point moved by shares of them, and added coefficients; an
exposure is its parameter less the mean of all views. Rays give the gradients by o and d: with
o = c and d = exp(w) R0 l, dt = unit sum(do), dw = J^T sum(d x dd + exp(w) (c0 - q) x do), J the
left Jacobian of the rotations (Sola et al. 2018, "A micro Lie theory", eq. 145). Lens:
ngp_warp/kernels/lens.py. Twin: tests/reference/refine.py.

A chunk of the batch, which does not depend on the number of threads, is summed by one item in the
order of its rays; then a view's chunks are, in their order.
"""

import functools

import warp as wp

from ngp_warp.kernels.lens import (
    CX,
    CY,
    FISHEYE,
    FX,
    FY,
    K1,
    LIMIT,
    MODEL,
    N_LENS,
    N_PARAMETERS,
    P1,
    P2,
    PINHOLE,
    RADIAL,
    TANGENTIAL,
    fold,
    lens_gradient,
    load_lens,
)
from ngp_warp.launch import module_options

wp.set_module_options(module_options())

N_POSE = 6
"""Parameters of a pose: rotation vector, radians; translation, in ``unit``."""
ORIGIN, TORQUE, LENS, EXPOSURE, N_SUMS = 0, 3, 6, 6 + N_PARAMETERS, 9 + N_PARAMETERS
"""Sums of a view: of do, d x dd, the lens's gradient, and that of the exposure."""

_N_POSE, _N_SUMS, _N_LENS = wp.constant(N_POSE), wp.constant(N_SUMS), wp.constant(N_LENS)
_N_PARAMETERS = wp.constant(N_PARAMETERS)
_TORQUE, _LENS, _EXPOSURE = wp.constant(TORQUE), wp.constant(LENS), wp.constant(EXPOSURE)
_FX, _FY, _CX, _CY, _K1 = (wp.constant(v) for v in (FX, FY, CX, CY, K1))
_P1, _P2, _MODEL, _LIMIT = (wp.constant(v) for v in (P1, P2, MODEL, LIMIT))
_PINHOLE, _RADIAL, _TANGENTIAL, _FISHEYE = (
    wp.constant(v) for v in (PINHOLE, RADIAL, TANGENTIAL, FISHEYE)
)


@wp.func
def turn(w: wp.vec3, p: wp.vec3, first: float, second: float) -> wp.vec3:
    """Return p + first w x p + second w x (w x p)."""
    q = wp.cross(w, p)
    return p + first * q + second * wp.cross(w, q)


@wp.func
def rotate(w: wp.vec3, p: wp.vec3) -> wp.vec3:
    """Return exp(w) p (Rodrigues); series where the angle is small."""
    s = wp.dot(w, w)
    first = 1.0 - s / 6.0
    second = 0.5 - s / 24.0
    if s > 1.0e-4:
        angle = wp.sqrt(s)
        half = wp.sin(0.5 * angle) / angle
        first = wp.sin(angle) / angle
        second = 2.0 * half * half
    return turn(w, p, first, second)


@wp.func
def rotation_gradient(w: wp.vec3, torque: wp.vec3) -> wp.vec3:
    """Return J^T torque, J the left Jacobian of exp at w."""
    s = wp.dot(w, w)
    first = 0.5 - s / 24.0
    second = 1.0 / 6.0 - s / 120.0
    # the difference angle - sin(angle) has lost its digits below a tenth
    if s > 1.0e-2:
        angle = wp.sqrt(s)
        half = wp.sin(0.5 * angle) / angle
        first = 2.0 * half * half
        second = (angle - wp.sin(angle)) / (angle * s)
    return turn(w, torque, -first, second)


@wp.kernel
def pose_kernel(
    begin: int,
    # in
    parameters: wp.array[float],  # [n_views, N_POSE]
    unit: float,  # of a translation, in sides of the box
    pivot: wp.vec3,  # q
    first: wp.array[float],  # [n_views, 3, 4]
    # out
    poses: wp.array[float],  # [n_views, 3, 4]
):
    """R = exp(w) R0, c = q + exp(w) (c0 - q) + unit t."""
    v = begin + wp.tid()
    at = v * _N_POSE
    w = wp.vec3(parameters[at], parameters[at + 1], parameters[at + 2])
    for column in range(3):
        p = wp.vec3()
        for row in range(3):
            p[row] = first[v * 12 + row * 4 + column]
        p = rotate(w, p)
        for row in range(3):
            poses[v * 12 + row * 4 + column] = p[row]
    c = rotate(w, wp.vec3(first[v * 12 + 3], first[v * 12 + 7], first[v * 12 + 11]) - pivot)
    for row in range(3):
        moved = pivot[row] + c[row] + unit * parameters[at + 3 + row]
        poses[v * 12 + row * 4 + 3] = moved


@wp.kernel
def lens_kernel(
    begin: int,
    # in
    parameters: wp.array[float],  # [n_groups, N_PARAMETERS]
    first: wp.array[float],  # [n_views, N_LENS]
    group_offsets: wp.array[int],  # [n_groups + 1]
    group_views: wp.array[int],  # [n_views]: the views of a group, one group after another
    distortion: int,  # 1: the coefficients change, and so may the fold
    # out
    lenses: wp.array[float],  # [n_views, N_LENS]
):
    """Move the lens of a group, find its fold, and give it to the group's views."""
    group = begin + wp.tid()
    p = group * _N_PARAMETERS
    for member in range(group_offsets[group], group_offsets[group + 1]):
        at = group_views[member] * _N_LENS
        for i in range(_N_LENS):
            lenses[at + i] = first[at + i]
        fx, fy = first[at + _FX], first[at + _FY]
        lenses[at + _FX] = fx * wp.exp(parameters[p] + 0.5 * parameters[p + 1])
        lenses[at + _FY] = fy * wp.exp(parameters[p] - 0.5 * parameters[p + 1])
        lenses[at + _CX] = first[at + _CX] + fx * parameters[p + 2]
        lenses[at + _CY] = first[at + _CY] + fy * parameters[p + 3]
        if distortion != 0:
            for i in range(_K1, _N_PARAMETERS):
                lenses[at + i] = first[at + i] + parameters[p + i]
            if first[at + _MODEL] != float(_FISHEYE):
                model = wp.int32(_PINHOLE)
                for i in range(_K1, _P1):
                    if lenses[at + i] != 0.0:
                        model = _RADIAL
                if lenses[at + _P1] != 0.0 or lenses[at + _P2] != 0.0:
                    model = _TANGENTIAL
                lenses[at + _MODEL] = float(model)
            if member == group_offsets[group]:
                lenses[at + _LIMIT] = fold(load_lens(lenses, group_views[member]))
            else:
                lenses[at + _LIMIT] = lenses[group_views[group_offsets[group]] * _N_LENS + _LIMIT]


@wp.kernel
def centre_kernel(
    begin: int,
    # in
    values: wp.array[float],  # [n, stride]
    n: int,
    stride: int,
    offset: int,  # of the first of three columns
    # out
    centred: wp.array[float],  # [n, 3]
):
    """Values less their mean over n; one item a column. It is its own adjoint."""
    c = begin + wp.tid()
    total = float(0.0)
    for i in range(n):
        total += values[i * stride + offset + c]
    mean = total / float(n)
    for i in range(n):
        centred[i * 3 + c] = values[i * stride + offset + c] - mean


@functools.cache
def sum_kernel(poses: bool, lenses: bool, exposure: bool) -> wp.Kernel:
    """Return the kernel that sums the rays' gradients by view, chunk by chunk."""
    use_poses, use_lenses, use_exposure = poses, lenses, exposure

    @wp.kernel(module="unique", module_options=module_options())
    def sum_rays(
        begin: int,
        # in
        view: wp.array[int],  # [n]
        weight: wp.array[float],  # [n]
        direction: wp.array[float],  # [n, 3]
        d_origin: wp.array[float],  # [n, 3] or empty
        d_direction: wp.array[float],  # [n, 3] or empty
        d_exposure: wp.array[float],  # [n, 3] or empty
        poses: wp.array[float],  # [n_views, 3, 4], those of the rays
        lenses: wp.array[float],  # [n_views, N_LENS], those of the rays
        count: wp.array[int],  # [1]
        n_chunks: int,
        n_views: int,
        # out
        partial: wp.array[float],  # [n_chunks, n_views, N_SUMS]
    ):
        """Sums of a chunk, in the order of its rays."""
        chunk = begin + wp.tid()
        base = chunk * n_views * _N_SUMS
        for i in range(n_views * _N_SUMS):
            partial[base + i] = 0.0
        per_chunk = (count[0] + n_chunks - 1) / n_chunks
        for ray in range(chunk * per_chunk, wp.min((chunk + 1) * per_chunk, count[0])):
            v = view[ray]
            if v < 0 or weight[ray] == 0.0:
                continue
            at = base + v * _N_SUMS
            if wp.static(use_exposure):
                for c in range(3):
                    i = at + _EXPOSURE + c
                    partial[i] = partial[i] + d_exposure[ray * 3 + c]
            if wp.static(use_poses or use_lenses):
                d = wp.vec3(direction[ray * 3], direction[ray * 3 + 1], direction[ray * 3 + 2])
                g = wp.vec3(
                    d_direction[ray * 3], d_direction[ray * 3 + 1], d_direction[ray * 3 + 2]
                )
                if wp.static(use_poses):
                    torque = wp.cross(d, g)
                    for c in range(3):
                        partial[at + c] = partial[at + c] + d_origin[ray * 3 + c]
                        i = at + _TORQUE + c
                        partial[i] = partial[i] + torque[c]
                if wp.static(use_lenses):
                    local = wp.vec3()
                    dual = wp.vec3()
                    for row in range(3):
                        for c in range(3):
                            r = poses[v * 12 + row * 4 + c]
                            local[c] += r * d[row]
                            dual[c] += r * g[row]
                    by_lens = lens_gradient(load_lens(lenses, v), local, dual)
                    for c in range(_N_PARAMETERS):
                        i = at + _LENS + c
                        partial[i] = partial[i] + by_lens[c]

    return sum_rays


@wp.kernel
def total_kernel(
    begin: int,
    # in
    partial: wp.array[float],  # [n_chunks, n]
    n_chunks: int,
    n: int,
    # out
    total: wp.array[float],  # [n]
):
    """Sum over the chunks, in their order."""
    i = begin + wp.tid()
    value = float(0.0)
    for chunk in range(n_chunks):
        value += partial[chunk * n + i]
    total[i] = value


@wp.kernel
def pose_gradient_kernel(
    begin: int,
    # in
    total: wp.array[float],  # [n_views, N_SUMS]
    parameters: wp.array[float],  # [n_views, N_POSE]
    unit: float,
    pivot: wp.vec3,
    first: wp.array[float],  # [n_views, 3, 4]
    # out
    gradient: wp.array[float],  # [n_views, N_POSE]
):
    """dw = J^T sum(d x dd + exp(w) (c0 - q) x do), dt = unit sum(do)."""
    v = begin + wp.tid()
    at = v * _N_POSE
    sums = v * _N_SUMS
    w = wp.vec3(parameters[at], parameters[at + 1], parameters[at + 2])
    torque = wp.vec3(total[sums + _TORQUE], total[sums + _TORQUE + 1], total[sums + _TORQUE + 2])
    force = wp.vec3(total[sums], total[sums + 1], total[sums + 2])
    arm = rotate(w, wp.vec3(first[v * 12 + 3], first[v * 12 + 7], first[v * 12 + 11]) - pivot)
    dw = rotation_gradient(w, torque + wp.cross(arm, force))
    for c in range(3):
        gradient[at + c] = dw[c]
        gradient[at + 3 + c] = unit * force[c]


@wp.kernel
def lens_gradient_kernel(
    begin: int,
    # in
    total: wp.array[float],  # [n_views, N_SUMS]
    first: wp.array[float],  # [n_views, N_LENS]
    lenses: wp.array[float],  # [n_views, N_LENS]
    group_offsets: wp.array[int],  # [n_groups + 1]
    group_views: wp.array[int],  # [n_views]
    trained: wp.array[float],  # [n_groups, N_PARAMETERS]: 1, or 0 where the value is kept
    # out
    gradient: wp.array[float],  # [n_groups, N_PARAMETERS]
):
    """Sum over the views of a group, and through the parametrization of ``lens_kernel``."""
    group = begin + wp.tid()
    p = group * _N_PARAMETERS
    for i in range(_N_PARAMETERS):
        value = float(0.0)
        for member in range(group_offsets[group], group_offsets[group + 1]):
            value += total[group_views[member] * _N_SUMS + _LENS + i]
        gradient[p + i] = value
    at = group_views[group_offsets[group]] * _N_LENS
    by_x = gradient[p + _FX] * lenses[at + _FX]
    by_y = gradient[p + _FY] * lenses[at + _FY]
    gradient[p] = by_x + by_y
    gradient[p + 1] = 0.5 * (by_x - by_y)
    gradient[p + 2] = gradient[p + 2] * first[at + _FX]
    gradient[p + 3] = gradient[p + 3] * first[at + _FY]
    for i in range(_N_PARAMETERS):
        gradient[p + i] = gradient[p + i] * trained[p + i]
