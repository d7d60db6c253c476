"""From JPEG files to a batch: decode, resize to 1333 x 800, flip, normalize, pad, collate, on one thread.

``python -m benchmarks.transforms``. Peers: torchvision's transforms on images of PIL and on tensors, and the functions
of mmcv that MMDetection's pipeline calls, where mmcv is installed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as functional
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

from sdk.datasets.reading import read_image
from sdk.datasets.sample import Sample
from sdk.datasets.transforms import Flip, Preprocessing, Resize
from sdk.inference.batching import Collate

from .measuring import Case, missing, parser, run

SIZE = (480, 640)
BOUNDS = (1333, 800)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures, and returns the figures."""
    options = parser("transforms", __doc__ or "", turns=15).parse_args(arguments)
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    absent = missing("mmcv")
    with tempfile.TemporaryDirectory() as folder:
        try:
            cases = list(of_files(write_files(Path(folder), 2 if options.quick else 8), absent is None))
            return run("transforms", cases, options, {} if absent is None else {"mmcv": absent})
        finally:
            torch.set_num_threads(threads[0])
            cv2.setNumThreads(threads[1])


def write_files(folder: Path, count: int) -> list[Path]:
    """Smooth noise as JPEG files of about the size of COCO's."""
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = random.integers(0, 255, (SIZE[0] // 8, SIZE[1] // 8, 3), np.uint8)
        picture = cv2.resize(coarse, (SIZE[1], SIZE[0]), interpolation=cv2.INTER_CUBIC)
        paths.append(folder / f"{number}.jpg")
        cv2.imwrite(str(paths[-1]), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return paths


def of_files(paths: list[Path], with_mmcv: bool) -> Iterator[Case]:
    """All files in batches of two."""
    random = np.random.default_rng(0)
    boxes = (random.random((7, 4)) * 100 + (0, 0, 120, 120)).astype(np.float32)
    pairs = [paths[start : start + 2] for start in range(0, len(paths), 2)]

    def of_pairs(batch_of: Callable[[list[Path]], object]) -> Callable[[], object]:
        return lambda: [batch_of(pair) for pair in pairs]

    peers = {
        "torchvision, PIL": of_pairs(lambda pair: torchvision_batch(pair, boxes, as_tensor=False)),
        "torchvision, tensors": of_pairs(lambda pair: torchvision_batch(pair, boxes, as_tensor=True)),
    }
    target = {"torchvision, PIL": 1.5, "torchvision, tensors": 1.5}
    if with_mmcv:
        peers["mmcv"], target["mmcv"] = of_pairs(mmcv_batch), 1.3
    yield Case(
        f"an image of {SIZE[0]} x {SIZE[1]} to 800 x 1333, in batches of two",
        of_pairs(lambda pair: our_batch(pair, boxes)),
        peers,
        target=target,
        per=len(paths),
    )


def our_batch(paths: list[Path], boxes: np.ndarray) -> object:
    """As ``sdk.fit`` makes it, always flipped."""
    resize, flip, collate = Resize((BOUNDS,)), Flip(probability=1.0), Collate(Preprocessing(size=BOUNDS))
    random = np.random.default_rng(0)
    labels, ignore = np.zeros(len(boxes), np.int64), np.zeros(len(boxes), bool)
    samples = [Sample(read_image(path), boxes, labels, ignore, image_id=path.name) for path in paths]
    return collate([flip(resize(sample, random), random) for sample in samples])


def torchvision_batch(paths: list[Path], boxes: np.ndarray, as_tensor: bool) -> object:
    """As torchvision's reference scripts do it, with its transforms of the second version."""
    from torchvision import tv_tensors

    steps = v2.Compose(
        [
            v2.Resize(BOUNDS[1], max_size=BOUNDS[0]),
            v2.RandomHorizontalFlip(1.0),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    images = []
    for path in paths:
        if as_tensor:
            image = tv_tensors.Image(decode_image(str(path), mode=ImageReadMode.RGB))
        else:
            image = Image.open(path).convert("RGB")
        own = tv_tensors.BoundingBoxes(torch.from_numpy(boxes), format="XYXY", canvas_size=SIZE)  # type: ignore[call-arg]
        images.append(steps(image, own)[0])
    height, width = (-(-max(image.shape[axis] for image in images) // 32) * 32 for axis in (1, 2))
    padded = [functional.pad(i, [0, 0, width - i.shape[2], height - i.shape[1]]) for i in images]
    return torch.stack(padded)


def mmcv_batch(paths: list[Path]) -> object:
    """As MMDetection's test and training pipelines do it, by the functions that they call."""
    import mmcv  # type: ignore[import-not-found]

    images = []
    for path in paths:
        image = mmcv.imflip(mmcv.imrescale(mmcv.imread(str(path)), BOUNDS))
        mean, std = np.array(MEAN, np.float32) * 255, np.array(STD, np.float32) * 255
        image = mmcv.impad_to_multiple(mmcv.imnormalize(image, mean, std, to_rgb=True), 32)
        images.append(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))))
    return torch.stack(images)


if __name__ == "__main__":
    main()
