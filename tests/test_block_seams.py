"""Laws of seams: where blocks fade into each other, the image is no worse than they are."""

from pathlib import Path

import numpy as np
import pytest
from block_runs import HEIGHT, MARGIN, WIDTH, fit
from image_runs import smooth, write_picture

from ngp_warp.primitives.image.blocks.layout import Layout
from ngp_warp.primitives.image.blocks.mosaic import block_folder
from ngp_warp.run import open_run

pytest.importorskip("submitit")


@pytest.mark.parametrize("blocks", ["2x1", "1x2", "2x2"])
def test_a_faded_pixel_is_no_worse_than_the_worse_block(
    blocks: str, jobs_here: list[str], tmp_path: Path
) -> None:
    truth = smooth(width=WIDTH, height=HEIGHT)
    run = fit(
        write_picture(tmp_path / "a.png", truth), steps=30, blocks=blocks, out=tmp_path / "run"
    )
    layout = Layout.from_dict(run.header)
    y, x = (a.reshape(-1) + 0.5 for a in np.mgrid[0:HEIGHT, 0:WIDTH])
    worst = np.zeros(len(x))
    n_blocks = np.zeros(len(x), int)
    for at in layout.cells():
        left, top, width, height = layout.box(*at)
        inside = (x > left) & (x < left + width) & (y > top) & (y < top + height)
        points = np.stack([x[inside] - left, y[inside] - top], 1) / [width, height]
        values = open_run(block_folder(run.path, *at), device="cpu").query(points)
        error = np.square(values - truth.reshape(-1, 3)[inside] / 255).sum(1)
        worst[inside] = np.maximum(worst[inside], error)
        n_blocks[inside] += 1
    values = run.query(np.stack([x / WIDTH, y / HEIGHT], 1))
    found = np.square(values - truth.reshape(-1, 3) / 255).sum(1)
    # a square is convex: that of a mean is at most the largest; float32 of positions and values
    assert (found <= worst + 1e-5).all()
    assert (n_blocks > 1).sum() >= 2 * MARGIN * min(WIDTH, HEIGHT)
