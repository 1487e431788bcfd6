"""C++ text of the fused radiance field on the CPU: rays, marched 16 at a time through the cells.

Source: the march lattice and the cascades of Mueller et al. 2022, appendix E; 8^3 cells are skipped
at once where none of them is occupied, always by whole steps of the lattice. Not differentiable:
distances along rays are constants. Twin: tests/reference/march.py. CUDA: kernels/march.py.

The snippets are parts of one function's body (kernels/radiance.py), which defines the constants in
capital letters and the arrays of the chunk's scratch memory.
"""

HELPERS = """
const i16 LANES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#if defined(__AVX512F__)
typedef float g16 __attribute__((vector_size(64)));
typedef int gi16 __attribute__((vector_size(64)));
auto gather = [&](const void* base, i16 at) __attribute__((always_inline)) {
    const g16 none = (g16)(v16)(0.f);
    return (v16)__builtin_ia32_gathersiv16sf(none, base, (gi16)at, (unsigned short)-1, 4);
};
auto scatter = [&](float* base, i16 at, v16 x) __attribute__((always_inline)) {
    __builtin_ia32_scattersiv16sf(base, (unsigned short)-1, (gi16)at, (g16)x, 4);
};
#else
auto scatter = [&](float* base, i16 at, v16 x) __attribute__((always_inline)) {
    for (int l = 0; l < 16; ++l) base[at[l]] = x[l];
};
auto gather = [&](const void* base, i16 at) __attribute__((always_inline)) {
    v16 r;
    for (int l = 0; l < 16; ++l) r[l] = ((const float*)base)[at[l]];
    return r;
};
#endif
auto gather_int = [&](const void* base, i16 at) __attribute__((always_inline)) {
    return __builtin_bit_cast(i16, gather(base, at));
};
"""

# The box around all occupied coarse cells: rays are marched inside of it alone. It is a little
# larger, so that rounding leaves no sample out.
BOUNDS = """
float bound_low[3] = {2.f, 2.f, 2.f}, bound_high[3] = {-1.f, -1.f, -1.f};
for (int c = 0; c < N_CASCADES; ++c) {
    int low[3] = {16, 16, 16}, high[3] = {-1, -1, -1};
    const unsigned char* blocks = occupied.data + N_CASCADES * 262144 + c * 4096;
    unsigned char columns[16] = {};
    for (int row = 0; row < 256; ++row) {
        unsigned char any = 0;
        for (int x = 0; x < 16; ++x) {
            any |= blocks[row * 16 + x];
            columns[x] |= blocks[row * 16 + x];
        }
        if (!any) continue;
        const int y = row & 15, z = row >> 4;
        low[1] = y < low[1] ? y : low[1]; high[1] = y > high[1] ? y : high[1];
        low[2] = z < low[2] ? z : low[2]; high[2] = z > high[2] ? z : high[2];
    }
    for (int x = 0; x < 16; ++x) if (columns[x]) {
        low[0] = x < low[0] ? x : low[0]; high[0] = x;
    }
    const float side = (float)(1 << c) / AABB;
    for (int k = 0; k < 3; ++k) {
        const float a = 0.5f + (low[k] / 16.f - 0.5f) * side - 1e-5f;
        const float b = 0.5f + ((high[k] + 1) / 16.f - 0.5f) * side + 1e-5f;
        if (high[0] < 0) continue;
        bound_low[k] = a < bound_low[k] ? a : bound_low[k];
        bound_high[k] = b > bound_high[k] ? b : bound_high[k];
    }
}
"""

