"""Where a warp's lanes hold matrix elements: the PTX ISA's maps in NumPy against the primitives.

On "cpu" this proves the emulation that the other tests of the CUDA network rely on; on a GPU it
proves the maps themselves.
"""

import numpy as np
import pytest
import warp as wp

from ngp_warp.kernels import mlp_cuda_network, mlp_cuda_stages, mlp_cuda_weights
from ngp_warp.kernels.warp_mma import PRIMITIVES
from tests.test_mlp_cuda import HALF_TWIN, Case, error

LANE = np.arange(32)

PROBE = f"""{PRIMITIVES}
const uint4 quad = load(a.data + lane * 4);
const u32 fragment[4] = {{ quad.x, quad.y, quad.z, quad.w }};
f32 sum[4];
for (int i = 0; i < 4; ++i) sum[i] = c.data[lane * 4 + i];
mma(sum, fragment, b.data[lane * 2], b.data[lane * 2 + 1]);
for (int i = 0; i < 4; ++i) c.data[lane * 4 + i] = sum[i];
transposed.data[lane] = transpose(fragment[0]);
total.data[lane] = lane_sum(lane_sum((float)lane, 8), 16);
packed.data[lane] = pack(values.data[lane * 2], values.data[lane * 2 + 1]);
"""


@wp.func_native(PROBE)
def probe_native(
    tid: int,
    a: wp.array[wp.uint32],
    b: wp.array[wp.uint32],
    c: wp.array[float],
    transposed: wp.array[wp.uint32],
    total: wp.array[float],
    values: wp.array[float],
    packed: wp.array[wp.uint32],
): ...


@wp.kernel(enable_backward=False, grid_stride=False, module="unique")
def probe_kernel(
    a: wp.array[wp.uint32],
    b: wp.array[wp.uint32],
    c: wp.array[float],
    transposed: wp.array[wp.uint32],
    total: wp.array[float],
    values: wp.array[float],
    packed: wp.array[wp.uint32],
):
    probe_native(wp.tid(), a, b, c, transposed, total, values, packed)


@pytest.fixture(autouse=True)
def cooperative_blocks(monkeypatch):
    monkeypatch.setattr(wp.config, "enable_cpu_blocks", True)


def a_map():
    """(row, k) of the eight halves a0..a7 of every lane: [32, 8] each. PTX ISA, m16n8k16 .f16."""
    i = np.arange(8)
    group, thread = LANE[:, None] // 4, LANE[:, None] % 4
    row = np.where((i % 4) < 2, group, group + 8)
    return row, thread * 2 + (i & 1) + np.where(i >= 4, 8, 0)


def b_map():
    """(k, column) of b0..b3 of every lane: [32, 4] each."""
    i = np.arange(4)
    group, thread = LANE[:, None] // 4, LANE[:, None] % 4
    return thread * 2 + (i & 1) + np.where(i >= 2, 8, 0), np.broadcast_to(group, (32, 4))


def c_map():
    """(row, column) of c0..c3 of every lane: [32, 4] each."""
    i = np.arange(4)
    group, thread = LANE[:, None] // 4, LANE[:, None] % 4
    return np.where(i < 2, group, group + 8), thread * 2 + (i & 1)


def words(halves):
    """Pairs of halves as 32-bit registers, the first in the low bits."""
    return np.ascontiguousarray(halves.astype(np.float16)).view(np.uint32)


def run_probe(device, a, b, c, values):
    def array(v, dtype):
        return wp.array(np.ascontiguousarray(v).ravel(), dtype=dtype, device=device)

    c_array = array(c, wp.float32)
    outs = [wp.zeros(32, dtype=t, device=device) for t in (wp.uint32, wp.float32, wp.uint32)]
    inputs = [array(a, wp.uint32), array(b, wp.uint32), c_array, *outs[:2]]
    inputs += [array(values, wp.float32), outs[2]]
    wp.launch(probe_kernel, dim=32, inputs=inputs, device=device, block_dim=32)
    return [v.numpy() for v in (c_array, *outs)]


