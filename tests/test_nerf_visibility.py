"""Cells that cameras see: no ray of a photo passes through another."""

from dataclasses import replace

import numpy as np
import pytest
from lens_views import BARREL, BROWN, FISHEYE, FRAME, LENSES, PINHOLE, photos, ring

from ngp_warp.primitives.nerf.views import make_views, rays_of
from ngp_warp.primitives.nerf.visibility import visible_cells

CELLS = 128
FOLDED = replace(BARREL, k1=-0.5, k2=0.0, k3=0.0, fx=16.0, fy=16.0)


def seen_by(views, device="cpu", n_cascades=2, near=0.0):
    arrays = make_views(views, photos(views, np.random.default_rng(0)), FRAME, device)
    return visible_cells(arrays, n_cascades, near=near)


def cells_of(points, cascade, n_cascades):
    """Indices z, y, x of the points that lie in a cascade."""
    side = 2.0 ** (cascade + 1 - n_cascades)
    index = np.floor(((points - 0.5) / side + 0.5) * CELLS).astype(int)
    return index[np.all((index >= 0) & (index < CELLS), axis=1)][:, ::-1]


@pytest.mark.parametrize("lens", [*LENSES.values(), FOLDED], ids=[*LENSES.keys(), "folded"])
@pytest.mark.parametrize("near", [0.0, 0.3])
def test_every_cell_of_a_ray_is_seen(lens, near, device):
    # narrow, so that much is not seen
    lens = replace(lens, fx=2 * lens.fx, fy=2 * lens.fy) if lens is not FOLDED else lens
    views = ring(2, [lens], distance=1.3)
    seen = seen_by(views, device, near=near)
    rng = np.random.default_rng(1)
    for view in views:
        places = rng.uniform(0, 1, (4000, 2)) * [lens.width, lens.height]
        places[:1000, 0] = 0  # the very edge
        origins, directions, valid = rays_of(view.pose, lens, FRAME, places)
        t = rng.uniform(near, 1.2, (4000, 8, 1))
        points = (origins[:, None] + t * directions[:, None])[valid].reshape(-1, 3)
        for cascade in range(2):
            z, y, x = cells_of(points, cascade, 2).T
            assert len(z) > 1000
            assert seen[cascade][z, y, x].all()


def test_what_is_behind_or_beside_is_not_seen():
    views = ring(1, [PINHOLE], distance=0.8)
    seen = seen_by(views)
    arm = views[0].pose[:, 2] * FRAME.scale  # backwards
    centre = views[0].pose[:, 3] * FRAME.scale + FRAME.offset
    for point, wanted in ((centre - arm, True), (centre + arm, False)):
        z, y, x = cells_of(point[None], 1, 2)[0]
        assert seen[1][z, y, x] == wanted
    # a picture of 53 by 41 degrees shows a tenth of all directions
    assert 0.01 < seen[1].mean() < 0.3


def test_more_views_see_more():
    one, four = (seen_by(ring(4, [BROWN, FISHEYE])[:n]) for n in (1, 4))
    assert np.all(one <= four)
    assert one.sum() < four.sum()


def test_nearer_than_near_is_not_seen():
    views = ring(1, [PINHOLE], distance=1.0)
    centre = views[0].pose[:, 3] * FRAME.scale + FRAME.offset
    seen = seen_by(views, near=0.2)
    z, y, x = np.nonzero(seen[1])
    distance = np.linalg.norm((np.stack([x, y, z], axis=1) + 0.5) / CELLS - centre, axis=1)
    # the bounding sphere of a block of 2 x 2 x 2 cells
    assert distance.min() > 0.2 - 2 * np.sqrt(3) / CELLS
    assert np.all(seen <= seen_by(views))
