"""A reconstruction as a scene's folder: transforms.json, photos, COLMAP's model, sparse points."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.primitives.nerf.sfm_export import (
    choose_aabb_scale,
    describe_scene,
    intrinsics,
    orient,
)
from ngp_warp.primitives.nerf.sfm_photos import Photo, natural_key


def write_scene(
    folder: Path, photos_folder: Path, model: Any, photos: list[Photo], link: bool
) -> dict[str, Any]:
    """Turn a reconstruction into the scene's axes and write it.

    Args:
        folder: the scene's, in which everything is made.
        photos_folder: where the photos are; the folder's own ``images`` keeps those registered.
        model: a ``pycolmap.Reconstruction``, turned in place.
        photos: those that it was made from.
        link: whether to link to photos instead of copying them.

    Returns:
        What there is to say of it.
    """
    import pycolmap

    known = {photo.name: photo for photo in photos}
    images = sorted(
        (model.images[i] for i in model.reg_image_ids()),
        key=lambda image: natural_key(image.name),
    )
    points = np.array([p.xyz for p in model.points3D.values()], np.float64).reshape(-1, 3)
    turn = orient(_poses(images), points, [known[image.name].orientation for image in images])
    model.transform(
        pycolmap.Sim3d(turn.scale, pycolmap.Rotation3d(turn.rotation), turn.translation)
    )
    aabb_scale = choose_aabb_scale(turn.points(points))
    cameras = [camera_of(image.camera) for image in images]
    frames = [
        {
            "file_path": f"images/{image.name}",
            "sharpness": known[image.name].sharpness,
            "transform_matrix": [*pose.tolist(), [0.0, 0.0, 0.0, 1.0]],
        }
        for image, pose in zip(images, _poses(images), strict=True)
    ]
    scene = describe_scene(frames, cameras, aabb_scale)
    text = json.dumps(scene, indent=2, allow_nan=False)
    (folder / "transforms.json").write_text(text + "\n", encoding="utf-8")
    _write_model(folder, model)
    registered = [image.name for image in images]
    _place_photos(folder / "images", photos_folder, registered, link)
    return {
        "registered": len(images),
        "not_registered": sorted(set(known) - set(registered), key=natural_key),
        "points": len(points),
        "reprojection_error": float(model.compute_mean_reprojection_error()),
        "camera_model": cameras[0]["camera_model"],
        "focal": float(np.mean([camera["fl_x"] for camera in cameras])),
        "aabb_scale": aabb_scale,
    }


def _poses(images: list[Any]) -> np.ndarray:
    """Return float64 [n, 3, 4]: camera to world in OpenGL's axes; COLMAP's y is down, z ahead."""
    poses = np.array([image.cam_from_world().inverse().matrix() for image in images])
    poses[:, :, 1:3] *= -1.0
    return poses


def camera_of(camera: Any) -> dict[str, Any]:
    """Return a ``pycolmap.Camera`` as transforms.json has it."""
    names = [name.strip() for name in camera.params_info.split(",")]
    return intrinsics(camera.model_name, names, camera.params, (camera.width, camera.height))


def _write_model(folder: Path, model: Any) -> None:
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True)
    model.write_binary(sparse)
    model.export_PLY(folder / "points.ply")


def _place_photos(images: Path, source: Path, names: list[str], link: bool) -> None:
    """Copy or link the photos that were registered; of a video's frames keep only these."""
    if images == source:
        for path in images.iterdir():
            if path.name not in names:
                path.unlink()
        return
    images.mkdir()
    for name in names:
        if link:
            (images / name).symlink_to((source / name).resolve())
        else:
            shutil.copyfile(source / name, images / name)
