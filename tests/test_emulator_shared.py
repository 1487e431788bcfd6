"""Shared memory of the emulated device: matrix loads, and races of warps that have not met."""

import numpy as np
import pytest

from tests.emulator.variables import PtxError
from tests.emulator_case import run, words

BEFORE = ".shared .align 16 .b8 tile[1024];\n"
# Each thread of a block, %r3, puts its word of the input into shared memory.
STORE = """mov.u32 %r3, %tid.x; mul.wide.s32 %rd5, %r0, 4; add.s64 %rd6, %rd0, %rd5;
ld.global.u32 %r4, [%rd6]; mov.u32 %r5, tile; shl.b32 %r6, %r3, 2; add.u32 %r6, %r5, %r6;
st.shared.u32 [%r6], %r4;
"""
# %r7 is the word of the thread of the other warp
OTHER = """xor.b32 %r8, %r3, 32; shl.b32 %r8, %r8, 2; add.u32 %r8, %r5, %r8;
ld.shared.u32 %r7, [%r8];
"""
RESULT = "add.s64 %rd7, %rd1, %rd5; st.global.u32 [%rd7], %r7; ret;"


@pytest.mark.parametrize("turned", [False, True])
def test_matrices_are_those_of_ptx(turned):
    # 128 threads store four 8x8 matrices of halves; lane 4 g + q gets row g, columns 2 q, 2 q + 1
    halves = np.arange(2 * 256, dtype=np.uint16)
    out = words(np.zeros(2 * 4 * 128, np.uint32))
    trans = ".trans" if turned else ""
    text = f"""{STORE} bar.sync 0; and.b32 %r8, %r3, 31; shl.b32 %r8, %r8, 4; add.u32 %r8, %r5, %r8;
ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%r11, %r12, %r13, %r14}}, [%r8];
mul.wide.s32 %rd5, %r0, 16; add.s64 %rd7, %rd1, %rd5;
st.global.v4.u32 [%rd7], {{%r11, %r12, %r13, %r14}}; ret;"""
    run(text, words(halves.view(np.uint32)), out, before=BEFORE, block_dim=128)
    # [block, warp, lane, matrix, 2]
    found = out.view(np.uint16).reshape(2, 4, 32, 4, 2)
    matrices = halves.reshape(2, 4, 8, 8)
    lane = np.arange(32)
    for block in range(2):
        for k in range(4):
            m = matrices[block, k].T if turned else matrices[block, k]
            wanted = np.stack([m[lane // 4, lane % 4 * 2], m[lane // 4, lane % 4 * 2 + 1]], axis=-1)
            assert np.array_equal(found[block, :, :, k], np.broadcast_to(wanted, (4, 32, 2)))


def test_other_matrices_are_refused():
    text = f"{STORE} ldmatrix.sync.aligned.m8n8.x2.shared.b16 {{%r11, %r12}}, [%r6]; ret;"
    with pytest.raises(PtxError, match="not emulated"):
        run(text, words(np.zeros(64, np.uint32)), before=BEFORE)


def test_what_is_read_before_a_meeting_is_a_race():
    values = np.arange(1, 129, dtype=np.uint32)
    out = words(np.zeros(128, np.uint32))
    text = STORE + "bar.sync 0;" + OTHER + RESULT
    run(text, words(values), out, before=BEFORE, block_dim=64)
    assert np.array_equal(out, values.reshape(2, 2, 32)[:, ::-1].ravel())
    for nothing in ("", "bar.warp.sync -1;"):
        with pytest.raises(PtxError, match="a race"):
            run(STORE + nothing + OTHER + RESULT, words(values), out, before=BEFORE, block_dim=64)


def test_what_is_written_before_a_meeting_is_a_race():
    values, out = np.arange(1, 129, dtype=np.uint32), words(np.zeros(128, np.uint32))
    again = "add.u32 %r9, %r4, 9; st.shared.u32 [%r6], %r9;"
    text = STORE + "bar.sync 0;" + OTHER + "bar.sync 0;" + again + RESULT
    run(text, words(values), out, before=BEFORE, block_dim=64)
    text = STORE + "bar.sync 0;" + OTHER + again + RESULT
    with pytest.raises(PtxError, match="a race"):
        run(text, words(values), out, before=BEFORE, block_dim=64)


def test_lanes_of_a_warp_and_other_blocks_do_not_race():
    values, out = np.arange(1, 65, dtype=np.uint32), words(np.zeros(64, np.uint32))
    run(STORE + OTHER.replace(", 32;", ", 1;") + RESULT, words(values), out, before=BEFORE)
    assert np.array_equal(out, values.reshape(-1, 2)[:, ::-1].ravel())
