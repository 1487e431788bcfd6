"""A training step as a function: on CUDA its launches as captured graphs."""

from collections.abc import Callable
from itertools import groupby
from typing import Any

import warp as wp

from ngp_warp import launch
from ngp_warp.launch import Stages

_AHEAD = 4
"""Steps that may be queued on CUDA. Unbounded, a host that needs microseconds to queue a step would
be seconds ahead of the device: its clock, what it reports and Ctrl-C would be about other steps."""


def recorded_step(stages: Stages, device: str) -> Callable[[], None]:
    """Return a function that runs one step.

    On CUDA, what lies between stages that no graph may hold (copies from the host, what several
    processes exchange) is one captured graph each.
    """
    if device == "cpu":
        return lambda: launch.run_stages(stages)
    parts = [
        _captured(list(part), device) if capturable else _direct(list(part))
        for capturable, part in groupby(stages, key=lambda stage: is_capturable(stage, device))
    ]

    def run() -> None:
        for part in parts:
            part()

    return _bounded(run, device)


def is_capturable(stage: list[launch.Launch], device: str) -> bool:
    """Return whether a graph may hold a stage: a CPU's launch would run as it is captured."""
    return all(item.capturable and item.device == device for item in stage)


def _direct(stages: Stages) -> Callable[[], None]:
    return lambda: launch.run_stages(stages)


def _captured(stages: Stages, device: str) -> Callable[[], None]:
    # Every module was loaded when its launch was recorded. Loading all there are would try to
    # compile the CPU's vector kernels for CUDA.
    with wp.ScopedCapture(device=device, force_module_load=False) as capture:
        launch.run_stages(stages)
    graph: Any = capture.graph

    def replay(kept: Stages = stages) -> None:
        """Run the graph; it holds addresses alone, ``kept`` the arrays behind them."""
        wp.capture_launch(graph)

    return replay


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
