"""Launches: the same bits for any number of threads, and errors that reach the caller."""

import os
import signal
import sys
import tempfile
import threading
import time

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.config import GridEncodingConfig, NetworkConfig, OptimizerConfig
from ngp_warp.encodings.grid import resolve
from ngp_warp.errors import ConfigError, ResourceError
from ngp_warp.field import Field
from ngp_warp.samplers import sample
from tests.grid_case import GridCase, small


@pytest.fixture(autouse=True)
def threads_as_before():
    before = launch.num_threads()
    yield
    launch.set_num_threads(before)


def train(n_dims, sampler, device):
    """Return every array of a few training steps and of a query."""
    encoding = resolve(GridEncodingConfig(n_levels=5, finest_resolution=200, log2_hashmap_size=10))
    settings = {"optimizer": OptimizerConfig(ema_decay=0.9), "seed": 2, "device": device}
    field = Field(n_dims, 3, encoding=encoding, network=NetworkConfig(), **settings)
    n = 70 * 32
    x, target = field.zeros(n, n_dims), field.zeros(n, 3)
    target.assign(np.random.default_rng(0).random(n * 3, dtype=np.float32))
    stages, sums = field.train_stages(x, target, n - 5, "l2")
    draw = sample(sampler, n_dims, 2, field.optimizer.step, x, device)
    for stage in ([draw], [field.optimizer.advance()], *stages) * 4:
        launch.run_all(stage)
    points = np.random.default_rng(1).random((100, n_dims))
    arrays = {"x": x, "sums": sums}
    for name, parameters in field.parameters().items():
        arrays |= {f"{name}.{key}": array for key, array in parameters.state().items()}
    result = {name: array.numpy().copy() for name, array in arrays.items()}
    result["values"], result["jacobian"] = field.value_and_gradient(points)
    return result


@pytest.mark.parametrize(
    ("n_dims", "sampler"), [(2, "stratified"), (3, "uniform"), (2, "sobol"), (3, "halton")]
)
def test_training_has_the_same_bits_for_any_number_of_threads(n_dims, sampler):
    launch.set_num_threads(1)
    wanted = train(n_dims, sampler, "cpu")
    assert np.abs(wanted["encoding.first_moment"]).max() > 0
    for n_threads in (2, 3, 5):
        launch.set_num_threads(n_threads)
        for name, array in train(n_dims, sampler, "cpu").items():
            assert np.array_equal(array, wanted[name]), name


@pytest.mark.parametrize("backend", ["vector", "portable"])
def test_gradients_have_the_same_bits_for_any_number_of_threads(backend):
    def gradients():
        case = GridCase(3, small(interpolation="smoothstep"), "cpu", backend, n=1000)
        return [case.forward(), *case.backward(), case.input_gradient(), *case.second_order()]

    launch.set_num_threads(1)
    wanted = gradients()
    for n_threads in (2, 3, 5):
        launch.set_num_threads(n_threads)
        for got, array in zip(gradients(), wanted, strict=True):
            assert np.array_equal(got, array)


@wp.kernel(enable_backward=False)
def count_items(begin: int, value: int, counts: wp.array(dtype=int)):
    i = begin + wp.tid()
    counts[i] = counts[i] + value


@pytest.mark.parametrize("n_items", [0, 1, 2, 7, 1000])
def test_every_item_is_worked_on_once(device, n_items):
    for n_threads in (1, 3):
        launch.set_num_threads(n_threads)
        counts = wp.zeros(1000, dtype=int, device=device)
        item = launch.record(count_items, n_items, [1, counts], device)
        item.run()
        item.run()
        assert counts.numpy().tolist() == [2] * n_items + [0] * (1000 - n_items)


def test_recordings_outlive_a_change_of_threads(device):
    counts = wp.zeros(100, dtype=int, device=device)
    launch.set_num_threads(3)
    item = launch.record(count_items, 100, [1, counts], device)
    for n_threads in (1, 2, 5):
        launch.set_num_threads(n_threads)
        item.run()
    assert counts.numpy().tolist() == [3] * 100


class Command:
    """Stands in for a recorded Warp launch; the barrier makes sure that threads share the work."""

    def __init__(self, barrier, error=None):
        self.barrier, self.error = barrier, error
        self.thread = None

    def launch(self):
        self.thread = threading.get_ident()
        self.barrier.wait(timeout=10)
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("failing", [(0,), (1,), (0, 1)])
def test_an_error_in_any_thread_reaches_the_caller(failing):
    launch.set_num_threads(2)
    barrier = threading.Barrier(2)
    commands = [Command(barrier, OSError("broken") if i in failing else None) for i in range(2)]
    with pytest.raises(OSError, match="broken"):
        launch.run_all([launch.Launch(commands, "cpu")])
    assert len({command.thread for command in commands}) == 2
    # it is told once, and the pool still works
    commands = [Command(barrier) for _ in range(2)]
    launch.run_all([launch.Launch(commands, "cpu")])
    assert len({command.thread for command in commands}) == 2


