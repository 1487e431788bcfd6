"""Warp kernels of what surrounds a radiance field: photos, cameras, the environment."""
