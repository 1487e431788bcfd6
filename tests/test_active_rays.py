"""The list of rays on their way: each is worked on until it ends, and none that has."""

import numpy as np
import pytest
import warp as wp

from ngp_warp.kernels.active import ENDED
from ngp_warp.rays.active import ActiveRays

CAPACITY = 1000


class Countdown:
    """Rays that end after given numbers of passes; a record of the passes.

    The passes run in NumPy, on copies.
    """

    def __init__(self, lives, most_slots, device):
        self.lives, self.worked = np.array(lives), np.zeros(len(lives), int)
        status = np.where(self.lives > 0, 0, ENDED).astype(np.int32)
        self.status = wp.array(status, dtype=int, device=device)
        self.rays = ActiveRays(self.status, most_slots, device)
        self.passes = []

    def run(self, n):
        self.rays.run(n, self._pass)

    def _pass(self, slots):
        begin, end = self.rays.span.numpy()
        listed = self.rays.active.numpy()[begin:end].copy()
        self.passes.append((slots, listed))
        self.worked[listed] += 1
        status = self.status.numpy()
        # any status from ENDED on is an end
        status[listed] = np.where(self.worked[listed] >= self.lives[listed], ENDED + 1, 1)
        self.status.assign(status)


@pytest.mark.parametrize("n", [CAPACITY, 700, 1, 0])
@pytest.mark.parametrize("most_slots", [64, 300, 4096])
def test_rays_are_worked_on_until_they_end(n, most_slots, device):
    lives = np.random.default_rng(0).integers(0, 12, CAPACITY)
    count = Countdown(lives, most_slots, device)
    count.run(n)
    # as often as each needs, and those beyond n never
    np.testing.assert_array_equal(count.worked[:n], lives[:n])
    assert (count.worked[n:] == 0).all()
    assert (count.status.numpy()[:n] >= ENDED).all()
    for slots, listed in count.passes:
        assert len(listed) <= slots <= most_slots
        # in their order, none twice
        assert (np.diff(listed) > 0).all()
    assert bool(count.passes) == (n > 1 or (n == 1 and lives[0] > 0))


def test_passes_shrink_with_the_rays(device):
    count = Countdown([50] * 10 + [1] * (CAPACITY - 10), 1024, device)
    count.run(CAPACITY)
    assert [slots for slots, _ in count.passes] == [1024] + [128] * 49
    assert all(len(listed) == 10 for _, listed in count.passes[1:])


def test_a_list_longer_than_the_slots_is_taken_in_parts(device):
    count = Countdown([2] * CAPACITY, 300, device)
    count.run(CAPACITY)
    assert [len(listed) for _, listed in count.passes] == [300, 300, 300, 100] * 2
    assert [slots for slots, _ in count.passes] == [300, 300, 300, 128] * 2


def test_a_list_is_used_again(device):
    # what an earlier run left in the list is not seen
    lives = np.arange(CAPACITY) % 5
    count = Countdown(lives, 128, device)
    count.run(CAPACITY)
    count.worked[:] = 0
    count.status.zero_()
    count.run(400)
    np.testing.assert_array_equal(count.worked[:400], np.maximum(lives[:400], 1))
    assert (count.worked[400:] == 0).all()


def test_rays_that_have_ended_are_not_worked_on(device):
    count = Countdown([0] * CAPACITY, 128, device)
    count.run(CAPACITY)
    assert count.passes == []
