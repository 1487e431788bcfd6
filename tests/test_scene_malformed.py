"""Laws of malformed scenes: one clear line each, whatever is wrong, and nothing hangs."""

import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scene_samples import Sample, scene_or_line

from ngp_warp.errors import DataError, NgpError
from ngp_warp.primitives.nerf.scene import load_scene, read_scene
from ngp_warp.primitives.nerf.scene.checks import Checks


def refusal(path: Path) -> str:
    """Return the one line that refuses a scene; collecting all problems must not fail."""
    with pytest.raises(NgpError) as caught:
        load_scene(path)
    line = str(caught.value)
    assert line.strip()
    assert "\n" not in line
    assert str(path) in line
    checks = Checks(collect=True)
    with checks.part():
        read_scene(path, None, checks)
    assert line in [problem.line for problem in checks.problems]
    return line


def written(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Write a transforms.json after a change to its values."""
    sample = Sample(n=3)
    values = sample.transforms()
    change(values)
    sample.write_photos(folder / "images")
    (folder / "transforms.json").write_text(json.dumps(values))
    return folder


def matrix(change: Callable[[np.ndarray], Any]) -> Callable[[dict[str, Any]], None]:
    """Change the pose of frame 1."""

    def apply(values: dict[str, Any]) -> None:
        pose = np.array(values["frames"][1]["transform_matrix"])
        changed = change(pose)
        pose = pose if changed is None else changed
        values["frames"][1]["transform_matrix"] = pose.tolist()

    return apply


def assign(index: Any, value: float) -> Callable[[dict[str, Any]], None]:
    return matrix(lambda m: m.__setitem__(index, value))


def top(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda v: v.update(values)


def without(*keys: str) -> Callable[[dict[str, Any]], None]:
    return lambda v: [v.pop(key) for key in keys] and None


def frames(*values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda v: v.update(frames=list(values))


def frame(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda v: v["frames"][1].update(values)


TRANSFORMS = {
    "nan pose": (assign((0, 3), float("nan")), "frame 1.*NaN"),
    "infinite pose": (assign((0, 0), float("inf")), "frame 1.*infinite"),
    "huge pose": (assign((0, 3), 1e308), "frame 1.*absurd"),
    "singular": (assign(np.s_[:3, :3], 0.0), "frame 1.*singular"),
    "flat": (assign(np.s_[:3, 1], 0.0), "frame 1.*singular"),
    "mirrored": (matrix(lambda m: m * [1, 1, -1, 1]), "frame 1.*mirrored"),
    "skewed": (matrix(lambda m: m * [1, 1.1, 1, 1]), "frame 1.*skewed"),
    "last row": (assign((3, 3), 2.0), "frame 1.*last row"),
    "two rows": (matrix(lambda m: m[:2]), "frame 1.*3 or 4 rows of 4"),
    "three columns": (matrix(lambda m: m[:, :3]), "frame 1.*3 or 4 rows of 4"),
    "no pose": (frame(transform_matrix=None), "frame 1.*transform_matrix is missing"),
    "pose of texts": (frame(transform_matrix=[["a"] * 4] * 4), "frame 1.*3 or 4 rows"),
    "no name": (frames({}), "frame 0.*file_path is missing"),
    "name a number": (frame(file_path=3), "frame 1.*file_path must be a text"),
    "name empty": (frame(file_path=""), "frame 1.*file_path"),
    "name with zero": (frame(file_path="a\0b"), "frame 1.*file_path"),
    "duplicate": (frame(file_path="images/00.png"), r"frame 1.*images/00\.png.*frame 0"),
    "duplicate spelt": (frame(file_path="./images//00.png"), "frame 1.*frame 0"),
    "most missing": (
        lambda v: [f.update(file_path=f"{i}") for i, f in enumerate(v["frames"])],
        "3 of 3",
    ),
    "zero focal": (top(fl_x=0), "fl_x must be above 0"),
    "negative focal": (frame(fl_y=-3.0), "frame 1.*fl_y must be above 0"),
    "no focal": (without("fl_x", "fl_y"), "no focal length"),
    "huge focal": (top(fl_x=1e308), "fl_x must be finite and at most"),
    "tiny focal": (top(fl_x=1e-300), "focal length fx"),
    "text focal": (top(fl_x="30"), "fl_x must be a number, got '30'"),
    "flat angle": (
        top(fl_x=None, camera_angle_x=3.2),
        "camera_angle_x must be above 0 and below 3.14",
    ),
    "negative size": (top(w=-24), "w must be a whole number"),
    "zero size": (frame(h=0), "frame 1.*h must be a whole number"),
    "half size": (top(w=24.5), "w must be a whole number"),
    "huge size": (top(w=2**30), "w must be a whole number"),
    "other shape": (top(w=48), "48x16"),
    "k text": (top(k1="0"), "k1 must be a number"),
    "k true": (top(k1=True), "k1 must be a number"),
    "k list": (top(k1=[0]), "k1 must be a number"),
    "k of 400 digits": (top(k1=10**400), "k1 must be finite"),
    "fisheye with p1": (top(is_fisheye=True, p1=0.1), "fisheye"),
    "fisheye text": (top(is_fisheye="yes"), "is_fisheye must be true or false"),
    "camera model": (top(camera_model="ORTHO"), "ORTHO"),
    "camera model a list": (top(camera_model=[1]), "camera_model"),
    "rolling shutter": (top(rolling_shutter=[0, 0, 1]), "rolling_shutter"),
    "aabb_scale 3": (top(aabb_scale=3), "aabb_scale must be a power of two"),
    "aabb_scale 4096": (top(aabb_scale=4096), "aabb_scale must be a power of two"),
    "aabb_scale 0": (top(aabb_scale=0), "aabb_scale"),
    "aabb_scale text": (top(aabb_scale="4"), "aabb_scale must be a number"),
    "scale 0": (top(scale=0), "scale must be above 0"),
    "offset of 2": (top(offset=[1, 2]), "offset must be"),
    "offset text": (top(offset="middle"), "offset must be"),
    "offset nan": (top(offset=float("nan")), "offset must be"),
    "depth unit": (top(integer_depth_scale=-1), "integer_depth_scale"),
    "mask missing": (frame(mask_path="m.png"), r"frame 1.*mask.*m\.png is not there"),
    "mask a number": (frame(mask_path=3), "frame 1.*mask_path"),
    "points missing": (top(ply_file_path="no.ply"), r"no\.ply.*does not exist"),
    "points a photo": (top(ply_file_path="images/00.png"), r"00\.png.*no PLY"),
    "splits": (top(test_filenames="images/00.png"), "test_filenames must be a list"),
    "splits of numbers": (top(test_filenames=[1]), "test_filenames must be a list"),
    "no frames": (frames(), "frames must be a list of at least one"),
    "frames an object": (top(frames={}), "frames must be a list"),
    "frames gone": (without("frames"), "frames must be a list"),
    "a frame a number": (frames(3), "frame 0.*object"),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_malformed_transforms_json_is_one_line(name: str, tmp_path: Path) -> None:
    change, words = TRANSFORMS[name]
    line = refusal(written(tmp_path, change))
    assert re.search(words, line), line


def test_what_is_no_object_is_one_line(tmp_path: Path) -> None:
    for text in ("[1, 2]", '"transforms"', "3", "null", "NaN"):
        (tmp_path / "transforms.json").write_text(text)
        assert "must be an object" in refusal(tmp_path)


def test_all_problems_are_collected(tmp_path: Path) -> None:
    def change(values: dict[str, Any]) -> None:
        assign((0, 3), float("nan"))(values)
        frame(fl_x=0, mask_path="m.png")(values)
        values["aabb_scale"] = 3

    checks = Checks(collect=True)
    scene = read_scene(written(tmp_path, change), None, checks)
    assert len(checks.errors) == 4
    assert len(scene.views) == 2


# --- files


def test_a_place_without_a_scene_is_one_line(tmp_path: Path) -> None:
    assert "process-photos" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    assert "transforms" in refusal(tmp_path / "notes.txt")
    (tmp_path / "long").mkdir()
    with pytest.raises(DataError):
        load_scene(tmp_path / ("n" * 5000))
    with pytest.raises(DataError):
        load_scene("zero\0byte")


def test_a_folder_in_place_of_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a" / "transforms.json").mkdir(parents=True)
    assert "is a folder" in refusal(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "images.bin").write_bytes(b"")
    (tmp_path / "b" / "cameras.bin").mkdir()
    assert "is a folder" in refusal(tmp_path / "b")


def test_a_device_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "transforms.json").symlink_to("/dev/zero")
    assert "no regular file" in refusal(tmp_path)
    (tmp_path / "transforms.json").unlink()
    written(tmp_path, frame(file_path="/dev/zero"))
    lines: list[str] = []
    assert len(load_scene(tmp_path, report=lines.append).views) == 2
    assert "/dev/zero" in lines[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_an_unreadable_file_is_one_line(tmp_path: Path) -> None:
    written(tmp_path, lambda v: None)
    (tmp_path / "transforms.json").chmod(0)
    assert "denied" in refusal(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"[" * 200_000, b"1" * 10_000, b'{"frames": [1,]}', b"nul"]
)
def test_what_is_no_json_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "transforms.json").write_bytes(content)
    refusal(tmp_path)


def test_a_photo_that_is_none_is_one_line(tmp_path: Path) -> None:
    written(tmp_path, lambda v: None)
    (tmp_path / "images" / "01.png").write_text("hello")
    assert "01.png" in refusal(tmp_path)


def test_a_split_without_training_is_one_line(tmp_path: Path) -> None:
    names = [f"images/{name}" for name in Sample(n=3).names]
    assert "for training" in refusal(written(tmp_path, top(test_filenames=names)))


# --- COLMAP


def test_cutting_a_binary_model_anywhere_names_record_and_byte(tmp_path: Path) -> None:
    model = Sample(n=3).write_colmap_binary(tmp_path) / "sparse" / "0"
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        whole = (model / name).read_bytes()
        for length in range(len(whole)):
            (model / name).write_bytes(whole[:length])
            with pytest.raises(DataError, match=rf"{name}, .*byte \d+.*{length}") as caught:
                load_scene(tmp_path)
            assert "\n" not in str(caught.value)
        (model / name).write_bytes(whole + b"\0")
        with pytest.raises(DataError, match=f"{name}.*count"):
            load_scene(tmp_path)
        (model / name).write_bytes(whole)
    assert len(load_scene(tmp_path).views) == 3


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
@pytest.mark.parametrize("count", [2**60, 2**64 - 1, 10**6])
def test_a_count_that_the_file_cannot_hold_takes_no_memory(
    name: str, count: int, tmp_path: Path
) -> None:
    file = Sample().write_colmap_binary(tmp_path) / "sparse" / "0" / name
    file.write_bytes(struct.pack("<Q", count) + file.read_bytes()[8:])
    assert str(count) in refusal(tmp_path)


def test_every_byte_of_a_binary_model_may_be_wrong(tmp_path: Path) -> None:
    model = Sample(n=2).write_colmap_binary(tmp_path) / "sparse" / "0"
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        whole = (model / name).read_bytes()
        for index in range(len(whole)):
            for value in (0x00, 0xFF):
                changed = bytearray(whole)
                changed[index] = value
                (model / name).write_bytes(changed)
                scene_or_line(tmp_path)
        (model / name).write_bytes(whole)


TEXTS = {
    "count": ("images.txt", "images: 5", "images: 7", "states 7 images and it holds 5"),
    "cameras": ("cameras.txt", "cameras: 1", "cameras: 2", "states 2 cameras"),
    "points": ("points3D.txt", "points: 7", "points: 9", "states 9 points"),
    "camera": ("images.txt", " 1 03.png", " 8 03.png", "camera 8 is not among"),
    "parameters": ("cameras.txt", " 12.0 8.0", " 12.0", "f, cx, cy"),
    "size": ("cameras.txt", "24 16", "24 -16", "24x-16"),
    "width": ("cameras.txt", "24 16", "wide 16", r"line 2: it is not CAMERA_ID"),
    "focal": ("cameras.txt", "30.0", "0", "focal length"),
    "nan focal": ("cameras.txt", "30.0", "nan", "fx of the lens is nan"),
    "name": ("images.txt", " 1 03.png", " 1", "line"),
    "word": ("images.txt", "\n1 ", "\n1 x ", "line"),
    "point": ("points3D.txt", "\n3 ", "\n3 x", "line 5: it is not POINT3D_ID"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_malformed_text_model_is_one_line(name: str, tmp_path: Path) -> None:
    file, old, new, words = TEXTS[name]
    path = Sample().write_colmap_text(tmp_path) / "sparse" / "0" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=words) as caught:
        load_scene(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["0", "nan", "1e308", "inf"])
def test_a_quaternion_that_is_none_is_one_line(value: str, tmp_path: Path) -> None:
    path = Sample().write_colmap_text(tmp_path) / "sparse" / "0" / "images.txt"
    lines = path.read_text().split("\n")
    words = lines[1].split()
    lines[1] = " ".join([words[0], *[value] * 4, *words[5:]])
    path.write_text("\n".join(lines))
    assert "00.png" in refusal(tmp_path)


def test_a_missing_file_of_a_model_is_one_line(tmp_path: Path) -> None:
    model = Sample().write_colmap_binary(tmp_path) / "sparse" / "0"
    (model / "images.bin").unlink()
    assert "images.bin does not exist" in refusal(tmp_path).replace(":", "")
    (model / "points3D.bin").unlink()
    Sample().write_colmap_binary(tmp_path / "b")
    (tmp_path / "b/sparse/0/points3D.bin").unlink()
    assert load_scene(tmp_path / "b").points is None


# --- LLFF


def llff(folder: Path, change: Callable[[np.ndarray], Any]) -> Path:
    sample = Sample(n=3)
    table = sample.table()
    changed = change(table)
    sample.write_photos(folder / "images")
    np.save(folder / "poses_bounds.npy", table if changed is None else changed, allow_pickle=True)
    return folder


TABLES = {
    "columns": (lambda t: t[:, :15], "17"),
    "one row": (lambda t: t[0], "17"),
    "no rows": (lambda t: t[:0], "17"),
    "texts": (lambda t: t.astype("U9"), "17"),
    "objects": (lambda t: t.astype(object), "17"),
    "complex": (lambda t: t.astype(complex), "17"),
    "more": (lambda t: np.concatenate([t, t]), "6 poses.*images 3"),
    "nan": (lambda t: t.__setitem__((1, 3), np.nan), r"row 1.*NaN"),
    "singular": (lambda t: t.__setitem__((1, slice(15)), 0.0), r"row 1.*singular"),
    "focal": (lambda t: t.__setitem__((2, 14), 0.0), "row 2.*focal"),
    "height": (lambda t: t.__setitem__((0, 4), -16.0), "row 0.*height"),
    "half width": (lambda t: t.__setitem__((0, 9), 24.5), "row 0.*width"),
    "bounds": (lambda t: t.__setitem__((1, 15), 99.0), "row 1.*near and a far"),
    "nan bounds": (lambda t: t.__setitem__((1, 16), np.nan), "row 1.*near and a far"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_malformed_table_is_one_line(name: str, tmp_path: Path) -> None:
    change, words = TABLES[name]
    with pytest.raises(DataError, match=words) as caught:
        load_scene(llff(tmp_path, change))
    assert "\n" not in str(caught.value)


def test_a_table_cut_anywhere_or_promising_too_much_is_one_line(tmp_path: Path) -> None:
    file = llff(tmp_path, lambda t: None) / "poses_bounds.npy"
    whole = file.read_bytes()
    for length in range(0, len(whole), 3):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError, match="poses_bounds"):
            load_scene(tmp_path)
    for rows in (b"9", b"99999999999999"):
        # as long as before, for the header's length stands before it
        stated = b"(%b, 17), }" % rows
        file.write_bytes(whole.replace(b"(3, 17), }".ljust(len(stated)), stated))
        assert stated in file.read_bytes()
        with pytest.raises(DataError, match="cut short"):
            load_scene(tmp_path)


def test_no_photos_is_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "poses_bounds.npy", Sample().table())
    assert "no folder images" in refusal(tmp_path)
