"""C++ text of the fused radiance field on the CPU: constants, scratch memory, bodies of items.

The parts are in radiance_march.py, radiance_network.py and radiance_composite.py; the equations
stand there. Kernels: radiance.py.
"""

from dataclasses import dataclass

from ngp_warp.kernels import radiance_composite as composite
from ngp_warp.kernels import radiance_march as march
from ngp_warp.kernels import radiance_network as network
from ngp_warp.kernels import radiance_rays as rays
from ngp_warp.kernels.grid import GridShape
from ngp_warp.kernels.mlp import LAYER, WEIGHT_GRADIENT, ZERO_PARTIALS, MlpShape
from ngp_warp.kernels.vector import MATH, SIGN, TRANSPOSE, TYPES
from ngp_warp.radiance.settings import MAX_SAMPLES, N_GEOMETRY

ROUND = 8
"""Samples of a ray in one round."""
LONGEST = 32
"""The same where few rays are left, so that blocks are filled."""
COUNTERS = 4
"""int64 of a chunk: rays, samples that reached the density network, samples kept, rays given up."""


@dataclass(frozen=True, kw_only=True)
class RadianceShape:
    """What the kernels are compiled for."""

    grid: GridShape
    n_levels: int
    density: MlpShape
    color: MlpShape
    n_latents: int = 0
    aabb_scale: int = 1
    cone: bool = False
    loss: str = "huber"
    color_space: str = "srgb"
    exposure: bool = False
    depth: bool = False
    distortion: bool = False
    background_gradients: bool = False
    ray_gradients: bool = False
    n_rays: int = 512
    """Most rays of a chunk."""
    n_samples: int = 4096
    """Most samples of a chunk, a multiple of 32."""
    max_samples: int = MAX_SAMPLES
    """Samples after which a ray ends."""

    @property
    def n_hidden(self) -> int:
        """Rows of the colour network's activations."""
        return sum(j for j, _ in self.color.layers)


def constants_text(shape: RadianceShape) -> str:
    """Return the definitions of the constants in capital letters."""
    values = {
        "CR": _ray_stride(shape),
        "CS": shape.n_samples,
        "NF": shape.density.n_in,
        "NG": N_GEOMETRY,
        "NCI": shape.color.n_in,
        "NCH": shape.n_hidden,
        "NLAT": shape.n_latents,
        "N_LEVELS": shape.n_levels,
        "N_CASCADES": shape.aabb_scale.bit_length(),
        "ROUND": ROUND,
        "LONGEST": LONGEST,
        "MAX_SAMPLES": shape.max_samples,
        "MAXV": network.widest(shape.density, shape.color) // 16,
        "ROWS": network.widest(shape.density, shape.color),
    }
    text = "\n".join(f"const int {name} = {value};" for name, value in values.items())
    cone = "true" if shape.cone else "false"
    return f"{text}\nconst float AABB = {float(shape.aabb_scale)!r}f;\nconst bool CONE = {cone};\n"


