"""Laws of the command `ngp`: its flags are its settings, and an error is one line and status 2.

The core is replaced by a fake that records how it was called, so that nothing is trained here.
"""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ngp_warp
from ngp_warp import config as c
from ngp_warp.cli import app, options
from ngp_warp.errors import DataError
from ngp_warp.primitive import Progress

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class FakeConfig:
    """Settings of the fake primitive."""

    encoding: c.GridEncodingConfig = field(default_factory=c.GridEncodingConfig)
    network: c.NetworkConfig = field(default_factory=c.NetworkConfig)
    optimizer: c.OptimizerConfig = field(default_factory=c.OptimizerConfig)
    training: c.TrainingConfig = field(default_factory=c.TrainingConfig)
    loss: c.Loss = "l2"
    """What is made small,
    in [channel units]."""
    clip: bool = True
    """Clip to the displayable range."""
    cache: str | None = None
    """Folder of the cache."""


@dataclass
class FakeCore:
    """Records the calls; ``do`` runs inside each."""

    path: Path
    calls: list[tuple[str, tuple, dict[str, Any]]] = field(default_factory=list)
    do: Callable[[], Any] = lambda: None
    metrics: dict[str, Any] = field(default_factory=lambda: {"psnr": 41.5, "steps": 1000})
    config: Any = field(default_factory=FakeConfig)

    def record(self, name: str, result: Any = None) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            if "progress" in kwargs:
                kwargs["progress"](Progress(stage="train", step=1, total=2, metric=40.0))
            self.do()
            return self.metrics if result == "metrics" else self.run

        return call

    @property
    def run(self) -> Any:
        return types.SimpleNamespace(
            path=self.path, metrics=self.metrics, config=self.config, primitive="image"
        )

    @property
    def last(self) -> tuple[str, tuple, dict[str, Any]]:
        return self.calls[-1]


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeCore]:
    """Put a fake core in place of ngp_warp.fit, ngp_warp.run and the image primitive."""
    monkeypatch.delenv("NGP_NUM_THREADS", raising=False)
    fake = FakeCore(tmp_path / "run")
    (fake.path / "renders").mkdir(parents=True)
    (fake.path / "renders" / "result.png").write_bytes(b"")
    primitive = types.SimpleNamespace(
        config=FakeConfig,
        render=fake.record("render"),
        exporters={"dzi": fake.record("dzi"), "png": fake.record("png")},
        evaluate=fake.record("evaluate", "metrics"),
    )
    modules = {
        "ngp_warp.fit": {"fit": fake.record("fit")},
        "ngp_warp.run": {
            "open_run": fake.record("open_run"),
            "describe": fake.record("describe", "metrics"),
        },
        "ngp_warp.primitives": {"get": {"image": primitive}.__getitem__},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    # Built anew, from the fake's config: the flags are made when the module is imported.
    for name in ("fit_image", "fit"):
        monkeypatch.delitem(sys.modules, f"ngp_warp.cli.{name}", raising=False)
    yield fake
    for name in ("fit_image", "fit"):
        sys.modules.pop(f"ngp_warp.cli.{name}", None)


def flags_for(config: Any) -> list[str]:
    """Return the arguments that give every setting of a config that is not None."""
    args = []
    for flag in options.flags_of(type(config)):
        value = config
        for name in flag.path:
            value = getattr(value, name)
        prefix, _, last = flag.name.rpartition(".")
        if value is False:
            args.append(f"--{prefix}{'.' if prefix else ''}no-{last}")
        elif value is not None:
            args += [f"--{flag.name}"] + ([] if value is True else [str(value)])
    return args


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
    name: str, core: FakeCore, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert app.main([name, "--help"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert "--json" in out
    assert importlib.import_module(app.COMMANDS[name][0]).command.__doc__.strip(".") in out


def test_help_of_a_flag_is_its_docstring_with_choices_and_default(
    core: FakeCore, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert app.main(["fit-image", "--help"]) == 0
    out = " ".join(capfd.readouterr().out.split())
    for text in (
        "--encoding.base-resolution <int> Resolution N_min of the coarsest level. [default: 16]",
        "--encoding.grid-type <hash|dense|tiled>",
        "--clip / --no-clip Clip to the displayable range.",
        "--loss <l2|l1|relative_l2|mape|smape|huber|log_l1>",
        "What is made small, in [channel units]. [default: l2]",
        "--seconds",
        "--deterministic",
    ):
        assert text in out


def test_every_shared_setting_has_a_docstring() -> None:
    assert [flag.name for flag in options.flags_of(FakeConfig) if not flag.help] == []


# --- flags are settings


encodings = st.builds(
    c.GridEncodingConfig,
    grid_type=st.sampled_from(["hash", "dense", "tiled"]),
    n_levels=st.none() | st.integers(1, 64),
    per_level_scale=st.none() | st.floats(1.0, 16.0),
    dtype=st.sampled_from(["float32", "float16"]),
)
optimizers = st.builds(
    c.OptimizerConfig, learning_rate=st.floats(0.0, 1e3), epsilon=st.floats(0.0, 1.0)
)
trainings = st.builds(
    c.TrainingConfig,
    steps=st.none() | st.integers(1, 2**31 - 1),
    seed=st.integers(0, 2**31 - 1),
    deterministic=st.booleans(),
)
configs = st.builds(
    FakeConfig,
    encoding=encodings,
    network=st.builds(c.NetworkConfig, bias=st.booleans(), n_neurons=st.integers(1, 4096)),
    optimizer=optimizers,
    training=trainings,
    loss=st.sampled_from(["l2", "l1", "huber"]),
    clip=st.booleans(),
    cache=st.none() | st.text("abc/._ ", min_size=1).map(lambda text: f"x{text}"),
)


@settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data())
def test_config_to_flags_to_config(core: FakeCore, data: st.DataObject) -> None:
    config = data.draw(configs)
    assert app.main(["fit-image", "a.jpg", "--quiet", *flags_for(config)]) == 0
    assert core.last[2]["config"] == config


def test_the_fit_is_called_as_the_flags_say(core: FakeCore, tmp_path: Path) -> None:
    args = ["a.jpg", "--out", "o", "--device", "cuda:1", "--threads", "3", "--seconds", "9"]
    assert app.main(["fit-image", *args]) == 0
    name, positional, kwargs = core.last
    assert (name, positional) == ("fit", ("image", Path("a.jpg")))
    del kwargs["progress"]
    assert kwargs == {
        "config": FakeConfig(training=c.TrainingConfig(seconds=9.0)),
        "out": Path("o"),
        "resume": None,
        "device": "cuda:1",
        "threads": 3,
    }


def test_threads_come_from_the_environment_too(
    core: FakeCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NGP_NUM_THREADS", "5")
    assert app.main(["fit-image", "a.jpg"]) == 0
    assert core.last[2]["threads"] == 5
    assert core.last[2]["device"] is None


def test_a_flag_overrides_the_file_and_the_file_the_default(core: FakeCore, tmp_path: Path) -> None:
    file = tmp_path / "part.json"
    file.write_text(
        '{"encoding": {"n_levels": 8, "base_resolution": 32}, "training": {"steps": 7}}'
    )
    flags = ["--encoding.n-levels", "4", "--seconds", "2"]
    assert app.main(["fit-image", "a.jpg", "--config", str(file), *flags]) == 0
    assert core.last[2]["config"] == FakeConfig(
        encoding=c.GridEncodingConfig(n_levels=4, base_resolution=32),
        training=c.TrainingConfig(seconds=2.0),
    )


def test_a_default_given_as_a_flag_still_overrides_the_file(core: FakeCore, tmp_path: Path) -> None:
    file = tmp_path / "part.json"
    file.write_text('{"encoding": {"base_resolution": 32}}')
    flags = ["--encoding.base-resolution", "16"]
    assert app.main(["fit-image", "a.jpg", "--config", str(file), *flags]) == 0
    assert core.last[2]["config"].encoding.base_resolution == 16


def test_a_plain_resume_leaves_the_settings_to_the_run(core: FakeCore) -> None:
    assert app.main(["fit-image", "--resume", "r"]) == 0
    assert core.last[1] == ("image", None)
    assert core.last[2]["config"] is None
    assert core.last[2]["resume"] == Path("r")


def test_flags_override_the_resumed_run(core: FakeCore) -> None:
    core.config = FakeConfig(
        loss="l1", training=c.TrainingConfig(seconds=60.0), network=c.NetworkConfig(n_neurons=32)
    )
    assert app.main(["fit-image", "--resume", "r", "--steps", "400"]) == 0
    assert core.last[2]["config"] == dataclasses.replace(
        core.config, training=c.TrainingConfig(steps=400)
    )


def test_a_file_overrides_the_resumed_run(core: FakeCore, tmp_path: Path) -> None:
    core.config = FakeConfig(training=c.TrainingConfig(seconds=60.0, seed=5))
    file = tmp_path / "part.json"
    file.write_text('{"training": {"steps": 7}}')
    assert app.main(["fit-image", "--resume", "r", "--config", str(file)]) == 0
    assert core.last[2]["config"].training == c.TrainingConfig(steps=7, seed=5)


def test_a_field_may_not_hide_a_flag_of_the_command() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Hiding:
        quiet: bool = False

    with pytest.raises(TypeError, match="Hiding"):
        options.with_config_flags(Hiding)(lambda ctx, quiet, flags: None)


# --- the other commands


def test_render_export_eval_and_info_call_the_primitive(core: FakeCore) -> None:
    assert app.main(["render", "r", "--scale", "0.5", "--crop", "1,2,30,40", "-o", "o.png"]) == 0
    name, args, kwargs = core.last
    assert (name, args[1]) == ("render", Path("o.png"))
    assert kwargs["scale"] == 0.5
    assert kwargs["width"] is None
    assert kwargs["crop"] == (1, 2, 30, 40)
    assert app.main(["export", "r", "--format", "dzi"]) == 0
    assert core.last[:2][0] == "dzi"
    assert core.last[1][1] == core.path / "exports" / "image.dzi"
    assert app.main(["export", "r", "--format", "png", "-o", "there.png"]) == 0
    assert core.last[1][1] == Path("there.png")
    assert app.main(["eval", "r"]) == 0
    assert core.last[0] == "evaluate"
    assert app.main(["info", "r"]) == 0
    assert core.last[:2] == ("describe", (Path("r"),))


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
    ["export", "r", "--format", "gif"],
    ["eval"],
    ["info", "r", "s"],
]


@pytest.mark.parametrize("args", WRONG, ids=" ".join)
def test_a_wrong_command_line_is_one_line_and_status_2(
    args: list[str], core: FakeCore, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(args) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("ngp: error: ")
    assert err.count("\n") == 1
    assert not [call for call in core.calls if call[0] != "open_run"]

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
    args: list[str], near: str, core: FakeCore, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(args) == 2
    assert near in capfd.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[1]",
        b'{"loss": "l3"}',
        b'{"encoding": {"n_level": 1}}',
        b"[" * 99999,
    ],
)
def test_a_bad_settings_file_is_named(
    text: bytes, core: FakeCore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.json"
    file.write_bytes(text)
    assert app.main(["fit-image", "a.jpg", "--config", str(file)]) == 2
    err = capfd.readouterr().err
    assert str(file) in err
    assert err.count("\n") == 1


def test_a_run_of_another_primitive_is_refused(
    core: FakeCore, capfd: pytest.CaptureFixture[str]
) -> None:
    core.config = c.NetworkConfig()
    assert app.main(["fit-image", "--resume", "r", "--steps", "4"]) == 2
    assert "is a run of the image primitive" in capfd.readouterr().err


def test_an_error_of_the_core_is_one_line(
    core: FakeCore, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise DataError("cannot read 'odd\n\x1b[31mname.jpg'")

    core.do = fail
    assert app.main(["fit-image", "a.jpg", "--quiet"]) == 2
    out, err = capfd.readouterr()
    assert (out, err) == ("", "ngp: error: cannot read 'odd \\x1b[31mname.jpg'\n")


def test_an_interrupt_is_status_130(core: FakeCore, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    core.do = interrupt
    assert app.main(["fit-image", "a.jpg", "--quiet"]) == 130
    assert capfd.readouterr() == ("", "ngp: interrupted\n")
    assert app.main(["fit-image", "a.jpg", "--quiet", "--json"]) == 130
    assert json.loads(capfd.readouterr().out) == {"error": "interrupted"}


def test_a_bug_keeps_its_traceback(core: FakeCore, capfd: pytest.CaptureFixture[str]) -> None:
    core.do = lambda: 1 // 0
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


def test_json_is_alone_on_stdout(core: FakeCore, capfd: pytest.CaptureFixture[str]) -> None:
    def print_much() -> None:
        print("from Python")
        os.write(1, b"from native code\n")

    core.do = print_much
    core.metrics = {"psnr": float("inf"), "steps": 3, "bits": {"a": float("nan")}}
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
    core: FakeCore, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["fit-image", "a.jpg", "--json", "--quiet"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert json.loads(out) == {
        **core.metrics,
        "run": str(core.path),
        "pictures": [str(core.path / "renders" / "result.png")],
    }


def test_fit_tells_the_metrics_and_where_the_pictures_are(
    core: FakeCore, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["fit-image", "a.jpg"]) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "41.50 dB" in err
    assert str(core.path / "renders" / "result.png") in err


def test_quiet_says_nothing(core: FakeCore, capfd: pytest.CaptureFixture[str]) -> None:
    assert app.main(["fit-image", "a.jpg", "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")


def test_what_was_asked_for_is_on_stdout(core: FakeCore, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("eval", "info"):
        assert app.main([name, "r", "--quiet"]) == 0
        assert "41.50 dB" in capfd.readouterr().out
