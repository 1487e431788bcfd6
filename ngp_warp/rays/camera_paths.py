"""Camera paths from JSON: key frames joined by splines, or nerfstudio's list of cameras.

Key frames::

    {"fps": 24, "seconds": 4, "closed": false, "keyframes": [
        {"position": [0.5, 0.6, 2.4], "look_at": [0.5, 0.5, 0.5], "up": [0, 1, 0], "fov": 35},
        ...]}

``look_at``, ``up`` and ``fov`` may be left out, as may all but the key frames of the object. Key
frames may have a ``camera_to_world`` (as below) instead of position, look_at and up; then rotations
turn evenly from one to the next.
Nerfstudio's files have a ``camera_path`` of ``camera_to_world`` (16 numbers, row by row, OpenGL's
axes) and ``fov``, one for every picture.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import ConfigError, DataError
from ngp_warp.rays.cameras import CENTRE, DEFAULT_FOV, Camera

DEFAULT_FPS, DEFAULT_SECONDS = 24.0, 5.0

_MAX_FRAMES = 100_000


@dataclass(frozen=True)
class CameraPath:
    """The cameras of a film."""

    cameras: tuple[Camera, ...]
    fps: float
    """Pictures a second."""


def load_camera_path(
    path: str | Path,
    *,
    width: int = 800,
    height: int = 800,
    look_at: tuple[float, float, float] = CENTRE,
) -> CameraPath:
    """Read a camera path.

    Args:
        path: JSON, in one of the forms that this module's head shows.
        width: of the pictures, in pixels.
        height: of the pictures, in pixels.
        look_at: of key frames that do not say.

    Raises:
        DataError: the file cannot be read, or holds something else; says where.
    """
    path = Path(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} must hold an object with keyframes or camera_path")
    try:
        if "camera_path" in values:
            return _nerfstudio(values, width, height)
        return _key_frames(values, width, height, look_at)
    except (ConfigError, DataError) as error:
        raise DataError(f"{path}: {error}") from error


def interpolate(keys: list[Camera], n_frames: int, *, closed: bool = False) -> list[Camera]:
    """Return cameras on a Catmull-Rom spline through key frames, equally spaced in time.

    Position, look_at, up and fov are splines that pass through every key frame. An open path goes
    from the first to the last key frame, both included; a closed one returns to the first and
    leaves it out at its end, so that the film repeats without a jump.

    Args:
        keys: at least one.
        n_frames: at least one.
        closed: go on from the last to the first.

    Raises:
        ConfigError: a camera of the spline that cannot be, such as one at the point it looks at.
    """
    values = np.array([[*k.position, *k.look_at, *_unit(k.up), k.fov] for k in keys], np.float64)
    if len(keys) == 1:
        return [keys[0]] * n_frames
    frames = _spline(values, *_times(len(keys), n_frames, closed), closed)
    width, height = keys[0].width, keys[0].height
    return [_camera(v[:3], v[3:6], v[6:9], v[9], width, height) for v in frames]


def interpolate_poses(poses: np.ndarray, n_frames: int, *, closed: bool = False) -> np.ndarray:
    """Return poses between key frames: places on a Catmull-Rom spline, rotations evenly turned.

    Times are those of ``interpolate``. A rotation goes to the next about one axis by the shorter
    way.

    Args:
        poses: [k, 3, 4] or [k, 4, 4], camera to world; at least one.
        n_frames: at least one.
        closed: go on from the last to the first.

    Returns:
        float64 [n_frames, 3, 4].
    """
    from scipy.spatial.transform import Rotation

    keys = np.asarray(poses, np.float64)[:, :3]
    if len(keys) == 1:
        return keys.repeat(n_frames, axis=0)
    span, share = _times(len(keys), n_frames, closed)
    turns = Rotation.from_matrix(keys[:, :, :3])
    steps = (turns.inv() * turns[(np.arange(len(keys)) + 1) % len(keys)]).as_rotvec()
    turned = turns[span] * Rotation.from_rotvec(steps[span] * share[:, None])
    places = _spline(keys[:, :, 3], span, share, closed)
    return np.concatenate([turned.as_matrix(), places[:, :, None]], axis=2)


def camera_at(pose: np.ndarray, *, fov: float, width: int, height: int) -> Camera:
    """Return the camera of a pose, [3, 4] or [4, 4], camera to world.

    Raises:
        ConfigError: values that are not finite, or a rotation that is none.
    """
    place, back, up = (np.asarray(pose, np.float64)[:3, column] for column in (3, 2, 1))
    return _camera(place, place - back, up, fov, width, height)


def _times(n_keys: int, n_frames: int, closed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the span of each frame, and its share of it."""
    n_spans = n_keys if closed else n_keys - 1
    if closed:
        at = np.arange(n_frames) * (n_spans / n_frames)
    else:
        at = np.linspace(0, n_spans, n_frames) if n_frames > 1 else np.zeros(1)
    span = np.minimum(at.astype(int), n_spans - 1)
    return span, at - span


def _spline(values: np.ndarray, span: np.ndarray, share: np.ndarray, closed: bool) -> np.ndarray:
    """Return the Catmull-Rom spline through values [k, d], [n_frames, d]."""
    if closed:
        points = np.concatenate([values[-1:], values, values[:2]])
    else:
        # the end tangents are those of the first and the last chord
        ends = 2 * values[:1] - values[1:2], 2 * values[-1:] - values[-2:-1]
        points = np.concatenate([ends[0], values, ends[1]])
    return _catmull_rom(points, span, share[:, None])


