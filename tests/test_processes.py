"""Laws of how several processes begin and end: what the environment says, and who speaks."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from image_runs import SMALL_FLAGS, write_picture
from several_processes import N, by_hand, environment, torchrun, until

import ngp_warp
from ngp_warp import fitting, peers, processes
from ngp_warp.cli import app
from ngp_warp.errors import ConfigError, LostError
from ngp_warp.peers import is_dead
from ngp_warp.run_folder import list_checkpoints


def test_the_first_process_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes.speaks()
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, speaks in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        assert processes.speaks() == speaks


@pytest.mark.parametrize("rank", [None, "2", "x"])
def test_all_speak_where_nobody_knows_who_is_first(
    rank: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    with pytest.raises(ConfigError, match="RANK"):
        processes.place()
    assert processes.speaks()


def test_seconds_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(processes.TIMEOUT_VARIABLE, raising=False)
    assert processes.timeout().total_seconds() == processes.TIMEOUT
    monkeypatch.setenv(processes.TIMEOUT_VARIABLE, "2.5")
    assert processes.timeout().total_seconds() == 2.5


@pytest.mark.parametrize("text", ["0", "-5", "nan", "inf", "1e300", "x"])
def test_seconds_that_are_none_are_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processes.TIMEOUT_VARIABLE, text)
    with pytest.raises(ConfigError, match=re.escape(f"more than 0, got {text!r}")):
        processes.timeout()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"RANK": ""}, "WORLD_SIZE is 2, so RANK must be 0 to 1"),
        ({"RANK": "1", "MASTER_ADDR": ""}, "cannot reach the other processes"),
    ],
)
def test_one_that_finds_no_others_says_it(
    more: dict[str, str], message: str, tmp_path: Path
) -> None:
    picture = write_picture(tmp_path / "picture.png")
    done = subprocess.run(
        [sys.executable, "-m", "ngp_warp.cli", "fit-image", str(picture), "--quiet", *SMALL_FLAGS],
        env=environment(WORLD_SIZE="2", **more),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("ngp: "))
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


BUG = """
import sys, threading, time
from ngp_warp import fitting
from ngp_warp.cli import app

def broken(*args):
    # as torch's threads that wait for a device
    threading.Thread(target=time.sleep, args=(600,)).start()
    raise ZeroDivisionError

fitting._check_memory = broken
app.main()
"""


def test_a_bug_is_told_once_and_ends_all(tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "picture.png")
    flags = ["--out", str(tmp_path / "run"), "--json", *SMALL_FLAGS]
    started = by_hand("fit-image", str(picture), *flags, python=["-c", BUG])
    said = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [1, 2]
    assert "ZeroDivisionError" in said[0][1]
    assert "internal error" in json.loads(said[0][0])["error"]
    assert said[1] == ("", "")
    assert not (tmp_path / "run").exists()


OWN_GROUP = """
import torch.distributed as dist
import warp as wp
from ngp_warp import distributed, exchange, launch

launch.init()
# as a program would that trains something else too
dist.init_process_group("gloo")
for _ in range(2):
    with distributed.joined() as group:
        assert group.step is not dist.group.WORLD
        values = wp.array([group.rank, 5.0], dtype=float, device="cpu")
        ((launch,),) = exchange.sum_values(values, "cpu")
        # theirs is not asked
        own, dist.group.WORLD = dist.group.WORLD, None
        launch.run()
        dist.group.WORLD = own
        print(values.numpy().tolist(), group.agree(group.rank, soon=True), id(group.step))
dist.barrier()
"""


def test_a_group_that_a_program_has_made_is_left_to_it() -> None:
    said = [process.communicate(timeout=60) for process in by_hand(python=["-c", OWN_GROUP])]
    for out, errors in said:
        lines = out.splitlines()
        assert len(lines) == 2, errors
        assert lines[0] == lines[1]
        assert lines[0].startswith("[1.0, 10.0] [1] ")


HUNG = """
import os, signal
from ngp_warp import trainer
from ngp_warp.cli import app

agree = trainer.Trainer._agree

