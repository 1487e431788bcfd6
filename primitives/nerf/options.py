"""Names of the options of ``ngp render`` and ``ngp export`` that scenes know."""

RENDER_OPTIONS = frozenset(
    {
        *("width", "height", "view", "test", "camera", "camera_path", "path", "up"),
        *("spp", "show", "background", "appearance", "frames", "fps"),
    }
)

MESH_FORMATS = ("ply", "obj", "glb", "stl")
VOLUME_FORMATS = ("nvdb", "npz", "npy")
_MESH_OPTIONS = frozenset({"resolution", "threshold", "box", "faces", "largest_only"})

EXPORT_OPTIONS: dict[str, frozenset[str]] = {
    "ply": _MESH_OPTIONS,
    "stl": _MESH_OPTIONS,
    "obj": _MESH_OPTIONS | {"texture"},
    "glb": _MESH_OPTIONS | {"texture"},
    "points": frozenset({"points", "opacity", "threshold", "box"}),
    **dict.fromkeys(VOLUME_FORMATS, frozenset({"resolution", "box"})),
    "occupancy": frozenset(),
}
"""Format -> names of its options."""
