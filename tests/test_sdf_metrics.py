"""Laws of the metrics of a signed distance field: known shapes, units, scale, what is not told."""

import importlib
import json
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ngp_warp.primitives.sdf import metrics
from ngp_warp.primitives.sdf.raycasting import Raycasting

Mesh = tuple[np.ndarray, np.ndarray]
SCALE = 0.25  # unit space is a quarter of the input's


class Frame:
    def __init__(self, scale: float = SCALE):
        self.scale = scale

    def distance_from_unit(self, d: float) -> float:
        return d / self.scale


def made(name: str, *args: Any, **kwargs: Any) -> Mesh:
    shape = getattr(importlib.import_module("trimesh").creation, name)(*args, **kwargs)
    return np.asarray(shape.vertices) + 0.5, np.asarray(shape.faces)


def sphere(
    radius: float, centre: tuple[float, float, float] = (0, 0, 0), subdivisions: int = 3
) -> Mesh:
    vertices, faces = made("icosphere", subdivisions, radius)
    return vertices + np.array(centre), faces


def ball(radius: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda points: np.linalg.norm(points - 0.5, axis=1) - radius


def exact(mesh: Mesh) -> Callable[[np.ndarray], np.ndarray]:
    truth = Raycasting(*mesh)

    def field(points: np.ndarray) -> np.ndarray:
        # Far from the surface, where distances take long, only the sign is asked for.
        in_band = len(points) == metrics.N_BAND
        return np.where(truth.inside(points), -1, 1) * (truth.distance(points) if in_band else 1)

    return field


def joined(*meshes: Mesh) -> Mesh:
    offsets = np.cumsum([0, *(len(v) for v, _ in meshes)])
    faces = [f + offset for (_, f), offset in zip(meshes, offsets, strict=False)]
    return np.concatenate([v for v, _ in meshes]), np.concatenate(faces)


@pytest.fixture(autouse=True)
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    # Fewer, for several tests' worth of time; chunks that do not divide it.
    monkeypatch.setattr(metrics, "N_BOX", 2**17)
    monkeypatch.setattr(metrics, "N_BAND", 2**14)
    monkeypatch.setattr(metrics, "N_SURFACE", 2**14)
    monkeypatch.setattr(metrics, "_CHUNK", 50_000)


# --- the figures


def test_a_mesh_agrees_with_itself() -> None:
    mesh = made("torus", 0.3, 0.1)
    found = metrics.measure(exact(mesh), mesh, mesh, Frame())
    assert (found["iou"], found["iou_narrow_band"]) == (1.0, 1.0)
    assert found["iou_standard_error"] == 0.0
    # float32 coordinates of order 1
    assert found["chamfer"]["mean"] < 1e-6
    assert found["mean_abs_distance"]["normalised"] == 0.0
    assert found["normal_consistency"] > 0.999
    assert found["normal_consistency_signed"] > 0.999
    assert found["not_told"] == {}
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("offset", [0.004, -0.004])
def test_a_sphere_of_another_radius_gives_the_known_figures(offset: float) -> None:
    r, other = 0.3, 0.3 + offset
    found = metrics.measure(
        ball(other), sphere(other, subdivisions=5), sphere(r, subdivisions=5), Frame()
    )
    small, large = sorted((r, other))
    error = 6 * found["iou_standard_error"]
    assert 0 < error < 0.02
    assert found["iou"] == pytest.approx((small / large) ** 3, abs=error)
    assert found["mean_abs_distance"]["normalised"] == pytest.approx(abs(offset), rel=0.02)
    # In the band, within b of r: the shell from r - b to the smaller over that to the larger.
    low = (r - metrics.BAND) ** 3
    expected = (small**3 - low) / (large**3 - low)
    assert found["iou_narrow_band"] == pytest.approx(
        expected, abs=6 * found["iou_narrow_band_standard_error"]
    )
    # 2%: icosphere(5) lies up to 1e-4 within its sphere
    for way in ("result_to_original", "original_to_result", "mean"):
        assert found["chamfer"][way] == pytest.approx(abs(offset) / SCALE, rel=0.02)
    assert found["normal_consistency"] > 0.999


def test_a_part_that_is_missing_shows_in_one_direction_only() -> None:
    near, far = sphere(0.1, (-0.3, 0, 0)), sphere(0.1, (0.3, 0, 0))
    both = joined(near, far)
    missing = metrics.measure(exact(near), near, both, Frame())["chamfer"]
    assert missing["result_to_original"] < 1e-5
    # Half of the original's points are about 0.6 away from the centre of the other sphere.
    assert missing["original_to_result"] * SCALE == pytest.approx(0.5 * 0.5, rel=0.05)
    assert missing["mean"] == pytest.approx(missing["original_to_result"] / 2, rel=1e-3)
    swapped = metrics.measure(exact(both), both, near, Frame())["chamfer"]
    assert swapped["original_to_result"] < 1e-5
    assert swapped["result_to_original"] == pytest.approx(missing["original_to_result"], rel=0.05)


def test_relative_figures_do_not_depend_on_the_units() -> None:
    args = ball(0.29), sphere(0.29), sphere(0.3)
    one, thousand = (metrics.measure(*args, Frame(s)) for s in (1.0, 1e-3))
    for name in ("iou", "iou_narrow_band", "normal_consistency"):
        assert one[name] == thousand[name]
    for name in ("result_to_original", "original_to_result", "mean"):
        assert one["chamfer"][f"{name}_relative"] == thousand["chamfer"][f"{name}_relative"]
        assert thousand["chamfer"][name] == pytest.approx(1e3 * one["chamfer"][name])
        relative = one["chamfer"][name] / one["chamfer"]["diagonal"]
        assert one["chamfer"][f"{name}_relative"] == pytest.approx(relative)
    assert one["chamfer"]["diagonal"] == pytest.approx(0.6 * 3**0.5, rel=0.01)
    assert thousand["mean_abs_distance"]["input_units"] == pytest.approx(
        1e3 * thousand["mean_abs_distance"]["normalised"]
    )
    assert thousand["band"]["half_width_input_units"] == pytest.approx(10.0)


def test_the_same_seed_gives_the_same_figures_and_another_one_others() -> None:
    args = ball(0.29), sphere(0.29), sphere(0.3), Frame()
    first, second, third = (metrics.measure(*args, seed=s) for s in (3, 3, 4))
    assert first == second
    assert first["iou"] != third["iou"]


def test_wrong_results_are_noticed() -> None:
    mesh = made("box", (0.5, 0.4, 0.3))
    inside_out = metrics.measure(lambda p: -exact(mesh)(p), mesh, mesh, Frame())
    assert inside_out["iou"] == 0.0
    turned = metrics.measure(exact(mesh), (mesh[0], mesh[1][:, ::-1]), mesh, Frame())
    assert turned["normal_consistency"] > 0.999
    assert turned["normal_consistency_signed"] < -0.999


def test_progress_ends_where_it_said() -> None:
    seen: list[Any] = []
    metrics.measure(ball(0.3), sphere(0.3), sphere(0.3), Frame(), progress=seen.append)
    steps = [(update.stage, update.step, update.total) for update in seen]
    assert steps == sorted(steps)
    assert steps[-1][1] == steps[-1][2]


# --- what counts as wrong, and what is not told


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_wrong_everywhere(value: float) -> None:
    mesh = sphere(0.3)
    found = metrics.measure(lambda p: np.full(len(p), value), mesh, mesh, Frame())
    assert found["iou"] == 0.0
    assert found["mean_abs_distance"] == {"normalised": None, "input_units": None}
    assert "not finite" in found["not_told"]["mean_abs_distance"]


def test_a_field_without_a_surface_has_no_distance_to_it() -> None:
    nothing = np.zeros((0, 3)), np.zeros((0, 3), np.int32)
    found = metrics.measure(lambda p: np.ones(len(p)), nothing, sphere(0.3), Frame())
    assert found["iou"] == 0.0
    assert found["chamfer"]["mean"] is None
    assert found["normal_consistency"] is None
    assert {"chamfer", "normal_consistency"} == set(found["not_told"])
    json.dumps(found, allow_nan=False)


def test_an_open_surface_has_no_inside_but_distances() -> None:
    vertices, faces = sphere(0.3)
    opened = vertices, faces[:-200]
    found = metrics.measure(ball(0.3), opened, opened, Frame())
    assert (found["iou"], found["iou_narrow_band"]) == (None, None)
    assert "not closed" in found["not_told"]["iou"]
    assert found["truth"]["inside"] is None
    assert "without a sign" in found["truth"]["distance"]
    assert found["iou_samples"] == 0
    assert found["chamfer"]["mean"] < 1e-5
    assert found["mean_abs_distance"]["normalised"] < 3e-3
    json.dumps(found, allow_nan=False)


# --- the truth


def inside_share(mesh: Mesh) -> tuple[str | None, float]:
    truth = Raycasting(*mesh)
    points = np.random.default_rng(5).random((2**17, 3), dtype=np.float32)
    return truth.inside_method, float(np.mean(truth.inside(points)))


def test_overlapping_and_touching_bodies_are_their_union() -> None:
    def box(x: float) -> Mesh:
        vertices, faces = made("box", (0.375, 0.375, 0.375))
        return vertices + np.array([x, 0, 0]), faces

    points = np.random.default_rng(5).random((2**17, 3), dtype=np.float32)
    across = (np.abs(points[:, 1:] - 0.5) < 0.1875).all(axis=1)
    # Multiples of 1/16: the faces that touch do so exactly.
    for x in (0.0625, 0.1875):
        truth = Raycasting(*joined(box(-x), box(x)))
        assert truth.inside_method == "winding number"
        inside = across & (np.abs(points[:, 0] - 0.5) < x + 0.1875)
        assert np.count_nonzero(truth.inside(points) != inside) == 0


def test_a_cavity_is_outside_and_turned_faces_are_told_by_parity() -> None:
    vertices, faces = sphere(0.2)
    outer = sphere(0.4)
    expected = 4 / 3 * math.pi * (0.4**3 - 0.2**3)
    shell = joined(outer, (vertices, faces[:, ::-1]))
    for mesh, method in ((shell, "winding number"), (shell, "parity")):
        if method == "parity":
            mesh[1][::3] = mesh[1][::3, ::-1]
        found, share = inside_share(mesh)
        assert found == method
        assert share == pytest.approx(expected, abs=0.008)


def test_doubled_and_collapsed_faces_do_not_open_a_surface() -> None:
    vertices, faces = sphere(0.3)
    worse = np.concatenate([faces, faces[:7], np.roll(faces[:5], 1, axis=1), [[3, 3, 9]]])
    assert inside_share((vertices, worse)) == inside_share((vertices, faces))


def test_small_holes_are_filled_and_large_ones_leave_no_inside() -> None:
    vertices, faces = sphere(0.3)
    pole = vertices[:, 1].argmax()
    pierced = vertices, faces[~(faces == pole).any(axis=1)]
    truth = Raycasting(*pierced)
    assert truth.inside_method is not None
    assert "filled" in truth.inside_method
    points = np.random.default_rng(5).random((2**15, 3), dtype=np.float32)
    differ = truth.inside(points) != Raycasting(vertices, faces).inside(points)
    # the cap that a flat filling leaves out
    assert differ.mean() < 1e-3
    # the distance is to the surface with its hole
    over = vertices[pole] + [0, 1e-3, 0]
    assert truth.distance(over[None])[0] > 0.02
    assert Raycasting(vertices, faces).distance(over[None])[0] < 2e-3
    half = Raycasting(vertices, faces[vertices[faces].mean(axis=1)[:, 1] < 0.5])
    assert half.inside_method is None
    assert "holes are" in half.reason


def test_inside_of_an_open_surface_is_an_error() -> None:
    vertices, faces = sphere(0.3)
    truth = Raycasting(vertices, faces[: len(faces) // 2])
    with pytest.raises(ValueError, match="open edges"):
        truth.inside(np.zeros((1, 3), np.float32))
    assert not len(Raycasting(vertices, faces).inside(np.zeros((0, 3), np.float32)))


def test_the_band_is_filled_evenly() -> None:
    points, distance = metrics.band_points(
        Raycasting(*sphere(0.3, subdivisions=5)), 2**15, np.random.default_rng(0)
    )
    assert points.shape == (2**15, 3)
    radius = np.linalg.norm(points - 0.5, axis=1)
    # 2e-4: icosphere(5) lies up to 1e-4 within its sphere
    np.testing.assert_allclose(np.abs(radius - 0.3), distance, atol=2e-4)
    assert distance.max() <= metrics.BAND
    shells = np.histogram(radius, np.linspace(0.29, 0.31, 9))[0] / len(radius)
    edges = np.linspace(0.29, 0.31, 9) ** 3
    np.testing.assert_allclose(shells, np.diff(edges) / (edges[-1] - edges[0]), atol=0.015)
    octants = np.histogramdd(points, [[0, 0.5, 1]] * 3)[0] / len(points)
    np.testing.assert_allclose(octants, 1 / 8, atol=6 * math.sqrt(1 / 8 / 2**15))


def test_closest_names_the_face_whatever_the_number_of_bodies() -> None:
    mesh = joined(sphere(0.1, (-0.3, 0, 0)), sphere(0.1, (0.3, 0, 0)))
    truth = Raycasting(*mesh)
    points, face = truth.sample(2**12, np.random.default_rng(0))
    distance, nearest = truth.closest(points)
    assert distance.max() < 1e-6
    centres = truth.vertices[truth.faces].mean(axis=1)
    # A point on an edge may name the other face: its centre is no farther than two edges.
    assert np.linalg.norm(centres[nearest] - centres[face], axis=1).max() < 0.05
    assert np.mean(nearest == face) > 0.95


def test_the_truth_is_none_of_ours() -> None:
    for name in ("raycasting", "metrics"):
        module = importlib.import_module(f"ngp_warp.primitives.sdf.{name}")
        source = SimpleNamespace(**vars(module))
        assert not hasattr(source, "wp")
        assert "SignedDistance" not in vars(module)
