"""Signed distance fields from meshes."""
