"""Laws of processes that end: the others know which, and wait for nothing that it left undone."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import warp as wp

from ngp_warp import distributed, launch, peers, recording
from ngp_warp.errors import LostError
from ngp_warp.peers import Peers
from ngp_warp.processes import Place


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> "Iterator[subprocess.Popen[bytes]]":
    """Another process of this machine; it is looked at each time."""
    monkeypatch.setattr(peers, "_LOOK_SECONDS", 0.0)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def three(pid: int, where: str = "") -> list[tuple[str, int]]:
    here = peers.identity()
    return [here, here, (where or here[0], pid)]


def test_one_that_has_ended_is_named(other: "subprocess.Popen[bytes]") -> None:
    known = Peers(three(other.pid), 0)
    known.check()
    other.kill()
    # its parent has not taken note of it: it is there, and dead
    wanted = f"process 2 (pid {other.pid}) of 3 has ended unexpectedly"
    assert str(known.lost("closed")) == wanted
    with pytest.raises(LostError, match="process 2") as found:
        known.check()
    # the first of those that are left says it
    assert found.value.said_here
    with pytest.raises(LostError) as found:
        Peers(three(other.pid), 1).check()
    assert not found.value.said_here


def test_several_that_have_ended_are_named() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    gone = [(peers.identity()[0], done.pid)] * 2
    error = Peers([peers.identity(), *gone], 0).lost("closed")
    pid = f"(pid {done.pid})"
    assert str(error) == f"processes 1 {pid} and 2 {pid} of 3 have ended unexpectedly"


class Store:
    """What all processes can reach; None of what was in a process that is gone."""

    def __init__(self, number: int | None = 0):
        self.number = number

    def add(self, key: str, amount: int) -> int:
        if self.number is None:
            raise RuntimeError("Connection reset by peer")
        self.number += amount
        return self.number


def test_the_first_that_notices_says_it(other: "subprocess.Popen[bytes]") -> None:
    other.kill()
    other.wait()
    shared = Store()
    errors = [Peers(three(other.pid), rank, shared).lost("closed") for rank in (1, 0)]
    assert [error.said_here for error in errors] == [True, False]
    # else the lowest that is left
    errors = [Peers(three(other.pid), rank, Store(None)).lost("closed") for rank in (1, 0)]
    assert [error.said_here for error in errors] == [False, True]


def test_process_ids_of_other_machines_mean_nothing(
    other: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "_DEATH_SECONDS", 0.0)
    other.kill()
    other.wait()
    known = Peers(three(other.pid, "elsewhere"), 1)
    known.check()
    error = known.lost("Connection reset\nand more")
    assert str(error) == "a process of 3 does not answer: Connection reset"
    assert error.said_here


def test_it_looks_now_and_then(
    other: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    monkeypatch.setattr(peers, "_LOOK_SECONDS", 1e6)
    monkeypatch.setattr(peers, "is_dead", looked.append)
    known = Peers(three(other.pid), 0)
    known._looked = -1e9
    for _ in range(100):
        known.check()
    assert len(looked) == 2


class Queue:
    """A device whose work is done after so many looks; "never" of one that waits for a peer."""

    def __init__(self) -> None:
        self.looks, self.looked = 3, 0
        self.error: Exception | None = None
        self.recorded = 0

    def record(self, stream: Any) -> None:
        assert stream == "warp's cuda:1"
        self.looked, self.recorded = 0, self.recorded + 1

    def query(self) -> bool:
        if self.error:
            raise self.error
        self.looked += 1
        return self.looked > self.looks


@pytest.fixture
def queue(other: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch) -> Queue:
    """A device of the second of three processes, of which the last is ``other``."""
    import torch

    device = Queue()
    monkeypatch.setattr(torch.cuda, "Event", lambda: device)
    monkeypatch.setattr(wp, "stream_to_torch", lambda name: f"warp's {name}")
    monkeypatch.setattr(wp, "synchronize_device", lambda name: None)
    group = distributed.Group(Place(1, 3, 1, 3))
    group.peers = Peers(three(other.pid), 1)
    monkeypatch.setitem(distributed._state, "group", group)
    return device


def run_steps(n: int) -> list[int]:
    done: list[int] = []
    stages = [[launch.Launch([launch.Call(lambda: done.append(1))], "cuda:1", capturable=False)]]
    step = recording.recorded_step(stages, "cuda:1")
    for _ in range(n):
        step()
    return done


def test_steps_wait_for_the_device(queue: Queue) -> None:
    assert len(run_steps(10)) == queue.recorded == 10
    recording.synchronize("cuda:1")
    assert (queue.looked, queue.recorded) == (4, 11)


def test_no_step_waits_for_a_process_that_is_gone(
    queue: Queue, other: "subprocess.Popen[bytes]"
) -> None:
    other.kill()
    other.wait()
    queue.looks = 10**9
    with pytest.raises(LostError, match="process 2"):
        run_steps(10)
    # none is queued behind the one that does not end
    assert queue.recorded == recording._AHEAD
    with pytest.raises(LostError, match="process 2"):
        recording.synchronize("cuda:1")


def test_pictures_wait_for_nobody(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    # their passes are graphs, in which nothing is exchanged
    made: list[str] = []
    monkeypatch.setattr(recording, "_captured", lambda *_: lambda: None)
    monkeypatch.setattr(recording, "_Mark", made.append)
    recording.recorded_step([[launch.Launch([], "cuda:1")]], "cuda:1")
    assert made == ["cuda:1"] * recording._AHEAD


def test_a_device_that_has_failed_is_no_process_that_is_gone(queue: Queue) -> None:
    queue.error = RuntimeError("an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal"):
        recording.synchronize("cuda:1")


def test_a_cpu_is_not_waited_for(queue: Queue) -> None:
    recording.synchronize("cpu")
    assert queue.recorded == 0
