"""Rays in passes: whatever their size and the way of the copies, the same picture."""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch, recording
from ngp_warp.radiance import rendered
from ngp_warp.radiance.rendered import RayRenderer
from ngp_warp.radiance.staged_arrays import Work, bytes_of_sample, render_samples
from tests import radiance_case as case

N = 500
BACKGROUND = (0.2, 0.5, 0.9)


@pytest.fixture
def field(device):
    field = case.make_field(case.make_settings(), device, "portable")
    case.set_random(field, scale=3.0)
    case.sparse(field)
    return field


def picture(field, renderer):
    o, d = case.random_rays(N)
    found = renderer.render(o, d, BACKGROUND, None, 0.0)
    return np.concatenate(
        [found.color, found.opacity[:, None], found.depth[:, None], found.n_samples[:, None]], 1
    )


def make(field, capacity, samples, staging):
    def record(batch):
        return field._backend.render(batch, samples)

    return RayRenderer(field.settings, record, field.device, capacity, staging)


def test_passes_and_copies_change_nothing(field):
    wanted = picture(field, make(field, N, 2**16, staging=False))
    assert np.ptp(wanted[:, :3]) > 0.1
    assert (wanted[:, 5] > 0).any()
    # passes that are full, that are not, and that have no room for all of their samples
    for capacity, samples in ((N, 2**16), (64, 2**16), (N + 7, 1024)):
        for staging in (False, True):
            found = picture(field, make(field, capacity, samples, staging))
            assert np.array_equal(found, wanted)


def test_no_rays_are_a_picture(field):
    renderer = make(field, 64, 1024, staging=True)
    none = np.zeros((0, 3), np.float32)
    assert renderer.render(none, none, BACKGROUND, None, 0.0).color.shape == (0, 3)


def test_a_frame_is_waited_for_once(field, monkeypatch):
    waits, graphs = [], []
    synchronize, recorded = wp.synchronize_device, recording.recorded_step

    def wait(device):
        waits.append(str(device))
        synchronize(device)

    def record(stages, device):
        run = recorded(stages, device)
        return lambda: (graphs.append(device), run())

    monkeypatch.setattr(wp, "synchronize_device", wait)
    monkeypatch.setattr(rendered, "recorded_step", record)
    picture(field, make(field, 1024, 2**16, staging=True))
    assert waits == graphs == [field.device]


def test_samples_of_a_pass_fit_in_the_memory(monkeypatch):
    s = case.make_settings(n_latent_dims=3)
    assert render_samples(s, 6, "cpu") == 2**18
    a_sample = bytes_of_sample(s, 6)
    for free, wanted in ((2**50, 2**24), (0, 2**20), (4 * a_sample * 3 * 2**20, 3 * 2**20)):
        monkeypatch.setattr(launch, "free_memory", lambda device, free=free: free)
        assert render_samples(s, 6, "cuda:0") == wanted


def test_bytes_of_a_sample_are_those_of_the_arrays():
    s = case.make_settings(n_latent_dims=3)
    batch = case.make_batch(s, 32, "cpu")
    work = [Work(s, 6, batch, capacity) for capacity in (1024, 2048)]

    def size(work):
        arrays = [work.rgb, *vars(work.samples).values()]
        arrays += [getattr(work.kept, n) for n in work.kept._cls.vars]
        arrays += [work.packed.thickness, work.packed.features, work.packed.geometry]
        return sum(a.capacity for a in arrays if isinstance(a, wp.array))

    assert size(work[1]) - size(work[0]) == 1024 * bytes_of_sample(s, 6)
