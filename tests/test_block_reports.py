"""Laws of what is said of blocks: only what runs has a speed, and a curve is that of the whole."""

import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ngp_warp import job
from ngp_warp.job import Reporter, state_path
from ngp_warp.jobs import Outcome
from ngp_warp.primitive import Progress
from ngp_warp.primitives.image.blocks import report
from ngp_warp.primitives.image.blocks.evaluate import mean_curve
from ngp_warp.primitives.image.blocks.layout import make_layout
from ngp_warp.primitives.image.blocks.work import Work


def say(run: Path, name: str, step: int, psnr: float) -> None:
    """Let a job of 100 steps say how far it has come."""
    update = Progress(stage="train", step=step, total=100, metric=psnr, samples_per_second=1e6)
    Reporter(state_path(run / "jobs", name))(update)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder, with no time between what is said."""
    monkeypatch.setattr(report, "_SECONDS_BETWEEN_REPORTS", 0.0)
    (tmp_path / "jobs").mkdir()
    return tmp_path


def test_what_an_earlier_command_left_is_not_running(run: Path) -> None:
    said: list[Progress] = []
    for column in range(3):
        say(run, f"000_00{column}", 50, 30.0)
    watch = report.Watcher(run, [(0, 0), (0, 1), (0, 2)], 4, said.append)
    watch([])
    assert (said[-1].step, said[-1].total) == (1, 4)
    assert (said[-1].metric, said[-1].samples_per_second) == (None, None)
    say(run, "000_001", 60, 34.0)
    watch([])
    assert (said[-1].metric, said[-1].samples_per_second) == (34.0, 1e6)
    assert said[-1].seconds_left is not None
    outcomes = [Outcome(Work(run, (0, 1), job.Place()), "failed", "no room")]
    watch(outcomes)
    watch(outcomes)
    assert [update.message for update in said if update.message] == ["block 000_001: no room"]
    assert (said[-1].step, said[-1].metric) == (2, None)


def test_a_block_is_done_though_the_disk_shows_its_metrics_late(run: Path) -> None:
    done = Outcome(Work(run, (0, 1), job.Place()), "done")
    assert report._ended(run, done) == "block 000_001: done"
    folder = run / "blocks" / "000_001"
    folder.mkdir(parents=True)
    metrics = {"psnr": 41.234, "steps": 100, "seconds": 2.0, "device": "cpu"}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    line = "block 000_001: 41.23 dB, 100 steps, 2.0 s on cpu"
    assert report._ended(run, done) == line


def test_the_curve_is_of_the_mean_error_of_the_blocks() -> None:
    curves = {
        (0, 0): [[0, 0.0, 20.0], [10, 1.0, 20.0]],
        (0, 1): [[0, 0.0, 40.0], [30, 1.5, 40.0]],
    }

    def block(*at: int) -> Any:
        return types.SimpleNamespace(header={"curve": curves[at]})

    layout = make_layout(100, 50, blocks="2x1")
    mosaic = types.SimpleNamespace(layout=layout, block=block)
    curve = mean_curve(types.SimpleNamespace(fitted=mosaic))  # type: ignore[arg-type]
    assert np.allclose(curve[[0, -1], :2], [[0, 0], [15, 1]])
    assert np.allclose(curve[:, 2], -10 * np.log10((1e-2 + 1e-4) / 2))
