"""What single encodings must be, beside equal to their twins."""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.encodings import fixed, grid_slopes
from ngp_warp.encodings.frequency import FrequencyEncoding
from ngp_warp.encodings.grid_features import GridFeatures
from ngp_warp.encodings.one_blob import OneBlob
from ngp_warp.encodings.sinusoids import Sinusoids
from ngp_warp.encodings.spherical_harmonics import SphericalHarmonics
from ngp_warp.encodings.triangle_wave import TriangleWave
from ngp_warp.kernels import contract, coordinates, harmonics, spherical_harmonics, vector
from tests.encoding_case import CASES, Runner, run
from tests.reference import coordinates as twin
from tests.reference import layout

FIXED = [case for case in CASES if case.config and case.config["otype"] in
         {"Identity", "Frequency", "TriangleWave", "OneBlob", "SphericalHarmonics"}]  # fmt: skip

GRIDS = [case for case in CASES if case.config and case.config["otype"].endswith("Grid")]


def encode(encoding, x):
    blocked = layout.to_blocked(np.asarray(x, np.float32))
    y = wp.full(len(blocked) * 32 * encoding.n_outputs, np.nan, dtype=float, device=encoding.device)
    run(encoding.forward(wp.array(blocked.ravel(), dtype=float, device=encoding.device), None, y))
    return layout.from_blocked(y.numpy().reshape(-1, encoding.n_outputs, 32), len(x))


@pytest.mark.parametrize("case", GRIDS, ids=lambda case: case.name)
def test_grids_for_cuda_are_the_cpus(case, monkeypatch):
    # the vector kernels in chunks of a block, for 45 points are two
    monkeypatch.setattr(grid_slopes, "BLOCKS_PER_CHUNK", 1)
    vectors, portable = Runner(case, "cpu"), Runner(case, "cpu")
    portable.encoding = GridFeatures(case.twin.n_dims, case.twin.config, "cpu", "portable")
    for name in ("forward", "backward", "second_order"):
        got, wanted = getattr(portable, name)(), getattr(vectors, name)()
        parts = (
            zip(got.values(), wanted.values(), strict=True)
            if name != "forward"
            else [(got, wanted)]
        )
        for one, other in parts:
            assert np.allclose(one, other, atol=3e-5 * max(np.abs(other).max(), 1))


def test_contractions_are_einsums(device):
    j, dy, v = (np.random.default_rng(5).normal(size=(2, n, 32)) for n in (15, 5, 3))
    arrays = [
        wp.array(a.astype(np.float32).ravel(), dtype=float, device=device) for a in (j, dy, v)
    ]
    dx, tangent = wp.empty_like(arrays[2]), wp.empty_like(arrays[1])
    n_items = vector.block_items(2, device)
    for kernel, a, out in (
        (contract.input_kernel(), arrays[1], dx),
        (contract.tangent_kernel(), arrays[2], tangent),
    ):
        launch.launch(kernel, n_items, [arrays[0], a, 3, 5, out], device)
    j = j.reshape(2, 3, 5, 32)
    wanted = np.einsum("bdfi,bfi->bdi", j, dy), np.einsum("bdfi,bdi->bfi", j, v)
    assert np.allclose(dx.numpy(), wanted[0].ravel(), atol=1e-5)
    assert np.allclose(tangent.numpy(), wanted[1].ravel(), atol=1e-5)


def test_frequencies_are_those_of_the_original_nerf_in_another_order(device):
    x = np.random.default_rng(0).uniform(-2, 2, (40, 3)).astype(np.float32)
    y = encode(Sinusoids(3, device, n_frequencies=4), x).reshape(40, 3, 4, 2)
    other = FrequencyEncoding(3, 4, device, identity=False)
    rows = wp.zeros(64 * 24, dtype=float, device=device)
    blocked = wp.array(layout.to_blocked(x).ravel(), dtype=float, device=device)
    other.forward(blocked, rows).run()
    original = layout.from_blocked(rows.numpy().reshape(2, 24, 32), 40).reshape(40, 4, 2, 3)
    assert np.array_equal(y, original.transpose(0, 3, 1, 2))


def test_waves_go_from_1_to_minus_1_and_back(device):
    # k = 0: period 2, 1 at 0; k = 1: period 1, a quarter ahead
    x = np.array([[0.0], [0.25], [0.5], [1.0], [1.5], [-0.5]])
    y = encode(TriangleWave(1, device, n_frequencies=2), x)
    assert np.allclose(y[:, 0], [1, 0.5, 0, -1, 0, 0])
    assert np.allclose(y[:, 1], [0, -1, 0, 0, 0, 0])


@pytest.mark.parametrize("n_bins", [2, 16, 64])
def test_blobs_have_mass_1_and_go_round(n_bins, device):
    x = np.linspace(0, 1, 101)[:, None]
    y = encode(OneBlob(1, device, n_bins=n_bins), x)
    assert np.allclose(y.sum(axis=1), 1, atol=1e-6)
    assert y.min() > -1e-7
    assert np.allclose(y[0], y[-1], atol=1e-6)
    # at 0 half of the blob is in the first bin, the other half in the last
    assert np.allclose(y[0, [0, -1]], 0.5)
    # in a bin's middle: the kernel's integral over +-1/2
    assert encode(OneBlob(1, device, n_bins=n_bins), [[0.5 / n_bins]])[0, 0] == pytest.approx(
        203 / 256
    )


