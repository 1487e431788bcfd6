"""Laws of several processes that train one field, by real ones (gloo on a CPU).

The processes' fields are the same bits; together they learn what one process learns from the same
batch; when one is killed the others end and say so; a run goes on as if nothing had been.
"""

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import image_runs
import nerf_runs
import numpy as np
import pytest
import sdf_runs
import volume_runs
from image_runs import SMALL_FLAGS, write_picture
from nerf_scenes import write_scene
from several_processes import ROOT, N, by_hand, torchrun, until

import ngp_warp
from ngp_warp import distributed, exchange, fitting, processes
from ngp_warp.errors import ConfigError
from ngp_warp.run_folder import list_checkpoints

STEPS = 300
VOLUME = {k: v for k, v in volume_runs.SMALL.items() if k != "device"}
AVERAGED = {"optimizer": {"ema_decay": 0.9}}


def work(folder: Path, jobs: list[dict[str, Any]], **more: str) -> None:
    """Fit what the jobs say in two processes."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    worker = str(ROOT / "tests" / "distributed_worker.py")
    process = torchrun(worker, str(folder / "jobs.json"), **more)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def kept(folder: Path, name: str) -> list[dict[str, np.ndarray]]:
    """Return what each process has at the end of a run."""
    return [dict(np.load(folder / f"{name}.{rank}.npz")) for rank in range(N)]


def differences(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> set[str]:
    assert a.keys() == b.keys()
    return {name for name in a if not np.array_equal(a[name], b[name])}


def write_inputs(folder: Path) -> dict[str, Path]:
    return {
        "image": write_picture(folder / "picture.png"),
        "sdf": sdf_runs.write_sphere(folder / "ball.obj"),
        "nerf": write_scene(folder / "scene", n_train=6, n_test=1, side=16),
        "volume": volume_runs.write(folder, "fog"),
    }


REFINED = {"train_poses": True, "train_lenses": True, "exposure": True, "appearance": 4}
# of a table so large a step touches a small part
LARGE = {"n_levels": 4, "n_features_per_level": 2, "log2_hashmap_size": 15}
FINE = {"encoding": {**LARGE, "finest_resolution": 512, "quantization": 0.5}, **AVERAGED}
SPARSE = {**image_runs.SMALL, "encoding": {**LARGE, "finest_resolution": 512}}
# name -> primitive, steps, settings, whether it is measured
CASES: dict[str, tuple[str, int, dict[str, Any], bool]] = {
    "image": ("image", STEPS, image_runs.SMALL, True),
    "first": ("image", 1, SPARSE, False),
    "quantized": ("image", 40, {**image_runs.SMALL, **FINE}, False),
    "timed": ("image", 0, {**image_runs.SMALL, "seconds": 0.5}, False),
    "sdf": ("sdf", 20, sdf_runs.SMALL, False),
    "eikonal": ("sdf", 20, {**sdf_runs.SMALL, "eikonal_weight": 0.1}, False),
    "nerf": ("nerf", 40, nerf_runs.SMALL, False),
    "refined": ("nerf", 20, {**nerf_runs.SMALL, **REFINED, "environment": True}, False),
    "vanilla": ("nerf", 4, {"method": "vanilla", "max_rays": 32}, False),
    "density": ("volume", 20, VOLUME, False),
    "first_density": ("volume", 1, VOLUME, False),
    "radiance": ("volume", 10, {**VOLUME, "mode": "radiance"}, False),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def fitted(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all cases' runs."""
    folder = tmp_path_factory.mktemp("fitted")
    again = folder / "again"
    interrupted = {**job(folder, inputs, "nerf"), "out": str(again), "interrupt": 15}
    resumed = {"primitive": "nerf", "resume": str(again)}
    work(folder, [*(job(folder, inputs, name) for name in CASES), interrupted, resumed])
    return folder


