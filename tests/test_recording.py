"""Laws of recorded steps: what a graph holds, in which order, and how far the host runs ahead."""

from typing import Any

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch, recording
from ngp_warp.launch import Call, Launch


@wp.kernel
def _append(begin: int, number: float, values: wp.array[float]):
    """One step of a sum that tells the order of its terms."""
    values[0] = values[0] * 10.0 + number


def item(device: str, capturable: bool = True) -> Launch:
    return Launch([], device, capturable)


def test_graphs_hold_what_lies_between(monkeypatch: pytest.MonkeyPatch, played: Any) -> None:
    made: list[tuple[str, int]] = []

    def note(kind: str) -> Any:
        def make(stages: Any, device: str = "") -> Any:
            made.append((kind, len(stages)))
            return lambda: None

        return make

    monkeypatch.setattr(recording, "_captured", note("graph"))
    monkeypatch.setattr(recording, "_direct", note("direct"))
    cuda = "cuda:0"
    both = [item(cuda), item(cuda, False)]
    # a CPU's launch would run once, while it is captured
    stages = [[item(cuda)], [item(cuda)], both, [item("cpu")], [item(cuda), item(cuda)]]
    recording.recorded_step(stages, cuda)()
    assert made == [("graph", 2), ("direct", 2), ("graph", 1)]
    made.clear()
    recording.recorded_step([[item(cuda)], [item(cuda)]], cuda)()
    assert made == [("graph", 2)]


def test_the_order_of_a_step_is_kept(device: str) -> None:
    values = wp.zeros(1, dtype=float, device=device)
    seen: list[float] = []
    stages = [
        [launch.record(_append, 1, [1.0, values], device)],
        [launch.record(_append, 1, [2.0, values], device)],
        [Launch([Call(lambda: seen.append(float(values.numpy()[0])))], device, capturable=False)],
        [launch.record(_append, 1, [3.0, values], device)],
    ]
    step = recording.recorded_step(stages, device)
    assert not seen
    for _ in range(2):
        step()
    assert np.array_equal(values.numpy(), [123123.0])
    assert seen == [12.0, 12312.0]


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
def played(monkeypatch):
    device = Device()
    monkeypatch.setattr(wp, "Event", device.event)
    monkeypatch.setattr(wp, "get_stream", lambda name: device)
    monkeypatch.setattr(wp, "synchronize_event", device.wait)
    return device


def stages_of(device, capturable):
    return [[launch.Launch([launch.Call(device.step)], "cuda:0", capturable)]]


def test_the_host_is_a_few_steps_ahead(played):
    step = recording.recorded_step(stages_of(played, capturable=False), "cuda:0")
    for _ in range(50):
        step()
    assert played.queued == 50
    assert played.farthest == recording._AHEAD


def test_a_graph_is_captured_once_and_run_again(played, monkeypatch):
    class Capture:
        graph = "graph"

        def __init__(self, **options):
            assert options == {"device": "cuda:0", "force_module_load": False}

        def __enter__(self):
            return self

        def __exit__(self, *error):
            played.queued = played.farthest = 0  # recorded, not run

    monkeypatch.setattr(wp, "ScopedCapture", Capture)
    monkeypatch.setattr(wp, "capture_launch", lambda graph: played.step())
    step = recording.recorded_step(stages_of(played, capturable=True), "cuda:0")
    assert played.queued == 0
    for _ in range(50):
        step()
    assert played.queued == 50
    assert played.farthest == recording._AHEAD


def test_a_cpu_runs_at_once(played):
    step = recording.recorded_step([[launch.Launch([launch.Call(played.step)], "cpu")]], "cpu")
    for _ in range(3):
        step()
    assert played.queued == 3