def test_blobs_fade_outside(device):
    x = np.linspace(-3, 3, 200)[:, None].astype(np.float32)
    y = encode(OneBlob(1, device, n_bins=8), x)
    wanted = twin.one_blob(x[:, 0].astype(float), 8)[0]
    assert np.allclose(y, wanted, atol=3e-6)
    # a blob, one bin wide on each side, and one copy before and after
    assert np.all(y[np.abs(x[:, 0] - 0.5) > 1.5 + 1 / 8] == 0)


# (row, polynomial) as printed in tiny-cuda-nn's spherical_harmonics.h
PRINTED = {
    0: lambda x, y, z: 0.28209479177387814,
    1: lambda x, y, z: -0.48860251190291987 * y,
    2: lambda x, y, z: 0.48860251190291987 * z,
    3: lambda x, y, z: -0.48860251190291987 * x,
    4: lambda x, y, z: 1.0925484305920792 * x * y,
    5: lambda x, y, z: -1.0925484305920792 * y * z,
    6: lambda x, y, z: 0.94617469575755997 * z**2 - 0.31539156525251999,
    7: lambda x, y, z: -1.0925484305920792 * x * z,
    8: lambda x, y, z: 0.54627421529603959 * (x**2 - y**2),
    9: lambda x, y, z: 0.59004358992664352 * y * (-3 * x**2 + y**2),
    12: lambda x, y, z: 0.3731763325901154 * z * (5 * z**2 - 3),
    15: lambda x, y, z: 0.59004358992664352 * x * (-(x**2) + 3 * y**2),
    19: lambda x, y, z: 0.66904654355728921 * y * z * (3 - 7 * z**2),
    33: lambda x, y, z: -0.48923829943525038 * x * (x**2 - 3 * y**2) * (9 * z**2 - 1),
    47: lambda x, y, z: 2.3666191622317521 * x * z * (10 * x**2 * y**2 - x**4 - 5 * y**4),
    56: lambda x, y, z: 0.068284276912004949 * z * (315 * z**2 - 693 * z**4 + 429 * z**6 - 35),
    63: lambda x, y, z: 0.70716273252459627 * x * (
        -35 * x**2 * y**4 + 21 * x**4 * y**2 - x**6 + 7 * y**6
    ),
}  # fmt: skip


def test_harmonics_are_the_printed_polynomials(device):
    # of vectors of any length
    d = np.random.default_rng(1).uniform(-1, 1, (50, 3))
    y = encode(SphericalHarmonics(3, device, degree=8), (d + 1) / 2)
    for row, polynomial in PRINTED.items():
        assert np.allclose(y[:, row], polynomial(*d.T), atol=5e-6), row


def test_harmonics_are_those_of_rays(device):
    d = np.random.default_rng(2).normal(size=(40, 3))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    y = encode(SphericalHarmonics(3, device, degree=5), (d + 1) / 2)
    norm = wp.array(spherical_harmonics.norms(), device=device)
    flat = wp.array(d.astype(np.float32).ravel(), dtype=float, device=device)
    rows = wp.zeros(40 * 25, dtype=float, device=device)
    launch.launch(spherical_harmonics.harmonics_kernel, 40, [flat, norm, 5, None, rows], device)
    # (d + 1) / 2 and back loses a bit
    assert np.allclose(y, rows.numpy().reshape(40, 25), atol=3e-6)
    # Unsoeld: a band's squares sum to (2 l + 1) / 4 pi
    assert np.allclose(np.square(y).sum(axis=1), 25 / (4 * np.pi), rtol=1e-5)


@pytest.mark.parametrize("case", FIXED, ids=lambda case: case.name)
def test_the_text_for_cuda_is_the_vectors(case, monkeypatch):
    vectors = Runner(case, "cpu")
    wanted = [vectors.forward(), *vectors.backward().values(), *vectors.second_order().values()]
    both = vector.on_both

    def scalar(text, helpers=""):
        return both(text, helpers).replace("#ifdef __CUDA_ARCH__", "#if 1")

    for module in (coordinates, harmonics):
        monkeypatch.setattr(module, "on_both", scalar)
        for name in ("forward_kernel", "backward_kernel", "second_order_kernel"):
            monkeypatch.setattr(module, name, getattr(module, name).__wrapped__)
    monkeypatch.setattr(fixed, "block_items", lambda n_blocks, device: n_blocks * 32)
    points = Runner(case, "cpu")
    got = [points.forward(), *points.backward().values(), *points.second_order().values()]
    for one, other in zip(got, wanted, strict=True):
        # sums in another order
        assert np.allclose(one, other, rtol=1e-5, atol=1e-5 * max(np.abs(other).max(initial=0), 1))
