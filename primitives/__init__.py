"""The primitives: what is fitted, its loss and its exports."""

from importlib import import_module

from ngp_warp.errors import ConfigError
from ngp_warp.primitive import Primitive

NAMES = ("image", "sdf", "nerf", "volume")
"""Each is the name of a folder with a ``PRIMITIVE``."""


def get(name: str) -> Primitive:
    """Return a primitive by name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in NAMES:
        raise ConfigError(f"there is no primitive {name!r}; there are {', '.join(NAMES)}")
    return import_module(f"ngp_warp.primitives.{name}").PRIMITIVE
