"""Radiance fields: rays marched through a density and a colour network."""
