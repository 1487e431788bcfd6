"""Laws of scenes: one scene is the same in every format, and every key of a file counts."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scene_samples import FOCAL, SIZE, Sample

from ngp_warp.errors import ConfigError, DataError
from ngp_warp.primitives.nerf.frame import choose_frame
from ngp_warp.primitives.nerf.scene import load_scene
from ngp_warp.primitives.nerf.types import Scene

WRITERS = {
    "transforms": Sample.write_transforms,
    "colmap_text": Sample.write_colmap_text,
    "colmap_binary": Sample.write_colmap_binary,
    "llff": Sample.write_llff,
}


def box_rays(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Return rays of all views through 5x5 points, into the box of the scene and back again."""
    frame = choose_frame(scene)
    origins, directions = [], []
    for view in scene.views:
        u, v = np.meshgrid(np.linspace(0, SIZE[0], 5), np.linspace(0, SIZE[1], 5))
        local = view.lens.unproject(np.stack([u.ravel(), v.ravel()], axis=1))
        pose = frame.poses_from_box(frame.poses_to_box(view.pose))
        world = local @ pose[:, :3].T
        directions.append(world / np.linalg.norm(world, axis=1, keepdims=True))
        origins.append(np.broadcast_to(pose[:, 3], world.shape))
    return np.concatenate(origins), np.concatenate(directions)


@pytest.fixture
def sample() -> Sample:
    return Sample()


@pytest.mark.parametrize("name", WRITERS)
def test_one_scene_gives_the_same_rays_in_every_format(
    name: str, sample: Sample, tmp_path: Path
) -> None:
    scene = load_scene(WRITERS[name](sample, tmp_path))
    assert scene.format == name.split("_", maxsplit=1)[0]
    assert [view.name for view in scene.views] == [f"images/{n}" for n in sample.names]
    origins, directions = box_rays(scene)
    lens = scene.views[0].lens
    assert (lens.width, lens.height, lens.fx, lens.fy) == (*SIZE, FOCAL, FOCAL)
    u, v = np.meshgrid(np.linspace(0, SIZE[0], 5), np.linspace(0, SIZE[1], 5))
    local = np.stack([u - SIZE[0] / 2, SIZE[1] / 2 - v, np.full_like(u, -FOCAL)], -1).reshape(-1, 3)
    local /= np.linalg.norm(local, axis=1, keepdims=True)
    # the poses as the sample made them, never through a file
    np.testing.assert_allclose(
        directions, np.concatenate([local @ p[:, :3].T for p in sample.poses]), atol=1e-4
    )
    np.testing.assert_allclose(
        origins, np.repeat([p[:, 3] for p in sample.poses], 25, axis=0), atol=1e-4
    )


def test_the_comparison_of_rays_would_notice_swapped_axes(sample: Sample, tmp_path: Path) -> None:
    table = sample.table().reshape(-1, 17)
    poses = table[:, :15].reshape(-1, 3, 5)
    poses[:, :, [0, 1]] = poses[:, :, [1, 0]]
    sample.write_llff(tmp_path)
    np.save(tmp_path / "poses_bounds.npy", np.column_stack([poses.reshape(-1, 15), table[:, 15:]]))
    with pytest.raises(DataError, match="mirrored"):
        load_scene(tmp_path)


def test_sparse_points_and_bounds_are_kept(sample: Sample, tmp_path: Path) -> None:
    for name in ("colmap_text", "colmap_binary"):
        points = load_scene(WRITERS[name](sample, tmp_path / name)).points
        np.testing.assert_allclose(points, sample.points)
    scene = load_scene(sample.write_llff(tmp_path / "llff"))
    assert scene.near == pytest.approx(0.9 * 2.5)
    assert scene.far == pytest.approx(7.5)


