"""Real spherical harmonics of blocked directions, as polynomials of their coordinates.

With d = 2 x - 1, row l^2 + l + m is N_lm p_lm(d_z) times the real (m >= 0) or imaginary (m < 0)
part of (d_x + i d_y)^|m|, where p_lm is the associated Legendre function with the sign (-1)^m of
Condon and Shortley, without its factor (1 - z^2)^(m/2) (Abramowitz and Stegun 1964, section 8.5).
These are tiny-cuda-nn's polynomials row by row and sign by sign, off the unit sphere too; those of
kernels/spherical_harmonics.py are the same, of rays' directions in -1 to 1.

Differentiable in x, twice: derivatives of powers of d_x + i d_y are lower powers, p' and p'' follow
p's recurrence. Twin: tests/reference/harmonics.py. One text, without loops, serves 16 points of a
block (CPU) and one point (CUDA).
"""

import functools
from collections.abc import Callable

import warp as wp

from ngp_warp.kernels.spherical_harmonics import norm
from ngp_warp.kernels.vector import on_both
from ngp_warp.launch import module_options

# (m, first) to text: at each power, before its bands; (l, m, N) at each band
_Powers = Callable[[int], str]
_Bands = Callable[[int, int, str], str]


def _walk(n_bands: int, n_slopes: int, begin: _Powers, each: _Bands, end: _Powers) -> str:
    """Return the text that visits all rows: p0 is p, p1 p', p2 p'' as far as n_slopes goes.

    r0 + i s0 is (x + i y)^m, r1 + i s1 the power before, r2 + i s2 the one before that.
    """
    lines = [
        "v16 r0 = (v16)(1.f), s0 = (v16)(0.f), r1 = s0, s1 = s0, r2 = s0, s2 = s0;",
        *(f"v16 p{i}, q{i}, t{i};" for i in range(n_slopes + 1)),
    ]
    diagonal = 1.0
    for m in range(n_bands):
        lines += [f"p{i} = (v16)({diagonal if i == 0 else 0.0:.8e}f);" for i in range(n_slopes + 1)]
        lines += [f"q{i} = (v16)(0.f);" for i in range(n_slopes + 1)]
        lines.append(begin(m))
        for band in range(m, n_bands):
            lines.append(each(band, m, f"{norm(band, m):.8e}f"))
            if band + 1 < n_bands:
                a, b = (2 * band + 1) / (band + 1 - m), (band + m) / (band + 1 - m)
                for i in range(n_slopes + 1):
                    lower = f" + {i * a:.8e}f * p{i - 1}" if i else ""
                    lines.append(f"t{i} = {a:.8e}f * z * p{i} - {b:.8e}f * q{i}{lower};")
                lines += [f"q{i} = p{i}; p{i} = t{i};" for i in range(n_slopes + 1)]
        lines.append(end(m))
        diagonal *= -(2 * m + 1)
        lines.append("r2 = r1; s2 = s1; r1 = r0; s1 = s0;")
        lines.append("r0 = r1 * x - s1 * y; s0 = r1 * y + s1 * x;")
    return "\n".join(lines)


def _snippet(n_bands: int, before: str, walk: str, after: str) -> str:
    return on_both(f"""
const float* X = x_in.data + (size_t)block * 96 + offset;
const v16 x = *(const v16*)X * 2.f - 1.f, y = *(const v16*)(X + 32) * 2.f - 1.f;
const v16 z = *(const v16*)(X + 64) * 2.f - 1.f;
const size_t row = (size_t)block * {n_bands**2 * 32} + offset;
{before}
{{
{walk}
}}
{after}""")


def _row(array: str, band: int, m: int) -> str:
    return f"*(v16*)({array}.data + row + {(band * band + band + m) * 32})"


@functools.cache
def forward_kernel(n_bands: int) -> wp.Kernel:
    """Return the kernel of the harmonics."""

    def each(band: int, m: int, n: str) -> str:
        text = f"{_row('rows', band, m)} = p0 * {n} * r0;"
        return text + (f"{_row('rows', band, -m)} = p0 * {n} * s0;" if m else "")

    walk = _walk(n_bands, 0, lambda m: "", each, lambda m: "")

    @wp.func_native(_snippet(n_bands, "", walk, ""))
    def encode_item(x_in: wp.array[float], item: int, rows: wp.array[float]): ...

    @wp.kernel(module="unique", module_options=module_options())
    def harmonics_forward(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, 3, 32], directions as (d + 1) / 2
        # out
        y: wp.array[float],  # [n_blocks, n_bands^2, 32]
    ):
        """All harmonics of a direction."""
        encode_item(x, begin + wp.tid(), y)

    return harmonics_forward


