"""The Open3D window that shows a result beside its original, and its picture without a display."""

import ctypes
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import ConfigError, ResourceError
from ngp_warp.files import check_output
from ngp_warp.primitives.pictures import save_png
from ngp_warp.primitives.sdf.open3d_loader import load_open3d, without_chatter
from ngp_warp.primitives.sdf.view_scene import Mesh, Scene, build_scene, camera_axes

KEYS = "W: wireframe, E: error colours, R: first view, Q: close"
WIDTH, HEIGHT = 1280, 720
"""Of window and picture in pixels, unless asked for otherwise."""
_FIELD_OF_VIEW = 15.0  # degrees; little perspective, so that both meshes are seen alike
_OPEN3D_FIELD_OF_VIEW = 60.0
_MARGIN = 1.05
_SECONDS_BETWEEN_FRAMES = 1 / 30
_SUPERSAMPLING = 2  # pictures without a display are not antialiased


def show(
    original: Mesh,
    result: Mesh,
    *,
    wireframe: bool = False,
    error_colors: bool = False,
    screenshot: Path | None = None,
    width: int = WIDTH,
    height: int = HEIGHT,
    up: str = "y",
) -> dict[str, float]:
    """Show two meshes side by side, in a window until it is closed, or in a picture.

    In the window W switches the wireframe and E the error colours: every vertex of the result by
    its distance to the original, with a scale in the input's units.

    Args:
        original: vertices float [n, 3] in input units and faces integer [m, 3].
        result: the same of the extracted mesh, in the same units and position.
        wireframe: begin with the edges shown.
        error_colors: begin with the error colours.
        screenshot: write this PNG instead of opening a window; needs no display.
        width: of window or picture, in pixels.
        height: of window or picture, in pixels.
        up: the input's axis that points up, "y" or "z".

    Returns:
        Mean and largest distance of the result's vertices to the original, in input units.

    Raises:
        ConfigError: the screenshot is no .png, or a size or an axis that cannot be.
        DataError: one of the meshes has no faces.
        ResourceError: there is no display and no screenshot is asked for, Open3D cannot be
            imported, or the picture cannot be written.
    """
    check(screenshot, width, height, up)
    with without_chatter():
        scene = build_scene(original, result, up)
        if screenshot is None:
            _window(scene, wireframe, error_colors, width, height)
        else:
            pixels = _picture(scene, wireframe, error_colors, width, height)
            save_png(screenshot, pixels)
    return {"mean_error": float(scene.errors.mean()), "max_error": float(scene.errors.max())}


def save_pictures(original: Mesh, result: Mesh, plain: Path, errors: Path) -> None:
    """Write both meshes side by side as PNG, once plain, once in error colours; see ``show``."""
    with without_chatter():
        scene = build_scene(original, result, "y")
        for path, error_colors in ((plain, False), (errors, True)):
            save_png(path, _picture(scene, False, error_colors, WIDTH, HEIGHT))


def check(screenshot: Path | None, width: int, height: int, up: str) -> None:
    """Raise unless there is a display or a picture to draw to; takes no time.

    Raises:
        ConfigError: the screenshot is no .png, or a size or an axis that cannot be.
        ResourceError: there is no display and no screenshot is asked for.
    """
    if up not in ("y", "z"):
        raise ConfigError(f"up must be y or z, got {up}")
    for name, size in (("width", width), ("height", height)):
        if not 64 <= size <= 4096:
            raise ConfigError(f"{name} must be 64 to 4096 pixels, got {size}")
    if screenshot is None:
        if not _has_display():
            raise ResourceError(
                "there is no display to open a window on; give --screenshot out.png"
            )
    else:
        check_output(screenshot, (".png",))


def _has_display() -> bool:
    """Return whether a window can be opened: Open3D alone would draw to memory and never end."""
    if sys.platform != "linux":
        return True
    wayland = os.environ.get("WAYLAND_DISPLAY")
    if wayland:
        path = Path(os.environ.get("XDG_RUNTIME_DIR", "/run")) / wayland
        with socket.socket(socket.AF_UNIX) as end:
            if end.connect_ex(str(path)) == 0:
                return True
    if not os.environ.get("DISPLAY"):
        return False
    try:
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError:
        return False
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XOpenDisplay.argtypes = [ctypes.c_char_p]
    x11.XCloseDisplay.argtypes = [ctypes.c_void_p]
    display = x11.XOpenDisplay(None)
    if display:
        x11.XCloseDisplay(display)
    return bool(display)


