"""Work that Warp queues: done at once, or noted for the graph that is being captured.

A captured graph keeps its work as functions and repeats them.
"""

import ctypes
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.emulator.variables import PtxError


@dataclass(eq=False)
class Graph:
    """What a capture has noted."""

    work: list[Callable[[], None]] = field(default_factory=list)
    freed: set[int] = field(default_factory=set)
    """Its own allocations that nobody else holds any more."""

    def run(self) -> None:
        """Do its work, in order."""
        for work in self.work:
            work()


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

    def _do(self, work: Callable[[], Any]) -> bool:
        """Do something now, or note it for the graph that is being captured."""
        if self._capture is None:
            work()
        elif not self._stream:
            raise PtxError("work of the null stream while a graph is captured")
        else:
            self._capture.work.append(work)
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
        self._capture = Graph()
        return True

    def wp_cuda_graph_end_capture(self, context: int, stream: int, graph: Any) -> bool:
        captured, self._capture = self._capture, None
        return captured is not None and self._keep(captured, graph)

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
