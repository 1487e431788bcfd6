"""Fit the bundled photo, ask the field for colours, draw a detail four times as large.

Usage: python examples/fit_image.py [PICTURE [STEPS]]
"""

import sys
from pathlib import Path

import numpy as np

import ngp_warp

picture = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("seeding.jpg")
length = {"steps": int(sys.argv[2])} if len(sys.argv) > 2 else {"seconds": 30}

run = ngp_warp.fit_image(picture, **length)
print(f"{run.metrics['psnr']:.2f} dB after {run.metrics['steps']} steps, in {run.path}")

corner_and_centre = np.array([[0.0, 0.0], [0.5, 0.5]])  # y down, (1, 1) is the bottom right corner
print("colours, full scale is 1:", run.query(corner_and_centre).round(3).tolist())

width, height = run.metrics["width"], run.metrics["height"]
detail = (width // 3, height // 3, width // 4, height // 4)
print("detail:", run.render(run.path / "exports" / "detail.png", crop=detail, scale=4))
