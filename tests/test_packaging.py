"""Laws of the package: everything is in it, and nothing else at the top level."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Copied: a build leaves build/ and *.egg-info beside its sources, and reads what lies there.
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "checkout"
    top = ("pyproject.toml", "README.md", "LICENSE", "NOTICE")
    files = [*sources("*.py"), *(ROOT / n for n in top), *DATA]
    for path in files:
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--disable-pip-version-check", "-w", str(folder), str(copy)]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_every_file_and_one_top_level_package(wheel: Path) -> None:
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    expected = {installed_name(path) for path in [*sources("*.py"), *DATA]}
    assert "ngp_warp/py.typed" in expected
    assert "ngp_warp/primitives/image/web/openseadragon.min.js" in expected
    assert names == expected
    assert {name.split("/")[0] for name in names} == {"ngp_warp"}


@pytest.mark.slow
def test_the_commands_work_from_the_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    install += ["--disable-pip-version-check", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    np.save(empty / "photo.npy", picture)

    def ngp(*args: str) -> dict[str, Any]:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        command = [sys.executable, str(site / "bin" / "ngp"), *args, "--json", "--quiet"]
        done = subprocess.run(command, cwd=empty, env=environment, check=True, capture_output=True)
        return json.loads(done.stdout)

    metrics = ngp("fit-image", "photo.npy", "--steps", "20", "--out", "run", "--device", "cpu")
    assert metrics["steps"] == 20
    ngp("render", "run", "-o", "out.png", "--device", "cpu")
    ngp("export", "run", "--format", "dzi", "--device", "cpu")
    assert (empty / "out.png").is_file()
    assert ngp("info", "run")["step"] == 20
    where = "import ngp_warp; print(ngp_warp.__file__)"
    path = subprocess.run(
        [sys.executable, "-c", where],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert Path(path.strip()).is_relative_to(site)
