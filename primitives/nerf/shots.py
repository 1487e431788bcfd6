"""Where pictures of a scene are taken from: its views, orbits about it, paths through it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from ngp_warp.errors import ConfigError
from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.primitives.nerf.layout import across_axes
from ngp_warp.primitives.nerf.traced import Shot
from ngp_warp.primitives.nerf.types import View
from ngp_warp.rays.cameras import Camera, Up, parse_camera, turntable, up_vector
from ngp_warp.rays.lenses import Lens

Size = tuple[int | None, int | None]
"""Width and height of a picture in pixels; None: from the other, or as the photos have it."""

_SNAP = math.cos(math.radians(15))
"""The cameras' mean upward direction counts as an axis if it is nearer to one than this."""
_FACING = 0.8
"""Photos whose mean backward direction is shorter than this stand all around."""
_FRONTS = {0: (0.0, 0.0, 1.0), 1: (0.0, 0.0, 1.0), 2: (0.0, -1.0, 0.0)}
"""By the axis that is up, where azimuth 0 looks from, as ``ngp_warp.rays.cameras`` has it."""


def sized(lens: Lens, size: Size) -> Lens:
    """Return a lens for pictures of another size.

    Where one side is given, the other follows. Where both are, pixels stay square: the height says
    how large things are, and the picture shows more or less at its sides.
    """
    width, height = size
    if width is None and height is None:
        return lens
    if height is None:
        assert width is not None
        return lens.scaled(width, max(round(width * lens.height / lens.width), 1))
    whole = lens.scaled(max(round(height * lens.width / lens.height), 1), height)
    if width is None:
        return whole
    return replace(whole, width=width, cx=whole.cx + (width - whole.width) / 2)


def pinhole_size(size: Size) -> dict[str, int]:
    """Return width and height of a picture that no photo gives a size: 800 where none is given."""
    side = next((n for n in size if n is not None), 800)
    return {"width": size[0] or side, "height": size[1] or side}


def find_view(views: Sequence[View], text: str, option: str = "--view") -> int:
    """Return the number of the view that a number or a name means.

    A name is that of the photo in the scene's folder, with or without its extension or folders, as
    long as only one view has it.

    Raises:
        ConfigError: none, or several.
    """
    if text.isdecimal():
        if int(text) < len(views):
            return int(text)
        raise ConfigError(f"{option} must be from 0 to {len(views) - 1}, got {text}")
    for shorten in (str, _stem, _last, lambda name: _stem(_last(name))):
        found = [i for i, view in enumerate(views) if shorten(view.name) == text]
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(
                f"{option} {text} could be {views[found[0]].name} or {views[found[1]].name}; "
                "give the whole name, or its number"
            )
    example = f", such as {views[0].name}" if views else ""
    raise ConfigError(f"{option} {text}: the scene has no view of this name{example}")


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _last(name: str) -> str:
    return PurePosixPath(name).name


def scene_up(views: Sequence[View]) -> np.ndarray:
    """Return what is up in a scene, float64 [3]: the mean of its cameras' upward directions.

    Within 15 degrees of an axis, up or down, it is that axis; without cameras z.
    """
    mean = np.mean([view.pose[:, 1] for view in views], axis=0) if views else np.zeros(3)
    length = float(np.linalg.norm(mean))
    if length < 1e-3:
        return np.array([0.0, 0.0, 1.0])
    mean = mean / length
    axis = int(np.argmax(np.abs(mean)))
    if abs(mean[axis]) < _SNAP:
        return mean
    return np.sign(mean[axis]) * np.eye(3)[axis]


def choose_up(up: Up | None, views: Sequence[View]) -> np.ndarray:
    """Return the axis that is named, or what is up in the scene.

    Raises:
        ConfigError: another name than x, y or z.
    """
    return scene_up(views) if up is None else np.array(up_vector(up))


def focus(views: Sequence[View]) -> np.ndarray:
    """Return the point that is nearest to the optical axes of all views, float64 [3], scene units.

    Where they are parallel, of those points the nearest to the cameras' middle.
    """
    positions = np.array([view.pose[:, 3] for view in views])
    axes = np.array([view.pose[:, 2] for view in views])
    across = across_axes(axes)
    middle = positions.mean(axis=0)
    right = np.einsum("nij,nj->i", across, positions - middle)
    return middle + np.linalg.lstsq(across.sum(axis=0), right, rcond=1e-3)[0]


def inner_cube(frame: Frame, aabb_scale: int) -> tuple[np.ndarray, float]:
    """Return the middle of the inner cube, float64 [3], and its side, in scene units."""
    return frame.to_scene(np.full((1, 3), 0.5))[0], 1 / (frame.scale * aabb_scale)


def shot_of(camera: Camera, latent: int | None = None) -> Shot:
    """Return the picture that a pinhole camera in scene units takes."""
    focal = 1 / camera.pixel_size
    lens = Lens(
        width=camera.width,
        height=camera.height,
        fx=focal,
        fy=focal,
        cx=camera.width / 2,
        cy=camera.height / 2,
    )
    return Shot(lens=lens, pose=camera.camera_to_world()[:3], latent=latent)


