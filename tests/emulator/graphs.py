"""Work that Warp queues: done at once, or noted for the graph that is being captured.

A captured graph keeps its work as functions and repeats them: what may run first of what was queued
last, so that branches that depend on each other do not give what they give one after another.
"""

import ctypes
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.emulator.variables import PtxError


@dataclass(eq=False)
class Graph:
    """What a capture has noted."""

    origin: int | None = None
    """The stream that is captured."""
    work: list[Callable[[], None]] = field(default_factory=list)
    after: list[frozenset[int]] = field(default_factory=list)
    """What each piece of work waits for, by its number."""
    last: dict[int | None, frozenset[int]] = field(default_factory=dict)
    """By stream what its next piece of work waits for."""
    freed: set[int] = field(default_factory=set)
    """Its own allocations that nobody else holds any more."""

    def note(self, stream: int | None, work: Callable[[], None]) -> None:
        """Note work of a stream.

        Raises:
            PtxError: the stream waits for nothing of the capture.
        """
        if stream not in self.last:
            raise PtxError("work of a stream that is not captured while a graph is")
        self.after.append(self.last[stream])
        self.last[stream] = frozenset([len(self.work)])
        self.work.append(work)

    def check_joined(self) -> None:
        """Raise unless the captured stream waits for all the others."""
        waited: set[int] = set()
        left = list(self.last[self.origin])
        while left:
            number = left.pop()
            if number not in waited:
                waited.add(number)
                left += self.after[number]
        if len(waited) < len(self.work):
            raise PtxError("a stream's work is not waited for where the capture ends")

    def order(self) -> list[int]:
        """Return an order of its work: of what may run, what was queued last."""
        waits = [len(after) for after in self.after]
        then: list[list[int]] = [[] for _ in self.work]
        for number, after in enumerate(self.after):
            for before in after:
                then[before].append(number)
        ready = [-number for number, n in enumerate(waits) if n == 0]
        heapq.heapify(ready)
        found = []
        while ready:
            number = -heapq.heappop(ready)
            found.append(number)
            for next_ in then[number]:
                waits[next_] -= 1
                if waits[next_] == 0:
                    heapq.heappush(ready, -next_)
        return found

    def run(self) -> None:
        """Do its work."""
        for number in self.order():
            self.work[number]()


class Graphs:
    """The functions of Warp's library that capture and launch graphs.

    Args:
        core: Warp's library.
    """

    def __init__(self, core: Any):
        self._core = core
        self._handles = itertools.count(1)
        self._stream: int | None = None
        self._capture: Graph | None = None
        self._graphs: dict[int, Graph] = {}
        """By handle, of a graph or of its executable."""
        self._noted: dict[int, tuple[Graph, frozenset[int]]] = {}
        """By event what a stream had queued for a graph."""

    def _do(self, work: Callable[[], Any]) -> bool:
        """Do something now, or note it for the graph that is being captured."""
        if self._capture is None:
            work()
        elif not self._stream:
            raise PtxError("work of the null stream while a graph is captured")
        else:
            self._capture.note(self._stream, work)
        return True

    def _keep(self, graph: Graph, handle: Any) -> bool:
        number = next(self._handles)
        self._graphs[number] = graph
        handle._obj.value = number
        return True

    def _end(self, graph: Graph) -> None:
        """Called when no handle of a graph is left."""

    def wp_cuda_graph_begin_capture(self, context: int, stream: int, *args: Any) -> bool:
        if self._capture is not None:
            raise PtxError("a capture inside a capture")
        self._capture = Graph(stream, last={stream: frozenset()})
        return True

    def wp_cuda_graph_end_capture(self, context: int, stream: int, graph: Any) -> bool:
        captured, self._capture = self._capture, None
        if captured is None:
            return False
        captured.check_joined()
        return self._keep(captured, graph)

    def _note_event(self, event: int, stream: int) -> None:
        """Note what an event stands for that a stream records."""
        self._noted.pop(event, None)
        if self._capture is not None and stream in self._capture.last:
            self._noted[event] = self._capture, self._capture.last[stream]

    def wp_cuda_stream_wait_event(self, stream: int, event: int, external: bool = False) -> None:
        graph, work = self._noted.get(event, (None, frozenset()))
        if graph is not None and graph is self._capture:
            graph.last[stream] = graph.last.get(stream, frozenset()) | work
        elif self._capture is not None and stream in self._capture.last:
            raise PtxError("a captured stream waits for an event outside of its graph")

    def wp_cuda_graph_create_exec(self, context: int, stream: int, graph: Any, made: Any) -> bool:
        return self._keep(self._graphs[address_of(graph)], made)

    def wp_cuda_graph_launch(self, graph: Any, stream: Any) -> bool:
        return self._do(self._graphs[address_of(graph)].run)

    def wp_cuda_graph_destroy(self, context: int, graph: Any) -> bool:
        ended = self._graphs.pop(address_of(graph))
        if ended not in self._graphs.values():
            self._end(ended)
        return True

    wp_cuda_graph_exec_destroy = wp_cuda_graph_destroy


def address_of(pointer: Any) -> int:
    """Return the address that a pointer of any of ctypes' kinds holds; 0 for None."""
    if pointer is None or isinstance(pointer, int):
        return pointer or 0
    if isinstance(pointer, ctypes.c_void_p):
        return pointer.value or 0
    if hasattr(pointer, "_obj"):  # byref
        return ctypes.addressof(pointer._obj)
    if hasattr(pointer, "contents"):
        return ctypes.cast(pointer, ctypes.c_void_p).value or 0
    return ctypes.addressof(pointer)
