"""Every task's step can be one CUDA graph: it allocates, copies back, waits and compiles nothing.

Here on a CPU, with the kernels and networks that CUDA has; what is new on CUDA alone (Warp's own
scan, whose temporary memory a graph may hold) is not seen.
"""

import contextlib

import numpy as np
import pytest
import warp as wp
from capture_case import TASKS, make_task, use_cuda_kernels

from ngp_warp import launch, loading
from ngp_warp.primitives.nerf.environment import Environment
from ngp_warp.radiance.viewed import FieldView, ViewRenderer
from ngp_warp.rays.cameras import Camera
from ngp_warp.rays.lenses import Lens
from tests import radiance_case

context = wp._src.context
FORBIDDEN = [
    (context.CpuDefaultAllocator, "allocate"),
    (context.CpuPinnedAllocator, "allocate"),
    (context.Module, "_compile"),
    (wp.array, "numpy"),
    (wp.array, "list"),
    (wp.array, "assign"),
    (wp, "copy"),
    (wp, "synchronize"),
    (wp, "synchronize_device"),
    (wp, "synchronize_stream"),
]


class NotCapturableError(AssertionError):
    """What a graph cannot hold was called."""


@contextlib.contextmanager
def forbidden(patch):
    """Whatever a CUDA graph cannot hold raises."""

    def refuse(name):
        def called(*args, **kwargs):
            raise NotCapturableError(name)

        return called

    with patch.context() as inner:
        for owner, name in FORBIDDEN:
            assert callable(getattr(owner, name))
            inner.setattr(owner, name, refuse(name))
        yield


def run(stages):
    for stage in stages:
        launch.run_all(stage)


@pytest.fixture
def _one_thread():
    # emulated lanes meet in static memory
    launch.set_num_threads(1)
    yield
    launch.set_num_threads(None)


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("name", TASKS)
def test_a_step_is_launches_alone(name, tmp_path, monkeypatch):
    use_cuda_kernels(monkeypatch)
    task = make_task(name, tmp_path)
    with loading.together(1):
        stages = task.stages()
    assert all(item.capturable for stage in stages for item in stage)
    task.field.optimizer.n_steps.fill_(100)
    before = {k: p.value.numpy().copy() for k, p in task.field.parameters().items()}
    with forbidden(monkeypatch):
        run(stages)
    for _ in range(2):
        run(stages)
    for key, p in task.field.parameters().items():
        if key != "environment":  # no ray leaves the ball's box in so few
            assert (p.value.numpy() != before[key]).any(), key


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("latents", [0, 4])
def test_a_pass_of_a_picture_is_launches_alone(latents, monkeypatch):
    use_cuda_kernels(monkeypatch)
    settings = radiance_case.make_settings(n_latent_dims=latents, n_views=2)
    field = radiance_case.make_field(settings, "cpu", "portable")
    o, d = radiance_case.random_rays(32)
    batch = radiance_case.ray_batch(settings, o, d, "cpu", jitter=0.5)
    stages = field._backend.render(batch, 1024)
    with forbidden(monkeypatch):
        run(stages)
    assert (batch.n_samples.numpy() > 0).any()
    assert np.ptp(batch.opacity.numpy()) > 0


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("environment", [False, True])
def test_a_pass_of_a_view_is_launches_alone(environment, monkeypatch):
    use_cuda_kernels(monkeypatch)
    settings = radiance_case.make_settings()
    field = radiance_case.make_field(settings, "cpu", "portable")
    recorded = []

    def record(stages, device):
        recorded.extend(stages)
        return lambda: None

    batch = field.make_batch()
    stages = field._backend.render(batch, 1024)
    sky = Environment("srgb", "cpu", size=(16, 8)) if environment else None
    views = ViewRenderer(batch, stages, sky, record=record)
    lens = Lens(width=8, height=4, fx=4, fy=4, cx=4, cy=2, k1=0.1, p1=1e-3)
    pose = Camera(position=(0.9, 1.0, 2.2)).camera_to_world()[:3]
    views.window(FieldView(pose=pose, lens=lens), 0, 0, 8, 4)
    with forbidden(monkeypatch):
        run(recorded)
    assert len(recorded) == len(stages) + 2 + environment
    assert all(item.capturable for stage in recorded for item in stage)
    assert (batch.n_samples.numpy()[:32] > 0).any()
    assert views._out["opacity"].numpy().any()


@pytest.mark.parametrize(
    "step",
    [
        lambda a: wp.zeros(1, device="cpu"),
        wp.empty_like,
        lambda a: a.numpy(),
        lambda a: a.assign([1.0]),
        wp.clone,
        lambda a: wp.synchronize_device("cpu"),
    ],
)
def test_what_a_graph_cannot_hold_is_noticed(step, monkeypatch):
    array = wp.zeros(1, dtype=float, device="cpu")
    stages = [[launch.Launch([launch.Call(lambda: step(array))], "cpu")]]
    run(stages)
    with forbidden(monkeypatch), pytest.raises(NotCapturableError):
        run(stages)


def test_what_a_graph_can_hold_is_allowed(monkeypatch):
    array = wp.zeros(1, dtype=float, device="cpu")
    with forbidden(monkeypatch):
        run([[launch.Launch([launch.Call(array.zero_), launch.Call(lambda: array[:1])], "cpu")]])
