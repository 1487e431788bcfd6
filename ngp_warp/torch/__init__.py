"""Encodings and networks as torch modules, with tiny-cuda-nn's names, configs and weights.

``import ngp_warp.torch as tcnn`` runs models that were written for tiny-cuda-nn's torch bindings,
on a CPU and on CUDA. ``modules.py`` says what is the same and what is not.

Importing ``ngp_warp`` does not import this package, nor torch.
"""

from ngp_warp.torch.modules import (
    Encoding,
    Module,
    Network,
    NetworkWithInputEncoding,
    free_temporary_memory,
    supports_jit_fusion,
)

__all__ = [
    "Encoding",
    "Module",
    "Network",
    "NetworkWithInputEncoding",
    "free_temporary_memory",
    "supports_jit_fusion",
]
