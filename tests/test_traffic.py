"""What kernels ask of a GPU, counted on the emulated device: sectors of memory, instructions."""

import numpy as np
import pytest
import warp as wp

from benchmarks import traffic
from benchmarks.gpu_steps import ReferenceStep
from benchmarks.training_step import StepSize
from ngp_warp.config import GridEncodingConfig
from ngp_warp.encodings.grid import GridEncoding, resolve
from ngp_warp.launch import run_stages

N = 2**12
CUDA = "cuda:0"


def grid_traffic(device, n_dims, n_features, table_log2=14):
    """Of a level's forward and backward pass at random points; its cells are far smaller."""
    config = GridEncodingConfig(
        n_levels=1,
        n_features_per_level=n_features,
        log2_hashmap_size=table_log2,
        base_resolution=1024,
        per_level_scale=1.0,
    )
    grid = GridEncoding(n_dims, resolve(config), CUDA)
    rng = np.random.default_rng(0)
    x = wp.array(rng.random(N * n_dims, dtype=np.float32), device=CUDA)
    values = rng.random(N * n_features, dtype=np.float32)
    d_out, out = wp.array(values, device=CUDA), wp.zeros(values.size, dtype=float, device=CUDA)
    table = wp.array(grid.initial_table(0), device=CUDA)
    d_table = wp.zeros(grid.n_params, dtype=float, device=CUDA)
    found = []
    for item in (
        grid.forward(x, table, out, n_features),
        grid.backward(x, d_out, d_table, grid.make_flags(), n_features),
    ):
        device.traffic = {}
        try:
            item.run()
            found += device.traffic.values()
        finally:
            device.traffic = None
    return found


@pytest.mark.parametrize(("n_dims", "n_features"), [(2, 1), (2, 2), (3, 1), (3, 2), (3, 4)])
def test_neighbours_along_x_share_an_access(emulated_cuda, n_dims, n_features):
    forward, backward = grid_traffic(emulated_cuda, n_dims, n_features)
    corners = 2**n_dims
    # in every second cell; four floats are an access of their own
    wanted = corners if n_features == 4 else 0.75 * corners
    rows = N // 32 * 4  # sectors of a row of all blocks
    others = n_dims * rows + 2 * N // 32  # positions; what a level is
    assert forward.sectors["read"] - others == pytest.approx(wanted * N, rel=0.03)
    assert forward.sectors["write"] == n_features * rows
    assert backward.sectors["add"] == pytest.approx(wanted * N, rel=0.03)
    assert backward.sectors["read"] - others == n_features * rows
    assert backward.sectors["write"] == 0  # no flag


def additions(device, x, d_out, dtype=float):
    """Bytes that a level of 64x64 cells of four features is given: what lanes add on their own."""
    config = GridEncodingConfig(
        n_levels=1, n_features_per_level=4, log2_hashmap_size=14, base_resolution=64,
        per_level_scale=1.0,
    )  # fmt: skip
    grid = GridEncoding(2, resolve(config), CUDA)
    x, d_out = (wp.array(v.astype(np.float32).ravel(), device=CUDA) for v in (x, d_out))
    d_table = wp.zeros(grid.n_params, dtype=dtype, device=CUDA)
    device.traffic = {}
    try:
        grid.backward(x, d_out, d_table, None, 4).run()
        (traffic,) = device.traffic.values()
    finally:
        device.traffic = None
    return traffic.bytes["add"]


@pytest.mark.parametrize(("dtype", "value_bytes"), [(float, 4), (wp.int64, 8)])
def test_lanes_of_one_cell_add_as_one(emulated_cuda, dtype, value_bytes):
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 3, (8, 2, 32))  # 9 cells, in any order
    cells[0] = 1
    x = (cells * 8 + 8 + rng.uniform(-0.4, 0.4, cells.shape)) / 63
    x[7] = rng.permutation(60)[:32] / 63  # nobody shares
    d_out = rng.normal(size=(8, 4, 32))
    d_out[1, :, 5:] = 0  # who has nothing does not add, first of its cell or not
    d_out[2, :, ::2] = 0
    d_out[3] = 0
    moves = np.any(d_out != 0, axis=1)
    found = np.floor(x * 63 + 0.5).astype(int)
    lanes = sum(
        len({(u, v) for u, v, m in zip(*block, here, strict=True) if m})
        for block, here in zip(found, moves, strict=True)
    )
    assert lanes < moves.sum() / 2
    corner = 4 * value_bytes
    assert additions(emulated_cuda, x, d_out, dtype) == lanes * 4 * corner


def test_a_step_of_the_network_writes_no_activations(emulated_cuda):
    step = ReferenceStep(StepSize(n_dims=3, batch_log2=10, table_log2=10), CUDA)
    rows = traffic.count((step.stages, step), emulated_cuda)
    by_name = {row["kernel"]: row for row in rows}
    # inputs' gradients, 128 bytes a point; the sums of each thread block of 128 points; losses
    n, n_weights = 2**10, step.field.weights.value.size
    most = (128 * n + 4 * n_weights * (n // 128) + 8 * n // 32) / 32
    # an array may begin within a sector
    assert most <= by_name["propagate"]["write"] < 1.5 * most
    assert {"grid_forward_cuda", "grid_backward_cuda", "adam_table_portable"} <= set(by_name)
    assert all(row["launches"] == 1 for row in rows)


def test_a_step_is_counted_whole_and_changes_nothing(emulated_cuda):
    size = StepSize(n_dims=2, batch_log2=9, table_log2=10)
    steps = [ReferenceStep(size, CUDA, deterministic=True) for _ in range(2)]
    rows = traffic.count((steps[0].stages, steps[0]), emulated_cuda)
    before = dict(emulated_cuda.kernels_launched)
    run_stages(steps[1].stages)
    after = emulated_cuda.kernels_launched
    assert sum(after.values()) - sum(before.values()) == sum(row["launches"] for row in rows)
    values = [step.field.table.value.numpy() for step in steps]
    assert np.array_equal(*values)
    whole = traffic.totals(rows)
    assert all(whole[c] == sum(row[c] for row in rows) for c in ("read", "instructions"))


def test_the_page_has_every_kernel_or_their_sum():
    names = [f"kernel_{i}" for i in range(12)]
    numbers = {"launches": 1, "read": 10**6, "write": 10**5, "add": 0, "lines": 10**6, "added": 0}
    steps = {"a step": [{"kernel": n, "instructions": 10**6, **numbers} for n in names[:9]]}
    steps["a step"] += [
        {"kernel": n, **dict.fromkeys(numbers, 1), "instructions": 1} for n in names[9:]
    ]
    page = traffic.document(steps)
    assert "## A step" in page
    assert all(f"| {name} |" in page for name in names[:9])
    assert "| 3 others |" in page
    # 9 million at 4 a cycle on 132 multiprocessors of 1.755 GHz, and 9 million lines
    last = page.splitlines()[-1]
    assert last == "| all | 12 | 9.00 | 9.00 | 0.90 | 0.00 | 0.00 | 10 | 39 |"


def test_an_h100_issues_four_instructions_a_cycle():
    row = {"instructions": 132 * 4 * 1755, "lines": 132 * 1755}
    assert traffic.issue_us(row) == pytest.approx(1.0)
    assert traffic.lookup_us(row) == pytest.approx(1.0)
