"""Laws of the compact form: nothing is lost, and it is as small as its statistics allow."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_runs import settings, write_picture
from interruption import interrupt_after

import ngp_warp
from ngp_warp import trainer
from ngp_warp.compact import decode, encode, export_compact, stored_bytes
from ngp_warp.config import GridEncodingConfig
from ngp_warp.decode import load_field
from ngp_warp.encodings.grid import GridEncoding, resolve
from ngp_warp.errors import CheckpointError, ConfigError, ResourceError
from ngp_warp.optimizer import rounded
from ngp_warp.run import describe

QUANTUM = 0.125


def export(run: ngp_warp.Run, path: Path) -> Path:
    """Return the file of a run's compact form."""
    return export_compact(run, path)["output"]


def make_encoding(**changes: Any) -> GridEncoding:
    """Return a grid of a few levels."""
    small = {"n_levels": 3, "n_features_per_level": 2, "log2_hashmap_size": 12, **changes}
    return GridEncoding(2, resolve(GridEncodingConfig(**small), 200), "cpu")


def integers(encoding: GridEncoding, scale: float) -> np.ndarray:
    """Return rounded Laplacian values, as trained tables have them."""
    return np.rint(np.random.default_rng(0).laplace(0, scale, encoding.n_params))


# in one, two and four bytes an integer
@pytest.mark.parametrize("scale", [1.5, 40.0, 1e5])
@pytest.mark.parametrize("n_features", [1, 2, 8])
def test_what_was_rounded_comes_back(scale: float, n_features: int) -> None:
    encoding = make_encoding(n_features_per_level=n_features)
    values = (integers(encoding, scale) * QUANTUM).astype(np.float32)
    parts = encode(values, QUANTUM, encoding)
    assert set(parts["widths"]) <= ({1} if scale < 2 else {1, 2, 4})
    back = decode(parts, QUANTUM, encoding)
    assert back.dtype == np.float32
    assert np.array_equal(back, values)
    assert not np.array_equal(decode(encode(-values, QUANTUM, encoding), QUANTUM, encoding), values)


def test_other_values_are_rounded() -> None:
    encoding = make_encoding()
    values = np.random.default_rng(0).normal(size=encoding.n_params).astype(np.float32)
    back = decode(encode(values, QUANTUM, encoding), QUANTUM, encoding)
    assert np.array_equal(back, rounded(values, QUANTUM))
    # half a step, and a unit in the last place of values of at most 5
    assert np.abs(back - values).max() <= 0.5 * QUANTUM + 1e-6


def test_the_size_is_nearly_the_entropy() -> None:
    encoding = make_encoding(log2_hashmap_size=16)
    whole = integers(encoding, 2.0)
    _, counts = np.unique(whole, return_counts=True)
    share = counts / counts.sum()
    entropy = -(share * np.log2(share)).sum() * whole.size / 8
    size = encode((whole * QUANTUM).astype(np.float32), QUANTUM, encoding)["coded"].size
    # Huffman's codes have whole bits: at worst one more a value, at these a few percent
    assert entropy < size < 1.04 * entropy


@pytest.mark.parametrize("damage", ["length", "width", "stream", "count"])
def test_a_damaged_stream_is_noticed(damage: str) -> None:
    encoding = make_encoding()
    parts = encode((integers(encoding, 1.5) * QUANTUM).astype(np.float32), QUANTUM, encoding)
    parts = {name: array.copy() for name, array in parts.items()}
    if damage == "length":
        parts["lengths"][0] -= 3
    elif damage == "width":
        parts["widths"][1] = 2
    elif damage == "stream":
        parts["coded"][:8] ^= 255
    else:
        parts = {**parts, "lengths": parts["lengths"][:-1], "widths": parts["widths"][:-1]}
    with pytest.raises(CheckpointError, match="damaged"):
        decode(parts, QUANTUM, encoding)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ngp_warp.Run:
    """A run whose table was quantized while it was trained."""
    folder = tmp_path_factory.mktemp("quantized")
    picture = write_picture(folder / "picture.png")
    small = settings(encoding={"quantization": 0.5})
    return ngp_warp.fit_image(picture, steps=300, out=folder / "run", device="cpu", **small)


