"""Folders as annotation tools write them, opened by path alone, equal to the same data as COCO."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import shutil
import tarfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

import sdk
from sdk.datasets import Coco, DatasetError
from sdk.datasets.errors import DatasetWarning
from sdk.datasets.index import columns_of
from sdk.errors import SdkError

CLASSES = ("cat", "dog")
SIZES = {"a": (60, 80), "b": (50, 40), "c": (64, 64), "d": (30, 90)}
# x, y, w, h and class of each object; d has none.
OBJECTS = {"a": [(10, 20, 30, 25, 0), (2, 3, 7, 9, 1)], "b": [(5, 5, 20, 30, 1)], "c": [(0, 0, 64, 64, 0)], "d": []}
POLYGONS = {"a": [[10, 20, 40, 20, 40, 45, 10, 45], [2, 3, 9, 3, 9, 12, 2, 12]]}


def pixels(name: str) -> np.ndarray:
    return np.random.default_rng(ord(name)).integers(0, 255, (*SIZES[name], 3), np.uint8)


def encoded(name: str, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, cv2.cvtColor(pixels(name), cv2.COLOR_RGB2BGR))[1].tobytes()


def write(folder: Path, names: str = "abcd", suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}{suffix}").write_bytes(encoded(name, suffix))


def instances(names: str = "abcd", *, prefix: str = "", first_category: int = 1, extra: tuple = ()) -> dict:
    images, annotations = [], []
    for number, name in enumerate(names, 1):
        h, w = SIZES[name]
        images.append({"id": number, "file_name": f"{prefix}{name}.png", "height": h, "width": w})
        for x, y, bw, bh, label in OBJECTS[name]:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": label + first_category,
                 "bbox": [x, y, bw, bh], "area": bw * bh, "iscrowd": 0, "segmentation": []}
            )  # fmt: skip
    categories = [*extra, *({"id": first_category + i, "name": n} for i, n in enumerate(CLASSES))]
    return {"images": images, "annotations": annotations, "categories": categories}


def reference(tmp_path: Path, names: str = "abcd") -> Coco:
    folder = tmp_path / "reference"
    write(folder, names)
    (folder / "instances.json").write_text(json.dumps(instances(names)))
    return Coco(annotations=folder / "instances.json", images=folder)


def objects_of(dataset) -> dict[str, list]:
    """By the image's name: its boxes and class names, in any order."""
    columns = columns_of(dataset)
    found = {}
    for i in range(len(dataset)):
        name = columns.image_files[i].split("::")[-1].split("@")[-1]
        rows = columns.rows(i)
        boxes = np.round(columns.boxes[rows], 3).tolist()
        labels = [dataset.classes[label] for label in columns.labels[rows]]
        key = Path(name).stem if Path(name).stem in SIZES else str(columns.image_ids[i])
        found[key] = sorted(zip(boxes, labels))
    return found


def assert_same(dataset, expected, *, tolerance: float = 1e-3, images: bool = True) -> None:
    found, wanted = objects_of(dataset), objects_of(expected)
    assert found.keys() == wanted.keys()
    for name, objects in wanted.items():
        assert [label for _, label in found[name]] == [label for _, label in objects], name
        for (box, _), (other, _) in zip(found[name], objects):
            np.testing.assert_allclose(box, other, atol=tolerance)
    if images:
        for i in range(len(dataset)):
            assert dataset[i].image.shape[:2] == tuple(columns_of(dataset).image_sizes[i])


def write_roboflow_coco(root: Path) -> None:
    group = ({"id": 0, "name": "pets", "supercategory": "none"},)
    for split, names in (("train", "ab"), ("valid", "c"), ("test", "d")):
        write(root / split, names)
        content = instances(names, extra=group)
        for category in content["categories"][1:]:
            category["supercategory"] = "pets"
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))


def write_cvat_coco(root: Path) -> None:
    write(root / "images")
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_default.json").write_text(json.dumps(instances()))


def write_label_studio(root: Path) -> None:
    write(root / "images")
    (root / "result.json").write_text(json.dumps(instances(prefix="images\\", first_category=0)))


def write_label_studio_uploads(root: Path) -> None:
    write(root / "images")
    (root / "result.json").write_text(json.dumps(instances(prefix="/data/upload/7/", first_category=0)))


def write_any_json(root: Path) -> None:
    write(root / "photographs")
    (root / "my labels.json").write_text(json.dumps(instances()))


def write_coco_folders(root: Path) -> None:
    for split, names in (("train", "ab"), ("valid", "cd")):
        write(root / split / "images", names)
        (root / split / "annotations.json").write_text(json.dumps(instances(names)))


def write_coco_deeper_splits(root: Path) -> None:
    for split, names in (("train", "ab"), ("val", "cd")):
        write(root / split / "images", names)
        (root / split / "annotations").mkdir()
        (root / split / "annotations" / "instances.json").write_text(json.dumps(instances(names)))


def write_coco_deeper(root: Path) -> None:
    write(root / "images")
    (root / "labels" / "json").mkdir(parents=True)
    (root / "labels" / "json" / "pets.json").write_text(json.dumps(instances()))


def write_text_ids(root: Path) -> None:
    write(root / "images")
    content = instances()
    for image in content["images"]:
        image["id"] = str(image["id"]) if image["id"] % 2 else image["id"]
    for number, annotation in enumerate(content["annotations"]):
        annotation["image_id"] = str(annotation["image_id"]) if number % 2 else annotation["image_id"]
        annotation["id"] = f"object-{annotation['id']}"
        annotation["category_id"] = str(annotation["category_id"])
        del annotation["iscrowd"], annotation["segmentation"]
    (root / "annotations.json").write_text(json.dumps(content))


def write_files_as_ids(root: Path) -> None:
    write(root)
    content = instances()
    names = {image["id"]: image["file_name"] for image in content["images"]}
    for annotation in content["annotations"]:
        annotation["image_id"], annotation["segmentation"] = names[annotation["image_id"]], None
    (root / "labels.json").write_text(json.dumps(content))


def yolo_lines(name: str) -> str:
    h, w = SIZES[name]
    lines = [
        f"{label} {(x + bw / 2) / w} {(y + bh / 2) / h} {bw / w} {bh / h}" for x, y, bw, bh, label in OBJECTS[name]
    ]
    return "\n".join(lines)


def write_yolo_labels(folder: Path, names: str = "abcd") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if OBJECTS[name]:
            (folder / f"{name}.txt").write_text(yolo_lines(name) + "\n")


def write_yolo(root: Path) -> None:
    for split, names in (("train", "ab"), ("val", "cd")):
        write(root / "images" / split, names)
        write_yolo_labels(root / "labels" / split, names)
    (root / "data.yaml").write_text(
        "path: ../datasets/pets\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n"
    )


