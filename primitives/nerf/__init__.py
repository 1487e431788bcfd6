"""Radiance fields from photos."""
