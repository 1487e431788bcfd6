"""Laws of the exchange of a table's gradient, of several processes played by one."""

from typing import Any

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.table_exchange import TableExchange

N_GROUPS, N = 5003, 8


def tables(n_processes: int, share: float, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Return gradients that are zero outside of a random share of the groups."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n_processes):
        touched = rng.random(N_GROUPS) < share
        gradient = rng.standard_normal((N_GROUPS, N)).astype(np.float32) * touched[:, None]
        made.append({"gradient": gradient.astype(np.float32), "touched": touched.astype(np.uint8)})
    return made


def exchanged(given: list[dict[str, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return what each process has afterwards."""
    parts = []
    for one in given:
        gradient = wp.array(one["gradient"].ravel(), dtype=float, device="cpu")
        touched = wp.array(one["touched"], dtype=wp.uint8, device="cpu")
        parts.append(TableExchange(gradient, touched, len(given)))
    counts = [part.count() for part in parts]
    assert counts == [int(one["touched"].sum()) for one in given]
    messages = []
    for part in parts:
        part.counts.assign(np.array(counts, np.int32))
        messages.append(part.pick()[0].numpy().copy())
        assert not part.gradient.numpy().any()
    results = []
    for part in parts:
        everybody: Any = part.pick()[1]
        everybody.assign(np.concatenate(messages))
        part.add()
        results.append((part.gradient.numpy().reshape(-1, N), part.touched.numpy()))
    return results


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("n_processes", [2, 3])
def test_all_have_the_mean_in_the_same_bits(n_processes: int, share: float, threads: int) -> None:
    launch.set_num_threads(threads)
    try:
        given = tables(n_processes, share)
        results = exchanged(given)
    finally:
        launch.set_num_threads(None)
    wanted = np.mean([one["gradient"].astype(np.float64) for one in given], axis=0)
    union = np.any([one["touched"] for one in given], axis=0)
    for gradient, touched in results:
        # sums of so many O(1) values in float32
        assert np.abs(gradient - wanted).max() <= 4 * n_processes * np.finfo(np.float32).eps
        assert np.array_equal(touched, union)
        assert np.array_equal(gradient, results[0][0])
    assert (np.abs(wanted).max() > 0.1) == (share > 0)


def test_a_second_exchange_forgets_the_first() -> None:
    first = exchanged(tables(2, 0.02, seed=1))
    again = exchanged(tables(2, 0.02, seed=1))
    assert np.array_equal(first[0][0], again[0][0])
    # more groups than there was room for
    gradient = wp.zeros(N_GROUPS * N, dtype=float, device="cpu")
    touched = wp.zeros(N_GROUPS, dtype=wp.uint8, device="cpu")
    table = TableExchange(gradient, touched, 2)
    for n in (10, N_GROUPS, 7):
        gradient.fill_(2.0)
        touched.zero_()
        touched[:n].fill_(1)
        table.counts.assign(np.array([table.count(), 0], np.int32))
        message, everybody = table.pick()
        everybody[: message.size].assign(message)
        table.add()
        assert (gradient.numpy()[: n * N] == 1.0).all()
        assert (gradient.numpy()[n * N :] == 2.0).all()
