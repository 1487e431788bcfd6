"""COLMAP's camera models as lenses (colmap/src/colmap/sensor/models.h lists their parameters)."""

from dataclasses import dataclass

from ngp_warp.primitives.nerf.scene.checks import SceneError
from ngp_warp.primitives.nerf.scene.photo import make_lens
from ngp_warp.rays.lenses import Lens


@dataclass(frozen=True)
class Model:
    """A camera model: its name, and the names of its parameters in their order."""

    name: str
    parameters: tuple[str, ...]
    fisheye: bool = False
    supported: bool = True


def _model(name: str, parameters: str, *, fisheye: bool = False, supported: bool = True) -> Model:
    return Model(name, tuple(parameters.split()), fisheye, supported)


MODELS = {
    0: _model("SIMPLE_PINHOLE", "f cx cy"),
    1: _model("PINHOLE", "fx fy cx cy"),
    2: _model("SIMPLE_RADIAL", "f cx cy k1"),
    3: _model("RADIAL", "f cx cy k1 k2"),
    4: _model("OPENCV", "fx fy cx cy k1 k2 p1 p2"),
    5: _model("OPENCV_FISHEYE", "fx fy cx cy k1 k2 k3 k4", fisheye=True),
    6: _model("FULL_OPENCV", "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6"),
    7: _model("FOV", "fx fy cx cy omega", supported=False),
    8: _model("SIMPLE_RADIAL_FISHEYE", "f cx cy k1", fisheye=True),
    9: _model("RADIAL_FISHEYE", "f cx cy k1 k2", fisheye=True),
    10: _model("THIN_PRISM_FISHEYE", "fx fy cx cy k1 k2 p1 p2 k3 k4 sx1 sy1", supported=False),
    11: _model(
        "RAD_TAN_THIN_PRISM_FISHEYE",
        "fx fy cx cy k0 k1 k2 k3 k4 k5 p0 p1 s0 s1 s2 s3",
        supported=False,
    ),
    12: _model("SIMPLE_DIVISION", "f cx cy k", supported=False),
    13: _model("DIVISION", "fx fy cx cy k", supported=False),
    14: _model("SIMPLE_FISHEYE", "f cx cy", supported=False),
    15: _model("FISHEYE", "fx fy cx cy", supported=False),
    16: _model("EUCM", "fx fy cx cy alpha beta", supported=False),
    17: _model("EQUIRECTANGULAR", "w h", supported=False),
}
"""By the number that binary files hold; those not supported are known to be named and skipped."""
MODELS_BY_NAME = {model.name: model for model in MODELS.values()}


@dataclass(frozen=True)
class Camera:
    """A camera as its record states it."""

    where: str
    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


def read_lens(camera: Camera) -> Lens:
    """Return a camera's lens.

    Raises:
        DataError: a model that is not supported, or another number of parameters.
    """
    model = MODELS_BY_NAME.get(camera.model)
    if model is None or not model.supported:
        raise SceneError(
            camera.where,
            f"the camera model {camera.model[:40]} is not supported",
            "run colmap image_undistorter, or calibrate with OPENCV or OPENCV_FISHEYE",
        )
    if len(camera.parameters) != len(model.parameters):
        raise SceneError(
            camera.where,
            f"{model.name} has the {len(model.parameters)} parameters "
            f"{', '.join(model.parameters)}, and {len(camera.parameters)} are given",
            "write the model again",
        )
    values = dict(zip(model.parameters, camera.parameters, strict=True))
    if "f" in values:
        values["fx"] = values["fy"] = values.pop("f")
    return make_lens(
        camera.where, width=camera.width, height=camera.height, fisheye=model.fisheye, **values
    )
