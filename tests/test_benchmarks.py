"""The twins that the benchmarks time are the functions that they are compared with."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from sdf_runs import write_sphere

from benchmarks import gigapixel, report, thumbnail
from benchmarks.__main__ import main
from benchmarks.limits import LimitKernels, size_class
from benchmarks.mosaic import Mosaic
from benchmarks.plot import line_plot, ticks
from benchmarks.training_step import StepSize, TrainingStep, least_times
from ngp_warp.errors import ConfigError, NgpError
from ngp_warp.primitives.image.data import load_image


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.fixture(params=[2, 3])
def step(request, photo):
    """A step of 2^10 points, with features of the order of one."""
    size = StepSize(n_dims=request.param, batch_log2=10, table_log2=12)
    step = TrainingStep(size, photo)
    table = step.field.table.value
    table.assign(table.numpy() * np.float32(1e4))
    for name in ("sample", "fetch targets"):
        step.parts.get(name, lambda: None)()
    return step


def test_the_torch_twin_has_our_loss_and_gradients(step):
    from benchmarks import twin_torch

    found = twin_torch.check_same(step)
    # float32 sums of 2^10 terms in another order
    assert found["loss"] < 1e-6
    assert max(found["weights"], found["table"]) < 1e-4


def test_another_table_differs(step):
    from benchmarks import twin_torch

    original = twin_torch.TorchField
    table = step.field.table.value.numpy().copy()

    class Rolled(original):
        def __init__(self, field):
            field.table.value.assign(np.roll(table, 2))
            super().__init__(field)
            field.table.value.assign(table)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twin_torch, "TorchField", Rolled)
        with pytest.raises(AssertionError, match="twin differs"):
            twin_torch.check_same(step)


def test_the_parts_train_like_the_whole_step(step, photo):
    other = TrainingStep(step.size, photo)
    other.field.table.value.assign(step.field.table.value.numpy())
    other.parts["sample"]()  # the fixture's has drawn its first batch
    for _ in range(3):
        for part in step.parts.values():
            part()
        other.whole()
    for name, p in step.field.parameters().items():
        np.testing.assert_array_equal(p.value.numpy(), other.field.parameters()[name].value.numpy())


def test_a_step_touches_what_its_batch_reads(step):
    n_touched = step.count_touched()
    corners = 2**step.size.n_dims * step.size.n_points * step.field.encoding.n_levels
    assert 0 < n_touched <= min(corners, step.field.table.touched.size)
    assert not step.field.table.touched.numpy().any()


def test_limits_and_least_times_are_positive_and_finite(step):
    levels = [level.size for level in step.field.encoding.levels]
    kernels = LimitKernels(levels, state_bytes=1, n_rounds_share=1e-3)
    limits = kernels.limits(report.medians(report.interleave(kernels.parts, 3)))
    rates = [limits.flops, limits.bandwidth, *limits.gather.values(), *limits.update.values()]
    least = least_times(step, limits, n_touched=1)
    assert set(step.parts) < set(least)
    assert all(0 < value < math.inf for value in (*rates, *least.values()))
    assert limits.gather_rate(max(levels)) == limits.gather[size_class(max(levels))]


def test_the_pyramid_learns(photo):
    import torch

    from benchmarks import twin_pyramid, twin_torch

    torch.manual_seed(0)
    for n_dims in (2, 3):
        model = twin_pyramid.Pyramid(n_dims, 1, finest_resolution=32)
        x = torch.rand(256, n_dims)
        target = x.sum(1, keepdim=True)
        step = twin_torch.torch_step(
            model, twin_pyramid.make_optimizer(model), lambda x=x, t=target: (x, t)
        )
        before = (model(x) - target).square().mean().item()
        for _ in range(20):
            step()
        assert (model(x) - target).square().mean().item() < 0.1 * before


def test_parts_are_timed_in_turns():
    order = []
    times = report.interleave({name: lambda n=name: order.append(n) for name in "ab"}, 3)
    assert order == list("ab") * 4  # one untimed round first
    assert [len(t) for t in times.values()] == [3, 3]


@pytest.mark.parametrize("compress", [False, True])
def test_a_mosaic_is_its_definition(tmp_path, compress):
    photo = np.random.default_rng(1).integers(0, 256, (330, 410, 3), np.uint8)
    made = Mosaic(photo, size=1024, cell=300)
    made.write(tmp_path / "mosaic.tif", compress=compress)
    pixels = load_image(tmp_path / "mosaic.tif").pixels

    square = photo[15:315, 55:355]
    flips = {o: np.rot90(square[:, ::-1] if o >= 4 else square, o % 4) for o in range(8)}
    rows = [np.concatenate([flips[o] for o in row], axis=1) for row in made.orientation]
    expected = np.concatenate(rows)[:1024, :1024]
    np.testing.assert_array_equal(pixels, expected)
    assert made.orientation.shape == (4, 4)
    assert len({flip.tobytes() for flip in flips.values()}) == 8


def test_a_mosaic_refuses_cells_larger_than_the_photo(photo):
    with pytest.raises(ConfigError, match="from 1 to the photo's 60, got 61"):
        Mosaic(photo, size=128, cell=61)


@pytest.fixture
def smooth():
    y, x = np.mgrid[0:211, 0:173]
    waves = [np.sin(x / 9 + y / (5 + c)) for c in range(3)]
    return (127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def test_bands_give_the_thumbnail_of_the_whole(smooth, monkeypatch):
    whole = Image.fromarray(smooth).resize((40, 51), Image.Resampling.LANCZOS)
    monkeypatch.setattr(thumbnail, "_BAND_BYTES", 20_000)
    reduced = thumbnail.reduce(smooth, 40, 51).astype(int)
    # the box's float32 corners move the filter's weights by a rounding step
    assert np.abs(reduced - np.asarray(whole, int)).max() <= 1


def test_bands_give_the_psnr_of_the_whole(smooth, monkeypatch):
    small = thumbnail.reduce(smooth, 40, 51)
    enlarged = Image.fromarray(small).resize((173, 211), Image.Resampling.BICUBIC)
    mean = np.square(np.asarray(enlarged, float) - smooth).mean()
    monkeypatch.setattr(thumbnail, "_BAND_BYTES", 20_000)
    found = thumbnail.enlarged_psnr(smooth, small)
    assert found == pytest.approx(10 * np.log10(255**2 / mean), abs=0.02)
    assert found < thumbnail.enlarged_psnr(smooth, smooth)


def test_thumbnails_take_the_bytes_that_they_may(smooth):
    raw = thumbnail.raw_thumbnail(smooth, 9000)
    assert 0.9 * 9000 < raw.nbytes <= 9000
    png, n_bytes = thumbnail.png_thumbnail(smooth, 9000)
    assert 0.9 * 9000 < n_bytes <= 9000
    assert png.size > raw.size
    whole, _ = thumbnail.png_thumbnail(smooth, smooth.nbytes)
    np.testing.assert_array_equal(whole, smooth)


def test_a_watched_command_that_fails_says_why(tmp_path):
    with pytest.raises(NgpError, match="there is no run"):
        gigapixel.watched(["info", str(tmp_path / "none"), "--json"])


def test_ticks_are_round_and_span_the_values():
    assert ticks(0, 60) == [0, 10, 20, 30, 40, 50, 60]
    for low, high in ((31.2, 31.9), (-3, 1000), (5, 5)):
        found = ticks(low, high)
        assert found[0] <= low
        assert found[-1] >= high
        assert 2 <= len(found) <= 9


def test_a_plot_shows_every_curve(tmp_path):
    curves = {"one": [(1, 30.0), (60, 40.0)], "two": [(1, 20.0), (60, 35.0)]}
    path = tmp_path / "docs" / "plot.png"
    line_plot(curves, path, title="t", x_label="x", y_label="y")
    with Image.open(path) as image:
        colors = {color for _, color in image.getcolors(2**16)}
    assert {(0x0B, 0x6F, 0xB8), (0xD1, 0x49, 0x1B)} <= colors


def test_the_step_command_prints_and_writes_every_part(tmp_path, capsys):
    path = tmp_path / "step.json"
    sizes = ["--dims", "3", "--batch-log2", "10", "--table-log2", "8"]
    assert main(["step", *sizes, "--no-twins", "--json", str(path)]) == 0
    results = json.loads(path.read_text())
    printed = capsys.readouterr().out
    assert {"encode", "network train", "grid backward", "whole step"} < set(results["parts"])
    assert all(name in printed for name in results["parts"])
    assert results["threads"] >= 1


def test_the_torch_command_compares_and_writes(tmp_path, capsys):
    args = ["torch", "--batch-log2", "10", "--table-log2", "12", "--json", str(tmp_path / "t.json")]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert "plain PyTorch twin" in out
    results = json.loads((tmp_path / "t.json").read_text())
    assert 0 <= results["difference"] < 1e-4
    assert set(results["seconds"]) == {"PyTorch", "own", "sweep", "module"}
    assert results["faster_than_twin"] > 0


def test_another_function_than_the_twins_is_not_timed(monkeypatch):
    from benchmarks import torch_modules

    original = torch_modules.make_module

    def other(step):
        module = original(step)
        module.params.data.mul_(1.01)
        return module

    monkeypatch.setattr(torch_modules, "make_module", other)
    with pytest.raises(AssertionError, match="module and twin differ"):
        torch_modules.run(StepSize(n_dims=3, batch_log2=8, table_log2=10), n_rounds=1)


def test_an_unreadable_photo_is_one_line_and_status_2(tmp_path, capsys):
    assert main(["mosaic", str(tmp_path / "none.jpg"), str(tmp_path / "out.tif")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "none.jpg" in error
    assert not list(tmp_path.iterdir())


def test_distances_are_timed_against_open3d(tmp_path, capsys):
    mesh = write_sphere(tmp_path / "sphere.obj")
    results = tmp_path / "results.json"
    assert main(["distance", str(mesh), "--points-log2", "10", "--json", str(results)]) == 0
    rates = json.loads(results.read_text())["queries_per_second"]
    assert {name.split(",")[0] for name in rates} == {"normal", "raystab", "winding", "Open3D"}
    assert all(rate > 0 for rate in rates.values())
    assert "times Open3D" in capsys.readouterr().out
