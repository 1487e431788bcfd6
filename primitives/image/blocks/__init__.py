"""Blocks of a large image, fitted by independent jobs and decoded as one image."""