def _ray_stride(shape: RadianceShape) -> int:
    # sixteen more than a multiple of 32: rows of rays are no power of two apart
    return -(-shape.n_rays // 32) * 32 + 16


def _arrays(shape: RadianceShape, *, train: bool) -> list[tuple[str, str, int]]:
    """Return the arrays of a slot of scratch memory: type, name, size in 4-byte words."""
    n_rays, samples = _ray_stride(shape), shape.n_samples
    ray_floats = ["rjit", "rbegin", "rend", "renter", "rleave", "rtrans", "rk", "rdepth"]
    ray_ints = ["rn", "rhead", "rtail", "rdrop", "ract", "koff"]
    sample_floats = ["st", "sod", "se", "sw", "stafter"]
    sample_ints = ["sr", "seg_ray", "seg_start", "seg_n", "seg_next", "kidx", "kray"]
    if train:
        sample_ints.append("scell")
    arrays = [("float", name, 3 * n_rays) for name in ("ro", "rd", "rq", "rc", "rshown")]
    arrays.append(("float", "rsh", 16 * n_rays))
    if train:
        ray_floats += ["rgb_behind", "rloss", "rsquares", "rgdepth"]
        sample_floats.append("kdraw")
        arrays.append(("float", "rg", 3 * n_rays))
        arrays.append(("float", "found_cell", 16 * (LONGEST + 1)))
        arrays += [("float", "khid", shape.n_hidden * samples), ("float", "kdrgb", 3 * samples)]
        if shape.ray_gradients:
            arrays += [("float", name, 3 * n_rays) for name in ("rdo", "rdd")]
            arrays.append(("float", "rdsh", 16 * n_rays))
        arrays.append(("float", "rdlat", max(shape.n_latents * n_rays, 16)))
    arrays += [("float", name, n_rays) for name in ray_floats]
    arrays += [("int", name, n_rays) for name in ray_ints]
    arrays += [("float", name, samples) for name in sample_floats]
    arrays += [("int", name, samples) for name in sample_ints]
    arrays += [
        ("float", "sx", 3 * samples),
        ("float", "feat", shape.density.n_in * samples),
        ("float", "geo", N_GEOMETRY * samples),
        ("float", "kin", shape.color.n_in * samples),
        ("float", "krgb", 3 * samples),
        ("float", "found", 16 * (LONGEST + 1)),
    ]
    return arrays


def slot_size(shape: RadianceShape, *, train: bool) -> int:
    """Return the size of a slot of scratch memory in floats."""
    return sum(-(-size // 16) * 16 for _, _, size in _arrays(shape, train=train))


def _pointers(shape: RadianceShape, *, train: bool) -> str:
    """Return the declarations of the scratch arrays."""
    n = slot_size(shape, train=train)
    text = [f"float* slot_ = scratch.data + (size_t)(begin * n_slots / n_chunks) * {n};"]
    offset = 0
    for kind, name, size in _arrays(shape, train=train):
        text.append(f"{kind}* {name} = ({kind}*)(slot_ + {offset}); (void){name};")
        offset += -(-size // 16) * 16
    return "\n".join(text)


_BEGIN = """
int ns = 0, n_seg = 0, nk = 0, n_dropped = 0;
long long n_marched = 0, n_kept = 0;
const float* density_weights = w.data;
const float* color_weights = w.data + DENSITY_PARAMS;
auto sdt = [&](float t) __attribute__((always_inline)) {
    const float s = t * cone_angle;
    return !CONE || s < min_step ? min_step : s > max_step ? max_step : s;
};
(void)sdt;
"""


def _head(shape: RadianceShape, *, train: bool) -> str:
    """Return everything before the rounds."""
    parts = [TYPES, TRANSPOSE, MATH, SIGN, constants_text(shape), LAYER, march.HELPERS]
    parts += [_pointers(shape, train=train)]
    parts += [
        _BEGIN.replace("DENSITY_PARAMS", str(shape.density.n_params)),
        march.setup_text(shape.cone),
    ]
    parts += [march.march_text(cone=shape.cone, cells=train), network.encode_text(shape.grid)]
    parts += [network.GATHER_ROWS, network.declare(shape.density, "a")]
    return "\n".join(parts)


def _round(shape: RadianceShape, *, train: bool) -> str:
    """Return a round up to the transmittances behind its samples."""
    parts = [march.round_text(cells=train), "if (ns == first) { n_active = 0; break; }"]
    parts += ["encode(sx, feat, first >> 5, ns >> 5);", network.density_text(shape.density)]
    return "\n".join([*parts, composite.transmit_text(meet=train)])


def train_text(shape: RadianceShape) -> str:
    """Return the body of a training item."""
    counters = """
    counters.data[chunk * 4] = nr; counters.data[chunk * 4 + 1] = n_marched;
    counters.data[chunk * 4 + 2] = n_kept; counters.data[chunk * 4 + 3] = n_dropped;
    """
    partials = ZERO_PARTIALS.replace("g[i]", "{g}[i]").replace("v16* g", "v16* {g}")
    loss = composite.loss_text(
        shape.loss,
        exposure=shape.exposure,
        color_space=shape.color_space,
        background_gradients=shape.background_gradients,
        depth=shape.depth,
        distortion=shape.distortion,
    )
    latents = """
    for (int i = 0; i < nr * NLAT; ++i) rdlat[i] = 0.f;
    """
    write_latents = """
    for (int i = 0; i < nr * NLAT; ++i) d_latents.data[(size_t)ray0 * NLAT + i] = rdlat[i];
    """
    return "\n".join(
        [
            _head(shape, train=True),
            "while (n_active > 0) {",
            _round(shape, train=True),
            "}",
            composite.KEPT,
            "const int n_summed = nk;",
            network.HARMONICS,
            network.color_text(shape.color, shape.n_latents, keep=True),
            composite.SUM.replace("N_SUMMED", "n_summed"),
            loss,
            composite.WRITE,
            f"v16 d[{network.widest(shape.density, shape.color)}][2];",
            f"v16 e[{network.widest(shape.density, shape.color)}][2];",
            WEIGHT_GRADIENT,
            partials.replace("partials", "density_partials").format(
                g="gd", n=shape.density.n_partials
            ),
            partials.replace("partials", "color_partials").format(g="gc", n=shape.color.n_partials),
            latents if shape.n_latents else "",
            rays.CLEAR if shape.ray_gradients else "",
            network.backward_sweep(
                shape.density, shape.color, shape.n_latents, shape.grid, rays=shape.ray_gradients
            ),
            rays.write_text() if shape.ray_gradients else "",
            write_latents if shape.n_latents else "",
            counters,
        ]
    )


def render_text(shape: RadianceShape) -> str:
    """Return the body of an item that renders: a round's memory is used again by the next."""
    return "\n".join(
        [
            _head(shape, train=False),
            network.HARMONICS,
            "while (n_active > 0) {",
            "ns = 0; n_seg = 0;",
            _round(shape, train=False),
            composite.KEPT_ROUND,
            network.color_text(shape.color, shape.n_latents, keep=False),
            composite.SUM.replace("N_SUMMED", "n_round"),
            "}",
            composite.show_text(shape.color_space, exposure=shape.exposure),
            composite.WRITE,
        ]
    )
