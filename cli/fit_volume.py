"""`ngp fit-volume`: fit a neural field to a volume."""

from ngp_warp.cli.fit import fit_command

command = fit_command("volume", "Fit a neural field to a volume: its values, or its light.")
