"""Writing files so that what exists is always whole: written beside, then renamed."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ngp_warp.errors import ConfigError, ResourceError

_ZEROS_AT_A_TIME = 1 << 24


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends well.

    The block must leave a file there. It is flushed to the disk before it is renamed, so that
    after a crash ``path`` holds either what it held before or all of what was written. When the
    block raises, the temporary file is removed and ``path`` is as it was.

    Args:
        path: the file to make or to replace; its folder must exist.

    Yields:
        ``.<name>.tmp-<pid>`` in the folder of ``path``.

    Raises:
        ResourceError: the folder is missing or cannot be written, ``path`` is a folder, or the
            disk is full; every OSError that the block raises counts as one of these.
    """
    path = Path(path)
    if not os.path.isdir(path.parent):  # noqa: PTH112, Path.is_dir raises on long names
        raise ResourceError(f"cannot write {path}: the folder {path.parent} does not exist")
    if os.path.isdir(path):  # noqa: PTH112
        raise ResourceError(f"cannot write {path}: it is a folder")
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        # A name too long or a folder taken away must not hide the first error.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, known: str) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that takes its place when the block ends well.

    Args:
        path: the folder to make or to replace; the one above must exist.
        known: a file whose presence says that ``path``, if it is there, may be replaced.

    Yields:
        ``.<name>.tmp-<pid>``, empty; removed, with all that is in it, when the block raises.

    Raises:
        ResourceError: ``path`` holds something else; or as ``atomic_path``.
    """
    path = Path(path)
    if not os.path.isdir(path.parent):  # noqa: PTH112
        raise ResourceError(f"cannot write {path}: the folder {path.parent} does not exist")
    if os.path.lexists(path) and not _replaceable(path, known):
        raise ResourceError(f"cannot write {path}: it holds something else; name another folder")
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    old = path.with_name(f".{path.name}.old-{os.getpid()}")
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.replace(old)
        temporary.replace(path)
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _replaceable(path: Path, known: str) -> bool:
    if path.is_symlink() or not path.is_dir():
        return False
    return (path / known).is_file() or not any(path.iterdir())


def check_output(path: str | Path, suffixes: Sequence[str]) -> Path:
    """Return the path of a file to be written, or raise: ask before the work.

    Raises:
        ConfigError: another extension.
        ResourceError: the folder does not exist.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise ConfigError(
            f"cannot write {path}: the name must end in {' or '.join(suffixes)}, "
            f"not in {path.suffix!r}"
        )
    if not os.path.isdir(path.parent):  # noqa: PTH112, Path.is_dir raises on long names
        raise ResourceError(f"cannot write {path}: the folder {path.parent} does not exist")
    return path


def check_free_space(folder: Path, n_bytes: int, purpose: str, advice: str) -> None:
    """Raise ResourceError unless the disk of ``folder`` has ``n_bytes`` to spare.

    Args:
        folder: an existing folder.
        n_bytes: what is to be written.
        purpose: the beginning of the message: what is to be written.
        advice: its end: what to do.

    Raises:
        ResourceError: says how much is needed and how much is free.
    """
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise ResourceError(
            f"{purpose} needs {format_bytes(n_bytes)} in {folder}, which has "
            f"{format_bytes(free)} free; {advice}"
        )


def reserve(file: BinaryIO, n_bytes: int) -> None:
    """Give ``file`` blocks on the disk up to ``n_bytes``.

    A write into a memory map of a file with holes kills the process when the disk is full; a
    write into reserved blocks cannot fail.

    Raises:
        OSError: the disk is full.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, n_bytes)
        return
    position = file.seek(0, os.SEEK_END)
    zeros = bytes(_ZEROS_AT_A_TIME)
    while position < n_bytes:
        position += file.write(zeros[: n_bytes - position])
    file.flush()


def format_bytes(n_bytes: int) -> str:
    """Return a size for people: ``format_bytes(3_500_000_000)`` is ``"3.5 GB"``."""
    size = float(n_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
