"""The GPU benchmark's processes: one that dies, hangs or is ended loses nothing that was found."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_agreement, gpu_parts, gpu_workers
from benchmarks.gpu_parts import LOST, NOT_RUN, Context, as_job
from benchmarks.gpu_workers import Worker, work_off

ROOT = Path(__file__).resolve().parent.parent
# A part's process, as gpu.py sees it: writes what it has found, with the job that it begins.
STAND_IN = """
import json, os, sys, time
job = json.loads(sys.argv[1])
names = [n for n in {names!r} if n not in job["context"]["skip"]]
state = {{"names": {names!r}, "found": {{}}, "begun": None}}
def write():
    with open(job["out"] + ".new", "w") as file:
        json.dump(state, file)
    os.replace(job["out"] + ".new", job["out"])
for name in names:
    state["begun"] = name
    write()
    {act}
    state["found"][name], state["begun"] = {result}, None
    write()
"""


def use(monkeypatch, act, names=("a", "b", "c", "d"), result='{"ms": 1.0}'):
    """Put a stand-in in the place of parts' processes."""
    text = STAND_IN.format(names=list(names), act=act, result=result)
    monkeypatch.setattr(
        gpu_workers, "process_command", lambda job: [sys.executable, "-c", text, job]
    )
    monkeypatch.setattr(gpu_workers, "_GRACE_S", 0.5)


def options(tmp_path, **changes):
    base = {"device": "cpu", "small": True, "budget": 60.0, "out": tmp_path / "r.json"}
    return gpu.Options(**{**base, **changes})


def part(name, tmp_path, **changes):
    return gpu.run(options(tmp_path, only=(name,), **changes))["parts"][name]


@pytest.fixture
def context(tmp_path):
    return Context(device="cpu", small=True, folder=str(tmp_path))


def rows_of(context, monkeypatch):
    """What the comparison's processes say, without rows that none has begun."""
    monkeypatch.setattr(gpu_agreement, "all_rows", lambda small: [])
    found = []
    gpu._isolated("agreement", context, 30.0, found.append)
    return found[-1]["rows"]


def test_a_part_runs_in_a_process_of_its_own(tmp_path):
    found = part("limits", tmp_path)
    assert found["bandwidth"] > 0
    assert json.loads((tmp_path / "r.json").read_text())["parts"]["limits"] == found


def test_a_process_that_dies_costs_one_job_alone(tmp_path, monkeypatch):
    use(monkeypatch, 'name == "b" and os._exit(11)')
    found = part("limits", tmp_path)
    assert list(found) == ["a", "b", "c", "d"]
    assert "status 11" in found.pop("b")["error"]
    assert found == {name: {"ms": 1.0} for name in "acd"}


def test_a_process_that_hangs_costs_what_it_had_not_found_and_no_other_part(tmp_path, monkeypatch):
    use(monkeypatch, 'job["part"] == "limits" and name == "b" and time.sleep(60)')
    start = time.perf_counter()
    parts = gpu.run(options(tmp_path, only=("limits", "deterministic"), budget=3.0))["parts"]
    assert time.perf_counter() - start < 20
    assert parts["limits"] == {
        "a": {"ms": 1.0},
        "b": {"error": "its time was over, and it was ended"},
        "c": {"error": NOT_RUN},
        "d": {"error": NOT_RUN},
    }
    assert parts["deterministic"] == {name: {"ms": 1.0} for name in "abcd"}


def test_another_process_goes_on_where_one_lost_the_device(context, monkeypatch):
    end = """
    if name == "b":
        os._exit(11)
    if name == "d" and "c" in state["found"]:
        sys.exit(3)
"""
    use(monkeypatch, end, result='{"row": name, "ok": name != "c"}')
    rows = rows_of(context, monkeypatch)
    assert sorted((r["row"], r["ok"]) for r in rows) == [
        ("a", True), ("b", False), ("c", False), ("d", False),
    ]  # fmt: skip
    assert "status 11" in next(r["why"] for r in rows if r["row"] == "b")


def test_a_row_that_hangs_has_failed_and_the_others_follow(context, monkeypatch):
    use(monkeypatch, 'name == "b" and time.sleep(60)', result='{"row": name, "ok": True}')
    worker = Worker("agreement", context, 30.0, stall=0.5)
    start = time.perf_counter()
    work_off([worker], lambda: None)
    assert time.perf_counter() - start < 20
    assert set(worker.found) == {"a", "c", "d"}
    assert worker.died == {"b": "took longer than 0 s, and was ended"}


