"""What can be trained with but is probably not meant: warnings of `ngp validate`."""

import dataclasses
import math
import os
from collections import defaultdict
from pathlib import Path

import numpy as np

from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.primitives.nerf.scene.checks import Checks
from ngp_warp.primitives.nerf.scene.files import list_folder
from ngp_warp.primitives.nerf.scene.photo import SUFFIXES
from ngp_warp.primitives.nerf.types import Scene, View
from ngp_warp.rays.lenses import Lens

_FEW = 8
_OUTLIER = 10.0  # times the median distance
_POINTS_OUTSIDE = 0.2
_SAME = 1e-6  # of the cameras' extent, and of rotations


def find_oddities(scene: Scene, frame: Frame, checks: Checks) -> None:
    """Warn of what is odd about a scene's views, lenses, photos and box."""
    if not checks.errors:  # views with errors are not in the scene
        _few(scene, checks)
        _unlisted(scene, checks)
    _same_poses(scene, checks)
    _lenses(scene, checks)
    _box(scene, frame, checks)


def _few(scene: Scene, checks: Checks) -> None:
    n_train = sum(view.split == "train" for view in scene.views)
    if n_train < _FEW:
        what = f"{n_train} views to train with are few"
        checks.warn(str(scene.path), what, "twenty or more from all sides are usual")


def _same_poses(scene: Scene, checks: Checks) -> None:
    poses = np.stack([view.pose for view in scene.views])
    extent = float(np.ptp(poses[:, :, 3], axis=0).max()) or 1.0
    poses[:, :, 3] /= extent
    groups: dict[bytes, list[str]] = defaultdict(list)
    for view, key in zip(scene.views, np.round(poses / _SAME).astype(np.int64), strict=True):
        groups[key.tobytes()].append(view.name)
    for names in groups.values():
        if len(names) > 1:
            checks.warn(
                names[0],
                f"its pose is also that of {names[1]}"
                + (f" and {len(names) - 2} more" if len(names) > 2 else ""),
                "photos from one tripod are fine; a pose copied by mistake is not",
            )


def _lenses(scene: Scene, checks: Checks) -> None:
    for lens, names in views_by_lens(scene.views).items():
        others = f" (and {len(names) - 1} more with this lens)" if len(names) > 1 else ""
        for what, mend in _lens_oddities(lens):
            checks.warn(f"{names[0]}{others}", what, mend)


def views_by_lens(views: tuple[View, ...]) -> dict[Lens, list[str]]:
    """Return the names of the views of each lens."""
    groups: dict[Lens, list[str]] = defaultdict(list)
    for view in views:
        groups[view.lens].append(view.name)
    return groups


def _lens_oddities(lens: Lens) -> list[tuple[str, str]]:
    """Return what is odd and what to do."""
    found = []
    if not (0 < lens.cx < lens.width and 0 < lens.cy < lens.height):
        what = f"the principal point ({lens.cx:g}, {lens.cy:g}) is outside the photo"
        found.append((what, "cx and cy are in pixels from the top left corner"))
    ratio = lens.fx / lens.fy
    if not 0.8 < ratio < 1.25:
        what = f"fl_x {lens.fx:g} and fl_y {lens.fy:g} are unlike: pixels are seldom that oblong"
        found.append((what, "is width taken for height?"))
    angle = field_of_view(lens)
    if not 2 < angle < 150 and not lens.fisheye:
        what = f"the field of view across is {angle:.1f} degrees"
        found.append((what, "is the focal length in pixels of a photo of another size?"))
    corner, limit = corner_radius(lens), unfolded_radius(lens)
    if limit < corner:
        what = (
            "the distortion is so large that it folds the picture: it holds as far as "
            f"{limit:.3g} from the axis, the corners lie at {corner:.3g} (focal lengths)"
        )
        found.append((what, "calibrate with fewer coefficients, or with photos to the corners"))
    return found


def field_of_view(lens: Lens) -> float:
    """Return the angle that the photo's width spans, in degrees, distortion aside."""
    half = lens.width / 2 / lens.fx
    return float(np.degrees(2 * (half if lens.fisheye else np.arctan(half))))


def corner_radius(lens: Lens) -> float:
    """Return how far the farthest corner is from the principal point, in focal lengths."""
    x = max(abs(lens.cx), abs(lens.width - lens.cx)) / lens.fx
    y = max(abs(lens.cy), abs(lens.height - lens.cy)) / lens.fy
    return float(np.hypot(x, y))


