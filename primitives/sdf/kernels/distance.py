"""Exact signed distances to a mesh: closest face by a tree, sign by one of three methods.

Sources: closest point on a triangle after Ericson 2005, section 5.1.5; angle-weighted
pseudo-normals Baerentzen and Aanaes 2005; generalised winding numbers Barill et al. 2018 (Warp's);
ray stabbing Nooruddin and Turk 2003. Not differentiable. Twin: tests/reference/truth.py.

The trees (Warp's, and kernels/tree.py) find the closest face in float32; the closest point on that
face, its feature and the distance are computed again in float64: the float32 barycentrics of a
small face seen from afar are noise, and would choose the wrong feature and with it the wrong sign.
"""

import functools
from typing import Any

import warp as wp

from ngp_warp.launch import module_options
from ngp_warp.primitives.sdf.kernels.tree import WARP, nearest_face_vector, nearest_face_wide

wp.set_module_options(module_options())

UNBOUNDED = wp.constant(1.0e9)
"""A radius that holds everything, and whose square is a float."""

N_DIRECTIONS = 32


@wp.struct
class Scene:
    """A mesh as the kernels see it."""

    mesh: wp.uint64
    normals: wp.array(dtype=wp.vec3)  # [7 n_faces]: of the face, edges ab bc ca, vertices a b c
    directions: wp.array(dtype=wp.vec3)  # [N_DIRECTIONS], Fibonacci points of the unit sphere
    balls: wp.array(dtype=float)  # [n_cells^3], signed distances of a grid's cell centres
    n_cells: int  # 0: there is no grid yet
    # of the vector and the wide search, else empty; see primitives/sdf/tree.py
    nodes: wp.array(dtype=float)
    leaves: wp.array(dtype=float)
    first_child: wp.array(dtype=int)
    leaf_faces: wp.array(dtype=int)


@wp.struct
class Closest:
    """The closest point of a face."""

    offset: wp.vec3d  # from the closest point to the query
    feature: int  # as in Scene.normals


@wp.func
def closest_on_face(  # noqa: PLR0911 - one return for each of the seven regions
    a: wp.vec3d, b: wp.vec3d, c: wp.vec3d, p: wp.vec3d
) -> Closest:
    """Which of the seven Voronoi regions of the triangle p lies in, and where it falls."""
    r = Closest()
    zero = wp.float64(0.0)
    ab = b - a
    ac = c - a
    ap = p - a
    d1 = wp.dot(ab, ap)
    d2 = wp.dot(ac, ap)
    if d1 <= zero and d2 <= zero:
        r.offset = ap
        r.feature = 4
        return r
    bp = p - b
    d3 = wp.dot(ab, bp)
    d4 = wp.dot(ac, bp)
    if d3 >= zero and d4 <= d3:
        r.offset = bp
        r.feature = 5
        return r
    vc = d1 * d4 - d3 * d2
    if vc <= zero and d1 >= zero and d3 <= zero:
        r.offset = ap - ab * (d1 / (d1 - d3))
        r.feature = 1
        return r
    cp = p - c
    d5 = wp.dot(ab, cp)
    d6 = wp.dot(ac, cp)
    if d6 >= zero and d5 <= d6:
        r.offset = cp
        r.feature = 6
        return r
    vb = d5 * d2 - d1 * d6
    if vb <= zero and d2 >= zero and d6 <= zero:
        r.offset = ap - ac * (d2 / (d2 - d6))
        r.feature = 3
        return r
    va = d3 * d6 - d5 * d4
    if va <= zero and d4 >= d3 and d5 >= d6:
        r.offset = bp - (c - b) * ((d4 - d3) / ((d4 - d3) + (d5 - d6)))
        r.feature = 2
        return r
    total = va + vb + vc
    r.offset = ap - ab * (vb / total) - ac * (vc / total)
    r.feature = 0
    return r


@wp.func
def corner(mesh: wp.uint64, face: int, k: int) -> wp.vec3d:
    """Return corner k of a face."""
    v = wp.mesh_get_point(mesh, face * 3 + k)
    return wp.vec3d(wp.float64(v[0]), wp.float64(v[1]), wp.float64(v[2]))


