"""transforms.json in the dialects of `dialects`: poses from camera to scene, OpenGL's axes."""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ngp_warp.primitives.nerf.scene.assemble import Assembly, Record
from ngp_warp.primitives.nerf.scene.checks import Checks, SceneError
from ngp_warp.primitives.nerf.scene.dialects import (
    FRAME_KEYS,
    TOP_KEYS,
    Box,
    read_box,
    read_depth_unit,
    warn_of_misspelt,
)
from ngp_warp.primitives.nerf.scene.files import is_folder, list_folder, read_json
from ngp_warp.primitives.nerf.scene.photo import find_photo, view_name
from ngp_warp.primitives.nerf.scene.points import read_points_ply
from ngp_warp.primitives.nerf.scene.splits import listed_splits, split_of_file
from ngp_warp.primitives.nerf.scene.transforms_lens import read_lens
from ngp_warp.primitives.nerf.scene.values import Values
from ngp_warp.primitives.nerf.types import Scene, Split

_DEPTH_KEYS = ("depth_file_path", "depth_path")


@dataclass(frozen=True)
class _Stated:
    """What one file states for all of its frames."""

    box: Box
    depth_unit: float | None
    points: np.ndarray | None


def find(path: Path) -> list[Path]:
    """Return the transforms*.json that make up the scene at a path, none if there is none.

    Of a folder: those of the splits (transforms_train.json, _val, _test), else transforms.json,
    else all others.
    """
    if not is_folder(path):
        return [path] if path.suffix.lower() == ".json" else []
    named = [p for p in list_folder(path) if re.fullmatch(r"transforms.*\.json", p.name)]
    splits = [p for p in named if split_of_file(p) is not None]
    if any(split_of_file(p) == "train" for p in splits):
        return splits
    return [p for p in named if p.name == "transforms.json"] or named


def read(path: Path, checks: Checks) -> Scene:
    """Read the scene of a folder or of one file.

    Raises:
        DataError: the first thing that is wrong, unless the checks collect.
    """
    files = find(path)
    if not files:
        raise SceneError(str(path), "no transforms*.json is there", "name another format")
    assembly = Assembly(str(path), checks)
    stated: list[_Stated] = []
    for file in files:
        split = split_of_file(file) if len(files) > 1 else None
        with checks.part():
            stated.append(_read_file(file, split or "train", assembly))
    with checks.part():
        _check_agreement(path, stated)
    views = assembly.finish()
    box = stated[0].box if stated else Box()
    return Scene(
        path=path,
        format="transforms",
        views=views,
        scale=box.scale,
        offset=box.offset,
        aabb_scale=box.aabb_scale,
        depth_unit=(stated[0].depth_unit if stated else None) or 1.0,
        points=next((s.points for s in stated if s.points is not None), None),
        has_splits=any(view.split != "train" for view in views),
    )


def _check_agreement(path: Path, stated: list[_Stated]) -> None:
    for what in ("box", "depth_unit"):
        if len({getattr(s, what) for s in stated}) > 1:
            raise SceneError(
                str(path),
                f"its files state different values of the {what.replace('_', ' ')}",
                "state the same scale, offset, aabb_scale and unit of depth in all of them",
            )


def _read_file(file: Path, split: Split, assembly: Assembly) -> _Stated:
    """Add a file's frames; return what it states for all of them."""
    checks = assembly.checks
    top = Values(read_json(file), str(file))
    warn_of_misspelt(top, TOP_KEYS, checks)
    frames = _frames(top, checks)
    box, unit, splits, points = Box(), None, None, None
    with checks.part():
        box = read_box(top)
    with checks.part():
        unit = read_depth_unit(top)
    with checks.part():
        names = [str(frame.get("file_path")) for frame in frames]
        splits = listed_splits(top, names)
    with checks.part():
        ply = top.text("ply_file_path")
        points = read_points_ply(file.parent / ply) if ply is not None else None
    left_out = 0
    for frame in frames:
        with checks.part():
            name = _name(frame)
            if splits is not None and name not in splits:
                left_out += 1
                continue
            chosen = split if splits is None else splits[name]
            _add(file, top, frame, name, chosen, unit, assembly)
    if left_out:
        what = f"{left_out} frames are in none of the lists train_, val_ and test_filenames"
        checks.warn(str(file), what, "they are left out")
    return _Stated(box, unit, points)


def _frames(top: Values, checks: Checks) -> list[Values]:
    """Return the frames, each named by its number and photo in errors."""
    frames = top.get("frames")
    if not isinstance(frames, list) or not frames:
        raise top.wrong("frames", "a list of at least one frame")
    result = []
    for index, frame in enumerate(frames):
        where = f"{top.where}, frame {index}"
        name = frame.get("file_path") if isinstance(frame, dict) else None
        if isinstance(name, str):
            where += f" ({name[:80]})"
        with checks.part():
            result.append(Values(frame, where))
    if result:
        warn_of_misspelt(result[0], FRAME_KEYS, checks)
    return result


def _name(frame: Values) -> str:
    name = frame.text("file_path")
    if name is None:
        raise SceneError(frame.where, "file_path is missing", "name the photo")
    return name


def _add(
    file: Path,
    top: Values,
    frame: Values,
    name: str,
    split: Split,
    unit: float | None,
    assembly: Assembly,
) -> None:
    folder = file.parent
    found = find_photo(folder, name)
    image = folder / name if found is None else found
    mask = frame.text("mask_path")
    depth = next((frame.text(key) for key in _DEPTH_KEYS if key in frame), None)
    assembly.add(
        Record(
            where=frame.where,
            name=view_name(image, folder),
            image=image,
            pose=frame.matrix("transform_matrix", (3, 4), 4),
            lens=partial(read_lens, top, frame),
            split=split,
            mask=None if mask is None else folder / mask,
            depth=None if depth is None or unit is None else folder / depth,
        )
    )
