"""Modules of many launches are loaded together: nothing else changes."""

import threading

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch, loading
from ngp_warp.launch import module_options

N = 100


def make_kernel(factor):
    """Each has a module of its own."""
    constant = wp.constant(factor)

    @wp.kernel(module="unique", module_options=module_options())
    def scale(begin: int, x: wp.array(dtype=float), y: wp.array(dtype=float)):
        i = begin + wp.tid()
        y[i] = constant * x[i]

    return scale


@pytest.fixture
def loaded(monkeypatch):
    """Names of the modules that were loaded in each call of Warp's loader."""
    calls = []
    load = wp.force_load

    def note(device, modules, **options):
        calls.append([m.name for m in modules])
        load(device, modules, **options)

    monkeypatch.setattr(wp, "force_load", note)
    return calls


@pytest.fixture
def arrays(device):
    x = wp.array(np.arange(N), dtype=float, device=device)
    return x, [wp.zeros(N, dtype=float, device=device) for _ in range(4)]


def values(array, factor):
    return np.array_equal(array.numpy(), factor * np.arange(N, dtype=np.float32))


def test_launches_are_the_same(device, arrays, loaded):
    x, ys = arrays
    kernels = [make_kernel(float(k)) for k in range(2, 5)]
    with loading.together(2):
        items = [launch.record(k, N, [x, y], device) for k, y in zip(kernels, ys, strict=False)]
        # recorded twice: loaded once
        again = launch.record(kernels[0], N, [x, ys[3]], device)
        assert loaded == []
    assert loaded == [[k.module.name for k in kernels]]
    launch.run_all([*items, again])
    assert all(values(y, k) for y, k in zip(ys, (2, 3, 4, 2), strict=True))
    direct = launch.record(kernels[0], N, [x, ys[0]], device)
    assert [type(c) for c in items[0].commands] == [type(c) for c in direct.commands]
    assert len(items[0].commands) == len(direct.commands)


def test_a_run_loads_what_was_noted(device, arrays, loaded):
    x, ys = arrays
    kernels = [make_kernel(float(k)) for k in (5, 6)]
    with loading.together(2):
        items = [launch.record(k, N, [x, y], device) for k, y in zip(kernels, ys, strict=False)]
        launch.run_all(items)
        assert len(loaded) == 1
        assert values(ys[0], 5)
        assert values(ys[1], 6)
        launch.launch(make_kernel(7.0), N, [x, ys[2]], device)
        assert values(ys[2], 7)
    assert len(loaded) == 2


def test_arguments_are_those_of_the_recording(device, arrays):
    x, ys = arrays
    args = [x, ys[0]]
    with loading.together(2):
        item = launch.record(make_kernel(8.0), N, args, device)
        args[1] = ys[1]
    item.run()
    assert values(ys[0], 8)
    assert not ys[1].numpy().any()


def test_load_is_for_this_thread_alone(device, arrays, loaded):
    x, ys = arrays
    with loading.together(2):
        launch.record(make_kernel(9.0), N, [x, ys[0]], device)

        def work():
            assert loading.noted() is None
            loading.load()
            launch.record(make_kernel(10.0), N, [x, ys[1]], device).run()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert values(ys[1], 10)
        assert loaded == []
        loading.load()
        assert len(loaded) == 1
    assert loading.noted() is None


def test_a_kernel_that_does_not_compile_is_an_error():
    @wp.func_native("this is no C++;")
    def wrong(i: int): ...

    @wp.kernel(module="unique", module_options=module_options())
    def broken(begin: int):
        wrong(begin + wp.tid())

    with pytest.raises(Exception, match=r"build|compile"), loading.together(2):
        launch.record(broken, 1, [], "cpu")
    assert loading.noted() is None


def test_together_within_together_is_one(device, arrays, loaded):
    x, ys = arrays
    with loading.together(2):
        with loading.together(2):
            launch.record(make_kernel(11.0), N, [x, ys[0]], device)
        assert loaded == []
    assert len(loaded) == 1
