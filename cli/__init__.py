"""The command `ngp`."""