@wp.func
def closest_on_mesh(mesh: wp.uint64, face: int, p: wp.vec3) -> Closest:
    """Return the closest point of the face that the tree found."""
    q = wp.vec3d(wp.float64(p[0]), wp.float64(p[1]), wp.float64(p[2]))
    return closest_on_face(corner(mesh, face, 0), corner(mesh, face, 1), corner(mesh, face, 2), q)


@wp.func
def ball(scene: Scene, p: wp.vec3) -> wp.vec2:
    """Signed distance at the centre of p's cell, and p's distance from there."""
    n = scene.n_cells
    x = wp.clamp(int(p[0] * float(n)), 0, n - 1)
    y = wp.clamp(int(p[1] * float(n)), 0, n - 1)
    z = wp.clamp(int(p[2] * float(n)), 0, n - 1)
    centre = wp.vec3(float(x) + 0.5, float(y) + 0.5, float(z) + 0.5) / float(n)
    return wp.vec2(scene.balls[(z * n + y) * n + x], wp.length(p - centre))


@wp.func
def reach(scene: Scene, p: wp.vec3) -> float:
    """Return a radius about p that holds a point of the surface: the triangle inequality."""
    if scene.n_cells == 0:
        return UNBOUNDED
    b = ball(scene, p)
    # the slack holds the rounding of distances up to a few units
    return (wp.abs(b[0]) + b[1]) * 1.00001 + 1.0e-6


@wp.func
def escapes(scene: Scene, p: wp.vec3) -> bool:
    """Whether any ray misses the mesh; the likeliest, away from the centre, comes first."""
    first = wp.int32(0)
    best = float(-UNBOUNDED)
    for k in range(N_DIRECTIONS):
        along = wp.dot(scene.directions[k], p - wp.vec3(0.5, 0.5, 0.5))
        if along > best:
            best = along
            first = k
    k = wp.int32(0)
    out = bool(False)
    while k < N_DIRECTIONS and not out:
        direction = scene.directions[(first + k) % N_DIRECTIONS]
        if not wp.mesh_query_ray_anyhit(scene.mesh, p, direction, UNBOUNDED):
            out = True
        k += 1
    return out


@wp.func
def nearest_portable(scene: Scene, p: wp.vec3, radius: float) -> int:
    """Return the closest face, or -1 if there is none within the radius."""
    q = wp.mesh_query_point_no_sign(scene.mesh, p, radius)
    return wp.where(q.result, q.face, -1)


@wp.func
def nearest_vector(scene: Scene, p: wp.vec3, radius: float) -> int:
    """Return the closest face, or -1 if there is none within the radius."""
    return nearest_face_vector(
        scene.nodes, scene.leaves, scene.first_child, scene.leaf_faces, p, radius
    )


@wp.func
def nearest_wide(scene: Scene, p: wp.vec3, radius: float) -> int:
    """Return the closest face, or -1 if there is none within the radius, to a warp's lanes."""
    return nearest_face_wide(
        scene.nodes, scene.leaves, scene.first_child, scene.leaf_faces, p, radius
    )


@wp.func
def side_by_normal(scene: Scene, p: wp.vec3, face: int, closest: Closest) -> float:
    """Return -1 behind the pseudo-normal of the closest feature, else 1."""
    n = scene.normals[face * 7 + closest.feature]
    along = wp.dot(closest.offset, wp.vec3d(wp.float64(n[0]), wp.float64(n[1]), wp.float64(n[2])))
    return wp.where(along < wp.float64(0.0), -1.0, 1.0)


@wp.func
def side_by_rays(scene: Scene, p: wp.vec3, face: int, closest: Closest) -> float:
    """Return 1 if any ray escapes, else -1."""
    return wp.where(escapes(scene, p), 1.0, -1.0)


