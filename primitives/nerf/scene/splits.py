"""Which views are held back, where the files say so."""

import os
from pathlib import Path

from ngp_warp.primitives.nerf.scene.checks import SceneError
from ngp_warp.primitives.nerf.scene.values import Values
from ngp_warp.primitives.nerf.types import Split

SPLITS: tuple[Split, ...] = ("train", "val", "test")
_OF_FILE: dict[str, Split] = {f"transforms_{split}.json": split for split in SPLITS}


def split_of_file(path: Path) -> Split | None:
    """Return the split that a file's name says, None for other names."""
    return _OF_FILE.get(path.name)


def listed_splits(top: Values, names: list[str]) -> dict[str, Split] | None:
    """Return the splits that nerfstudio's train_, val_ and test_filenames name.

    Args:
        top: the file.
        names: file_path of its frames.

    Returns:
        file_path to split: what is in no list is not in it, unless there is no list of training
        views, when it is one. None: the file has no lists.

    Raises:
        DataError: a list names what no frame has.
    """
    lists: list[tuple[Split, list[str] | None]] = [
        (split, top.texts(f"{split}_filenames")) for split in SPLITS
    ]
    if all(listed is None for _, listed in lists):
        return None
    known = {os.path.normpath(name): name for name in names}
    result: dict[str, Split] = dict.fromkeys(names, "train") if lists[0][1] is None else {}
    for split, listed in lists:  # held back comes last, and wins
        for name in listed or []:
            frame = known.get(os.path.normpath(name))
            if frame is None:
                raise SceneError(
                    top.where,
                    f"{split}_filenames names {name[:80]!r}, which no frame has",
                    "remove it there, or add the frame",
                )
            result[frame] = split
    return result
