"""What the processes of a run exchange in a step, as recorded launches; one has none.

Gradients are summed over the processes and divided by their number: each one's loss is a mean over
its own part of the batch. torch's tensors share the Warp arrays' memory. A launch of these is a
stage of its own, for collectives must come in the same order everywhere. All processes get the same
bits: gloo and NCCL sum a value in one place and send it to all.

On CUDA the collectives are queued on Warp's stream, between captured graphs; no host waits.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import warp as wp

from ngp_warp import distributed
from ngp_warp.launch import Call, Launch, Stages
from ngp_warp.table_exchange import TableExchange

if TYPE_CHECKING:
    from ngp_warp.optimizer import Parameters

# Touched groups of all processes, as a share of a table's, above which it is sent as a whole.
_DENSE_SHARE = 1.0


def sum_gradients(parameters: "Sequence[Parameters]", device: str) -> Stages:
    """Record: gradients become their means over the processes, marks of groups their unions."""
    if distributed.current().size == 1:
        return []
    whole = [_tensor(p.gradient) for p in parameters if p.touched is None]
    tables = [(p.gradient, p.touched) for p in parameters if p.touched is not None]
    if device == "cpu" and all(p.gradient.dtype == wp.float32 for p in parameters):
        size = distributed.current().size
        exchanges = [TableExchange(*table, size) for table in tables]
        return _stage(lambda: _exchange_on_cpu(whole, exchanges), device)
    shared = [(_tensor(gradient), _tensor(touched)) for gradient, touched in tables]

    def exchange() -> None:
        for gradient, touched in shared:
            _unite(touched)
            _average(gradient)
        for gradient in whole:
            _average(gradient)

    return _stage(exchange, device)


def sum_values(array: wp.array, device: str, *, mean: bool = False) -> Stages:
    """Record: values become their sums over the processes, or their means."""
    if distributed.current().size == 1:
        return []
    tensor = _tensor(array)
    return _stage(lambda: (_average if mean else _sum)(tensor), device)


def unite_marks(array: wp.array, device: str) -> Stages:
    """Record: a uint8 mark that any process has set is set in all."""
    if distributed.current().size == 1:
        return []
    tensor = _tensor(array)
    return _stage(lambda: _unite(tensor), device)


def unite(group: distributed.Group, device: str) -> None:
    """Make the group's marks the same in all processes, which all must call it."""
    for array in group.marks:
        for (launch,) in unite_marks(array, device):
            launch.run()


def _stage(work: Callable[[], None], device: str) -> Stages:
    group = distributed.current()

    def call() -> None:
        with group.watched(), _on_stream(device):
            work()

    return [[Launch([Call(call)], device, capturable=False)]]


def _on_stream(device: str) -> AbstractContextManager[Any]:
    """Make Warp's current stream torch's."""
    if device == "cpu":
        return nullcontext()
    import torch

    return torch.cuda.stream(wp.stream_to_torch(device))


def _tensor(array: wp.array) -> Any:
    return wp.to_torch(array, requires_grad=False)


def _sum(tensor: Any) -> None:
    import torch.distributed as dist

    dist.all_reduce(tensor, group=distributed.current().step)


def _average(tensor: Any) -> None:
    _sum(tensor)
    rounding = None if tensor.is_floating_point() else "trunc"
    tensor.div_(distributed.current().size, rounding_mode=rounding)


def _unite(tensor: Any) -> None:
    import torch.distributed as dist

    dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=distributed.current().step)


def _gather(everybody: Any, mine: Any) -> None:
    import torch.distributed as dist

    parts = list(everybody.split(len(mine)))
    dist.all_gather(parts, mine, group=distributed.current().step)


def _exchange_on_cpu(weights: list[Any], tables: list[TableExchange]) -> None:
    """Average weights in one message, and the touched groups of tables."""
    import torch

    for table in tables:
        _gather(_tensor(table.counts), torch.tensor([table.count()], dtype=torch.int32))
        if int(table.counts.numpy().sum()) > _DENSE_SHARE * table.n_groups:
            _unite(_tensor(table.touched))
            _average(_tensor(table.gradient))
        else:
            message, messages = table.pick()
            _gather(_tensor(messages), _tensor(message))
            table.add()
    if weights:
        joined = torch.cat(weights)
        _average(joined)
        sizes = [gradient.numel() for gradient in weights]
        for gradient, part in zip(weights, joined.split(sizes), strict=True):
            gradient.copy_(part)