def orbit_camera(
    text: str, frame: Frame, aabb_scale: int, up: np.ndarray, *, width: int, height: int
) -> Camera:
    """Return the camera that ``orbit:AZ,EL,DIST`` describes, in scene units.

    It looks at the middle of the inner cube; the distance is in sides of that cube.

    Raises:
        ConfigError: another form, or values out of their range.
    """
    camera = parse_camera(text, up="z", width=width, height=height)
    middle, side = inner_cube(frame, aabb_scale)
    arm = np.subtract(camera.position, camera.look_at) * side
    axis = int(np.argmax(np.abs(up)))
    front = np.array(_FRONTS[axis])
    front = front - (front @ up) * up
    front = front / np.linalg.norm(front)
    # the camera was made where z is up and -y in front
    turn = np.stack([np.cross(up, front), -front, up], axis=1)
    position = middle + turn @ arm
    return replace(camera, position=triple(position), look_at=triple(middle), up=triple(up))


def photo_orbit(views: Sequence[View], up: np.ndarray, n_frames: int, lens: Lens) -> list[Camera]:
    """Return cameras on a circle about what the photos show, as high and as far as they are taken.

    Args:
        views: at least one.
        up: unit vector.
        n_frames: at least one.
        lens: gives the field of view and the size.

    Raises:
        ConfigError: a circle without a radius: all cameras stand above what they look at.
    """
    middle = focus(views)
    arms = np.array([view.pose[:, 3] for view in views]) - middle
    heights = arms @ up
    flat = arms - heights[:, None] * up
    radius = float(np.median(np.linalg.norm(flat, axis=1)))
    first = flat[np.argmax(np.linalg.norm(flat, axis=1))]
    length = float(np.linalg.norm(first))
    if not length > 1e-6 * float(np.linalg.norm(arms, axis=1).max()):
        raise ConfigError("the photos are taken from above what they show; give --camera orbit:...")
    position = middle + first / length * radius + float(np.median(heights)) * up
    camera = Camera(
        position=triple(position),
        look_at=triple(middle),
        up=triple(up),
        fov=vertical_fov(lens),
        width=lens.width,
        height=lens.height,
    )
    return turntable(camera, n_frames)


def photo_spiral(views: Sequence[View], up: np.ndarray, n_frames: int, lens: Lens) -> list[Camera]:
    """Return cameras on a spiral before what the photos show, two turns, that closes.

    As wide as the photos' places (nine tenths of them, as Mildenhall et al., "Local Light Field
    Fusion", SIGGRAPH 2019, have it). Where they stand all around, the spiral is about the first of
    them, a tenth of its distance wide.

    Args:
        views: at least one.
        up: unit vector.
        n_frames: at least one.
        lens: gives the field of view and the size.
    """
    poses = np.array([view.pose for view in views], np.float64)
    middle, position = focus(views), poses[:, :, 3].mean(axis=0)
    back = poses[:, :, 2].mean(axis=0)
    around = np.linalg.norm(back) < _FACING
    if around:
        position, back = poses[0, :, 3], poses[0, :, 2]
    back = back / np.linalg.norm(back)
    right = np.cross(up, back)
    right = right / np.linalg.norm(right)
    axes = np.stack([right, np.cross(back, right), back])
    distance = max(float((position - middle) @ back), 0.0)
    widths = np.percentile(np.abs((poses[:, :, 3] - position) @ axes.T), 90, axis=0)
    if around or distance == 0:
        distance = float(np.linalg.norm(position - middle)) or 1.0
        widths = np.full(3, 0.1 * distance)
    angles = np.arange(n_frames) * (4 * math.pi / n_frames)
    turn = np.stack([np.cos(angles), -np.sin(angles), -np.sin(angles / 2)], axis=1)
    target = triple(position - distance * back)
    return [
        Camera(
            position=triple(place),
            look_at=target,
            up=triple(up),
            fov=vertical_fov(lens),
            width=lens.width,
            height=lens.height,
        )
        for place in position + (turn * widths) @ axes
    ]


def vertical_fov(lens: Lens) -> float:
    """Return the vertical field of view of a lens in degrees, at most 120 (a fisheye has more)."""
    return min(2 * math.degrees(math.atan(0.5 * lens.height / lens.fy)), 120.0)


def picture_names(views: Sequence[View]) -> list[str]:
    """Return a file name for each view's picture: its own with folders joined by underscores."""
    names: dict[str, None] = {}
    for index, view in enumerate(views):
        name = _stem(view.name).replace("/", "_").lstrip("._") or f"{index:04d}"
        while f"{name}.png" in names:  # photos that differ in their extension alone
            name += "_"
        names[f"{name}.png"] = None
    return list(names)


def with_latent(shot: Shot, latent: int) -> Shot:
    """Return the same picture as it looks with another latent vector."""
    return replace(shot, latent=latent)


def triple(vector: np.ndarray) -> tuple[float, float, float]:
    """Return three numbers of an array [3]."""
    x, y, z = (float(value) for value in vector)
    return x, y, z
