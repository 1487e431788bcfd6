"""What the emulated device's instructions compute, against what the PTX ISA says."""

import numpy as np
import pytest

from tests.emulator_case import A32, B32, RNG, N, X, Y, Z, each

A64, B64 = (RNG.integers(-(2**62), 2**62, N) for _ in range(2))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("add.s32 %r19, %r11, %r12;", lambda a, b: (a + b) & 0xFFFFFFFF),
        ("sub.s32 %r19, %r11, %r12;", lambda a, b: (a - b) & 0xFFFFFFFF),
        ("mul.lo.s32 %r19, %r11, %r12;", lambda a, b: (a * b) & 0xFFFFFFFF),
        ("mul.hi.s32 %r19, %r11, %r12;", lambda a, b: (a * b) >> 32),
        ("div.s32 %r19, %r11, %r12;", lambda a, b: abs(a) // abs(b) * (1 if a * b > 0 else -1)),
        ("rem.s32 %r19, %r11, %r12;", lambda a, b: abs(a) % abs(b) * (1 if a > 0 else -1)),
        ("div.u32 %r19, %r11, %r12;", lambda a, b: (a % 2**32) // (b % 2**32)),
        ("shr.s32 %r19, %r11, 7;", lambda a, b: a >> 7),
        ("shr.u32 %r19, %r11, 7;", lambda a, b: (a % 2**32) >> 7),
        ("shr.s32 %r19, %r11, 40;", lambda a, b: -1 if a < 0 else 0),
        ("shl.b32 %r19, %r11, 32;", lambda a, b: 0),
        ("shf.l.wrap.b32 %r19, %r11, %r12, 5;", lambda a, b: (b << 5) | ((a % 2**32) >> 27)),
        ("bfi.b32 %r19, %r11, %r12, 4, 9;", lambda a, b: (b & ~(511 << 4)) | ((a & 511) << 4)),
        ("mad.lo.s32 %r19, %r11, %r12, 5;", lambda a, b: a * b + 5),
        ("min.u32 %r19, %r11, %r12;", lambda a, b: min(a % 2**32, b % 2**32)),
        ("not.b32 %r19, %r11;", lambda a, b: ~a),
        ("popc.b32 %r19, %r11;", lambda a, b: (a % 2**32).bit_count()),
        ("clz.b32 %r19, %r11;", lambda a, b: 32 - (a % 2**32).bit_length()),
        ("bfind.u32 %r19, %r11;", lambda a, b: (a % 2**32).bit_length() - 1),
        ("bfind.shiftamt.u32 %r19, %r11;", lambda a, b: 32 - (a % 2**32).bit_length()),
        ("brev.b32 %r19, %r11;", lambda a, b: int(f"{a % 2**32:032b}"[::-1], 2)),
        (
            "setp.lt.u32 %p1, %r11, %r12; selp.b32 %r19, 3, 4, %p1;",
            lambda a, b: 3 if a % 2**32 < b % 2**32 else 4,
        ),
    ],
)
def test_integers(text, wanted):
    found = each(text, np.int32, A32, B32)
    exact = [wanted(int(a), int(b)) % 2**32 for a, b in zip(A32, B32, strict=True)]
    assert found.view(np.uint32).tolist() == exact


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("mul.lo.s64 %rd19, %rd11, %rd12;", lambda a, b: a * b),
        ("mul.hi.u64 %rd19, %rd11, %rd12;", lambda a, b: (a % 2**64) * (b % 2**64) >> 64),
        ("shr.s64 %rd19, %rd11, 33;", lambda a, b: a >> 33),
        ("rem.s64 %rd19, %rd11, %rd12;", lambda a, b: abs(a) % abs(b) * (1 if a > 0 else -1)),
        ("bfi.b64 %rd19, %rd11, %rd12, 0, 64;", lambda a, b: a),
    ],
)
def test_long_integers(text, wanted):
    found = each(text, np.int64, A64, B64)
    exact = [wanted(int(a), int(b)) % 2**64 for a, b in zip(A64, B64, strict=True)]
    assert found.view(np.uint64).tolist() == exact


