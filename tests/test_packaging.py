"""Laws of the package: everything is in it, and nothing else at the top level."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"ngp_warp": "ngp_warp", "primitives": "ngp_warp.primitives", "cli": "ngp_warp.cli"}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def installed_name(path: Path) -> str:
    """Return the path that a file of the checkout has once installed."""
    top, *rest = path.relative_to(ROOT).parts
    return "/".join([*FOLDERS[top].split("."), *rest])


def sources(pattern: str) -> list[Path]:
    return [path for folder in FOLDERS for path in (ROOT / folder).rglob(pattern)]


DATA = [*sources("py.typed"), *sources("web/*")]
"""Files that are no Python but belong to the package."""


def test_every_package_is_listed() -> None:
    found = {installed_name(path.parent).replace("/", ".") for path in sources("__init__.py")}
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    assert sorted(found) == sorted(listed)
    assert len(set(listed)) == len(listed)


def test_every_folder_with_python_files_is_a_package() -> None:
    for path in sources("*.py"):
        assert (path.parent / "__init__.py").is_file(), path


@pytest.mark.slow
def test_the_wheel_holds_every_file_and_one_top_level_package(tmp_path: Path) -> None:
    # Copied: a build leaves build/ and *.egg-info beside its sources, and reads what lies there.
    copy = tmp_path / "checkout"
    top = ("pyproject.toml", "README.md", "LICENSE", "NOTICE")
    files = [*sources("*.py"), *(ROOT / n for n in top), *DATA]
    for path in files:
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--disable-pip-version-check", "-w", str(tmp_path), str(copy)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    expected = {installed_name(path) for path in [*sources("*.py"), *DATA]}
    assert "ngp_warp/py.typed" in expected
    assert "ngp_warp/primitives/image/web/openseadragon.min.js" in expected
    assert names == expected
    assert {name.split("/")[0] for name in names} == {"ngp_warp"}
