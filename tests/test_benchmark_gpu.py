"""The GPU benchmark in its small mode: it compares, notices what differs, and loses nothing."""

import json
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import warp as wp

from benchmarks import (
    gpu,
    gpu_agreement,
    gpu_kernels,
    gpu_rows_encodings,
    gpu_start,
    gpu_targets,
    gpu_timing,
)
from benchmarks.__main__ import main
from benchmarks.gpu_compare import Row, Side, Tolerance, compare, kernel_name, run_row
from benchmarks.gpu_parts import PARTS, Context, run_jobs
from ngp_warp import launch
from ngp_warp.errors import ConfigError
from tests.test_cuda_kernels import KERNELS, SINGLE

CPU, LIKE_CUDA = Side("cpu", False), Side("cpu", True)
LOOSE = Tolerance(1e-3, "for tests")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """The whole benchmark on the CPU."""
    out = tmp_path_factory.mktemp("gpu") / "result.json"
    arguments = ["gpu", "--device", "cpu", "--no-isolation", "--out", str(out)]
    assert main(arguments) == 0
    return json.loads(out.read_text())


def errors(values, path=()):
    """Every "error" in nested results, with where it is."""
    if not isinstance(values, dict):
        return []
    found = [(path, values["error"])] if values.get("error") else []
    return found + [e for key, inner in values.items() for e in errors(inner, (*path, key))]


def test_every_part_is_there_and_none_has_failed(result):
    assert list(result["parts"]) == list(PARTS)
    parts = {name: part for name, part in result["parts"].items() if name != "agreement"}
    assert errors(parts) == []
    assert all(parts.values())
    assert set(result["seconds"]) == set(PARTS)
    assert result["small"] is True
    assert result["device_name"].startswith("CPU ")


def test_the_kernels_that_serve_cuda_agree_with_the_cpus(result):
    found = result["parts"]["agreement"]
    assert [row for row in found["rows"] if row["ok"] is False or row.get("not_run")] == []
    # the others are one code on a CPU
    assert found["passed"] >= 40
    assert len({row["row"] for row in found["rows"]}) == len(found["rows"])


def test_every_kernel_for_cuda_is_reached_or_named(result):
    wanted = {f"{f.__module__}.{f.__name__}" for f in KERNELS}
    wanted |= {kernel_name(kernel) for kernel in SINGLE}
    reached = set(result["parts"]["agreement"]["kernels"])
    assert wanted - reached == set(gpu_agreement.NOT_COMPARED)
    assert all(gpu_agreement.NOT_COMPARED.values())


def test_steps_have_stages_and_limits(result):
    steps, limits = result["parts"]["steps"], result["parts"]["limits"]
    assert set(steps) == {"reference 3D", "reference 2D", "image", "sdf", "nerf", "volume"}
    for step in steps.values():
        assert step["ms"] > 0
        assert step["launches"] >= len(step["stages"]) > 3
        assert step["graph"] is False
    shared = [s for s in steps["reference 3D"]["stages"] if "least_ms" in s]
    assert len(shared) == 4  # encode, network, scatter, Adam
    assert 0 < steps["reference 3D"]["touched_share"] <= 1
    assert limits["bandwidth"] > 0
    assert all(rate > 0 for rate in limits["gather"].values())


def test_curves_of_both_kinds_of_kernels_lie_together(result):
    image = result["parts"]["curves"]["image"]
    assert image["most_apart"] < 0.2
    assert image["cpu"][-1] > image["cpu"][0]


def test_a_start_says_what_it_compiled(result):
    start = result["parts"]["cold_start"]["image"]
    assert start["fresh"]["modules"] > 3
    assert start["warm"]["trained_s"] < start["fresh"]["trained_s"]
    assert result["parts"]["memory"]["image"]["host_bytes"] > 2**26


