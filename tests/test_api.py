"""Laws of the Python names: each is there once, and loaded when it is used."""

import ast
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import volume_runs
from image_runs import SMALL, settings, write_picture
from sdf_runs import make_quick, write_sphere

import ngp_warp

ROOT = Path(__file__).resolve().parent.parent


def test_every_public_name_is_exported_once() -> None:
    tree = ast.parse((ROOT / "ngp_warp" / "__init__.py").read_text())
    (typed,) = [node for node in tree.body if isinstance(node, ast.If) and "TYPE" in ast.dump(node)]
    imported = [
        alias.name
        for node in typed.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(imported) == sorted(ngp_warp.__all__)
    assert len(set(imported)) == len(imported)
    for name in ngp_warp.__all__:
        value = getattr(ngp_warp, name)
        assert value.__name__ == name
        assert value.__doc__
        assert name in dir(ngp_warp)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        ngp_warp.no_such_name  # noqa: B018


def test_the_names_stay_what_they_are_once_modules_are_loaded() -> None:
    code = (
        "import sys, ngp_warp; print({'warp', 'torch', 'numpy'} & set(sys.modules))\n"
        "import ngp_warp.fitting, ngp_warp.primitives.image.fit, ngp_warp.cli.fit\n"
        "print(callable(ngp_warp.fit), callable(ngp_warp.fit_image))\n"
        "from ngp_warp import *; print(callable(fit), Field.__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:3] == ["set()", "True True", "True Field False"]


def test_settings_reach_their_configs(tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "a.png")
    network = ngp_warp.NetworkConfig(n_neurons=16, n_hidden_layers=1)
    run = ngp_warp.fit_image(
        picture,
        steps=2,
        out=tmp_path / "run",
        seed=7,
        loss="l1",
        network=network,
        cache_dir=tmp_path,
        **{k: v for k, v in SMALL.items() if k != "network"},
    )
    assert run.config.network == network
    assert (run.config.loss, run.config.training.seed, run.config.training.steps) == ("l1", 7, 2)
    assert run.config.cache_dir == str(tmp_path)
    again = ngp_warp.fit_image(
        picture, steps=3, out=tmp_path / "again", config=run.config, encoding={"n_levels": 3}
    )
    assert again.config.encoding.n_levels == 3
    assert again.config.loss == "l1"
    longer = ngp_warp.fit_image(resume=run.path, steps=4)
    assert (longer.path, longer.header["step"], longer.config.loss) == (run.path, 4, "l1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "l3"}, "loss"),
        ({"colour": 3}, "colour"),
        ({"encoding": {"levels": 3}}, "levels"),
        ({"encoding": 3}, "encoding"),
        ({"seconds": 1.0}, "not both"),
        ({"batch_size": "many"}, "batch_size"),
    ],
)
def test_wrong_settings_are_config_errors(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    picture = write_picture(tmp_path / "a.png")
    with pytest.raises(ngp_warp.ConfigError, match=message):
        ngp_warp.fit_image(picture, steps=2, out=tmp_path / "run", **changes)
    assert list(tmp_path.iterdir()) == [picture]


def test_queries_take_torch_and_refuse_other_shapes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    picture = write_picture(tmp_path / "a.png")
    run = ngp_warp.fit_image(picture, steps=2, out=tmp_path / "run", **settings())
    points = np.random.default_rng(0).random((100, 2))
    values = run.query(torch.tensor(points))
    assert values.dtype == torch.float32
    assert np.array_equal(values.numpy(), run.query(points))
    with pytest.raises(ngp_warp.ShapeError):
        run.query(np.zeros((3, 3)))


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_an_example_runs(
    script: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = write_picture(tmp_path / "a.png")
    if script.stem == "collision":
        make_quick(monkeypatch)
        source = write_sphere(tmp_path / "sphere.ply")
    if script.stem == "cloud":
        volume_runs.make_quick(monkeypatch)
        source = volume_runs.write(tmp_path, "fog")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), str(source), "3"])
    runpy.run_path(str(script), run_name="__main__")
    assert "after 3 steps" in capsys.readouterr().out
    most = 110 if script.stem == "nerf_tcnn" else 40  # it holds a whole model
    assert len(script.read_text().splitlines()) <= most
