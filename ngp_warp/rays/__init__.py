"""Rays: cameras that make them, and what follows them through a field."""
