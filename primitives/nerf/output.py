"""Pictures and films of a run: ``ngp render``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ngp_warp.errors import ConfigError
from ngp_warp.files import check_output
from ngp_warp.primitive import Report, check_options, report_nothing
from ngp_warp.primitives.film import SUFFIXES, TURN_FPS, TURN_FRAMES, check_fps, check_video
from ngp_warp.primitives.nerf import shots
from ngp_warp.primitives.nerf.colors import parse_background
from ngp_warp.primitives.nerf.render import PICTURE_SUFFIXES, Show, check_show, write_picture
from ngp_warp.primitives.nerf.sequence import Look, render_film, render_folder
from ngp_warp.primitives.nerf.subject import Subject
from ngp_warp.primitives.nerf.traced import Shot
from ngp_warp.rays.camera_paths import load_camera_path
from ngp_warp.rays.cameras import Up, turntable

Path3D = Literal["orbit", "spiral"]


@dataclass(frozen=True)
class _Series:
    """Pictures that belong together."""

    shots: Sequence[Shot]
    fps: float = TURN_FPS
    names: Sequence[str] | None = None
    """File names in a folder; None: numbers."""


def render(
    run: Any,
    output: Path,
    *,
    width: int | None = None,
    height: int | None = None,
    view: str | None = None,
    test: bool = False,
    camera: str | None = None,
    camera_path: str | Path | None = None,
    path: Path3D | None = None,
    up: Up | None = None,
    spp: int | None = None,
    show: Show = "color",
    background: str | None = None,
    appearance: str | None = None,
    frames: int | None = None,
    fps: float | None = None,
    progress: Report = report_nothing,
) -> None:
    """Write a picture (.png; of a depth also .npy, .exr), a film (.mp4, .mov, .mkv) or a folder.

    Args:
        run: of photos; or its ``Subject``.
        output: the file; a name without an extension is a folder of pictures.
        width: in pixels; None: from the height, or as the photos (800 with a camera).
        height: in pixels; None: from the width, or as the photos.
        view: a photo's number or name: the same view. None, and nothing else that says where from:
            the first that was held back.
        test: all views that were held back, to a folder.
        camera: "orbit:AZIMUTH,ELEVATION,DISTANCE": in degrees about the middle of the inner cube,
            in sides of that cube. Of a film: a turntable.
        camera_path: JSON in the scene's units, see ``ngp_warp.rays.camera_paths``.
        path: "orbit": about what the photos show, from their distance and height, or as ``camera``
            says; "spiral": in front of it. A film goes around in an orbit unless told otherwise.
        up: the scene's axis that points up; None: what is up in the photos.
        spp: samples of a pixel.
        show: colour; expected depth along the optical axis, in the scene's units (.npy, .exr) or
            as colours; normals as colours; or opacity as grey values.
        background: "white", "black", "R,G,B" (0 to 1, sRGB) or "transparent"; None: what was
            learned, or that of the photos, or black.
        appearance: the trained view whose appearance pictures have; None: their own view's.
        frames: of a path.
        fps: of a film along a path, pictures a second.
        progress: told what is done.

    Raises:
        ConfigError: an extension or an option that does not go with the others.
        DataError: the camera path cannot be read.
        ResourceError: the file cannot be written.
    """
    given = {"view": view, "test": test or None, "camera": camera, "camera_path": camera_path}
    given |= {"path": path, "up": up, "spp": spp, "background": background}
    given |= {"frames": frames, "fps": fps}
    kind = _kind_of(output)
    _check(given, show, kind, output)
    color = None if background is None else parse_background(background)
    subject = run if isinstance(run, Subject) else Subject.of(run)
    look = Look(
        renderer=subject.renderer(color, transparent=background == "transparent"),
        show=show,
        spp=1 if spp is None else spp,
        transparent=background == "transparent",
    )
    where = _Where(subject, (width, height), up, _latent(subject, appearance))
    if kind == "picture":
        shot = where.one(view, camera)
        made = look.buffers(shot, progress)
        space = subject.field.settings.color_space
        write_picture(output, made, show, space, transparent=look.transparent)
        return
    series = where.series(test, camera, camera_path, path, frames, fps)
    if kind == "film":
        first = series.shots[0]
        check_video(output, first.width, first.height)
        render_film(look, series.shots, output, series.fps, progress)
    else:
        render_folder(look, series.shots, output, series.names, progress)


def _kind_of(output: Path) -> str:
    if not output.suffix:
        return "folder"
    return "film" if output.suffix.lower() in SUFFIXES else "picture"


def _check(given: dict[str, Any], show: str, kind: str, output: Path) -> None:
    """Raise ConfigError where an option would do nothing, or the extension does not fit."""
    check_show(show)
    names = [name for name, value in given.items() if value is not None]
    known = {"spp"} if show in ("color", "opacity") else set()
    known |= {"background"} if show == "color" else set()
    sources = {"view", "test", "camera", "camera_path", "path"} & set(names)
    if kind == "picture":
        known |= {"view", "camera"} | ({"up"} if "camera" in sources else set())
        what = f"a picture with --show {show}"
    elif "test" in sources:
        known, what = known | {"test"}, "the views that were held back (a folder)"
    elif "camera_path" in sources:
        known, what = known | {"camera_path"}, "pictures along a camera path"
    else:
        known |= {"path", "camera", "up", "frames"} | ({"fps"} if kind == "film" else set())
        what = f"a {kind} along a path with --show {show}"
    check_options(names, known, what)
    _check_sources(sources, given, kind)
    if kind == "film" and given["background"] == "transparent":
        raise ConfigError("films have no transparency; give another --background, or a folder")
    if kind == "picture":
        if output.suffix.lower() not in PICTURE_SUFFIXES[show]:
            wanted = " or ".join(f"*{s}" for s in PICTURE_SUFFIXES[show])
            raise ConfigError(
                f"cannot write {output}: --show {show} is named {wanted}, a film "
                f"*{', *'.join(SUFFIXES)}, a folder has no extension"
            )
        check_output(output, PICTURE_SUFFIXES[show])
    elif kind == "film":
        check_output(output, SUFFIXES)


def _check_sources(sources: set[str], given: dict[str, Any], kind: str) -> None:
    if kind == "picture" and {"view", "camera"} <= sources:
        raise ConfigError("give --view or --camera, not both")
    if kind == "folder" and not sources:
        raise ConfigError("a folder of pictures needs --test, --camera-path, --path or --camera")
    if given["path"] is not None and given["path"] not in get_args(Path3D):
        raise ConfigError(f"--path must be orbit or spiral, got {given['path']}")
    if given["path"] == "spiral" and "camera" in sources:
        raise ConfigError("--camera is for --path orbit; a spiral follows from the photos")
    if kind == "film" and "test" in sources:
        raise ConfigError("--test makes a folder of pictures; give -o a name without an extension")


def _latent(subject: Subject, appearance: str | None) -> int | None:
    """Return the latent vector that ``--appearance`` names.

    Raises:
        ConfigError: the run has none, or the view was not trained.
    """
    if appearance is None:
        return None
    if not subject.field.settings.n_latent_dims:
        raise ConfigError("--appearance needs a run that was trained with --appearance")
    index = shots.find_view(subject.views, appearance, "--appearance")
    latent = subject.latent(index)
    if latent is None:
        raise ConfigError(f"--appearance {appearance}: this view was not trained, so it has none")
    return latent


@dataclass(frozen=True)
class _Where:
    """From where pictures are taken."""

    subject: Subject
    size: shots.Size
    up: Up | None
    latent: int | None

    def one(self, view: str | None, camera: str | None) -> Shot:
        if camera is not None:
            return shots.shot_of(self._orbit(camera), self.latent)
        if view is not None:
            return self._view(shots.find_view(self.subject.views, view, "--view"))
        return self._view((*self.subject.held_back, 0)[0])

    def series(
        self,
        test: bool,
        camera: str | None,
        camera_path: str | Path | None,
        path: str | None,
        frames: int | None,
        fps: float | None,
    ) -> _Series:
        if test:
            numbers = self.subject.held_back
            if not numbers:
                raise ConfigError("the run held no views back; give --view")
            names = shots.picture_names([self.subject.views[i] for i in numbers])
            return _Series([self._view(i) for i in numbers], names=names)
        if camera_path is not None:
            middle, _ = shots.inner_cube(self.subject.frame, self.subject.field.settings.aabb_scale)
            film = load_camera_path(
                camera_path, **shots.pinhole_size(self.size), look_at=shots.triple(middle)
            )
            return _Series([shots.shot_of(c, self.latent) for c in film.cameras], film.fps)
        n_frames = TURN_FRAMES if frames is None else frames
        rate = TURN_FPS if fps is None else fps
        check_fps(rate)
        if camera is not None:
            cameras = turntable(self._orbit(camera), n_frames)
        else:
            make = shots.photo_orbit if path in (None, "orbit") else shots.photo_spiral
            lens = shots.sized(self.subject.lenses[0], self.size)
            views = [self.subject.views[i] for i in self.subject.trained]
            cameras = make(views or self.subject.views, self._up(), n_frames, lens)
        return _Series([shots.shot_of(c, self.latent) for c in cameras], rate)

    def _view(self, index: int) -> Shot:
        shot = self.subject.shot(index, self.size)
        return shot if self.latent is None else shots.with_latent(shot, self.latent)

    def _orbit(self, camera: str) -> Any:
        subject = self.subject
        scale = subject.field.settings.aabb_scale
        size = shots.pinhole_size(self.size)
        return shots.orbit_camera(camera, subject.frame, scale, self._up(), **size)

    def _up(self) -> Any:
        return shots.choose_up(self.up, self.subject.views)
