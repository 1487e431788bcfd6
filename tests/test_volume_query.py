"""Laws of questions to a fitted volume: in its own world and units, with true slopes."""

from typing import Any

import numpy as np
import pytest

import ngp_warp
from ngp_warp.errors import ShapeError
from ngp_warp.primitives.volume.describe import Described
from ngp_warp.primitives.volume.grid import Volume
from ngp_warp.primitives.volume.subject import Subject

KINDS = [("fog", "density"), ("level_set", "density"), ("mirrored", "density"),
         ("scan", "density"), ("vectors", "density"), ("fog", "radiance"),
         ("scan", "radiance")]  # fmt: skip


def decoded(run: ngp_warp.Run) -> Volume:
    """Return the values at all voxels as a volume."""
    subject = Subject.of(run)
    return subject.about.volume(subject.values(lambda progress: None), None)


def places(volume: Volume, indices: np.ndarray) -> np.ndarray:
    """Return index points in the world, by the volume's own matrix alone."""
    return indices @ volume.to_world[:3, :3].T + volume.to_world[:3, 3]


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_at_the_middles_it_says_what_is_decoded(kind: str, mode: str, volume_runs: Any) -> None:
    run = volume_runs.run(kind, mode)
    volume = decoded(run)
    shape = volume.values.shape[:3]
    indices = np.argwhere(np.ones(shape, bool))
    points = places(volume, indices + np.array(volume.first))
    wanted = volume.values.reshape(len(points), -1)
    found = run.query(points)
    assert found.shape == (len(points), 4 if mode == "radiance" else volume.n_channels)
    assert found.dtype == np.float32
    part = found[:, 3:] if mode == "radiance" else found
    if volume.dtype == "uint8" and mode == "density":
        assert np.abs(part - wanted).max() <= 0.5 + 1e-4  # decoded are whole ones
        part = np.rint(part)
        # halves may be rounded to either side
        assert (part == wanted).mean() > 0.999
    else:
        # points in float64 come back to a middle within rounding, 1e-12 of a voxel
        assert np.abs(part - wanted).max() < 1e-5 * np.ptp(wanted)
    if mode == "radiance":
        assert found[:, :3].min() >= 0
        assert found[:, :3].max() > 0.05
    moved = run.query(points + volume.to_world[:3, 0])  # proof: a voxel aside it is another
    assert np.abs(moved[:, -part.shape[1] :] - wanted).max() > 0.05 * np.ptp(wanted)


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_outside_is_the_background(kind: str, mode: str, volume_runs: Any) -> None:
    run = volume_runs.run(kind, mode)
    volume = decoded(run)
    shape, first = np.array(volume.values.shape[:3]), np.array(volume.first)
    middle = first + (shape - 1) / 2
    beyond = []
    for axis in range(3):
        for at in (first[axis] - 0.51, first[axis] + shape[axis] - 0.49):
            index = middle.copy()
            index[axis] = at
            beyond.append(index)
    values, jacobian = run.value_and_gradient(places(volume, np.array(beyond)))
    background = [0.0] * 4 if mode == "radiance" else volume.background
    assert np.array_equal(values, np.tile(np.float32(background), (6, 1)))
    assert not jacobian.any()
    # half a voxel from the middles is the value there, and nothing changes along that axis
    low, high = places(volume, np.array([middle, middle]))
    low += volume.to_world[:3, :3] @ ((first[0] - middle[0]) * np.eye(3)[0])
    high += volume.to_world[:3, :3] @ ((first[0] - 0.45 - middle[0]) * np.eye(3)[0])
    near, at = run.query(np.array([high])), run.query(np.array([low]))
    assert np.abs(near - at).max() < 1e-5 * max(np.ptp(volume.values), 1.0)


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_the_gradient_is_the_derivative_in_the_world(
    kind: str, mode: str, volume_runs: Any
) -> None:
    """Linear within a cell of every level but for a ReLU's kink: most differences are exact."""
    run = volume_runs.run(kind, mode)
    volume = decoded(run)
    rng = np.random.default_rng(0)
    shape, first = np.array(volume.values.shape[:3]), np.array(volume.first)
    indices = first + 1.5 + rng.random((400, 3)) * (shape - 4)
    points = places(volume, indices)
    values, jacobian = run.value_and_gradient(points)
    assert np.array_equal(values, run.query(points))
    assert jacobian.shape == (*values.shape, 3)
    size = volume.voxel_size
    span = np.maximum(np.ptp(values, axis=0), 1e-6)
    for axis in range(3):
        # a fiftieth of the voxel: values are of float32, the difference has six digits less two
        step = 0.02 * min(size) * np.eye(3)[axis]
        moved = [run.query(points + sign * step).astype(np.float64) for sign in (1, -1)]
        difference = (moved[0] - moved[1]) / (2 * step[axis])
        error = np.abs(difference - jacobian[..., axis]) * min(size) / span
        assert np.median(error) < 2e-3
        assert np.quantile(error, 0.8) < 0.03
        slope = np.abs(jacobian[..., axis]) * min(size) / span
        assert np.median(slope.max(axis=1)) > 3 * np.median(error)  # there are slopes
    changed = np.abs(jacobian).sum(axis=2)
    inner = (values > values.min(axis=0) + 0.05 * span) & (
        values < values.max(axis=0) - 0.05 * span
    )
    # what is not at an end of the range, nor at its block's bound, has a slope
    assert np.all(((changed > 0) | ~inner).mean(axis=0) > 0.97)


