"""A training step as a function: on CUDA its launches as captured graphs."""

import time
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import warp as wp

from ngp_warp import launch
from ngp_warp.distributed import current
from ngp_warp.launch import Stages
from ngp_warp.peers import Peers

_AHEAD = 4
"""Steps that may be queued on CUDA. Unbounded, a host that needs microseconds to queue a step would
be seconds ahead of the device: its clock, what it reports and Ctrl-C would be about other steps."""

_PAUSE_SECONDS = 5e-5
"""Between two looks at a device: a small part of a step, of which _AHEAD are queued."""


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

    # what processes exchange is in no graph; passes of pictures are one, and wait for nobody
    shared = current().size > 1 and not all(is_capturable(stage, device) for stage in stages)
    return _bounded(run, [_mark(device, shared=shared) for _ in range(_AHEAD)])


def is_capturable(stage: list[launch.Launch], device: str) -> bool:
    """Return whether a graph may hold a stage: a CPU's launch would run as it is captured."""
    return all(item.capturable and item.device == device for item in stage)


def _direct(stages: Stages) -> Callable[[], None]:
    return lambda: launch.run_stages(stages)


def _captured(stages: Stages, device: str) -> Callable[[], None]:
    # Every module was loaded when its launch was recorded. Loading all there are would try to
    # compile the CPU's vector kernels for CUDA.
    streams = iter([wp.Stream(device) for _ in range(_n_beside(stages))])
    with wp.ScopedCapture(device=device, force_module_load=False) as capture:
        _queue(stages, device, streams)
    graph: Any = capture.graph

    def replay(kept: Stages = stages) -> None:
        """Run the graph; it holds addresses alone, ``kept`` the arrays behind them."""
        wp.capture_launch(graph)

    return replay


def _branches(stage: list[launch.Launch]) -> list[launch.Launch]:
    return [item for item in stage if item.commands]


def _n_beside(stages: Stages) -> int:
    """Return the number of streams that are wanted beside the first one."""
    sides = sum(max(len(_branches(stage)) - 1, 0) for stage in stages)
    return sides + sum(_n_beside(item.parts) for stage in stages for item in stage)


def _queue(stages: Stages, device: str, streams: Iterator[wp.Stream]) -> None:
    """Queue stages for the graph that is captured, a stage's launches as its branches.

    The others than the first are queued on streams of their own, which wait for the first one's,
    and it for them.
    """
    stream = wp.get_stream(device)
    for stage in stages:
        branches = _branches(stage)
        if len(branches) < 2:
            for item in branches:
                _queue_one(item, device, streams)
            continue
        begin = stream.record_event()
        _queue_one(branches[0], device, streams)
        for item in branches[1:]:
            side = next(streams)
            side.wait_event(begin)
            with wp.ScopedStream(side, sync_enter=False):
                _queue_one(item, device, streams)
            stream.wait_event(side.record_event())


def _queue_one(item: launch.Launch, device: str, streams: Iterator[wp.Stream]) -> None:
    if item.parts:
        _queue(item.parts, device, streams)
    else:
        item.run()


def _bounded(step: Callable[[], None], marks: "list[_Mark | _SharedMark]") -> Callable[[], None]:
    """Return a step that first waits for the one as many before it as there are marks."""
    number = 0

    def run() -> None:
        nonlocal number
        mark = marks[number % len(marks)]
        if number >= len(marks):
            mark.wait()
        step()
        mark.set()
        number += 1

    return run


def synchronize(device: str) -> None:
    """Wait for what is queued on a device; of several processes, while all of them live.

    Raises:
        LostError: one of them has ended.
    """
    if device == "cpu":
        return
    mark = _mark(device, shared=current().size > 1)
    mark.set()
    mark.wait()
    wp.synchronize_device(device)


class _Mark:
    """A place in a device's queue that the host can wait for."""

    def __init__(self, device: str):
        self._device, self._event = device, wp.Event(device)

    def set(self) -> None:
        wp.get_stream(self._device).record_event(self._event)

    def wait(self) -> None:
        wp.synchronize_event(self._event)


class _SharedMark:
    """The same where several processes train: it does not wait for what one of them left undone.

    A collective waits on the device itself for a process that is gone, without an end, and a host
    that waits for the device hears no signal either. torch's event, for Warp's tells a device that
    has failed from one that is at work on stderr alone.
    """

    def __init__(self, device: str, peers: Peers):
        import torch

        self._device, self._peers, self._event = device, peers, torch.cuda.Event()

    def set(self) -> None:
        self._event.record(wp.stream_to_torch(self._device))

    def wait(self) -> None:
        while not self._event.query():
            self._peers.check()
            time.sleep(_PAUSE_SECONDS)


def _mark(device: str, *, shared: bool) -> _Mark | _SharedMark:
    return _SharedMark(device, current().peers) if shared else _Mark(device)