def test_primitives_hold_elements_where_ptx_says(device):
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(16, 16)), rng.normal(size=(16, 8)), rng.normal(size=(16, 8))
    a, b = a.astype(np.float16), b.astype(np.float16)
    values = rng.normal(size=(32, 2)).astype(np.float32)
    values[0], values[1] = (1e6, -1e6), (np.inf, 65519.0)
    sums, transposed, total, packed = run_probe(
        device, words(a[a_map()]), words(b[b_map()]), c[c_map()], values
    )
    wanted = a.astype(np.float64) @ b.astype(np.float64) + c
    assert np.allclose(sums.reshape(32, 4), wanted[c_map()], atol=1e-5)  # float32 sums of 16
    # the first register of the A fragment is the 8x8 matrix of rows 0-7, k 0-7
    assert np.array_equal(transposed.view(np.float16).reshape(8, 8), a[:8, :8].T)
    # lanes 0-7 each, of the four lanes that differ in bits 3 and 4
    assert np.array_equal(total[:8], 4 * np.arange(8) + 48)
    saturated = np.clip(values, -65504, 65504).astype(np.float16)
    assert np.array_equal(packed.view(np.float16).reshape(32, 2), saturated)


def test_packing_keeps_nan(device):
    values = np.full((32, 2), np.nan, np.float32)
    packed = run_probe(device, np.zeros(128), np.zeros(64), np.zeros(128), values)[3]
    assert np.all(np.isnan(packed.view(np.float16)))


def test_accumulators_are_the_next_layers_a_fragment():
    # two 8-column accumulators, packed by pairs, hold what registers 0..3 of A must hold
    row, column = c_map()
    rows, columns = a_map()
    for register in range(4):
        t, half = register >> 1, register & 1
        for i in range(2):
            assert np.array_equal(row[:, 2 * half + i], rows[:, 2 * register + i])
            assert np.array_equal(8 * t + column[:, 2 * half + i], columns[:, 2 * register + i])


@pytest.mark.parametrize(
    ("fused", "place", "right", "wrong"),
    [
        (False, "weight_gradient_text", "transpose(v.z)", "transpose(v.y)"),
        (True, "prepare_text", "(r >> 1) * 8", "(r & 1) * 8"),
        (False, "propagate_text", "(lane >> 2) * 4", "(lane & 3) * 8"),
        (True, "reduce_text", "parts[i * 8 + lane]", "parts[i * 4 + lane]"),
        (True, "gradient_text", "load_crossed(a[", "load_turned(a["),
        (True, "gradient_text", "group += n_chunks", "group += n_chunks + 1"),
        (True, "gradient_text", "(step >> 1) *", "(step >> 2) *"),
    ],
)
def test_a_wrong_map_is_noticed(monkeypatch, fused, place, right, wrong):
    text = getattr(mlp_cuda_stages, place)

    def broken(*args):
        assert right in text(*args)
        return text(*args).replace(right, wrong)

    config = (6, 16, 1, 3, "tanh", "none")
    n = 16 * 32 * 2  # more than one chunk
    monkeypatch.setattr(mlp_cuda_network, "most_chunks", lambda device: 3)
    dw = Case(config, n, "cpu", fused=fused).train("l2")[1]
    monkeypatch.setattr(mlp_cuda_stages, place, broken)
    mlp_cuda_stages.make_stage.cache_clear()
    try:
        wrong_dw = Case(config, n, "cpu", fused=fused).train("l2")[1]
    finally:
        mlp_cuda_stages.make_stage.cache_clear()
    assert error(wrong_dw, dw) > 10 * HALF_TWIN


@pytest.mark.parametrize("tiles", [(1, 1), (2, 3), (16, 16), (7, 5), (8, 6)])
def test_jobs_cover_every_tile_once(tiles):
    rows = mlp_cuda_weights._divisor(tiles[0], 2)
    columns = mlp_cuda_weights._divisor(tiles[1], 4)
    assert mlp_cuda_weights._jobs(*tiles) * rows * columns == tiles[0] * tiles[1]