def job(folder: Path, inputs: dict[str, Path], name: str) -> dict[str, Any]:
    primitive, steps, settings, evaluate = CASES[name]
    return {
        "primitive": primitive,
        "source": str(inputs[primitive]),
        "out": str(folder / name),
        "settings": {**settings, **({"steps": steps} if steps else {})},
        "evaluate": evaluate,
    }


@pytest.mark.parametrize("name", CASES)
def test_all_processes_have_the_same_bits(name: str, fitted: Path) -> None:
    first, second = kept(fitted, name)
    assert differences(first, second) == set()
    assert first["step"] == first["n_steps"] == (CASES[name][1] or first["step"])
    assert first["step"] >= 1
    values = [n for n in first if n.endswith(".value")]
    assert all(np.isfinite(first[n]).all() and first[n].any() for n in values)
    # what was saved is what they have
    arrays = ngp_warp.open_run(fitted / name).arrays()
    assert all(np.array_equal(arrays[n], first[n]) for n in arrays)


def test_processes_that_do_not_sum_their_gradients_differ(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    names = ["first", "refined"]
    work(tmp_path, [job(tmp_path, inputs, name) for name in names], NGP_BREAK="sum")
    for name in names:
        assert "encoding.value" in differences(*kept(tmp_path, name))


@pytest.mark.parametrize("name", ["first", "first_density"])
def test_the_first_step_has_the_gradient_of_the_whole_batch(
    name: str,
    inputs: dict[str, Path],
    fitted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # pictures take longer than a step
    monkeypatch.setattr(
        fitting, "_finish", lambda task, state, folder, *_: ngp_warp.open_run(folder)
    )
    primitive, _, settings, _ = CASES[name]
    fit = {"image": ngp_warp.fit_image, "volume": ngp_warp.fit_volume}[primitive]
    alone = fit(inputs[primitive], out=tmp_path / "run", device="cpu", steps=1, **settings)
    wanted, found = alone.arrays(), kept(fitted, name)[0]
    for part in ("encoding.first_moment", "network.first_moment"):
        scale = np.abs(wanted[part]).max()
        # float32 sums in another order
        assert np.abs(found[part] - wanted[part]).max() < 1e-5 * scale
        assert np.abs(wanted[part]).max() > 0


def test_several_processes_learn_what_one_does(
    inputs: dict[str, Path], fitted: Path, tmp_path: Path
) -> None:
    run = ngp_warp.open_run(fitted / "image")
    alone = ngp_warp.fit_image(
        inputs["image"], steps=STEPS, out=tmp_path / "run", device="cpu", **image_runs.SMALL
    )
    assert (run.metrics["processes"], alone.metrics["processes"]) == (N, 1)
    assert json.loads((run.path / "config.json").read_text())["processes"] == N
    # the same batches: rounding alone, which grows from step to step, tells the two apart
    assert abs(run.metrics["psnr"] - alone.metrics["psnr"]) < 0.3
    assert run.metrics["psnr"] > 20
    assert {p.name for p in (run.path / "renders").iterdir()} == {
        p.name for p in (alone.path / "renders").iterdir()
    }


@pytest.mark.parametrize("killed", range(N))
def test_when_one_is_killed_the_others_end_and_the_run_goes_on(
    killed: int, inputs: dict[str, Path], fitted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "image"
    flags = ["--steps", str(STEPS), "--checkpoint-seconds", "0.02", "--quiet", *SMALL_FLAGS]
    started = by_hand("fit-image", str(inputs["image"]), "--out", str(out), *flags)
    until(lambda: list_checkpoints(out), *started)
    started[killed].kill()
    other = started[1 - killed]
    stdout, stderr = other.communicate(timeout=30)
    started[killed].communicate()
    assert other.returncode == 2
    assert stdout == ""
    found = re.fullmatch(
        rf"ngp: error: process {killed} \(pid {started[killed].pid}\) of 2 has ended unexpectedly; "
        rf"the checkpoint after step (\d+) is kept: continue with --resume {re.escape(str(out))}\n",
        stderr,
    )
    assert found, stderr
    assert ngp_warp.open_run(out).header["step"] == int(found[1]) < STEPS
    if killed:
        return
    work(tmp_path, [{"primitive": "image", "resume": str(out)}])
    # as if nothing had been
    for again, straight in zip(kept(tmp_path, "image"), kept(fitted, "image"), strict=True):
        assert differences(again, straight) == set()


def test_runs_share_their_groups_of_processes(fitted: Path) -> None:
    assert [(fitted / f"groups.{rank}").read_text() for rank in range(N)] == ["1"] * N


def test_one_that_is_interrupted_stops_all_and_the_run_goes_on(fitted: Path) -> None:
    # marks of cells and numbers of rays are part of it
    for again, straight in zip(kept(fitted, "again"), kept(fitted, "nerf"), strict=True):
        assert differences(again, straight) == set()
    assert "state.occupancy_met" in kept(fitted, "nerf")[0]


def test_another_number_of_processes_goes_on(fitted: Path, tmp_path: Path) -> None:
    for name, steps in (("image", STEPS + 20), ("nerf", 50)):
        folder = shutil.copytree(fitted / name, tmp_path / name)
        run = fitting.fit_with_settings(
            CASES[name][0], None, settings={"steps": steps}, resume=folder, device="cpu"
        )
        assert run.metrics["processes"] == 1
        assert run.header["step"] == steps


def test_ctrl_c_saves_and_ends_all(inputs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ["--steps", "100000", "--checkpoint-seconds", "0.02", "--quiet", *SMALL_FLAGS]
    command = ["-m", "ngp_warp.cli", "fit-image", str(inputs["image"]), "--out", str(out), *flags]
    process = torchrun(*command)
    until(lambda: list_checkpoints(out), process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0
    (line,) = (line for line in stderr.splitlines() if line.startswith("ngp: "))
    found = re.match(r"ngp: interrupted and saved after step (\d+) of 100000", line)
    assert found, stderr
    assert ngp_warp.open_run(out).header["step"] == int(found[1])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--no-such-flag"], "No such option"),
        (["missing.png"], "missing.png"),
        (["{picture}", "--device", "cuda:0"], "would be shared by 2 processes"),
    ],
)
def test_what_is_wrong_is_said_once(
    args: list[str], message: str, inputs: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    given = [arg.replace("{picture}", str(inputs["image"])) for arg in args]
    process = torchrun("-m", "ngp_warp.cli", "fit-image", *given, "--out", str(out), "--json")
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode != 0
    (line,) = (line for line in stderr.splitlines() if line.startswith("ngp: "))
    assert message in line
    assert message in json.loads(stdout)["error"]
    assert "exitcode  : 2" in stderr
    assert not out.exists()


def test_what_one_process_alone_finds_wrong_it_says(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    started = by_hand(
        *("fit-image", inputs["image"].name, "--quiet", "--out", str(tmp_path / "run")),
        folders=(inputs["image"].parent, tmp_path),
    )
    said = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [2, 2]
    assert said[0] == ""
    assert re.fullmatch(r"ngp: error: .*picture\.png.*\n", said[1])
    assert not (tmp_path / "run").exists()


def test_one_process_exchanges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with distributed.joined() as group:
        assert (group.size, group.leads, group.agree(3, 4)) == (1, True, [3, 4])
        assert exchange.sum_gradients([], "cpu") == []
        assert group.whole(100, 32) == 128
        assert group.stream(7) == 7


def test_batches_are_shared_equally() -> None:
    groups = [distributed.Group(processes.Place(rank, 3, rank, 3)) for rank in range(3)]
    assert {group.whole(1000, 32) for group in groups} == {1056}
    assert {group.part(1056) for group in groups} == {352}
    assert len({group.stream(2**31 - 1) for group in groups}) == 3
    assert [group.place_of_part for group in groups] == [(0, 3), (1, 3), (2, 3)]


def test_an_environment_that_contradicts_itself_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("", "2", "x"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(ConfigError, match="RANK"):
            processes.place()
