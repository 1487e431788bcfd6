"""The GPU benchmark on the emulated device, in its small mode: minutes, with --emulate-cuda alone.

Its times mean nothing; that it runs, and what it computes, do. Memory and cold starts are measured
in processes of their own, in which the device is not.
"""

import pytest

from benchmarks import gpu
from ngp_warp.primitives.sdf import samples
from tests.gpu_results import errors


@pytest.fixture
def run(emulated_cuda, request, monkeypatch, tmp_path):
    """Run a part and return what it has found; none of it may be an error."""
    if not request.config.getoption("emulate_cuda"):
        pytest.skip("takes minutes: run with --emulate-cuda --emulate-seconds 600")
    monkeypatch.setattr(samples, "_POOL_SLOTS", 2048)

    def run(part):
        options = gpu.Options(
            device="cuda:0", small=True, budget=600, out=tmp_path / "out.json", only=(part,),
            isolate=False,
        )  # fmt: skip
        found = gpu.run(options)["parts"][part]
        assert errors(found) == []
        return found

    return run


def test_every_step_is_a_graph(run):
    steps = run("steps")
    assert set(steps) == {"reference 3D", "reference 2D", "image", "sdf", "nerf", "volume"}
    assert all(step["graph"] for step in steps.values())


def test_curves_of_cpu_and_cuda_lie_together(run):
    curves = run("curves")
    assert set(curves) == {"image", "nerf", "volume"}
    for curve in curves.values():
        assert curve["most_apart"] < 0.2
        assert len(set(curve["device"])) > 3


def test_deterministic_runs_have_the_same_bits(run):
    found = run("deterministic")
    assert {job["differing_arrays"] for job in found.values()} == {0}


@pytest.mark.parametrize("part", ["limits", "quality", "render"])
def test_other_parts_run(run, part):
    assert run(part)
