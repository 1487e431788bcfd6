"""The closest face of a mesh as a warp of CUDA finds it, on the emulated device and on a GPU."""

import numpy as np
import pytest

from ngp_warp.errors import ConfigError
from ngp_warp.primitives.sdf.kernels.tree import WARP
from ngp_warp.primitives.sdf.tree import build_tree, leaf_order
from ngp_warp.primitives.sdf.truth import SignedDistance
from tests import sdf_meshes as meshes
from tests.reference import truth as reference
from tests.test_truth import TOLERANCE

CUDA = "cuda:0"
# of one leaf and of several, of one level of nodes and of two
COUNTS = [1, 16, 17, 32, 33, 1024, 1025, 3000]
QUICK = (1, 33, 1025, 0.03)
"""Counts and radii of every run; the others take a minute on the emulated device."""


def loose_faces(m: int) -> tuple[np.ndarray, np.ndarray]:
    """m small triangles anywhere in the cube."""
    rng = np.random.default_rng(m)
    corners = 0.9 * rng.random((m, 1, 3)) + 0.1 * rng.random((m, 3, 3))
    return corners.reshape(-1, 3), np.arange(3 * m).reshape(-1, 3)


def points_of(n: int) -> np.ndarray:
    return np.random.default_rng(n).random((n, 3), dtype=np.float32) * 1.4 - 0.2


@pytest.fixture(scope="module", params=[pytest.param("", marks=pytest.mark.cuda), "emulated"])
def wide(request: pytest.FixtureRequest) -> str:
    """CUDA: a GPU, or the emulated device where there is none."""
    if request.param:
        request.getfixturevalue("emulated_cuda")
    else:
        import warp as wp

        if not wp.is_cuda_available():
            pytest.skip("no NVIDIA GPU or driver on this machine")
    return CUDA


def skip_unless_quick(request: pytest.FixtureRequest, value: float | None) -> None:
    if "emulated" in request.node.name and value not in QUICK:
        pytest.skip("takes long on the emulated device: give --emulate-cuda")


@pytest.mark.parametrize("m", COUNTS)
def test_it_is_the_brute_force_one(wide: str, m: int, request: pytest.FixtureRequest) -> None:
    skip_unless_quick(request, m)
    vertices, faces = loose_faces(m)
    points = points_of(60)
    truth = SignedDistance(vertices, faces, "normal", wide)
    assert truth.search == "wide"
    wanted = reference.distance(vertices, faces, points)
    assert np.abs(np.abs(truth.query(points)) - wanted).max() < TOLERANCE
    if m > 1:  # a missing face is noticed
        less = reference.distance(vertices, faces[::2], points)
        assert np.abs(less - wanted).max() > 1e-3


@pytest.mark.parametrize("name", sorted(meshes.WATERTIGHT))
@pytest.mark.parametrize("radius", [None, 0.03])
def test_it_is_the_cpus(
    wide: str, name: str, radius: float | None, request: pytest.FixtureRequest
) -> None:
    skip_unless_quick(request, radius)
    vertices, faces = meshes.WATERTIGHT[name]()
    points = meshes.points_about(vertices, faces, 200, spread=0.02)
    cpu, cuda = (SignedDistance(vertices, faces, "normal", d).query(points, radius)
                 for d in ("cpu", wide))  # fmt: skip
    # two faces may be as near: another one's distance differs in its last bits
    assert np.abs(cpu - cuda).max() < TOLERANCE
    assert (cpu < 0).any()
    assert radius is None or np.abs(cuda).max() == np.float32(radius)


def test_it_is_the_choice_for_normals_on_cuda(wide: str) -> None:
    assert SignedDistance(*meshes.box(), "winding", wide).search == "portable"
    assert SignedDistance(*meshes.box(), "normal", wide, "portable").search == "portable"


def test_a_cpu_has_no_warps() -> None:
    with pytest.raises(ConfigError, match="search must be portable on cpu, got wide"):
        SignedDistance(*meshes.box(), "normal", "cpu", "wide")


@pytest.mark.parametrize("m", COUNTS)
def test_each_face_is_in_one_leaf_and_its_boxes(m: int) -> None:
    vertices, faces = loose_faces(m)
    order, bounds = leaf_order(vertices[faces].mean(axis=1))
    triangles = vertices[faces[order]].astype(np.float32)
    tree = build_tree(triangles, bounds, WARP)
    assert tree.nodes.shape[1:] == (6, WARP)
    assert tree.leaves.shape[1:] == (17, WARP)
    sizes = np.diff(tree.leaf_faces)
    assert tree.leaf_faces[0] == 0
    assert tree.leaf_faces[-1] == m
    assert 1 <= sizes.min() <= sizes.max() <= WARP
    n_leaves = len(sizes)
    seen: list[int] = []

    def visit(node: int, box: np.ndarray) -> None:
        if node < n_leaves:
            inside = triangles[tree.leaf_faces[node] : tree.leaf_faces[node + 1]]
            assert (inside >= box[:3]).all()
            assert (inside <= box[3:]).all()
            seen.append(node)
            return
        for k, child in enumerate(tree.nodes[node - n_leaves].T):
            if child[0] < 1e17:  # it is there
                assert (child[:3] >= box[:3]).all()
                assert (child[3:] <= box[3:]).all()
                visit(tree.first_child[node - n_leaves] + k, child)

    visit(n_leaves + len(tree.first_child) - 1, np.array([-9.0] * 3 + [9.0] * 3))
    assert sorted(seen) == list(range(n_leaves))
