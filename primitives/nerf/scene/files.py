"""Reading the small files of a scene: every failure is one line."""

import json
import os
from pathlib import Path
from typing import Any

from ngp_warp.errors import ResourceError
from ngp_warp.files import format_bytes
from ngp_warp.primitives.nerf.scene.checks import SceneError

_JSON_BYTES_MAX = 1 << 28  # a frame takes about a kilobyte


def is_file(path: Path) -> bool:
    """Return whether a file is there; False for every path that cannot be one."""
    return os.path.isfile(path)  # noqa: PTH113, Path.is_file raises on long names


def is_folder(path: Path) -> bool:
    """Return whether a folder is there; False for every path that cannot be one."""
    return os.path.isdir(path)  # noqa: PTH112


def list_folder(folder: Path) -> list[Path]:
    """Return what a folder holds, sorted by name.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise SceneError(str(folder), f"cannot be read: {error.strerror or error}") from error


def read_bytes(path: Path, max_bytes: int | None = None) -> bytes:
    """Return a file's content.

    Args:
        path: the file.
        max_bytes: no such file is larger.

    Raises:
        DataError: it is missing, no regular file, unreadable or too large.
        ResourceError: there is not enough memory.
    """
    where = str(path)
    if not is_file(path):
        what = "is a folder, not a file" if is_folder(path) else "is no regular file"
        raise SceneError(where, what if os.path.lexists(path) else "does not exist")
    try:
        size = path.stat().st_size
        if max_bytes is not None and size > max_bytes:
            raise SceneError(
                where, f"has {format_bytes(size)}, more than {format_bytes(max_bytes)}"
            )
        return path.read_bytes()
    except OSError as error:
        raise SceneError(where, f"cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise ResourceError(f"not enough memory to read {path}") from error


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        DataError: it cannot be read or is no JSON: says in which line.
    """
    where = str(path)
    data = read_bytes(path, _JSON_BYTES_MAX)
    mend = "write it again; it may have been cut short"
    try:
        return json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        what = f"is no JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        raise SceneError(where, what, mend) from error
    except UnicodeDecodeError as error:
        raise SceneError(where, f"is no text in UTF-8: byte {error.start}", mend) from error
    except ValueError as error:  # an integer of more than 4300 digits
        raise SceneError(where, "is no JSON: it holds a number that is too long", mend) from error
    except RecursionError as error:
        raise SceneError(where, "is nested too deeply", mend) from error
