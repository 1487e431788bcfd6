"""Laws of the conversion to float16: NumPy's own, bit for bit."""

import numpy as np

from ngp_warp.halves import to_half


def same(values):
    wanted = values.astype(np.float16).view(np.uint16)
    return np.array_equal(to_half(values).view(np.uint16), wanted)


def test_every_half_and_what_lies_between_two_is_rounded_as_numpy_does():
    halves = np.arange(2**16, dtype=np.uint32).astype(np.uint16).view(np.float16)
    exact = np.sort(halves[np.isfinite(halves)].astype(np.float32))
    between = (exact[1:] + exact[:-1]) / 2
    around = [np.nextafter(between, np.float32(side)) for side in (-np.inf, np.inf)]
    assert same(np.concatenate([exact, between, *around]))
    assert same(np.array([0.0, -0.0, np.inf, -np.inf, 2.0**-14, -(2.0**-25)], np.float32))
    assert same(np.zeros(0, np.float32))


def test_the_initial_values_of_a_table_are_too():
    rng = np.random.default_rng(0)
    values = rng.uniform(-1e-4, 1e-4, 2**16 + 5).astype(np.float32)
    assert same(values)
    assert not np.array_equal(to_half(values), to_half(values * np.float32(1.01)))