class _View:
    """An Open3D visualizer with the scene in it, and what its keys do."""

    def __init__(self, vis: Any, scene: Scene, width: int, height: int, visible: bool):
        if not vis.create_window("ngp view", width=width, height=height, visible=visible):
            raise ResourceError(
                "Open3D cannot draw: it found neither a display nor EGL (Debian and Ubuntu: apt"
                " install libegl1 libgl1-mesa-dri)"
            )
        self.vis = vis
        self.scene = scene
        self.aspect = width / height
        self.wireframe = False
        self.error_colors = False
        scene.color(False)
        for geometry in (*scene.meshes, *scene.labels):
            vis.add_geometry(geometry)
        # Never kept in a variable: one that outlives destroy_window() blanks later windows.
        vis.get_render_option().background_color = np.ones(3)
        vis.get_render_option().mesh_show_back_face = True

    def switch_wireframe(self) -> None:
        """Show or hide the meshes' edges."""
        self.wireframe = not self.wireframe
        self.vis.get_render_option().mesh_show_wireframe = self.wireframe

    def switch_error_colors(self) -> None:
        """Show or hide the result's distance to the original, and its scale."""
        self.error_colors = not self.error_colors
        self.scene.color(self.error_colors)
        self.vis.update_geometry(self.scene.meshes[1])
        for geometry in self.scene.legend:
            if self.error_colors:
                self.vis.add_geometry(geometry, reset_bounding_box=False)
            else:
                self.vis.remove_geometry(geometry, reset_bounding_box=False)

    def aim(self, with_legend: bool) -> None:
        """Look from the front, so that both meshes, and the scale, fill the picture."""
        axes = camera_axes()
        low, high = self.scene.bounds(with_legend)
        centre = (low + high) / 2 @ axes
        control = self.vis.get_view_control()
        control.change_field_of_view(step=(_FIELD_OF_VIEW - _OPEN3D_FIELD_OF_VIEW) / 5)
        control.set_lookat(centre)
        control.set_front(axes[2])
        control.set_up(axes[1])
        camera = control.convert_to_pinhole_camera_parameters()
        wide, tall, deep = (high - low) * _MARGIN
        half = max(tall, wide / self.aspect) / 2
        distance = half / np.tan(np.radians(_FIELD_OF_VIEW / 2)) + deep / 2
        extrinsic = np.array(camera.extrinsic)
        extrinsic[:3, 3] = -extrinsic[:3, :3] @ (centre + distance * axes[2])
        camera.extrinsic = extrinsic
        # Set as a camera: what Open3D makes of a zoom depends on the scene's bounding box.
        control.convert_from_pinhole_camera_parameters(camera, allow_arbitrary=True)

    def pixels(self) -> np.ndarray:
        """Return what is shown, float [height, width, 3]."""
        self.vis.poll_events()
        self.vis.update_renderer()
        return np.array(self.vis.capture_screen_float_buffer(do_render=True))


def _picture(
    scene: Scene, wireframe: bool, error_colors: bool, width: int, height: int
) -> np.ndarray:
    """Return uint8 [height, width, 3]."""
    from PIL import Image

    vis = load_open3d().visualization.Visualizer()
    size = (width * _SUPERSAMPLING, height * _SUPERSAMPLING)
    try:
        view = _View(vis, scene, *size, visible=False)
        if error_colors:
            view.switch_error_colors()
        if wireframe:
            view.switch_wireframe()
        view.aim(error_colors)
        pixels = view.pixels()
    finally:
        vis.destroy_window()
    large = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
    return np.asarray(large.resize((width, height), Image.Resampling.BOX))


def _window(scene: Scene, wireframe: bool, error_colors: bool, width: int, height: int) -> None:
    """Show the window until it is closed."""
    vis = load_open3d().visualization.VisualizerWithKeyCallback()
    try:
        view = _View(vis, scene, width, height, visible=True)
        if error_colors:
            view.switch_error_colors()
        if wireframe:
            view.switch_wireframe()
        actions = {
            "W": view.switch_wireframe,
            "E": view.switch_error_colors,
            "R": lambda: view.aim(True),
        }
        for key, action in actions.items():
            # True: draw again
            vis.register_key_callback(ord(key), lambda _, action=action: action() is None)
        # Without it Open3D waits in native code, where Ctrl-C is not heard.
        vis.register_animation_callback(lambda _: time.sleep(_SECONDS_BETWEEN_FRAMES))
        view.aim(True)
        vis.run()
    finally:
        vis.destroy_window()