def unfolded_radius(lens: Lens) -> float:
    """Return up to which distorted radius, in focal lengths, radial distortion is one to one."""
    if lens.limit == math.inf:
        return math.inf
    r = lens.limit * (1 - 1e-9)
    point = (math.sin(r), 0.0, -math.cos(r)) if lens.fisheye else (r, 0.0, -1.0)
    plain = dataclasses.replace(lens, cx=0.0, p1=0.0, p2=0.0)
    return float(plain.project(np.array([point]))[0, 0]) / lens.fx


def _unlisted(scene: Scene, checks: Checks) -> None:
    """Warn of photos that lie beside those of the scene and are not among them."""
    folders: dict[Path, set[str]] = defaultdict(set)
    for view in scene.views:
        for path in (view.image, view.mask, view.depth):
            if path is not None:
                folders[path.parent].add(path.name)
    for folder, listed in folders.items():
        # NeRF-synthetic has r_0_depth_0001.png and r_0_normal_0001.png beside r_0.png
        stems = tuple(os.path.splitext(name)[0] + "_" for name in listed)  # noqa: PTH122
        others = [
            path.name
            for path in list_folder(folder)
            if path.suffix.lower() in SUFFIXES
            and path.name not in listed
            and not path.name.startswith(stems)
        ]
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            what = f"{others[0]}{more} are not among the views" if more else None
            what = what or f"{others[0]} is not among the views"
            checks.warn(str(folder), what, "photos without a pose are not used")


def _box(scene: Scene, frame: Frame, checks: Checks) -> None:
    path = str(scene.path)
    positions = frame.to_box(np.stack([view.pose[:, 3] for view in scene.views]))
    away = [view.name for view in scene.views if not sees_box(view, frame)]
    if away:
        more = f" and {len(away) - 1} more" if len(away) > 1 else ""
        what = "looks past the box: none of its rays meets it"
        checks.warn(f"{away[0]}{more}", what, "a larger --aabb-scale, or scale and offset")
    distance = np.linalg.norm(positions - 0.5, axis=1)
    for index in np.flatnonzero(distance > _OUTLIER * np.median(distance)):
        what = (
            f"its camera is {distance[index] / np.median(distance):.0f} times as far away as most"
        )
        checks.warn(scene.views[index].name, what, "check its pose")
    outside = int(np.count_nonzero(outside_box(positions)))
    # A box of one cube holds the object alone: cameras stand outside.
    if outside and frame.aabb_scale > 1:
        what = f"{outside} of {len(positions)} cameras are outside the box"
        checks.warn(
            path, what, "what is near them is not trained; a larger --aabb-scale holds them"
        )
    if scene.points is not None:
        share = float(outside_box(frame.to_box(scene.points)).mean())
        if share > _POINTS_OUTSIDE:
            what = f"{100 * share:.0f}% of the sparse points are outside the box"
            checks.warn(path, what, "a larger --aabb-scale holds more of them")


def outside_box(points: np.ndarray) -> np.ndarray:
    """Return which of points [n, 3] of box coordinates are outside the box, bool [n]."""
    return np.any((points < 0) | (points > 1), axis=1)


def sees_box(view: View, frame: Frame) -> bool:
    """Return whether any of 7x7 rays over the photo meets the box, distortion aside."""
    lens = view.lens
    u, v = np.meshgrid(np.linspace(0, lens.width, 7), np.linspace(0, lens.height, 7))
    directions = pinhole_directions(lens, u.ravel(), v.ravel()) @ view.pose[:, :3].T
    origin = frame.to_box(view.pose[:, 3])
    with np.errstate(divide="ignore", invalid="ignore"):
        near, far = np.sort(
            np.stack([(0 - origin) / directions, (1 - origin) / directions]), axis=0
        )
    near = np.where(np.isnan(near), -np.inf, near).max(axis=1)
    far = np.where(np.isnan(far), np.inf, far).min(axis=1)
    return bool(np.any((far > 0) & (near <= far)))


def pinhole_directions(lens: Lens, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return directions [n, 3] through points of the photo, camera axes, without distortion."""
    x, y = (u - lens.cx) / lens.fx, (v - lens.cy) / lens.fy
    if lens.fisheye:
        angle = np.hypot(x, y)
        across = np.sinc(angle / np.pi)  # sin(angle) / angle
        return np.stack([x * across, -y * across, -np.cos(angle)], axis=1)
    return np.stack([x, -y, -np.ones_like(x)], axis=1)
