"""Warp kernels of volumes, one file per concern."""
