"""Views whose rays and pictures are made on the device: as those of NumPy."""

import numpy as np
import pytest
import warp as wp
from lens_views import FRAME, LENSES, look_at
from reference import view_rays as twin

from ngp_warp import launch
from ngp_warp.errors import ShapeError
from ngp_warp.primitives.nerf.backdrop import Plain
from ngp_warp.primitives.nerf.environment import Environment
from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.primitives.nerf.passes import Renderer
from ngp_warp.primitives.nerf.traced import DeviceRays, HostRays, Shot, make_tracer
from ngp_warp.radiance import viewed
from ngp_warp.radiance.batch import make_batch
from ngp_warp.radiance.vanilla import VanillaField, VanillaSettings, vanilla_optimizer
from ngp_warp.radiance.viewed import FieldView, ViewRenderer
from ngp_warp.rays.lenses import Lens
from tests import radiance_case as case
from tests.radiance_stand_in import StandIn

ALL = pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES.keys())
POSE = FRAME.poses_to_box(look_at((1.5, -0.4, 0.6)))


def view_of(lens, **more):
    return FieldView(pose=POSE, lens=lens, begin=0.1, unit=4.0, **more)


def invented(d):
    """Colour, opacity and depth that follow from a direction, some of them transparent."""
    opacity = np.maximum(0.5 + 0.5 * np.sin(9 * d[:, 0]), 0) * (d[:, 1] > -0.4)
    return 0.5 + 0.5 * d, opacity, opacity * (2 + d[:, 2])


class Case:
    """A renderer of an invented field; only ``room`` rays of a pass have room."""

    def __init__(self, capacity, device, room=10**9, staging=False):
        self.batch = make_batch(case.make_settings(), capacity, device)
        self.room, self.runs = room, 0
        stage = [launch.Launch([launch.Call(self._fill)], device, capturable=False)]
        self.renderer = ViewRenderer(self.batch, [stage], staging=staging)

    def _fill(self):
        self.runs += 1
        b = self.batch
        n = int(b.count.numpy()[0])
        color, opacity, depth = invented(b.direction.numpy().reshape(-1, 3))
        n_samples = np.where(np.arange(b.capacity) < min(n, self.room), 5, -1)
        color[n_samples < 0] = np.nan
        for name, values in (("color", color), ("opacity", opacity), ("depth", depth)):
            getattr(b, name).assign(values.astype(np.float32).ravel())
        b.n_samples.assign(n_samples.astype(np.int32))


@ALL
def test_rays_are_those_of_the_lens_in_float64(lens, device):
    it = Case(lens.width * lens.height, device)
    view = view_of(lens, latent=3, color=(0.1, 0.2, 0.3))
    it.renderer.window(view, 0, 0, lens.width, lens.height)
    at = twin.places(lens.width, lens.height, it.renderer._strip)
    o, d, exist = twin.rays(view, np.array(at) + 0.5)
    b = it.batch
    found = b.weight.numpy() > 0
    # a pixel within rounding of the fold may fall on either side
    assert (found == exist).mean() > 0.99
    both = found & exist
    error = np.abs(b.direction.numpy().reshape(-1, 3) - d)[both].max(axis=1)
    # float32 of O(1) values and places of up to 40 / fx: some eps; the fold magnifies
    assert np.quantile(error, 0.98) < 1e-6
    assert error.max() < 1e-3
    assert np.abs(b.origin.numpy().reshape(-1, 3) - o)[both].max() < 1e-3
    assert np.linalg.norm(b.direction.numpy().reshape(-1, 3), axis=1) == pytest.approx(1, abs=1e-6)
    assert (b.view.numpy() == 3).all()
    assert b.background.numpy().reshape(-1, 3)[-1] == pytest.approx([0.1, 0.2, 0.3])


def test_the_comparison_notices_a_half_pixel():
    view = view_of(LENSES["brown"])
    at = np.array(twin.places(40, 30, 64))
    assert np.abs(twin.rays(view, at + 0.5)[1] - twin.rays(view, at)[1]).max(axis=1).min() > 1e-3


