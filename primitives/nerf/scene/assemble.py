"""From what a file says of each view to the views of a scene, with all checks they share."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ngp_warp.primitives.nerf.scene.checks import Checks, SceneError
from ngp_warp.primitives.nerf.scene.files import is_file
from ngp_warp.primitives.nerf.scene.photo import fit_lens, photo_sizes
from ngp_warp.primitives.nerf.scene.poses import TOLERANCE, check_pose
from ngp_warp.primitives.nerf.scene.splits import SPLITS
from ngp_warp.primitives.nerf.types import Split, View
from ngp_warp.rays.lenses import Lens

Size = tuple[int, int]

MISSING_MOST = 0.5
"""Share of the photos that may be missing: their views are left out."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One view as a file states it."""

    where: str
    """File and frame, for errors."""
    name: str
    image: Path
    """May not be there."""
    pose: np.ndarray
    """[3, 4] or [4, 4], camera to scene, OpenGL's axes; not checked."""
    lens: Callable[[Size], Lens]
    """The stated lens; takes the photo's size, for files that state none."""
    split: Split = "train"
    mask: Path | None = None
    depth: Path | None = None


@dataclass
class Assembly:
    """Views as they are gathered, and what is said once for all of them."""

    path: str
    """Named in errors that concern no single view."""
    checks: Checks
    views: list[View] = field(default_factory=list)
    _seen: dict[str, Record] = field(default_factory=dict)
    _named: dict[str, Record] = field(default_factory=dict)
    _missing: list[Record] = field(default_factory=list)
    _scaled_poses: list[str] = field(default_factory=list)
    _scaled_lenses: list[str] = field(default_factory=list)
    _not_turned: list[str] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Check one view and take it, unless its photo is not there.

        Raises:
            DataError: something is wrong with it, unless the checks collect.
        """
        pose = lens = None
        named = whole = False
        with self.checks.part():
            self._check_name(record)
            named = True
        with self.checks.part():
            pose, scale = check_pose(record.pose, record.where)
            if abs(scale - 1) > TOLERANCE:
                self._scaled_poses.append(record.name)
        if not is_file(record.image):
            self._missing.append(record)
            return
        with self.checks.part():
            lens = self._lens(record)
        with self.checks.part():
            self._check_companions(record, lens)
            whole = True
        if named and whole and pose is not None and lens is not None:
            self.views.append(
                View(
                    name=record.name,
                    image=record.image,
                    lens=lens,
                    pose=pose,
                    split=record.split,
                    mask=record.mask,
                    depth=record.depth,
                )
            )

    def finish(self) -> tuple[View, ...]:
        """Say what concerns several views, and return all of them.

        Raises:
            DataError: no views, or too many missing photos.
        """
        self._say_missing()
        with self.checks.part():
            self._hold_back()
        if self._scaled_poses:
            what = f"{_of(self._scaled_poses)}: the rotation of the pose is scaled"
            self.checks.warn(self.path, what, "the scale was removed")
        if self._scaled_lenses:
            self.checks.note(f"lens scaled to the photo's size: {_of(self._scaled_lenses)}")
        if self._not_turned:
            self.checks.note(
                "EXIF orientation not applied, for the lens is of the photo as it is stored: "
                f"{_of(self._not_turned)}"
            )
        if not self.views and not self.checks.errors:
            raise SceneError(self.path, "holds no views", "a scene needs at least one photo")
        return tuple(sorted(self.views, key=lambda view: SPLITS.index(view.split)))

    def _check_name(self, record: Record) -> None:
        other = self._seen.setdefault(os.path.normpath(record.image), record)
        if other is record:
            other = self._named.setdefault(record.name, record)
            if other is not record:
                raise SceneError(
                    record.where, f"two photos are named {record.name}", "rename one of them"
                )
        elif other.split == record.split:
            raise SceneError(
                record.where,
                f"its photo {record.name} is also that of {other.where.rpartition(', ')[2]}",
                "remove one of the two",
            )

    def _hold_back(self) -> None:
        """Keep a photo of several splits in the last of train, val and test alone."""
        last: dict[str, Split] = {}
        for split in SPLITS:
            last.update({view.name: split for view in self.views if view.split == split})
        twice = [view.name for view in self.views if view.split != last[view.name]]
        self.views = [view for view in self.views if view.split == last[view.name]]
        if twice:
            what = f"{_of(twice)}: the photo is in several splits"
            self.checks.warn(self.path, what, "it is held back from training")
        if self.views and all(view.split != "train" for view in self.views):
            raise SceneError(
                self.path, "no view is left for training", "give one of its files by itself"
            )

    def _lens(self, record: Record) -> Lens:
        """Return the lens for the photo's own size."""
        sizes = photo_sizes(record.image)
        stated = record.lens(sizes[0])
        lens = fit_lens(stated, sizes, record.where)
        if (lens.width, lens.height) != (stated.width, stated.height):
            self._scaled_lenses.append(record.name)
        if len(sizes) > 1 and (lens.width, lens.height) == sizes[0]:
            self._not_turned.append(record.name)
        return lens

    def _check_companions(self, record: Record, lens: Lens | None) -> None:
        """Raise unless mask and depth map are there and have the photo's size, if it is known."""
        for kind, path in (("mask", record.mask), ("depth map", record.depth)):
            if path is None:
                continue
            if not is_file(path):
                mend = "put it there, or remove it from the file"
                raise SceneError(record.where, f"its {kind} {path} is not there", mend)
            sizes = photo_sizes(path)
            if lens is not None and (lens.width, lens.height) not in sizes:
                raise SceneError(
                    record.where,
                    f"its {kind} {path} has {sizes[0][0]}x{sizes[0][1]} pixels, its photo "
                    f"{lens.width}x{lens.height}",
                    f"scale the {kind} to the photo's size",
                )

    def _say_missing(self) -> None:
        if not self._missing:
            return
        total = len(self._seen)
        first = self._missing[0]
        what = (
            f"{len(self._missing)} of {total} photos are not there: {first.image}"
            if len(self._missing) > 1
            else f"a photo is not there: {first.image}"
        )
        what += f" and {len(self._missing) - 1} more" if len(self._missing) > 1 else ""
        if len(self._missing) > MISSING_MOST * total:
            with self.checks.part():
                raise SceneError(first.where, what, "put them where the file says, or correct it")
        else:
            self.checks.warn(first.where, what, "such views are left out")


def _of(names: list[str]) -> str:
    """Return the first of several names, and how many more there are."""
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
