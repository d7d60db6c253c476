"""The steps of ``scripts/gpu`` that run the SDK on a GPU: ``python -m benchmarks.gpu STEP OUT.json CASES``.

They use no package besides PyTorch, torchvision, NumPy, OpenCV and pycocotools. Figures are written after every row, so
that those of a step that ran out of time are kept.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from sdk import models
from sdk.datasets import Shapes
from sdk.datasets.loader import Loader
from sdk.datasets.sample import Sample
from sdk.inference.batching import Batch, Collate
from sdk.models.folding import for_inference
from sdk.models.structures import ImageBatch
from sdk.ops import backend, reference
from sdk.ops.ms_deform_attn import ms_deform_attn
from sdk.training.optimization import make_optimizer

from .detectors import PAIRS, Pair, images, objects

SIZE = (800, 1344)
CASES = (
    "atss_r50_fpn_1x_coco",
    "autoassign_r50_fpn_8x2_1x_coco",
    "cascade_mask_rcnn_r50_fpn_1x_coco",
    "cascade_rcnn_r50_fpn_1x_coco",
    "deformable_detr_r50_16x2_50e_coco",
    "detr_r50_8x2_150e_coco",
    "faster_rcnn_r50_fpn_1x_coco",
    "faster_rcnn_r50_fpn_dconv_c3-c5_1x_coco",
    "fcos_r50_caffe_fpn_gn-head_1x_coco",
    "fovea_r50_fpn_4x4_1x_coco",
    "gfl_r50_fpn_1x_coco",
    "htc_r50_fpn_1x_coco",
    "mask_rcnn_r50_fpn_1x_coco",
    "paa_r50_fpn_1x_coco",
    "point_rend_r50_caffe_fpn_mstrain_1x_coco",
    "retinanet_r50_fpn_1x_coco",
    "sparse_rcnn_r50_fpn_1x_coco",
    "ssd300_coco",
    "tridentnet_r50_caffe_1x_coco",
    "vfnet_r50_fpn_1x_coco",
    "yolov3_d53_320_273e_coco",
)
"""What is compared first; others fill up to ``COMPARED``."""
COMPARED = 24
LOSS_SHARE = 0.05
"""By how much the mean loss of the last quarter of an epoch may differ between GPU and CPU."""


def main(step: str, out: str, cases: str) -> int:
    """Runs one step; 1 where it shows that something is wrong."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = step == "timings"
    found: dict[str, Any] = {"rows": []}
    for row in {"cases": compared, "shapes": trained, "timings": timed}[step](Path(cases)):
        found["rows"].append(row)
        print(json.dumps(row), flush=True)
        Path(out).write_text(json.dumps(found, indent=1) + "\n")
    return 0 if found["rows"] and all(row.get("ok", True) for row in found["rows"]) else 1


def compared(folder: Path) -> Iterator[dict[str, Any]]:
    """Reference cases on the GPU, in float32 without TF32: found as on the CPU, within the tolerances of check.py."""
    sys.path.insert(0, str(folder))
    import check  # type: ignore[import-not-found]

    there = {file.name.removesuffix(".npz") for file in (folder / "cases").glob("*.npz")}
    names = [name for name in CASES if name in there]
    names += sorted(there - set(names))[: COMPARED - len(names)]
    for name in names:
        case, model, batch, extra = check.load(name, models, folder)
        model = model.cuda().eval()
        moved = {key: [value.cuda() for value in values] for key, values in extra.items()}
        with torch.no_grad():
            got = [one.to("cpu") for one in model.predict(batch.to("cuda"), **moved)]
        results = [check.match(e, check.to_numpy(g)) for e, g in zip(case.expected, got, strict=True)]
        share = min(result[0] for result in results)
        yield {"name": name, "ok": share >= 0.97, "share": share, "told": "; ".join(result[1] for result in results)}


