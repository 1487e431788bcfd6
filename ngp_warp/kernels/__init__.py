"""The Warp kernels, one file per concern."""
