"""CornerNet: Law and Deng, "CornerNet: Detecting Objects as Paired Keypoints".

Two stacked hourglasses predict maps of upper left and of lower right corners. An embedding at each corner tells which
two belong to the same object. Corners lie outside the object, so that pooling along rows and columns brings evidence
to them.

Shape letters: B images, L levels (one an hourglass), C channels, K classes, H x W places of a map, k best corners.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..backbones.hourglass import HourglassNet
from ..dense.corners import (
    best_corners,
    branches,
    corner_pools,
    corner_targets,
    heat_loss,
    objects_on_map,
    offset_loss,
    pair_detections,
    paired_boxes,
    values_at,
)
from ..dense.head import DenseHead
from ..detectors.single_stage import SingleStageDetector
from ..losses.corners import AssociativeEmbeddingLoss
from ..settings import CornerTest
from ..structures import Detections, ImageBatch, Targets


class CornerHead(DenseHead):
    """Outputs for each level, each of upper left (tl) and lower right (br) corners: heat (B, K, H, W), by sigmoid,
    embeddings (B, 1, H, W) and offsets (B, 2, H, W). All levels are trained, the last is used."""

    def __init__(self, *, num_classes: int, levels: int = 2, channels: int = 256) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embedding_loss = AssociativeEmbeddingLoss(pull_weight=0.1, push_weight=0.1)
        self.tl_pool = corner_pools(levels, channels, ("top", "left"))
        self.br_pool = corner_pools(levels, channels, ("bottom", "right"))
        self.tl_heat = branches(levels, channels, num_classes, prior=0.1)
        self.br_heat = branches(levels, channels, num_classes, prior=0.1)
        self.tl_emb = branches(levels, channels, 1)
        self.br_emb = branches(levels, channels, 1)
        self.tl_off = branches(levels, channels, 2)
        self.br_off = branches(levels, channels, 2)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        tl = [pool(x) for pool, x in zip(self.tl_pool, features, strict=True)]
        br = [pool(x) for pool, x in zip(self.br_pool, features, strict=True)]
        parts = ((self.tl_heat, tl), (self.br_heat, br), (self.tl_emb, tl), (self.br_emb, br))
        parts += ((self.tl_off, tl), (self.br_off, br))
        return tuple([branch(x) for branch, x in zip(each, pooled)] for each, pooled in parts)

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        _, _, height, width = outputs[0][0].shape
        objects = objects_on_map(targets, images, (height, width))
        wanted = tl, br = corner_targets(objects, (len(images), self.num_classes, height, width))
        losses: dict[str, Tensor] = {}
        for tl_heat, br_heat, tl_emb, br_emb, tl_off, br_off in zip(*outputs):
            pull, push = self.embedding_loss(
                values_at(tl_emb, objects.image, tl.x, tl.y)[:, 0],
                values_at(br_emb, objects.image, br.x, br.y)[:, 0],
                objects.image,
            )
            terms = {
                "det_loss": heat_loss((tl_heat, br_heat), wanted),
                "off_loss": offset_loss((tl_off, br_off), objects, wanted),
                "pull_loss": pull,
                "push_loss": push,
            }
            losses = {name: losses.get(name, 0) + value for name, value in terms.items()}
        return losses

    def predict(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: CornerTest) -> list[Detections]:
        tl_heat, br_heat, tl_emb, br_emb, tl_off, br_off = (kind[-1] for kind in outputs)
        tl, br = best_corners(tl_heat, tl_off, test), best_corners(br_heat, br_off, test)
        height, width = tl_heat.shape[2:]
        boxes = paired_boxes(tl, br, (height, width), images)
        distance = (tl.gather(tl_emb) - br.gather(br_emb).transpose(1, 2)).abs()
        return pair_detections(boxes, tl, br, distance <= test.distance_threshold, images, test)


def cornernet(num_classes: int, *, backbone: Callable[[], HourglassNet]) -> SingleStageDetector:
    """CornerNet on stacked hourglasses."""
    body = backbone()
    head = CornerHead(num_classes=num_classes, levels=len(body.out_channels), channels=body.out_channels[0])
    return SingleStageDetector(backbone=body, neck=nn.Identity(), bbox_head=head, test=CornerTest())
