"""Time and signals of a training run."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any


class Length:
    """Turns a time into a number of steps, by the pace of a warm-up's later half.

    The first half finds cold caches; checkpoints that are being written slow both.
    """

    def __init__(self) -> None:
        self._halfway: tuple[int, float] | None = None

    def decide(
        self,
        step: int,
        seconds: float,
        share: float,
        clock: "Clock",
        synchronize: Callable[[], None],
    ) -> int | None:
        """Return the number of steps once the warm-up, a share of the time, is over, else None.

        Args:
            step: steps so far.
            seconds: that the run is to take.
            share: of them, for the warm-up.
            clock: of the run.
            synchronize: waits for the device.
        """
        warm_up = seconds * share
        if self._halfway is None and clock.seconds() >= 0.5 * warm_up:
            synchronize()
            self._halfway = (step, clock.seconds())
        elif self._halfway is not None and clock.seconds() >= warm_up:
            synchronize()
            before, then = self._halfway
            pace = (clock.seconds() - then) / (step - before)
            return step + round(max(seconds - clock.seconds(), 0.0) / pace)
        return None


class Due:
    """When the first process has last done what it does now and then."""

    def __init__(self, clock: "Clock"):
        self.clock = clock
        self.saved = self.noted = self.reported = clock.seconds()


class Clock:
    """Seconds of training, those of the runs before included."""

    def __init__(self, before: float):
        self._start = time.perf_counter() - before

    def seconds(self) -> float:
        """Return them."""
        return time.perf_counter() - self._start


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a flag, so that no step is cut in two.

    A second signal acts at once. Outside the main thread signals are left alone.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(number: int, frame: Any) -> None:
        received.append(number)
        for name, handler in before.items():
            signal.signal(name, handler)

    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    for name in before:
        signal.signal(name, note)
    try:
        yield lambda: bool(received)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