def nearest(value, dtype=np.float32):
    """The exact value (a fraction) rounded to the nearest."""
    return dtype(np.longdouble(value.numerator) / np.longdouble(value.denominator))


def test_a_fused_product_is_rounded_once():
    from fractions import Fraction

    found = each("fma.rn.f32 %f9, %f1, %f2, %f3;", np.float32, X, Y, -X * Y)
    exact = [
        nearest(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))
        for a, b, c in zip(X, Y, -X * Y, strict=True)
    ]
    np.testing.assert_array_equal(found, np.array(exact))
    assert np.any(found != 0)
    double = [v.astype(np.float64) / 3 for v in (X, Y)]
    found = each("fma.rn.f64 %fd8, %fd1, %fd2, %fd3;", np.float64, *double, -double[0] * double[1])
    exact = [
        float(Fraction(a) * Fraction(b) - Fraction(a * b)) for a, b in zip(*double, strict=True)
    ]
    np.testing.assert_array_equal(found, exact)


@pytest.mark.parametrize(("mode", "side"), [("rm", -1), ("rp", 1), ("rz", 0)])
def test_directed_rounding_brackets_the_exact_value(mode, side):
    exact = X.astype(np.float64) * Y + Z
    found = each(f"fma.{mode}.f32 %f9, %f1, %f2, %f3;", np.float32, X, Y, Z).astype(np.float64)
    sign = np.full(N, side) if side else -np.sign(exact)
    assert np.all((found - exact) * sign >= 0)
    other = np.nextafter(found.astype(np.float32), np.float32(0) - sign.astype(np.float32) * np.inf)
    assert np.all((other - exact) * sign <= 0)
    assert np.any(found != exact)


def test_float_conversions_round_and_saturate():
    v = np.array([0.5, 1.5, -2.5, 3e9, -3e9, np.nan, np.inf, -0.4] * 8, np.float32)
    found = each("cvt.rni.s32.f32 %r19, %f1;", np.float32, v, result=np.int32)[:8]
    assert found.tolist() == [0, 2, -2, 2**31 - 1, -(2**31), 0, 2**31 - 1, 0]
    found = each("cvt.rzi.u32.f32 %r19, %f1;", np.float32, v, result=np.uint32)[:8]
    assert found.tolist() == [0, 1, 0, 3000000000, 0, 0, 2**32 - 1, 0]
    found = each("cvt.sat.f32.f32 %f9, %f1;", np.float32, v)[:8]
    assert found.tolist() == [0.5, 1, 0, 1, 0, 0, 1, 0]
    found = each("cvt.rmi.f32.f32 %f9, %f1;", np.float32, v)[:3]
    assert found.tolist() == [0, 1, -3]


def test_a_nan_is_left_out_of_a_minimum_unless_asked_for():
    nan = np.full(N, np.nan)
    assert each("min.f32 %f9, %f1, %f2;", np.float32, nan, X).tolist() == X.tolist()
    assert np.all(np.isnan(each("min.NaN.f32 %f9, %f1, %f2;", np.float32, nan, X)))
    ordered = "setp.ne.f32 %p1, %f1, %f2; selp.b32 %r19, 1, 0, %p1;"
    assert not each(ordered, np.float32, nan, X, result=np.int32).any()
    assert each(ordered.replace("ne", "neu"), np.float32, nan, X, result=np.int32).all()


