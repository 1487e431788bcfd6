"""Volumes: densities, distances and vectors on a grid of voxels.

So far what reads and writes them (``data.load_volume``, ``data.list_grids``,
``writers.save_volume``), and light through them: a ``medium.Medium`` under a ``light.Light``, with
``path_tracer.render`` for pictures and ``transport`` for single rays.
"""
