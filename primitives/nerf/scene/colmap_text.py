"""COLMAP's cameras.txt, images.txt and points3D.txt.

The comment "# Number of ...: N" at a file's head tells whether it was cut short.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ngp_warp.primitives.nerf.scene.checks import SceneError
from ngp_warp.primitives.nerf.scene.colmap_cameras import Camera
from ngp_warp.primitives.nerf.scene.colmap_records import Image, Reconstruction
from ngp_warp.primitives.nerf.scene.files import is_file, read_bytes
from ngp_warp.primitives.nerf.scene.points import finite

_MEND = "write the model again"


def read_text(folder: Path) -> Reconstruction:
    """Read a model; points3D.txt need not be there.

    Raises:
        DataError: a file is missing, cut short, or has a line that cannot be read.
    """
    model = Reconstruction()
    _read_cameras(folder / "cameras.txt", model)
    _read_images(folder / "images.txt", model)
    if is_file(folder / "points3D.txt"):
        model.points = _read_points(folder / "points3D.txt")
    return model


class _Lines:
    """The lines of a file that are no comments, with their numbers."""

    def __init__(self, path: Path):
        self.path = path
        # Bytes that are no UTF-8 may stand in the names of photos.
        text = read_bytes(path).decode("utf-8", "surrogateescape")
        self._lines = text.split("\n")
        self._next = 0

    def __iter__(self) -> Iterator[tuple[int, str]]:
        while self._next < len(self._lines):
            number, line = self._next + 1, self._lines[self._next].strip()
            self._next += 1
            if line and not line.startswith("#"):
                yield number, line

    def skip(self) -> None:
        """Pass over the next line, whatever it holds."""
        self._next += 1

    def check_count(self, what: str, read: int) -> None:
        """Raise DataError where the head of the file states another number of records."""
        head = "\n".join(self._lines[:8])
        stated = re.search(rf"^#\s*Number of {what}: (\d{{1,18}})\b", head, flags=re.MULTILINE)
        if stated is not None and int(stated[1]) != read:
            raise SceneError(
                str(self.path),
                f"its head states {stated[1]} {what} and it holds {read}: it was cut short",
                _MEND,
            )


def _read_cameras(path: Path, model: Reconstruction) -> None:
    lines = _Lines(path)
    for number, line in lines:
        where = f"{path}, line {number}"
        try:
            camera, name, width, height, *parameters = line.split()
            values = tuple(float(p) for p in parameters)
            model.add_camera(int(camera), Camera(where, name, int(width), int(height), values))
        except ValueError as error:
            raise SceneError(
                where, "it is not CAMERA_ID MODEL WIDTH HEIGHT PARAMS...", _MEND
            ) from error
    lines.check_count("cameras", len(model.cameras))


def _read_images(path: Path, model: Reconstruction) -> None:
    lines = _Lines(path)
    for number, line in lines:
        where = f"{path}, line {number}"
        try:
            _, qw, qx, qy, qz, tx, ty, tz, camera, name = line.split(maxsplit=9)
            quaternion = np.array([float(v) for v in (qw, qx, qy, qz)])
            translation = np.array([float(v) for v in (tx, ty, tz)])
            named = f"{where} ({name[:80]})"
            model.images.append(Image(named, name, quaternion, translation, int(camera)))
        except ValueError as error:
            what = "it is not IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"
            raise SceneError(where, what, _MEND) from error
        lines.skip()  # its 2D points: an empty line where it has none
    lines.check_count("images", len(model.images))


def _read_points(path: Path) -> np.ndarray | None:
    lines = _Lines(path)
    points = []
    for number, line in lines:
        try:
            _, x, y, z, *_ = line.split(maxsplit=4)
            points.append((float(x), float(y), float(z)))
        except ValueError as error:
            where = f"{path}, line {number}"
            raise SceneError(where, "it is not POINT3D_ID X Y Z ...", _MEND) from error
    lines.check_count("points", len(points))
    return finite(np.array(points, np.float64).reshape(-1, 3))
