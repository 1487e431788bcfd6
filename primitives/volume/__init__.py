"""Volumes: densities, distances and vectors on a grid of voxels.

So far what reads them: ``data.load_volume`` and ``data.list_grids``.
"""
