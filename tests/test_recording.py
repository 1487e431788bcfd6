"""Laws of recorded steps: what no graph may hold runs between graphs, in its order."""

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


def test_graphs_hold_what_lies_between(monkeypatch: pytest.MonkeyPatch) -> None:
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