def test_processes_that_lost_the_device_are_followed_side_by_side(context, monkeypatch):
    use(monkeypatch, 'name == "a" and os._exit(11); time.sleep(0.5)')
    workers = [Worker("agreement", context, 30.0) for _ in range(1)]
    told = []
    work_off(workers, lambda: told.append(len(workers[0].found)))
    assert told[-1] == 3
    assert set(workers[0].died) == {"a"}


def test_rows_that_no_process_came_to_are_not_run(tmp_path, monkeypatch):
    names = [row.name for row in gpu_agreement.all_rows(small=True)]
    use(
        monkeypatch,
        f"name == {names[0]!r} and time.sleep(60)",
        names=[names[1], names[0], *names[2:]],
        result='{"row": name, "ok": True}',
    )
    found = part("agreement", tmp_path, budget=3.0)
    assert [row["row"] for row in found["rows"]] == names
    assert (found["passed"], found["failed"], found["not_run"]) == (1, 0, len(names) - 1)


def test_a_process_that_never_began_is_told(tmp_path, context, monkeypatch):
    command = [sys.executable, "-c", "raise SystemExit('no driver')"]
    monkeypatch.setattr(gpu_workers, "process_command", lambda job: command)
    (row,) = rows_of(context, monkeypatch)
    assert row["ok"] is False
    assert "no driver" in row["why"]
    assert "no driver" in part("limits", tmp_path)["error"]


DRIVER = """
import sys
from pathlib import Path
from benchmarks import gpu, gpu_workers
gpu_workers.process_command = lambda job: [sys.executable, "-c", {text!r}, job]
gpu.run(gpu.Options(device="cpu", small=True, budget=60.0, out=Path({out!r}), only=("limits",)))
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="there are no groups of processes")
def test_what_was_found_is_on_disk_before_the_end_and_sigterm_ends_all(tmp_path):
    out = tmp_path / "r.json"
    note = f"Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))"
    act = f'from pathlib import Path; {note}; name == "c" and time.sleep(60)'
    text = STAND_IN.format(names=["a", "b", "c"], act=act, result='{"ms": 1.0}')
    code = DRIVER.format(text=text, out=str(out))
    run = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        end = time.perf_counter() + 30
        while time.perf_counter() < end:
            parts = json.loads(out.read_text())["parts"] if out.exists() else {}
            if "ms" in parts.get("limits", {}).get("b", {}):
                break
            time.sleep(0.1)
        else:
            pytest.fail("nothing was written on the way")
        run.send_signal(signal.SIGTERM)
        assert run.wait(20) == 128 + signal.SIGTERM
    finally:
        run.kill()
    result = json.loads(out.read_text())
    assert result["finished"] is False
    assert result["parts"]["limits"]["a"] == {"ms": 1.0}
    assert "ended" in result["parts"]["limits"]["c"]["error"]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_device_that_is_lost_ends_the_process_and_its_result_does_not_count(
    tmp_path, context, monkeypatch
):
    monkeypatch.setattr(gpu_agreement, "lost", lambda device: True)
    jobs = {"a": lambda: {"ms": 0.1}, "b": lambda: {"ms": 0.1}}
    part = gpu_parts.Part(1, lambda context: jobs)
    monkeypatch.setitem(gpu_parts.PARTS, "limits", part)
    out = tmp_path / "out.json"
    assert gpu_parts.main(json.loads(as_job("limits", context, 10.0, out))) == LOST
    written = json.loads(out.read_text())
    assert "no longer answers" in written["found"]["a"]["error"]
    assert list(written["found"]) == ["a"]
    assert written["names"] == ["a", "b"]
    rows = [{"row": "a", "ok": True}]
    monkeypatch.setattr(gpu_parts, "agreement_rows", lambda *args: iter(rows))
    assert gpu_parts.main(json.loads(as_job("agreement", context, 10.0, out))) == LOST
    assert json.loads(out.read_text())["found"]["a"]["ok"] is False


def test_some_parts_again_leave_the_others_as_they_were(tmp_path, monkeypatch):
    use(monkeypatch, "pass")
    first = gpu.run(options(tmp_path, only=("limits", "curves")))
    use(monkeypatch, "pass", result='{"ms": 2.0}')
    found = gpu.run(options(tmp_path, only=("curves", "render")))
    assert list(found["parts"]) == ["limits", "render", "curves"]
    assert found["parts"]["limits"] == first["parts"]["limits"]
    assert found["parts"]["curves"]["a"] == {"ms": 2.0}
    assert set(found["measured"]) == set(found["seconds"]) == set(found["parts"])
    monkeypatch.setattr(gpu, "device_facts", lambda device: {"device_name": "another"})
    assert list(gpu.run(options(tmp_path, only=("render",)))["parts"]) == ["render"]
