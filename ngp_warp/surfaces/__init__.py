"""Surfaces of fields: their extraction as meshes, their pieces, and files that hold them."""