def test_a_row_fails_where_one_side_is_perturbed():
    rows = [r for r in gpu_rows_encodings.rows(small=True) if r.on_cpu][:20]
    assert len(rows) > 10
    for row in rows:

        def perturbed(side, run=row.run):
            arrays = dict(run(side))
            if side.serves_cuda:
                name = next(iter(arrays))
                arrays[name] = np.roll(arrays[name], 32)
            return arrays

        assert run_row(row, CPU, LIKE_CUDA)["ok"] is True, row.name
        assert run_row(replace(row, run=perturbed), CPU, LIKE_CUDA)["ok"] is False, row.name


@pytest.mark.parametrize(
    ("found", "ok"),
    [
        ([1.0, 2.0, 3.0005], True),
        ([1.0, 2.0, 3.01], False),
        ([1.0, 2.0, np.nan], False),
        ([1.0, 2.0, np.inf], False),
        ([1.0, 2.0], False),
    ],
)
def test_values_are_held_to_their_tolerance(found, ok):
    assert compare(np.array([1.0, 2.0, 3.0]), np.array(found), LOOSE)["ok"] is ok


def test_zeros_agree_with_nothing():
    assert compare(np.zeros(4), np.zeros(4), LOOSE)["ok"] is False
    row = Row("zeros", lambda side: {"gradient": np.zeros(4)}, LOOSE)
    # even where a CPU has one code for it
    assert run_row(row, CPU, LIKE_CUDA)["ok"] is False


def test_what_is_nowhere_finite_alike_agrees_and_integers_are_exact():
    some = np.array([1.0, np.inf, np.nan])
    assert compare(some, some.copy(), LOOSE)["ok"] is True
    whole = np.arange(1, 1001)
    other = whole.copy()
    other[3] += 1
    assert compare(whole, other, Tolerance(0.0, ""))["ok"] is False
    assert compare(whole, other, Tolerance(0.0, "", outliers=1e-3))["ok"] is True
    other[4] += 1
    assert compare(whole, other, Tolerance(0.0, "", outliers=1e-3))["ok"] is False


def test_a_row_that_raises_is_told_and_the_others_follow():
    def broken(side):
        raise ValueError("no such kernel")

    def lacking(side):
        import no_such_module  # noqa: F401

    good = Row("good", lambda side: {"x": np.ones(3)}, LOOSE, on_cpu=True)
    rows = [replace(good, name="bad", run=broken), replace(good, name="no", run=lacking), good]
    found = list(gpu_agreement.run(rows, "cpu", 10.0))
    assert [row["ok"] for row in found] == [False, None, True]
    assert "no such kernel" in found[0]["why"]
    assert gpu_agreement.summary(found)["not_run"] == 1
    late = list(gpu_agreement.run(rows, "cpu", -1.0))
    assert gpu_agreement.summary(late)["not_run"] == 3
    assert gpu_agreement.summary(late)["failed"] == 0


def test_rows_are_dealt_to_processes_without_loss():
    rows = gpu_agreement.all_rows(small=True)
    parts = [gpu_agreement.part_of(rows, k, 3) for k in range(3)]
    assert sorted(r.name for part in parts for r in part) == sorted(r.name for r in rows)


def test_a_job_that_fails_loses_no_other():
    def broken():
        raise RuntimeError("no memory")

    found = run_jobs({"a": broken, "b": lambda: {"x": 1}}, 10.0)
    assert found == {"a": {"error": "RuntimeError: no memory"}, "b": {"x": 1}}
    assert "no time" in run_jobs({"a": broken}, -1.0)["a"]["error"]


def options(tmp_path, **changes):
    base = {"device": "cpu", "small": True, "budget": 60.0, "out": tmp_path / "r.json"}
    return gpu.Options(**{**base, **changes})


def test_a_part_runs_in_a_process_of_its_own(tmp_path):
    found = gpu.run(options(tmp_path, only=("limits",)))["parts"]["limits"]
    assert found["bandwidth"] > 0
    assert json.loads((tmp_path / "r.json").read_text())["parts"]["limits"] == found


