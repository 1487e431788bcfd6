"""The emulated CUDA device: PTX by hand against what the PTX ISA says, and Warp's own kernels.

What the package's tests gain from it is only as good as this.
"""

import gc

import numpy as np
import pytest
import warp as wp

from tests.emulator import machine
from tests.emulator.memory import GlobalMemory
from tests.emulator.program import Program
from tests.emulator.text import Module
from tests.emulator.variables import PtxError

HEAD = ".version 8.0\n.target sm_90\n.address_size 64\n"
N = 64


def run(body, *arrays, before="", blocks=2, block_dim=32, races=True):
    """Run a kernel's text on arrays, whose addresses are in %rd0, %rd1, ...; %r0 is the thread.

    The arrays are changed in place.
    """
    names = [f"p{i}" for i in range(len(arrays))]
    params = ",".join(f".param .u64 {name}" for name in names)
    loads = "".join(f"ld.param.u64 %rd{i}, [{name}];\n" for i, name in enumerate(names))
    text = f"""{HEAD}{before}
.visible .entry k({params}) {{
.reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<30>; .reg .f32 %f<30>; .reg .b64 %rd<30>;
.reg .f64 %fd<9>;
{loads}
mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x;
mad.lo.s32 %r0, %r1, %r2, %r0;
{body}
}}"""
    memory = GlobalMemory()
    for array in arrays:
        memory.add(array.ctypes.data, array.nbytes)
    module = Module(text)
    program = Program(module, "k", {})
    raw = np.array([a.ctypes.data for a in arrays] + [0] * 2, np.uint64).view(np.uint8)
    machine.launch(program, machine.Grid((blocks, 1, 1), block_dim), raw, memory, races=races)