def test_halves_are_packed_first_on_top():
    packed = each("cvt.rn.f16x2.f32 %r19, %f1, %f2;", np.float32, X, Y, result=np.uint32)
    halves = packed.view(np.float16).reshape(-1, 2)
    np.testing.assert_array_equal(halves[:, 1], X.astype(np.float16))
    np.testing.assert_array_equal(halves[:, 0], Y.astype(np.float16))
    back = "{ .reg .b16 a, b; mov.b32 {a, b}, %r11; cvt.f32.f16 %f9, b; }"
    found = each(back, np.uint32, packed, result=np.float32)
    np.testing.assert_array_equal(found, X.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(
    ("to", "of", "wanted"),
    [
        ("s32", "f32", 0),
        ("u32", "f64", 1 << 31),
        ("s32", "f64", -(1 << 31)),
        ("s64", "f32", -(1 << 63)),
        ("u64", "f64", 1 << 63),
    ],
)
def test_a_nan_becomes_an_integer_by_both_widths(to, of, wanted):
    register = "%r19" if to[1:] == "32" else "%rd19"
    source, dtype = ("%f1", np.float32) if of == "f32" else ("%fd1", np.float64)
    result = np.dtype(f"{'i' if to[0] == 's' else 'u'}{int(to[1:]) // 8}")
    text = f"cvt.rzi.{to}.{of} {register}, {source};"
    assert set(each(text, dtype, np.full(N, np.nan), result=result).tolist()) == {wanted}


def test_a_minimum_of_zeros_keeps_the_negative_one():
    a, b = np.array([0.0, -0.0, 0.0, -0.0] * 16), np.array([-0.0, 0.0, 0.0, -0.0] * 16)
    found = each("min.f32 %f9, %f1, %f2;", np.float32, a, b)[:4]
    assert np.signbit(found).tolist() == [True, True, False, True]
    found = each("max.f32 %f9, %f1, %f2;", np.float32, a, b)[:4]
    assert np.signbit(found).tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("mov.b32 %r19, 0f3F800000;", 0x3F800000),
        ("mov.u32 %r19, 0xFFFFFFFFU;", 0xFFFFFFFF),
        ("mov.u32 %r19, -2;", 0xFFFFFFFE),
        ("mov.b64 %rd12, 0d3FF0000000000000; shr.u64 %rd12, %rd12, 32; cvt.u32.u64 %r19, %rd12;",
         0x3FF00000),
        ("mov.f64 %fd1, 0f3F800000; cvt.rn.f32.f64 %f1, %fd1; mov.b32 %r19, %f1;", 0x3F800000),
    ],
)  # fmt: skip
def test_immediate_operands(text, bits):
    assert set(each(text, np.uint32, np.zeros(N), result=np.uint32).tolist()) == {bits}


def test_a_sum_of_far_apart_values_is_rounded_towards_its_side():
    tiny = np.full(N, 1e-30)
    above, below = np.nextafter(np.float32(1), np.float32([2, 0]))
    one = "mov.f32 %f2, 0f3F800000; "
    assert set(each(one + "add.rp.f32 %f9, %f2, %f1;", np.float32, tiny)) == {above}
    assert set(each(one + "add.rm.f32 %f9, %f2, %f1;", np.float32, -tiny)) == {below}
    assert set(each(one + "fma.rz.f32 %f9, %f1, %f1, %f2;", np.float32, tiny)) == {np.float32(1)}
    assert set(each(one + "fma.rp.f32 %f9, %f1, %f2, %f2;", np.float32, tiny)) == {above}


def test_a_fused_product_in_double_is_rounded_once():
    """Halfway between two numbers but for what the product's own rounding leaves out."""
    one = np.ones(N)
    # (1 + 2^-52) (2^-53 - 2^-105) = 2^-53 - 2^-157: below the tie, by less than a double shows
    a, b = one + 2.0**-52, 2.0**-53 * one - 2.0**-105
    text = "fma.rn.f64 %fd8, %fd1, %fd2, %fd3;"
    assert set(each(text, np.float64, a, b, one).tolist()) == {1.0}
    assert set(each(text, np.float64, a, b, a).tolist()) == {a[0]}
    assert set(each(text, np.float64, -a, b, a).tolist()) == {a[0]}


def test_bytes_are_permuted():
    a, b, selector = (RNG.integers(0, 2**32, N, dtype=np.uint32) for _ in range(3))
    found = each("prmt.b32 %r19, %r11, %r12, %r13;", np.uint32, a, b, selector)
    both = np.stack([a, b], axis=1).view(np.uint8)  # [n, 8]
    nibbles = selector[:, None] >> np.arange(0, 16, 4, dtype=np.uint32) & 15
    byte = np.take_along_axis(both, nibbles.astype(np.int64) & 7, axis=1)
    wanted = np.where(nibbles > 7, np.where(byte > 127, 255, 0), byte).astype(np.uint8)
    np.testing.assert_array_equal(found, np.ascontiguousarray(wanted).view(np.uint32)[:, 0])