# A lane of no ray begins behind its end. Directions of zero would give 0 * infinity.
_SETUP = """
const int n_rays = count.data[0] < 0 ? 0 : count.data[0] > capacity ? capacity : count.data[0];
const int ray0 = (int)((long long)n_rays * chunk / n_chunks);
const int nr = (int)((long long)n_rays * (chunk + 1) / n_chunks) - ray0;
for (int i = 0; i < nr; ++i) {
    const float *O = origin.data + (size_t)(ray0 + i) * 3;
    const float *D = direction.data + (size_t)(ray0 + i) * 3;
    for (int k = 0; k < 3; ++k) { ro[k * CR + i] = O[k]; rd[k * CR + i] = D[k]; }
    rjit[i] = weight.data[ray0 + i] > 0.f ? jitter.data[ray0 + i] : -1.f;
}
for (int i = nr; i < ((nr + 15) & ~15); ++i) {
    for (int k = 0; k < 3; ++k) { ro[k * CR + i] = 0.f; rd[k * CR + i] = 0.f; }
    rjit[i] = -1.f;
}
const float inverse_step = 1.f / min_step, slack = 0.01f + 4e-7f * inverse_step;
auto step_at = [&](v16 t) __attribute__((always_inline)) {
    return CONE ? vmin(vmax(t * cone_angle, (v16)(min_step)), (v16)(max_step)) : (v16)(min_step);
};
for (int i = 0; i < nr; i += 16) {
    v16 enter = (v16)(near), leave = (v16)(1e30f), first_t = (v16)(0.f), last_t = (v16)(1e30f);
    for (int k = 0; k < 3; ++k) {
        const v16 o = *(const v16*)(ro + k * CR + i), d = *(const v16*)(rd + k * CR + i);
        const v16 q = 1.f / (vabs(d) < 1e-12f ? (v16)(1e-12f) : d);
        const v16 a = (0.f - o) * q, b = (1.f - o) * q;
        enter = vmax(enter, vmin(a, b)); leave = vmin(leave, vmax(a, b));
        const v16 a2 = (bound_low[k] - o) * q, b2 = (bound_high[k] - o) * q;
        first_t = vmax(first_t, vmin(a2, b2)); last_t = vmin(last_t, vmax(a2, b2));
        *(v16*)(rq + k * CR + i) = q;
    }
    const v16 j = *(const v16*)(rjit + i);
    const i16 none = j < 0.f;
    const v16 t0 = enter + j * step_at(enter);
    *(v16*)(rbegin + i) = t0;
    const v16 end = vmin(leave, last_t);
    *(v16*)(rend + i) = (none | (first_t >= last_t)) ? (v16)(-1.f) : end;
    *(v16*)(renter + i) = enter;
    *(v16*)(rleave + i) = leave;
    *(v16*)(rtrans + i) = (v16)(1.f);
    BEGIN
    *(i16*)(rn + i) = (i16)(0);
    *(i16*)(rhead + i) = (i16)(-1);
    *(i16*)(rdrop + i) = (i16)(0);
    for (int k = 0; k < 3; ++k) *(v16*)(rc + k * CR + i) = (v16)(0.f);
    *(v16*)(rdepth + i) = (v16)(0.f);
}
int n_active = 0;
for (int i = 0; i < nr; ++i) if (BEGINS < rend[i]) ract[n_active++] = i;
"""

_BEGIN_EVEN = """
    const v16 skipped = __builtin_elementwise_ceil((first_t - t0) * inverse_step - slack);
    *(v16*)(rk + i) = vmin(vmax(skipped, (v16)(0.f)), (v16)(1e6f));
"""
_BEGIN_CONE = """
    v16 t = t0;
    for (;;) {
        // a lane of no ray may seem to begin where a step is less than a float's last place
        const i16 before = ~none & (t < first_t - step_at(t) * slack) & (t < end);
        if (!__builtin_reduce_or(before)) break;
        t = before ? t + step_at(t) : t;
    }
    *(v16*)(rk + i) = t;
"""


def setup_text(cone: bool) -> str:
    """Return the text that finds where a chunk's rays begin and end, and lists those that do."""
    begins = "rk[i]" if cone else "rbegin[i] + rk[i] * min_step"
    text = _SETUP.replace("BEGINS", begins)
    return BOUNDS + text.replace("BEGIN\n", _BEGIN_CONE if cone else _BEGIN_EVEN)