def test_points_of_nerfstudio_are_read(sample: Sample, tmp_path: Path) -> None:
    sample.write_transforms(tmp_path, ply_file_path="sparse.ply")
    rows = "\n".join(f"{x} {y} {z}" for x, y, z in sample.points)
    (tmp_path / "sparse.ply").write_text(
        f"ply\nformat ascii 1.0\nelement vertex {len(sample.points)}\nproperty double x\n"
        f"property double y\nproperty double z\nend_header\n{rows}\n"
    )
    np.testing.assert_allclose(load_scene(tmp_path).points, sample.points)


# --- finding


@pytest.mark.parametrize("given", ["", "sparse", "sparse/0", "sparse/0/cameras.bin"])
def test_a_model_is_found_from_every_folder(given: str, sample: Sample, tmp_path: Path) -> None:
    sample.write_colmap_binary(tmp_path)
    scene = load_scene(tmp_path / given)
    assert [view.name for view in scene.views] == [f"images/{n}" for n in sample.names]


def test_a_flag_chooses_among_several_formats(sample: Sample, tmp_path: Path) -> None:
    sample.write_transforms(tmp_path)
    sample.write_colmap_text(tmp_path)
    sample.write_llff(tmp_path)
    lines: list[str] = []
    assert load_scene(tmp_path, report=lines.append).format == "transforms"
    assert "colmap and llff" in lines[0]
    for name in ("transforms", "colmap", "llff"):
        assert load_scene(tmp_path, format=name).format == name
    with pytest.raises(ConfigError, match="nerf"):
        load_scene(tmp_path, format="nerf")


def test_a_binary_model_comes_before_a_text_and_photos_by_name(
    sample: Sample, tmp_path: Path
) -> None:
    sample.write_colmap_binary(tmp_path)
    text = Sample(n=3).write_colmap_text(tmp_path / "other") / "sparse/0"
    for file in text.iterdir():
        file.rename(tmp_path / "sparse/0" / file.name)
    assert len(load_scene(tmp_path).views) == 5


def test_masks_of_colmap_lie_beside_the_photos(sample: Sample, tmp_path: Path) -> None:
    sample.write_colmap_text(tmp_path)
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.zeros(SIZE[::-1], np.uint8)).save(tmp_path / "masks" / "01.png.png")
    masks = [view.mask for view in load_scene(tmp_path).views]
    assert masks == [None, tmp_path / "masks" / "01.png.png", None, None, None]


# --- lenses


def lens_of(folder: Path, frame: dict[str, Any] | None = None, **top: Any) -> Any:
    """Return the lens of the first frame of a transforms.json without other lens keys."""
    sample = Sample(n=2)
    sample.write_photos(folder / "images")
    values = {"frames": sample.transforms()["frames"], **top}
    values["frames"][0].update(frame or {})
    (folder / "transforms.json").write_text(json.dumps(values))
    return load_scene(folder).views[0].lens


def test_a_focal_length_is_stated_in_any_of_three_ways(tmp_path: Path) -> None:
    w, h = SIZE
    angle_x, angle_y = 2 * math.atan(w / 2 / 30), 2 * math.atan(h / 2 / 40)
    for stated in (
        {"fl_x": 30, "fl_y": 40},
        {"camera_angle_x": angle_x, "camera_angle_y": angle_y},
        {"x_fov": math.degrees(angle_x), "y_fov": math.degrees(angle_y)},
    ):
        lens = lens_of(tmp_path, **stated)
        assert (lens.fx, lens.fy) == (pytest.approx(30), pytest.approx(40))
        assert (lens.cx, lens.cy) == (w / 2, h / 2)
    lens = lens_of(tmp_path, camera_angle_x=angle_x)
    assert (lens.fx, lens.fy) == (pytest.approx(30), pytest.approx(30))
    lens = lens_of(tmp_path, y_fov=math.degrees(angle_y))
    assert (lens.fx, lens.fy) == (pytest.approx(40), pytest.approx(40))


def test_a_frame_overrides_the_file(tmp_path: Path) -> None:
    angle = 2 * math.atan(SIZE[0] / 2 / 50)
    lens = lens_of(tmp_path, {"camera_angle_x": angle, "k1": 0.2, "cx": 11}, fl_x=30, k1=0.1, k2=3)
    assert (lens.fx, lens.k1, lens.k2, lens.cx) == (pytest.approx(50), 0.2, 3.0, 11.0)