class SlowCommand(Command):
    """Takes its time on a helper; may interrupt the main thread, which then waits for it."""

    def __init__(self, barrier, interrupt=False):
        super().__init__(barrier)
        self.interrupt, self.done = interrupt, False

    def launch(self):
        super().launch()
        main = threading.main_thread().ident
        if self.thread != main:
            time.sleep(0.1)
            if self.interrupt:
                signal.pthread_kill(main, signal.SIGINT)
                time.sleep(0.1)
        self.done = True


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_an_interrupted_launch_does_not_cut_the_next_ones_short():
    launch.set_num_threads(2)
    barrier = threading.Barrier(2)
    interrupted = [SlowCommand(barrier, interrupt=True) for _ in range(2)]
    # a shell's background jobs start with the signal ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            launch.run_all([launch.Launch(interrupted, "cpu")])
    finally:
        signal.signal(signal.SIGINT, before)
    # the helper too: it might write to arrays that the interruption frees
    assert all(command.done for command in interrupted)
    for _ in range(2):
        commands = [SlowCommand(barrier) for _ in range(2)]
        launch.run_all([launch.Launch(commands, "cpu")])
        assert all(command.done for command in commands)


def test_launches_from_several_threads_do_not_mix():
    launch.set_num_threads(2)
    counts = [wp.zeros(64, dtype=int, device="cpu") for _ in range(3)]
    items = [launch.record(count_items, 64, [1, array], "cpu") for array in counts]
    errors = []

    def work(item):
        try:
            for _ in range(300):
                item.run()
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(item,), daemon=True) for item in items]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=30)
    assert errors == []
    assert not any(worker.is_alive() for worker in workers)
    assert all(array.numpy().tolist() == [300] * 64 for array in counts)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", " ", "²", "1000000"])
def test_wrong_numbers_of_threads_are_refused(monkeypatch, text):
    monkeypatch.setenv("NGP_NUM_THREADS", text)
    with pytest.raises(ConfigError, match=r"threads|NGP_NUM_THREADS"):
        launch.set_num_threads(None)


def test_threads_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("NGP_NUM_THREADS", "3")
    launch.set_num_threads(None)
    assert launch.num_threads() == 3
    monkeypatch.setenv("NGP_NUM_THREADS", "")
    launch.set_num_threads(None)
    assert launch.num_threads() >= 1
    with pytest.raises(ConfigError, match="at least 1"):
        launch.set_num_threads(0)


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "cpu:0", "cuda:²", "CUDA"])
def test_unknown_devices_are_refused(name):
    with pytest.raises(ConfigError, match="device must be"):
        launch.resolve_device(name)


def test_devices(monkeypatch):
    monkeypatch.setattr(wp, "get_cuda_device_count", lambda: 0)
    assert launch.resolve_device(None) == launch.resolve_device("cpu") == "cpu"
    assert launch.resolve_device("auto") == "cpu"
    with pytest.raises(ResourceError, match="cuda is not there"):
        launch.resolve_device("cuda")
    monkeypatch.setattr(wp, "get_cuda_device_count", lambda: 2)
    assert launch.resolve_device("auto") == launch.resolve_device("cuda") == "cuda:0"
    assert launch.resolve_device("cuda:1") == "cuda:1"
    with pytest.raises(ResourceError, match="cuda:2"):
        launch.resolve_device("cuda:2")


def test_a_command_may_launch(device):
    launch.set_num_threads(2)
    counts = [wp.zeros(64, dtype=int, device=device) for _ in range(2)]
    inner = [launch.record(count_items, 64, [1, array], device) for array in counts]
    calls = [launch.Call(item.run) for item in inner]
    launch.run_all([launch.Launch(calls, device, capturable=False)])
    assert all(array.numpy().tolist() == [1] * 64 for array in counts)


@pytest.mark.parametrize("has_room", [True, False])
def test_warp_starts_where_nothing_can_be_written(has_room, monkeypatch, capfd):
    def full():
        raise FileNotFoundError("No usable temporary directory found")

    if not has_room:
        monkeypatch.setattr(tempfile, "TemporaryFile", full)
    unwanted = b"Could not find or load the NVIDIA CUDA driver.\n"
    monkeypatch.setattr(wp, "init", lambda: os.write(2, b"a warning\n" + unwanted))
    monkeypatch.delenv("NGP_WARP_LOG", raising=False)
    launch.init.__wrapped__()
    os.write(2, b"later\n")
    said = capfd.readouterr().err
    assert said.startswith("a warning\n")
    assert said.endswith("later\n")
    # without room it is not worth an error
    assert ("driver" in said) != has_room
