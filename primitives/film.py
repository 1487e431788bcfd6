"""Films of any pictures, to an mp4 file."""

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from ngp_warp.errors import ConfigError, DataError, ResourceError, ShapeError
from ngp_warp.files import atomic_path
from ngp_warp.rays.camera_paths import load_camera_path
from ngp_warp.rays.cameras import Camera, turntable

SUFFIXES = (".mp4", ".mov", ".mkv")
TURN_FRAMES, TURN_FPS = 120, 24.0
"""Of a turntable, where nothing else is asked for."""

_CODEC = "libx264"
# Constant rate factor: visually lossless for smooth renderings; 18 doubles the size.
_QUALITY = "20"
_MAX_SIDE = 8192
_BT709 = 1
"""Of primaries, transfer and matrix (ITU-T H.273)."""


def check_video(path: str | Path, width: int, height: int) -> None:
    """Raise unless a film of this size can be written under this name: ask before the work.

    Raises:
        ConfigError: another extension, or pictures too large for the codec.
        ResourceError: the package that writes films is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"cannot write {path}: a film ends in {', '.join(SUFFIXES)}")
    if not (2 <= width <= _MAX_SIDE and 2 <= height <= _MAX_SIDE):
        raise ConfigError(
            f"cannot write {path}: films have 2 to {_MAX_SIDE} pixels a side, not {width}x{height}"
        )
    _require_av()


def check_fps(fps: float) -> None:
    """Raise ConfigError unless a film may have so many pictures a second."""
    if not (0 < fps <= 1000 and math.isfinite(fps)):
        raise ConfigError(f"fps must be above 0 and at most 1000, got {fps:g}")


def film_cameras(
    at: Camera, path: str | Path | None, frames: int | None, fps: float | None
) -> tuple[list[Camera], float]:
    """Return the cameras of a film and its pictures a second.

    Args:
        at: where a turntable begins; of a path, its size alone counts.
        path: JSON as ``camera_paths.load_camera_path`` reads it; None: a turntable.
        frames: of a turntable; None: ``TURN_FRAMES``.
        fps: of a turntable; None: ``TURN_FPS``.

    Raises:
        ConfigError: a number out of its range.
        DataError: the path cannot be read.
    """
    if path is None:
        rate = TURN_FPS if fps is None else fps
        check_fps(rate)
        return turntable(at, TURN_FRAMES if frames is None else frames), rate
    film = load_camera_path(path, width=at.width, height=at.height)
    return list(film.cameras), film.fps


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float = 24.0) -> Path:
    """Write pictures as an H.264 film (4:2:0, BT.709, as players expect of untagged films too).

    Args:
        path: .mp4, .mov or .mkv; replaced if it is there.
        frames: uint8 [h, w, 3], all of one size. H.264 stores even sizes: an odd picture's last row
            or column is repeated.
        fps: pictures a second.

    Raises:
        ConfigError: another extension, a size that cannot be, or a rate that is not above 0.
        ShapeError: frames that are no pictures, or differ in size.
        DataError: no frames.
        ResourceError: ``av`` is missing (pip install "ngp-warp[video]"), or the file cannot be
            written.
    """
    path = Path(path)
    check_fps(fps)
    av = _require_av()
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise DataError(f"cannot write {path}: there are no pictures")
    first = _check_frame(first, None)
    check_video(path, first.shape[1], first.shape[0])
    with atomic_path(path) as temporary:
        container = path.suffix.lower()[1:].replace("mkv", "matroska")
        # a file of ours: PyAV does not close its own where the end cannot be written
        with temporary.open("wb") as file, av.open(file, "w", format=container) as film:
            stream = film.add_stream(_CODEC, rate=Fraction(fps).limit_denominator(1001))
            stream.height, stream.width = (n + n % 2 for n in first.shape[:2])
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": _QUALITY, "preset": "medium"}
            context = stream.codec_context
            context.color_primaries = context.color_trc = context.colorspace = _BT709
            for frame in _all_frames(first, frames):
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                picture = picture.reformat(format="yuv420p", dst_colorspace=_BT709)
                film.mux(stream.encode(picture))
            film.mux(stream.encode(None))
    return path


def _all_frames(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield all frames in even sizes."""
    frame = first
    while True:
        odd = [(0, n % 2) for n in frame.shape[:2]]
        yield np.ascontiguousarray(np.pad(frame, [*odd, (0, 0)], mode="edge"))
        following = next(rest, None)
        if following is None:
            return
        frame = _check_frame(following, first.shape)


def _check_frame(frame: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    frame = np.asarray(frame)
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ShapeError(
            f"a film's pictures must be uint8 [h, w, 3], got {frame.dtype} {list(frame.shape)}"
        )
    if shape is not None and frame.shape != shape:
        raise ShapeError(
            f"a film's pictures must have one size, got {list(shape[:2])} and "
            f"{list(frame.shape[:2])}"
        )
    return frame


def _require_av():
    try:
        import av
    except ImportError as error:
        raise ResourceError(
            'films need the package av, which is not installed; pip install "ngp-warp[video]"'
        ) from error
    return av
