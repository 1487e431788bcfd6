"""Names of the options of ``ngp render`` and ``ngp export`` that volumes know."""

RENDER_OPTIONS = frozenset(
    {
        *("width", "height", "camera", "camera_path", "up", "spp", "show", "frames", "fps"),
        *("background", "level", "transfer", "window", "at", "exposure"),
        *("sun", "albedo", "density_scale", "progressive"),
    }
)

MESH_FORMATS = ("ply", "obj", "glb", "stl")
SPARSE_FORMATS = ("nvdb", "vdb")
DENSE_FORMATS = ("npy", "npz", "nii")

EXPORT_OPTIONS: dict[str, frozenset[str]] = {
    **dict.fromkeys(MESH_FORMATS, frozenset({"resolution", "level", "faces", "largest_only"})),
    **dict.fromkeys(SPARSE_FORMATS, frozenset({"threshold"})),
    **dict.fromkeys(DENSE_FORMATS, frozenset({"threshold"})),
}
"""Format -> names of its options."""
