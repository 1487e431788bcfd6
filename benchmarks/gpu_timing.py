"""Times on a device: CUDA's own events around work that is queued, a clock on a CPU."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import warp as wp

from ngp_warp import launch
from ngp_warp.launch import Stages
from ngp_warp.recording import is_capturable, recorded_step

_WARM_UP = 3
_WARM_UP_S = 0.2
"""On CUDA: an idle GPU takes a while to reach its clock."""


def synchronize(device: str) -> None:
    """Wait for all work on a device; on a CPU nothing is ever pending."""
    if device != "cpu":
        wp.synchronize_device(device)


def milliseconds(
    run: Callable[[], Any],
    device: str,
    *,
    repeats: int = 7,
    inner: int = 20,
    warm_up: int = _WARM_UP,
    warm_up_seconds: float = _WARM_UP_S,
) -> float:
    """Return the median time of one call, device time on CUDA.

    Caches are as the calls leave them: what is small enough is in the second one, as in training.

    Args:
        run: queues the work on the device's stream, and does not wait for it.
        device: "cpu" or a CUDA device.
        repeats: measurements.
        inner: calls of a measurement, between two events.
        warm_up: calls before.
        warm_up_seconds: and on CUDA more of them for so long.
    """
    for _ in range(warm_up):
        run()
    synchronize(device)
    hot = time.perf_counter() + (0.0 if device == "cpu" else warm_up_seconds)
    while time.perf_counter() < hot:
        for _ in range(inner):
            run()
        synchronize(device)
    found = []
    for _ in range(repeats):
        if device == "cpu":
            begin = time.perf_counter()
            for _ in range(inner):
                run()
            found.append((time.perf_counter() - begin) * 1e3 / inner)
            continue
        first, last = (wp.Event(device, enable_timing=True) for _ in range(2))
        stream = wp.get_stream(device)
        stream.record_event(first)
        for _ in range(inner):
            run()
        stream.record_event(last)
        found.append(float(wp.get_event_elapsed_time(first, last)) / inner)
    return statistics.median(found)


def host_milliseconds(run: Callable[[], Any], device: str, *, inner: int = 50) -> float:
    """Return the host's median time to queue one call, the device idle before each."""
    found = []
    for _ in range(inner):
        synchronize(device)
        begin = time.perf_counter()
        run()
        found.append((time.perf_counter() - begin) * 1e3)
    synchronize(device)
    return statistics.median(found)


def is_graph(stages: Stages, device: str) -> bool:
    """Return whether training captures these stages as a graph."""
    return device != "cpu" and all(is_capturable(stage, device) for stage in stages)


def stage_times(
    stages: Stages, device: str, *, repeats: int = 5, inner: int = 20
) -> list[tuple[str, float]]:
    """Return the name and the milliseconds of every stage, in their order.

    On CUDA launches of a stage run one after another, and each counts as a stage: it takes what
    steps that end with it take longer than those that end before it. ``inner`` of them are one
    graph: a short one would wait for the host between two. On a CPU each is timed inside of whole
    steps.
    """
    stages = parted(stages, device)
    names = [stage_name(stage) for stage in stages]
    if device == "cpu":
        return list(zip(names, _clocked(stages, repeats), strict=True))
    found, before = [], 0.0
    for end in range(1, len(stages) + 1):
        run = recorded_step(stages[:end] * inner, device)
        now = (
            milliseconds(run, device, repeats=repeats, inner=1, warm_up=1, warm_up_seconds=0.0)
            / inner
        )
        found.append(max(now - before, 0.0))
        before = max(now, before)
    return list(zip(names, found, strict=True))


def parted(stages: Stages, device: str) -> Stages:
    """Return what is timed by itself: stages on a CPU, which runs one side by side, or launches."""
    if device == "cpu":
        return stages
    return [[item] for stage in launch.in_turn(stages) for item in stage if item.commands]


def _clocked(stages: Stages, repeats: int) -> list[float]:
    times: list[list[float]] = [[] for _ in stages]
    for round_ in range(repeats + 1):
        for index, stage in enumerate(stages):
            begin = time.perf_counter()
            launch.run_all(stage)
            if round_:
                times[index].append((time.perf_counter() - begin) * 1e3)
    return [statistics.median(values) for values in times]


def stage_name(stage: Sequence[launch.Launch]) -> str:
    """Return what a stage launches: "module.factory", joined by "+"."""
    names: list[str] = []
    for item in stage:
        for command in item.commands:
            name = _command_name(command)
            if name not in names:
                names.append(name)
    return " + ".join(names)


def _command_name(command: Any) -> str:
    if isinstance(command, launch.Call):
        name = getattr(command.launch, "__qualname__", "call")
        return name.partition(".<locals>")[0]
    function = command.kernel.func
    module = function.__module__.rpartition(".")[2]
    return f"{module}.{function.__qualname__.partition('.')[0]}"


def count_launches(stages: Stages) -> int:
    """Return the kernels and other operations of a step; runs it once."""
    with _counted() as count:
        for stage in launch.in_turn(stages):
            for item in stage:
                for command in item.commands:
                    if not isinstance(command, launch.Call):
                        count[0] += 1
                        command.launch()
                        continue
                    before = count[0]
                    command.launch()
                    # what launches nothing through Warp's function is one copy or memset
                    count[0] += count[0] == before
    return count[0]


@contextmanager
def _counted() -> Iterator[list[int]]:
    """Count calls of ``wp.launch``."""
    count, original = [0], wp.launch

    def launch_and_count(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        return original(*args, **kwargs)

    wp.launch = launch_and_count
    try:
        yield count
    finally:
        wp.launch = original
