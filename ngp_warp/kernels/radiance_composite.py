"""C++ text of the fused radiance field on the CPU: transmittance, compositing, loss, gradients.

Source: Max 1995 (emission and absorption), Mueller et al. 2022, appendix E; Barron et al. 2022,
equation 15 (distortion). Differentiable in colours, thicknesses and backgrounds. Twin:
tests/reference/composite.py. CUDA: kernels/composite.py.

With thickness s_j, E_j = exp(-s_j), T_j the transmittance before sample j, its weight is
w_j = T_j (1 - E_j). Where G_j is the gradient of the loss in w_j and G_b that in the transmittance
behind the last sample, the gradient in s_j is T_{j+1} G_j - sum_{k > j} w_k G_k - T_end G_b.
"""

from ngp_warp.kernels.loss import LOSSES
from ngp_warp.kernels.occupancy import MAX_THRESHOLD

# Rays go on where they are neither opaque nor at their end.
_TRANSMIT = """
for (int s = seg0; s < n_seg; ++s) {
    const int r = seg_ray[s], start = seg_start[s], n = seg_n[s];
    if (rdrop[r]) { seg_n[s] = 0; continue; }
    float T = rtrans[r];
    int j = 0;
    for (; j < n && T >= min_transmittance; ++j) {
        const float after = T * se[start + j];
        sw[start + j] = T - after;
        stafter[start + j] = after;
        T = after;
        MEET
    }
    rtrans[r] = T;
    seg_n[s] = j;
    if (T < min_transmittance) rend[r] = -1.f;
    if (rhead[r] < 0) rhead[r] = s; else seg_next[rtail[r]] = s;
    rtail[r] = s;
}
{
    int n = 0;
    for (int a = 0; a < n_active; ++a) if (rend[ract[a]] >= 0.f) ract[n++] = ract[a];
    n_active = n;
}
"""

# Tells the occupancy grid of dense cells; chunks that do so at once write the same.
_MEET = (
    "if (sod[start + j] * min_step > MAX_THRESHOLD * sdt(st[start + j]))"
    " met.data[scell[start + j]] = 1;"
)


def transmit_text(*, meet: bool) -> str:
    """Return the text of the light that passes a round's samples.

    Args:
        meet: note cells where the shortest step would be thicker than MAX_THRESHOLD.
    """
    text = _MEET.replace("MAX_THRESHOLD", f"{MAX_THRESHOLD!r}f") if meet else ""
    return _TRANSMIT.replace("MEET", text)


# A ray's kept samples one after another, from the segments of its rounds.
KEPT = """
nk = 0;
for (int r = 0; r < nr; ++r) {
    koff[r] = nk;
    for (int s = rhead[r]; s >= 0; s = seg_next[s])
        for (int j = 0; j < seg_n[s]; ++j) { kidx[nk] = seg_start[s] + j; kray[nk] = r; ++nk; }
}
koff[nr] = nk;
n_kept += nk;
"""

# Rendering keeps nothing: the segments of this round are in the rays' order.
KEPT_ROUND = """
nk = 0;
for (int s = seg0; s < n_seg; ++s) for (int j = 0; j < seg_n[s]; ++j) {
    kidx[nk] = seg_start[s] + j; kray[nk] = seg_ray[s]; ++nk;
}
n_kept += nk;
const int n_round = nk;
"""

SUM = """
for (int j = 0; j < N_SUMMED; ++j) {
    const int r = kray[j], s = kidx[j];
    const float w = sw[s];
    const float* C = krgb + (j >> 5) * 96 + (j & 31);
    rc[r] += w * C[0]; rc[CR + r] += w * C[32]; rc[2 * CR + r] += w * C[64];
    rdepth[r] += w * st[s];
}
"""

WRITE = """
for (int r = 0; r < nr; ++r) {
    const int q = ray0 + r;
    opacity.data[q] = 1.f - rtrans[r];
    depth.data[q] = rdepth[r];
    n_samples.data[q] = rdrop[r] ? -1 : rn[r];
    for (int k = 0; k < 3; ++k)
        color.data[q * 3 + k] = rshown[k * CR + r];
}
"""