def trained(_: Path) -> Iterator[dict[str, Any]]:
    """An epoch of Shapes on both devices from the same weights and images: the loss that it comes to."""
    losses = {device: _epoch(device) for device in ("cpu", "cuda")}
    ends = {device: statistics.mean(values[-len(values) // 4 :]) for device, values in losses.items()}
    share = abs(ends["cuda"] / ends["cpu"] - 1)
    learnt = ends["cuda"] < 0.7 * statistics.mean(losses["cuda"][:4])
    yield {"name": "an epoch of Shapes", "ok": share <= LOSS_SHARE and learnt, **ends, "first": losses["cuda"][0]}


def _epoch(device: str) -> list[float]:
    torch.manual_seed(0)
    dataset = Shapes(400, size=(128, 128))
    model = models.create("retinanet_tiny_shapes", num_classes=dataset, weights=None).to(device).train()
    recipe = model.recipe
    loader = Loader(dataset, batch_size=8, collate=Collate.of(recipe), shuffle=True, seed=0)
    optimizer = make_optimizer(model, recipe.optimizer, 1e-3)
    losses = []
    for batch in loader:
        batch = batch.to(device)
        optimizer.zero_grad()
        total = torch.stack(list(model(batch.images, batch.targets).values())).sum()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        losses.append(float(total.detach()))
    return losses


def timed(_: Path) -> Iterator[dict[str, Any]]:
    """Rows of milliseconds: ours and the peer's in turns, the median of each."""
    for pair in PAIRS:
        for count, goal in ((1, 3.0), (16, None)):
            ours, theirs = detection(pair, count)
            yield row(f"{pair.title}, detection, batch of {count}, bfloat16", ours, "torchvision", theirs, goal, count)
        ours, theirs = step(pair, 4)
        yield row(f"{pair.title}, training, batch of 4, bfloat16", ours, "torchvision", theirs, 2.0, 4)
    yield row("deformable attention, forward and backward", *attention(), 2.5)
    yield loading()


def row(
    name: str,
    ours: Callable[[], object],
    peer: str,
    theirs: Callable[[], object],
    goal: float | None,
    per: int = 1,
    turns: int = 7,
) -> dict[str, Any]:
    """Both sides in turns; milliseconds of one image or call. A goal that is missed is told, and is no failure."""
    for call in (ours, theirs, ours, theirs):
        call()
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(turns):
        for side, call in (("ours", ours), ("theirs", theirs)):
            torch.cuda.synchronize()
            start = time.perf_counter()
            call()
            torch.cuda.synchronize()
            times[side].append((time.perf_counter() - start) * 1e3 / per)
    mine, other = statistics.median(times["ours"]), statistics.median(times["theirs"])
    spread = {f"{side}_spread_ms": [min(values), max(values)] for side, values in times.items()}
    figures = {"ours_ms": mine, "peer": peer, "peer_ms": other, "times": other / mine, "goal": goal}
    return {"name": name, **figures, **spread, "memory_mib": torch.cuda.max_memory_allocated() / 2**20}


def detection(pair: Pair, count: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Both sides find objects in the same noise, in bfloat16."""
    ours = for_inference(pair.ours().cuda()).to(memory_format=torch.channels_last)
    theirs = pair.torchvision(SIZE).cuda().eval()
    batch, pictures = images(count, SIZE)
    pixels = batch.pixels.cuda().contiguous(memory_format=torch.channels_last)
    moved, pictures = ImageBatch(pixels, batch.sizes), [picture.cuda() for picture in pictures]

    def run(call: Callable[[], object]) -> Callable[[], object]:
        def in_bfloat16() -> object:
            with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
                return call()

        return in_bfloat16

    return run(lambda: ours.predict(moved)), run(lambda: theirs(pictures))


def step(pair: Pair, count: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """A step of training on both sides, in bfloat16."""
    ours = pair.ours().cuda().train().to(memory_format=torch.channels_last)
    theirs = pair.torchvision(SIZE).cuda().train()
    (batch, pictures), (targets, wanted) = images(count, SIZE), objects(count, SIZE)
    ready = Batch(batch, targets, tuple(range(count)), (None,) * count).to("cuda")
    pixels = ready.images.pixels.contiguous(memory_format=torch.channels_last)
    own = ImageBatch(pixels, ready.images.sizes)
    pictures = [picture.cuda() for picture in pictures]
    wanted = [{name: value.cuda() for name, value in target.items()} for target in wanted]
    optimizers = (
        make_optimizer(ours, ours.recipe.optimizer, 1e-4),
        torch.optim.SGD([p for p in theirs.parameters() if p.requires_grad], lr=1e-4, momentum=0.9, weight_decay=1e-4),
    )

    def run(forward: Callable[[], dict], optimizer: torch.optim.Optimizer) -> Callable[[], object]:
        def one() -> None:
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16):
                total = sum(forward().values())
            total.backward()  # type: ignore[union-attr]
            optimizer.step()

        return one

    return run(lambda: ours(own, ready.targets), optimizers[0]), run(lambda: theirs(pictures, wanted), optimizers[1])


def attention() -> tuple[Callable[[], object], str, Callable[[], object]]:
    """The native op and the plain version on the maps of an image of 800 x 1333."""
    shapes = torch.tensor([[100, 167], [50, 84], [25, 42], [13, 21]], device="cuda")
    areas = shapes.prod(1)
    starts, total = areas.cumsum(0) - areas, int(areas.sum())
    value = torch.randn(2, total, 8, 32, device="cuda", requires_grad=True)
    locations = torch.rand(2, total, 8, 4, 4, 2, device="cuda", requires_grad=True)
    weights = torch.rand(2, total, 8, 4, 4, device="cuda").softmax(-1).requires_grad_()

    def run(call: Callable[..., torch.Tensor]) -> Callable[[], object]:
        def one() -> object:
            output = call(value, shapes, starts, locations, weights)
            return torch.autograd.grad(output.sum(), (value, locations, weights))

        return one

    return run(ms_deform_attn), f"PyTorch (ours: {backend.describe()['cuda']})", run(reference.ms_deform_attn)


def loading() -> dict[str, Any]:
    """Images a second that the loader gives from memory, and that a step of RetinaNet takes."""
    import numpy as np

    class Ready:
        """Noise of COCO's size."""

        classes, category_ids, fingerprint = ("thing",), (1,), "noise"
        image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)

        def __len__(self) -> int:
            return 400

        def __getitem__(self, index: int) -> Sample:
            boxes, labels = np.array([[10, 10, 200, 300]], np.float32), np.zeros(1, np.int64)
            return Sample(self.image, boxes, labels, labels.astype(bool), image_id=index)

    from sdk.datasets.transforms import Flip, Preprocessing, Resize

    collate = Collate(Preprocessing())
    loader = Loader(
        Ready(),  # type: ignore[arg-type]
        batch_size=4,
        collate=collate,
        transforms=(Resize(), Flip()),
        workers=min(16, torch.multiprocessing.cpu_count()),
        pin_memory=True,
    )
    ours, _ = step(PAIRS[1], 4)
    for _ in range(3):
        ours()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(10):
        ours()
    torch.cuda.synchronize()
    step_ms = (time.perf_counter() - start) * 1e3 / 40
    batches = iter(loader)
    for _ in range(10):
        next(batches)
    start = time.perf_counter()
    left = sum(len(batch) for batch in batches)
    load_ms = (time.perf_counter() - start) * 1e3 / left
    figures = {"ours_ms": load_ms, "peer": "a step of RetinaNet", "peer_ms": step_ms, "times": step_ms / load_ms}
    return {"name": "loading at 800 x 1333", **figures, "goal": 0.95}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
