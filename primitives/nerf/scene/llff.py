"""LLFF's poses_bounds.npy: [n, 17], a pose [3, 5] and the depths between which there is something.

The pose's columns are down, right and back of the camera, its position, and height, width and focal
length in pixels. The photos are those of a folder, sorted by name.
"""

import io
from functools import partial
from pathlib import Path

import numpy as np

from ngp_warp.primitives.image.readers.source import reading
from ngp_warp.primitives.nerf.scene.assemble import Assembly, Record, Size
from ngp_warp.primitives.nerf.scene.checks import Checks, SceneError
from ngp_warp.primitives.nerf.scene.files import is_file, is_folder, list_folder, read_bytes
from ngp_warp.primitives.nerf.scene.photo import SIZE_MAX, SUFFIXES, make_lens, photo_sizes
from ngp_warp.primitives.nerf.scene.values import LARGEST
from ngp_warp.primitives.nerf.types import Scene
from ngp_warp.rays.lenses import Lens

NEAR = 0.9
"""Of the least depth: the file's is one that a tenth of a percent of the points lie before
(Mildenhall et al. 2019; the original NeRF takes the same share)."""
_FILE = "poses_bounds.npy"
_COLUMNS = 17
_PHOTO_FOLDERS = ("images", "images_2", "images_4", "images_8")


def find(path: Path) -> Path | None:
    """Return the poses_bounds.npy of a folder, or the file itself; None if there is none."""
    if not is_folder(path):
        return path if path.name == _FILE else None
    return path / _FILE if is_file(path / _FILE) else None


def read(path: Path, checks: Checks) -> Scene:
    """Read the scene of a folder.

    Raises:
        DataError: the first thing that is wrong, unless the checks collect.
    """
    file = find(path)
    if file is None:
        raise SceneError(str(path), f"no {_FILE} is there", "give the folder that holds it")
    table = _read_table(file)
    photos = _choose_photos(file, table)
    assembly = Assembly(str(path), checks)
    for index, (row, photo) in enumerate(zip(table, photos, strict=True)):
        with checks.part():
            assembly.add(_record(file, index, row, photo))
    near = far = None
    with checks.part():
        near, far = _bounds(file, table[:, 15:])
    return Scene(path=path, format="llff", views=assembly.finish(), near=near, far=far)


def _read_table(file: Path) -> np.ndarray:
    """Return the file's array, float64 [n, 17]."""
    where, mend = str(file), "write it again"
    data = read_bytes(file)
    stream = io.BytesIO(data)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with reading(file):  # numpy's parser of headers raises anything
        shape, fortran, dtype = readers[np.lib.format.read_magic(stream)](stream)
    if dtype.kind != "f" or len(shape) != 2 or shape[1] != _COLUMNS or shape[0] < 1:
        raise SceneError(
            where, f"must hold numbers [n, {_COLUMNS}], got {dtype} {list(shape)}", mend
        )
    needed = stream.tell() + shape[0] * shape[1] * dtype.itemsize
    if len(data) != needed:
        what = f"must have {needed} bytes by its header and has {len(data)}: it is cut short"
        raise SceneError(where, what, mend)
    table = np.frombuffer(data, dtype, offset=stream.tell())
    return table.reshape(shape, order="F" if fortran else "C").astype(np.float64)


def _choose_photos(file: Path, table: np.ndarray) -> list[Path]:
    """Return the photos of the first folder that has as many as there are poses.

    One whose first photo has the stated size comes first.
    """
    counts, fitting = [], []
    for name in _PHOTO_FOLDERS:
        folder = file.parent / name
        if is_folder(folder):
            photos = [p for p in list_folder(folder) if p.suffix.lower() in SUFFIXES]
            counts.append(f"{name} {len(photos)}")
            if len(photos) == len(table):
                fitting.append(photos)
    if not fitting:
        there = f"the folders hold: {', '.join(counts)}" if counts else "there is no folder images"
        raise SceneError(
            str(file),
            f"it has {len(table)} poses, and {there}",
            "the poses are those of the photos sorted by name: as many photos as poses",
        )
    height, width = table[0, 4], table[0, 9]
    return next((p for p in fitting if (width, height) in photo_sizes(p[0])), fitting[0])


def _record(file: Path, index: int, row: np.ndarray, photo: Path) -> Record:
    where = f"{file}, row {index} ({photo.name})"
    pose = row[:15].reshape(3, 5)
    return Record(
        where=where,
        name=photo.relative_to(file.parent).as_posix(),
        image=photo,
        pose=np.stack([pose[:, 1], -pose[:, 0], pose[:, 2], pose[:, 3]], axis=1),
        lens=partial(_lens, pose[:, 4], where),
    )


def _lens(hwf: np.ndarray, where: str, size: Size) -> Lens:
    """Return the lens of height, width and focal length; the principal point is in the middle."""
    height, width, focal = hwf.tolist()
    for name, value in (("height", height), ("width", width)):
        if not (1 <= value <= SIZE_MAX and value == int(value)):
            raise SceneError(
                where, f"the {name} must be a whole number from 1 to {SIZE_MAX}, got {value:g}", ""
            )
    return make_lens(
        where,
        width=int(width),
        height=int(height),
        fx=focal,
        fy=focal,
        cx=width / 2,
        cy=height / 2,
    )


def _bounds(file: Path, bounds: np.ndarray) -> tuple[float, float]:
    """Return the distances between which there is something, of all views."""
    wrong = ~((bounds[:, 0] > 0) & (bounds[:, 1] > bounds[:, 0]) & (bounds[:, 1] <= LARGEST))
    if wrong.any():
        raise SceneError(
            f"{file}, row {int(wrong.argmax())}",
            "its last two columns must be a near and a far depth, 0 < near < far",
            "write it again",
        )
    return NEAR * float(bounds[:, 0].min()), float(bounds[:, 1].max())
