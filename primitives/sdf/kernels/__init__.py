"""Warp kernels of signed distance fields, one file per concern."""
