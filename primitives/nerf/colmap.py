"""COLMAP's steps through pycolmap, in portions: with progress, and ended by Ctrl-C.

pycolmap works without Python's lock, in a thread of its own; the main thread tells how many photos
or pairs are done, and hands an interruption on. The database is not looked at meanwhile: pycolmap
has an SQLite of its own, and two in one process undo each other's locks.
"""

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ngp_warp.errors import ConfigError, DataError, ResourceError
from ngp_warp.primitive import Progress, Report

_T = TypeVar("_T")

_SECONDS_BETWEEN_LOOKS = 0.25
_PHOTOS_PER_THREAD = 2  # in a portion; the last ones of each leave threads idle
_MIN_PAIRS = 64  # in a portion, which costs some milliseconds
_MAX_PORTIONS = 50
_NEIGHBOURS = 10
_MIN_PHOTOS_A_CAMERA = 10  # for its principal point to be told from its rotation
_MOST_SHIFT = 0.1  # of the principal point from the middle, in sides of the photo
SEED = 0


@dataclass(frozen=True)
class Steps:
    """Where COLMAP works and how."""

    database: Path
    photos: Path
    """The folder."""
    threads: int
    device: str
    """cpu or cuda."""
    report: Report


def load_pycolmap() -> Any:
    """Return the module.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pycolmap
    except ImportError:
        raise ConfigError(
            "structure from motion needs pycolmap, which is not installed: "
            "pip install 'ngp-warp[nerf]', or pip install 'pycolmap>=4'"
        ) from None
    return pycolmap


def choose_device(device: str) -> str:
    """Return cpu or cuda for auto, cpu, cuda or cuda:N.

    Raises:
        ResourceError: CUDA was asked for and this pycolmap has none.
    """
    has_cuda = bool(load_pycolmap().has_cuda)
    if device == "auto":
        return "cuda" if has_cuda else "cpu"
    if device.startswith("cuda") and not has_cuda:
        raise ResourceError(
            "this pycolmap was built without CUDA: use --device cpu, or "
            "pip install pycolmap-cuda12 in its place"
        )
    return "cuda" if device.startswith("cuda") else device


def find_features(
    steps: Steps, groups: Sequence[Sequence[str]], model: str, most: int, max_size: int
) -> None:
    """Find SIFT features of all photos; each group of names shares one camera."""
    pycolmap = load_pycolmap()
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads = steps.threads
    options.max_image_size = max_size
    options.sift.max_num_features = most
    step, done = _PHOTOS_PER_THREAD * steps.threads, [0]

    def work(token: Any) -> None:
        for group in groups:
            reader = pycolmap.ImageReaderOptions()
            reader.camera_model = model
            for i in range(0, len(group), step):
                pycolmap.extract_features(
                    steps.database,
                    steps.photos,
                    image_names=list(group[i : i + step]),
                    camera_mode=pycolmap.CameraMode.SINGLE,
                    reader_options=reader,
                    extraction_options=options,
                    device=getattr(pycolmap.Device, steps.device),
                    cancellation_token=token,
                )
                reader.existing_camera_id = _newest_camera(steps.database)
                done[0] += len(group[i : i + step])

    _watched(work, steps, "features", sum(map(len, groups)), done)


def _newest_camera(database: Path) -> int:
    """Return the id of the camera that was added last."""
    opened = load_pycolmap().Database.open(database)
    try:
        return max(camera.camera_id for camera in opened.read_all_cameras())
    finally:
        opened.close()


def pairs_of(n_photos: int, matcher: str) -> list[tuple[int, int]]:
    """Return which photos are compared: all pairs, or neighbours and those 2^k places apart."""
    reach = set(range(1, n_photos))
    if matcher == "sequential":
        reach = {*range(1, _NEIGHBOURS + 1), *(1 << k for k in range(n_photos.bit_length()))}
    return [(i, i + d) for i in range(n_photos) for d in sorted(reach) if i + d < n_photos]


def match_photos(steps: Steps, names: Sequence[str], matcher: str) -> None:
    """Match the features of pairs of photos.

    Args:
        steps: where and how.
        names: without white space.
        matcher: exhaustive or sequential.
    """
    pycolmap = load_pycolmap()
    options = pycolmap.FeatureMatchingOptions()
    options.num_threads = steps.threads
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = steps.database.with_name("pairs.txt")
    pairs, done = pairs_of(len(names), matcher), [0]
    step = max(_MIN_PAIRS, len(pairs) // _MAX_PORTIONS)

    def work(token: Any) -> None:
        for i in range(0, len(pairs), step):
            lines = [f"{names[a]} {names[b]}\n" for a, b in pairs[i : i + step]]
            pairing.match_list_path.write_text("".join(lines), encoding="utf-8")
            pycolmap.match_image_pairs(
                steps.database,
                matching_options=options,
                pairing_options=pairing,
                device=getattr(pycolmap.Device, steps.device),
                cancellation_token=token,
            )
            done[0] += len(lines)

    _watched(work, steps, "matching", len(pairs), done)


def reconstruct(steps: Steps, output: Path, n_photos: int) -> list[Any]:
    """Find cameras and points; return the reconstructions, most photos first."""
    pycolmap = load_pycolmap()
    pycolmap.set_random_seed(SEED)
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = steps.threads
    options.random_seed = SEED
    options.min_model_size = 3
    done = [0]

    def work(token: Any) -> dict[int, Any]:
        return pycolmap.incremental_mapping(
            steps.database,
            steps.photos,
            output,
            options=options,
            initial_image_pair_callback=lambda: done.__setitem__(0, 2),
            next_image_callback=lambda: done.__setitem__(0, done[0] + 1),
            cancellation_token=token,
        )

    found = _watched(work, steps, "mapping", n_photos, done)
    best = sorted(found.values(), key=lambda r: r.num_reg_images(), reverse=True)
    return [refine_principal_points(best[0], steps), *best[1:]] if best else []


def refine_principal_points(model: Any, steps: Steps) -> Any:
    """Adjust everything once more, principal points too, which COLMAP takes to be in the middle.

    On a phone's photos this halved the error of the poses (0.18 to 0.09 degrees). Only where each
    camera took photos enough, and nothing absurd comes of it; otherwise ``model`` as it is.
    """
    pycolmap = load_pycolmap()
    cameras = [model.images[i].camera_id for i in model.reg_image_ids()]
    if min(cameras.count(camera) for camera in cameras) < _MIN_PHOTOS_A_CAMERA:
        return model
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_principal_point = True
    options.print_summary = False
    options.ceres.solver_options.num_threads = steps.threads
    refined = copy.deepcopy(model)
    config = pycolmap.BundleAdjustmentConfig()
    for image in model.reg_image_ids():
        config.add_image(image)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    # Not pycolmap.bundle_adjustment, whose log cannot be turned off.
    adjuster = pycolmap.create_default_bundle_adjuster(options, config, refined)
    n_photos = len(cameras)
    solved = _watched(lambda token: adjuster.solve(), steps, "mapping", n_photos, [n_photos])
    refined.update_point_3d_errors()
    better = refined.compute_mean_reprojection_error() <= model.compute_mean_reprojection_error()
    sound = solved.is_solution_usable() and all(map(_is_central, refined.cameras.values()))
    return refined if better and sound else model


def _is_central(camera: Any) -> bool:
    x = camera.principal_point_x / camera.width - 0.5
    y = camera.principal_point_y / camera.height - 0.5
    return max(abs(x), abs(y)) < _MOST_SHIFT and not camera.has_bogus_params(0.1, 10.0, 1.0)


def _watched(
    work: Callable[[Any], _T], steps: Steps, stage: str, total: int, done: list[int]
) -> _T:
    """Run ``work`` in a thread, tell of ``done[0]``, and cancel it when interrupted.

    Raises:
        DataError: COLMAP has failed.
    """
    pycolmap = load_pycolmap()
    token = pycolmap.CancellationToken()
    results: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work(token))
        except BaseException as error:  # raised again below
            errors.append(error)

    thread = threading.Thread(target=run, name=f"colmap-{stage}", daemon=True)
    with _quiet(pycolmap):
        thread.start()
        try:
            while thread.is_alive():
                thread.join(_SECONDS_BETWEEN_LOOKS)
                steps.report(Progress(stage=stage, step=min(done[0], total), total=total))
        except BaseException:
            token.cancel()
            thread.join()
            raise
    if errors:
        error = errors[0]
        if isinstance(error, RuntimeError | ValueError | OSError):
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"structure from motion failed ({stage}): {reason}") from error
        raise error
    return results[0]


@contextlib.contextmanager
def _quiet(pycolmap: Any) -> Iterator[None]:
    """Keep COLMAP's log, which goes to stderr, to what ends the process."""
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.Level.FATAL.value
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before
