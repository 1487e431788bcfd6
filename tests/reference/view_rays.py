"""Rays and pictures of a view in float64, pixel by pixel: twin of ngp_warp/kernels/view_rays.py."""

import numpy as np


def places(columns, rows, strip):
    """Column and row in a window by item: strips of rows, each column by column."""
    found = []
    for top in range(0, rows, strip):
        for column in range(columns):
            found += [(column, row) for row in range(top, min(top + strip, rows))]
    return found


def rays(view, at):
    """Origins, directions and whether the lens has a ray, through places [n, 2] of the picture."""
    local = view.lens.unproject(at)
    exist = ~np.isnan(local[:, 0])
    local[~exist] = 0, 0, -1
    pose = np.asarray(view.pose, np.float64)
    d = np.stack([pose[:, :3] @ ray for ray in local])
    return pose[:, 3] + view.begin * d, d, exist


def pixel(view, d, color, opacity, depth):
    """Colour, opacity and depth along the optical axis of one ray that exists."""
    forward = -np.asarray(view.pose, np.float64)[:, 2]
    z = (depth / opacity + view.begin) * (d @ forward) * view.unit if opacity > 1e-3 else np.inf
    return color, opacity, z
