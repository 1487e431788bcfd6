"""Tiles of halves in shared memory against NumPy: what lanes get back of what they have put there.

On "cpu" this proves the emulation on Warp's cooperative blocks, on the emulated device the matrix
loads as the PTX ISA has them.
"""

import numpy as np
import pytest
import warp as wp

from ngp_warp.kernels.shared_tiles import tiles_text
from ngp_warp.kernels.warp_mma import PRIMITIVES
from tests.test_mlp_cuda_layout import a_map, b_map, words

PROBE = f"""{PRIMITIVES}{tiles_text(4)}
u32 put[4], got[4];
for (int r = 0; r < 4; ++r) put[r] = fragments.data[tid * 4 + r];
store_tile(warp, put);
meet();
const int other = 3 - warp;
load_tile(got, other);
for (int r = 0; r < 4; ++r) found.data[tid * 12 + r] = got[r];
load_turned(got, other);
for (int r = 0; r < 4; ++r) found.data[tid * 12 + 4 + r] = got[r];
load_crossed(got, other);
for (int r = 0; r < 4; ++r) found.data[tid * 12 + 8 + r] = got[r];
"""


@wp.func_native(PROBE)
def probe_native(tid: int, fragments: wp.array[wp.uint32], found: wp.array[wp.uint32]): ...


@wp.kernel(enable_backward=False, grid_stride=False, module="unique")
def probe_kernel(fragments: wp.array[wp.uint32], found: wp.array[wp.uint32]):
    probe_native(wp.tid(), fragments, found)


@pytest.fixture(params=["cpu", "emulated"])
def device(request, monkeypatch):
    monkeypatch.setattr(wp.config, "enable_cpu_blocks", True)
    if request.param == "cpu":
        return "cpu"
    request.getfixturevalue("emulated_cuda")
    return "cuda:0"


def test_tiles_come_back_as_operands(device):
    matrices = np.random.default_rng(0).normal(size=(4, 16, 16)).astype(np.float16)
    fragments = np.stack([words(m[a_map()]) for m in matrices])  # [warp, lane, 4]
    given = wp.array(fragments.ravel(), dtype=wp.uint32, device=device)
    out = wp.zeros(128 * 12, dtype=wp.uint32, device=device)
    wp.launch(probe_kernel, dim=128, inputs=[given, out], device=device, block_dim=128)
    found = out.numpy().reshape(4, 32, 3, 4)
    for warp in range(4):
        m = matrices[3 - warp]
        assert np.array_equal(found[warp, :, 0], fragments[3 - warp])
        # rows are k of B, whose registers are those of columns 0-7, then of columns 8-15
        columns = [words(m[:, 8 * i : 8 * i + 8][b_map()]) for i in range(2)]
        assert np.array_equal(found[warp, :, 1], np.concatenate(columns, axis=1))
        assert np.array_equal(found[warp, :, 2], words(m.T[a_map()]))
