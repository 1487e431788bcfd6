"""Whatever a scene's files hold: a scene or one line."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scene_samples import Sample, scene_or_line

QUICK = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
NUMBERS = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, 1, -1, 1e308, 1e-308, 2**60, 4096, 3, 10**400])
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
KEYS = ["w", "h", "fl_x", "fl_y", "cx", "k1", "k4", "p1", "x_fov", "camera_angle_y", "is_fisheye"]
KEYS += ["camera_model", "mask_path", "depth_file_path", "file_path", "transform_matrix"]
TOP_KEYS = [*KEYS[:12], "aabb_scale", "scale", "offset", "frames", "ply_file_path", "latlong"]
TOP_KEYS += ["test_filenames", "integer_depth_scale", "enable_depth_loading"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Sample(n=2).write_transforms(tmp_path, aabb_scale=2)


def test_a_json_cut_at_any_byte_is_refused(folder: Path) -> None:
    file = folder / "transforms.json"
    whole = file.read_bytes()
    assert scene_or_line(folder)
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert not scene_or_line(folder), length


@QUICK
@given(data=st.data())
def test_any_value_of_any_key_is_taken_or_refused(data: st.DataObject, folder: Path) -> None:
    values = Sample(n=2).transforms()
    if data.draw(st.booleans()):
        values[data.draw(st.sampled_from(TOP_KEYS))] = data.draw(JSON)
    else:
        values["frames"][0][data.draw(st.sampled_from(KEYS))] = data.draw(JSON)
    (folder / "transforms.json").write_text(json.dumps(values))
    scene_or_line(folder)


@QUICK
@given(st.integers(0, 3), st.integers(0, 3), NUMBERS)
def test_any_number_in_a_pose_is_taken_or_refused(
    folder: Path, row: int, column: int, number: Any
) -> None:
    values = Sample(n=2).transforms()
    values["frames"][1]["transform_matrix"][row][column] = number
    (folder / "transforms.json").write_text(json.dumps(values))
    scene_or_line(folder)


@QUICK
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=8))
def test_any_bytes_in_any_file_are_taken_or_refused(
    tmp_path: Path, place: int, content: bytes
) -> None:
    if not (tmp_path / "t").exists():
        Sample(n=2).write_colmap_text(tmp_path / "t")
        Sample(n=2).write_colmap_binary(tmp_path / "b")
        Sample(n=2).write_llff(tmp_path / "l")
    folder = tmp_path / "tbl"[place % 3]
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".txt", ".bin", ".npy", ".png"))
    file = files[place % len(files)]
    whole = file.read_bytes()
    at = place % len(whole)
    file.write_bytes(whole[:at] + content + whole[at + len(content) :])
    try:
        scene_or_line(folder)
    finally:
        file.write_bytes(whole)
