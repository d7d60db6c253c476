"""Where the datasets are to be had, how they lie on disk, and downloads that resume and are checked.

Nothing is downloaded unless ``download`` is called. Datasets that ask for an account or an agreement are named with
their page alone.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from .errors import DatasetError

BLOCK = 1 << 20
TIMEOUT_S = 60


@dataclass(frozen=True)
class Archive:
    """One file to download: its https address, its checksum as ``md5:...`` or ``sha256:...`` where one is published,
    and the folder, relative to the dataset's, into which it is unpacked."""

    address: str
    checksum: str | None = None
    folder: str = "."

    @property
    def name(self) -> str:
        """File name."""
        return self.address.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Source:
    """Where a dataset comes from. page: the authors' page. archives: what can be had without an account.
    layout: how the adapter wants it to lie."""

    page: str
    layout: str
    archives: tuple[Archive, ...] = ()


_COCO = "https://s3.amazonaws.com/images.cocodataset.org"
_LVIS = "https://dl.fbaipublicfiles.com/LVIS"
_VOC = "https://thor.robots.ox.ac.uk/pascal/VOC"
_COCO_IMAGES = (Archive(f"{_COCO}/zips/train2017.zip"), Archive(f"{_COCO}/zips/val2017.zip"))

SOURCES = {
    "coco": Source(
        "https://cocodataset.org/#download",
        "annotations/instances_train2017.json, train2017/*.jpg, val2017/*.jpg",
        (*_COCO_IMAGES, Archive(f"{_COCO}/annotations/annotations_trainval2017.zip")),
    ),
    "coco_stuff": Source(
        "https://github.com/nightrome/cocostuff",
        "stuffthingmaps/train2017/*.png, stuffthingmaps/val2017/*.png",
        (Archive("https://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip",
                 folder="stuffthingmaps"),),
    ),
    "lvis_v1": Source(
        "https://www.lvisdataset.org/dataset",
        "lvis_v1_train.json, lvis_v1_val.json, train2017/*.jpg, val2017/*.jpg",
        (*_COCO_IMAGES, Archive(f"{_LVIS}/lvis_v1_train.json.zip"), Archive(f"{_LVIS}/lvis_v1_val.json.zip")),
    ),
    "voc": Source(
        "https://host.robots.ox.ac.uk/pascal/VOC/",
        "VOCdevkit/VOC2007, VOCdevkit/VOC2012, each with Annotations, ImageSets, JPEGImages (the archives are .tar)",
        (
            Archive(f"{_VOC}/voc2007/VOCtrainval_06-Nov-2007.tar", "md5:c52e279531787c972589f7e41ab4ae64"),
            Archive(f"{_VOC}/voc2007/VOCtest_06-Nov-2007.tar", "md5:b6e924de25625d8de591ea690078ad9f"),
            Archive(f"{_VOC}/voc2012/VOCtrainval_11-May-2012.tar", "md5:6cd6e144f989b92b3379bac3b3de84fd"),
        ),
    ),
    "cityscapes": Source(
        "https://www.cityscapes-dataset.com/downloads/",
        "gtFine/<split>/<city>/*_instanceIds.png, leftImg8bit/<split>/<city>/*.png",
    ),
    "wider_face": Source(
        "http://shuoyang1213.me/WIDERFACE/",
        "wider_face_split/, WIDER_train/images/, WIDER_val/images/, ground_truth/*.mat",
    ),
    "deepfashion": Source(
        "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html",
        "In-shop/Anno/segmentation/*.json, In-shop/Img/img/",
    ),
}  # fmt: skip


def download(
    dataset: str, folder: str | Path, *, progress: Callable[[str, int, int | None], None] | None = None
) -> Path:
    """Fetch and unpack the archives of a dataset into a folder; what is there already is not fetched again.

    progress: called with (file name, bytes so far, bytes in all or none). Raises DatasetError for an unknown name, a
    dataset that its authors give only after registration, a failed download or a checksum that differs.
    """
    source = SOURCES.get(dataset)
    if source is None:
        raise DatasetError("no such dataset", found=dataset, expected=" or ".join(SOURCES))
    if not source.archives:
        raise DatasetError(
            f"{dataset} is given after registration at {source.page}", expected=f"layout {source.layout}"
        )
    folder = Path(folder)
    for archive in source.archives:
        done = folder / f".{archive.name}.done"
        if done.exists():
            continue
        file = fetch(archive.address, folder / archive.name, checksum=archive.checksum, progress=progress)
        unpack(file, folder / archive.folder)
        done.touch()
        file.unlink()
    return folder


def fetch(
    address: str,
    file: Path,
    *,
    checksum: str | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Path:
    """Download to ``file``; an interrupted download goes on where it stopped. The file appears when it is complete.

    checksum: ``md5:...`` or ``sha256:...``. Raises DatasetError.
    """
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            resumed = answer.status == 206
            have = have if resumed else 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length is not None else None
            with open(part, "ab" if resumed else "wb") as stream:
                while block := answer.read(BLOCK):
                    stream.write(block)
                    have += len(block)
                    if progress is not None:
                        progress(file.name, have, total)
    except urllib.error.HTTPError as error:
        # 416: the part is already the whole.
        if error.code != 416:
            raise DatasetError(f"download failed: {error}", file=address) from error
        total = have
    except OSError as error:
        raise DatasetError(
            f"download failed, and goes on from here when it is called again: {error}", file=address
        ) from error
    if total is not None and have != total:
        raise DatasetError("download is incomplete", file=address, found=f"{have} bytes", expected=f"{total} bytes")
    if checksum is not None:
        _compare(part, checksum)
    part.rename(file)
    return file


def _compare(file: Path, checksum: str) -> None:
    kind, expected = checksum.split(":")
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(file, "rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    if digest.hexdigest() != expected:
        file.unlink()
        raise DatasetError(
            "checksum differs; the file was removed", file=file, field=kind, found=digest.hexdigest(), expected=expected
        )


MOST_GROWTH = 1000
"""An archive whose content is said to be so many times larger than itself, and larger than a gigabyte, is refused."""


def unpack(file: Path, folder: Path) -> None:
    """Unpack a .zip or .tar; nothing is written outside the folder. Raises DatasetError.

    Before anything is written, names that lead out of the folder, links and devices among them, are refused, and
    content that would not fit on the disk or grows out of all proportion.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if file.suffix == ".zip":
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                _require_harmless(file, folder, [(entry.filename, entry.file_size) for entry in entries])
                archive.extractall(folder)
        else:
            with tarfile.open(file) as archive:
                members = archive.getmembers()
                _require_harmless(file, folder, [(member.name, member.size) for member in members])
                archive.extractall(folder, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError, OSError, RuntimeError, NotImplementedError) as error:
        raise DatasetError(f"archive cannot be unpacked: {error}", file=file) from error


def _require_harmless(file: Path, folder: Path, entries: list[tuple[str, int]]) -> None:
    for name, _ in entries:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
            raise DatasetError("archive with a name that leads out of it; nothing was unpacked", file=file, found=name)
    size, own, free = sum(size for _, size in entries), file.stat().st_size, shutil.disk_usage(folder).free
    if size > free or (size > 1e9 and size > MOST_GROWTH * own):
        found = f"{size / 1e6:.0f} MB in an archive of {own / 1e6:.1f} MB"
        expected = f"less than {min(free, MOST_GROWTH * own) / 1e6:.0f} MB"
        raise DatasetError("archive is too large; nothing was unpacked", file=file, found=found, expected=expected)