@pytest.mark.parametrize("staging", [False, True])
@pytest.mark.parametrize("room", [10**9, 37])
def test_windows_are_pixels_in_their_places(room, staging, device, monkeypatch):
    monkeypatch.setitem(viewed._STRIP, device.partition(":")[0], 8)
    lens = LENSES["barrel"]
    it = Case(300, device, room, staging)
    view = view_of(lens)
    # rows that are no multiple of a strip; a second window shorter than the first
    for left, top, columns, rows in ((5, 3, 22, 13), (0, 0, 7, 3)):
        made = it.renderer.window(view, left, top, columns, rows)
        assert made.color.shape == (rows, columns, 3)
        for row in range(rows):
            for column in range(columns):
                _, d, exist = twin.rays(view, np.array([[left + column + 0.5, top + row + 0.5]]))
                assert exist
                wanted = twin.pixel(view, d[0], *(v[0] for v in invented(d)))
                assert made.color[row, column] == pytest.approx(wanted[0], abs=1e-5)
                assert made.opacity[row, column] == pytest.approx(wanted[1], abs=1e-5)
                # a small opacity magnifies rounding, and decides
                if wanted[1] > 0.02 or wanted[1] == 0:
                    assert made.depth[row, column] == pytest.approx(wanted[2], abs=1e-3)
    assert it.runs == 2 if room > 300 else it.runs > 8


def test_where_the_lens_has_no_ray_is_nothing(device):
    lens = Lens(width=20, height=20, fx=10, fy=10, cx=10, cy=10, k1=-0.4)
    it = Case(400, device)
    view = view_of(lens, color=(1.0, 1.0, 1.0))
    made = it.renderer.window(view, 0, 0, 20, 20)
    lost = ~twin.rays(view, np.indices((20, 20)).reshape(2, -1).T[:, ::-1] + 0.5)[2].reshape(20, 20)
    assert 0 < lost.sum() < 400
    assert not made.color[lost].any()
    assert not made.opacity[lost].any()
    assert np.isinf(made.depth[lost]).all()
    assert made.color[~lost].all(axis=1).any()


@pytest.mark.parametrize("room", [10**9, 5])
@pytest.mark.parametrize("spp", [1, 4, 50])
def test_samples_are_those_of_their_pixels(spp, room, device):
    it = Case(32, device, room)
    view = view_of(LENSES["fisheye"])
    rng = np.random.default_rng(0)
    pixels = np.stack([rng.integers(5, 35, 21), rng.integers(5, 25, 21)], axis=1)
    offsets = rng.random((spp, 2))
    made = it.renderer.samples(view, pixels, offsets)
    assert made.color.shape == (21, spp, 3)
    assert made.opacity.shape == made.depth.shape == (21, spp)
    _, d, exist = twin.rays(view, (pixels[:, None] + offsets).reshape(-1, 2))
    assert exist.all()
    color, opacity, _ = invented(d)
    assert made.color.reshape(-1, 3) == pytest.approx(color, abs=1e-5)
    assert made.opacity.ravel() == pytest.approx(opacity, abs=1e-5)


def test_what_does_not_fit_is_refused(device):
    it = Case(32, device)
    with pytest.raises(ShapeError, match="32 pixels"):
        it.renderer.window(view_of(LENSES["brown"]), 0, 0, 3, 11)
    with pytest.raises(ShapeError, match="4096 samples"):
        it.renderer.samples(view_of(LENSES["brown"]), np.zeros((1, 2)), np.zeros((5000, 2)))


def decibels(a, b):
    return -10 * np.log10(max(np.mean((a.astype(float) - b) ** 2), 1e-30))


def compare(field, shot, backdrop, monkeypatch, frame=FRAME, **options):
    """Assert that pictures by both kinds of rays are the same."""
    device = Renderer(field, frame, backdrop).buffers(shot, **options)
    with monkeypatch.context() as inner:
        inner.setattr("ngp_warp.primitives.nerf.passes.make_tracer", HostRays)
        host = Renderer(field, frame, backdrop).buffers(shot, **options)
    # rays differ by some eps of float32; at faces of cells a sample more or less is marched
    assert decibels(device.color, host.color) > 60
    assert decibels(device.opacity, host.opacity) > 60
    hit = np.isfinite(host.depth) & np.isfinite(device.depth)
    assert (np.isfinite(host.depth) == np.isfinite(device.depth)).mean() > 0.99
    assert np.median(np.abs(device.depth[hit] - host.depth[hit])) < 1e-4
    if device.normals is not None:
        assert decibels(device.normals, host.normals) > 40
    return device


@pytest.fixture
def field(device):
    field = case.make_field(case.make_settings(), device, "auto")
    case.set_random(field, scale=3.0)
    case.sparse(field)
    return field


def shot_of(lens):
    return Shot(lens=lens, pose=look_at((1.5, -0.4, 0.6)))


@ALL
def test_pictures_do_not_change(lens, field, monkeypatch):
    made = compare(field, shot_of(lens), Plain(np.array([0.2, 0.5, 0.9])), monkeypatch)
    assert np.ptp(made.color) > 0.3
    assert np.ptp(made.opacity) > 0.3


