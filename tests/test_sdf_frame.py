"""Laws of the frame: there and back, and the mesh fills nine tenths of the unit cube."""

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from ngp_warp.errors import DataError
from ngp_warp.primitives.sdf.frame import FILLED, Frame, bounds_of
from ngp_warp.primitives.sdf.mesh import load_mesh

centres = st.tuples(*[st.floats(-1e3, 1e3)] * 3)
extents = st.tuples(*[st.floats(1e-3, 1e3)] * 3)


@given(centres, extents)
def test_the_box_fills_the_cube_and_comes_back(centre: tuple, extent: tuple) -> None:
    low = np.array(centre) - np.array(extent) / 2
    bounds = np.stack([low, low + np.array(extent)])
    frame = Frame.around(bounds)
    unit = frame.to_unit(bounds)
    assert np.ptp(unit, axis=0).max() == pytest.approx(FILLED)
    assert np.allclose(unit.mean(axis=0), 0.5)
    # float64 at coordinates of 1e3
    assert np.allclose(frame.from_unit(unit), bounds, rtol=0, atol=1e-10)
    distance = np.linalg.norm(unit[1] - unit[0])
    assert frame.distance_from_unit(distance) == pytest.approx(
        np.linalg.norm(bounds[1] - bounds[0])
    )
    assert Frame.from_dict(json.loads(json.dumps(frame.to_dict()))) == frame


def test_a_mesh_far_from_the_origin_keeps_its_place(tmp_path: Path) -> None:
    box = trimesh.creation.box((4.0, 1.0, 2.0)).apply_translation((1e6, -1e6, 5.0))
    box.export(tmp_path / "far.obj", digits=12)
    surface = load_mesh(tmp_path / "far.obj")
    unit = bounds_of(surface.frame.to_unit(surface.vertices))
    margin = np.array([0.45, 0.1125, 0.225])
    assert np.allclose(unit, [0.5 - margin, 0.5 + margin])
    assert surface.frame.centre == pytest.approx((1e6, -1e6, 5.0))


@pytest.mark.parametrize("extent", [0.0, 1e-40, 1e40, np.inf])
def test_extents_beyond_computing_are_refused(extent: float) -> None:
    with pytest.raises(DataError, match="extent"):
        Frame.around(np.array([[0.0, 0, 0], [extent, 0, 0]]))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"centre": [0, 0], "scale": 1},
        {"centre": [0, 0, 0], "scale": 0},
        {"centre": 1, "scale": 1},
    ],
)
def test_a_broken_frame_is_refused(values: dict) -> None:
    with pytest.raises(DataError, match="frame"):
        Frame.from_dict(values)