def test_every_coefficient_of_the_distortion_counts(tmp_path: Path) -> None:
    keys = {f"k{i}": 0.01 * i for i in range(1, 7)} | {"p1": 0.07, "p2": 0.08}
    lens = lens_of(tmp_path, fl_x=30, **keys)
    assert {key: getattr(lens, key) for key in keys} == pytest.approx(keys)
    fisheye = {f"k{i}": 0.01 * i for i in range(1, 5)}
    for said in ({"is_fisheye": True}, {"camera_model": "OPENCV_FISHEYE"}):
        lens = lens_of(tmp_path, fl_x=30, **fisheye, **said)
        assert lens.fisheye
        assert {key: getattr(lens, key) for key in fisheye} == pytest.approx(fisheye)


COLMAP_MODELS = {
    "SIMPLE_PINHOLE": ("f cx cy", False),
    "PINHOLE": ("fx fy cx cy", False),
    "SIMPLE_RADIAL": ("f cx cy k1", False),
    "RADIAL": ("f cx cy k1 k2", False),
    "SIMPLE_RADIAL_FISHEYE": ("f cx cy k1", True),
    "RADIAL_FISHEYE": ("f cx cy k1 k2", True),
    "OPENCV": ("fx fy cx cy k1 k2 p1 p2", False),
    "OPENCV_FISHEYE": ("fx fy cx cy k1 k2 k3 k4", True),
    "FULL_OPENCV": ("fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6", False),
}


@pytest.mark.parametrize("model", COLMAP_MODELS)
def test_colmaps_models_are_lenses(model: str, tmp_path: Path) -> None:
    names, fisheye = COLMAP_MODELS[model]
    values = {name: 0.001 * (i + 1) for i, name in enumerate(names.split())}
    values |= {name: 20.0 + i for i, name in enumerate(("f", "fx", "fy", "cx", "cy"))}
    values = {name: values[name] for name in names.split()}
    Sample().write_colmap_text(tmp_path)
    numbers = " ".join(map(str, values.values()))
    (tmp_path / "sparse/0/cameras.txt").write_text(
        f"1 {model} {SIZE[0]} {SIZE[1]} {numbers}\n9 FOV 1 1 1 1 1 1 1\n"  # not used: no matter
    )
    lens = load_scene(tmp_path).views[0].lens
    assert lens.fisheye == fisheye
    if "f" in values:
        values["fx"] = values["fy"] = values.pop("f")
    assert {name: getattr(lens, name) for name in values} == values
    others = {k: v for k, v in vars(lens).items() if k not in values and k[0] in "kp"}
    assert set(others.values()) <= {0.0}


@pytest.mark.parametrize(
    "model", ["FOV", "THIN_PRISM_FISHEYE", "SIMPLE_DIVISION", "EQUIRECTANGULAR", "NEW_MODEL"]
)
def test_other_models_are_refused_by_name(model: str, tmp_path: Path) -> None:
    Sample().write_colmap_text(tmp_path)
    (tmp_path / "sparse/0/cameras.txt").write_text(f"1 {model} 24 16 1 2 3 4 5\n")
    with pytest.raises(DataError, match=model):
        load_scene(tmp_path)
    if model != "NEW_MODEL":
        return
    Sample().write_colmap_binary(tmp_path / "b", "FOV", (30.0, 30.0, 12.0, 8.0, 0.5))
    with pytest.raises(DataError, match="FOV"):
        load_scene(tmp_path / "b")


@pytest.mark.parametrize("model", ["EQUIRECTANGULAR", "FISHEYE624", "ORTHOPHOTO"])
def test_other_models_of_nerfstudio_are_refused_by_name(model: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=model):
        lens_of(tmp_path, fl_x=30, camera_model=model)


# --- sizes


