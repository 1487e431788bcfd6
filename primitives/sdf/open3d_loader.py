"""The one place that imports Open3D: from wheels alone, when it is needed, without its chatter."""

import contextlib
import ctypes
import importlib
import os
import sys
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
def chatter_to_stderr() -> Iterator[None]:
    """Send to stderr what Open3D and its libraries print on stdout, from Python or native code.

    It turns round the whole process's stdout, other threads' too.
    """
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