def _sums(n_slopes: int) -> tuple[_Powers, _Bands]:
    """Return the text that sums p, p', p'' times N dy over the bands of a power, in a_i and b_i."""

    def begin(m: int) -> str:
        zeros = ", ".join(f"a{i} = (v16)(0.f), b{i} = a{i}" for i in range(n_slopes + 1))
        return f"{{ v16 {zeros};"

    def each(band: int, m: int, n: str) -> str:
        lines = [f"{{ const v16 w = {_row('dy', band, m)} * {n};"]
        lines += [f"a{i} += p{i} * w;" for i in range(n_slopes + 1)]
        if m:
            lines.append(f"const v16 w_ = {_row('dy', band, -m)} * {n};")
            lines += [f"b{i} += p{i} * w_;" for i in range(n_slopes + 1)]
        return " ".join(lines) + " }"

    return begin, each


@functools.cache
def backward_kernel(n_bands: int) -> wp.Kernel:
    """Return the kernel of the gradient in the inputs."""
    begin, each = _sums(1)

    def end(m: int) -> str:
        return f"""
        gx += {m}.f * (a0 * r1 + b0 * s1); gy += {m}.f * (b0 * r1 - a0 * s1);
        gz += a1 * r0 + b1 * s0; }}"""

    # d is 2 x - 1
    after = """
float* D = dx.data + (size_t)block * 96 + offset;
*(v16*)D = gx * 2.f; *(v16*)(D + 32) = gy * 2.f; *(v16*)(D + 64) = gz * 2.f;"""
    before = "v16 gx = (v16)(0.f), gy = gx, gz = gx;"

    @wp.func_native(_snippet(n_bands, before, _walk(n_bands, 1, begin, each, end), after))
    def differentiate_item(
        x_in: wp.array[float], dy: wp.array[float], item: int, dx: wp.array[float]
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def harmonics_backward(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, 3, 32], directions as (d + 1) / 2
        dy: wp.array[float],  # [n_blocks, n_bands^2, 32]
        # out
        dx: wp.array[float],  # [n_blocks, 3, 32]
    ):
        """dx = sum of dy times the harmonics' gradients."""
        differentiate_item(x, dy, begin + wp.tid(), dx)

    return harmonics_backward


@functools.cache
def second_order_kernel(n_bands: int) -> wp.Kernel:
    """Return the kernel of the gradients of <v, dx>; either result may be None."""
    begin, sums = _sums(2)

    def each(band: int, m: int, n: str) -> str:
        rows = f"{_row('d_dy', band, m)} = {n} * (p0 * along_r + p1 * vz * r0);"
        if m:
            rows += f"{_row('d_dy', band, -m)} = {n} * (p0 * along_s + p1 * vz * s0);"
        return f"if (d_dy.data) {{ {rows} }}\n{sums(band, m, n)}"

    def first(m: int) -> str:
        # derivatives along (vx, vy) of the two parts of the power
        return f"""{begin(m)}
        const v16 along_r = {m}.f * (vx * r1 - vy * s1), along_s = {m}.f * (vx * s1 + vy * r1);"""

    def end(m: int) -> str:
        return f"""
        const v16 xx = {m * (m - 1)}.f * (a0 * r2 + b0 * s2);
        const v16 xy = {m * (m - 1)}.f * (b0 * r2 - a0 * s2);
        const v16 xz = {m}.f * (a1 * r1 + b1 * s1), yz = {m}.f * (b1 * r1 - a1 * s1);
        gx += xx * vx + xy * vy + xz * vz; gy += xy * vx - xx * vy + yz * vz;
        gz += xz * vx + yz * vy + (a2 * r0 + b2 * s0) * vz; }}"""

    before = """
const float* V = v_in.data + (size_t)block * 96 + offset;
const v16 vx = *(const v16*)V * 2.f, vy = *(const v16*)(V + 32) * 2.f;
const v16 vz = *(const v16*)(V + 64) * 2.f;
v16 gx = (v16)(0.f), gy = gx, gz = gx;"""
    after = """
if (dx.data) {
    float* D = dx.data + (size_t)block * 96 + offset;
    *(v16*)D = gx * 2.f; *(v16*)(D + 32) = gy * 2.f; *(v16*)(D + 64) = gz * 2.f;
}"""

    @wp.func_native(_snippet(n_bands, before, _walk(n_bands, 2, first, each, end), after))
    def differentiate_twice(
        x_in: wp.array[float],
        dy: wp.array[float],
        v_in: wp.array[float],
        item: int,
        d_dy: wp.array[float],
        dx: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def harmonics_second_order(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, 3, 32], directions as (d + 1) / 2
        dy: wp.array[float],  # [n_blocks, n_bands^2, 32]
        v: wp.array[float],  # [n_blocks, 3, 32]
        # out
        d_dy: wp.array[float],  # [n_blocks, n_bands^2, 32]
        dx: wp.array[float],  # [n_blocks, 3, 32]
    ):
        """d_dy = J v; dx = (sum of dy times the harmonics' Hessians) v."""
        differentiate_twice(x, dy, v, begin + wp.tid(), d_dy, dx)

    return harmonics_second_order