def test_a_compact_export_is_the_run(run: ngp_warp.Run, tmp_path: Path) -> None:
    from ngp_warp.primitives import get

    path = export(run, tmp_path / "small.safetensors")
    compact = ngp_warp.open_run(path, device="cpu")
    points = np.random.default_rng(0).random((500, 2), np.float32)
    assert np.array_equal(compact.query(points), run.query(points))
    assert get("image").evaluate(compact) == {
        name: run.metrics[name] for name in get("image").evaluate(run)
    }
    assert run.metrics["psnr"] > 20
    compact.render(tmp_path / "a.png")
    run.render(tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert describe(path)["parameters"] == run.metrics["parameters"]
    # what is made of it lies beside it
    assert compact.export("npy")["output"] == tmp_path / "small" / "exports" / "image.npy"
    assert compact.path == tmp_path / "small"
    again = export(compact, tmp_path / "again.safetensors")
    assert np.array_equal(ngp_warp.open_run(again).query(points), run.query(points))


def test_the_size_is_said(run: ngp_warp.Run, tmp_path: Path) -> None:
    field = load_field(run)
    assert run.metrics["bytes"] == stored_bytes(field)
    on_disk = export(run, tmp_path / "small.safetensors").stat().st_size
    # beside the values: the header with the settings
    assert stored_bytes(field) < on_disk < stored_bytes(field) + 4096
    assert stored_bytes(field) < 0.5 * 4 * field.n_params


def test_what_is_read_is_whole_steps(run: ngp_warp.Run) -> None:
    table = load_field(run).table
    assert table.quantum is not None
    step = float(table.quantum.numpy()[0])
    read = table.read.numpy().astype(np.float64) / step
    assert np.abs(read - np.rint(read)).max() < 2.0**-10 * np.abs(read).max()
    assert len(np.unique(np.rint(read))) > 4
    assert not np.allclose(table.value.numpy() / step, np.rint(read), atol=0.1)


def test_only_a_quantized_run_has_a_compact_form(tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "picture.png")
    plain = ngp_warp.fit_image(picture, steps=2, out=tmp_path / "run", device="cpu", **settings())
    with pytest.raises(ConfigError, match=r"encoding\.quantization"):
        export_compact(plain)
    with pytest.raises(ConfigError, match=r"\.safetensors"):
        export_compact(plain, tmp_path / "small.bin")
    with pytest.raises(ResourceError, match="does not exist"):
        export_compact(plain, tmp_path / "none" / "small.safetensors")


def test_a_compact_export_is_not_trained_further(run: ngp_warp.Run, tmp_path: Path) -> None:
    path = export(run, tmp_path / "small.safetensors")
    with pytest.raises(CheckpointError, match="compact export"):
        ngp_warp.fit_image(resume=path, device="cpu")


def test_the_average_is_what_is_exported(run: ngp_warp.Run, tmp_path: Path) -> None:
    small = settings(encoding={"quantization": 0.5}, optimizer={"ema_decay": 0.9})
    averaged = ngp_warp.fit_image(
        run.source, steps=300, out=tmp_path / "run", device="cpu", **small
    )
    compact = ngp_warp.open_run(export(averaged, tmp_path / "small.safetensors"))
    points = np.random.default_rng(0).random((500, 2), np.float32)
    assert np.array_equal(compact.query(points), averaged.query(points))
    assert not np.array_equal(compact.query(points), run.query(points))


# the table is quantized after 120 of 300 steps
@pytest.mark.parametrize("stop", [60, 119, 120, 121, 200])
def test_a_resumed_run_is_quantized_alike(
    run: ngp_warp.Run, stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = settings(encoding={"quantization": 0.5})
    interrupt_after(stop, monkeypatch)
    with pytest.raises(trainer.Interrupted):
        ngp_warp.fit_image(run.source, steps=300, out=tmp_path / "run", device="cpu", **small)
    monkeypatch.undo()
    stopped = ngp_warp.open_run(tmp_path / "run")
    assert stopped.header["step"] == stop
    assert (stopped.arrays()["encoding.quantum"][0] > 0) == (stop >= 120)
    if stop < 120:
        with pytest.raises(ConfigError, match="to the end"):
            export_compact(stopped)
    resumed = ngp_warp.fit_image(resume=tmp_path / "run", device="cpu").arrays()
    assert resumed.keys() == run.arrays().keys()
    for name, array in run.arrays().items():
        assert np.array_equal(array, resumed[name]), name