# Cell and coarse cell of a position, and how many cells lie along a unit length. The cascade is the
# least c with 2^c >= v, read from the float's exponent.
_CELLS = """
    const v16 dt = step_at(t);
    v16 p0 = o0 + t * d0, p1 = o1 + t * d1, p2 = o2 + t * d2;
    v16 per = (v16)(128.f * AABB);
    i16 cascade = (i16)(0);
    if (N_CASCADES > 1) {
        const v16 far = vmax(vmax(vabs(p0 - 0.5f), vabs(p1 - 0.5f)), vabs(p2 - 0.5f));
        const v16 v = vmax(far * (2.f * AABB), dt * (128.f * AABB));
        const i16 bits_v = __builtin_bit_cast(i16, v);
        cascade = (bits_v >> 23) - 127 - ((bits_v & 0x7fffff) != 0);
        cascade = __builtin_elementwise_min(__builtin_elementwise_max(cascade, (i16)(0)),
                                            (i16)(N_CASCADES - 1));
        per *= __builtin_bit_cast(v16, (127 - cascade) << 23);
    }
    const v16 x0 = (p0 - 0.5f) * per + 64.f, x1 = (p1 - 0.5f) * per + 64.f;
    const v16 x2 = (p2 - 0.5f) * per + 64.f;
    const v16 top = (v16)(127.f), zero = (v16)(0.f);
    const i16 c0 = __builtin_convertvector(vmin(vmax(x0, zero), top), i16);
    const i16 c1 = __builtin_convertvector(vmin(vmax(x1, zero), top), i16);
    const i16 c2 = __builtin_convertvector(vmin(vmax(x2, zero), top), i16);
    const i16 cell = c0 + (c1 << 7) + (c2 << 14) + (cascade << 21);
    const i16 coarse = (c0 >> 3) + ((c1 >> 3) << 4) + ((c2 >> 3) << 8) + (cascade << 12);
    const i16 word = gather_int(occupied.data, cell >> 5);
    const i16 bytes = gather_int(occupied.data + N_CASCADES * 262144, coarse >> 2);
    const i16 hit = ((word >> (cell & 31)) & 1) != 0;
    const i16 empty8 = ((bytes >> ((coarse & 3) * 8)) & 255) == 0;
"""

# Steps to the cell's exit. A hundredth of a step is kept back, so that rounding never skips a
# sample of the next cell; it costs a further look at times.
_SKIP = """
    const v16 size = empty8 ? (v16)(8.f) : (v16)(1.f);
    const i16 low = empty8 ? (i16)(~7) : (i16)(-1);
    auto leave_at = [&](v16 x, i16 c, v16 d, v16 q) __attribute__((always_inline)) {
        const v16 b = __builtin_convertvector(c & low, v16);
        return ((d > 0.f ? b + size : b) - x) * q;
    };
    const v16 s = vmin(vmin(leave_at(x0, c0, d0, q0), leave_at(x1, c1, d1, q1)),
                       leave_at(x2, c2, d2, q2)) / per;
"""

_ADVANCE_EVEN = """
    // the largest float that an int holds is far beyond any ray's steps
    v16 steps = __builtin_elementwise_ceil(vmin(s * inverse_step, (v16)(1e6f)) - slack);
    k += live ? (hit ? (v16)(1.f) : vmax(steps, (v16)(1.f))) : (v16)(0.f);
    t = t0 + k * min_step;
"""

# A cascade that grows with the step ends a skip, for the coarser cell may be occupied.
_ADVANCE_CONE = """
    const v16 goal = t + s - dt * slack, cell_side = 1.f / per;
    i16 going = live;
    do {
        k = going ? k + step_at(k) : k;
        going = going & ~hit & (k < goal);
        if (N_CASCADES > 1)
            going = going & ((step_at(k) <= cell_side) | (cascade == N_CASCADES - 1));
    } while (__builtin_reduce_or(going));
    t = k;
"""

