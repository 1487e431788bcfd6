"""One reader a format, chosen by the file's extension."""

from collections.abc import Callable
from pathlib import Path

from ngp_warp.errors import DataError
from ngp_warp.primitives.sdf.readers.gltf import read_gltf
from ngp_warp.primitives.sdf.readers.obj import read_obj
from ngp_warp.primitives.sdf.readers.off import read_off
from ngp_warp.primitives.sdf.readers.ply import read_ply
from ngp_warp.primitives.sdf.readers.source import Soup, reading
from ngp_warp.primitives.sdf.readers.stl import read_stl

READERS: dict[str, Callable[[Path], Soup]] = {
    ".obj": read_obj,
    ".ply": read_ply,
    ".stl": read_stl,
    ".off": read_off,
    ".glb": read_gltf,
    ".gltf": read_gltf,
}


def read_soup(path: Path) -> Soup:
    """Read a mesh file's triangles as they stand there.

    Raises:
        DataError: the file is missing, a folder, empty, of no known extension, broken or cut
            short.
        ResourceError: there is not enough memory.
    """
    with reading(path):
        if path.is_dir():
            raise DataError("it is a folder, not a mesh file")
        if not path.exists():
            raise DataError("there is no such file")
        if not path.is_file():
            raise DataError("it is not a regular file")
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            known = ", ".join(READERS)
            raise DataError(f"its extension {path.suffix!r} is not one of {known}")
        if path.stat().st_size == 0:
            raise DataError("it is empty")
        return reader(path)
