"""The figures of the GPU benchmark: what they are the time of, and what meets a target."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import warp as wp
from capture_case import use_cuda_kernels

from benchmarks import (
    gpu_deterministic,
    gpu_kernels,
    gpu_pictures,
    gpu_quality,
    gpu_steps,
    gpu_targets,
    gpu_timing,
)
from benchmarks.__main__ import main
from ngp_warp import launch

MADE = {
    "device_name": "NVIDIA Test",
    "driver": "1.2",
    "versions": {"warp-lang": "9"},
    "date": "2000-01-01",
    "small": False,
    "parts": {
        "agreement": {"passed": 90, "failed": 0, "not_compared": 1, "not_run": 0, "rows": []},
        "steps": {
            "reference 3D": {"ms": 0.9, "host_ms": 0.02, "launches": 14, "graph": True},
            "image": {"error": "out of memory"},
        },
        "quality": {
            "nerf 5 s": {"psnr": 32.5, "usual_input": True, "in_time": True, "input": "chair_400",
                         "steps": 500, "seconds": 5.0},
            "sdf 5 s": {"iou": 0.999, "usual_input": False, "input": "torus.obj", "steps": 500,
                        "seconds": 5.0},
        },
        "cold_start": {"image": {"fresh": {"trained_s": 3.0}},
                       "nerf": {"fresh": {"trained_s": 25.0}}},
    },
}  # fmt: skip


def test_a_report_judges_what_was_measured(tmp_path, capsys):
    path = tmp_path / "made.json"
    path.write_text(json.dumps(MADE))
    assert main(["gpu", "--report", str(path)]) == 0
    text = capsys.readouterr().out
    assert "NVIDIA Test, driver 1.2; warp-lang 9; 2000-01-01" in text
    assert (
        "| step, 3D, 2^18 points, L=16, F=2, T=2^19, 2x64 | below 1.2 ms, aim 0.7 | 0.9 ms | yes |"
        in text
    )
    assert "| chair, 5 s | at least 33 dB | 32.5 dB | NO |" in text
    # not the armadillo, and no figure at all
    assert "| armadillo, 5 s | at least 0.99 IoU | 0.999 IoU | not judged |" in text
    assert "| step of the image primitive | below 0.8 ms | - | not judged |" in text
    # the slowest counts
    assert "| first step, no kernel compiled yet | below 20 s | 25 s | NO |" in text
    assert "| reference 3D | 0.900 | 0.020 | 14 | yes |" in text
    assert "90 comparisons agree, 0 do not" in text


def test_the_small_mode_judges_no_time():
    verdicts = gpu_targets.verdicts({**MADE, "small": True})
    judged = {v["name"] for v in verdicts if v["met"] is not None}
    assert judged == {"rows of the CPU's and the device's kernels that do not agree",
                      "such rows that were not run"}  # fmt: skip


def judged(parts):
    return {v["name"]: v["met"] for v in gpu_targets.verdicts({"parts": parts})}


def test_a_figure_of_another_input_or_of_some_alone_meets_nothing():
    view = "view of the chair, 800x800"
    assert judged({"render": {"nerf": {"ms": 5.0, "usual_input": False}}})[view] is None
    assert judged({"render": {"nerf": {"ms": 5.0, "usual_input": True}}})[view] is True
    assert judged({"render": {"nerf": {"ms": 25.0, "usual_input": True}}})[view] is False
    leaves, found = "scan of leaves, 35 megapixels, 3 s", {"psnr": 35.0, "usual_input": True}
    assert judged({"quality": {"image 3 s": {**found, "in_time": True}}})[leaves] is True
    assert judged({"quality": {"image 3 s": {**found, "in_time": False}}})[leaves] is None
    step = "step of the image primitive"
    assert judged({"steps": {"image": {"ms": 0.5, "usual_input": False}}})[step] is None
    curves = "training curves of the CPU and the device, apart"
    good, bad, failed = {"most_apart": 0.1}, {"most_apart": 0.3}, {"error": "no memory"}
    assert judged({"curves": {"image": good, "nerf": good}})[curves] is True
    assert judged({"curves": {"image": good, "nerf": {"skipped": "why"}}})[curves] is True
    assert judged({"curves": {"image": good, "nerf": failed}})[curves] is None
    assert judged({"curves": {"image": bad, "nerf": failed}})[curves] is False
    assert judged({"curves": {"image": good, "nerf": {"most_apart": np.nan}}})[curves] is None
    assert judged({})[curves] is None


@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize(
    "kernel",
    [gpu_kernels.gather, gpu_kernels.scatter, gpu_kernels.scatter_half, gpu_kernels.nothing],
    ids=lambda k: k.key,
)
def test_the_limits_kernels_compile_for_cuda(kernel, arch, tmp_path):
    (path,) = wp.compile_aot_module(
        kernel.module, arch=arch, module_dir=tmp_path, use_ptx=True, strip_hash=True
    )
    text = path.read_text()
    wanted = {
        "gather": "ld.global.nc.v2.f32",
        "scatter": "red.global.add.v2.f32" if arch == 90 else "red.global.add.f32",
        "scatter_half": "red.global.add.noftz.f16x2",
    }
    assert wanted.get(kernel.key, f"sm_{arch}") in text


def test_the_limits_kernels_do_the_work_that_is_counted(device):
    n, mask = 64, 2**6 - 1
    table = wp.zeros(2 * (mask + 1), dtype=float, device=device)
    launch.record(gpu_kernels.scatter, n, [1.0, mask, table], device, shards=1).run()
    counts = table.numpy().reshape(-1, 2)
    assert counts.sum() == 2 * n * gpu_kernels.READS
    assert (counts[:, 0] == counts[:, 1]).all()
    assert np.count_nonzero(counts) > mask  # spread over the table
    pairs = wp.array(np.ones((mask + 1, 2), np.float32), dtype=wp.vec2, device=device)
    out = wp.zeros(n, dtype=wp.vec2, device=device)
    launch.record(gpu_kernels.gather, n, [pairs, mask, out], device).run()
    assert (out.numpy() == gpu_kernels.READS).all()


def test_launches_inside_of_calls_are_counted(device):
    out = wp.zeros(1, dtype=float, device=device)
    item = launch.record(gpu_kernels.nothing, 1, [out], device)

    def twice():
        for _ in range(2):
            wp.launch(gpu_kernels.nothing, 1, [0, out], device=device)

    stages = [[item], [launch.Launch([launch.Call(twice), launch.Call(out.zero_)], device)]]
    assert gpu_timing.count_launches(stages) == 4
    assert gpu_timing.stage_name(stages[0]) == "gpu_kernels.nothing"
    assert gpu_timing.milliseconds(item.run, device, inner=2) > 0
    names = [name for name, _ in gpu_timing.stage_times(stages, device, inner=1)]
    assert names[0] == "gpu_kernels.nothing"


class FakeEvent:
    """An event of a device that is not there; notes when it was recorded."""

    clock = 0.0

    def __init__(self, device, enable_timing=False):
        self.enable_timing, self.at = enable_timing, 0.0


class FakeStream:
    """Its events are recorded when they are queued."""

    def record_event(self, event):
        assert event.enable_timing
        event.at = FakeEvent.clock


@pytest.fixture
def clock(monkeypatch):
    """A device whose time passes where a stage says so."""
    monkeypatch.setattr(wp, "Event", FakeEvent)
    monkeypatch.setattr(wp, "get_stream", lambda device: FakeStream())
    monkeypatch.setattr(wp, "synchronize_device", lambda device: None)
    monkeypatch.setattr(wp, "get_event_elapsed_time", lambda first, last: last.at - first.at)

    def take(ms):
        FakeEvent.clock += ms

    return take


def test_times_on_a_device_are_those_between_its_events(clock):
    calls = []

    def run():
        calls.append(None)
        clock(0.25)

    found = gpu_timing.milliseconds(run, "cuda:0", repeats=3, inner=4, warm_up_seconds=0.0)
    assert found == 0.25
    assert len(calls) == 3 + 3 * 4
    begin = time.perf_counter()
    gpu_timing.milliseconds(run, "cuda:0", repeats=1, inner=4, warm_up_seconds=0.05)
    assert time.perf_counter() - begin >= 0.05


def test_stages_on_a_device_are_differences_of_graphs(clock, monkeypatch):
    def stage(ms):
        return [launch.Launch([launch.Call(lambda: clock(ms))], "cuda:0")]

    graphs = []

    def recorded(stages, device):
        graphs.append(len(stages))

        def run():
            clock(0.5)  # of a graph's start
            launch.run_stages(stages)

        return run

    monkeypatch.setattr(gpu_timing, "recorded_step", recorded)
    stages = [stage(1.0), [*stage(3.0), *stage(0.5)]]
    found = gpu_timing.stage_times(stages, "cuda:0", repeats=2, inner=10)
    assert [ms for _, ms in found] == pytest.approx([1.05, 3.0, 0.5])
    assert graphs == [10, 20, 30]


def test_levels_are_read_at_the_rates_of_their_sizes():
    step = gpu_steps.ReferenceStep(
        gpu_steps.StepSize(n_dims=2, batch_log2=10, table_log2=10), "cpu"
    )
    rates = {"12": 4e9, "19": 1e9}
    limits = {"bandwidth": 1e30, "gather": rates, "scatter": rates}
    found = gpu_steps.least_ms("grid.forward_kernel", step, limits, 1.0)
    assert found == pytest.approx(16 * 2**10 * 4 / 4e9 * 1e3)
    limits["gather"] = {"12": None}
    assert gpu_steps.least_ms("grid.forward_kernel", step, limits, 1.0) < 1e-9


def test_what_trains_nothing_has_no_same_bits():
    class Owner:
        def __init__(self, values):
            self.array = wp.array(np.array(values, np.float32), device="cpu")
            part = SimpleNamespace(state=lambda: {"value": self.array})
            self.field = SimpleNamespace(parameters=lambda: {"table": part})

    made = []

    def make(values, act):
        def run():
            made.append(Owner(values))
            owner = made[-1]
            call = launch.Call(lambda: act(owner.array))
            return [[launch.Launch([call], "cpu")]], owner

        return run

    with pytest.raises(RuntimeError, match="no step has changed"):
        gpu_deterministic.differing(make([1, 2], lambda a: None), "cpu", 2)
    with pytest.raises(RuntimeError, match="not finite"):
        gpu_deterministic.differing(make([1, 2], lambda a: a.fill_(np.nan)), "cpu", 2)
    assert gpu_deterministic.differing(make([1, 2], lambda a: a.fill_(3.0)), "cpu", 2) == 0
    turn = iter(range(9))
    other = make([1, 2], lambda a: a.fill_(float(next(turn))))
    assert gpu_deterministic.differing(other, "cpu", 2) == 1


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_picture_of_nothing_has_no_time(value):
    with pytest.raises(RuntimeError, match="shows no scene"):
        gpu_pictures.seen_of(np.full((4, 4), value))
    assert gpu_pictures.seen_of(np.full((4, 4), 0.5)) == 0.5


def test_curves_of_scenes_are_compared_where_they_have_settled(tmp_path):
    ours, theirs = [10.0] * 12, [10.0] * 12
    theirs[3], theirs[8], theirs[9] = 12.0, 10.2, 9.8
    assert gpu_quality.apart("image", ours, theirs) == 2.0
    assert gpu_quality.apart("nerf", ours, theirs) == pytest.approx(0.0)
    theirs[8:] = [10.3] * 4
    assert gpu_quality.apart("nerf", ours, theirs) == pytest.approx(0.3)


def test_a_scenes_curve_is_made_on_the_cpu_too(tmp_path):
    from benchmarks.gpu_inputs import find_inputs

    scene = find_inputs(None, {}, tmp_path, small=True)["nerf"]
    found = gpu_quality.curve("nerf", scene, "cpu", serves_cuda=True, n_steps=12)
    assert len(found) == 12
    assert np.isfinite(found).all()


def test_stages_are_known_by_the_names_that_cuda_has(monkeypatch):
    launch.set_num_threads(1)  # emulated lanes meet in static memory
    try:
        use_cuda_kernels(monkeypatch)
        size = gpu_steps.StepSize(n_dims=3, batch_log2=6, table_log2=8)
        step = gpu_steps.ReferenceStep(size, "cpu")
        limits = {"bandwidth": 1e9, "gather": {"19": 1e9}, "scatter": {"19": 1e9}}
        limits |= {"tensor_flops": 1e12}
        stages = gpu_timing.parted(step.stages, "cuda:0")
        names = [gpu_timing.stage_name(stage) for stage in stages]
        known = [n for n in names if gpu_steps.least_ms(n, step, limits, 0.5) is not None]
        assert len(known) == 4, names  # encode, network, scatter, Adam
        assert "grid_cuda.forward_kernel" in names
        assert 0 < gpu_steps._touched(step) <= 1
    finally:
        launch.set_num_threads(None)
