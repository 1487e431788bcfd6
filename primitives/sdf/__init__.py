"""Neural signed distance fields from meshes."""
