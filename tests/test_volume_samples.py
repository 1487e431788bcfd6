"""Batches of a volume's values: kernels against their twin, and laws."""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.primitives.volume.describe import make_frame
from ngp_warp.primitives.volume.kernels.samples import BLOCK, block_kernel, value_kernel
from ngp_warp.primitives.volume.samples import Batches, morton, occupied, occupied_blocks
from ngp_warp.primitives.volume.transfer import Transfer
from ngp_warp.views import flat_view
from tests.reference import volume_samples as twin
from tests.reference.mlp import from_blocks
from tests.volume_case import make_volume

N = 512
# no cube, and no multiple of a block along any axis; one axis with a single voxel in its last
SHAPE = (21, 33, 12)


def n_items(n, device):
    return n // 32 if device == "cpu" else n


def blocked(x, device):
    """Positions [n, 3] as the kernels take them."""
    flat = np.ascontiguousarray(x.reshape(-1, 32, 3).transpose(0, 2, 1)).ravel()
    return wp.array(flat, dtype=float, device=device)


def noise(shape=SHAPE, n_channels=1, seed=0):
    values = np.random.default_rng(seed).uniform(-3, 5, (*shape, n_channels)).astype(np.float32)
    return values[..., 0] if n_channels == 1 else values


class Drawn:
    """Batches, and the arrays they fill."""

    def __init__(self, volume, *, margin=0, share=0.5, seed=5, trilinear=False, n=N, device="cpu"):
        self.frame, self.transfer = make_frame(volume, margin), Transfer.of(volume)
        self.n, self.step = n, wp.zeros(1, dtype=wp.int64, device=device)
        self.x = wp.zeros(n * 3, dtype=float, device=device)
        self.target = wp.full(n * volume.n_channels, np.nan, dtype=float, device=device)
        self.blocks = occupied_blocks(occupied(volume))
        options = {"n_points": n, "share": share, "seed": seed, "trilinear": trilinear}
        batches = Batches(volume, self.frame, self.transfer, self.blocks, device=device, **options)
        self.stages = batches.stages(self.step, self.x, self.target)

    def at(self, step):
        """Points [n, 3] of the unit cube and targets [n, channels] of a step."""
        self.step.assign(np.array([step], np.int64))
        for stage in self.stages:
            launch.run_all(stage)
        x = from_blocks(self.x.numpy().reshape(-1, 3, 32), self.n)
        return x, from_blocks(self.target.numpy().reshape(self.n // 32, -1, 32), self.n)


def run_block_kernel(seed, step, first, n, blocks, shape, device):
    """Return the kernel's positions [n, 3]."""
    x = wp.zeros(3 * n, dtype=float, device=device)
    at = wp.array([step], dtype=wp.int64, device=device)
    listed = wp.array(blocks.ravel(), dtype=wp.int32, device=device)
    args = [seed, at, first, 0, n, listed, len(blocks), *shape, x]
    launch.launch(block_kernel(), n_items(n, device), args, device)
    return from_blocks(x.numpy().reshape(-1, 3, 32), n)


@pytest.mark.parametrize("step", [0, 17, 2**33 + 5])
def test_positions_in_blocks_are_the_twins(step, device):
    blocks = np.array([[0, 0, 0], [2, 4, 1], [1, 2, 0]], np.int32)
    x = run_block_kernel(7, step, 64, N, blocks, SHAPE, device)
    wanted = np.array([twin.block_position(7, step, 64 + k, k, N, blocks, SHAPE) for k in range(N)])
    # float32 sums and a division of numbers up to 1
    np.testing.assert_allclose(x, wanted, atol=2 * 2**-23)
    assert np.abs(x - np.roll(wanted, 1, axis=0)).max() > 0.1


def test_positions_lie_in_their_blocks_and_fill_them(device):
    blocks = np.array([[0, 0, 0], [2, 4, 1], [1, 2, 0]], np.int32)
    n = 2**14
    x = run_block_kernel(1, 0, 0, n, blocks, SHAPE, device)
    assert x.min() >= 0
    assert x.max() < 1
    voxels = x.astype(np.float64) * SHAPE
    # rounding to 2^-23 of the box may leave a block by as much
    slack = 2**-22 * max(SHAPE)
    found = np.zeros((len(blocks), n), bool)
    for k, block in enumerate(blocks):
        low, high = block * BLOCK, np.minimum(block * BLOCK + BLOCK, SHAPE)
        found[k] = np.all((voxels >= low - slack) & (voxels <= high + slack), axis=1)
        share = (voxels[found[k]] - low) / (high - low)
        # uniform: the mean's standard error is sqrt(1 / 12 / n)
        assert np.abs(share.mean(axis=0) - 0.5).max() < 5 * np.sqrt(1 / 12 / (n / 3))
        assert share.max() > 0.99
        assert share.min() < 0.01
    # each lies in one, and as many in each
    assert (found.sum(axis=0) == 1).all()
    assert np.abs(found.sum(axis=1) - n / 3).max() <= 1
    # along the list: neighbours in the batch are neighbours in space
    assert (np.diff(found.argmax(axis=0)) >= 0).all()


@pytest.mark.parametrize("trilinear", [False, True], ids=["voxel", "trilinear"])
@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize(
    ("shape", "margin"), [(SHAPE, 0), (SHAPE, 1), ((5, 1, 40), 0), ((1, 1, 1), 1)], ids=str
)
def test_targets_are_the_twins(shape, margin, n_channels, trilinear, device):
    values = noise(shape, n_channels)
    x = np.random.default_rng(1).random((N, 3), dtype=np.float32)
    x[:8] = np.array(list(np.ndindex(2, 2, 2))) * np.float32(0.99999994)
    at, target = blocked(x, device), wp.zeros(N * n_channels, dtype=float, device=device)
    low, gain, side = -3.5, 0.3, float(max(shape) + 2 * margin)
    args = [flat_view(values, device), *shape, low, gain, margin + 0.5, side, at, target]
    launch.launch(value_kernel(n_channels, trilinear), n_items(N, device), args, device)
    after = from_blocks(at.numpy().reshape(-1, 3, 32), N)
    found = from_blocks(target.numpy().reshape(-1, n_channels, 32), N)
    trained = (values.reshape(*shape, -1).astype(np.float64) - low) * gain
    name = "trilinear_targets" if trilinear else "voxel_targets"
    expected, moved = getattr(twin, name)(trained, x.astype(np.float64), margin)
    np.testing.assert_allclose(after, moved, atol=2**-22)
    # a place of up to 40 voxels is rounded to 2^-19 of one, times a slope of 8 * 0.3 a voxel
    np.testing.assert_allclose(found, expected, atol=1e-5)
    if values.size > 3:
        rolled, _ = getattr(twin, name)(np.roll(trained, 1, axis=2), x.astype(np.float64), margin)
        assert np.abs(found - rolled).max() > 0.1


@pytest.mark.parametrize("margin", [0, 1])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_voxel_targets_are_the_volumes_own(n_channels, margin, device):
    volume = make_volume(noise(n_channels=n_channels))
    drawn = Drawn(volume, margin=margin, device=device)
    for step in range(3):
        x, target = drawn.at(step)
        voxels = drawn.frame.voxel_from_unit(x)
        # whole to float32's rounding of a place in 35 voxels
        assert np.abs(voxels - np.rint(voxels)).max() < 35 * 2**-23
        index = tuple(np.rint(voxels).astype(int).T)
        values = volume.values.reshape(*SHAPE, -1)
        np.testing.assert_allclose(drawn.transfer.inverse(target), values[index], atol=2e-6)
        assert target.min() >= 0
        assert target.max() <= 1 + 1e-6
        # that the comparison would notice a volume rolled by a voxel
        rolled = np.roll(values, 1, axis=1)
        assert np.abs(drawn.transfer.inverse(target) - rolled[index]).max() > 1


@pytest.mark.parametrize("trilinear", [False, True])
def test_a_constant_volume_has_a_constant_target(trilinear, device):
    volume = make_volume(np.full(SHAPE, -7.5))
    _, target = Drawn(volume, trilinear=trilinear, device=device).at(1)
    # a constant is one above low; weights that add up to 1 but for rounding
    np.testing.assert_allclose(target, 1, rtol=1e-6)


def test_trilinear_targets_reproduce_a_linear_field(device):
    index = np.moveaxis(np.indices(SHAPE), 0, -1)
    slope = np.array([0.5, -0.25, 1.5])
    volume = make_volume(index @ slope + 2)
    drawn = Drawn(volume, margin=1, trilinear=True, device=device)
    x, target = drawn.at(3)
    voxels = drawn.frame.voxel_from_unit(x)
    assert voxels.min() > -1e-5
    assert (voxels < np.array(SHAPE) - 1 + 1e-5).all()
    # not at the middles alone
    assert np.abs(voxels - np.rint(voxels)).max() > 0.4
    # places of up to 33 voxels in float32, times the slope
    expected = (voxels @ slope + 2 - drawn.transfer.low) * drawn.transfer.gain
    np.testing.assert_allclose(target[:, 0], expected, atol=1e-5)
    assert np.abs(target[:, 0] - np.roll(expected, 1)).max() > 0.01


def test_a_seed_and_a_step_are_the_batch(device):
    values = noise()
    values[:12] = 0
    volume = make_volume(values)
    first = [Drawn(volume, device=device).at(s) for s in (4, 5)]
    n_threads = launch.num_threads()
    try:
        for threads in (1, 2):
            launch.set_num_threads(threads)
            drawn = Drawn(volume, device=device)
            # whatever came before
            for step, (x, target) in zip((5, 4), reversed(first), strict=True):
                got = drawn.at(step)
                np.testing.assert_array_equal(got[0], x)
                np.testing.assert_array_equal(got[1], target)
    finally:
        launch.set_num_threads(n_threads)
    assert (first[0][0] != first[1][0]).any()
    assert (Drawn(volume, seed=6, device=device).at(4)[0] != first[0][0]).any()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_lies_in_occupied_blocks(share, device):
    values = np.zeros((40, 40, 40))
    values[3, 35, 17] = 1
    drawn = Drawn(make_volume(values), share=share, n=1024, device=device)
    assert drawn.blocks.tolist() == [[0, 4, 2]]
    x, target = drawn.at(0)
    inside = (np.floor(drawn.frame.voxel_from_unit(x) / BLOCK + 1e-6) == [0, 4, 2]).all(axis=1)
    n_in_blocks = round(share * 1024 / 32) * 32
    assert inside[1024 - n_in_blocks :].all()
    # the others are anywhere: a block of 125 holds 8 of 1024
    assert inside[: 1024 - n_in_blocks].sum() < 30
    # and one of its voxels is hit by one of 512
    assert (target > 0).sum() <= 10
    # no blocks: all are anywhere
    nothing = Drawn(make_volume(np.ones((9, 9, 9)), background=1.0), share=1.0, device=device)
    assert len(nothing.blocks) == 0
    assert np.ptp(nothing.at(0)[0], axis=0).min() > 0.8


def test_every_occupied_block_has_its_part(device):
    # neither the first blocks of the list alone nor those of a part of the batch
    drawn = Drawn(make_volume(noise() + 5), share=0.5, n=4096, device=device)
    n_blocks = len(drawn.blocks)
    assert n_blocks == 3 * 5 * 2
    x, _ = drawn.at(2)
    block = np.floor((drawn.frame.voxel_from_unit(x[2048:]) + 0.5) / BLOCK).astype(int)
    found, counts = np.unique(block, axis=0, return_counts=True)
    assert len(found) == n_blocks
    # a share of the list that no whole number of points takes
    assert np.abs(counts - 2048 / n_blocks).max() <= 2


def test_occupied_voxels_are_active_and_differ_from_the_background():
    values = np.zeros((4, 5, 6, 2))
    values[1, 2, 3] = [0.25, 0]
    values[3, 4, 5] = [0, 1]
    values[0, 0, 0] = 2
    active = np.ones((4, 5, 6), bool)
    active[0, 0, 0] = False
    mask = occupied(make_volume(values, active=active))
    assert np.argwhere(mask).tolist() == [[1, 2, 3], [3, 4, 5]]
    assert occupied(make_volume(values)).sum() == 3
    # a background that float32 cannot hold is compared as it is stored
    assert not occupied(make_volume(np.full((2, 2, 2), 0.1), background=0.1)).any()


def test_occupied_blocks_hold_what_is_occupied():
    mask = np.random.default_rng(2).random(SHAPE) < 2e-3
    blocks = occupied_blocks(mask)
    wanted = {tuple(v // BLOCK) for v in np.argwhere(mask)}
    assert {tuple(b) for b in blocks.tolist()} == wanted
    assert len(blocks) == len(wanted)
    assert 3 < len(blocks) < 30
    assert (np.diff(morton(blocks)) > 0).all()
    assert occupied_blocks(np.zeros(SHAPE, bool)).shape == (0, 3)


def test_a_morton_curve_goes_through_cubes():
    blocks = np.argwhere(np.ones((8, 8, 8), bool))
    codes = morton(blocks)
    assert sorted(codes) == list(range(512))
    for side in (2, 4):
        cubes = blocks[np.argsort(codes)].reshape(-1, side**3, 3)
        assert (np.ptp(cubes, axis=1) == side - 1).all()
    assert morton(np.array([[2**20 - 1] * 3]))[0] == 2**60 - 1
