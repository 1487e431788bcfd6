"""From photos or a video to a scene with transforms.json: structure from motion by COLMAP."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ngp_warp.config import check_choice, check_range
from ngp_warp.errors import DataError, ResourceError
from ngp_warp.files import atomic_folder
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.primitives.nerf import colmap, sfm_photos
from ngp_warp.primitives.nerf.photo_files import unmuted
from ngp_warp.primitives.nerf.sfm_photos import Photo
from ngp_warp.primitives.nerf.sfm_scene import write_scene

CameraModel = Literal[
    "SIMPLE_PINHOLE",
    "PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "FULL_OPENCV",
    "SIMPLE_RADIAL_FISHEYE",
    "RADIAL_FISHEYE",
    "OPENCV_FISHEYE",
]
Matcher = Literal["auto", "exhaustive", "sequential"]

MIN_PHOTOS = 3
_MOST_EXHAUSTIVE = 150  # 11,175 pairs: a quarter of an hour on two cores
_FEW = 2 / 3
_ADVICE = (
    "take more photos with more overlap (neighbours should share two thirds), walk around instead "
    "of turning on the spot, and avoid blur and plain surfaces"
)


@dataclass(frozen=True, kw_only=True)
class SfmOptions:
    """How cameras are found."""

    camera_model: CameraModel = "OPENCV"
    """COLMAP's camera model."""
    matcher: Matcher = "auto"
    """Which pairs of photos are compared: all (exhaustive), or neighbours by name (sequential)."""
    max_photos: int | None = None
    """Most photos to use: the sharpest of so many runs of neighbours."""
    max_features: int = 4096
    """Most features of a photo."""
    max_image_size: int = 1200
    """Longer side at which features are looked for, in pixels."""
    video_fps: float = 2.0
    """Frames to take from a second of video: the sharpest of each interval."""
    link: bool = False
    """Link to the photos instead of copying them."""

    def __post_init__(self) -> None:
        check_choice("camera_model", self.camera_model, get_args(CameraModel))
        check_choice("matcher", self.matcher, get_args(Matcher))
        if self.max_photos is not None:
            check_range("max_photos", self.max_photos, MIN_PHOTOS, 100_000)
        check_range("max_features", self.max_features, 100, 65_536)
        check_range("max_image_size", self.max_image_size, 64, 65_536)
        check_range("video_fps", self.video_fps, 1e-3, 1000.0)


def process_photos(
    source: str | Path,
    output: str | Path,
    *,
    options: SfmOptions | None = None,
    device: str = "auto",
    threads: int | None = None,
    report: Report = report_nothing,
) -> dict[str, Any]:
    """Find where photos were taken from and write a scene.

    ``output`` gets ``images/``, ``transforms.json`` (camera-to-world in OpenGL's axes, readable by
    instant-ngp and nerfstudio), ``sparse/0`` (COLMAP's model) and ``points.ply``, all in the same
    axes: z up, the origin where the cameras look at, 4 units from them on average. It is written
    beside and renamed.

    Args:
        source: a folder of photos, or a video.
        output: a folder that does not exist yet, or is empty.
        options: how; None: the defaults.
        device: auto, cpu, cuda or cuda:N, for features and matching.
        threads: of a CPU; None: every core.
        report: told of progress ("load", "features", "matching", "mapping"), and of warnings.

    Returns:
        What the report says: "photos", "registered", "not_registered" and "unreadable" (names),
        "points", "reprojection_error" in pixels, "reconstructions", "camera_model", "focal" in
        pixels, "aabb_scale", "scene".

    Raises:
        DataError: no photos, too few, or none that COLMAP could place.
        ConfigError: pycolmap is not installed.
        ResourceError: no such device, or the output cannot be written.
    """
    source, output, options = Path(source), Path(output), options or SfmOptions()
    colmap.load_pycolmap()
    chosen_device = colmap.choose_device(device)
    threads = threads or os.cpu_count() or 1
    is_video = _check_paths(source, output)
    with atomic_folder(output, "transforms.json") as folder:
        photos_folder, paths = source, []
        if is_video:
            photos_folder = folder / "images"
            photos_folder.mkdir()
            paths = sfm_photos.extract_frames(source, photos_folder, options.video_fps, report)
        else:
            paths = sfm_photos.list_photos(source)
        photos, unreadable = _usable(paths, options, threads, report)
        work = folder / "work"
        steps = _prepare(work, photos_folder, photos, threads, chosen_device, report)
        found = _find_cameras(steps, photos, options, is_video)
        result = write_scene(folder, photos_folder, found[0], photos, options.link)
        shutil.rmtree(work)
    result |= {
        "photos": len(photos),
        "unreadable": list(unreadable),
        "reconstructions": len(found),
        "scene": output,
    }
    _warn(result, report)
    return result