def test_a_lens_is_scaled_to_a_reduced_photo(sample: Sample, tmp_path: Path) -> None:
    sample.write_transforms(tmp_path)
    sample.write_photos(tmp_path / "images", (12, 8))
    lines: list[str] = []
    lens = load_scene(tmp_path, report=lines.append).views[0].lens
    assert (lens.width, lens.height, lens.fx, lens.cx) == (12, 8, FOCAL / 2, 6)
    assert "scaled" in lines[0]
    sample.write_photos(tmp_path / "images", (12, 12))
    with pytest.raises(DataError, match=r"12x12.*24x16"):
        load_scene(tmp_path)


def test_sizes_may_differ_by_view(sample: Sample, tmp_path: Path) -> None:
    values = sample.write_transforms(tmp_path) and sample.transforms()
    for key in ("w", "h", "cx", "cy", "fl_x", "fl_y"):
        del values[key]
    Image.fromarray(np.zeros((40, 10, 3), np.uint8)).save(tmp_path / "images" / "03.png")
    (tmp_path / "transforms.json").write_text(json.dumps({**values, "camera_angle_x": 1.0}))
    lenses = [view.lens for view in load_scene(tmp_path).views]
    assert [(lens.width, lens.height) for lens in lenses] == [SIZE] * 3 + [(10, 40), SIZE]
    assert lenses[3].fx == pytest.approx(5 / math.tan(0.5))


@pytest.mark.parametrize(("stated", "size"), [((24, 16), (24, 16)), ((16, 24), (16, 24))])
def test_exif_turns_a_photo_only_where_its_stated_shape_needs_it(
    stated: tuple[int, int], size: tuple[int, int], tmp_path: Path
) -> None:
    sample = Sample(n=2)
    sample.write_transforms(tmp_path, w=stated[0], h=stated[1])
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in sample.names:
        Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(
            tmp_path / "images" / name, format="JPEG", exif=exif
        )
    lens = load_scene(tmp_path).views[0].lens
    assert (lens.width, lens.height) == size


def test_llff_takes_the_folder_of_the_stated_size(sample: Sample, tmp_path: Path) -> None:
    sample.write_llff(tmp_path)
    sample.write_photos(tmp_path / "images", (48, 32))
    sample.write_photos(tmp_path / "images_2", SIZE)
    assert load_scene(tmp_path).views[0].name == "images_2/00.png"
    (tmp_path / "images_2" / "00.png").unlink()
    view = load_scene(tmp_path).views[0]
    assert (view.name, view.lens.fx) == ("images/00.png", 2 * FOCAL)


# --- splits, masks, depth, boxes


def write_blender(folder: Path) -> Path:
    sample = Sample()
    for split in ("train", "val", "test"):
        sample.write_photos(folder / split)
        frames = [
            {"file_path": f"./{split}/{name[:-4]}", "transform_matrix": pose.tolist()}
            for name, pose in zip(sample.names, sample.poses, strict=True)
        ]
        (folder / f"transforms_{split}.json").write_text(
            json.dumps({"camera_angle_x": 0.7, "frames": frames[: {"train": 5}.get(split, 2)]})
        )
    return folder


def test_blenders_scene_has_splits_and_its_box(tmp_path: Path) -> None:
    scene = load_scene(write_blender(tmp_path))
    assert [view.split for view in scene.views] == ["train"] * 5 + ["val"] * 2 + ["test"] * 2
    assert scene.views[0].name == "train/00.png"
    assert scene.has_splits
    assert (scene.scale, scene.offset, scene.aabb_scale) == (1 / 3, (0.5, 0.5, 0.5), 1)
    alone = load_scene(tmp_path / "transforms_test.json")
    assert [view.split for view in alone.views] == ["train"] * 2
    assert not alone.has_splits


def test_a_photo_of_two_splits_is_held_back(tmp_path: Path) -> None:
    write_blender(tmp_path)
    train = json.loads((tmp_path / "transforms_train.json").read_text())
    train["frames"] = train["frames"][:2]
    (tmp_path / "transforms_test.json").write_text(json.dumps(train))
    lines: list[str] = []
    scene = load_scene(tmp_path, report=lines.append)
    assert [view.split for view in scene.views] == ["train"] * 3 + ["val"] * 2 + ["test"] * 2
    assert "held back" in lines[0]