def words(values):
    """An array that Warp would have aligned."""
    values = np.asarray(values)
    raw = np.zeros(values.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    found = raw[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    found[...] = values
    return found


def each(text, dtype, *inputs, result=None):
    """Return what ``text`` makes of %f1, %f2, ... (or %r, %rd, %fd) in %f9, one value a thread."""
    inputs = [words(np.asarray(v, dtype)) for v in inputs]
    out = words(np.zeros(N, result or dtype))
    letter = {"f4": "f", "f8": "fd", "i4": "r", "u4": "r", "i8": "rd", "u8": "rd"}
    kind = {"f4": "f32", "f8": "f64", "i4": "b32", "u4": "b32", "i8": "b64", "u8": "b64"}
    body = ""
    for i, v in enumerate(inputs):
        name = v.dtype.str[1:]
        target = {"f": 1, "fd": 1, "r": 11, "rd": 11}[letter[name]] + i
        body += f"""mul.wide.s32 %rd20, %r0, {v.itemsize}; add.s64 %rd20, %rd{i}, %rd20;
ld.global.{kind[name]} %{letter[name]}{target}, [%rd20];\n"""
    name = out.dtype.str[1:]
    target = {"f": 9, "fd": 8, "r": 19, "rd": 19}[letter[name]]
    body += f"""{text}
mul.wide.s32 %rd20, %r0, {out.itemsize}; add.s64 %rd20, %rd{len(inputs)}, %rd20;
st.global.{kind[name]} [%rd20], %{letter[name]}{target}; ret;"""
    run(body, *inputs, out)
    return out


RNG = np.random.default_rng(0)
A32, B32 = (RNG.integers(-(2**31), 2**31, N).astype(np.int32) for _ in range(2))
A64, B64 = (RNG.integers(-(2**62), 2**62, N) for _ in range(2))
X, Y, Z = (RNG.normal(size=N).astype(np.float32) * 10 for _ in range(3))


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


def test_threads_take_their_own_way_and_meet_again():
    """Each thread loops as often as its number says; odd ones add more on the way."""
    out = words(np.zeros(N, np.int32))
    run(
        """mov.u32 %r3, 0; mov.u32 %r4, 0;
$loop: setp.ge.s32 %p1, %r3, %r0; @%p1 bra $done;
and.b32 %r5, %r0, 1; setp.eq.s32 %p2, %r5, 0; @%p2 bra $even;
add.s32 %r4, %r4, 100;
$even: add.s32 %r4, %r4, 1; add.s32 %r3, %r3, 1; bra.uni $loop;
$done: shfl.sync.bfly.b32 %r6, %r4, 1, 31, -1;
mul.wide.s32 %rd5, %r0, 4; add.s64 %rd6, %rd0, %rd5; st.global.u32 [%rd6], %r6; ret;""",
        out,
    )
    own = np.arange(N) * np.where(np.arange(N) % 2, 101, 1)
    assert out.tolist() == own.reshape(-1, 2)[:, ::-1].reshape(-1).tolist()


def test_a_guarded_instruction_changes_the_threads_it_holds_for():
    found = each(
        "setp.gt.f32 %p1, %f1, 0f00000000; mov.f32 %f9, 0f40000000; @!%p1 mov.f32 %f9, %f1;",
        np.float32,
        X,
    )
    assert found.tolist() == np.where(X > 0, 2, X).tolist()


@pytest.mark.parametrize(
    ("mode", "argument", "clamp", "source"),
    [
        ("bfly", 3, 31, lambda lane: lane ^ 3),
        ("up", 2, 0, lambda lane: np.where(lane < 2, lane, lane - 2)),
        ("down", 2, 31, lambda lane: np.where(lane > 29, lane, lane + 2)),
        ("idx", 7, 31, lambda lane: np.full_like(lane, 7)),
        # segments of eight lanes
        ("idx", 2, (24 << 8) | 31, lambda lane: lane // 8 * 8 + 2),
    ],
)
def test_shuffles(mode, argument, clamp, source):
    text = f"shfl.sync.{mode}.b32 %r19|%p1, %r11, {argument}, {clamp}, 0xffffffff;"
    found = each(text, np.int32, A32)
    lanes = np.arange(N) % 32
    assert found.tolist() == A32[np.arange(N) // 32 * 32 + source(lanes)].tolist()


def test_a_ballot_has_a_bit_for_each_lane():
    text = "setp.gt.s32 %p1, %r11, 0; vote.sync.ballot.b32 %r19, %p1, 0xffffffff;"
    found = each(text, np.int32, A32, result=np.uint32)
    for warp in (A32[:32], A32[32:]):
        bits = sum(1 << lane for lane in range(32) if warp[lane] > 0)
        assert bits in found


def test_a_barrier_orders_a_block():
    """Threads of a block of two warps read what the other warp has written to shared memory."""
    out = words(np.zeros(N, np.int32))
    text = """shl.b32 %r3, %r0, 2; mov.u32 %r4, box; add.s32 %r5, %r4, %r3;
{between} st.shared.u32 [%r5], %r0; bar.sync 0;
xor.b32 %r6, %r3, 128; add.s32 %r6, %r4, %r6; ld.shared.u32 %r7, [%r6];
mul.wide.s32 %rd5, %r0, 4; add.s64 %rd6, %rd0, %rd5; st.global.u32 [%rd6], %r7; ret;"""
    late = """mov.u32 %r9, 0; setp.lt.u32 %p1, %r0, 32; @%p1 bra $on;
$spin: add.s32 %r9, %r9, 1; setp.lt.s32 %p2, %r9, 50; @%p2 bra $spin;
$on:"""
    before = ".shared .align 4 .b8 box[256];"
    run(text.format(between=late), out, before=before, blocks=1, block_dim=64)
    assert out.tolist() == (np.arange(64) ^ 32).tolist()


def test_a_barrier_does_not_wait_for_threads_that_have_ended():
    out = words(np.zeros(N, np.uint32))
    run(
        """setp.ge.u32 %p1, %r0, 5; mul.wide.s32 %rd5, %r0, 4; add.s64 %rd6, %rd0, %rd5;
@%p1 exit; bar.sync 0; st.global.u32 [%rd6], 1; ret;""",
        out, blocks=1, block_dim=64,
    )  # fmt: skip
    assert out.tolist() == [1] * 5 + [0] * 59


def test_additions_of_many_threads_are_all_counted():
    total, order = words(np.zeros(4, np.float32)), words(np.zeros(N, np.uint32))
    counter = words(np.zeros(4, np.uint32))
    run(
        """mov.f32 %f1, 0f3F800000; red.global.add.f32 [%rd0], %f1;
red.global.add.v2.f32 [%rd0+8], {%f1, %f1};
atom.global.add.u32 %r3, [%rd2], 1;
mul.wide.s32 %rd5, %r0, 4; add.s64 %rd6, %rd1, %rd5; st.global.u32 [%rd6], %r3; ret;""",
        total, order, counter,
    )  # fmt: skip
    assert total.tolist() == [N, 0, N, N]
    assert counter[0] == N
    assert sorted(order.tolist()) == list(range(N))


def test_pairs_of_halves_are_added():
    total = words(np.zeros(8, np.float16))
    run("mov.u32 %r3, 0x40003C00; red.global.add.noftz.f16x2 [%rd0+4], %r3; ret;", total)
    assert total.tolist() == [0, 0, N, 2 * N, 0, 0, 0, 0]


def test_compare_and_swap_lets_one_thread_win():
    place, won = words(np.zeros(4, np.uint32)), words(np.zeros(N, np.uint32))
    run(
        """add.s32 %r4, %r0, 1; atom.global.cas.b32 %r3, [%rd0], 0, %r4;
mul.wide.s32 %rd5, %r0, 4; add.s64 %rd6, %rd1, %rd5; st.global.u32 [%rd6], %r3; ret;""",
        place, won,
    )  # fmt: skip
    assert np.count_nonzero(won == 0) == 1
    assert place[0] == np.flatnonzero(won == 0)[0] + 1


def test_calls_have_variables_of_their_own():
    """f(f(x)) where f(x) = 2 x + 1 keeps a register that the caller uses too."""
    before = """.func (.param .b32 back) f(.param .b32 x) {
.reg .f32 %f<9>; ld.param.f32 %f1, [x]; add.f32 %f2, %f1, %f1; add.f32 %f3, %f2, 0f3F800000;
st.param.f32 [back+0], %f3; ret; }"""
    call = """{{ .param .b32 a; st.param.f32 [a+0], {0}; .param .b32 b;
call.uni (b), f, (a); ld.param.f32 {1}, [b+0]; }}"""
    x, out = words(X), words(np.zeros(N, np.float32))
    run(
        "mul.wide.s32 %rd5, %r0, 4; add.s64 %rd6, %rd0, %rd5; ld.global.f32 %f3, [%rd6];"
        + call.format("%f3", "%f4")
        + call.format("%f4", "%f5")
        + "sub.f32 %f6, %f5, %f3; add.s64 %rd6, %rd1, %rd5; st.global.f32 [%rd6], %f6; ret;",
        x, out, before=before,
    )  # fmt: skip
    np.testing.assert_allclose(out, 3 * X + 3, rtol=1e-6)


def fragments(a, b):
    """The registers of lanes that hold a 16x16 and b 16x8, as the PTX ISA's figures show."""
    lane = np.arange(32)
    g, q = lane // 4, lane % 4
    pairs_a = [(g + 8 * (r % 2), 2 * q + 8 * (r // 2)) for r in range(4)]
    pairs_b = [(2 * q + 8 * r, g) for r in range(2)]
    in_a = [np.stack([a[i, j], a[i, j + 1]], -1) for i, j in pairs_a]
    in_b = [np.stack([b[i, j], b[i + 1, j]], -1) for i, j in pairs_b]
    return [v.astype(np.float16).view(np.uint32)[:, 0] for v in in_a + in_b]


def test_the_matrix_product_is_numpys():
    rng = np.random.default_rng(1)
    a, b, c = rng.normal(size=(16, 16)), rng.normal(size=(16, 8)), rng.normal(size=(16, 8))
    inputs = [words(v) for v in fragments(a, b)]
    lane = np.arange(32)
    rows = [lane // 4 + 8 * (i // 2) for i in range(4)]
    columns = [lane % 4 * 2 + i % 2 for i in range(4)]
    sums = words(np.stack([c[r, k] for r, k in zip(rows, columns, strict=True)]).astype(np.float32))
    loads = "mul.wide.s32 %rd20, %r0, 4;"
    for i in range(6):
        loads += f"add.s64 %rd21, %rd{i}, %rd20; ld.global.u32 %r1{i}, [%rd21];"
    for i in range(4):
        loads += f"add.s64 %rd21, %rd6, %rd20; ld.global.f32 %f1{i}, [%rd21+{128 * i}];"
    stores = "".join(f"st.global.f32 [%rd21+{128 * i}], %f1{i};" for i in range(4))
    product = """mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f10, %f11, %f12, %f13},
{%r10, %r11, %r12, %r13}, {%r14, %r15}, {%f10, %f11, %f12, %f13};"""
    run(loads + product + stores + "ret;", *inputs, sums, blocks=1)
    half = [v.astype(np.float16).astype(np.float64) for v in (a, b)]
    wanted = half[0] @ half[1] + c
    for i in range(4):
        np.testing.assert_allclose(sums[i], wanted[rows[i], columns[i]], atol=1e-5)


def test_a_transpose_swaps_rows_and_columns():
    matrix = np.arange(64, dtype=np.uint16)
    source = words(np.concatenate([matrix.view(np.uint32)] * 2))
    found = each("movmatrix.sync.aligned.m8n8.trans.b16 %r19, %r11;", np.uint32, source)
    turned = found[:32].view(np.uint16).reshape(8, 8)
    np.testing.assert_array_equal(turned, matrix.reshape(8, 8).T)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("ld.global.u32 %r3, [%rd0+256]; ret;", "an access of 4 bytes"),
        ("ld.global.u32 %r3, [%rd0+-4]; ret;", "no allocation"),
        ("ld.global.v2.u32 {%r3, %r4}, [%rd0+4]; ret;", "misaligned"),
        ("mov.u32 %r3, 0; st.shared.u32 [%r3+8], %r3; ret;", "of 0 bytes of shared memory"),
        ("trap;", "trap"),
        (
            "setp.lt.u32 %p1, %r0, 5; @%p1 ret; shfl.sync.bfly.b32 %r3, %r0, 1, 31, -1; ret;",
            "wait for others",
        ),
        (
            "setp.lt.u32 %p1, %r0, 5; @%p1 bra $a; bar.warp.sync -1; ret;"
            "$a: bar.warp.sync -1; ret;",
            "wait for others",
        ),
        ("brx.idx %r3, table; ret;", "not emulated"),
        ("add.s32 %r3, %r4, nothing; ret;", "neither register, number nor variable"),
    ],
)
def test_what_a_gpu_would_refuse_is_an_error(body, message):
    with pytest.raises(PtxError, match=message):
        run(body, words(np.zeros(64, np.uint32)))


OWN = "mul.wide.s32 %rd5, %r0, 4; add.s64 %rd6, %rd0, %rd5;"


@pytest.mark.parametrize(
    "body",
    [
        # all write to one place, each its own number
        "st.global.u32 [%rd0], %r0; ret;",
        # each reads what its neighbour writes
        OWN + "st.global.u32 [%rd6], %r0; ld.global.u32 %r3, [%rd6+4]; ret;",
        "ld.global.u32 %r3, [%rd0]; st.global.u32 [%rd0], %r0; ret;",
        "atom.global.add.u32 %r3, [%rd0], 1; ld.global.u32 %r4, [%rd0]; ret;",
        "st.global.u32 [%rd0], 7; red.global.add.u32 [%rd0], 1; ret;",
    ],
)
def test_a_race_is_found(body):
    with pytest.raises(PtxError, match="a race"):
        run(body, words(np.zeros(80, np.uint32)))
    run(body, words(np.zeros(80, np.uint32)), races=False)


@pytest.mark.parametrize(
    "body",
    [
        "st.global.u32 [%rd0], 7; ret;",
        OWN + "ld.global.u32 %r3, [%rd6]; add.s32 %r3, %r3, 1; st.global.u32 [%rd6], %r3; ret;",
        "red.global.add.u32 [%rd0], 1; atom.global.add.u32 %r3, [%rd0], 1; ret;",
        # lanes of a warp that meet may hand values on
        OWN + "st.global.u32 [%rd6], %r0; bar.warp.sync -1; xor.b32 %r4, %r0, 1;"
        "mul.wide.s32 %rd5, %r4, 4; add.s64 %rd6, %rd0, %rd5; ld.global.u32 %r3, [%rd6]; ret;",
    ],
)
def test_what_is_no_race_is_none(body):
    run(body, words(np.zeros(80, np.uint32)))


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


@pytest.mark.parametrize(
    ("mode", "argument", "source", "inside"),
    [
        ("bfly", 35, np.arange(N) ^ 3, np.ones(N, bool)),
        ("down", 34, (np.arange(N) + 2) % N, np.arange(N) % 32 < 30),
        ("up", -30, (np.arange(N) - 2) % N, np.arange(N) % 32 >= 2),
    ],
)
def test_a_shuffles_argument_has_five_bits(mode, argument, source, inside):
    clamp = 0 if mode == "up" else 31
    text = f"shfl.sync.{mode}.b32 %r19|%p1, %r11, {argument}, {clamp}, -1;"
    found = each(text + "selp.b32 %r19, %r19, 7, %p1;", np.int32, A32)
    assert found.tolist() == np.where(inside, A32[source], 7).tolist()


def test_calls_in_calls_have_registers_of_their_own():
    before = """.func (.param .b32 back) f(.param .b32 x) {
.reg .f32 %f<9>; ld.param.f32 %f1, [x]; add.f32 %f2, %f1, %f1; st.param.f32 [back], %f2; ret; }
.func (.param .b32 back) g(.param .b32 x) {
.reg .f32 %f<9>; ld.param.f32 %f2, [x];
{ .param .b32 a; st.param.f32 [a], %f2; .param .b32 b; call (b), f, (a); ld.param.f32 %f3, [b]; }
add.f32 %f4, %f3, %f2; st.param.f32 [back], %f4; ret; }"""
    x, out = words(X), words(np.zeros(N, np.float32))
    run(
        """mul.wide.s32 %rd5, %r0, 4; add.s64 %rd6, %rd0, %rd5; ld.global.f32 %f2, [%rd6];
{ .param .b32 a; st.param.f32 [a], %f2; .param .b32 b; call (b), g, (a); ld.param.f32 %f5, [b]; }
sub.f32 %f5, %f5, %f2; add.s64 %rd6, %rd1, %rd5; st.global.f32 [%rd6], %f5; ret;""",
        x, out, before=before,
    )  # fmt: skip
    np.testing.assert_allclose(out, 2 * X, rtol=1e-6)


def test_a_functions_shared_variable_is_one_for_all_calls():
    before = """.func (.param .b32 back) f(.param .b32 x) {
.reg .b32 %r<9>; .shared .align 4 .b8 box[4]; ld.param.u32 %r1, [x]; ld.shared.u32 %r2, [box];
st.shared.u32 [box], %r1; st.param.b32 [back], %r2; ret; }"""
    call = """{{ .param .b32 a; st.param.b32 [a], {0}; .param .b32 b;
call (b), f, (a); ld.param.b32 {1}, [b]; }}"""
    out = words(np.zeros(4, np.uint32))
    run(
        "mov.u32 %r3, 5;" + call.format("%r3", "%r4") + call.format("%r3", "%r5")
        + "st.global.u32 [%rd0], %r5; ret;",
        out, before=before,
    )  # fmt: skip
    assert out[0] == 5


def test_variables_of_inner_scopes_are_kept_apart():
    text = """{ { .reg .b32 x; mov.u32 x, 3; } .reg .b32 x; mov.u32 x, 4;
{ .reg .b32 x; mov.u32 x, 5; } mov.u32 %r19, x; }"""
    assert set(each(text, np.uint32, np.zeros(N), result=np.uint32).tolist()) == {4}


@pytest.mark.parametrize(
    "text",
    [
        "add.sat.s32 %r3, %r0, %r0;", "add.cc.u32 %r3, %r0, %r0;", "sqrt.rz.f32 %f1, %f2;",
        "div.rz.f32 %f1, %f2, %f3;", "fma.rn.sat.f32 %f1, %f2, %f3, %f4;",
        "fma.rn.f16x2 %r3, %r4, %r5, %r6;", "cvt.rn.relu.f16x2.f32 %r3, %f1, %f2;",
        "cvt.rn.bf16.f32 %rs1, %f1;", "bar.arrive 0, 64;", "bar.sync 0, 32;",
        "bar.red.popc.u32 %r3, 0, %p1;", "barrier.cluster.arrive;", "setp.lo.f32 %p1, %f1, %f2;",
        "setp.eq.s32 %p1, %r0, 0; @%p1 shfl.sync.idx.b32 %r3, %r0, 0, 31, -1;",
        "{ .reg .b64 %r<3>; mov.b64 %r1, 0; }",
        "shfl.idx.b32 %r3, %r0, 0, 31;", "bar.warp.sync 1;", "mov.u32 %r3, 010;",
        "$a: mov.u32 %r3, 1; $a: mov.u32 %r3, 2;", "min.xorsign.abs.f32 %f1, %f2, %f3;",
    ],
)  # fmt: skip
def test_what_is_not_emulated_is_refused(text):
    with pytest.raises(PtxError):
        run(text + "ret;", words(np.zeros(64, np.uint32)))


def test_lanes_of_half_a_warp_do_not_meet():
    with pytest.raises(PtxError, match="whole warps"):
        run("bar.warp.sync -1; ret;", words(np.zeros(64, np.uint32)), block_dim=48)


def test_a_barrier_hands_on_values_in_global_memory():
    text = (
        OWN
        + """st.global.u32 [%rd6], %r0; bar.sync 0; xor.b32 %r3, %r0, 32;
mul.wide.s32 %rd5, %r3, 4; add.s64 %rd6, %rd0, %rd5; ld.global.u32 %r4, [%rd6]; ret;"""
    )
    run(text, words(np.zeros(64, np.uint32)), blocks=1, block_dim=64)
    with pytest.raises(PtxError, match="a race"):
        run(text.replace("bar.sync 0", "bar.warp.sync -1"), words(np.zeros(64, np.uint32)),
            blocks=1, block_dim=64)  # fmt: skip


@wp.kernel
def double(a: wp.array(dtype=float), out: wp.array(dtype=float)):
    i = wp.tid()
    out[i] = 2.0 * a[i]


def test_a_warp_kernel_runs_and_is_captured(emulated_cuda):
    before = sum(emulated_cuda.kernels_launched.values())
    a, b = (wp.array(np.arange(300, dtype=np.float32), device="cuda:0") for _ in range(2))
    wp.launch(double, 300, [a, b], device="cuda:0")
    np.testing.assert_array_equal(b.numpy(), 2 * np.arange(300))
    with wp.ScopedCapture("cuda:0") as capture:
        wp.launch(double, 300, [b, a], device="cuda:0")
        wp.copy(b, a)
    np.testing.assert_array_equal(a.numpy(), np.arange(300))  # nothing has run yet
    for _ in range(3):
        wp.capture_launch(capture.graph)
    np.testing.assert_array_equal(b.numpy(), 16 * np.arange(300))
    assert sum(emulated_cuda.kernels_launched.values()) == before + 4


def test_a_graph_keeps_the_memory_that_it_has_allocated(emulated_cuda):
    a, b = (wp.array(np.arange(300, dtype=np.float32), device="cuda:0") for _ in range(2))
    before = emulated_cuda.memory_used
    with wp.ScopedCapture("cuda:0") as capture:
        inner, outer = (wp.empty(300, dtype=float, device="cuda:0") for _ in range(2))
        wp.launch(double, 300, [a, inner], device="cuda:0")
        wp.launch(double, 300, [inner, outer], device="cuda:0")
        wp.launch(double, 300, [outer, b], device="cuda:0")
        del inner  # inside
    del outer  # and outside of the capture
    for _ in range(2):
        wp.capture_launch(capture.graph)
    np.testing.assert_array_equal(b.numpy(), 8 * np.arange(300))
    assert emulated_cuda.memory_used > before
    del capture
    gc.collect()
    assert emulated_cuda.memory_used == before


def test_a_graph_finds_no_values_of_its_last_launch(emulated_cuda):
    out = wp.zeros(4, dtype=float, device="cuda:0")
    with wp.ScopedCapture("cuda:0") as capture:
        own = wp.empty(4, dtype=float, device="cuda:0")
        wp.copy(out, own)
        own.fill_(1.0)
    for _ in range(2):
        wp.capture_launch(capture.graph)
    assert np.all(np.isnan(out.numpy()))


def test_a_graph_of_freed_memory_is_an_error(emulated_cuda):
    a, b = (wp.zeros(300, dtype=float, device="cuda:0") for _ in range(2))
    with wp.ScopedCapture("cuda:0") as kernel:
        wp.launch(double, 300, [a, b], device="cuda:0")
    with wp.ScopedCapture("cuda:0") as copy:
        wp.copy(b, a)
    with wp.ScopedCapture("cuda:0") as zero:
        b.zero_()
    del b
    gc.collect()
    for capture in (kernel, copy, zero):
        with pytest.raises(PtxError, match="no allocation"):
            wp.capture_launch(capture.graph)


def test_more_is_asked_for_than_there_is(emulated_cuda):
    device = wp.get_device("cuda:0")
    a = wp.empty(device.total_memory, dtype=wp.uint8, device=device)
    assert device.free_memory == 0
    del a


def test_new_memory_holds_no_zeros(emulated_cuda):
    assert np.all(np.isnan(wp.empty(64, dtype=float, device="cuda:0").numpy()))


@pytest.mark.parametrize("n", [299, 301])
def test_an_access_behind_an_array_is_found(emulated_cuda, n):
    a, b = wp.zeros(n, dtype=float, device="cuda:0"), wp.zeros(300, dtype=float, device="cuda:0")
    if n < 300:
        with pytest.raises(PtxError, match=r"no allocation|an allocation of"):
            wp.launch(double, 300, [a, b], device="cuda:0")
    else:
        wp.launch(double, 300, [a, b], device="cuda:0")


def test_an_array_of_the_host_is_not_the_devices(emulated_cuda):
    host, b = wp.zeros(300, dtype=float, device="cpu"), wp.zeros(300, dtype=float, device="cuda:0")
    with pytest.raises((PtxError, RuntimeError)):
        wp.launch(double, 300, [host, b], device="cuda:0")


def test_a_wait_in_a_capture_is_refused(emulated_cuda):
    a = wp.zeros(4, dtype=float, device="cuda:0")
    with wp.ScopedCapture("cuda:0"):
        with pytest.raises(PtxError, match="while a graph is captured"):
            a.numpy()
        with pytest.raises(RuntimeError, match="while graph capture is active"):
            wp.synchronize_device("cuda:0")