MARCH = """
auto march = [&](const int* ids, int n_ids, int most, float* found, i16& n, i16& ended)
    __attribute__((always_inline)) {
    const i16 id = *(const i16*)ids;
    const v16 o0 = gather(ro, id), o1 = gather(ro + CR, id), o2 = gather(ro + 2 * CR, id);
    const v16 d0 = gather(rd, id), d1 = gather(rd + CR, id), d2 = gather(rd + 2 * CR, id);
    const v16 q0 = gather(rq, id), q1 = gather(rq + CR, id), q2 = gather(rq + 2 * CR, id);
    const v16 t0 = gather(rbegin, id), end = gather(rend, id);
    v16 k = gather(rk, id), t = CONE ? k : t0 + k * min_step;
    const i16 before = gather_int(rn, id);
    const i16 limit = __builtin_elementwise_min((i16)(most), MAX_SAMPLES - before);
    n = (i16)(0);
    i16 live = (LANES < n_ids) & (t < end);
    while (__builtin_reduce_or(live)) {
        CELLS
        const i16 taken = live & hit;
        if (__builtin_reduce_or(taken)) {
            // lanes without a hit write too: where their next one will go
            scatter(found, n * 16 + LANES, t);
            NOTE_CELL
            n -= taken;
        }
        SKIP
        ADVANCE
        live = live & (t < end) & (n < limit);
    }
    ended = ~((t < end) & (before + n < MAX_SAMPLES));
    for (int l = 0; l < n_ids; ++l) rk[ids[l]] = k[l];
};
"""


def march_text(*, cone: bool, cells: bool) -> str:
    """Return the text of ``march``: the next ``most`` samples of up to 16 rays.

    Args:
        cone: steps grow with the distance.
        cells: note the samples' cells, too.
    """
    advance = _ADVANCE_CONE if cone else _ADVANCE_EVEN
    note = "scatter(found_cell, n * 16 + LANES, __builtin_bit_cast(v16, cell));" if cells else ""
    return (
        MARCH.replace("CELLS\n", _CELLS, 1)
        .replace("NOTE_CELL", note)
        .replace("SKIP\n", _SKIP)
        .replace("ADVANCE\n", advance)
    )


# The samples of a round, ray after ray: distances, rays, then positions in blocks. A ray whose
# samples do not fit is given up and counted, alike for any number of threads.
_ROUND = """
const int first = ns;
const int seg0 = n_seg;
const int most = n_active >= 32 ? ROUND : 256 / n_active < LONGEST ? 256 / n_active : LONGEST;
for (int i = n_active; i < ((n_active + 15) & ~15); ++i) ract[i] = 0;
for (int a = 0; a < n_active; a += 16) {
    const int n_ids = n_active - a < 16 ? n_active - a : 16;
    i16 n, ended;
    march(ract + a, n_ids, most, found, n, ended);
    for (int l = 0; l < n_ids; ++l) {
        const int r = ract[a + l], m = n[l];
        if (ended[l]) rend[r] = -1.f;
        if (m == 0) continue;
        if (ns + m > CS) { rend[r] = -1.f; rdrop[r] = 1; rhead[r] = -1; ++n_dropped; continue; }
        rn[r] += m;
        seg_ray[n_seg] = r; seg_start[n_seg] = ns; seg_n[n_seg] = m; seg_next[n_seg] = -1;
        ++n_seg;
        for (int j = 0; j < m; ++j) { st[ns + j] = found[j * 16 + l]; sr[ns + j] = r; }
        KEEP_CELLS
        ns += m;
    }
}
n_marched += ns - first;
while (ns & 31) { st[ns] = 0.f; sr[ns] = 0; ++ns; }
for (int i = first; i < ns; i += 16) {
    const i16 r = *(const i16*)(sr + i);
    const v16 t = *(const v16*)(st + i);
    for (int k = 0; k < 3; ++k) {
        const v16 o = gather(ro + k * CR, r), d = gather(rd + k * CR, r);
        *(v16*)(sx + (i >> 5) * 96 + k * 32 + (i & 31)) = o + t * d;
    }
}
"""


def round_text(*, cells: bool) -> str:
    """Return the text of a round; with ``cells``, it also gathers the samples' cells."""
    keep = "for (int j = 0; j < m; ++j) scell[ns + j] = ((const int*)found_cell)[j * 16 + l];"
    return _ROUND.replace("KEEP_CELLS", keep if cells else "")
