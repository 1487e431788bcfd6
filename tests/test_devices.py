"""No array is made on Warp's default device: a GPU where there is one, whatever was asked for."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ["ngp_warp", "primitives", "cli", "benchmarks", "examples", "tests"]
MAKERS = {"array", "empty", "from_numpy", "full", "launch", "ones", "zeros"}


def without_device(text):
    """The calls that name no device; ``wp.array(dtype=...)`` is a type."""
    found = []
    for call in ast.walk(ast.parse(text)):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            continue
        if ast.unparse(call.func.value) != "wp" or call.func.attr not in MAKERS:
            continue
        is_type = call.func.attr == "array" and not call.args
        is_named = any(k.arg in ("device", "ptr", None) for k in call.keywords)
        if not is_type and not is_named:
            found.append(f"line {call.lineno}: {ast.unparse(call)}")
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_array_names_its_device(folder):
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        calls = without_device(path.read_text())
        if calls:
            found[str(path.relative_to(ROOT))] = calls
    assert found == {}


def test_a_call_without_a_device_is_found():
    text = "a = wp.zeros(3, dtype=float)\nb = wp.zeros(3, device=d)\nc: wp.array(dtype=float)"
    assert without_device(text) == ["line 1: wp.zeros(3, dtype=float)"]
