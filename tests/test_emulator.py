"""Threads, warps, memory and calls of the emulated CUDA device: PTX by hand.

What the package's tests gain from it is only as good as this.
"""

import numpy as np
import pytest

from tests.emulator.variables import PtxError
from tests.emulator_case import A32, N, X, each, run, words


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


def test_a_match_has_a_bit_for_each_lane_of_the_same_value():
    values = A32 % 5
    text = "match.any.sync.b32 %r19, %r11, 0xffffffff;"
    found = each(text, np.int32, values, result=np.uint32)
    for warp, got in zip(values.reshape(-1, 32), found.reshape(-1, 32), strict=True):
        wanted = [sum(1 << lane for lane in range(32) if warp[lane] == v) for v in warp]
        assert got.tolist() == wanted


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
        "shfl.idx.b32 %r3, %r0, 0, 31;", "bar.warp.sync 1;", "match.any.sync.b32 %r3, %r0, 7;",
        "match.all.sync.b32 %r3|%p1, %r0, -1;", "mov.u32 %r3, 010;",
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
