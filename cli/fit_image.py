"""`ngp fit-image`: fit a neural field to a picture."""

from ngp_warp.cli.fit import fit_command

command = fit_command("image", "Fit a neural field to a picture, from a photo to gigapixels.")
