"""`ngp fit-sdf`: fit a signed distance field to a mesh."""

from ngp_warp.cli.fit import fit_command

command = fit_command("sdf", "Fit a neural signed distance field to a mesh of any kind.")