def _catmull_rom(points: np.ndarray, span: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return the spline at share u of each span, which runs from points[span + 1] to the next."""
    p0, p1, p2, p3 = (points[span + i] for i in range(4))
    return 0.5 * (
        2 * p1
        + (p2 - p0) * u
        + (2 * p0 - 5 * p1 + 4 * p2 - p3) * u**2
        + (3 * (p1 - p2) + p3 - p0) * u**3
    )


def _key_frames(
    values: dict[str, Any], width: int, height: int, middle: tuple[float, float, float]
) -> CameraPath:
    frames = values.get("keyframes")
    if not isinstance(frames, list) or not frames:
        raise DataError("it must have a list of keyframes (or nerfstudio's camera_path)")
    fps = _positive(values, "fps", DEFAULT_FPS)
    n_frames = _frames(fps * _positive(values, "seconds", DEFAULT_SECONDS))
    closed = bool(values.get("closed", False))
    kinds = {isinstance(frame, dict) and "camera_to_world" in frame for frame in frames}
    if kinds == {True}:
        return CameraPath(_turned(frames, n_frames, closed, width, height), fps)
    keys = []
    for index, frame in enumerate(frames):
        where = f"keyframes[{index}]"
        if not isinstance(frame, dict) or "position" not in frame:
            wanted = "a camera_to_world, as others have" if True in kinds else "a position"
            raise DataError(f"{where} must be an object with {wanted}")
        vectors = [
            _numbers(frame.get(name, default), 3, f"{where}.{name}")
            for name, default in (("position", None), ("look_at", middle), ("up", (0, 1, 0)))
        ]
        fov = _numbers([frame.get("fov", DEFAULT_FOV)], 1, f"{where}.fov")[0]
        position, look_at, up = vectors
        keys.append(_camera(position, look_at, up, float(fov), width, height))
    return CameraPath(tuple(interpolate(keys, n_frames, closed=closed)), fps)


def _turned(
    frames: list[dict[str, Any]], n_frames: int, closed: bool, width: int, height: int
) -> tuple[Camera, ...]:
    """Return the cameras between key frames that are given as matrices."""
    poses, fovs = [], []
    for index, frame in enumerate(frames):
        where = f"keyframes[{index}]"
        matrix = _numbers(frame["camera_to_world"], 16, f"{where}.camera_to_world").reshape(4, 4)
        turn = matrix[:3, :3] / np.cbrt(max(np.linalg.det(matrix[:3, :3]), 1e-30))
        if np.abs(turn @ turn.T - np.eye(3)).max() > 1e-3:
            raise DataError(f"{where}.camera_to_world must hold a rotation, scaled at most")
        poses.append(np.column_stack([turn, matrix[:3, 3]]))
        fovs.append(_numbers([frame.get("fov", DEFAULT_FOV)], 1, f"{where}.fov"))
    between = interpolate_poses(np.array(poses), n_frames, closed=closed)
    angles = np.array(fovs).repeat(n_frames, axis=0)
    if len(fovs) > 1:
        angles = _spline(np.array(fovs), *_times(len(fovs), n_frames, closed), closed)
    return tuple(
        camera_at(pose, fov=float(fov), width=width, height=height)
        for pose, fov in zip(between, angles[:n_frames, 0], strict=True)
    )


def _nerfstudio(values: dict[str, Any], width: int, height: int) -> CameraPath:
    frames = values["camera_path"]
    if not isinstance(frames, list) or not frames:
        raise DataError("camera_path must be a list of cameras")
    cameras = []
    for index, frame in enumerate(frames):
        where = f"camera_path[{index}]"
        if not isinstance(frame, dict):
            raise DataError(f"{where} must be an object with a camera_to_world")
        matrix = _numbers(frame.get("camera_to_world"), 16, f"{where}.camera_to_world")
        matrix = matrix.reshape(4, 4)
        fov = _numbers([frame.get("fov", DEFAULT_FOV)], 1, f"{where}.fov")[0]
        cameras.append(camera_at(matrix, fov=float(fov), width=width, height=height))
    _frames(len(cameras))
    return CameraPath(tuple(cameras), _positive(values, "fps", DEFAULT_FPS))


def _camera(
    position: np.ndarray,
    look_at: np.ndarray,
    up: np.ndarray,
    fov: float,
    width: int,
    height: int,
) -> Camera:
    place, target, above = (
        (float(v[0]), float(v[1]), float(v[2])) for v in (position, look_at, up)
    )
    return Camera(
        position=place, look_at=target, up=above, fov=float(fov), width=width, height=height
    )


def _numbers(values: Any, n: int, where: str) -> np.ndarray:
    try:
        array = np.asarray(values, np.float64).ravel()
    except (TypeError, ValueError):
        array = np.empty(0)
    if len(array) != n or not np.all(np.isfinite(array)):
        raise DataError(f"{where} must be {n} finite numbers, got {values!r}")
    return array


def _positive(values: dict[str, Any], name: str, default: float) -> float:
    value = float(_numbers([values.get(name, default)], 1, name)[0])
    if value <= 0:
        raise DataError(f"{name} must be above 0, got {value:g}")
    return value


def _frames(n: float) -> int:
    if n > _MAX_FRAMES:
        raise DataError(f"it has {n:.0f} pictures; at most {_MAX_FRAMES} are made")
    return max(round(n), 1)


def _unit(vector: tuple[float, float, float]) -> np.ndarray:
    return np.asarray(vector) / np.linalg.norm(vector)
