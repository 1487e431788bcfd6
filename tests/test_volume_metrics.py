"""How close decoded values are: against formulas in NumPy, and laws."""

import numpy as np
import pytest

from ngp_warp.primitives.volume import metrics as module
from ngp_warp.primitives.volume.metrics import measure
from tests.volume_case import make_volume

SHAPE = (9, 7, 8)


def case(n_channels=1, seed=0):
    """A volume, half of which is background, inactive voxels in it, and values close to it."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(-20, 80, (*SHAPE, n_channels)).astype(np.float32)
    empty = rng.random(SHAPE) < 0.5
    values[empty] = 0
    active = rng.random(SHAPE) < 0.9
    decoded = values + rng.normal(0, 2, values.shape).astype(np.float32)
    if n_channels == 1:
        values, decoded = values[..., 0], decoded[..., 0]
    return decoded, make_volume(values, active=active), active & ~empty


@pytest.mark.parametrize("chunk", [1, 2**24])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_metrics_are_the_formulas(n_channels, chunk, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk)
    decoded, volume, occupied = case(n_channels)
    got = measure(decoded, volume)
    error = np.abs(decoded.astype(np.float64) - volume.values)
    peak = float(volume.values.max()) - float(volume.values.min())

    def psnr(part):
        return 10 * np.log10(peak**2 / np.mean(part**2))

    # rounded to 3 digits
    assert got["psnr"] == pytest.approx(psnr(error), abs=6e-4)
    assert got["psnr_occupied"] == pytest.approx(psnr(error[occupied]), abs=6e-4)
    assert got["mae_occupied"] == pytest.approx(error[occupied].mean())
    assert got["mae_empty"] == pytest.approx(error[~occupied].mean())
    assert got["max_error"] == pytest.approx(error.max())
    assert got["occupied"] == pytest.approx(occupied.mean(), abs=6e-6)
    # values rolled by a voxel are far from it
    assert measure(np.roll(decoded, 1, axis=1), volume)["psnr"] < got["psnr"] - 10


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_psnr_does_not_depend_on_the_unit(scale):
    decoded, volume, _ = case()
    first = measure(decoded, volume)
    scaled = make_volume(volume.values * np.float32(scale), active=volume.active)
    other = measure(decoded * np.float32(scale), scaled)
    assert other["psnr"] == pytest.approx(first["psnr"], abs=2e-3)
    assert other["mae_empty"] == pytest.approx(first["mae_empty"] * scale, rel=1e-4)


def test_the_same_values_are_perfect():
    _, volume, _ = case()
    got = measure(volume.values, volume)
    # of a mean square of 0, at most 120 dB are stated
    assert got["psnr"] == got["psnr_occupied"] == 120
    assert got["max_error"] == got["mae_occupied"] == got["mae_empty"] == 0


def test_a_constant_volumes_range_is_its_value():
    volume = make_volume(np.full(SHAPE, -50.0))
    got = measure(np.full(SHAPE, -49.5, np.float32), volume)
    assert got["psnr"] == pytest.approx(40)
    assert got["mae_empty"] is None
    assert got["occupied"] == 1
    assert measure(volume.values, volume)["psnr"] == 120


def test_parts_without_voxels_have_no_figure():
    volume = make_volume(np.full(SHAPE, 2.0), background=2.0)
    got = measure(np.full(SHAPE, 2.5, np.float32), volume)
    assert got["psnr_occupied"] is None
    assert got["mae_occupied"] is None
    assert got["mae_empty"] == 0.5
    assert got["occupied"] == 0


@pytest.mark.parametrize(("dtype", "kind"), [("uint8", "whole values"), ("float32", "values")])
def test_what_the_psnr_is_of_is_said(dtype, kind):
    volume = make_volume(np.arange(8.0).reshape(2, 2, 2), dtype=dtype)
    expected = f"all voxels' {kind}, peak 7 (largest less smallest)"
    assert measure(volume.values, volume)["psnr_of"] == expected
