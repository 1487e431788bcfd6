"""COLMAP models, text and binary, and the photos beside them."""

from functools import partial
from pathlib import Path

from ngp_warp.primitives.nerf.scene.assemble import Assembly, Record, Size
from ngp_warp.primitives.nerf.scene.checks import Checks, SceneError
from ngp_warp.primitives.nerf.scene.colmap_binary import read_binary
from ngp_warp.primitives.nerf.scene.colmap_cameras import Camera, read_lens
from ngp_warp.primitives.nerf.scene.colmap_records import Image, Reconstruction
from ngp_warp.primitives.nerf.scene.colmap_text import read_text
from ngp_warp.primitives.nerf.scene.files import is_file, is_folder, list_folder
from ngp_warp.primitives.nerf.scene.photo import view_name
from ngp_warp.primitives.nerf.scene.poses import from_world_to_camera
from ngp_warp.primitives.nerf.types import Scene
from ngp_warp.rays.lenses import Lens

_MODEL_FOLDERS = ("", "sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse")
_PHOTO_FOLDERS = ("images", "", "images_2", "images_4", "images_8")
_FILES = {".bin": read_binary, ".txt": read_text}


def find(path: Path) -> Path | None:
    """Return the folder of the COLMAP model that belongs to a path, None if there is none.

    The folder itself, sparse/0, sparse, the same in colmap/, or the one folder in it that holds a
    model; a file of a model stands for its folder.
    """
    if not is_folder(path):
        return path.parent if path.name.startswith(("cameras.", "images.")) else None
    for name in _MODEL_FOLDERS:
        if _suffix(path / name) is not None:
            return path / name
    others = [folder for folder in list_folder(path) if _suffix(folder) is not None]
    return others[0] if len(others) == 1 else None


def read(path: Path, checks: Checks) -> Scene:
    """Read the scene of a folder.

    Raises:
        DataError: the first thing that is wrong, unless the checks collect.
    """
    folder = find(path)
    suffix = None if folder is None else _suffix(folder)
    if folder is None or suffix is None:
        what = "no COLMAP model (cameras, images, as .bin or .txt) is there"
        raise SceneError(str(path), what, "give the folder that holds it")
    _note_others(folder, checks)
    model = _FILES[suffix](folder)
    assembly = Assembly(str(path), checks)
    root = path if is_folder(path) else folder
    photos = _photo_folder(root, folder, model)
    # As the photos are named: COLMAP's own order is that of its hash tables.
    for image in sorted(model.images, key=lambda image: image.name):
        with checks.part():
            _add(image, model, photos, root, assembly)
    return Scene(path=path, format="colmap", views=assembly.finish(), points=model.points)


def _suffix(folder: Path) -> str | None:
    """Return the suffix of a model's files, binary before text; None: no model."""
    for suffix in _FILES:
        if is_file(folder / f"cameras{suffix}") or is_file(folder / f"images{suffix}"):
            return suffix
    return None


def _note_others(folder: Path, checks: Checks) -> None:
    if folder.name == "0":
        others = [f for f in list_folder(folder.parent) if _suffix(f) is not None and f != folder]
        if others:
            checks.warn(
                str(folder.parent),
                f"the reconstruction fell apart into {len(others) + 1} models, 0 is read",
                "give the folder of another to read that",
            )


def _photo_folder(root: Path, folder: Path, model: Reconstruction) -> Path:
    """Return the first folder that holds any of the photos; the usual one where none does."""
    bases = dict.fromkeys((root, folder, *list(folder.resolve().parents)[:3]))
    candidates = [base / name for base in bases for name in _PHOTO_FOLDERS]
    for candidate in candidates:
        if is_folder(candidate) and any(is_file(candidate / i.name) for i in model.images):
            return candidate
    return candidates[0]


def _add(image: Image, model: Reconstruction, photos: Path, root: Path, assembly: Assembly) -> None:
    def lens(camera: Camera, size: Size) -> Lens:
        return read_lens(camera)

    if not image.name or "\0" in image.name:
        raise SceneError(image.where, "it has no name", "write the model again")
    path = photos / image.name
    assembly.add(
        Record(
            where=image.where,
            name=view_name(path, root),
            image=path,
            pose=from_world_to_camera(image.quaternion, image.translation),
            lens=partial(lens, model.camera_of(image)),
            mask=_mask(photos, image.name),
        )
    )


def _mask(photos: Path, name: str) -> Path | None:
    """Return a photo's mask in the folder masks beside the photos', COLMAP's name or its own."""
    folder = photos.parent / "masks"
    names = (f"{name}.png", name, str(Path(name).with_suffix(".png")))
    return next((folder / n for n in names if is_file(folder / n)), None)
