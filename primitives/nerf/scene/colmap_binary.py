"""COLMAP's cameras.bin, images.bin and points3D.bin: little endian, without padding.

Nothing is believed: no count leads to memory that the file's own size does not warrant. rigs.bin
and frames.bin (COLMAP 4) are not needed: images.bin holds each image's own pose.
"""

import os
import struct
from pathlib import Path

import numpy as np

from ngp_warp.primitives.nerf.scene.checks import SceneError
from ngp_warp.primitives.nerf.scene.colmap_cameras import MODELS, Camera
from ngp_warp.primitives.nerf.scene.colmap_records import Image, Reconstruction
from ngp_warp.primitives.nerf.scene.files import is_file, read_bytes
from ngp_warp.primitives.nerf.scene.points import finite

_COUNT = struct.Struct("<Q")
_CAMERA = struct.Struct("<IiQQ")  # number, model, width, height
_IMAGE = struct.Struct("<I7dI")  # number, quaternion, translation, camera
_POINT = struct.Struct("<Q3d3Bd")  # number, position, colour, error
_POINT_2D, _TRACK = 24, 8  # bytes of an observation, of an element of a track
_MEND = "write or copy the model again"


def read_binary(folder: Path) -> Reconstruction:
    """Read a model; points3D.bin need not be there.

    Raises:
        DataError: a file is missing, or ends within a record; names the record and the byte.
    """
    model = Reconstruction()
    _read_cameras(_Cursor(folder / "cameras.bin"), model)
    _read_images(_Cursor(folder / "images.bin"), model)
    if is_file(folder / "points3D.bin"):
        model.points = _read_points(_Cursor(folder / "points3D.bin"))
    return model


class _Cursor:
    """A place in a file's bytes; moves only within them."""

    def __init__(self, path: Path):
        self.path = path
        self.data = read_bytes(path)
        self.at = 0
        self.record = "its head"

    @property
    def where(self) -> str:
        """The file and the record, for errors."""
        return f"{self.path}, {self.record}"

    def skip(self, n_bytes: int) -> int:
        """Move on; return where the place was.

        Raises:
            DataError: the file ends before.
        """
        start, end = self.at, self.at + n_bytes
        if end > len(self.data):
            raise SceneError(
                self.where,
                f"byte {start} begins {n_bytes} bytes and the file ends at {len(self.data)}: it is "
                "cut short or altered",
                _MEND,
            )
        self.at = end
        return start

    def take(self, layout: struct.Struct) -> tuple:
        """Return the next values."""
        return layout.unpack_from(self.data, self.skip(layout.size))

    def count(self, least: int) -> int:
        """Return a number of records of at least ``least`` bytes each, that fit in the file."""
        (count,) = self.take(_COUNT)
        if count * least > len(self.data) - self.at:
            raise SceneError(
                self.where,
                f"byte {self.at - _COUNT.size} promises {count} records and the file ends at "
                f"{len(self.data)}: it is cut short or altered",
                _MEND,
            )
        return count

    def text(self) -> str:
        """Return a text that ends with a zero byte."""
        end = self.data.find(b"\0", self.at)
        if end < 0:
            self.skip(len(self.data) - self.at + 1)
        start = self.skip(end - self.at + 1)
        return os.fsdecode(self.data[start:end])

    def finish(self) -> None:
        """Raise DataError unless this is the file's end."""
        if self.at != len(self.data):
            raise SceneError(
                str(self.path),
                f"its records end at byte {self.at} of {len(self.data)}: the count at its head is "
                "wrong",
                _MEND,
            )


def _read_cameras(cursor: _Cursor, model: Reconstruction) -> None:
    count = cursor.count(_CAMERA.size)
    for index in range(count):
        cursor.record = f"camera record {index} of {count}"
        number, kind, width, height = cursor.take(_CAMERA)
        if kind not in MODELS:
            raise SceneError(
                cursor.where,
                f"byte {cursor.at - 20} holds {kind}, which is no camera model",
                "use OPENCV or OPENCV_FISHEYE; otherwise the file is altered",
            )
        parameters = cursor.take(struct.Struct(f"<{len(MODELS[kind].parameters)}d"))
        camera = Camera(cursor.where, MODELS[kind].name, width, height, parameters)
        model.add_camera(number, camera)
    cursor.finish()


def _read_images(cursor: _Cursor, model: Reconstruction) -> None:
    count = cursor.count(_IMAGE.size + 1 + _COUNT.size)
    for index in range(count):
        cursor.record = f"image record {index} of {count}"
        _, *pose, camera = cursor.take(_IMAGE)
        name = cursor.text()
        cursor.skip(cursor.count(_POINT_2D) * _POINT_2D)
        values = np.array(pose)
        where = f"{cursor.where} ({name[:80]})"
        model.images.append(Image(where, name, values[:4], values[4:], camera))
    cursor.finish()


def _read_points(cursor: _Cursor) -> np.ndarray | None:
    count = cursor.count(_POINT.size + _COUNT.size)
    points = np.empty((count, 3))
    for index in range(count):
        cursor.record = f"point record {index} of {count}"
        _, *points[index], _, _, _, _ = cursor.take(_POINT)
        cursor.skip(cursor.count(_TRACK) * _TRACK)
    cursor.finish()
    return finite(points)