_DECODE = {
    "srgb": (
        "v16 x = vmax(p, (v16)(0.f)); v16 low = x * (1.f / 12.92f);"
        "v16 up = vexp(vlog(vmax(x, (v16)(0.04045f)) * (1.f / 1.055f) + 0.055f / 1.055f) * 2.4f);"
        "v16 linear = x <= 0.04045f ? low : up;"
        "v16 d_linear = p <= 0.f ? (v16)(0.f) : x <= 0.04045f ? (v16)(1.f / 12.92f)"
        "    : 2.4f / 1.055f * up / (vmax(x, (v16)(0.04045f)) * (1.f / 1.055f) + 0.055f / 1.055f);"
    ),
    "linear": "v16 linear = p, d_linear = (v16)(1.f);",
}
_ENCODE = {
    "srgb": (
        "v16 big = vmax(light, (v16)(0.0031308f)); v16 root = vexp(vlog(big) * (1.f / 2.4f));"
        "v16 shown = light <= 0.0031308f ? light * 12.92f : 1.055f * root - 0.055f;"
        "v16 d_shown = light <= 0.0031308f ? (v16)(12.92f) : 1.055f / 2.4f * root / big;"
    ),
    "linear": "v16 shown = light, d_shown = (v16)(1.f);",
}

# Loss and gradients of 16 rays at a time; rays of weight 0 and those given up count for nothing.
_LOSS = """
const float per_value = n_rays > 0 ? 1.f / (3.f * n_rays) : 0.f;
auto loss_of = [&](v16 p, v16 t) __attribute__((always_inline)) {
    v16 d = p - t; (void)d; return VALUE;
};
auto slope_of = [&](v16 p, v16 t) __attribute__((always_inline)) {
    v16 d = p - t; (void)d; return GRADIENT;
};
DEPTH_COUNT
for (int i = 0; i < nr; i += 16) {
    const i16 inside = LANES + i < nr;
    const i16 ray = ray0 + (inside ? LANES + i : (i16)(nr - 1));
    const v16 T = *(const v16*)(rtrans + i);
    v16 w = gather(weight.data, ray);
    w = (inside & (*(const i16*)(rdrop + i) == 0)) ? w : (v16)(0.f);
    v16 total = (v16)(0.f), squares = (v16)(0.f), behind = (v16)(0.f);
    for (int k = 0; k < 3; ++k) {
        const v16 B = gather(background.data, ray * 3 + k), t = gather(target.data, ray * 3 + k);
        const v16 p = *(const v16*)(rc + k * CR + i) + T * B;
        EXPOSE
        total += w * loss_of(shown_, t) * (1.f / 3.f);
        squares += w != 0.f ? (shown_ - t) * (shown_ - t) : (v16)(0.f);
        const v16 g_shown = w * slope_of(shown_, t) * per_value;
        const v16 g = g_shown * d_p;
        behind += g * B;
        *(v16*)(rg + k * CR + i) = g;
        *(v16*)(rshown + k * CR + i) = shown_;
        DEXPOSURE
        DBACKGROUND
    }
    DEPTH
    *(v16*)(rgb_behind + i) = behind;
    *(v16*)(rloss + i) = total;
    *(v16*)(rsquares + i) = squares;
}
for (int r = 0; r < nr; ++r) {
    loss.data[(ray0 + r) * 2] = rloss[r];
    loss.data[(ray0 + r) * 2 + 1] = rsquares[r];
}
"""

_EXPOSE = """
        const v16 stops = gather(exposure.data, ray * 3 + k);
        DECODE
        const v16 light = linear * vexp(stops * 0.69314718f);
        ENCODE
        const v16 shown_ = shown, d_p = d_shown * vexp(stops * 0.69314718f) * d_linear;
"""
_DEXPOSURE = """
        const v16 d_stops = g_shown * d_shown * light * 0.69314718f;
        for (int l = 0; l < 16 && i + l < nr; ++l)
            d_exposure.data[(ray0 + i + l) * 3 + k] = d_stops[l];
"""
_DBACKGROUND = """
        for (int l = 0; l < 16 && i + l < nr; ++l)
            d_background.data[(ray0 + i + l) * 3 + k] = (g * T)[l];
"""

# Rays with a known depth, of the whole batch: an item sums what the launch before has counted.
_DEPTH_COUNT = """
float n_depths = 0.f;
for (int c = 0; c < n_chunks; ++c) n_depths += depth_counts.data[c];
const float depth_scale = n_depths > 0.f ? depth_weight / n_depths : 0.f;
"""
_DEPTH = """
    {
        const v16 t = gather(depth_target.data, ray), D = *(const v16*)(rdepth + i);
        const i16 known = (t > 0.f) & (w != 0.f);
        const v16 e = D - t;
        const v16 value = vabs(e) < 0.1f ? 5.f * e * e : vabs(e) - 0.05f;
        const v16 slope = vabs(e) < 0.1f ? 10.f * e : sign(e);
        total += known ? depth_weight * value : (v16)(0.f);
        *(v16*)(rgdepth + i) = known ? slope * depth_scale : (v16)(0.f);
    }
"""