def test_pictures_with_samples_and_normals_do_not_change(field, monkeypatch):
    compare(field, shot_of(LENSES["brown"]), None, monkeypatch, spp=4, normals=True)


def test_pictures_before_an_environment_do_not_change(field, monkeypatch):
    sky = Environment("srgb", field.device, size=(16, 8))
    values = np.random.default_rng(0).normal(size=sky.texels.value.size)
    sky.texels.assign(values.astype(np.float32))
    made = compare(field, shot_of(LENSES["fisheye"]), sky, monkeypatch, spp=2)
    plain = Renderer(field, FRAME).buffers(shot_of(LENSES["fisheye"]))
    assert np.abs(made.color - plain.color).max() > 0.3


def test_pictures_in_many_passes_are_one(device, monkeypatch):
    settings = case.make_settings(n_latent_dims=3, n_views=2)
    fields = [case.make_field(settings, device, "portable") for _ in range(2)]
    for field in fields:
        case.set_random(field, scale=3.0)
        case.sparse(field)
    shot = Shot(lens=LENSES["brown"], pose=look_at((1.5, -0.4, 0.6)), latent=1)
    whole = compare(fields[0], shot, None, monkeypatch)
    from ngp_warp.radiance.rendered import RayRenderer

    for capacity, samples in ((37, 2**16), (200, 1024)):
        fields[1]._renderer = RayRenderer(
            settings, lambda b, n=samples: fields[1]._backend.render(b, n), device, capacity
        )
        parts = Renderer(fields[1], FRAME).buffers(shot)
        assert np.array_equal(parts.color, whole.color)
        assert np.array_equal(parts.depth, whole.depth)


def test_rays_come_after_a_view_as_before(field):
    o, d = case.random_rays(200)
    before = field.render_rays(o, d, background=(0.1, 0.2, 0.3))
    lens = Lens(width=20, height=20, fx=10, fy=10, cx=10, cy=10, k1=-0.4)
    Renderer(field, FRAME, Plain(np.ones(3))).buffers(shot_of(lens))
    after = field.render_rays(o, d, background=(0.1, 0.2, 0.3))
    for name in ("color", "opacity", "depth", "n_samples"):
        assert np.array_equal(getattr(before, name), getattr(after, name)), name


def test_pictures_of_the_original_nerf_do_not_change(device, monkeypatch):
    settings = VanillaSettings(
        n_coarse=8, n_fine=8, n_neurons=16, n_hidden_layers=2, skip_layer=1, n_head_neurons=16
    )
    field = VanillaField(settings, optimizer=vanilla_optimizer(), seed=0, device=device)
    behind = Plain(np.array([0.2, 0.5, 0.9]))
    compare(field, shot_of(LENSES["brown"]), behind, monkeypatch)
    # it samples rays whatever their weight
    shot = shot_of(Lens(width=40, height=40, fx=20, fy=20, cx=20, cy=20, k1=-0.4))
    made = Renderer(field, FRAME, behind).buffers(shot)
    assert not made.color[0, 0].any()
    assert np.isinf(made.depth[0, 0])
    assert made.color[20, 20].all()


def test_what_the_device_cannot_do_is_done_by_the_host(field):
    frame = Frame(scale=1.0, offset=(0, 0, 0))
    assert isinstance(make_tracer(StandIn(), frame, None), HostRays)
    assert isinstance(make_tracer(field, frame, lambda d: d), HostRays)
    assert isinstance(make_tracer(field, frame, None), DeviceRays)


def test_places_do_not_overflow(device):
    """The last pixel of the widest picture is itself."""
    it = Case(64, device)
    lens = Lens(width=2**20, height=2**20, fx=2**20, fy=2**20, cx=2**19, cy=2**19)
    view = view_of(lens)
    it.renderer.window(view, 2**20 - 8, 2**20 - 8, 8, 8)
    at = np.array(twin.places(8, 8, it.renderer._strip)) + 2**20 - 7.5
    _, d, _ = twin.rays(view, at)
    # float32 has a sixteenth of a pixel there
    found = it.batch.direction.numpy().reshape(-1, 3)
    assert np.abs(found - d).max() < 0.2 / 2**20 + 2e-7


def test_one_wait_and_one_graph_a_pass(device, monkeypatch):
    waits, synchronize = [], wp.synchronize_device

    def wait(at):
        waits.append(str(at))
        synchronize(at)

    it = Case(32, device, staging=True)
    monkeypatch.setattr(wp, "synchronize_device", wait)
    for _ in range(3):
        it.renderer.window(view_of(LENSES["brown"]), 0, 0, 8, 4)
    assert len(waits) == it.runs == 3
