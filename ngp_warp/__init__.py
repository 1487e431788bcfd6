"""Instant neural graphics primitives on NVIDIA Warp, on every CPU core and on CUDA."""

from pathlib import Path as _Path

__version__ = "0.1.0"

# In a checkout, primitives/ and cli/ lie beside this folder; installed, they lie inside it.
_root = _Path(__file__).resolve().parent.parent
if (_root / "primitives" / "__init__.py").is_file() and (_root / "pyproject.toml").is_file():
    __path__.append(str(_root))
