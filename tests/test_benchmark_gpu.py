"""The GPU benchmark in its small mode: it compares, notices what differs, and loses nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import (
    gpu,
    gpu_agreement,
    gpu_parts,
    gpu_report,
    gpu_rows_encodings,
    gpu_start,
)
from benchmarks.__main__ import main
from benchmarks.gpu_compare import Row, Side, Tolerance, compare, kernel_name, run_row
from benchmarks.gpu_parts import PARTS, run_jobs
from ngp_warp.errors import ConfigError
from tests.gpu_results import errors
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


def test_every_part_is_there_and_none_has_failed(result):
    assert list(result["parts"]) == list(PARTS)
    parts = {name: part for name, part in result["parts"].items() if name != "agreement"}
    assert errors(parts) == []
    assert all(parts.values())
    assert set(result["seconds"]) == set(PARTS)
    assert result["small"] is True
    assert result["finished"] is True
    assert set(result["measured"]) == set(PARTS)
    assert {name: source["usual"] for name, source in result["inputs"].items()} == dict.fromkeys(
        ("image", "sdf", "nerf", "volume"), False
    )
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
    assert steps["nerf"]["rays"] > 0
    assert all("in_time" in run for run in result["parts"]["quality"].values())
    assert all(np.isfinite(steps[name]["metric"]) for name in ("image", "sdf", "nerf", "volume"))


def test_two_runs_have_the_same_bits(result):
    found = result["parts"]["deterministic"]
    assert {name: job["differing_arrays"] for name, job in found.items()} == {"step": 0, "image": 0}
    assert found["step"]["ratio"] > 0


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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_nowhere_finite_agrees_with_nothing(value):
    assert compare(np.full(4, value), np.full(4, value), LOOSE)["ok"] is False


def test_an_array_that_one_side_lacks_is_no_agreement():
    def run(side):
        found = {"y": np.ones(3), "dx": np.ones(3)}
        return {"y": np.ones(3)} if side.serves_cuda else found

    row = Row("one array too few", run, LOOSE, on_cpu=True)
    found = run_row(row, CPU, LIKE_CUDA)
    assert (found["ok"], found["why"]) == (False, "no array dx")
    assert run_row(replace(row, run=lambda side: {}), CPU, LIKE_CUDA)["ok"] is False


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


def test_unknown_parts_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="there are no parts speed"):
        gpu.run(options(tmp_path, only=("speed",)))
    assert main(["gpu", "--device", "cpu", "--only", "speed"]) == 2


def test_a_file_is_named_after_the_device():
    assert gpu.file_name("NVIDIA H100 80GB HBM3") == "nvidia_h100_80gb_hbm3.json"


def test_numbers_of_numpy_are_written(tmp_path):
    path = tmp_path / "x.json"
    gpu_parts.write_json(path, {"a": np.float32(1.5), "b": np.int64(2), "c": tmp_path})
    assert json.loads(path.read_text()) == {"a": 1.5, "b": 2, "c": str(tmp_path)}


def test_inputs_that_are_not_there_are_told_at_once(tmp_path, capsys):
    out = tmp_path / "r.json"
    for flag in ("--data", "--image"):
        assert (
            main(["gpu", "--device", "cpu", flag, str(tmp_path / "none"), "--out", str(out)]) == 2
        )
        assert "not there" in capsys.readouterr().err
    assert not out.exists()


def test_a_start_that_fails_says_why(tmp_path):
    from benchmarks.gpu_inputs import Input

    missing = Input(tmp_path / "none.png", usual=False)
    with pytest.raises(RuntimeError, match=r"none\.png"):
        gpu_start.measure("image", missing, "cpu", cache=None, n_steps=1, small=True)


def test_a_start_that_works_once_keeps_what_it_gave(monkeypatch, tmp_path):
    from benchmarks.gpu_inputs import Input

    calls = []

    def measure(*args, **kwargs):
        calls.append(kwargs["cache"])
        if len(calls) > 1:
            raise RuntimeError("no second one")
        return {"trained_s": 1.0}

    monkeypatch.setattr(gpu_start, "measure", measure)
    inputs = {"image": Input(tmp_path / "x.png", usual=False)}
    found = gpu_start.start_jobs(inputs, "cpu", small=True)["image"]()
    assert found["fresh"] == {"trained_s": 1.0}
    assert "no second one" in found["warm"]["error"]


def test_the_report_has_a_table_of_every_part(result):
    text = gpu_report.markdown(result)
    assert "Small mode" in text
    assert "It was ended before" not in text
    for head in ("| step |", "| `--deterministic` |", "| trained |", "| picture |", "| memory of",
                 "| start to first step |", "| training curve's end, dB |"):  # fmt: skip
        assert head in text
    assert "Limits of the device" in text
    broken = {**result, "finished": False, "parts": {"render": {"nerf": {"error": "a | b"}}}}
    text = gpu_report.markdown(broken)
    assert "| nerf | a / b |  |" in text
    assert "It was ended before it had finished" in text