@wp.func
def side_by_winding(scene: Scene, p: wp.vec3, face: int, closest: Closest) -> float:
    """Return -1 where the winding number exceeds 1/2, else 1."""
    # Warp searches the closest point once more, which a known distance makes short
    radius = float(wp.length(closest.offset)) * 1.0001 + 1.0e-6
    q = wp.mesh_query_point_sign_winding_number(scene.mesh, p, radius, 2.0, 0.5)
    if not q.result:
        q = wp.mesh_query_point_sign_winding_number(scene.mesh, p, UNBOUNDED, 2.0, 0.5)
    return q.sign


_SIDES = {"normal": side_by_normal, "raystab": side_by_rays, "winding": side_by_winding}
_SEARCHES = {"portable": nearest_portable, "vector": nearest_vector, "wide": nearest_wide}


def lanes(search: str) -> int:
    """Return the number of items, lanes of a warp, that share a point: all have its result."""
    return WARP if search == "wide" else 1


@functools.cache
def signed_function(sign: str, search: str) -> Any:
    """Return the ``wp.func`` (scene, p, radius) -> signed distance; UNBOUNDED: none within it."""
    nearest, side = _SEARCHES[search], _SIDES[sign]

    @wp.func
    def signed(scene: Scene, p: wp.vec3, radius: float) -> float:
        face = nearest(scene, p, radius)
        if face < 0:
            return UNBOUNDED
        closest = closest_on_mesh(scene.mesh, face, p)
        return float(wp.length(closest.offset)) * side(scene, p, face, closest)

    return signed


@functools.cache
def query_kernel(sign: str, search: str) -> wp.Kernel:
    """Return the kernel of a query with a sign method and a search."""
    signed, n_lanes = signed_function(sign, search), lanes(search)
    constant_in_balls = sign == "normal"

    @wp.kernel(module="unique", module_options=module_options())
    def signed_distance(
        begin: int,
        # in
        scene: Scene,
        points: wp.array(dtype=wp.vec3),  # [n]
        order: wp.array(dtype=int),  # [n], or empty: as they are
        max_distance: float,
        # out
        distance: wp.array(dtype=float),  # [n]
    ):
        """Distance to the mesh, negative inside, cut to +-max_distance."""
        item = begin + wp.tid()
        i = item / n_lanes
        if order.shape[0] > 0:
            i = order[i]
        p = points[i]
        radius = wp.min(reach(scene, p), max_distance)
        d = float(UNBOUNDED)
        if wp.static(constant_in_balls) and scene.n_cells > 0:
            # no surface cuts a ball smaller than its centre's distance: one sign in it
            b = ball(scene, p)
            if wp.abs(b[0]) - b[1] * 1.00001 - 1.0e-6 > max_distance:
                d = b[0]
        if wp.abs(d) >= UNBOUNDED:
            d = signed(scene, p, radius)
        if wp.abs(d) >= UNBOUNDED:
            d = signed(scene, p, reach(scene, p))
        if item % n_lanes == 0:
            distance[i] = wp.clamp(d, -max_distance, max_distance)

    return signed_distance


@wp.func
def spread_bits(v: wp.uint32) -> wp.uint32:
    """Put two zeros before each of the lower ten bits."""
    a = (v | (v << wp.uint32(16))) & wp.uint32(0x030000FF)
    a = (a | (a << wp.uint32(8))) & wp.uint32(0x0300F00F)
    a = (a | (a << wp.uint32(4))) & wp.uint32(0x030C30C3)
    return (a | (a << wp.uint32(2))) & wp.uint32(0x09249249)


@wp.kernel
def morton_codes(
    begin: int,
    # in
    points: wp.array(dtype=wp.vec3),  # [n]
    # out
    codes: wp.array(dtype=wp.uint16),  # [n], of a grid of 32^3 cells
):
    """Interleave the bits of the cell's indices: neighbours walk the same branches of the tree."""
    i = begin + wp.tid()
    code = wp.uint32(0)
    for d in range(3):
        cell = wp.clamp(int(points[i][d] * 32.0), 0, 31)
        code = code | (spread_bits(wp.uint32(cell)) << wp.uint32(d))
    codes[i] = wp.uint16(code)
