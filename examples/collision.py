"""Fit a mesh's distance field, then let a ball roll past the mesh and bounce off it.

Usage: python examples/collision.py [MESH [STEPS]]
"""

import sys
from pathlib import Path

import numpy as np

import ngp_warp

mesh = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("spot.obj")
length = {"steps": int(sys.argv[2])} if len(sys.argv) > 2 else {"seconds": 30}

run = ngp_warp.fit_sdf(mesh, **length)
print(f"IoU {run.metrics['iou']} after {run.metrics['steps']} steps, in {run.path}")

low, high = np.array(run.metrics["mesh"]["report"]["bounds"])
size = (high - low).max()
centre, radius = (low + high) / 2, 0.1 * size

# A ball touches the mesh where the distance of its centre is its radius: all in the mesh's units.
ball = centre + np.array([0.0, 0.0, size])
velocity = np.array([0.02, 0.01, -1.0]) * size
for frame in range(60):
    ball = ball + velocity / 30
    distance, normal = run.value_and_gradient(ball[None])
    distance, normal = distance[0, 0], normal[0, 0] / np.linalg.norm(normal[0, 0])
    if distance < radius and velocity @ normal < 0:
        velocity = velocity - 2 * (velocity @ normal) * normal
        print(f"frame {frame}: hit, {radius - distance:.3g} deep, bounces along {normal.round(2)}")

# Rays ask from farther away: where does each axis first meet the mesh?
rays_o, rays_d = centre - 2 * size * np.eye(3), np.eye(3)
hits = run.sphere_trace(rays_o, rays_d)
print("met at", (rays_o + np.where(hits.hit, hits.t, np.nan)[:, None] * rays_d).round(3).tolist())
