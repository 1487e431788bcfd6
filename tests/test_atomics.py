"""Vector reductions: every addition arrives, on both devices, with one instruction on sm_90."""

import numpy as np
import pytest
import warp as wp

from ngp_warp.kernels.atomics import red_add_vec2, red_add_vec4


@wp.kernel(enable_backward=False, module="unique")
def scatter_pairs(rows: wp.array[int], table: wp.array[float]):
    i = wp.tid()
    red_add_vec2(table, wp.int64(2 * rows[i]), 1.0, float(i))


@wp.kernel(enable_backward=False, module="unique")
def scatter_quads(rows: wp.array[int], table: wp.array[float]):
    i = wp.tid()
    red_add_vec4(table, wp.int64(4 * rows[i]), 1.0, 2.0, float(i), -1.0)


def test_colliding_additions_all_arrive(device):
    rows = np.random.default_rng(0).integers(0, 7, 1000)
    for kernel, width in ((scatter_pairs, 2), (scatter_quads, 4)):
        table = wp.zeros(7 * width, dtype=float, device=device)
        inputs = [wp.array(rows, dtype=int, device=device), table]
        wp.launch(kernel, dim=len(rows), inputs=inputs, device=device)
        counts = np.bincount(rows, minlength=7)
        # integers below 2^24: float32 sums are exact in any order
        totals = np.bincount(rows, weights=np.arange(1000), minlength=7)
        columns = {2: [counts, totals], 4: [counts, 2 * counts, totals, -counts]}[width]
        assert np.array_equal(table.numpy().reshape(7, width), np.stack(columns, axis=1))


@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("width", [2, 4])
def test_one_instruction_on_hopper(arch, width, tmp_path):
    module = (scatter_pairs if width == 2 else scatter_quads).module
    (path,) = wp.compile_aot_module(module, arch=arch, module_dir=tmp_path, use_ptx=True)
    text = path.read_text()
    assert text.count(f"red.global.add.v{width}.f32") == (1 if arch == 90 else 0)
    assert text.count("red.global.add.f32") == (0 if arch == 90 else width)
    (path,) = wp.compile_aot_module(module, arch=arch, module_dir=tmp_path, use_ptx=False)
    assert path.stat().st_size > 0
