"""Torch modules in the hands of their users: what models and training loops do to them."""

import copy
import multiprocessing
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ngp_warp.torch as tcnn
from ngp_warp import launch
from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.torch import layout, memory

GRID = {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 10, "base_resolution": 4}
MLP = {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 2}
COMPOSITE = {
    "otype": "Composite",
    "nested": [{"otype": "Frequency", "n_frequencies": 3, "n_dims_to_encode": 2}, GRID],
}
MAKERS = {
    "encoding": lambda: tcnn.Encoding(3, GRID),
    "network": lambda: tcnn.Network(3, 2, MLP),
    "one output": lambda: tcnn.Network(3, 1, MLP),
    "both": lambda: tcnn.NetworkWithInputEncoding(3, 4, GRID, MLP),
    "in torch": lambda: tcnn.NetworkWithInputEncoding(3, 4, GRID, {**MLP, "activation": "SiLU"}),
}


@pytest.fixture(params=MAKERS.values(), ids=MAKERS)
def module(request):
    """A module with parameters of O(1), so that differences show."""
    module = request.param()
    with torch.no_grad():
        module.params.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    return module


def _send(module, x, connection):
    with torch.no_grad():
        connection.send(module(x).numpy())


# torch's own threads are of no use in the child, and are not used there
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_computes_too():
    module, x = tcnn.NetworkWithInputEncoding(3, 4, GRID, MLP), torch.rand(4000, 3)
    launch.set_num_threads(3)
    try:
        with torch.no_grad():
            wanted = module(x).numpy()  # the threads are there now
        fork = multiprocessing.get_context("fork")
        here, there = fork.Pipe()
        child = fork.Process(target=_send, args=(module, x, there))
        child.start()
        try:
            assert here.poll(60), "the child does not end"
            assert np.array_equal(here.recv(), wanted)
        finally:
            child.kill()
            child.join()
    finally:
        launch.set_num_threads(None)