def _check_paths(source: Path, output: Path) -> bool:
    """Return whether the source is a video; raise before any work is done."""
    if os.path.lexists(output) and not (output.is_dir() and not any(output.iterdir())):
        raise ResourceError(f"{output} exists already: name another folder, or remove it first")
    if source.is_dir():
        return False
    if not source.exists():
        raise DataError(f"{source} does not exist: give a folder of photos or a video file")
    if source.suffix.lower() not in sfm_photos.VIDEO_SUFFIXES:
        raise DataError(
            f"{source} is neither a folder of photos nor a video "
            f"({', '.join(sfm_photos.VIDEO_SUFFIXES)})"
        )
    return True


def _usable(
    paths: list[Path], options: SfmOptions, threads: int, report: Report
) -> tuple[list[Photo], dict[str, str]]:
    """Return the photos to use, and why others cannot be."""
    photos, unreadable = sfm_photos.look_at(paths, threads, report)
    for reason in unreadable.values():
        report(Progress(stage="load", total=len(paths), message=f"warning: left out: {reason}"))
    if len(photos) < MIN_PHOTOS:
        why = f"; {next(iter(unreadable.values()))}" if unreadable else ""
        raise DataError(
            f"{paths[0].parent} holds {len(photos)} photos that can be read: at least "
            f"{MIN_PHOTOS} are needed, 20 to 200 are usual{why}"
        )
    return sfm_photos.choose(photos, options.max_photos), unreadable


def _prepare(
    work: Path, source: Path, photos: list[Photo], threads: int, device: str, report: Report
) -> colmap.Steps:
    """Make the folder where COLMAP works, with links of plain names: its lists end at a space."""
    (work / "photos").mkdir(parents=True)
    for i, photo in enumerate(photos):
        link = work / "photos" / _work_name(i, photo)
        original = (source / photo.name).resolve()
        try:
            link.symlink_to(original)
        except OSError:  # Windows, without the right to make links
            shutil.copyfile(original, link)
    return colmap.Steps(
        work.resolve() / "database.db", work / "photos", threads, device, unmuted(report)
    )


def _work_name(i: int, photo: Photo) -> str:
    return f"{i:06d}{Path(photo.name).suffix.lower()}"


def _find_cameras(
    steps: colmap.Steps, photos: list[Photo], options: SfmOptions, is_video: bool
) -> list[Any]:
    """Return COLMAP's reconstructions, the one of most photos first, with the photos' names.

    Raises:
        DataError: there is none.
    """
    names = [_work_name(i, photo) for i, photo in enumerate(photos)]
    groups: dict[Any, list[str]] = {}
    for name, photo in zip(names, photos, strict=True):
        groups.setdefault(photo.camera, []).append(name)
    colmap.find_features(
        steps,
        list(groups.values()),
        options.camera_model,
        options.max_features,
        options.max_image_size,
    )
    matcher = _choose_matcher(options.matcher, len(photos), is_video, steps.report)
    colmap.match_photos(steps, names, matcher)
    output = steps.photos.with_name("models")
    output.mkdir()
    found = colmap.reconstruct(steps, output, len(photos))
    if not found or found[0].num_reg_images() < MIN_PHOTOS:
        raise DataError(
            f"none of the {len(photos)} photos could be placed: {_ADVICE}"
            + ("; try --matcher exhaustive" if matcher == "sequential" else "")
        )
    originals = dict(zip(names, (photo.name for photo in photos), strict=True))
    for image in found[0].images.values():
        image.name = originals[image.name]
    return found


def _choose_matcher(matcher: str, n_photos: int, is_video: bool, report: Report) -> str:
    """Return exhaustive or sequential, with a word where that may be wrong."""
    if matcher != "auto":
        return matcher
    if is_video:
        return "sequential"
    if n_photos <= _MOST_EXHAUSTIVE:
        return "exhaustive"
    text = f"{n_photos} photos: neighbours by name are compared; --matcher exhaustive compares all"
    report(Progress(stage="matching", message=text))
    return "sequential"


def _warn(result: dict[str, Any], report: Report) -> None:
    n_photos, n_registered = result["photos"], result["registered"]
    if n_registered >= _FEW * n_photos:
        return
    several = ""
    if result["reconstructions"] > 1:
        several = f" (the largest of {result['reconstructions']} separate reconstructions)"
    text = f"warning: only {n_registered} of {n_photos} photos could be placed{several}: {_ADVICE}"
    report(Progress(stage="write", message=text))
