"""Steps on CUDA: how far the host runs ahead, told by a device that is played."""

import pytest
import warp as wp

from ngp_warp import launch, steps


class Device:
    """Finishes a step when it is waited for."""

    def __init__(self):
        self.queued, self.done = 0, 0
        self.farthest = 0

    def step(self):
        self.queued += 1
        self.farthest = max(self.farthest, self.queued - self.done)

    def event(self, name):
        return [0]

    def record_event(self, event):
        event[0] = self.queued

    def wait(self, event):
        self.done = max(self.done, event[0])


@pytest.fixture
def device(monkeypatch):
    device = Device()
    monkeypatch.setattr(wp, "Event", device.event)
    monkeypatch.setattr(wp, "get_stream", lambda name: device)
    monkeypatch.setattr(wp, "synchronize_event", device.wait)
    return device


def stages_of(device, capturable):
    return [[launch.Launch([launch.Call(device.step)], "cuda:0", capturable)]]


def test_the_host_is_a_few_steps_ahead(device):
    step = steps.recorded_step(stages_of(device, capturable=False), "cuda:0")
    for _ in range(50):
        step()
    assert device.queued == 50
    assert device.farthest == steps._AHEAD


def test_a_graph_is_captured_once_and_run_again(device, monkeypatch):
    class Capture:
        graph = "graph"

        def __init__(self, **options):
            assert options == {"device": "cuda:0", "force_module_load": False}

        def __enter__(self):
            return self

        def __exit__(self, *error):
            device.queued = device.farthest = 0  # recorded, not run

    monkeypatch.setattr(wp, "ScopedCapture", Capture)
    monkeypatch.setattr(wp, "capture_launch", lambda graph: device.step())
    step = steps.recorded_step(stages_of(device, capturable=True), "cuda:0")
    assert device.queued == 0
    for _ in range(50):
        step()
    assert device.queued == 50
    assert device.farthest == steps._AHEAD


def test_a_cpu_runs_at_once(device):
    step = steps.recorded_step([[launch.Launch([launch.Call(device.step)], "cpu")]], "cpu")
    for _ in range(3):
        step()
    assert device.queued == 3
