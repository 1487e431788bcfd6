"""Radiance fields from photos (Mildenhall et al. 2020; Mueller et al. 2022, section 5.4)."""