_SHOW = """
for (int i = 0; i < nr; i += 16) {
    const i16 ray = ray0 + (LANES + i < nr ? LANES + i : (i16)(nr - 1));
    const v16 T = *(const v16*)(rtrans + i);
    for (int k = 0; k < 3; ++k) {
        const v16 p = *(const v16*)(rc + k * CR + i) + T * gather(background.data, ray * 3 + k);
        EXPOSE
        (void)d_p;
        *(v16*)(rshown + k * CR + i) = shown_;
    }
}
"""

# From the last sample to the first.
_GRADIENT = """
for (int i = 0; i < nk * 3; ++i) kdrgb[i] = 0.f;  // the padding's stay
for (int i = 0; i < nk; ++i) kdraw[i] = 0.f;
for (int r = 0; r < nr; ++r) {
    const float g0 = rg[r], g1 = rg[CR + r], g2 = rg[2 * CR + r];
    float behind = rgb_behind[r] * rtrans[r];
    DISTORTION_BEGIN
    for (int j = koff[r + 1] - 1; j >= koff[r]; --j) {
        const int s = kidx[j];
        float* C = krgb + (j >> 5) * 96 + (j & 31);
        float* D = kdrgb + (j >> 5) * 96 + (j & 31);
        const float w = sw[s];
        float G = g0 * C[0] + g1 * C[32] + g2 * C[64];
        DEPTH
        DISTORTION
        D[0] = w * g0; D[32] = w * g1; D[64] = w * g2;
        kdraw[j] = sod[s] * (stafter[s] * G - behind);
        behind += w * G;
    }
}
"""

# sum over i, j of w_i w_j |s_i - s_j| + sum of w_i^2 delta_i / 3, with the sums of what lies before
# and behind a sample.
_DISTORTION_BEGIN = """
    const float span = rleave[r] - renter[r], per_span = span > 0.f ? 1.f / span : 0.f;
    float w_before = 0.f, ws_before = 0.f, w_behind = 0.f, ws_behind = 0.f, distortion = 0.f;
    for (int j = koff[r]; j < koff[r + 1]; ++j) {
        const float w = sw[kidx[j]], x = (st[kidx[j]] - renter[r]) * per_span;
        distortion += 2.f * w * (x * w_before - ws_before);
        distortion += w * w * sdt(st[kidx[j]]) * per_span * (1.f / 3.f);
        w_before += w; ws_before += w * x;
    }
    const bool counts = weight.data[ray0 + r] != 0.f && !rdrop[r];
    if (counts) loss.data[(ray0 + r) * 2] += distortion_weight * distortion;
    const float distortion_scale = counts ? distortion_weight * 3.f * per_value : 0.f;
"""
_DISTORTION = """
        {
            const float x = (st[s] - renter[r]) * per_span;
            w_before -= w; ws_before -= w * x;
            const float slope = 2.f * (x * w_before - ws_before + ws_behind - x * w_behind)
                + w * sdt(st[s]) * per_span * (2.f / 3.f);
            G += distortion_scale * slope;
            w_behind += w; ws_behind += w * x;
        }
"""


def _expose_text(color_space: str, *, exposure: bool) -> str:
    """Return the text from a colour p to the exposed one."""
    if not exposure:
        return "const v16 shown_ = p, d_p = (v16)(1.f);"
    return _EXPOSE.replace("DECODE", _DECODE[color_space]).replace("ENCODE", _ENCODE[color_space])


def show_text(color_space: str, *, exposure: bool) -> str:
    """Return the colours over the background, exposed: what is written."""
    return _SHOW.replace("EXPOSE", _expose_text(color_space, exposure=exposure))


def loss_text(
    loss: str,
    *,
    exposure: bool,
    color_space: str,
    background_gradients: bool,
    depth: bool,
    distortion: bool,
) -> str:
    """Return the loss of a chunk's rays and its gradients down to thicknesses and colours."""
    value, gradient = LOSSES[loss]
    expose = _expose_text(color_space, exposure=exposure)
    first = (
        _LOSS.replace("VALUE", value)
        .replace("GRADIENT", gradient)
        .replace("EXPOSE", expose)
        .replace("DEXPOSURE", _DEXPOSURE if exposure else "")
        .replace("DBACKGROUND", _DBACKGROUND if background_gradients else "")
        .replace("DEPTH_COUNT", _DEPTH_COUNT if depth else "")
        .replace("DEPTH\n", _DEPTH if depth else "")
    )
    second = (
        _GRADIENT.replace("DISTORTION_BEGIN", _DISTORTION_BEGIN if distortion else "")
        .replace("DISTORTION\n", _DISTORTION if distortion else "")
        .replace("DEPTH\n", "G += rgdepth[r] * st[s];\n" if depth else "")
    )
    return first + second
