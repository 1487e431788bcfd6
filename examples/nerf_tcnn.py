"""Train a NeRF written for tiny-cuda-nn's torch modules, on views of a striped ball.

With ``import tinycudann as tcnn`` instead of the line below (and a GPU) it is the same program.

Usage: python examples/nerf_tcnn.py [PICTURE.png [STEPS]]
"""

import sys

import imageio.v3 as imageio
import torch
from torch import nn

import ngp_warp.torch as tcnn

SIDE, SAMPLES, RAYS, RADIUS = 64, 48, 512, 0.35
HASH = {"otype": "HashGrid", "n_levels": 8, "n_features_per_level": 2, "log2_hashmap_size": 15,
        "base_resolution": 8, "per_level_scale": 1.5}  # fmt: skip
MLP = {"otype": "FullyFusedMLP", "activation": "ReLU", "n_neurons": 64, "n_hidden_layers": 1,
       "output_activation": "None"}  # fmt: skip


class NeRF(nn.Module):
    """Density and colour of points in the unit cube, seen along directions."""

    def __init__(self):
        super().__init__()
        self.density = tcnn.NetworkWithInputEncoding(3, 16, HASH, MLP)
        self.directions = tcnn.Encoding(3, {"otype": "SphericalHarmonics", "degree": 4})
        rgb = {**MLP, "n_hidden_layers": 2, "output_activation": "Sigmoid"}
        self.colour = tcnn.Network(self.directions.n_output_dims + 16, 3, rgb)

    def forward(self, x, d):
        """Return densities [n] and colours [n, 3] of points [n, 3] and unit vectors [n, 3]."""
        h = self.density(x)
        features = torch.cat([self.directions((d + 1) / 2).to(h.dtype), h], dim=-1)
        return torch.exp(h[:, 0].float().clamp(max=10)), self.colour(features).float()


def render(model, o, d, jitter):
    """Return the colours [n, 3] of rays, over white, by quadrature (Max 1995)."""
    step = 1.2 / SAMPLES
    t = 0.9 + step * (torch.arange(SAMPLES, device=o.device) + jitter)  # [n, samples]
    x = o[:, None] + t[..., None] * d[:, None]
    inside = ((x > 0) & (x < 1)).all(-1)
    sigma, rgb = model(x.reshape(-1, 3), d[:, None].expand_as(x).reshape(-1, 3))
    optical = sigma.view(t.shape) * inside * step
    before = torch.exp(-torch.cumsum(optical, 1) + optical)
    weights = before * (1 - torch.exp(-optical))
    return (weights[..., None] * rgb.view(x.shape)).sum(1) + 1 - weights.sum(1, keepdim=True)


def view(azimuth, height):
    """Return origins and directions [side^2, 3] of a camera that looks at the cube's middle."""
    a, h = torch.tensor(azimuth), torch.tensor(height)
    back = torch.stack([torch.cos(a) * torch.cos(h), torch.sin(a) * torch.cos(h), torch.sin(h)])
    right = torch.nn.functional.normalize(
        torch.linalg.cross(torch.tensor([0.0, 0, 1]), back), dim=0
    )
    up = torch.linalg.cross(back, right)
    v, u = torch.meshgrid(*2 * [(torch.arange(SIDE) + 0.5) / SIDE - 0.5], indexing="ij")
    d = u[..., None] * 0.6 * right - v[..., None] * 0.6 * up - back
    d = torch.nn.functional.normalize(d.reshape(-1, 3), dim=1)
    return (0.5 + 1.5 * back).expand_as(d), d


def truth(o, d):
    """Return the colours [n, 3] of rays that meet the ball, or the white around it."""
    b = ((o - 0.5) * d).sum(1)
    root = b**2 - ((o - 0.5) ** 2).sum(1) + RADIUS**2
    normal = (o + (-b - root.clamp(min=0).sqrt())[:, None] * d - 0.5) / RADIUS
    stripes = 0.5 + 0.5 * torch.tanh(8 * torch.sin(9 * normal[:, 2:]))
    colour = (0.5 + 0.5 * normal) * stripes + 0.15 * (1 - stripes)
    return torch.where(root[:, None] > 0, colour, 1.0)


picture = sys.argv[1] if len(sys.argv) > 1 else "nerf_tcnn.png"
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 800
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
views = [view(2.4 * i, -0.9 + 1.8 * i / 39) for i in range(40)]
o, d = (torch.cat(parts).to(device) for parts in zip(*views, strict=True))
colours = truth(o, d)
model = NeRF().to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, eps=1e-15)
schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.03 ** (1 / steps))
for _ in range(steps):
    batch = torch.randint(len(o), (RAYS,), device=device)
    rendered = render(model, o[batch], d[batch], torch.rand(RAYS, SAMPLES, device=device))
    loss = nn.functional.huber_loss(rendered, colours[batch], delta=0.1)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()

o, d = (part.to(device) for part in view(1.0, 0.4))  # a view that was held back
with torch.no_grad():
    image = render(model, o, d, torch.full_like(o[:, :1], 0.5)).clamp(0, 1)
error = (image - truth(o, d)).square().mean()
imageio.imwrite(picture, (image * 255).byte().view(SIDE, SIDE, 3).cpu().numpy())
print(f"{-10 * torch.log10(error):.1f} dB after {steps} steps, in {picture}")
