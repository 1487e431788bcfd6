"""What the emulated device counts: instructions of warps, sectors of memory. PTX by hand."""

import numpy as np
import pytest

from tests.emulator.traffic import Traffic
from tests.emulator_case import N, run, words


def counted(body, n_words=64 * N):
    """The traffic of two warps whose threads are %r0, with an array at %rd0."""
    found = Traffic()
    run(body + " ret;", words(np.zeros(n_words, np.uint32)), races=False, traffic=found)
    return found


@pytest.mark.parametrize(
    ("stride", "sectors", "lines"),
    [(0, 1, 1), (4, 4, 1), (8, 8, 2), (16, 16, 4), (32, 32, 8), (64, 32, 16), (128, 32, 32)],
)
@pytest.mark.parametrize("kind", ["read", "write", "add"])
def test_lanes_share_sectors(stride, sectors, lines, kind):
    text = {
        "read": "ld.global.u32 %r3, [%rd6];",
        "write": "st.global.u32 [%rd6], %r0;",
        "add": "red.global.add.u32 [%rd6], %r0;",
    }[kind]
    found = counted(f"mul.wide.s32 %rd5, %r0, {stride}; add.s64 %rd6, %rd0, %rd5; {text}")
    # an array begins at a multiple of 64 bytes: within a line, or not
    assert 2 * lines <= found.lines <= 2 * lines + 2
    # stride 0: both warps want one sector, and each asks for it
    assert found.sectors[kind] == 2 * sectors
    assert found.requests[kind] == 2
    assert found.bytes[kind] == 4 * N
    assert sum(found.sectors.values()) == found.sectors[kind]


def test_a_vector_is_one_access():
    found = counted(
        "mul.wide.s32 %rd5, %r0, 64; add.s64 %rd6, %rd0, %rd5;"
        "ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd6];"
    )
    assert (found.sectors["read"], found.requests["read"]) == (N, 2)
    assert found.bytes["read"] == 16 * N


def test_lanes_that_part_count_for_each_way():
    """A third instruction that all lanes of a warp run, or half of them and then the others."""
    together = counted("setp.lt.s32 %p1, %r0, 0; @%p1 bra $a; mov.u32 %r3, 1; $a:")
    apart = counted(
        "and.b32 %r5, %r0, 1; setp.eq.s32 %p1, %r5, 0; @%p1 bra $a; mov.u32 %r3, 1; bra.uni $b;"
        "$a: mov.u32 %r3, 2; $b:"
    )
    # the parameter, threads' numbers: alike; then 3 and a return, or 3, 2, 1 and a return
    assert apart.instructions - together.instructions == 2 * (3 + 2 + 1 - 3)


def test_nobody_counts_unless_asked():
    run("ret;", words(np.zeros(N, np.uint32)))  # no traffic: no error
