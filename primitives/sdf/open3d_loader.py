"""The one place that imports Open3D: from wheels alone, when it is needed, without its chatter."""

import contextlib
import ctypes
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from ngp_warp.errors import ResourceError

_LIBUSB = "libusb-1.0.so.0"


def load_open3d() -> Any:
    """Return the module ``open3d``, imported at the first call (about a second).

    Raises:
        ResourceError: it is not installed, or a library of the system that it links to is missing.
    """
    if "open3d" not in sys.modules and sys.platform == "linux":
        _provide_libusb()
    try:
        return importlib.import_module("open3d")
    except (ImportError, OSError) as error:
        wheel = "open3d-cpu" if sys.platform == "linux" else "open3d"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ResourceError(
            f"cannot import Open3D: {reason}; pip install {wheel}, and where a shared library is"
            " missing install it too (Debian and Ubuntu: apt install libegl1 libgl1 libx11-6)"
        ) from error


def _provide_libusb() -> None:
    """Load libusb from its wheel where the system has none: Open3D links to it, for its cameras."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(_LIBUSB)
        return
    # Without the wheel, Open3D's own import says what is missing.
    with contextlib.suppress(ImportError, OSError):
        package = importlib.import_module("libusb_package")
        ctypes.CDLL(str(package.get_library_path()), mode=ctypes.RTLD_GLOBAL)


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Swallow what Open3D and the graphics libraries print, from Python or native code.

    Without a display they warn on both streams, of what is no fault. When the block raises, stderr
    gets what they said. It turns round the whole process's streams, other threads' too.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as said:
        try:
            for stream in (1, 2):
                os.dup2(said.fileno(), stream)
            # Open3D logs through Python's print: sys.stdout may be another file than stream 1.
            with open(2, "w", closefd=False) as err, contextlib.redirect_stdout(err):
                yield
        except BaseException:
            said.seek(0)
            os.write(saved[1], said.read())
            raise
        finally:
            for stream, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, stream)
                os.close(copy)
