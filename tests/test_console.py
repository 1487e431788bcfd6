"""Laws of the console: quiet is silent, a log file gets few plain lines, a terminal a bar."""

from typing import Any

import pytest

from ngp_warp.cli.console import SECONDS_BETWEEN_LINES, Console, format_value, progress_line
from ngp_warp.primitive import Progress


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def train(step: int, **kwargs: Any) -> Progress:
    return Progress(stage="train", step=step, total=1000, metric=40.0, seconds_left=61.5, **kwargs)


def test_a_log_gets_one_plain_line_in_a_while(capfd: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Console(clock=clock) as console:
        for step in range(1000):
            clock.now = step * 0.02
            console.progress(train(step))
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert "\x1b" not in err
    assert "\r" not in err
    assert len(lines) == 20.0 / SECONDS_BETWEEN_LINES
    assert lines[0] == "Training 0/1000 PSNR 40.00 dB  1:02 left"


def test_messages_are_never_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    with Console(clock=Clock()) as console:
        for step in range(10):
            console.progress(train(step, message=f"[bold]note {step}"))
    err = capfd.readouterr().err
    assert [line for line in err.splitlines() if "note" in line] == [
        f"[bold]note {step}" for step in range(10)
    ]


def test_a_terminal_gets_a_bar_with_messages_above(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes stderr for a terminal then
    monkeypatch.setenv("TERM", "xterm")
    with Console(clock=Clock()) as console:
        console.progress(Progress(stage="load"))
        console.progress(train(500, samples_per_second=2.5e6, message="note"))
    err = capfd.readouterr().err
    for text in ("Loading", "Training", "500/1000", "PSNR 40.00 dB", "2.50 M samples/s", "note"):
        assert text in err


def test_quiet_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with Console(quiet=True) as console:
        console.progress(train(1, message="note"))
        console.say("line")
        console.table({"psnr": 1.0})
    assert capfd.readouterr() == ("", "")


def test_a_long_path_stays_on_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    path = "/".join(["folder"] * 40)
    Console().say(path)
    assert capfd.readouterr().err == f"{path}\n"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("psnr", 42.126, "42.13 dB"),
        ("psnr", float("inf"), "inf dB"),
        ("ssim", 0.98765, "0.9877"),
        ("bytes", 1048576, "1,048,576 B"),
        ("width", 5312, "5312"),
        ("seconds", 60.123, "60.12 s"),
        ("samples_per_second", 2.5e6, "2,500,000/s"),
        ("deterministic", True, "True"),
        ("device", "cpu", "cpu"),
        ("n_levels", None, "None"),
    ],
)
def test_a_value_reads_with_its_unit(name: str, value: Any, text: str) -> None:
    assert format_value(name, value) == text


def test_a_line_without_total_or_metric_is_the_stage() -> None:
    assert progress_line(Progress(stage="compile")) == "Compiling"


def test_nested_values_are_listed_under_their_path(capfd: pytest.CaptureFixture[str]) -> None:
    Console().answer({"config": {"encoding": {"n_levels": 16, "note": "[bold]"}}})
    out = capfd.readouterr().out
    assert "config.encoding.n_levels" in out
    assert "[bold]" in out
