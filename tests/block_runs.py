"""Small pictures in blocks for tests: their size, and the one way to fit them."""

from pathlib import Path
from typing import Any

from image_runs import settings

import ngp_warp

WIDTH, HEIGHT, MARGIN = 90, 61, 6
BLOCK_FLAGS = ["--blocks", "2x2", "--margin", str(MARGIN), "--jobs", "2"]


def fit(source: Path | None, **options: Any) -> ngp_warp.Run:
    options = {"device": "cpu", "margin": MARGIN, "blocks": "2x2", **options}
    return ngp_warp.fit_image_blocks(source, **settings(**options))
