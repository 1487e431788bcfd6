"""Laws of the exports of a distance field: the input's units and position, and a true report."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from ngp_warp.errors import ConfigError, ResourceError
from ngp_warp.primitives.sdf.export import describe_mesh, export_mesh, export_npz, export_nvdb
from ngp_warp.surfaces.mesh_files import MESH_SUFFIXES
from tests.surface_case import RADIUS, bumpy, sphere, torus

CENTRE = np.array([0.51, 0.49, 0.5])


@dataclass(frozen=True)
class Frame:
    """Stands in for the frame of a mesh: unit = (point - centre) * scale + 0.5."""

    centre: tuple[float, float, float] = (3.0, -20.0, 7.0)
    scale: float = 0.01

    def from_unit(self, points):
        return (np.asarray(points, np.float64) - 0.5) / self.scale + self.centre

    def distance_from_unit(self, distance):
        return distance / self.scale


class Messages(list):
    def __call__(self, progress):
        if progress.message:
            self.append(progress.message)


def reopen(path):
    import trimesh

    return trimesh.load(path, force="mesh")


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_a_mesh_is_in_the_inputs_units(tmp_path, suffix):
    path, frame, messages = tmp_path / f"a{suffix}", Frame(), Messages()
    report = export_mesh(
        path,
        sphere,
        frame,
        resolution=50,
        gradient=lambda x: (x - np.float32(CENTRE))[:, None],
        progress=messages,
    )
    centre, radius = frame.from_unit(CENTRE), RADIUS / frame.scale
    read = reopen(path)
    distances = np.linalg.norm(read.vertices - centre, axis=1)
    assert np.abs(distances - radius).max() < 0.02 * radius
    assert read.is_watertight
    assert np.abs(read.bounds - report["bounds"]).max() < 1e-5
    assert np.abs(np.array(report["bounds"]) - [centre - radius, centre + radius]).max() < 0.05
    assert read.volume == pytest.approx(report["volume"], rel=1e-5)
    assert report["volume"] == pytest.approx(4 / 3 * np.pi * radius**3, rel=5e-3)
    assert (report["n_vertices"], report["n_faces"]) == (len(read.vertices), len(read.faces))
    assert report["watertight"] is True
    assert (report["n_bodies"], report["n_cavities"], report["n_dropped_pieces"]) == (1, 0, 0)
    assert report["bytes"] == path.stat().st_size
    assert report["rounding"] < 1e-5
    assert json.loads(json.dumps(report)) == report
    assert messages == []


def test_pieces_are_told_and_dropped_only_on_demand(tmp_path):
    frame, messages = Frame(), Messages()
    whole = export_mesh(tmp_path / "a.ply", bumpy, frame, resolution=60, progress=messages)
    n_pieces = whole["n_bodies"] + whole["n_cavities"]
    assert n_pieces >= 4
    assert whole["n_cavities"] == 1
    assert sum(piece["n_faces"] for piece in whole["pieces"]) == whole["n_faces"]
    assert f"has {n_pieces} pieces" in messages[0]
    assert "(1 cavities); all were kept" in messages[0]
    messages.clear()
    largest = export_mesh(
        tmp_path / "b.ply", bumpy, frame, resolution=60, largest_only=True, progress=messages
    )
    assert (largest["n_bodies"], largest["n_cavities"]) == (1, 0)
    assert largest["n_dropped_pieces"] == n_pieces - 1
    assert largest["n_faces"] == whole["pieces"][0]["n_faces"]
    assert "only the largest was kept" in messages[0]
    assert len(reopen(tmp_path / "b.ply").faces) == largest["n_faces"]


def test_decimation_is_reported_as_written(tmp_path):
    frame = Frame()
    report = export_mesh(tmp_path / "a.glb", torus, frame, resolution=60, n_faces=1000)
    assert 980 <= report["n_faces"] <= 1000
    read = reopen(tmp_path / "a.glb")
    assert (report["n_faces"], report["watertight"]) == (len(read.faces), read.is_watertight)


def test_a_mesh_that_is_not_closed_is_told(tmp_path, monkeypatch):
    from ngp_warp.surfaces import trim

    monkeypatch.setattr(trim, "decimate", lambda v, f, n: (v, f[:-1]))
    messages = Messages()
    report = export_mesh(
        tmp_path / "a.ply", torus, Frame(), resolution=20, n_faces=9, progress=messages
    )
    assert report["watertight"] is False
    assert any("not watertight" in message for message in messages)


@pytest.mark.parametrize(("suffix", "told"), [(".ply", True), (".obj", False)])
def test_lost_digits_are_told(tmp_path, suffix, told):
    messages = Messages()
    frame = Frame(centre=(4.5e6, 0.0, 0.0), scale=0.5)
    report = export_mesh(tmp_path / f"a{suffix}", sphere, frame, resolution=30, progress=messages)
    assert (report["rounding"] > 1e-3) == told
    assert any("far from the origin" in message for message in messages) == told
    moved = np.abs(reopen(tmp_path / f"a{suffix}").bounds - report["bounds"]).max()
    assert (moved > 1e-3) == told


def test_volumes_are_in_the_inputs_units(tmp_path):
    frame = Frame()
    grid = export_npz(tmp_path / "a.npz", sphere, frame, resolution=20)
    with np.load(tmp_path / "a.npz") as read:
        node = read["origin"] + read["voxel_size"] * np.array([3, 10, 17])
        wanted = np.linalg.norm(node - frame.from_unit(CENTRE)) - RADIUS / frame.scale
        assert read["distance"][3, 10, 17] == pytest.approx(wanted, abs=1e-4)
        assert list(read["distance"].shape) == grid["shape"]
    assert grid["bytes"] == (tmp_path / "a.npz").stat().st_size
    band = export_nvdb(tmp_path / "a.nvdb", sphere, frame, resolution=20)
    assert band["origin"] == grid["origin"] == pytest.approx([-47.0, -70.0, -43.0])
    assert band["voxel_size"] == grid["voxel_size"] == pytest.approx(5.0)
    assert band["background"] == pytest.approx(15.0)
    assert band["bytes"] == (tmp_path / "a.nvdb").stat().st_size
    assert json.loads(json.dumps([grid, band])) == [grid, band]


def test_bad_outputs_are_refused_before_the_work(tmp_path):
    def never(points):
        raise AssertionError

    for export, name in ((export_mesh, "a.nvdb"), (export_npz, "a.ply"), (export_nvdb, "a.npz")):
        with pytest.raises(ConfigError, match="must end in"):
            export(tmp_path / name, never, Frame(), resolution=20)
    with pytest.raises(ResourceError, match="does not exist"):
        export_mesh(tmp_path / "no" / "a.ply", never, Frame(), resolution=20)


def test_an_open_mesh_is_described_as_open():
    vertices = np.eye(3)
    assert describe_mesh(vertices, np.array([[0, 1, 2]]))["watertight"] is False
