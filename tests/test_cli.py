"""Laws of `ngp`: a command calls the core once, and an error is one line and status 2."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ngp_warp
from ngp_warp import config as c
from ngp_warp.cli import app
from ngp_warp.errors import DataError

ROOT = Path(__file__).resolve().parent.parent


# --- help and version


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys; from ngp_warp.cli.app import main; status = main([sys.argv[1]]);"
        "print(status, *{'warp', 'torch', 'numpy'} & set(sys.modules), file=sys.stderr)"
    )
    for flag in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", code, flag], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stderr.split() == ["0"]
        assert ("fit-image" if flag == "--help" else ngp_warp.__version__) in done.stdout


def test_no_arguments_give_the_help(capfd: pytest.CaptureFixture[str]) -> None:
    assert app.main([]) == 0
    assert "fit-image" in capfd.readouterr().out


@pytest.mark.parametrize("name", app.COMMANDS)
def test_every_command_has_help(
    name: str, fake_core: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert app.main([name, "--help"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert "--json" in out
    assert importlib.import_module(app.COMMANDS[name][0]).command.__doc__.strip(".") in out


def test_the_help_of_volumes_names_their_settings(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert app.main(["fit-volume", "--help"]) == 0
    words = " ".join(capfd.readouterr().out.split())
    for flag in ("--mode <density|radiance>", "--albedo <float>", "--density-scale", "--sun"):
        assert flag in words
    for flag in ("--grid", "--shape", "--dtype", "--big-endian", "--target", "--up"):
        assert f"{flag} " in words
    for flag in ("--resume", "--steps", "--seconds", "--threads", "--encoding.quantization"):
        assert f"{flag} " in words


# --- the commands


@pytest.mark.parametrize(
    ("command", "primitive"),
    [("fit-image", "image"), ("fit-sdf", "sdf"), ("nerf", "nerf"), ("fit-volume", "volume")],
)
def test_the_fit_is_called_as_the_flags_say(command: str, primitive: str, fake_core: Any) -> None:
    args = ["a.jpg", "--out", "o", "--device", "cuda:1", "--threads", "3", "--seconds", "9"]
    assert app.main([command, *args]) == 0
    name, positional, kwargs = fake_core.last
    assert (name, positional) == ("fit", (primitive, Path("a.jpg")))
    del kwargs["progress"]
    assert kwargs == {
        "config": fake_core.Config(training=c.TrainingConfig(seconds=9.0)),
        "out": Path("o"),
        "resume": None,
        "device": "cuda:1",
        "threads": 3,
    }


def test_threads_come_from_the_environment_too(
    fake_core: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NGP_NUM_THREADS", "5")
    assert app.main(["fit-image", "a.jpg"]) == 0
    assert fake_core.last[2]["threads"] == 5
    assert fake_core.last[2]["device"] is None


def test_render_export_eval_and_info_call_the_primitive(fake_core: Any) -> None:
    assert app.main(["render", "r", "--scale", "0.5", "--crop", "1,2,30,40", "-o", "o.png"]) == 0
    name, args, kwargs = fake_core.last
    assert (name, args[0]) == ("render", Path("o.png"))
    assert kwargs["scale"] == 0.5
    assert kwargs["width"] is None
    assert kwargs["crop"] == (1, 2, 30, 40)
    assert app.main(["export", "r", "--format", "dzi"]) == 0
    assert fake_core.last[:2] == ("export", ("dzi", None))
    assert app.main(["export", "r", "--format", "png", "-o", "there.png"]) == 0
    assert fake_core.last[1] == ("png", Path("there.png"))
    assert app.main(["eval", "r"]) == 0
    assert fake_core.last[0] == "evaluate"
    assert app.main(["info", "r"]) == 0
    assert fake_core.last[:2] == ("describe", (Path("r"),))


# --- errors

WRONG = [
    ["--zip"],
    ["fit-imag"],
    ["fit-image"],
    ["fit-image", "a.jpg", "b.jpg"],
    ["fit-image", "a.jpg", "--encoding.n-level", "3"],
    ["fit-image", "a.jpg", "--encoding.n-levels", "three"],
    ["fit-image", "a.jpg", "--encoding.n-levels", "0"],
    ["fit-image", "a.jpg", "--encoding.n-levels"],
    ["fit-image", "a.jpg", "--encoding.grid-type", "octree"],
    ["fit-image", "a.jpg", "--optimizer.learning-rate", "nan"],
    ["fit-image", "a.jpg", "--seconds", "1", "--steps", "1"],
    ["fit-image", "a.jpg", "--seconds", "inf"],
    ["fit-image", "a.jpg", "--device", "tpu"],
    ["fit-image", "a.jpg", "--device", "cuda:x"],
    ["fit-image", "a.jpg", "--threads", "0"],
    ["fit-image", "a.jpg", "--config", "missing.json"],
    ["fit-image", "a.jpg", "--config", "."],
    ["render", "r"],
    ["render", "-o", "o.png"],
    ["render", "r", "-o", "o.png", "--width", "0"],
    ["render", "r", "-o", "o.png", "--width", "10", "--scale", "2"],
    *(["render", "r", "-o", "o.png", "--scale", s] for s in ("0", "-1", "nan", "inf", "x")),
    *(
        ["render", "r", "-o", "o.png", "--crop", box]
        for box in ("", "1,2,3", "1,2,3,4,5", "a,b,c,d", "-1,0,1,1", "0,0,0,1", "0,0,1.5,2")
    ),
    ["export", "r"],
    ["eval"],
    ["info", "r", "s"],
    ["fit-volume"],
    ["fit-volume", "a.nvdb", "b.nvdb"],
    *(["render", "r", "-o", "o.png", "--window", w] for w in ("", "1", "1,2,3", "a,b")),
    *(["render", "r", "-o", "o.png", "--at", a] for a in ("", "1,2", "1,2,3,4", "a,b,c")),
]


@pytest.mark.parametrize("args", WRONG, ids=" ".join)
def test_a_wrong_command_line_is_one_line_and_status_2(
    args: list[str], fake_core: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(args) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("ngp: error: ")
    assert err.count("\n") == 1
    assert not [call for call in fake_core.calls if call[0] != "open_run"]

    assert app.main([*args, "--json"] if args[-1] != "--encoding.n-levels" else ["--json"]) == 2
    out, err = capfd.readouterr()
    assert list(json.loads(out)) == ["error"]
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "near"),
    [
        (["fit-image", "a.jpg", "--encoding.n-level", "3"], "--encoding.n-levels"),
        (["fit-image", "a.jpg", "--second", "3"], "--seconds"),
        (["rendr"], "render"),
    ],
)
def test_the_nearest_name_is_suggested(
    args: list[str], near: str, fake_core: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(args) == 2
    assert near in capfd.readouterr().err


def test_an_error_of_the_core_is_one_line(
    fake_core: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise DataError("cannot read 'odd\n\x1b[31mname.jpg'")

    fake_core.do = fail
    assert app.main(["fit-image", "a.jpg", "--quiet"]) == 2
    out, err = capfd.readouterr()
    assert (out, err) == ("", "ngp: error: cannot read 'odd \\x1b[31mname.jpg'\n")


def test_an_interrupt_is_status_130(fake_core: Any, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    fake_core.do = interrupt
    assert app.main(["fit-image", "a.jpg", "--quiet"]) == 130
    assert capfd.readouterr() == ("", "ngp: interrupted\n")
    assert app.main(["fit-image", "a.jpg", "--quiet", "--json"]) == 130
    assert json.loads(capfd.readouterr().out) == {"error": "interrupted"}


def test_a_bug_keeps_its_traceback(fake_core: Any, capfd: pytest.CaptureFixture[str]) -> None:
    fake_core.do = lambda: 1 // 0
    with pytest.raises(ZeroDivisionError):
        app.main(["fit-image", "a.jpg", "--quiet"])
    with pytest.raises(ZeroDivisionError):
        app.main(["fit-image", "a.jpg", "--quiet", "--json"])
    assert "internal error" in json.loads(capfd.readouterr().out)["error"]


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_a_closed_pipe_ends_quietly(flag: str) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "ngp_warp.cli.app", flag]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


# --- json and quiet


def test_json_is_alone_on_stdout(fake_core: Any, capfd: pytest.CaptureFixture[str]) -> None:
    def print_much() -> None:
        print("from Python")
        os.write(1, b"from native code\n")

    fake_core.do = print_much
    fake_core.metrics = {"psnr": float("inf"), "steps": 3, "bits": {"a": float("nan")}}
    for args in (
        ["fit-image", "a.jpg"],
        ["render", "r", "-o", "o.png"],
        ["export", "r", "--format", "dzi"],
        ["eval", "r"],
        ["info", "r"],
    ):
        assert app.main([*args, "--json"]) == 0
        out, err = capfd.readouterr()
        assert isinstance(json.loads(out), dict)
        assert "from Python" in err
        assert "from native code" in err
    result = json.loads(out)
    assert result == {"psnr": None, "steps": 3, "bits": {"a": None}}


def test_fit_json_holds_metrics_run_and_pictures(
    fake_core: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["fit-image", "a.jpg", "--json", "--quiet"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert json.loads(out) == {
        **fake_core.metrics,
        "run": str(fake_core.path),
        "pictures": [str(fake_core.path / "renders" / "result.png")],
    }


def test_fit_tells_the_metrics_and_where_the_pictures_are(
    fake_core: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["fit-image", "a.jpg"]) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "41.50 dB" in err
    assert str(fake_core.path / "renders" / "result.png") in err


def test_quiet_says_nothing(fake_core: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert app.main(["fit-image", "a.jpg", "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")


def test_what_was_asked_for_is_on_stdout(fake_core: Any, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("eval", "info"):
        assert app.main([name, "r", "--quiet"]) == 0
        assert "41.50 dB" in capfd.readouterr().out
