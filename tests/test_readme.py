"""The README's commands exist, with the flags and the files that it names."""

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from ngp_warp.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = "\n".join(re.findall(r"^```sh\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL))
NGP = [line for line in SHELL.splitlines() if line.startswith("ngp ")]
MAKE = re.findall(r"\bmake (\w+)", SHELL)


def parse(line: str) -> Any:
    """Parse a command line without running it; a usage error where a flag is not there."""
    name, *args = shlex.split(line)[1:]
    return app.load_command(name).make_context(name, args)


@pytest.mark.parametrize("line", NGP)
def test_a_command_of_the_readme_parses(line: str) -> None:
    with parse(line) as ctx:
        assert ctx.args == []


def test_a_wrong_flag_would_be_noticed() -> None:
    with pytest.raises(app.UsageError, match="such option"):
        parse("ngp info run --no-such-flag")


def test_the_readme_shows_every_command() -> None:
    assert {line.split()[1] for line in NGP} == set(app.COMMANDS)


def test_the_targets_of_make_exist() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(MAKE) <= set(targets)
    assert {"demo", "test"} <= set(MAKE)


def test_the_python_names_exist() -> None:
    module = importlib.import_module("ngp_warp")
    for name in re.findall(r"\bngp_warp\.(\w+)\(", README):
        assert callable(getattr(module, name)), name
