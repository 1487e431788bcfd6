"""The closest face of a mesh on a CPU, by a tree whose nodes have 16 children.

Sixteen boxes, or sixteen triangles, fill one vector of AVX-512: 3.5 to 4 times as fast as Warp's
binary tree (measured with 100,000 faces, far from the surface and near it), which serves CUDA.
Both find the closest face up to float32's rounding. Not differentiable. Twin: ``distance`` in
tests/reference/truth.py. Built by primitives/sdf/tree.py.
"""

import warp as wp

from ngp_warp.kernels.vector import TYPES

# a node's rows: lower corner, upper corner; a leaf's: a, b - a, c - a, reciprocals of the squared
# lengths of ab, ac, bc and of the determinant of ab and ac's products
NODE_ROWS, LEAF_ROWS = 6, 13

_NEAREST = f"""{TYPES}
auto vmax = [](v16 a, v16 b) __attribute__((always_inline)) {{
    return __builtin_elementwise_max(a, b);
}};
auto vmin = [](v16 a, v16 b) __attribute__((always_inline)) {{
    return __builtin_elementwise_min(a, b);
}};
const v16 px = p[0], py = p[1], pz = p[2], zero = 0.f, one = 1.f;
const int n_leaves = leaf_faces.shape[0] - 1;
// 15 that wait for each level of up to 8, and the newest
float stack_distance[160]; int stack_node[160];
int n_stack = 1, best_face = -1;
stack_distance[0] = 0.f; stack_node[0] = n_leaves + first_child.shape[0] - 1;
float best = radius * radius;
alignas(64) float d[16];
while (n_stack) {{
    --n_stack;
    if (stack_distance[n_stack] >= best) continue;
    const int node = stack_node[n_stack];
    if (node >= n_leaves) {{
        const v16* box = (const v16*)(nodes.data + (size_t)(node - n_leaves) * {NODE_ROWS * 16});
        const v16 x = vmax(vmax(box[0] - px, px - box[3]), zero);
        const v16 y = vmax(vmax(box[1] - py, py - box[4]), zero);
        const v16 z = vmax(vmax(box[2] - pz, pz - box[5]), zero);
        *(v16*)d = x * x + y * y + z * z;
        const int child = first_child.data[node - n_leaves], bottom = n_stack;
        for (int k = 0; k < 16; ++k) {{
            if (d[k] >= best) continue;
            // the nearest on top
            int at = n_stack++;
            for (; at > bottom && stack_distance[at - 1] < d[k]; --at) {{
                stack_distance[at] = stack_distance[at - 1];
                stack_node[at] = stack_node[at - 1];
            }}
            stack_distance[at] = d[k]; stack_node[at] = child + k;
        }}
        continue;
    }}
    const v16* t = (const v16*)(leaves.data + (size_t)node * {LEAF_ROWS * 16});
    const v16 ax = px - t[0], ay = py - t[1], az = pz - t[2];
    const v16 bx = t[3], by = t[4], bz = t[5], cx = t[6], cy = t[7], cz = t[8];
    const v16 d1 = ax * bx + ay * by + az * bz, d2 = ax * cx + ay * cy + az * cz;
    const v16 bb = bx * bx + by * by + bz * bz, cc = cx * cx + cy * cy + cz * cz;
    const v16 bc = bx * cx + by * cy + bz * cz;
    const v16 v = (cc * d1 - bc * d2) * t[12], w = (bb * d2 - bc * d1) * t[12];
    const v16 nx = by * cz - bz * cy, ny = bz * cx - bx * cz, nz = bx * cy - by * cx;
    const v16 height = ax * nx + ay * ny + az * nz;
    auto to_edge = [&](v16 ox, v16 oy, v16 oz, v16 ex, v16 ey, v16 ez, v16 share)
            __attribute__((always_inline)) {{
        const v16 s = vmin(vmax(share, zero), one);
        const v16 x = ox - s * ex, y = oy - s * ey, z = oz - s * ez;
        return x * x + y * y + z * z;
    }};
    const v16 ex = cx - bx, ey = cy - by, ez = cz - bz;
    v16 edge = vmin(to_edge(ax, ay, az, bx, by, bz, d1 * t[9]),
                    to_edge(ax, ay, az, cx, cy, cz, d2 * t[10]));
    const v16 qx = ax - bx, qy = ay - by, qz = az - bz;
    edge = vmin(edge, to_edge(qx, qy, qz, ex, ey, ez, (qx * ex + qy * ey + qz * ez) * t[11]));
    const v16 plane = height * height * t[12];
    // a foot outside has a negative weight
    *(v16*)d = vmin(vmin(v, w), one - v - w) >= 0.f ? plane : edge;
    for (int k = 0; k < 16; ++k)
        if (d[k] < best) {{
            best = d[k];
            best_face = leaf_faces.data[node] + k;
        }}
}}
return best_face;
"""


@wp.func_native(_NEAREST)
def nearest_face_vector(
    nodes: wp.array[float],
    leaves: wp.array[float],
    first_child: wp.array[int],
    leaf_faces: wp.array[int],
    p: wp.vec3,
    radius: float,
) -> int:
    """Return the closest face, or -1 if there is none within the radius."""
    ...
