"""WIDER FACE: the official lists as text or ``.mat``, or the annotations converted to Pascal VOC's XML.

Official layout::

    WIDERFace/wider_face_split/wider_face_train_bbx_gt.txt  wider_face_val_bbx_gt.txt  (or .mat)
    WIDERFace/wider_face_split/wider_face_test_filelist.txt
    WIDERFace/WIDER_train/images/0--Parade/0_Parade_marchingband_1_849.jpg ...
    WIDERFace/ground_truth/wider_easy_val.mat ...            (from the evaluation tools; needed to score)

XML layout::

    WIDERFace/WIDER_train/Annotations/0_Parade_marchingband_1_849.xml  WIDER_train/train.txt
    WIDERFace/WIDER_train/0--Parade/0_Parade_marchingband_1_849.jpg ...

Source: Yang et al., WIDER FACE, CVPR 2016. Boxes are x, y, width, height in pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .adapter import IndexedDataset, OnFault, Splits, fingerprint_of, settle_faults, with_present_images
from .errors import DatasetError, Fault
from .index import Builder, Index, cached, image_paths
from .reading import image_header, read_bytes
from .voc import parse_xml, read_object

CLASSES = ("face",)
# Where "invalid" stands among x, y, w, h, blur, expression, illumination, invalid, occlusion, pose.
_INVALID = 7


class WiderFace(IndexedDataset):
    """WIDER FACE, scored by its easy, medium and hard sets; faces marked invalid are ignored.

    root: the folder above. split: ``train``, ``val`` or ``test`` (images alone), or the name between ``wider_face_``
    and ``_bbx_gt.txt`` of another list; without it, a folder with several opens as its training split and carries the
    others as ``.train``, ``.val``, ``.test``. on_fault: ``raise``, ``skip`` or ``repair``.

    Image ids are ``<event>/<name>`` without extension, as in the official results. The lists do not say how large an
    image is; that is read from its header. Raises DatasetError naming file, line or object, and field.
    """

    protocol = "wider_face"

    def __init__(self, root: str | Path, *, split: str | None = None, on_fault: OnFault = "raise") -> None:
        folder = Path(root)
        sources = annotation_sources(folder)
        splits = None
        if split is None:
            names = [name for name in ("train", "val", "test") if name in sources] or list(sources)
            if len(names) > 1:
                splits = Splits(names, partial(WiderFace, root, on_fault=on_fault), first=self)
            split = names[0]
        if split not in sources:
            raise DatasetError("no such split", file=folder, field="split", found=split, expected=" or ".join(sources))
        source = sources[split]
        photos = folder / f"WIDER_{split.split('_')[0]}"
        is_xml = source.is_dir()
        files = sorted(source.glob("*.xml")) if is_xml else [source]
        repair = on_fault == "repair"
        index = cached(
            [source, *files] if is_xml else files,
            ("wider_face", str(folder.resolve()), repair),
            lambda: read_xml(folder, files, repair=repair) if is_xml else read_list(folder, source, photos / "images"),
            # Sizes come from the images.
            lambda index: image_paths(index, folder),
        )
        index = with_present_images(settle_faults(index, on_fault, source), folder, on_fault)
        super().__init__(index=index, image_root=folder, splits=splits)

    @property
    def ground_truth(self) -> Path:
        """Folder of ``wider_easy_val.mat`` and its like, which say which faces count in which set. Raises DatasetError
        where it is missing."""
        for folder in ("ground_truth", "eval_tools/ground_truth", "wider_face_split"):
            if (self.image_root / folder / "wider_easy_val.mat").is_file():
                return self.image_root / folder
        raise DatasetError("the ground truth of the three sets is missing", file=self.image_root / "ground_truth")


def annotation_sources(root: Path) -> dict[str, Path]:
    """By split, a list (text before ``.mat``) or a folder of XML files. Raises DatasetError for none."""
    if not root.is_dir():
        raise DatasetError("dataset folder is missing", file=root)
    found: dict[str, Path] = {}
    lists = root / "wider_face_split"
    for ending in ("_bbx_gt.txt", "_filelist.txt", ".mat"):
        for file in sorted(lists.glob(f"wider_face_*{ending}")):
            found.setdefault(file.name.removeprefix("wider_face_").removesuffix(ending), file)
    for folder in sorted(root.glob("WIDER_*/Annotations")):
        found.setdefault(folder.parent.name.removeprefix("WIDER_"), folder)
    if not found:
        raise DatasetError(
            "not a WIDER FACE folder", file=root, expected="wider_face_split/wider_face_<split>_bbx_gt.txt"
        )
    return found


def read_list(root: Path, file: Path, photos: Path) -> Index:
    """Columns from an official list; faces that cannot be used are left out and listed as faults."""
    entries = read_mat(file) if file.suffix == ".mat" else read_text(file)
    builder, faults = Builder(), []
    seen: set[str] = set()
    for name, faces in entries:
        photo = photos / name
        if name in seen:
            faults.append(Fault("duplicate image", str(file), name))
            continue
        seen.add(name)
        place = builder.image(name.removesuffix(".jpg"), _size(photo), photo.relative_to(root).as_posix())
        for where, values in faces:
            if values is None or not np.isfinite(values).all() or np.abs(values[:4]).max() > 1e9:
                found = None if values is None else str(list(values))
                faults.append(Fault("not a face", str(file), f"{name}, {where}", "x, y, w, h", found, "ten numbers"))
                continue
            x, y, w, h = (float(value) for value in values[:4])
            builder.annotation(
                len(builder) + 1,
                place,
                # The official lists have boxes without area, one of them of negative width.
                box=(x, y, x + max(w, 0), y + max(h, 0)),
                stated=(x, y, w, h),
                label=0,
                area=max(w, 0) * max(h, 0),
                ignore=bool(values[_INVALID]),
            )
    return _index(builder, faults, "xywh")


def read_text(file: Path) -> Iterator[tuple[str, list[tuple[str, list[float] | None]]]]:
    """(image name, [(where, ten values or none)]) of a text list or a list of names. Raises DatasetError where a
    count is no number or the file ends early."""
    lines = read_bytes(file).decode("utf-8", "replace").splitlines()
    lines = [line.strip() for line in lines]
    place = 0
    while place < len(lines):
        name = lines[place]
        place += 1
        if not name:
            continue
        if not name.endswith(".jpg"):
            raise DatasetError("not the name of an image", file=file, where=f"line {place}", found=name)
        if file.name.endswith("_filelist.txt"):
            yield name, []
            continue
        count = lines[place] if place < len(lines) else ""
        if not count.isdecimal():
            raise DatasetError("not a number of faces", file=file, where=f"line {place + 1}", found=count)
        first, place = place + 1, place + 1 + int(count)
        if place > len(lines):
            raise DatasetError(
                "the file ends early", file=file, where=name, found=len(lines), expected=f"{place} lines"
            )
        yield name, [(f"line {number + 1}", _ten_values(lines[number])) for number in range(first, place)]
        # An image without faces is followed by a line of zeros.
        if place == first and place < len(lines) and _ten_values(lines[place]) is not None:
            place += 1


def _ten_values(line: str) -> list[float] | None:
    try:
        values = [float(value) for value in line.split()]
    except ValueError:
        return None
    return values if len(values) == 10 else None


def read_mat(file: Path) -> Iterator[tuple[str, list[tuple[str, list[float] | None]]]]:
    """The same from an official ``.mat`` file. Raises DatasetError where it is none."""
    from scipy.io import loadmat

    try:
        content = loadmat(io.BytesIO(read_bytes(file)))
        events = [str(event[0][0]) for event in content["event_list"]]
        lists: Iterable[Any] = list(zip(content["file_list"], content["face_bbx_list"], content["invalid_label_list"]))
        entries = []
        for event, (names, boxes, invalid) in zip(events, lists, strict=True):
            for row in range(len(names[0])):
                values = np.zeros((len(boxes[0][row][0]), 10))
                values[:, :4] = boxes[0][row][0]
                values[:, _INVALID] = invalid[0][row][0].reshape(-1)
                faces = [(f"face {number}", face) for number, face in enumerate(values.tolist(), 1)]
                entries.append((f"{event}/{names[0][row][0][0]}.jpg", faces))
    except DatasetError:
        raise
    except Exception as error:
        # The reader raises nearly anything on damaged files; whichever it is, the file is at fault.
        raise DatasetError(f"not a WIDER FACE list: {error!r}", file=file) from error
    yield from entries


def read_xml(root: Path, files: list[Path], *, repair: bool) -> Index:
    """Columns from XML files; the image lies in the folder that the file names."""
    builder, faults = Builder(), []
    for file in files:
        tree = parse_xml(file, faults)
        if tree is None:
            continue
        event = (tree.findtext("folder") or "").strip()
        photo = file.parent.parent / event / f"{file.stem}.jpg"
        if not photo.is_file() and (file.parent.parent / "images" / event).is_dir():
            photo = file.parent.parent / "images" / event / f"{file.stem}.jpg"
        place = builder.image(f"{event}/{file.stem}", _size(photo), photo.relative_to(root).as_posix())
        for number, element in enumerate(tree.iter("object"), 1):
            entry = read_object(file, number, element, repair, faults)
            if entry is None:
                continue
            name, (x1, y1, x2, y2), difficult = entry
            if name not in CLASSES:
                faults.append(Fault("unknown category", str(file), f"object {number}", "name", repr(name), "'face'"))
                continue
            builder.annotation(
                len(builder) + 1,
                place,
                box=(x1 - 1, y1 - 1, x2, y2),
                stated=(x1, y1, x2, y2),
                label=0,
                area=(x2 - x1 + 1) * (y2 - y1 + 1),
                ignore=difficult,
            )
    return _index(builder, faults, "voc")


def _size(photo: Path) -> tuple[int, int]:
    """(H, W) by the header; zeros where there is no readable image, which is said when it is read."""
    try:
        return image_header(photo)[0]
    except DatasetError:
        return 0, 0


def _index(builder: Builder, faults: list[Fault], box_format: str) -> Index:
    annotations = builder.finish(box_format=box_format, masks=False)
    return Index(
        annotations=annotations,
        classes=CLASSES,
        category_ids=(1,),
        fingerprint=fingerprint_of(annotations, CLASSES),
        faults=tuple(faults),
    )
