"""The closest face of a mesh, by a tree whose nodes have 16 children on a CPU, 32 on CUDA.

Sixteen boxes, or sixteen triangles, fill one vector of AVX-512: 4 times as fast as Warp's binary
tree (measured with 100,000 faces, far from the surface and near it). On CUDA the 32 lanes of a
warp share a point, a child or a triangle each: the few points of a training step would be a lane's
long walk each, and every lane waits for the others of its warp. Both find the closest face up to
float32's rounding, but Warp's barycentrics lose a needle's closest point by up to 1e-5
(ADIS16480.STL; here 2e-8). Not differentiable. Twin: ``distance`` in tests/reference/truth.py.
Built by primitives/sdf/tree.py.
"""

import warp as wp

from ngp_warp.kernels.vector import TYPES

# a node's rows: lower corner, upper corner; a leaf's: a, the axes along ab, across it in the plane,
# and along the normal, then b's and c's places in the plane (b on the first axis), and the
# reciprocals of the squared lengths of ac and bc
NODE_ROWS, LEAF_ROWS = 6, 17

WARP = 32
"""Children of a node, and faces of a leaf, of the tree that a warp's lanes walk together."""

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
    // In the triangle's own frame each coordinate is right to float32's rounding, where
    // barycentrics of a needle are noise.
    const v16 x = ax * t[3] + ay * t[4] + az * t[5], y = ax * t[6] + ay * t[7] + az * t[8];
    const v16 height = ax * t[9] + ay * t[10] + az * t[11];
    const v16 bx = t[12], cx = t[13], cy = t[14], qx = x - bx, ex = cx - bx;
    const v16 along_ab = x - vmin(vmax(x, zero), bx);
    auto to_edge = [&](v16 ox, v16 vx, v16 scale) __attribute__((always_inline)) {{
        const v16 s = vmin(vmax((ox * vx + y * cy) * scale, zero), one);
        const v16 u = ox - s * vx, v = y - s * cy;
        return u * u + v * v;
    }};
    const v16 edge = vmin(along_ab * along_ab + y * y,
                          vmin(to_edge(x, cx, t[15]), to_edge(qx, ex, t[16])));
    const v16 inside = vmin(y, vmin(cy * x - cx * y, ex * y - cy * qx));
    *(v16*)d = height * height + (inside >= 0.f ? zero : edge);
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


_NEAREST_WIDE = f"""
#ifdef __CUDA_ARCH__
const int lane = threadIdx.x & 31;
// distances are not negative: their bits are in their order
auto least = [](float v) {{
    return __uint_as_float(__reduce_min_sync(0xffffffffu, __float_as_uint(v)));
}};
auto first_of = [](bool found) {{ return __ffs(__ballot_sync(0xffffffffu, found)) - 1; }};
const int n_leaves = leaf_faces.shape[0] - 1;
// of each level the lane's child, if it waits: 32^8 leaves
float waiting[8]; int first[8];
int level = 0, best_face = -1, node = n_leaves + first_child.shape[0] - 1;
float best = radius * radius;
for (;;) {{
    if (node >= n_leaves) {{
        const int at = node - n_leaves;
        const float* box = nodes.data + (size_t)at * {NODE_ROWS * WARP} + lane;
        const float x = fmaxf(fmaxf(box[0] - p[0], p[0] - box[{3 * WARP}]), 0.f);
        const float y = fmaxf(fmaxf(box[{WARP}] - p[1], p[1] - box[{4 * WARP}]), 0.f);
        const float z = fmaxf(fmaxf(box[{2 * WARP}] - p[2], p[2] - box[{5 * WARP}]), 0.f);
        waiting[level] = x * x + y * y + z * z;
        first[level++] = first_child.data[at];
    }} else {{
        const float* t = leaves.data + (size_t)node * {LEAF_ROWS * WARP} + lane;
        auto row = [&](int k) {{ return t[k * {WARP}]; }};
        const float ax = p[0] - row(0), ay = p[1] - row(1), az = p[2] - row(2);
        // as above: in the triangle's own frame
        const float x = ax * row(3) + ay * row(4) + az * row(5);
        const float y = ax * row(6) + ay * row(7) + az * row(8);
        const float height = ax * row(9) + ay * row(10) + az * row(11);
        const float bx = row(12), cx = row(13), cy = row(14), qx = x - bx, ex = cx - bx;
        const float along_ab = x - fminf(fmaxf(x, 0.f), bx);
        auto to_edge = [&](float ox, float vx, float scale) {{
            const float s = fminf(fmaxf((ox * vx + y * cy) * scale, 0.f), 1.f);
            const float u = ox - s * vx, v = y - s * cy;
            return u * u + v * v;
        }};
        const float edge = fminf(along_ab * along_ab + y * y,
                                 fminf(to_edge(x, cx, row(15)), to_edge(qx, ex, row(16))));
        const float inside = fminf(y, fminf(cy * x - cx * y, ex * y - cy * qx));
        const float d = height * height + (inside >= 0.f ? 0.f : edge);
        const float nearest = least(d);
        if (nearest < best) {{
            best = nearest;
            best_face = leaf_faces.data[node] + first_of(d == nearest);
        }}
    }}
    // the nearest child that waits on the deepest level
    float nearest = 0.f;
    while (level > 0) {{
        nearest = least(waiting[level - 1]);
        if (nearest < best) break;
        --level;
    }}
    if (level == 0) return best_face;
    const int k = first_of(waiting[level - 1] == nearest);
    node = first[level - 1] + k;
    if (lane == k) waiting[level - 1] = 3.0e38f;
}}
#else
return -1;
#endif
"""


@wp.func_native(_NEAREST_WIDE)
def nearest_face_wide(
    nodes: wp.array[float],
    leaves: wp.array[float],
    first_child: wp.array[int],
    leaf_faces: wp.array[int],
    p: wp.vec3,
    radius: float,
) -> int:
    """Return the same for a whole warp, whose lanes have one point; CUDA alone."""
    ...
