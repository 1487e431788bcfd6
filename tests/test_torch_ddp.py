"""Two processes share a module's gradients (DistributedDataParallel, gloo)."""

import os
import socket
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

import ngp_warp.torch as tcnn

GRID = {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 10, "base_resolution": 4}
NETWORK = {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 2}
N_PROCESSES = 2


def make_module(seed=1337):
    return tcnn.NetworkWithInputEncoding(3, 3, GRID, NETWORK, seed=seed)


def points():
    return torch.rand(64, 3, generator=torch.Generator().manual_seed(0))


def work(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), NGP_NUM_THREADS="1")
    dist.init_process_group("gloo", rank=rank, world_size=N_PROCESSES)
    # each begins elsewhere: the first's parameters are everybody's
    model = DistributedDataParallel(make_module(seed=1337 + rank))
    x = points()[rank::N_PROCESSES]
    (model(x) - x).square().mean().backward()
    torch.save(model.module.params.grad, Path(folder) / f"{rank}.pt")
    dist.barrier()
    # not destroy_process_group: what holds the interpreter's lock then joins gloo's thread, which
    # now and then waits for that lock (torch 2.13)
    os._exit(0)


def test_two_processes_have_the_gradient_of_both_batches():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        processes = mp.spawn(work, (port, folder), nprocs=N_PROCESSES, join=False)
        assert processes is not None
        # it returns when one has ended
        if not any(processes.join(timeout=60) for _ in range(N_PROCESSES)):
            for process in processes.processes:
                process.kill()
            pytest.fail("the processes do not end")
        first, second = (torch.load(Path(folder) / f"{rank}.pt") for rank in range(N_PROCESSES))
    module, x = make_module(), points()
    (module(x) - x).square().mean().backward()
    wanted = module.params.grad
    assert torch.equal(first, second)
    assert wanted.abs().max() > 1e-3
    # the same sums in another order
    assert torch.allclose(first, wanted, atol=1e-6)
    (module(x[::2]) - x[::2]).square().mean().backward()
    assert not torch.allclose(first, module.params.grad - wanted, atol=1e-4)
