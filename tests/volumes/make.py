"""Makes the files here with OpenVDB 10.0.1 (Debian: python3-openvdb, libnanovdb-tools).

python3 tests/volumes/make.py: run by hand, not by the tests.
"""

import subprocess
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
MATRIX = [[0.1, 0.02, 0, 0], [0, 0.2, 0, 0], [0, 0.05, 0.3, 0], [1, 2, 3, 1]]


def grids(vdb):
    rng = np.random.default_rng(0)
    fog = vdb.FloatGrid(0.0)
    fog.name, fog.gridClass = "density", "fog volume"
    values = rng.integers(0, 8, (12, 9, 7)).astype(np.float32) / 7
    fog.copyFromArray(values, ijk=(-5, 3, 10), tolerance=0)
    fog.transform = vdb.createLinearTransform(MATRIX)
    fog.fill((16, 0, 0), (23, 7, 7), 0.75, True)
    fog.fill((128, 0, 0), (255, 127, 127), 0.5, True)
    fog.fill((64, 0, 0), (71, 7, 7), 0.25, False)
    half = fog.deepCopy()
    half.name, half.saveFloatAsHalf = "half", True
    surface = vdb.createLevelSetSphere(2.0, (1.5, 2, 2.5), 0.5)
    surface.name = "surface"
    velocity = vdb.Vec3SGrid((0, 0, 0))
    velocity.name = "velocity"
    velocity.copyFromArray(rng.integers(-4, 5, (5, 6, 7, 3)).astype(np.float32), ijk=(-2, 0, 4))
    inside = vdb.BoolGrid(False)
    inside.name = "inside"
    inside.copyFromArray(rng.random((9, 9, 9)) < 0.5)
    inside.fill((16, 0, 0), (23, 7, 7), True, True)
    return [fog, half, surface, velocity, inside, fog.deepCopy()]


def truth(grid):
    """Return what OpenVDB's own accessor says at random points in and around the active box."""
    rng = np.random.default_rng(1)
    low, high = grid.evalActiveVoxelBoundingBox()
    points = np.stack(
        [rng.integers(a - 2, b + 3, 2000) for a, b in zip(low, high, strict=True)], axis=1
    )
    accessor = grid.getConstAccessor()
    at = [tuple(point) for point in points.tolist()]
    corners = rng.integers(-50, 50, (6, 3))
    world = [grid.transform.indexToWorld(tuple(map(float, c))) for c in corners.tolist()]
    return {
        "box": np.array([low, high], np.int32),
        "points": points.astype(np.int16),
        "values": np.array([accessor.getValue(p) for p in at], np.float32),
        "active": np.array([accessor.isValueOn(p) for p in at]),
        "n_active": np.array(grid.activeVoxelCount()),
        "corners": corners,
        "world": np.array(world),
    }


def main():
    import pyopenvdb as vdb

    vdb.write(str(HERE / "openvdb.vdb"), grids(vdb))
    found = {}
    for grid in vdb.readAll(str(HERE / "openvdb.vdb"))[0]:
        found |= {f"{grid.name}/{key}": value for key, value in truth(grid).items()}
    np.savez_compressed(HERE / "openvdb.npz", **found)
    convert = ["nanovdb_convert", "-f", "-g"]
    parts = b""
    for kind in ("fp4", "fp8", "fp16", "fpN"):
        path = HERE / "part.nvdb"
        subprocess.run(
            [*convert, "density", "-z", f"--{kind}", HERE / "openvdb.vdb", path], check=True
        )
        parts += path.read_bytes()
        path.unlink()
    (HERE / "quantized.nvdb").write_bytes(parts)
    for codec in ("zip", "blosc"):
        path = HERE / f"{codec}.nvdb"
        subprocess.run(
            ["nanovdb_convert", "-f", f"--{codec}", HERE / "openvdb.vdb", path], check=True
        )


if __name__ == "__main__":
    main()
