"""Gigapixel images."""