def stop(self, *args):
    # after the step's exchange, so that nothing but the agreement waits for it
    if self.group.rank == 1 and self.state.step == 3:
        os.kill(os.getpid(), signal.SIGSTOP)
    return agree(self, *args)

trainer.Trainer._agree = stop
app.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_one_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processes.TIMEOUT_VARIABLE, "10")
    picture = write_picture(tmp_path / "picture.png")
    flags = ["--out", str(tmp_path / "run"), "--steps", "10", "--quiet", *SMALL_FLAGS]
    first, hung = by_hand("fit-image", str(picture), *flags, python=["-c", HUNG])
    try:
        _, stderr = first.communicate(timeout=60)
    finally:
        for process in (first, hung):
            process.kill()
            process.communicate()
    assert first.returncode == 2
    (line,) = (line for line in stderr.splitlines() if line.startswith("ngp: "))
    assert re.match(r"ngp: error: a process of 2 does not answer: .*; no checkpoint", line)
    assert not (tmp_path / "run").exists()


KILLED = """
import itertools, os, signal, time
from ngp_warp import trainer
from ngp_warp.cli import app

recorded = trainer.recorded_step

def slow(stages, device):
    step, count = recorded(stages, device), itertools.count()

    def run():
        if next(count) == 3:
            rank = os.environ["RANK"]
            if rank == "1":
                os.kill(os.getpid(), signal.SIGKILL)
            # so that it notices when the first has ended
            time.sleep(1.0 if rank == "2" else 0.0)
        step()

    return run

trainer.recorded_step = slow
app.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_of_three_one_says_which_was_killed(tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "picture.png")
    flags = ["--out", str(tmp_path / "run"), "--steps", "10", "--json", "--quiet", *SMALL_FLAGS]
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    process = torchrun(str(script), "fit-image", str(picture), *flags, n=3)
    stdout, stderr = process.communicate(timeout=60)
    wanted = re.compile(r"process 1 \(pid \d+\) of 3 has ended unexpectedly; no checkpoint")
    (line,) = (line for line in stderr.splitlines() if line.startswith("ngp: "))
    assert wanted.search(line)
    assert wanted.match(json.loads(stdout)["error"])


@pytest.mark.parametrize("lost", [False, True])
def test_torchruns_signal_does_not_hide_why_it_came(
    lost: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fit(*args: object, **options: object) -> None:
        raise KeyboardInterrupt  # as SIGTERM does, where nothing is in training

    error = LostError("process 1 has ended")
    error.said_here = True
    monkeypatch.setattr(peers, "_kept", [error] if lost else [])
    monkeypatch.setattr(fitting, "fit", fit)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert app.main(["fit-image", "a.png"]) == (2 if lost else 130)
    said = "ngp: error: process 1 has ended\n" if lost else "ngp: interrupted\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("command", ["render", "fit-image-blocks"])
def test_what_is_no_work_for_several_is_refused(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main([command, "--help"]) == 0
    capsys.readouterr()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert app.main([command, "run"]) == 2
    assert capsys.readouterr().err == (
        f"ngp: error: ngp {command} is no work for several processes; start it without torchrun\n"
    )
    for known in app._TOGETHER:
        assert app.main([known, "--help"]) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_without_torchrun_all_save_and_end(tmp_path: Path) -> None:
    picture, out = write_picture(tmp_path / "picture.png"), tmp_path / "run"
    flags = ["--steps", "100000", "--checkpoint-seconds", "0.02", "--quiet", *SMALL_FLAGS]
    process = torchrun("-m", "ngp_warp.cli", "fit-image", str(picture), "--out", str(out), *flags)
    until(lambda: list_checkpoints(out), process)
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    workers = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    try:
        assert len(workers) == N
        process.kill()
        _, stderr = process.communicate(timeout=60)  # they hold its end of the pipe
        until(lambda: all(is_dead(pid) for pid in workers))
    finally:
        for pid in workers:
            if not is_dead(pid):
                os.kill(pid, signal.SIGKILL)
    (line,) = (line for line in stderr.splitlines() if line.startswith("ngp: "))
    found = re.match(r"ngp: interrupted and saved after step (\d+) of 100000", line)
    assert found, stderr
    assert ngp_warp.open_run(out).header["step"] == int(found[1])
