"""Laws of the options: flags stand over a file, a resumed run and the defaults, in this order."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ngp_warp import config as c
from ngp_warp.cli import app, options
from ngp_warp.primitives import NAMES, get


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


def test_help_of_a_flag_is_its_docstring_with_choices_and_default(
    fake_core: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
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


def test_every_shared_setting_has_a_docstring(fake_core: Any) -> None:
    assert [flag.name for flag in options.flags_of(fake_core.Config) if not flag.help] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_flag_has_the_default_of_its_primitive(name: str) -> None:
    config = get(name).config()
    for flag in options.flags_of(type(config)):
        value = config
        for part in flag.path:
            value = getattr(value, part)
        assert flag.default == value, flag.name


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


@settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data())
def test_config_to_flags_to_config(fake_core: Any, data: st.DataObject) -> None:
    configs = st.builds(
        fake_core.Config,
        encoding=encodings,
        network=st.builds(c.NetworkConfig, bias=st.booleans(), n_neurons=st.integers(1, 4096)),
        optimizer=optimizers,
        training=trainings,
        loss=st.sampled_from(["l2", "l1", "huber"]),
        clip=st.booleans(),
        cache=st.none() | st.text("abc/._ ", min_size=1).map(lambda text: f"x{text}"),
    )
    config = data.draw(configs)
    assert app.main(["fit-image", "a.jpg", "--quiet", *flags_for(config)]) == 0
    assert fake_core.last[2]["config"] == config


def test_a_flag_overrides_the_file_and_the_file_the_default(fake_core: Any, tmp_path: Path) -> None:
    file = tmp_path / "part.json"
    file.write_text(
        '{"encoding": {"n_levels": 8, "base_resolution": 32}, "training": {"steps": 7}}'
    )
    flags = ["--encoding.n-levels", "4", "--seconds", "2"]
    assert app.main(["fit-image", "a.jpg", "--config", str(file), *flags]) == 0
    assert fake_core.last[2]["config"] == fake_core.Config(
        encoding=c.GridEncodingConfig(n_levels=4, base_resolution=32),
        training=c.TrainingConfig(seconds=2.0),
    )


def test_a_default_given_as_a_flag_still_overrides_the_file(fake_core: Any, tmp_path: Path) -> None:
    file = tmp_path / "part.json"
    file.write_text('{"encoding": {"base_resolution": 32}}')
    flags = ["--encoding.base-resolution", "16"]
    assert app.main(["fit-image", "a.jpg", "--config", str(file), *flags]) == 0
    assert fake_core.last[2]["config"].encoding.base_resolution == 16


def test_a_plain_resume_leaves_the_settings_to_the_run(fake_core: Any) -> None:
    assert app.main(["fit-image", "--resume", "r"]) == 0
    assert fake_core.last[1] == ("image", None)
    assert fake_core.last[2]["config"] is None
    assert fake_core.last[2]["resume"] == Path("r")


def test_flags_override_the_resumed_run(fake_core: Any) -> None:
    fake_core.config = fake_core.Config(
        loss="l1", training=c.TrainingConfig(seconds=60.0), network=c.NetworkConfig(n_neurons=32)
    )
    assert app.main(["fit-image", "--resume", "r", "--steps", "400"]) == 0
    assert fake_core.last[2]["config"] == dataclasses.replace(
        fake_core.config, training=c.TrainingConfig(steps=400)
    )


def test_a_file_overrides_the_resumed_run(fake_core: Any, tmp_path: Path) -> None:
    fake_core.config = fake_core.Config(training=c.TrainingConfig(seconds=60.0, seed=5))
    file = tmp_path / "part.json"
    file.write_text('{"training": {"steps": 7}}')
    assert app.main(["fit-image", "--resume", "r", "--config", str(file)]) == 0
    assert fake_core.last[2]["config"].training == c.TrainingConfig(steps=7, seed=5)


def test_a_field_may_not_hide_a_flag_of_the_command() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Hiding:
        quiet: bool = False

    with pytest.raises(TypeError, match="Hiding"):
        options.with_config_flags(Hiding)(lambda ctx, quiet, flags: None)


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
    text: bytes, fake_core: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.json"
    file.write_bytes(text)
    assert app.main(["fit-image", "a.jpg", "--config", str(file)]) == 2
    err = capfd.readouterr().err
    assert str(file) in err
    assert err.count("\n") == 1


def test_a_run_of_another_primitive_is_refused(
    fake_core: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    fake_core.config = c.NetworkConfig()
    assert app.main(["fit-image", "--resume", "r", "--steps", "4"]) == 2
    assert "is a run of the image primitive" in capfd.readouterr().err
