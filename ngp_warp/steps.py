"""A recorded training step as one function: on CUDA a graph that is run again and again."""

from collections.abc import Callable
from typing import Any

import warp as wp

from ngp_warp import launch

_AHEAD = 4
"""Steps that may be queued on CUDA. Unbounded, a host that needs microseconds to queue a step would
be seconds ahead of the device: its clock, what it reports and Ctrl-C would be about other steps."""


def recorded_step(stages: list[list[launch.Launch]], device: str) -> Callable[[], None]:
    """Return a function that runs one step: on CUDA a captured graph, where it can be one."""

    def run() -> None:
        for stage in stages:
            launch.run_all(stage)

    if device == "cpu":
        return run
    if not all(item.capturable for stage in stages for item in stage):
        return _bounded(run, device)
    # Every module was loaded when its launch was recorded. Loading all there are would try to
    # compile the CPU's vector kernels for CUDA.
    with wp.ScopedCapture(device=device, force_module_load=False) as capture:
        run()
    graph: Any = capture.graph

    def replay(kept: list[list[launch.Launch]] = stages) -> None:
        """Run the graph; it holds addresses alone, ``kept`` the arrays behind them."""
        wp.capture_launch(graph)

    return _bounded(replay, device)


def _bounded(step: Callable[[], None], device: str) -> Callable[[], None]:
    """Return a step that first waits for the one ``_AHEAD`` before it."""
    events = [wp.Event(device) for _ in range(_AHEAD)]
    number = 0

    def run() -> None:
        nonlocal number
        event = events[number % _AHEAD]
        if number >= _AHEAD:
            wp.synchronize_event(event)
        step()
        wp.get_stream(device).record_event(event)
        number += 1

    return run