def test_nerfstudios_lists_name_the_splits(sample: Sample, tmp_path: Path) -> None:
    names = [f"images/{name}" for name in sample.names]
    lists = {"train_filenames": names[:3], "test_filenames": ["./images/04.png"]}
    lines: list[str] = []
    scene = load_scene(sample.write_transforms(tmp_path, **lists), report=lines.append)
    assert [view.split for view in scene.views] == ["train"] * 3 + ["test"]
    assert "1 frames are in none" in lines[0]
    del lists["train_filenames"]
    scene = load_scene(sample.write_transforms(tmp_path, **lists))
    assert [view.split for view in scene.views] == ["train"] * 4 + ["test"]
    with pytest.raises(DataError, match="nowhere"):
        load_scene(sample.write_transforms(tmp_path, test_filenames=["nowhere.png"]))


def test_masks_and_depth_maps(sample: Sample, tmp_path: Path) -> None:
    values = sample.transforms()
    sample.write_transforms(tmp_path)
    values["frames"][1] |= {"mask_path": "images/00.png", "depth_file_path": "images/02.png"}

    def load(**top: Any) -> Scene:
        (tmp_path / "transforms.json").write_text(json.dumps({**values, **top}))
        return load_scene(tmp_path)

    scene = load()
    view = scene.views[1]
    assert (view.mask, view.depth) == (tmp_path / "images/00.png", tmp_path / "images/02.png")
    assert scene.depth_unit == 1e-3
    assert load(depth_unit_scale_factor=0.5).depth_unit == 0.5
    assert load(integer_depth_scale=0.25).depth_unit == 0.25
    assert load(enable_depth_loading=False).views[1].depth is None
    values["frames"][2]["mask_path"] = "missing.png"
    with pytest.raises(DataError, match=r"frame 2.*mask.*missing\.png"):
        load()


def test_the_box_of_instant_ngp_is_kept(sample: Sample, tmp_path: Path) -> None:
    scene = load_scene(sample.write_transforms(tmp_path, aabb_scale=8))
    assert (scene.scale, scene.offset, scene.aabb_scale) == (0.33, (0.5, 0.5, 0.5), 8)
    scene = load_scene(sample.write_transforms(tmp_path, scale=2, offset=[1, 2, 3]))
    assert (scene.scale, scene.offset, scene.aabb_scale) == (2, (1, 2, 3), None)
    scene = load_scene(sample.write_transforms(tmp_path))
    assert (scene.scale, scene.offset, scene.aabb_scale) == (None, None, None)


def test_a_scaled_rotation_is_mended_and_said(sample: Sample, tmp_path: Path) -> None:
    values = sample.transforms()
    plain = sample.poses[2]
    matrix = np.array(values["frames"][2]["transform_matrix"])
    matrix[:3, :3] *= 2.5
    values["frames"][2]["transform_matrix"] = matrix.tolist()
    sample.write_transforms(tmp_path, frames=values["frames"])
    lines: list[str] = []
    pose = load_scene(tmp_path, report=lines.append).views[2].pose
    np.testing.assert_allclose(pose, plain, atol=1e-12)
    assert "images/02.png" in lines[0]


def test_few_missing_photos_are_left_out_and_said(sample: Sample, tmp_path: Path) -> None:
    sample.write_transforms(tmp_path)
    for name in sample.names[1:3]:
        (tmp_path / "images" / name).unlink()
    lines: list[str] = []
    scene = load_scene(tmp_path, report=lines.append)
    assert [view.name for view in scene.views] == [
        "images/00.png",
        "images/03.png",
        "images/04.png",
    ]
    (line,) = lines
    assert "2 of 5" in line
    assert "01.png" in line
    (tmp_path / "images" / "00.png").unlink()
    with pytest.raises(DataError, match="3 of 5"):
        load_scene(tmp_path)
