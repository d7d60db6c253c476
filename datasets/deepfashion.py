"""DeepFashion In-shop clothes retrieval, with its segmentation annotations in COCO's format.

Official layout (the unpacked archives side by side)::

    DeepFashion/In-shop/Anno/segmentation/DeepFashion_segmentation_train.json  ..._query.json  ..._gallery.json
    DeepFashion/In-shop/Img/img/WOMEN/Blouses_Shirts/id_00000001/02_1_front.jpg ...

``Img/img_highres`` in place of ``Img/img`` holds the high-resolution images.
Source: Liu et al., DeepFashion, CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .adapter import IndexedDataset, OnFault, Splits, settle_faults, with_classes, with_present_images
from .coco import annotation_files, has_images, instances_parts, read_instances
from .errors import DatasetError
from .index import cached

CLASSES = (
    "top", "skirt", "leggings", "dress", "outer", "pants", "bag", "neckwear", "headwear", "eyeglass", "belt",
    "footwear", "hair", "skin", "face",
)  # fmt: skip
SPLITS = ("train", "query", "gallery")
# What plays the part of the usual splits.
ROLES = {"val": "query", "test": "gallery"}


class DeepFashion(IndexedDataset):
    """DeepFashion In-shop, scored as COCO boxes and masks.

    root: the folder ``DeepFashion``, ``In-shop``, or one with ``annotations/`` and ``images/``. split: ``train``,
    ``query`` or ``gallery``; without it, a folder with several opens as its training split, with the query split as
    ``.val`` and the gallery as ``.test``. annotations, images: the file and the folder, where they lie elsewhere.
    high_resolution: read ``img_highres``. classes: keep these only, in this order; by default those of the file, which
    for the official ones are the fifteen of ``CLASSES``. on_fault: ``raise``, ``skip`` or ``repair``.

    Boxes that the file leaves out are those around the masks; category ids may begin at 0.
    Raises DatasetError naming file, annotation and field.
    """

    absolute_names = False

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        split: str | None = None,
        annotations: str | Path | None = None,
        images: str | Path | None = None,
        high_resolution: bool = False,
        classes: Sequence[str] | None = None,
        on_fault: OnFault = "raise",
    ) -> None:
        splits = None
        if annotations is not None:
            file = Path(annotations)
        elif root is None:
            raise DatasetError("where the dataset lies is not said", expected="root, or annotations and images")
        else:
            files = segmentation_files(Path(root))
            if split is None and len(files) > 1:
                names = [role for role in ("train", "val", "test") if ROLES.get(role, role) in files] or list(files)
                open_split = partial(
                    DeepFashion,
                    root,
                    images=images,
                    high_resolution=high_resolution,
                    classes=classes,
                    on_fault=on_fault,
                )
                splits = Splits(names, open_split, first=self)
                split = names[0]
            split = next(iter(files)) if split is None else split if split in files else ROLES.get(split, split)
            if split not in files:
                raise DatasetError("no such split", file=root, field="split", found=split, expected=" or ".join(files))
            file = files[split]
        repair = on_fault == "repair"
        index = cached([file], ("deepfashion", repair), lambda: read_instances(instances_parts(file), repair=repair))
        index = with_classes(settle_faults(index, on_fault, file), classes, file)
        if images is not None:
            folder = Path(images)
        else:
            base = Path(root) if root is not None else file.parent
            resolution = "img_highres" if high_resolution else "img"
            homes = [base / home / "Img" for home in ("In-shop", ".")]
            candidates = [place for home in homes for place in (home / resolution, home)]
            candidates += [base / "images", base / "data", base]
            folder = next((place for place in candidates if has_images(index, place)), candidates[0])
        index = with_present_images(index, folder, on_fault)
        super().__init__(index=index, image_root=folder, splits=splits)


def segmentation_files(root: Path) -> dict[str, Path]:
    """The annotation files by split. Raises DatasetError where there is none."""
    if not root.is_dir():
        raise DatasetError("dataset folder is missing", file=root)
    found: dict[str, Path] = {}
    for folder in ("In-shop/Anno/segmentation", "Anno/segmentation", "In-shop/Anno", "Anno"):
        for file in sorted((root / folder).glob("*.json")):
            name = next((split for split in SPLITS if split in file.stem.lower()), file.stem)
            found.setdefault(name, file)
    return dict(sorted(found.items(), key=lambda entry: SPLITS.index(entry[0]) if entry[0] in SPLITS else 9)) or (
        annotation_files(root)
    )
