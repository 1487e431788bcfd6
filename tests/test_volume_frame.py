"""A volume's frame, the range of its values, and its decoding: round trips and laws."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngp_warp.config import GridEncodingConfig
from ngp_warp.encodings.grid import grid_levels
from ngp_warp.errors import ResourceError
from ngp_warp.primitives.volume import decoding
from ngp_warp.primitives.volume.config import VolumeConfig, resolve
from ngp_warp.primitives.volume.decoding import values_at_voxels
from ngp_warp.primitives.volume.describe import make_frame
from ngp_warp.primitives.volume.frame import Frame
from ngp_warp.primitives.volume.transfer import Transfer, dense_bytes, is_integer, quantize
from tests.volume_case import make_volume
from tests.volume_light_case import SHEARED

SHAPE = (21, 33, 12)
SIDES = st.integers(1, 3000)


def frame(margin=0, shape=SHAPE):
    return Frame(shape, (5, -3, 2), SHEARED, margin)


@given(shape=st.tuples(SIDES, SIDES, SIDES), margin=st.integers(0, 2), seed=st.integers(0, 2**31))
def test_frames_go_there_and_back(shape, margin, seed):
    made = frame(margin, shape)
    voxels = np.random.default_rng(seed).uniform(-2, 1, (20, 3)) * 10 + np.array(shape) / 2
    # float64, of numbers up to 3000
    for there, back in (
        (made.world_from_voxel, made.voxel_from_world),
        (made.unit_from_voxel, made.voxel_from_unit),
    ):
        np.testing.assert_allclose(back(there(voxels)), voxels, atol=1e-8)
    # JSON keeps every bit
    again = Frame.from_dict(json.loads(json.dumps(made.to_dict())))
    np.testing.assert_array_equal(again.to_world, made.to_world)
    assert again.to_dict() == made.to_dict()
    assert (again.shape, again.first, again.side) == (shape, (5, -3, 2), max(shape) + 2 * margin)


@pytest.mark.parametrize("margin", [0, 1])
def test_the_box_fills_the_cube_but_for_the_margin(margin):
    made = frame(margin)
    low, high = np.full((1, 3), -0.5), np.array([SHAPE]) - 0.5
    np.testing.assert_allclose(made.unit_from_voxel(low), margin / (33 + 2 * margin))
    upper = made.unit_from_voxel(high)[0]
    np.testing.assert_allclose(upper, (np.array(SHAPE) + margin) / (33 + 2 * margin))
    # the longest axis goes as far from the other face
    assert upper[1] == pytest.approx(1 - margin / (33 + 2 * margin))
    # voxels stay cubes
    step = np.diff(made.unit_from_voxel(np.concatenate([np.zeros((1, 3)), np.eye(3)])), axis=0)
    assert step[0][0] == pytest.approx(1 / made.side)


def test_the_first_voxel_lies_at_its_index_in_the_world():
    made = make_frame(make_volume(np.ones(SHAPE), SHEARED, (5, -3, 2)), margin=1)
    assert (made.shape, made.margin) == (SHAPE, 1)
    at = SHEARED @ [5, -3, 2, 1]
    np.testing.assert_allclose(made.world_from_voxel(np.zeros((1, 3)))[0], at[:3])
    at = SHEARED @ [5 + 4, -3, 2 + 7, 1]
    np.testing.assert_allclose(made.world_from_voxel(np.array([[4, 0, 7]]))[0], at[:3])


def test_a_frame_contains_its_voxels():
    voxels = np.array([[-0.5, 0, 0], [-0.6, 0, 0], [20.5, 32.5, 11.5], [20, 32, 12], [3, 3, 3]])
    assert frame(1).contains(voxels).tolist() == [True, False, True, False, True]


@pytest.mark.parametrize("mode", ["density", "radiance"])
@pytest.mark.parametrize("side", [15, 64, 256, 511, 1000])
def test_voxels_lie_at_the_finest_vertices(side, mode):
    made = frame(int(mode == "radiance"), (side, side // 2, side))
    config = resolve(VolumeConfig(mode=mode), made.side, side**3 // 2, "cpu")
    assert config.encoding.finest_resolution == made.side + 1
    finest = grid_levels(config.encoding, 3)[-1]
    voxels = np.arange(side)[:, None] * np.ones(3)
    at = made.unit_from_voxel(voxels) * finest.scale + 0.5
    # the scale is 7 powers in float32: known to about 2^-20
    assert np.abs(at - np.rint(at)).max() < made.side * 2**-20
    # with one vertex less they would not
    at = made.unit_from_voxel(voxels) * (finest.scale - 1) + 0.5
    assert np.abs(at - np.rint(at)).max() > 0.4
    # what a user asks for is kept
    asked = VolumeConfig(encoding=GridEncodingConfig(finest_resolution=40))
    config = resolve(asked, side, side**3, "cpu")
    assert config.encoding.finest_resolution == 40


@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 5, 4, 3)])
def test_trained_values_are_shares_of_the_range(shape):
    values = np.random.default_rng(0).uniform(-1000, 300, shape).astype(np.float32)
    transfer = Transfer.of(make_volume(values))
    trained = (values - transfer.low) * transfer.gain
    assert trained.min() == 0
    assert trained.max() == pytest.approx(1)
    assert transfer.high == pytest.approx(float(values.max()))
    # float32 sums of numbers up to 1300
    back = transfer.inverse(trained.astype(np.float32))
    np.testing.assert_allclose(back, values, atol=1300 * 2**-22)


@pytest.mark.parametrize("value", [3.0, -7.5, 1e-30, -1e30])
def test_a_constant_is_one_above_low(value):
    transfer = Transfer.of(make_volume(np.full((2, 2, 2), value)))
    one = (np.float32(value) - transfer.low) * transfer.gain
    assert one == pytest.approx(1)
    assert transfer.range > 0
    assert transfer.inverse(np.float32(one)) == pytest.approx(value)


def test_quantized_values_are_whole_and_in_range():
    transfer = Transfer(10.0, 1 / 245)
    trained = np.array([-0.2, 0.0, 0.1234, 0.5, 1.0, 1.7], np.float32)
    whole = quantize(trained, transfer, "uint8")
    assert whole.tolist() == [10, 10, 40, 132, 255, 255]
    real = quantize(trained, transfer, "float32")
    np.testing.assert_allclose(real[1:5], 10 + 245 * trained[1:5], rtol=1e-6)
    assert (real[0], real[-1]) == (10, 255)


def test_kinds_of_numbers_and_their_bytes():
    assert [d for d in ("uint8", "int16", "bool", "mask") if is_integer(d)] == [
        "uint8", "int16", "bool", "mask",
    ]  # fmt: skip
    assert not any(is_integer(d) for d in ("float16", "float32", "float64", "vec3f", "fp8"))
    values = np.zeros((2, 3, 4, 3))
    sizes = {"uint8": 1, "int16": 2, "float64": 8, "vec3f": 4, "fp8": 4}
    for dtype, size in sizes.items():
        assert dense_bytes(make_volume(values, dtype=dtype)) == 72 * size


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("at_once", [1, 200, 1 << 20])
def test_decoding_asks_for_every_voxel_once(n_channels, at_once, monkeypatch):
    monkeypatch.setattr(decoding, "_POINTS_AT_ONCE", at_once)
    shape, told, asked = (7, 5, 4), [], []
    made = frame(1, shape)

    def evaluate(points):
        voxels = made.voxel_from_unit(points)
        asked.append(len(points))
        return voxels @ np.array([[100, 10, 1.0], [10, 1, 100], [1, 100, 10]])[:, :n_channels]

    found = values_at_voxels(evaluate, made, n_channels, told.append, "evaluate")
    weights = np.array([[100, 10, 1], [10, 1, 100], [1, 100, 10]])[:, :n_channels]
    expected = np.moveaxis(np.indices(shape), 0, -1) @ weights
    expected = expected[..., 0] if n_channels == 1 else expected
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found.dtype == np.float32
    assert sum(asked) == 140
    # whole planes of 20 voxels, at least one
    assert max(asked) <= max(at_once, 20)
    assert (told[-1].step, told[-1].total, told[-1].stage) == (7, 7, "evaluate")
    assert np.abs(np.roll(found, 1, axis=0) - expected).max() > 50


def test_decoding_needs_memory():
    huge = frame(0, (10**6, 10**6, 10**6))
    with pytest.raises(ResourceError):
        values_at_voxels(lambda points: points, huge, 1, lambda progress: None)
