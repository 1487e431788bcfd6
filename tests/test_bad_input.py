"""Laws of what a user can get wrong: one line, status 2, nothing half-written, nothing lost."""

import contextlib
import json
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_runs import SMALL_FLAGS, settings, smooth, write_picture

import ngp_warp
from ngp_warp import memory
from ngp_warp.cli import app

Check = Callable[..., str]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> ngp_warp.Run:
    folder = tmp_path_factory.mktemp("finished")
    return ngp_warp.fit_image(
        write_picture(folder / "picture.png"),
        steps=3,
        out=folder / "run",
        device="cpu",
        **settings(),
    )


@pytest.fixture
def run(finished: ngp_warp.Run, tmp_path: Path) -> ngp_warp.Run:
    """A copy that a test may damage."""
    shutil.copytree(finished.path, tmp_path / "run")
    return ngp_warp.open_run(tmp_path / "run")


# --- inputs


def bad_pictures(folder: Path) -> Iterator[Path]:
    whole = write_picture(folder / "whole.jpg").read_bytes()
    files = {
        "empty.jpg": b"",
        "text.jpg": b"Dear picture,\n" * 50,
        **{f"cut{n}.jpg": whole[: len(whole) * n // 10] for n in range(1, 10)},
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
        yield folder / name
    np.save(folder / "none.npy", np.zeros((0, 5, 3), np.uint8))
    nan = smooth(3, "float32")
    nan[3, 4, 1] = np.nan
    np.save(folder / "nan.npy", nan)
    (folder / "folder.png").mkdir()
    for name in ("none.npy", "nan.npy", "folder.png", "missing.png", "text.jpg/inside.png"):
        yield folder / name


def test_a_picture_that_cannot_be_fitted_is_refused(tmp_path: Path, refused: Check) -> None:
    for path in bad_pictures(tmp_path):
        line = refused("fit-image", str(path), "--steps", "2", *SMALL_FLAGS)
        assert str(path) in line


@pytest.mark.parametrize(
    "flags",
    [
        ["--steps", "0"],
        ["--steps", "-1"],
        ["--steps", "1.5"],
        ["--seconds", "0"],
        ["--seconds", "nan"],
        ["--steps", "5", "--seconds", "5"],
        ["--batch-size", "0"],
        ["--seed", "-1"],
        ["--encoding.n-levels", "0"],
        ["--encoding.n-features-per-level", "3"],
        ["--encoding.log2-hashmap-size", "40"],
        ["--encoding.grid-type", "hashed"],
        ["--network.n-neurons", "0"],
        ["--network.n-neurons", "20", "--network.backend", "fused"],
        ["--network.n-hidden-layers", "2", "--network.skip-layer", "2"],
        ["--optimizer.learning-rate", "-1"],
        ["--loss", "l3"],
        ["--sampler", "grid"],
        ["--transfer", "asinh"],
        ["--transfer-scale", "0"],
        ["--device", "tpu"],
        ["--device", "cuda:99"],
        ["--threads", "0"],
        ["--threads", "many"],
        ["--no-such-flag"],
        ["--out"],
        ["--config", "missing.json"],
        ["--config", "picture.png"],
        ["--config", "list.json"],
        ["--config", "unknown.json"],
        ["--config", "broken-run.json"],
        ["--resume", "nowhere"],
        ["--resume", "empty"],
        ["--resume", "picture.png"],
        ["--out", "picture.png"],
        ["--out", "picture.png/run"],
        ["--out", "/proc/nowhere/run"],
    ],
)
def test_a_wrong_flag_is_refused(flags: list[str], tmp_path: Path, refused: Check) -> None:
    write_picture(tmp_path / "picture.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "unknown.json").write_text('{"encodings": {}}')
    (tmp_path / "broken-run.json").write_text('{"primitive": "image", "config": 3}')
    device = [] if "--device" in flags else ["--device", "cpu"]
    refused("fit-image", "picture.png", *device, *flags)


@pytest.mark.parametrize("command", [["eval"], ["render", "-o", "a.png"], ["export", "-f", "png"]])
def test_a_wrong_number_of_threads_in_the_environment_is_refused(
    command: list[str], run: ngp_warp.Run, refused: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NGP_NUM_THREADS", "abc")
    assert "NGP_NUM_THREADS" in refused(*command, "run")
    refused("fit-image", str(run.source), "--steps", "2")


def test_a_folder_that_holds_a_run_is_refused(run: ngp_warp.Run, refused: Check) -> None:
    line = refused("fit-image", str(run.source), "--out", "run")
    assert "already holds a run" in line
    assert "--resume run" in line
    refused("fit-image", "--resume", "run", "--out", "other")


def test_a_failed_fit_can_be_tried_again(tmp_path: Path, refused: Check) -> None:
    picture = write_picture(tmp_path / "picture.png")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep")
    args = ["fit-image", str(picture), "--steps", "2", *SMALL_FLAGS, "--out", "mine"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: Usage(10**9, 10**9, 1000))
        assert "1.0 kB free" in refused(*args)
    assert app.main([*args, "--quiet"]) == 0
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep"


def test_a_diverging_run_is_refused(tmp_path: Path, refused: Check) -> None:
    picture = write_picture(tmp_path / "picture.png")
    flags = ["--steps", "200", *SMALL_FLAGS, "--optimizer.learning-rate", "1e30"]
    assert "learning-rate" in refused("fit-image", str(picture), *flags)


def test_a_network_too_large_for_the_memory_is_refused(
    tmp_path: Path, refused: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ngp_warp.memory.available_bytes", lambda: 8 << 30)
    write_picture(tmp_path / "picture.png")
    wide = ["--network.n-neurons", "4096", "--network.n-hidden-layers", "32"]
    assert "network 14.6 GB" in refused("fit-image", "picture.png", "--steps", "2", *wide)


def test_too_little_memory_is_refused(
    tmp_path: Path, refused: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = write_picture(tmp_path / "picture.png")
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 20)
    line = refused("fit-image", str(picture), "--steps", "2", *SMALL_FLAGS)
    assert "1.0 MB are free" in line
    assert "--encoding.log2-hashmap-size" in line


# --- disks


def test_a_full_disk_is_noticed_before_training(small_disk: Path, refused: Check) -> None:
    picture = write_picture(small_disk.parent / "picture.png")
    (small_disk / "filler").write_bytes(bytes(40 << 10))
    line = refused("fit-image", str(picture), "--steps", "2", *SMALL_FLAGS, "--out", "disk/run")
    assert "free" in line


@pytest.mark.parametrize("filler", [56, 20])
def test_a_disk_that_fills_up_is_refused(
    filler: int, small_disk: Path, refused: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint does not fit (56 kB are taken), or fits and the pictures do not (20 kB)."""
    picture = write_picture(small_disk.parent / "picture.png")
    (small_disk / "filler").write_bytes(bytes(filler << 10))
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(1 << 40, 0, 1 << 40))
    args = ["fit-image", str(picture), "--steps", "2", *SMALL_FLAGS, "--out", "disk/run"]
    if filler == 56:
        refused(*args)
        return
    assert app.main([*args, "--quiet"]) == 2
    assert not list(small_disk.rglob("*.tmp-*"))
    assert ngp_warp.open_run(small_disk / "run").arrays()
    (small_disk / "filler").unlink()
    with contextlib.suppress(ngp_warp.ResourceError):  # the pictures may need more still
        ngp_warp.fit_image(resume=small_disk / "run")


def test_an_output_that_cannot_be_written_is_refused(run: ngp_warp.Run, refused: Check) -> None:
    for output in ("nowhere/a.png", "run", "run/config.json/a.png", "a.gif", "a"):
        refused("render", "run", "-o", output)
    for crop in ("40,0,20,10", "0,0,0,5", "0,30,5,5", "1,2,3"):
        refused("render", "run", "-o", "a.png", "--crop", crop)
    refused("export", "run", "-f", "png", "-o", "a.jpg")
    refused("export", "run", "-f", "dzi", "-o", "run/renders")
    refused("export", "run", "-f", "dzi", "-o", "nowhere/at/all")


# --- checkpoints


def damaged(content: bytes) -> Iterator[tuple[str, bytes]]:
    for n in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1):
        yield f"cut to {n}", content[:n]
    yield "one byte more", content + b"\0"
    step = max(len(content) // 150, 1)
    for at in {*range(12), *range(0, len(content), step), len(content) - 1}:
        changed = bytearray(content)
        changed[at] ^= 1 << (at % 8)
        yield f"byte {at} flipped", bytes(changed)


def test_a_damaged_checkpoint_is_refused(run: ngp_warp.Run, refused: Check) -> None:
    content = run.checkpoint.read_bytes()
    for number, (what, changed) in enumerate(damaged(content)):
        assert changed != content, what
        run.checkpoint.write_bytes(changed)
        assert "checkpoint" in refused("info", "run"), what
        if number % 12 == 0:
            refused("fit-image", "--resume", "run", "--steps", "5")
            refused("render", "run", "-o", "a.png")
            refused("eval", "run")
    run.checkpoint.write_bytes(content)
    assert app.main(["info", "run", "--quiet"]) == 0


def test_settings_that_do_not_fit_the_checkpoint_are_refused(
    run: ngp_warp.Run, refused: Check
) -> None:
    for flags in (["--encoding.n-levels", "3"], ["--network.n-neurons", "32"]):
        line = refused("fit-image", "--resume", "run", "--steps", "5", *flags)
        assert "settings" in line


def test_another_picture_than_the_run_s_is_refused(
    run: ngp_warp.Run, tmp_path: Path, refused: Check
) -> None:
    write_picture(tmp_path / "larger.png", smooth(width=50))
    assert "width 50, then 48" in refused("fit-image", "larger.png", "--resume", "run")
    write_picture(tmp_path / "other.png", 255 - smooth())
    assert "digest" in refused("fit-image", "other.png", "--resume", "run")


def test_a_run_without_its_metrics_or_picture_is_refused(
    run: ngp_warp.Run, tmp_path: Path, refused: Check
) -> None:
    (run.path / "metrics.json").write_text("{")
    assert "metrics.json" in refused("info", "run")
    (run.path / "metrics.json").unlink()
    picture = write_picture(tmp_path / "gone.png")
    ngp_warp.fit_image(picture, steps=2, out="second", device="cpu", **settings())
    picture.unlink()
    assert "gone.png" in refused("eval", "second")
    assert app.main(["render", "second", "-o", "still.png", "--quiet"]) == 0


def test_json_holds_the_error_too(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert app.main(["fit-image", "missing.png", "--json"]) == 2
    out, err = capfd.readouterr()
    values: dict[str, Any] = json.loads(out)
    assert "missing.png" in values["error"]
    assert "Traceback" not in err
