"""Blocked arrays against the definition."""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.kernels.layout import from_blocked, set_row, to_blocked
from tests.reference import layout


@pytest.mark.parametrize("n_rows", [1, 3])
@pytest.mark.parametrize("n", [1, 31, 32, 33, 100])
def test_there_and_back(device, n, n_rows):
    points = np.random.default_rng(0).random((n, n_rows), dtype=np.float32)
    padded = -(-n // 32) * 32
    blocked = wp.zeros(padded * n_rows, dtype=float, device=device)
    source = wp.array(points, dtype=wp.float32, device=device)
    launch.launch(to_blocked, padded, [source, n_rows, blocked], device)
    wanted = layout.to_blocked(points)
    assert np.array_equal(blocked.numpy().reshape(wanted.shape), wanted)
    back = wp.zeros((n, n_rows), dtype=wp.float32, device=device)
    launch.launch(from_blocked, n, [blocked, n_rows, back], device)
    assert np.array_equal(back.numpy(), points)
    assert np.array_equal(layout.from_blocked(wanted, n), points)


def test_a_row_of_ones(device):
    blocked = wp.full(64 * 3, 7.0, dtype=float, device=device)
    launch.launch(set_row, 64, [1, 3, 40, blocked], device)
    wanted = np.zeros((40, 3), np.float32)
    wanted[:, 1] = 1
    padded = np.zeros((64, 3), np.float32)
    padded[:40] = wanted
    assert np.array_equal(blocked.numpy().reshape(-1, 3, 32), layout.to_blocked(padded))