@pytest.mark.parametrize("kind", ["fog", "scan"])
def test_between_blocks_rounding_does_not_choose(kind: str, volume_runs: Any) -> None:
    from ngp_warp.primitives.volume.majorants import BLOCK

    field = volume_runs.run(kind, "radiance").fitted
    majorants = field.majorants.numpy()
    voxels = np.argwhere(np.ones(field.frame.shape, bool)).astype(np.float64)
    found = field.densities(voxels)
    for nudge in np.random.default_rng(0).uniform(-1e-9, 1e-9, (4, 3)):
        assert np.allclose(field.densities(voxels + nudge), found, atol=1e-6 * found.max())
    blocks = np.pad(majorants, 1)
    for side in np.ndindex(2, 2, 2):  # a middle has the least bound of all blocks that touch it
        block = np.floor((voxels + 1 - 0.5 * np.array(side)) / BLOCK).astype(int) + 1
        assert np.all(found <= blocks[tuple(block.T)])
    at = field.query(field.frame.unit_from_voxel(voxels))[:, 3] / field.density_gain
    assert np.any(at > found)  # bounds do bound


def test_shear_counts(volume_runs: Any) -> None:
    """Along a sheared axis the value's change is the Jacobian times that axis."""
    run = volume_runs.run("fog")
    volume = decoded(run)
    rng = np.random.default_rng(1)
    indices = np.array(volume.first) + 3 + rng.random((300, 3)) * 4
    points = places(volume, indices)
    _, jacobian = run.value_and_gradient(points)
    for axis in range(3):
        along = volume.to_world[:3, axis]
        moved = run.query(points + 0.02 * along) - run.query(points - 0.02 * along)
        error = np.abs(moved[:, 0] / 0.04 - jacobian[:, 0] @ along)
        wrong = np.abs(moved[:, 0] / 0.04 - jacobian[:, 0, axis] * np.linalg.norm(along))
        assert np.median(error) < 1e-3
        assert np.median(wrong) > 3 * np.median(error)


@pytest.mark.parametrize(
    ("points", "match"),
    [
        (np.zeros((1, 2)), r"\[n, 3\]"),
        (np.zeros(3), r"\[n, 3\]"),
        (np.zeros((1, 3), complex), "numbers"),
        (np.zeros((1, 3), bool), "numbers"),
        (np.full((1, 3), np.nan), "finite"),
        (np.array([[0, 0, np.inf]]), "finite"),
    ],
)
def test_points_that_are_none_are_refused(points: Any, match: str, volume_runs: Any) -> None:
    for mode in ("density", "radiance"):
        run = volume_runs.run("fog", mode)
        for ask in (run.query, run.value_and_gradient):
            with pytest.raises(ShapeError, match=match):
                ask(points)


@pytest.mark.parametrize("mode", ["density", "radiance"])
def test_no_points_and_far_points(mode: str, volume_runs: Any) -> None:
    run = volume_runs.run("fog", mode)
    n = 4 if mode == "radiance" else 1
    values, jacobian = run.value_and_gradient(np.zeros((0, 3)))
    assert (values.shape, jacobian.shape) == ((0, n), (0, n, 3))
    assert not run.query(np.full((2, 3), 1e30)).any()
    assert run.query(np.zeros((2, 3), np.int32)).shape == (2, n)


def test_the_frame_is_that_of_the_file(volume_runs: Any) -> None:
    from volume_runs import SHEARED

    about = Described.of(volume_runs.run("fog"))
    assert np.array_equal(about.frame.to_world, SHEARED)
    assert about.frame.first == (-7, 3, -2)