def write_yolo_roboflow(root: Path) -> None:
    for split, names in (("train", "ab"), ("valid", "cd")):
        write(root / split / "images", names)
        write_yolo_labels(root / split / "labels", names)
    (root / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n")


def write_yolo_lists(root: Path) -> None:
    write(root / "images")
    write_yolo_labels(root / "labels")
    (root / "train.txt").write_text("./images/a.png\n./images/b.png\n")
    (root / "val.txt").write_text("/home/someone/pets/images/c.png\nimages/d.png\n")
    (root / "pets.yaml").write_text("path: /home/someone/pets\ntrain: train.txt\nval: val.txt\nnames: [cat, dog]\n")


def write_darknet(root: Path) -> None:
    write(root / "obj_train_data")
    write_yolo_labels(root / "obj_train_data")
    (root / "obj.names").write_text("cat\ndog\n")
    (root / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    (root / "train.txt").write_text("".join(f"data/obj_train_data/{name}.png\n" for name in "abcd"))


def write_yolo_plain(root: Path) -> None:
    write(root / "images")
    write_yolo_labels(root / "labels")
    (root / "classes.txt").write_text("cat\ndog\n")


def voc_xml(name: str, *, stated: str | None = None, shuffled: bool = False) -> str:
    h, w = SIZES[name]
    text = f"<annotation><filename>{stated or name + '.png'}</filename>"
    text += f"<size><width>{w}</width><height>{h}</height><depth>3</depth></size>"
    for x, y, bw, bh, label in OBJECTS[name]:
        ends = [("xmin", x + 1), ("ymin", y + 1), ("xmax", x + bw), ("ymax", y + bh)]
        if shuffled:
            ends = [ends[2], ends[0], ends[3], ends[1]]
        box = "".join(f"<{tag}>{value}.0</{tag}>" for tag, value in ends)
        text += f"<object><name>{CLASSES[label]}</name><bndbox>{box}</bndbox></object>"
    return text + "</annotation>"


def write_voc_beside(root: Path) -> None:
    write(root)
    for name in "abcd":
        (root / f"{name}.xml").write_text(voc_xml(name, stated=f"C:\\pictures\\{name}", shuffled=True))


def write_voc_images(root: Path) -> None:
    write(root / "images")
    (root / "annotations").mkdir()
    for name in "abcd":
        (root / "annotations" / f"{name}.xml").write_text(voc_xml(name, stated="wrong.jpg"))


def write_voc_pets(root: Path) -> None:
    write(root / "images")
    (root / "annotations" / "xmls").mkdir(parents=True)
    (root / "annotations" / "trainval.txt").write_text("a 1 1 1\n")
    for name in "abcd":
        (root / "annotations" / "xmls" / f"{name}.xml").write_text(voc_xml(name))


def write_voc_folders(root: Path) -> None:
    for split, names in (("train", "ab"), ("val", "cd")):
        write(root / "images" / split, names)
        (root / "annotations" / split).mkdir(parents=True)
        for name in names:
            (root / "annotations" / split / f"{name}.xml").write_text(voc_xml(name))


def write_voc_roboflow(root: Path) -> None:
    for split, names in (("train", "ab"), ("valid", "cd")):
        write(root / split, names)
        for name in names:
            (root / split / f"{name}.xml").write_text(voc_xml(name))


def write_devkit(root: Path) -> None:
    year = root / "VOCdevkit" / "VOC2012"
    write(year / "JPEGImages")
    (year / "Annotations").mkdir()
    (year / "ImageSets" / "Main").mkdir(parents=True)
    for name in "abcd":
        (year / "Annotations" / f"{name}.xml").write_text(voc_xml(name))
    (year / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n")
    (year / "ImageSets" / "Main" / "val.txt").write_text("c\nd\n")


def write_csv(root: Path, header: list[str], row) -> None:
    write(root / "images")
    with open(root / "annotations.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for name in "abcd":
            for one in OBJECTS[name]:
                writer.writerow(row(name, *one))
            if not OBJECTS[name]:
                writer.writerow([f"{name}.png" if value == "image" else "" for value in ["image", *header[1:]]])


def write_csv_corners(root: Path) -> None:
    header = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
    write_csv(root, header, lambda n, x, y, w, h, c: [f"{n}.png", *SIZES[n][::-1], CLASSES[c], x, y, x + w, y + h])


def write_csv_shares(root: Path) -> None:
    header = ["image_path", "label", "x_center", "y_center", "width", "height"]

    def row(n, x, y, w, h, label):
        ih, iw = SIZES[n]
        return [f"images/{n}.png", CLASSES[label], (x + w / 2) / iw, (y + h / 2) / ih, w / iw, h / ih]

    write_csv(root, header, row)


def write_csv_without_header(root: Path) -> None:
    write_csv(root, ["image"], lambda n, x, y, w, h, c: [f"images/{n}.png", x, y, x + w, y + h, CLASSES[c]])
    file = root / "annotations.csv"
    lines = file.read_text().splitlines()
    # An image without objects leaves all but its name empty.
    file.write_text("\n".join([*lines[1:-1], "images/d.png,,,,,"]) + "\n")


def write_csv_one_column(root: Path) -> None:
    header = ["image_id", "width", "height", "bbox", "class"]
    write_csv(root, header, lambda n, x, y, w, h, c: [n, *SIZES[n][::-1], f"[{x}.0, {y}.0, {w}.0, {h}.0]", CLASSES[c]])


def write_via_csv(root: Path) -> None:
    header = ["filename", "file_size", "file_attributes", "region_count", "region_id", "region_shape_attributes",
              "region_attributes"]  # fmt: skip

    def row(n, x, y, w, h, label):
        shape = json.dumps({"name": "rect", "x": x, "y": y, "width": w, "height": h})
        return [f"{n}.png", 9, "{}", 1, 0, shape, json.dumps({"class": CLASSES[label]})]

    write_csv(root, header, row)
    with open(root / "annotations.csv") as file:
        lines = file.read().splitlines()
    lines[-1] = 'd.png,9,"{}",0,0,"{}","{}"'
    (root / "annotations.csv").write_text("\n".join(lines))


def write_open_images(root: Path) -> None:
    header = ["ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax", "IsGroupOf"]

    def row(n, x, y, w, h, label):
        ih, iw = SIZES[n]
        return [n, "x", f"/m/0{label}", 1, x / iw, (x + w) / iw, y / ih, (y + h) / ih, 0]

    write_csv(root, header, row)
    (root / "class-descriptions-boxable.csv").write_text("/m/00,cat\n/m/01,dog\n")


def write_labelme(root: Path) -> None:
    write(root)
    for name in "abcd":
        h, w = SIZES[name]
        shapes = [
            {"label": CLASSES[label], "points": [[x, y], [x + bw, y + bh]], "shape_type": "rectangle"}
            for x, y, bw, bh, label in OBJECTS[name]
        ]
        content = {"version": "5.4", "shapes": shapes, "imagePath": f"..\\{name}.png", "imageData": None}
        (root / f"{name}.json").write_text(json.dumps({**content, "imageHeight": h, "imageWidth": w}))


def write_via(root: Path) -> None:
    write(root)
    content = {}
    for name in "abcd":
        regions = [
            {"shape_attributes": {"name": "rect", "x": x, "y": y, "width": w, "height": h},
             "region_attributes": {"class": CLASSES[label]}}
            for x, y, w, h, label in OBJECTS[name]
        ]  # fmt: skip
        content[f"{name}.png999"] = {"filename": f"{name}.png", "size": 999, "regions": regions, "file_attributes": {}}
    (root / "via_project.json").write_text(json.dumps({"_via_img_metadata": content, "_via_settings": {}}))


def write_cvat(root: Path) -> None:
    write(root / "images")
    text = "<annotations><version>1.1</version><meta><task><labels>"
    text += "".join(f"<label><name>{name}</name></label>" for name in CLASSES) + "</labels></task></meta>"
    for number, name in enumerate("abcd"):
        h, w = SIZES[name]
        text += f'<image id="{number}" name="{name}.png" width="{w}" height="{h}">'
        for x, y, bw, bh, label in OBJECTS[name]:
            text += f'<box label="{CLASSES[label]}" xtl="{x}" ytl="{y}" xbr="{x + bw}" ybr="{y + bh}" occluded="0"/>'
        text += "</image>"
    (root / "annotations.xml").write_text(text + "</annotations>")


def write_shards(root: Path) -> None:
    root.mkdir(exist_ok=True)
    (root / "classes.txt").write_text("cat\ndog\n")
    for shard, names in enumerate(("ab", "cd")):
        with tarfile.open(root / f"pets-{shard:04d}.tar", "w") as archive:
            for name in names:
                boxes = [list(one[:4]) for one in OBJECTS[name]]
                told = {"objects": {"bbox": boxes, "category": [one[4] for one in OBJECTS[name]]}}
                for suffix, content in ((".png", encoded(name)), (".json", json.dumps(told).encode())):
                    member = tarfile.TarInfo(f"{name}{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def write_parquet(root: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    root.mkdir(exist_ok=True)
    rows = [
        {"image": {"bytes": encoded(name), "path": f"{name}.png"}, "image_id": name,
         "width": SIZES[name][1], "height": SIZES[name][0],
         "objects": {"bbox": [list(map(float, one[:4])) for one in OBJECTS[name]],
                     "category": [one[4] for one in OBJECTS[name]]}}
        for name in "abcd"
    ]  # fmt: skip
    features = {"objects": {"feature": {"category": {"names": list(CLASSES), "_type": "ClassLabel"}}}}
    table = pa.Table.from_pylist(rows)
    told = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    parquet.write_table(table.replace_schema_metadata(told), root / "train-00000-of-00001.parquet")


def metadata_lines(names: str, *, labels=CLASSES, each: bool = False) -> str:
    lines = []
    for name in names:
        boxes, found = [list(one[:4]) for one in OBJECTS[name]], [labels[one[4]] for one in OBJECTS[name]]
        objects = (
            [{"bbox": b, "category": c} for b, c in zip(boxes, found)] if each else {"bbox": boxes, "category": found}
        )
        lines.append(json.dumps({"file_name": f"{name}.png", "objects": objects}))
    return "\n".join(lines) + "\n"


def write_image_folder(root: Path) -> None:
    write(root)
    (root / "metadata.jsonl").write_text(metadata_lines("abcd", each=True))


def write_image_folder_splits(root: Path) -> None:
    for split, names in (("train", "ab"), ("validation", "cd")):
        write(root / split, names)
        (root / split / "metadata.jsonl").write_text(metadata_lines(names, labels=(0, 1)))
    (root / "classes.txt").write_text("cat\ndog\n")


def write_kitti(root: Path) -> None:
    write(root / "training" / "image_2")
    write(root / "testing" / "image_2", "a")
    (root / "training" / "label_2").mkdir()
    for name in "abcd":
        lines = [
            f"{CLASSES[label]} 0.00 0 -1.57 {x:.2f} {y:.2f} {x + w:.2f} {y + h:.2f} 1.5 1.6 3.9 1.8 1.5 8.4 -1.6\n"
            for x, y, w, h, label in OBJECTS[name]
        ]
        (root / "training" / "label_2" / f"{name}.txt").write_text("".join(lines))


def write_createml(root: Path) -> None:
    write(root)
    entries = []
    for name in "abcd":
        found = [
            {"label": CLASSES[label], "coordinates": {"x": x + w / 2, "y": y + h / 2, "width": w, "height": h}}
            for x, y, w, h, label in OBJECTS[name]
        ]
        entries.append({"image": f"{name}.png", "annotations": found})
    (root / "_annotations.createml.json").write_text(json.dumps(entries))


def label_studio_regions(name: str) -> list[dict]:
    h, w = SIZES[name]
    return [
        {"x": 100 * x / w, "y": 100 * y / h, "width": 100 * bw / w, "height": 100 * bh / h, "rotation": 0,
         "rectanglelabels": [CLASSES[label]], "original_width": w, "original_height": h}
        for x, y, bw, bh, label in OBJECTS[name]
    ]  # fmt: skip


def write_label_studio_tasks(root: Path) -> None:
    write(root / "images")
    tasks = []
    for number, name in enumerate("abcd", 1):
        results = []
        for region in label_studio_regions(name):
            about = {key: region.pop(key) for key in ("original_width", "original_height")}
            about |= {"image_rotation": 0, "from_name": "label", "to_name": "image", "type": "rectanglelabels"}
            results.append({**about, "id": "x1", "value": region, "origin": "manual"})
        remark = {"from_name": "note", "to_name": "image", "type": "choices", "value": {"choices": ["sharp"]}}
        data = {"image": f"/data/upload/1/{number:08x}-{name}.png", "place": "garden"}
        done = {"id": number, "was_cancelled": False, "result": [*results, remark]}
        tasks.append({"id": number, "annotations": [done], "predictions": [], "data": data})
    (root / "project-1-at-2026-01-01.json").write_text(json.dumps(tasks))


def write_label_studio_short(root: Path) -> None:
    write(root)
    tasks = [
        {
            "image": f"/data/local-files/?d=pets%2F{name}.png",
            "id": 1,
            "label": label_studio_regions(name),
            "annotator": 1,
        }
        for name in "abcd"
    ]
    (root / "project.json").write_text(json.dumps(tasks))


def write_labelbox(root: Path) -> None:
    write(root / "images")
    lines = []
    for name in "abcd":
        h, w = SIZES[name]
        objects = [
            {"name": CLASSES[label], "annotation_kind": "ImageBoundingBox",
             "bounding_box": {"left": x, "top": y, "width": bw, "height": bh}}
            for x, y, bw, bh, label in OBJECTS[name]
        ]  # fmt: skip
        row = {
            "id": f"c{name}",
            "external_id": f"{name}.png",
            "row_data": f"https://storage.example/x/{name}.png?sign=1",
        }
        label = {"label_kind": "Default", "annotations": {"objects": objects, "classifications": []}}
        about = {"height": h, "width": w, "asset_type": "image"}
        lines.append(json.dumps({"data_row": row, "media_attributes": about, "projects": {"p": {"labels": [label]}}}))
    (root / "export.ndjson").write_text("\n".join(lines))


def write_odgt(root: Path) -> None:
    write(root / "Images", suffix=".jpg")
    lines = []
    for name in "abcd":
        boxes = [
            {
                "tag": CLASSES[label],
                "fbox": [x, y, w, h],
                "vbox": [x, y, w, h],
                "hbox": [x, y, 1, 1],
                "extra": {"box_id": 0},
            }
            for x, y, w, h, label in OBJECTS[name]
        ]
        lines.append(json.dumps({"ID": name, "gtboxes": boxes}))
    (root / "annotation_train.odgt").write_text("\n".join(lines))


def write_supervisely(root: Path) -> None:
    write(root / "ds0" / "img")
    (root / "ds0" / "ann").mkdir()
    classes = [{"title": name, "shape": "rectangle", "color": "#00FF00"} for name in CLASSES]
    (root / "meta.json").write_text(json.dumps({"classes": classes, "tags": []}))
    for name in "abcd":
        h, w = SIZES[name]
        objects = [
            {"classTitle": CLASSES[label], "geometryType": "rectangle", "tags": [],
             "points": {"exterior": [[x, y], [x + bw, y + bh]], "interior": []}}
            for x, y, bw, bh, label in OBJECTS[name]
        ]  # fmt: skip
        content = {"description": "", "tags": [], "size": {"height": h, "width": w}, "objects": objects}
        (root / "ds0" / "ann" / f"{name}.png.json").write_text(json.dumps(content))


def write_voc_verified(root: Path) -> None:
    write(root / "images")
    (root / "annotations").mkdir()
    for name in "abcd":
        text = voc_xml(name).replace("<annotation>", '<?xml version="1.0"?>\n<annotation verified="yes">', 1)
        (root / "annotations" / f"{name}.xml").write_text(text)


def write_voc_cvat(root: Path) -> None:
    write(root / "JPEGImages")
    (root / "Annotations").mkdir()
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "default.txt").write_text("a\nb\nc\nd\n")
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\ncat:1,2,3::\ndog:3,2,1::\n")
    for name in "abcd":
        (root / "Annotations" / f"{name}.xml").write_text(voc_xml(name))


RECORDS = {
    "createml": write_createml,
    "label_studio": write_label_studio_tasks,
    "label_studio_short": write_label_studio_short,
    "labelbox": write_labelbox,
    "odgt": write_odgt,
}
WHOLE = {
    **RECORDS,
    "kitti": write_kitti,
    "supervisely": write_supervisely,
    "cvat_coco": write_cvat_coco,
    "label_studio": write_label_studio,
    "label_studio_uploads": write_label_studio_uploads,
    "any_json": write_any_json,
    "coco_deeper": write_coco_deeper,
    "text_ids": write_text_ids,
    "files_as_ids": write_files_as_ids,
    "darknet": write_darknet,
    "yolo_plain": write_yolo_plain,
    "csv_corners": write_csv_corners,
    "csv_shares": write_csv_shares,
    "csv_without_header": write_csv_without_header,
    "csv_one_column": write_csv_one_column,
    "via_csv": write_via_csv,
    "open_images": write_open_images,
    "labelme": write_labelme,
    "via": write_via,
    "cvat": write_cvat,
    "shards": write_shards,
    "parquet": write_parquet,
    "image_folder": write_image_folder,
}
SPLIT = {
    "image_folder_splits": write_image_folder_splits,
    "yolo": write_yolo,
    "yolo_roboflow": write_yolo_roboflow,
    "yolo_lists": write_yolo_lists,
    "coco_folders": write_coco_folders,
    "coco_deeper_splits": write_coco_deeper_splits,
    "voc_folders": write_voc_folders,
    "voc_roboflow": write_voc_roboflow,
    "devkit": write_devkit,
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_layout_without_splits(tmp_path, monkeypatch, name):
    WHOLE[name](tmp_path / "own")
    assert_same(sdk.open(str(tmp_path / "own")), reference(tmp_path))
    monkeypatch.chdir(tmp_path)
    dataset = sdk.open("own")
    assert set(dataset.classes) <= set(CLASSES)
    assert_same(dataset, reference(tmp_path))


@pytest.mark.parametrize("name", SPLIT)
def test_a_path_below_the_working_folder(tmp_path, monkeypatch, name):
    SPLIT[name](tmp_path / "data" / "own")
    monkeypatch.chdir(tmp_path)
    assert_same(sdk.open("data/own").train, reference(tmp_path, "ab"))
    monkeypatch.chdir("data")
    assert_same(sdk.open("own").val, reference(tmp_path / "val", "cd"))


@pytest.mark.parametrize("name", SPLIT)
def test_a_layout_with_splits(tmp_path, name):
    SPLIT[name](tmp_path / "own")
    dataset = sdk.open(tmp_path / "own")
    assert_same(dataset.train, reference(tmp_path, "ab"))
    assert_same(dataset.val, reference(tmp_path / "val", "cd"))
    assert len(sdk.open(tmp_path / "own", split="val")) == 2
    with pytest.raises(DatasetError, match="no such split"):
        sdk.open(tmp_path / "own", split="holdout")


def test_roboflow_coco_and_its_group(tmp_path):
    write_roboflow_coco(tmp_path / "own")
    dataset = sdk.open(tmp_path / "own")
    assert dataset.classes == CLASSES
    assert_same(dataset.train, reference(tmp_path, "ab"))
    assert (len(dataset.val), len(dataset.test)) == (1, 1)


def test_two_datasets_in_a_folder_are_not_taken_for_one(tmp_path):
    write_cvat_coco(tmp_path / "cats")
    write_cvat_coco(tmp_path / "dogs")
    with pytest.raises(SdkError, match=r"but (cats|dogs)/ in it has one"):
        sdk.open(tmp_path)


@pytest.mark.parametrize("write_it", [write_voc_beside, write_voc_images, write_voc_pets])
def test_voc_without_lists_is_split_by_seed(tmp_path, write_it, capsys, monkeypatch):
    write_it(tmp_path / "own")
    dataset = sdk.open(tmp_path / "own")
    # Too few images to draw a split of.
    assert_same(dataset, reference(tmp_path))
    monkeypatch.setattr("sdk.opening.LEAST_DRAWN", 2)
    drawn = sdk.open(tmp_path / "own")
    assert "drawn for training" in capsys.readouterr().err
    ids = [{str(columns_of(part).image_ids[i]) for i in range(len(part))} for part in (drawn.train, drawn.val)]
    assert ids[0] | ids[1] == set("abcd")
    assert not ids[0] & ids[1]


def test_yolo_polygons_and_oriented_boxes(tmp_path):
    write(tmp_path / "own" / "images", "a")
    (tmp_path / "own" / "labels").mkdir()
    h, w = SIZES["a"]
    shares = [" ".join(str(v / (w, h)[i % 2]) for i, v in enumerate(polygon)) for polygon in POLYGONS["a"]]
    (tmp_path / "own" / "labels" / "a.txt").write_text(f"0 {shares[0]}\n1 {shares[1]}\n")
    (tmp_path / "own" / "classes.txt").write_text("cat\ndog\n")
    dataset = sdk.open(tmp_path / "own")
    assert_same(dataset, reference(tmp_path, "a"))
    assert dataset[0].masks.decode().sum(axis=(1, 2)).tolist() == [30 * 25, 7 * 9]


@pytest.mark.parametrize("places", [("images/{}", "labels/{}"), ("{}/images", "{}/labels")])
def test_yolo_that_names_no_classes_is_numbered_alike_in_all_splits(tmp_path, places):
    for split, names in (("train", "ab"), ("val", "cd")):
        write(tmp_path / "own" / places[0].format(split), names)
        write_yolo_labels(tmp_path / "own" / places[1].format(split), names)
    with pytest.warns(DatasetWarning, match="nothing names the classes"):
        dataset = sdk.open(tmp_path / "own")
    # Only the first of the two classes is on images of the second split.
    assert dataset.classes == dataset.val.classes == ("0", "1")
    named = [[(box, CLASSES[int(label)]) for box, label in one] for one in objects_of(dataset.train).values()]
    assert named == list(objects_of(reference(tmp_path, "ab")).values())
    (tmp_path / "own" / "classes.txt").write_text("cat\ndog\n")
    dataset = sdk.open(tmp_path / "own")
    assert_same(dataset.train, reference(tmp_path, "ab"))
    assert_same(dataset.val, reference(tmp_path / "val", "cd"))


@pytest.mark.parametrize(("count", "each"), [(3, 2), (4, 3), (17, 3)])
def test_key_points_of_yolo_are_not_taken_for_polygons(tmp_path, count, each):
    write_yolo(tmp_path / "own")
    for file in (tmp_path / "own" / "labels").rglob("*.txt"):
        points = " 0.25 0.5 2"[: len(" 0.25 0.5 2") - (0 if each == 3 else 2)] * count
        file.write_text("".join(f"{line}{points}\n" for line in file.read_text().splitlines()))
    description = tmp_path / "own" / "data.yaml"
    description.write_text(f"{description.read_text()}kpt_shape: [{count}, {each}]\n")
    with pytest.warns(DatasetWarning, match="key points are left out"):
        dataset = sdk.open(tmp_path / "own")
    assert_same(dataset.train, reference(tmp_path, "ab"))
    assert dataset[0].masks is None
    (tmp_path / "own" / "labels" / "train" / "b.txt").write_text("1 0.5 0.5 0.2 0.2 0.1 0.1\n")
    with pytest.raises(DatasetError, match=rf"b\.txt, line 1.*neither.*key points.*{4 + count * each} by kpt_shape"):
        sdk.open(tmp_path / "own")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7 0.5 0.5 0.1 0.1", "unknown class.*'7'"),
        ("0 0.5 0.5", "neither a box nor a polygon"),
        ("0 x 0.5 0.1 0.1", "not numbers"),
        ("0 0.5 0.5 -0.1 0.1", "negative size"),
        ("0 nan 0.5 0.1 0.1", "not four numbers"),
    ],
)
def test_faults_of_yolo_name_file_and_line(tmp_path, line, message):
    write_yolo_plain(tmp_path)
    (tmp_path / "labels" / "b.txt").write_text(f"1 0.5 0.5 0.2 0.2\n{line}\n")
    with pytest.raises(DatasetError, match=rf"b\.txt, line 2.*{message}"):
        sdk.open(tmp_path)
    assert len(columns_of(sdk.open(tmp_path, on_fault="skip"))) == 4


def test_faults_of_tables_name_file_and_row(tmp_path):
    write_csv_one_column(tmp_path / "one")
    file = tmp_path / "one" / "annotations.csv"
    file.write_text(file.read_text().replace("[5.0, 5.0, 20.0, 30.0]", "[5.0, 5.0, 20.0]"))
    with pytest.raises(DatasetError, match=r"annotations\.csv, row 4.*not four numbers.*'5\.0', '5\.0', '20\.0'"):
        sdk.open(tmp_path / "one")
    write_via_csv(tmp_path / "via")
    file = tmp_path / "via" / "annotations.csv"
    file.write_text(file.read_text().replace('{""name""', '{""na', 1))
    with pytest.raises(DatasetError, match=r"annotations\.csv, line 2.*not a row of a region"):
        sdk.open(tmp_path / "via")


def test_masks_of_cvat(tmp_path):
    write_cvat(tmp_path)
    file = tmp_path / "annotations.xml"
    text = file.read_text().replace('xtl="10" ytl="20" xbr="40" ybr="45" occluded="0"/>', "{}", 1)
    text = text.replace('<box label="cat" {}', "{}", 1)
    assert text.count("{}") == 1
    # Two rows of four pixels: .XX. and XXX., in columns 20 to 23 and rows 30 and 31.
    mask = '<mask label="cat" rle="{}" left="20" top="30" width="4" height="2"/>'
    file.write_text(text.replace("{}", mask.format("1, 2, 1, 3, 1")))
    dataset = sdk.open(tmp_path)
    decoded = dataset[0].masks.decode()
    expected = np.zeros(SIZES["a"], bool)
    expected[30, 21:23] = expected[31, 20:23] = True
    place = dataset[0].boxes.tolist().index([20, 30, 23, 32])
    np.testing.assert_array_equal(decoded[place].astype(bool), expected)
    assert sorted(columns_of(dataset).areas[:2].tolist()) == [5, 63]
    file.write_text(text.replace("{}", mask.format("1, 2, 1, 3")))
    with pytest.raises(DatasetError, match=r"annotations\.xml.*a\.png shape 1.*not a shape"):
        sdk.open(tmp_path)


def test_cvat_finds_images_of_equal_names_in_the_folder_of_their_subset(tmp_path):
    write_cvat(tmp_path)
    images = tmp_path / "images"
    text = (tmp_path / "annotations.xml").read_text()
    for name, subset in zip("abcd", ("train", "train", "val", "val")):
        (images / subset).mkdir(exist_ok=True)
        (images / f"{name}.png").rename(images / subset / f"{name}.png")
        text = text.replace(f'name="{name}.png"', f'subset="{subset}" name="{name}.png"')
    # An image of the other subset, named like one of the first, must not be taken for it.
    (images / "train" / "c.png").write_bytes(encoded("a"))
    (tmp_path / "annotations.xml").write_text(text)
    dataset = sdk.open(tmp_path)
    assert_same(dataset.train, reference(tmp_path, "ab"))
    assert_same(dataset.val, reference(tmp_path / "val", "cd"))


def test_an_image_folder_has_the_classes_of_all_splits_and_names_faulty_lines(tmp_path):
    write_image_folder_splits(tmp_path)
    (tmp_path / "classes.txt").unlink()
    dataset = sdk.open(tmp_path)
    assert dataset.classes == dataset.val.classes == ("0", "1")
    file = tmp_path / "train" / "metadata.jsonl"
    for line, message in (
        ("{", "not a line of an image"),
        ('{"file_name": "../a.png"}', "outside of the dataset"),
        ('{"file_name": "b.png", "objects": {"bbox": [[1, 2, 3]], "category": [0]}}', "not a list of objects"),
        ('{"file_name": "b.png", "objects": {"bbox": [[1, 2, 3, 4]]}}', "boxes without label"),
    ):
        file.write_text(metadata_lines("a", labels=(0, 1)) + line + "\n")
        with pytest.raises(DatasetError, match=rf"metadata\.jsonl, line 2.*{message}"):
            sdk.open(tmp_path)


def write_one_class_a_split(root: Path, layout: str) -> None:
    """Two splits of an image each: cats are on the first alone, and dogs on the second."""
    root.mkdir(exist_ok=True)
    for split, name, label in (("train", "c", 0), ("val", "b", 1)):
        x, y, w, h, _ = OBJECTS[name][0]
        box, folder = [x, y, w, h], root / split
        if layout in ("csv", "via", "labelme", "voc"):
            write(folder, name)
        rectangle = {"shape_attributes": {"name": "rect", "x": x, "y": y, "width": w, "height": h}}
        if layout == "csv":
            row = f"{name}.png,{x},{y},{x + w},{y + h},{CLASSES[label]}"
            (root / f"{split}.csv").write_text(f"filename,xmin,ymin,xmax,ymax,class\n{row}\n")
        elif layout == "via":
            region = rectangle | {"region_attributes": {"class": CLASSES[label]}}
            (root / f"via_{split}.json").write_text(
                json.dumps({name: {"filename": f"{name}.png", "regions": [region]}})
            )
        elif layout == "labelme":
            shape = {"label": CLASSES[label], "points": [[x, y], [x + w, y + h]], "shape_type": "rectangle"}
            (folder / f"{name}.json").write_text(json.dumps({"shapes": [shape], "imagePath": f"{name}.png"}))
        elif layout == "voc":
            (folder / f"{name}.xml").write_text(voc_xml(name).replace("cat", "zebra") if label == 0 else voc_xml(name))
        elif layout == "shards":
            with tarfile.open(root / f"{split}-0.tar", "w") as archive:
                told = json.dumps([{"bbox": box, "label": CLASSES[label]}]).encode()
                for suffix, content in ((".png", encoded(name)), (".json", told)):
                    member = tarfile.TarInfo(f"{name}{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        else:
            pa = pytest.importorskip("pyarrow")
            objects = {"bbox": [list(map(float, box))], "category": [10 * (1 - label) + 2 * label]}
            row = {"image": {"bytes": encoded(name), "path": f"{name}.png"}, "objects": objects}
            pa.parquet.write_table(pa.Table.from_pylist([row]), root / f"{split}-0.parquet")


@pytest.mark.parametrize("layout", ["csv", "via", "labelme", "voc", "shards", "parquet"])
def test_splits_have_one_class_list(tmp_path, layout):
    if layout == "parquet":
        pytest.importorskip("pyarrow.parquet")
    write_one_class_a_split(tmp_path, layout)
    first, second = {"voc": ("zebra", "dog"), "parquet": ("10", "2")}.get(layout, CLASSES)
    for _ in range(2):
        dataset = sdk.open(tmp_path)
        expected = ("2", "10") if layout == "parquet" else tuple(sorted((first, second)))
        assert dataset.classes == dataset.val.classes == sdk.open(tmp_path, split="val").classes == expected
        for part, name in ((dataset.train, first), (dataset.val, second)):
            assert [part.classes[label] for label in part[0].labels] == [name]
            assert part.category_ids == (1, 2)


def cvat_image(name: str, stated: str, subset: str) -> str:
    h, w = SIZES[name]
    boxes = "".join(
        f'<box label="{CLASSES[label]}" xtl="{x}" ytl="{y}" xbr="{x + bw}" ybr="{y + bh}" occluded="0"/>'
        for x, y, bw, bh, label in OBJECTS[name]
    )
    return f'<image id="0" name="{stated}" subset="{subset}" width="{w}" height="{h}">{boxes}</image>'


def write_same_names(root: Path, layout: str) -> None:
    """Two splits of one image each, of the same name and in folders of the splits; that of the second is not there."""
    texts = {}
    for split, name in (("train", "a"), ("val", "b")):
        x, y, w, h, label = OBJECTS[name][0]
        row = f"1.png,{x},{y},{x + w},{y + h},{CLASSES[label]},{split}"
        header = "filename,xmin,ymin,xmax,ymax,class,split"
        region = {"shape_attributes": {"name": "rect", "x": x, "y": y, "width": w, "height": h}}
        region["region_attributes"] = {"class": CLASSES[label]}
        coco = json.dumps(instances(name)).replace(f"{name}.png", "1.png")
        file, text = {
            "coco years": (f"annotations/instances_{split}2017.json", coco),
            "coco files": (f"{split}.json", coco),
            "csv files": (f"{split}_labels.csv", f"{header}\n{row}\n"),
            "csv column": ("labels.csv", f"{texts.get('labels.csv', header)}\n{row}"),
            "via": (f"via_{split}.json", json.dumps({"1.png9": {"filename": "1.png", "regions": [region]}})),
            "cvat": (
                "annotations.xml",
                texts.get("annotations.xml", "<annotations>") + cvat_image(name, "1.png", split),
            ),
            "voc": (f"annotations/{split}/1.xml", voc_xml(name, stated="1.png")),
        }[layout]
        texts[file] = text
    for file, text in texts.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text + ("</annotations>" if layout == "cvat" else ""))
    inner = {"coco years": "train2017", "cvat": "images/train", "voc": "images/train"}.get(layout, "train")
    (root / inner).mkdir(parents=True)
    (root / inner / "1.png").write_bytes(encoded("a"))


@pytest.mark.parametrize("layout", ["coco years", "coco files", "csv files", "csv column", "via", "cvat", "voc"])
def test_a_missing_image_is_not_taken_from_another_split(tmp_path, layout):
    write_same_names(tmp_path, layout)
    assert sdk.open(tmp_path, split="train", on_fault="skip")[0].image.shape[:2] == SIZES["a"]
    with pytest.raises(DatasetError, match="missing"):
        sdk.open(tmp_path, split="val")[0]
    if layout == "coco files":
        with pytest.raises(DatasetError, match="missing"):
            sdk.open(tmp_path / "val.json")[0]
        (tmp_path / "val").mkdir()
        (tmp_path / "val" / "1.png").write_bytes(encoded("b"))
        assert sdk.open(tmp_path / "val.json")[0].image.shape[:2] == SIZES["b"]


def test_a_changed_file_is_read_again(tmp_path):
    write_yolo_plain(tmp_path)
    assert len(columns_of(sdk.open(tmp_path))) == 4
    (tmp_path / "labels" / "d.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    assert len(columns_of(sdk.open(tmp_path))) == 5
    # Another image under the same name has another size.
    (tmp_path / "images" / "d.png").write_bytes(encoded("a"))
    assert tuple(columns_of(sdk.open(tmp_path)).image_sizes[3]) == SIZES["a"]


def voc_without_sizes(root: Path) -> None:
    write_voc_images(root)
    for file in (root / "annotations").glob("*.xml"):
        file.write_text(re.sub("<size>.*</size>", "", file.read_text()))


@pytest.mark.parametrize(
    "write_it", [write_csv_corners, write_via, write_image_folder, write_yolo_lists, voc_without_sizes]
)
def test_a_cache_older_than_an_image_is_not_used(tmp_path, write_it):
    write_it(tmp_path)
    image = next(tmp_path.rglob("a.png"))
    image.write_bytes(encoded("a", ".bmp"))
    assert [60, 80] in columns_of(sdk.open(tmp_path)).image_sizes.tolist()
    stat = image.stat()
    turned = cv2.imencode(".bmp", np.ascontiguousarray(np.rot90(pixels("a"))))[1].tobytes()
    # As many bytes and the same time, as an archive that is unpacked once more may bring.
    assert len(turned) == stat.st_size
    image.write_bytes(turned)
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert [80, 60] in columns_of(sdk.open(tmp_path)).image_sizes.tolist()


def test_a_cache_made_under_another_root_is_not_used(tmp_path):
    write_devkit(tmp_path)
    for root in (tmp_path, tmp_path / "VOCdevkit", tmp_path / "VOCdevkit" / "VOC2012"):
        dataset = sdk.open(root)
        assert dataset.path(0).is_file()
        assert dataset[0].image.shape[:2] == SIZES["a"]
    # The same files at another place.
    shutil.copytree(tmp_path / "VOCdevkit", tmp_path / "copy" / "VOCdevkit")
    assert (tmp_path / "copy") in sdk.open(tmp_path / "copy").path(0).parents
    # And another dataset at the same place, with the sizes and times of the first.
    file = tmp_path / "VOCdevkit" / "VOC2012" / "Annotations" / "a.xml"
    stat = file.stat()
    file.write_text(file.read_text().replace("dog", "cow"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert objects_of(sdk.open(tmp_path))["a"][0][1] == "cow"


def test_an_image_that_was_missing_is_found_when_it_is_there(tmp_path):
    for write_it, folder in ((write_csv_corners, "csv"), (write_labelme, "labelme"), (write_voc_images, "voc")):
        write_it(tmp_path / folder)
        image = next((tmp_path / folder).rglob("a.png"))
        image.unlink()
        with pytest.warns(DatasetWarning, match="missing"):
            assert len(sdk.open(tmp_path / folder, on_fault="skip")) == 3
        image.with_suffix(".bmp").write_bytes(encoded("a", ".bmp"))
        assert len(sdk.open(tmp_path / folder, on_fault="skip")) == 4


@pytest.mark.parametrize("write_it", [write_voc_verified, write_voc_cvat])
def test_voc_as_tools_write_it(tmp_path, write_it):
    write_it(tmp_path / "own")
    assert_same(sdk.datasets.Voc(tmp_path / "own"), reference(tmp_path))
    assert type(sdk.open(tmp_path / "own")).__name__ == "Voc"


def test_regions_that_kitti_does_not_care_for_are_ignored_in_every_class(tmp_path):
    write_kitti(tmp_path)
    file = tmp_path / "training" / "label_2" / "b.txt"
    with open(file, "a") as stream:
        stream.write("DontCare -1 -1 -10 1.00 2.00 9.00 12.00 -1 -1 -1 -1000 -1000 -1000 -10\n")
    dataset = sdk.open(tmp_path)
    assert dataset.classes == CLASSES
    columns = columns_of(dataset)
    assert columns.labels[columns.ignore].tolist() == [0, 1]
    assert columns.boxes[columns.ignore].tolist() == [[1, 2, 9, 12]] * 2
    file.write_text("cat 0 0 0 1 2 x 4 1 1 1 1 1 1 1\n")
    with pytest.raises(DatasetError, match=r"b\.txt, line 1.*not an object"):
        sdk.open(tmp_path)


def test_people_that_crowdhuman_ignores(tmp_path):
    write(tmp_path / "Images", "a", ".jpg")
    boxes = [{"tag": "person", "fbox": [-3, 2, 9, 9]}, {"tag": "mask", "fbox": [20, 2, 9, 9]},
             {"tag": "person", "fbox": [40, 2, 9, 9], "extra": {"ignore": 1}}]  # fmt: skip
    (tmp_path / "annotation_val.odgt").write_text(json.dumps({"ID": "a", "gtboxes": boxes}))
    dataset = sdk.open(tmp_path)
    assert dataset.classes == ("person",)
    assert columns_of(dataset).ignore.tolist() == [False, True, True]
    assert dataset[0].boxes[0].tolist() == [0, 2, 6, 11]


def test_turned_boxes_polygons_and_ellipses_of_label_studio(tmp_path):
    write_label_studio_tasks(tmp_path)
    file = tmp_path / "project-1-at-2026-01-01.json"
    tasks = json.loads(file.read_text())
    h, w = SIZES["a"]
    turned = {
        "x": 50,
        "y": 50,
        "width": 100 * 10 / w,
        "height": 100 * 20 / h,
        "rotation": 90,
        "rectanglelabels": ["cat"],
    }
    points = {"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": ["dog"]}
    ring = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20, "ellipselabels": ["dog"]}
    tasks[0]["annotations"][0]["result"] = [
        {"type": "x", "value": value, "original_width": w, "original_height": h} for value in (turned, points, ring)
    ]
    file.write_text(json.dumps(tasks))
    # Clockwise by a quarter about the corner: 20 wide to the left of it, 10 high.
    boxes = columns_of(sdk.open(tmp_path)).boxes[:3]
    np.testing.assert_allclose(boxes, [[20, 30, 40, 40], [0, 0, 40, 30], [32, 18, 48, 42]], atol=1e-6)
    tasks[0]["annotations"][0]["result"][0]["value"] = {"brushlabels": ["cat"], "rle": [1, 2]}
    file.write_text(json.dumps(tasks))
    with pytest.raises(DatasetError, match=r"task 1 object 1.*brushlabels are not read; rectangles"):
        sdk.open(tmp_path)


def test_polygons_with_holes_and_bitmaps_of_supervisely(tmp_path):
    write_supervisely(tmp_path)
    file = tmp_path / "ds0" / "ann" / "d.png.json"
    content = json.loads(file.read_text())
    square, hole = [[10, 10], [19, 10], [19, 19], [10, 19]], [[12, 12], [15, 12], [15, 15], [12, 15]]
    part = np.zeros((3, 4, 4), np.uint8)
    part[1, 1:3] = 255
    data = base64.b64encode(zlib.compress(cv2.imencode(".png", part)[1].tobytes())).decode()
    content["objects"] = [
        {"classTitle": "cat", "geometryType": "polygon", "points": {"exterior": square, "interior": [hole]}},
        {"classTitle": "dog", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [40, 20]}},
    ]
    file.write_text(json.dumps(content))
    dataset = sdk.open(tmp_path)
    sample = dataset[list(columns_of(dataset).image_ids).index("d")]
    assert sample.masks.decode().sum(axis=(1, 2)).tolist() == [100 - 16, 2]
    assert sample.boxes.tolist() == [[10, 10, 20, 20], [41, 21, 43, 22]]


# What is spoilt in the first object of the first image.
SPOILT = {
    "createml": ('"width": 30', '"width": "wide"'),
    "label_studio": ('"width": 37.5', '"width": "wide"'),
    "label_studio_short": ('"width": 37.5', '"width": "wide"'),
    "labelbox": ('"left": 10', '"left": "wide"'),
    "odgt": ('"fbox": [10, 20, 30, 25]', '"fbox": [10, 20, 30]'),
}


@pytest.mark.parametrize("name", RECORDS)
def test_faults_of_records_name_file_and_place(tmp_path, name):
    RECORDS[name](tmp_path)
    file = next(file for file in tmp_path.iterdir() if file.is_file() and file.suffix != ".png")
    whole = file.read_text()
    assert SPOILT[name][0] in whole
    file.write_text(whole.replace(*SPOILT[name]))
    with pytest.raises(DatasetError, match=rf"{re.escape(file.name)}, .*1.*object 1"):
        sdk.open(tmp_path)
    assert len(columns_of(sdk.open(tmp_path, on_fault="skip"))) == 3


def test_what_is_not_recognized_is_told(tmp_path):
    (tmp_path / "own" / "images").mkdir(parents=True)
    (tmp_path / "own" / "images" / "a.png").write_bytes(encoded("a"))
    with pytest.raises(SdkError, match=r"images but no annotations.*found 'images/'.*yolo: data\.yaml"):
        sdk.open(tmp_path / "own")
    (tmp_path / "own" / "x.json").write_text('{"images": []}')
    with pytest.raises(SdkError, match=r"nearest is coco, but x\.json lacks annotations, categories"):
        sdk.open(tmp_path / "own")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("boxes.csv", "photo,colour\n", r"nearest is csv, but boxes\.csv has the columns 'photo,colour'"),
        ("notes/a.xml", "<html/>", r"nearest is voc, but notes.a\.xml has no <annotation>"),
        ("metadata.jsonl", '{"file_name": "a.png"}', r"nearest is imagefolder, but metadata\.jsonl is not"),
        ("labels/z.txt", "0 0.5 0.5 0.1 0.1", r"nearest is yolo, but labels.z\.txt does not belong to images.a\.png"),
    ],
)
def test_the_nearest_layout_and_what_it_lacks(tmp_path, file, content, message):
    write(tmp_path / "images", "a")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(content)
    with pytest.raises(SdkError, match=message):
        sdk.open(tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("https://example.org/data", "is an address"),
        ("nowhere/at/all", "no such folder or file"),
        (7, "found 7"),
        (Coco, "the class Coco; make an object"),
        ((i for i in range(2)), "can be gone through once"),
        ([], "an empty list"),
    ],
)
def test_what_is_no_dataset(given, message):
    with pytest.raises(SdkError, match=message):
        sdk.open(given)


def test_a_list_is_mixed_by_class_name(tmp_path):
    write_yolo(tmp_path / "yolo")
    write_cvat(tmp_path / "cvat")
    mixed = sdk.open([(tmp_path / "yolo", 0.5), (tmp_path / "cvat", 0.5)])
    assert mixed.classes == CLASSES
    assert (len(mixed.train), len(mixed.val)) == (2 + 4, 2)


def test_models_take_lists_of_datasets(tmp_path):
    write_yolo(tmp_path / "yolo")
    write_any_json(tmp_path / "coco")
    file = tmp_path / "coco" / "my labels.json"
    file.write_text(file.read_text().replace('"dog"', '"bird"'))
    sources = [(tmp_path / "yolo", 0.5), (sdk.open(tmp_path / "coco"), 0.5)]
    model = sdk.models.create("retinanet_tiny_shapes", num_classes=sources, weights=None)
    assert model.classes == tuple(sdk.open(sources).classes) == ("cat", "dog", "bird")
    assert model.num_classes == 3
    with pytest.raises(ValueError, match=r"num_classes\[1\]: expected a dataset or the path of one, found 7"):
        sdk.models.create("retinanet_tiny_shapes", num_classes=[tmp_path / "yolo", 7], weights=None)
    with pytest.raises(ValueError, match="are they exchanged"):
        sdk.models.create(str(tmp_path / "yolo"), "retinanet_tiny_shapes", weights=None)
    with pytest.raises(ValueError, match=r"found Yolo\(.*the name comes first"):
        sdk.models.create(sdk.open(tmp_path / "yolo"), "retinanet_tiny_shapes", weights=None)


def test_verbs_and_models_take_paths(tmp_path):
    write_yolo(tmp_path / "own")
    model = sdk.models.create("retinanet_tiny_shapes", num_classes=str(tmp_path / "own"), weights=None)
    assert model.classes == CLASSES
    report = sdk.check(str(tmp_path / "own"))
    assert report.ok
    results = [{"image_id": "c", "category_id": 1, "bbox": [0, 0, 64, 64], "score": 0.9}]
    (tmp_path / "found.json").write_text(json.dumps(results))
    assert sdk.evaluate(str(tmp_path / "own"), str(tmp_path / "found.json"))["bbox/AP"] == pytest.approx(1.0)
    with pytest.raises(SdkError, match="the dataset comes first"):
        sdk.evaluate(model, str(tmp_path / "own"))
