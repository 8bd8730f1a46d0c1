"""What is no classification folder: masks, boxes, frames of videos.

Owns how each is recognised, by names alone.
"""

import re
from collections import Counter
from collections.abc import Iterator

from convlens.data.sources.listing import Folder
from convlens.data.sources.split_words import split_of, words_of
from convlens.data.sources.tree import stem_of, suffix_of
from convlens.text import listed

_PICTURES = frozenset(
    {
        "image", "images", "img", "imgs", "jpegimages", "input", "inputs", "photo", "photos", "picture",
        "pictures", "original",
    }
)  # fmt: skip
_MASKS = frozenset(
    {
        "mask", "masks", "segmentation", "segmentations", "gt", "groundtruth", "ground", "truth", "annotation",
        "annotations", "label", "labels", "contour", "contours", "trimap", "trimaps",
    }
)  # fmt: skip
_VIDEO = frozenset(
    {
        "video", "videos", "clip", "seq", "sequence", "scene", "shot", "movie", "take",
    }
)  # fmt: skip
_NOT_ONE_CLASS = "convlens tells whole pictures apart: it needs a folder for each class, or a table of path and label"


def looks_like(root: Folder, top: Folder) -> str | None:
    """What a tree of pictures looks like where it is no tree of classes, as the end of a sentence; None elsewhere.
    `top` is the folder in it where class folders would lie."""
    if not top.num_pictures:
        return None
    said = _boxes(root, top) or _masks_beside(root) or _masks(top) or _videos(top)
    return None if said is None else f"looks like {said}: {_NOT_ONE_CLASS}"


def _words(folder: Folder) -> frozenset[str]:
    return frozenset(words_of(folder.name))


def _levels(top: Folder) -> Iterator[list[Folder]]:
    """The folders at the top, and those in each folder of a split or of images."""
    yield top.subfolders
    for folder in top.subfolders:
        if split_of(folder.name) is not None or _words(folder) & _PICTURES:
            yield folder.subfolders


def _boxes(root: Folder, top: Folder) -> str | None:
    """YOLO's text files, VOC's XML or COCO's JSON, beside pictures that lie in no class folders."""
    stems = {stem_of(path) for path in root.pictures()}
    notes = [path for folder in root.every() for path in folder.others]
    beside = Counter(suffix_of(path) for path in notes if stem_of(path) in stems)
    half = root.num_pictures / 2
    if beside.get(".xml", 0) >= half:
        return "pictures with boxes (VOC's XML)"
    texts = [path for path in notes if suffix_of(path) == ".txt" and stem_of(path) in stems]
    in_labels = [
        path for path in texts if path.rpartition("/")[0].rpartition("/")[2].lower() == "labels" or "/labels/" in path
    ]
    if beside.get(".txt", 0) >= half or (in_labels and any("images" in _words(one) for one in root.every())):
        return "pictures with boxes (YOLO's labels/*.txt)"
    coco = [path for path in notes if suffix_of(path) == ".json" and re.search(r"instances|coco|annotations", path)]
    if coco and not any(inner.folders for inner in top.folders):
        return f"pictures with boxes or masks (COCO's JSON, {listed(coco, 1)})"
    return None


def _masks_beside(root: Folder) -> str | None:
    """Masks in the pictures' own folders: benign (1).png and benign (1)_mask.png."""
    stems = {(path.rpartition("/")[0], stem_of(path)) for path in root.pictures()}
    masks = [
        (folder, stem)
        for folder, stem in stems
        if (match := _MASK.search(stem)) is not None and (folder, stem[: match.start()]) in stems
    ]
    if len(masks) >= max(1, 0.1 * len(stems)):
        return f"pictures with masks beside them ({listed(sorted(stem for _, stem in masks), 2)})"
    return None


_MASK = re.compile(r"(?i)[-_. ]+(mask|gt|groundtruth|seg|segmentation|label)(?:[-_ ]?\d+)?$")


def _masks(top: Folder) -> str | None:
    """A folder of pictures and one of masks, of the same names."""
    for folders in _levels(top):
        images = [one for one in folders if _words(one) & _PICTURES]
        masks = [one for one in folders if _words(one) & _MASKS and not _words(one) & _PICTURES]
        if not images or not masks or len(images) + len(masks) < len([one for one in folders if one.num_pictures]):
            continue
        if len(_stems(images[0]) & _stems(masks[0])) >= 0.5 * max(1, len(_stems(masks[0]))):
            return f"pictures with masks ({images[0].name}/, {masks[0].name}/)"
    return None


def _stems(folder: Folder) -> set[str]:
    return {re.sub(r"(?i)[-_. ]*(mask|gt|label|seg)s?$", "", stem_of(path)) for path in folder.pictures()}


def _videos(top: Folder) -> str | None:
    """A folder of numbered frames for each video."""
    folders = top.folders
    named = [one for one in folders if _words(one) & _VIDEO or suffix_of(one.name) in (".mp4", ".avi", ".mov", ".mkv")]
    if len(folders) < 2 or len(named) < len(folders):
        return None
    if all(re.search(r"\d\.\w+$", path) for one in folders for path in one.loose):
        return f"frames of videos, one folder each ({listed((one.name for one in folders), 2)})"
    return None
