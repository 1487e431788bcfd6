"""What structure from motion starts from: photos that can be read, or frames of a video."""

import math
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import ConfigError, DataError, NgpError
from ngp_warp.primitive import Progress, Report
from ngp_warp.primitives.image.readers import open_source
from ngp_warp.primitives.image.readers.source import reading
from ngp_warp.primitives.nerf.photo_files import decoders, unmuted

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".mts", ".3gp")
# What COLMAP reads; it takes the pixels as they are stored, whatever EXIF says of orientation.
_FORMATS = ("jpeg", "png", "tiff")
_FRAME_QUALITY = 95  # of JPEG: its loss is far below that of the video
_SHARPNESS_WIDTH = 640

# EXIF tags of the camera and of its lens's state.
_EXIF_CAMERA = (0x010F, 0x0110)
_EXIF_DETAILS = 0x8769
_EXIF_LENS = (0x920A, 0xA405, 0xA434)


@dataclass(frozen=True)
class Photo:
    """A photo that was decoded once."""

    name: str
    """Within its folder."""
    size: tuple[int, int]
    """Stored width and height."""
    orientation: int
    """EXIF orientation, 1 to 8."""
    sharpness: float
    """Variance of the Laplacian of grey values 0..255."""
    camera: tuple[Any, ...]
    """Equal for photos that one camera took with one focal length."""


def list_photos(folder: Path) -> list[Path]:
    """Return the photos in a folder, by name, numbers in names by value.

    Raises:
        DataError: no such folder, or no photos in it.
    """
    try:
        entries = [p for p in folder.iterdir() if not p.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot read the photos in {folder}: {error.strerror}") from None
    photos = [p for p in entries if p.suffix.lower() in PHOTO_SUFFIXES]
    if not photos:
        raise DataError(
            f"{folder} holds no photos ({', '.join(PHOTO_SUFFIXES)}); give the folder that they "
            "are in, or a video file"
        )
    return sorted(photos, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts ``a2`` before ``a10``."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)]


def look_at(
    paths: Sequence[Path], threads: int | None, report: Report
) -> tuple[list[Photo], dict[str, str]]:
    """Decode every photo once: what is broken is found before an hour of work.

    Returns:
        The photos that can be read, in order, and the others' names with the reason.
    """
    photos, unreadable, say = [], {}, unmuted(report)
    pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)
    try:
        with decoders():
            futures = [pool.submit(_look, path) for path in paths]
            for i, (path, future) in enumerate(zip(paths, futures, strict=True)):
                try:
                    photos.append(future.result())
                except NgpError as error:
                    unreadable[path.name] = str(error)
                say(Progress(stage="load", step=i + 1, total=len(paths)))
    finally:
        pool.shutdown(cancel_futures=True)
    return photos, unreadable


def _look(path: Path) -> Photo:
    source = open_source(path)
    if source.format not in _FORMATS or source.dtype == "float32":
        raise DataError(f"{path} is {source.format} of {source.dtype}: convert it to JPEG or PNG")
    pixels = np.empty((source.height, source.width, source.channels), source.dtype)
    with reading(path):
        source.fill(pixels)
    size = (source.width, source.height)
    return Photo(
        path.name, size, source.orientation, sharpness(pixels), (size, *_exif_camera(path))
    )


def _exif_camera(path: Path) -> tuple[Any, ...]:
    """Return make, model, focal length and lens as EXIF has them; nothing where it is broken."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            exif = picture.getexif()
            details = exif.get_ifd(_EXIF_DETAILS)
            values = [exif.get(tag) for tag in _EXIF_CAMERA]
            return tuple(str(v) for v in values + [details.get(tag) for tag in _EXIF_LENS])
    except Exception:  # no more is known of the camera; the pixels were decoded
        return ()


def sharpness(pixels: np.ndarray) -> float:
    """Return the variance of the Laplacian of the grey values (Pech-Pacheco et al. 2000).

    Args:
        pixels: [h, w, c], uint8 or uint16; scaled to 0..255.
    """
    n_colors = pixels.shape[2] - (pixels.shape[2] in (2, 4))
    weights = np.array([0.299, 0.587, 0.114] if n_colors == 3 else [1.0], np.float32)
    weights *= np.float32(255.0 / np.iinfo(pixels.dtype).max)
    grey = pixels[..., :n_colors].astype(np.float32) @ weights
    grey = np.pad(grey, 1, mode="reflect" if min(grey.shape) > 1 else "edge")
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    laplacian -= 4.0 * grey[1:-1, 1:-1]
    return float(laplacian.var(dtype=np.float64))


def choose(photos: Sequence[Photo], most: int | None) -> list[Photo]:
    """Return at most ``most`` photos: the sharpest of each of that many runs of neighbours."""
    if most is None or most >= len(photos):
        return list(photos)
    bounds = [i * len(photos) // most for i in range(most + 1)]
    return [max(photos[a:b], key=lambda photo: photo.sharpness) for a, b in pairwise(bounds)]


def extract_frames(video: Path, folder: Path, fps: float, report: Report) -> list[Path]:
    """Write the sharpest frame of every interval of 1 / fps seconds as a JPEG.

    Args:
        video: any file that FFmpeg reads.
        folder: where to; ``frame_00000.jpg`` and so on.
        fps: frames to keep, a second.
        report: told of progress.

    Returns:
        The files.

    Raises:
        ConfigError: PyAV is not installed.
        DataError: not a video, or broken.
    """
    try:
        import av
    except ImportError:
        raise ConfigError(
            "frames of a video need PyAV, which is not installed: pip install 'ngp-warp[video]'"
        ) from None
    written: list[Path] = []
    with reading(video), av.open(str(video)) as container:
        if not container.streams.video:
            raise DataError(f"{video} has no pictures: it is not a video")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        seconds = float(container.duration or 0) / 1e6
        for image in _sharpest(container.decode(stream), fps):
            path = folder / f"frame_{len(written):05d}.jpg"
            image.save(path, quality=_FRAME_QUALITY, subsampling=0)
            written.append(path)
            total = max(math.ceil(seconds * fps), len(written))
            report(Progress(stage="load", step=len(written), total=total))
    if not written:
        raise DataError(f"{video} has no frames")
    return written


def _sharpest(frames: Iterator[Any], fps: float) -> Iterator[Any]:
    """Yield the sharpest frame of each interval, upright, as a Pillow image."""
    interval, best, best_sharpness, start = 0, None, -1.0, None
    for frame in frames:
        time = float(frame.time or 0.0)
        start = time if start is None else start
        here = max(int((time - start) * fps), interval)
        if here > interval and best is not None:
            yield _upright(best)
            best, best_sharpness = None, -1.0
        interval = here
        width = min(_SHARPNESS_WIDTH, frame.width)
        height = max(1, frame.height * width // frame.width)
        grey = frame.reformat(width=width, height=height, format="gray").to_ndarray()
        value = sharpness(grey[..., None])
        if value > best_sharpness:
            best, best_sharpness = frame, value
    if best is not None:
        yield _upright(best)


def _upright(frame: Any) -> Any:
    """Return the frame turned as its display matrix says."""
    image = frame.to_image()
    turn = round(getattr(frame, "rotation", 0) / 90) % 4
    return image.rotate(90 * turn, expand=True) if turn else image
