"""`ngp nerf`: fit a radiance field to photos."""

from ngp_warp.cli.fit import fit_command

command = fit_command("nerf", "Fit a radiance field to the photos of a scene.")
