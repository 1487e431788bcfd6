"""Several processes that train one field: who they are, how they agree, what happens if one ends.

``torchrun`` starts them and says so in the environment (``processes.py``). Without it there is one
process, and nothing here costs anything: torch is imported where there are several. What they
exchange in a step is in ``exchange.py``.

Two groups of torch.distributed: one for what a step exchanges, whose members wait for each other
for ``NGP_PROCESS_TIMEOUT`` seconds, and one on which they wait while the first one saves or
evaluates. A process that has died closes its connections, which gloo reports at once.
"""

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from ngp_warp.errors import ConfigError, LostError, NgpError, PeerError, ResourceError
from ngp_warp.peers import Peers, identity
from ngp_warp.processes import Place, launcher, place, store_lasts, timeout

_T = TypeVar("_T")

# an evaluation of a gigapixel image takes hours
_PATIENCE = datetime.timedelta(days=30)
# On CUDA the host runs ahead of the device; agreeing rarely keeps it ahead.
_CUDA_STEPS = 16
_STREAM = 0x1B873593


class Group:
    """The processes of a run; of one process, every method does nothing.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
        marks: uint8 arrays of flags that each process sets by itself, united before it is saved.
        peers: tells who has ended.
        step: torch's group for what a step exchanges.
    """

    def __init__(self, here: Place | None = None):
        self.here = here or Place()
        self.rank, self.size = self.here.rank, self.here.size
        self.marks: list[Any] = []
        self.peers = Peers([], self.rank)
        self.step: Any = None
        self._waiting: Any = None
        self._every = 1
        self._launcher: int | None = None

    @property
    def leads(self) -> bool:
        """Whether this process decides, writes and speaks for all."""
        return self.rank == 0

    @property
    def abandoned(self) -> bool:
        """Whether torchrun, which would end this process with the others, is gone itself."""
        return self._launcher is not None and os.getppid() != self._launcher

    def _join(self) -> None:
        """Find the other processes.

        Raises:
            ResourceError: they cannot be reached.
            ConfigError: the timeout is no number.
        """
        import torch.distributed as dist

        self._launcher = launcher()
        try:
            self.step, self._waiting = _groups()
            found: list[Any] = [None] * self.size
            dist.all_gather_object(found, identity(), group=self._waiting)
        except (RuntimeError, ValueError) as error:
            text = str(error).partition("\n")[0]
            unreached = ResourceError(f"cannot reach the other processes: {text}")
            unreached.said_here = True  # the first one may not be there to say it
            raise unreached from error
        # torch has no public name for it
        store = dist.distributed_c10d._get_default_store() if store_lasts() else None
        self.peers = Peers(found, self.rank, store)

    def choose_device(self, name: str | None) -> str:
        """Return the device of this process; see ``launch.resolve_device``.

        Raises:
            ConfigError: a device that several processes would share, or kinds that differ.
            ResourceError: no device is left for this process, or torch cannot reach the others.
        """
        # late: a command's help has no use for Warp
        import warp as wp

        from ngp_warp import launch

        local = self.here.local_size
        if self.size == 1 or name == "cpu":
            return launch.resolve_device(name)
        ordinal = (name or "auto").partition(":")[2]
        if ordinal and local > 1:
            raise ConfigError(
                f"device {name} would be shared by {local} processes; give cuda: each takes its own"
            )
        device = launch.resolve_device(name)
        if device != "cpu" and not ordinal:
            n_cuda = wp.get_cuda_device_count()
            if self.here.local_rank >= n_cuda:
                raise ResourceError(
                    f"{local} processes on this machine need as many CUDA devices, and Warp finds "
                    f"{n_cuda}; start fewer, or give --device cpu"
                )
            device = f"cuda:{self.here.local_rank}"
        return device

    def settle(self, device: str) -> None:
        """Take note of the device that all of a run's processes have the like of.

        Raises:
            ConfigError: some are on a CPU and some on CUDA.
            ResourceError: torch cannot exchange what lies on CUDA devices.
        """
        if self.size == 1:
            return
        on_cuda = int(device != "cpu")
        most, least = self.agree(on_cuda, 1 - on_cuda)
        if most and least:
            raise ConfigError("some processes have a CUDA device and some have none; give --device")
        with self.together():
            if on_cuda:
                self._use_cuda(device)

    def _use_cuda(self, device: str) -> None:
        import torch
        import torch.distributed as dist

        if not (torch.cuda.is_available() and dist.is_nccl_available()):
            raise ResourceError(
                "several processes on CUDA need a PyTorch with CUDA and NCCL, and this one has "
                "none; install that, or start one process"
            )
        torch.cuda.set_device(device)
        self._every = _CUDA_STEPS

    def agree(self, *values: int, soon: bool = False) -> list[int]:
        """Return the largest of each value over the processes; all must call it.

        Args:
            values: this process's.
            soon: give up as a step does, where none has more to do than the others.

        Raises:
            LostError: one of them is gone.
        """
        if self.size == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        found = torch.tensor(values, dtype=torch.int64)
        with self.watched():
            dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self.step if soon else self._waiting)
        return found.tolist()

    def agrees_after(self, step: int, n_steps: int) -> bool:
        """Whether the processes agree on how to go on after a step of ``n_steps`` (0: not known).

        After every step on a CPU; now and then on CUDA.
        """
        return step % self._every == 0 or step == n_steps

    def share(self, value: _T) -> _T:
        """Return the first process's value; all must call it.

        Raises:
            LostError: one of them is gone.
        """
        if self.size == 1:
            return value
        import torch.distributed as dist

        box = [value if self.leads else None]
        with self.watched():
            dist.broadcast_object_list(box, src=0, group=self._waiting)
        return box[0]  # type: ignore[return-value]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Wait at the block's end for all; where it raises in one process, it does in all.

        The first one that raised keeps its error, which it should say; the others raise PeerError.

        Raises:
            PeerError: it raised elsewhere.
            LostError: a process is gone.
        """
        if self.size == 1:
            yield
            return
        try:
            yield
        except LostError:
            raise
        except BaseException as error:
            first = self.rank
            with suppress(LostError):
                first = self.size - self.agree(self.size - self.rank)[0]
            if isinstance(error, Exception) and first < self.rank:
                raise PeerError(f"process {first} has ended the run") from None
            if isinstance(error, NgpError):
                error.said_here = True
            raise
        # the lowest rank that failed, counted from the other end; 0: none
        if failed := self.agree(0)[0]:
            raise PeerError(f"process {self.size - failed} has ended the run")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Turn what torch.distributed raises into a LostError."""
        try:
            yield
        except RuntimeError as error:
            raise self.peers.lost(str(error)) from error

    def check_equal(self, digest: int, what: str) -> None:
        """Raise unless all processes have the same number; all must call it.

        Raises:
            ResourceError: they differ.
            LostError: one of them is gone.
        """
        most, least = self.agree(digest, -digest)
        if most != -least:
            raise ResourceError(
                f"the processes' {what} have come to differ: their machines compute differently; "
                "start all on machines of one kind"
            )

    def stream(self, seed: int) -> int:
        """Return the seed of this process's own random numbers, a non-negative 32-bit int."""
        return (seed + self.rank * _STREAM) & 0x7FFFFFFF

    def part(self, total: int) -> int:
        """Return this process's part of what a step uses in all; see ``whole``."""
        return total // self.size

    @property
    def place_of_part(self) -> tuple[int, int]:
        """Which of how many equal parts of a batch is this process's."""
        return self.rank, self.size

    def whole(self, total: int, multiple: int = 1) -> int:
        """Round up to what every process has an equal part of, a multiple of ``multiple``."""
        unit = multiple * self.size
        return -(-total // unit) * unit


def _groups() -> tuple[Any, Any]:
    """Return torch's group of a step, and the one on which all wait; they serve every run."""
    import torch
    import torch.distributed as dist

    cuda = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    # one that a program has made itself may know CUDA alone, or a CPU
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group(backend, timeout=timeout())
    world = dist.group.WORLD
    if _state["world"] is not world:
        step = world if ours else dist.new_group(backend=backend, timeout=timeout())
        waiting = dist.new_group(backend="gloo", timeout=_PATIENCE)
        _state.update(world=world, groups=(step, waiting))
    return _state["groups"]


_state: dict[str, Any] = {"group": Group(), "world": None, "groups": None}


def current() -> Group:
    """Return the processes of the run in hand; of one process where there is none."""
    return _state["group"]


@contextmanager
def joined() -> Iterator[Group]:
    """Join the processes that torchrun has started, for one run.

    Raises:
        ResourceError: they cannot be reached.
        ConfigError: the environment contradicts itself.
    """
    group = Group(place())
    if group.size > 1:
        group._join()
    before, _state["group"] = _state["group"], group
    try:
        yield group
    finally:
        _state["group"] = before
