"""Laws of branches: what a graph runs side by side gives what it gives one after another.

The emulated device runs of what may run first what was queued last, so that a branch that depends
on another one, or a stage that does not wait for it, gives something else.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warp as wp
from capture_case import TASKS, make_task

from ngp_warp import launch, loading, recording
from ngp_warp.launch import Call, Launch, beside
from ngp_warp.primitives.sdf import samples
from tests.emulator.variables import PtxError

CUDA = "cuda:0"


@wp.kernel
def _append(begin: int, number: float, values: wp.array[float]):
    """One step of a sum that tells the order of its terms."""
    values[0] = values[0] * 10.0 + number


@wp.kernel
def _add(begin: int, a: wp.array[float], b: wp.array[float], out: wp.array[float]):
    """The sum of two."""
    out[0] = a[0] + 1000.0 * b[0]


def append(number: float, values: wp.array) -> Launch:
    return launch.record(_append, 1, [number, values], str(values.device))


def zeros(device: str) -> wp.array:
    return wp.zeros(1, dtype=float, device=device)


def values_of(arrays: list[wp.array]) -> list[float]:
    return [float(a.numpy()[0]) for a in arrays]


def in_turn(stages: list[list[Launch]]) -> Callable[[], None]:
    return lambda: launch.run_stages(launch.in_turn(stages))


def branched(device: str) -> tuple[list[list[Launch]], list[wp.array]]:
    """Stages of branches inside branches, and what they have to give."""
    a, b, c, total = arrays = [zeros(device) for _ in range(4)]
    inner = beside([[[append(3, b)], [append(4, b)]], [[append(5, c)]]], device)
    first = [[append(2, a)], [append(3, a), append(1, total)], [append(4, a)]]
    stages = [
        [append(1, a), append(1, b), append(1, c)],
        *beside([first, [[append(2, b)], *inner, [append(6, c)]]], device),
        [launch.record(_add, 1, [a, b, total], device)],
    ]
    return stages, arrays


def test_branches_keep_their_order(device: str) -> None:
    stages, arrays = branched(device)
    step = recording.recorded_step(stages, device)
    assert values_of(arrays) == [0, 0, 0, 0]
    step()
    assert values_of(arrays) == [1234, 1234, 156, 1234 + 1234000]
    step()
    assert values_of(arrays[:3]) == [12341234, 12341234, 156156]


def test_without_a_graph_they_run_one_after_another(device: str) -> None:
    stages, arrays = branched(device)
    launch.run_stages(stages)
    assert values_of(arrays) == [1234, 1234, 156, 1234 + 1234000]
    launch.run_stages(launch.in_turn(stages))
    assert values_of(arrays[:3]) == [12341234, 12341234, 156156]
    names = [len(stage) for stage in launch.in_turn(stages)]
    assert names == [3, 1, 2, 1, 1, 1, 1, 1, 1, 1] or device == "cpu"


def test_a_cpu_has_stages_alone() -> None:
    stages, _ = branched("cpu")
    assert not any(item.parts for stage in stages for item in stage)


def test_what_no_graph_holds_has_no_branches() -> None:
    a, b = (Launch([], CUDA, capturable=c) for c in (True, False))
    assert beside([[[a]], [[b]]], CUDA) == [[a], [b]]
    assert beside([[[a]], []], CUDA) == [[a]]
    (stage,) = beside([[[a]], [[a], [a]]], CUDA)
    assert [item.parts for item in stage] == [[[a]], [[a], [a]]]
    assert beside([[[a]], [[Launch([], "cpu")]]], CUDA)[0] == [a]


def test_calls_are_branches(device: str) -> None:
    a, b, total = (zeros(device) for _ in range(3))
    stages = [
        [append(1, a), append(2, b)],
        [Launch([Call(a.zero_)], device), append(3, b)],
        [append(5, a)],
        [launch.record(_add, 1, [a, b, total], device)],
    ]
    step = recording.recorded_step(stages, device)
    step()
    step()
    assert values_of([a, b, total]) == [5, 2323, 5 + 2323000]


@pytest.mark.usefixtures("emulated_cuda")
def test_a_race_between_branches_is_noticed() -> None:
    """The test can fail: launches of a stage that depend on each other give something else."""
    a = zeros(CUDA)
    recording.recorded_step([[append(1, a), append(2, a)]], CUDA)()
    assert values_of([a]) == [21]
    launch.run_stages([[append(1, a), append(2, a)]])
    assert values_of([a]) == [2112]


def capture(fault: str) -> None:
    a, b = zeros(CUDA), zeros(CUDA)
    side = wp.Stream(CUDA)
    before = wp.get_stream(CUDA).record_event()
    with wp.ScopedCapture(device=CUDA, force_module_load=False):
        stream = wp.get_stream(CUDA)
        append(1, a).run()
        if fault == "waits outside":
            stream.wait_event(before)
        if fault == "not joined":
            side.wait_event(stream.record_event())
        with wp.ScopedStream(side, sync_enter=False):
            append(1, b).run()


@pytest.mark.usefixtures("emulated_cuda")
@pytest.mark.parametrize("fault", ["not joined", "not captured", "waits outside"])
def test_a_wrong_fork_is_noticed(fault: str) -> None:
    told = {"not joined": "not waited for", "not captured": fault, "waits outside": "outside of"}
    with pytest.raises(PtxError, match=told[fault]):
        capture(fault)


QUICK = ("image", "volume")
"""The others take a minute each, and run with ``--emulate-cuda``."""


@pytest.mark.parametrize("name", TASKS)
def test_a_step_as_a_graph_is_the_step(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: Any
) -> None:
    if name not in QUICK and not request.config.getoption("emulate_cuda"):
        pytest.skip("takes long on the emulated device: give --emulate-cuda")
    request.getfixturevalue("emulated_cuda")
    monkeypatch.setattr(samples, "_POOL_SLOTS", 1024)
    found = []
    for is_graph in (False, True):
        folder = tmp_path / str(is_graph)
        folder.mkdir()
        task = make_task(name, folder, CUDA)
        with loading.together(1):
            stages = task.stages()
        task.field.optimizer.n_steps.fill_(100)
        step = recording.recorded_step(stages, CUDA) if is_graph else in_turn(stages)
        for _ in range(3):
            step()
        found.append({k: p.value.numpy().copy() for k, p in task.field.parameters().items()})
    for key, wanted in found[0].items():
        assert np.array_equal(wanted, found[1][key]), key
        assert np.isfinite(wanted).all()


def test_blocks_are_spread(monkeypatch: Any) -> None:
    class Device:
        sm_count = 132

    monkeypatch.setattr(wp, "get_device", lambda name: Device)
    sizes = {n: launch.spread(n, CUDA) for n in (1, 4096, 4224, 8448, 27_000, 10**6)}
    assert sizes == {1: 8, 4096: 8, 4224: 8, 8448: 16, 27_000: 32, 10**6: 64}
    assert launch.spread(1, CUDA, 32) == 32
    for n, size in sizes.items():
        assert size == 8 or np.ceil(n / size) >= 4 * 132
