"""Which blocks of space cameras see, conservatively. Not differentiable.

A block's bounding sphere is seen if its centre lies in the picture, or if a direction of the
picture's edge lies in the cone of the sphere, widened by the spacing of the edge's directions.
Twin: the rays themselves (tests/test_nerf_visibility.py).
"""

import warp as wp

from ngp_warp.kernels.lens import in_picture, load_lens, project
from ngp_warp.launch import module_options

wp.set_module_options(module_options())


@wp.kernel
def visible_kernel(
    begin: int,
    # in
    poses: wp.array[float],  # [n_views, 3, 4]
    lenses: wp.array[float],  # [n_views, N_LENS]
    edge: wp.array[wp.vec3],  # unit directions of the edges, camera axes, view after view
    edge_offsets: wp.array[int],  # [n_views + 1]
    spacing: wp.array[float],  # [n_views], largest angle between neighbours on the edge
    reach: wp.array[float],  # [n_views], largest angle to the optical axis
    near: float,
    n_blocks: int,  # along an axis
    side: float,  # of the cascade
    # out
    seen: wp.array[wp.uint8],  # [n_blocks^3], x fastest
):
    """Whether any view sees a block of a cascade."""
    block = begin + wp.tid()
    size = side / float(n_blocks)
    radius = 0.8660254 * size
    corner = 0.5 - 0.5 * side + 0.5 * size
    p = wp.vec3(
        corner + size * float(block % n_blocks),
        corner + size * float(block / n_blocks % n_blocks),
        corner + size * float(block / (n_blocks * n_blocks)),
    )
    result = wp.uint8(0)
    for v in range(spacing.shape[0]):
        at = v * 12
        q = p - wp.vec3(poses[at + 3], poses[at + 7], poses[at + 11])
        distance = wp.length(q)
        if distance + radius < near:
            continue
        if distance <= radius:
            result = wp.uint8(1)
            break
        local = wp.vec3()
        for c in range(3):
            local[c] = poses[at + c] * q[0] + poses[at + 4 + c] * q[1] + poses[at + 8 + c] * q[2]
        local = local / distance
        cone = wp.asin(radius / distance)
        if wp.acos(wp.clamp(-local[2], -1.0, 1.0)) > reach[v] + cone:
            continue
        lens = load_lens(lenses, v)
        if in_picture(lens, project(lens, local)):
            result = wp.uint8(1)
            break
        widened = wp.cos(wp.min(cone + spacing[v], 3.1415926))
        for i in range(edge_offsets[v], edge_offsets[v + 1]):
            if wp.dot(edge[i], local) >= widened:
                result = wp.uint8(1)
                break
        if result != wp.uint8(0):
            break
    seen[block] = result