def test_a_process_that_dies_or_hangs_costs_its_part_alone(tmp_path, monkeypatch):
    written = 'open(job["out"], "w").write(json.dumps({"first": {"ms": 1.0}}))'
    end = {"limits": "os._exit(11)", "deterministic": "time.sleep(60)"}

    def command(job):
        last = end[json.loads(job)["part"]]
        text = f"import json, os, sys, time; job = json.loads(sys.argv[1]); {written}; {last}"
        return [sys.executable, "-c", text, job]

    monkeypatch.setattr(gpu, "process_command", command)
    monkeypatch.setattr(gpu, "_GRACE_S", 0.5)
    start = time.perf_counter()
    parts = gpu.run(options(tmp_path, only=tuple(end), budget=3.0))["parts"]
    assert time.perf_counter() - start < 20
    assert "status 11" in parts["limits"].pop("error")
    assert "its time was over" in parts["deterministic"].pop("error")
    assert parts == {name: {"first": {"ms": 1.0}} for name in end}


def test_another_process_goes_on_where_one_lost_the_device(tmp_path, monkeypatch):
    text = """
import json, os, sys
job = json.loads(sys.argv[1])
rows = [n for n in "abcd" if n not in job["context"]["skip"]]
done = []
for name in rows:
    open(job["out"], "w").write(json.dumps({"rows": done, "begun": name}))
    if name == "b":
        os._exit(11)
    done.append({"row": name, "ok": name != "c"})
    open(job["out"], "w").write(json.dumps({"rows": done, "begun": None}))
    if name == "c":
        sys.exit(3)
"""
    monkeypatch.setattr(gpu, "process_command", lambda job: [sys.executable, "-c", text, job])
    context = Context(device="cpu", small=True, folder=str(tmp_path))
    rows = gpu._rows(context, 30.0, isolate=True)
    assert [(r["row"], r["ok"]) for r in rows] == [
        ("a", True), ("b", False), ("c", False), ("d", True),
    ]  # fmt: skip
    assert "status 11" in rows[1]["why"]


def test_rows_that_no_process_came_to_are_not_run(tmp_path, monkeypatch):
    names = [row.name for row in gpu_agreement.all_rows(small=True)]
    begun = json.dumps({"rows": [{"row": names[1], "ok": True}], "begun": names[0]})
    text = f"""
import json, sys, time
open(json.loads(sys.argv[1])["out"], "w").write({begun!r})
time.sleep(60)
"""
    monkeypatch.setattr(gpu, "process_command", lambda job: [sys.executable, "-c", text, job])
    monkeypatch.setattr(gpu, "_GRACE_S", 0.5)
    found = gpu.run(options(tmp_path, only=("agreement",), budget=3.0))["parts"]["agreement"]
    assert [row["row"] for row in found["rows"]] == names
    assert (found["passed"], found["failed"], found["not_run"]) == (1, 0, len(names) - 1)


def test_a_process_that_never_began_is_told(tmp_path, monkeypatch):
    command = [sys.executable, "-c", "raise SystemExit('no driver')"]
    monkeypatch.setattr(gpu, "process_command", lambda job: command)
    context = Context(device="cpu", small=True, folder=str(tmp_path))
    (row,) = gpu._rows(context, 30.0, isolate=True)
    assert row["ok"] is False
    assert "no driver" in row["why"]


def test_unknown_parts_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="there are no parts speed"):
        gpu.run(options(tmp_path, only=("speed",)))
    assert main(["gpu", "--device", "cpu", "--only", "speed"]) == 2


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
            "nerf 5 s": {"psnr": 32.5, "usual_input": True},
            "sdf 5 s": {"iou": 0.999, "usual_input": False},
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
        "| step, 3D, 2^18 points, L=16, F=2, T=2^19, 2x64 | below 1.2 ms | 0.9 ms | yes |" in text
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


def test_a_file_is_named_after_the_device():
    assert gpu.file_name("NVIDIA H100 80GB HBM3") == "nvidia_h100_80gb_hbm3.json"


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


def test_a_start_that_fails_says_why(tmp_path):
    from benchmarks.gpu_inputs import Input

    missing = Input(tmp_path / "none.png", usual=False)
    with pytest.raises(RuntimeError, match=r"none\.png"):
        gpu_start.measure("image", missing, "cpu", cache=None, n_steps=1, small=True)
