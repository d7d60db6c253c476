"""CentripetalNet: Dong et al., "CentripetalNet: Pursuing High-Quality Keypoint Pairs for Object Detection".

CornerNet (``cornernet.py``) in which each corner points to the centre of its object instead of carrying an embedding:
two corners belong together where their centres fall close to each other and to the middle of the box. A deformable
convolution guided by the way to the centre gathers the evidence.

Shape letters: B images, L levels (one an hourglass), C channels, K classes, H x W places of a map, N objects of all
images, k best corners.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..backbones.hourglass import HourglassNet
from ..boxes import box_centres, box_sizes
from ..dense.corners import (
    Corners,
    CornerTargets,
    Objects,
    best_corners,
    branches,
    corner_loss,
    corner_pools,
    corner_targets,
    heat_loss,
    objects_on_map,
    offset_loss,
    pair_detections,
    paired_boxes,
)
from ..dense.head import DenseHead
from ..detectors.single_stage import SingleStageDetector
from ..layers import ConvModule
from ..layers.deform import GuidedDeformConv2d
from ..settings import CornerTest
from ..structures import Detections, ImageBatch, Targets

LARGE_AREA = 3500
"""Pixels from which on a box has the smaller central region (section 4.1)."""
MIN_HALF_SIZE = 1e-4
"""The least half width or height, in places, whose logarithm is learnt."""


def offset_branches(levels: int) -> nn.ModuleList:
    """From the two numbers of a shift to the offsets of a 3 x 3 deformable convolution, for every level."""
    made = nn.ModuleList(ConvModule(2, 18, 1, bias=False) for _ in range(levels))
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1)
    return made


def guided_convs(levels: int, channels: int) -> nn.ModuleList:
    """The deformable convolution of every level."""
    return nn.ModuleList(GuidedDeformConv2d(channels, channels, 3, padding=1) for _ in range(levels))


def each(layers: nn.ModuleList, maps: Sequence[Tensor]) -> list[Tensor]:
    """The layer of each level on its map."""
    return [layer(x) for layer, x in zip(layers, maps, strict=True)]


class CentripetalHead(DenseHead):
    """Outputs for each level, each of upper left (tl) and lower right (br) corners: heat (B, K, H, W), by sigmoid,
    offsets, guiding shifts and logarithms of centripetal shifts, all (B, 2, H, W). All levels are trained, the last is
    used."""

    def __init__(self, *, num_classes: int, levels: int = 2, channels: int = 256) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.tl_pool = corner_pools(levels, channels, ("top", "left"))
        self.br_pool = corner_pools(levels, channels, ("bottom", "right"))
        self.tl_heat = branches(levels, channels, num_classes, prior=0.1)
        self.br_heat = branches(levels, channels, num_classes, prior=0.1)
        self.tl_off = branches(levels, channels, 2)
        self.br_off = branches(levels, channels, 2)
        self.tl_guiding_shift = branches(levels, channels, 2)
        self.br_guiding_shift = branches(levels, channels, 2)
        self.tl_dcn_offset = offset_branches(levels)
        self.br_dcn_offset = offset_branches(levels)
        self.tl_feat_adaption = guided_convs(levels, channels)
        self.br_feat_adaption = guided_convs(levels, channels)
        self.tl_centripetal_shift = branches(levels, channels, 2)
        self.br_centripetal_shift = branches(levels, channels, 2)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        tl, br = each(self.tl_pool, features), each(self.br_pool, features)
        tl_guiding, br_guiding = each(self.tl_guiding_shift, tl), each(self.br_guiding_shift, br)
        # The guiding shift learns from its own loss alone.
        tl_taps = each(self.tl_dcn_offset, [shift.detach() for shift in tl_guiding])
        br_taps = each(self.br_dcn_offset, [shift.detach() for shift in br_guiding])
        tl_adapted = [conv(x, taps) for conv, x, taps in zip(self.tl_feat_adaption, tl, tl_taps)]
        br_adapted = [conv(x, taps) for conv, x, taps in zip(self.br_feat_adaption, br, br_taps)]
        return (
            each(self.tl_heat, tl),
            each(self.br_heat, br),
            each(self.tl_off, tl),
            each(self.br_off, br),
            tl_guiding,
            br_guiding,
            each(self.tl_centripetal_shift, tl_adapted),
            each(self.br_centripetal_shift, br_adapted),
        )

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        _, _, height, width = outputs[0][0].shape
        objects = objects_on_map(targets, images, (height, width))
        wanted = corner_targets(objects, (len(images), self.num_classes, height, width))
        losses: dict[str, Tensor] = {}
        for tl_heat, br_heat, tl_off, br_off, *shifts in zip(*outputs):
            terms = {
                "det_loss": heat_loss((tl_heat, br_heat), wanted),
                "off_loss": offset_loss((tl_off, br_off), objects, wanted),
                "guiding_loss": guiding_loss(shifts[:2], objects, wanted),
                "centripetal_loss": centripetal_loss(shifts[2:], objects, wanted),
            }
            losses = {name: losses.get(name, 0) + value for name, value in terms.items()}
        return losses

    def predict(self, outputs: tuple[list[Tensor], ...], images: ImageBatch, test: CornerTest) -> list[Detections]:
        tl_heat, br_heat, tl_off, br_off, _, _, tl_shift, br_shift = (kind[-1] for kind in outputs)
        tl, br = best_corners(tl_heat, tl_off, test), best_corners(br_heat, br_off, test)
        size = (int(tl_heat.shape[2]), int(tl_heat.shape[3]))
        boxes = paired_boxes(tl, br, size, images)
        # The box between the two centres that its corners point to.
        between = paired_boxes(
            moved(tl, tl.gather(tl_shift).exp()), moved(br, -br.gather(br_shift).exp()), size, images
        )
        return pair_detections(boxes, tl, br, centres_agree(boxes, between, test.distance_threshold), images, test)


def guiding_loss(shifts: Sequence[Tensor], objects: Objects, targets: Sequence[CornerTargets]) -> Tensor:
    """Mean of the losses of both kinds of corner: the way from the corner's place to the centre (equation 5)."""
    centre = box_centres(objects.boxes)
    losses = [
        corner_loss(values, sign * (centre - torch.stack((t.x, t.y), dim=1)), objects, t, weight=0.05)
        for values, sign, t in zip(shifts, (1, -1), targets)
    ]
    return (losses[0] + losses[1]) / 2


def centripetal_loss(shifts: Sequence[Tensor], objects: Objects, targets: Sequence[CornerTargets]) -> Tensor:
    """Mean of the losses of both kinds of corner: the logarithm of half the width and height (equation 1)."""
    half = (box_sizes(objects.boxes) / 2).clamp(min=MIN_HALF_SIZE).log()
    losses = [corner_loss(values, half, objects, t) for values, t in zip(shifts, targets)]
    return (losses[0] + losses[1]) / 2


def moved(corners: Corners, shift: Tensor) -> Corners:
    """The (B, k) corners moved by (B, k, 2) shifts."""
    return replace(corners, x=corners.x + shift[..., 0], y=corners.y + shift[..., 1])


def centres_agree(boxes: Tensor, between: Tensor, threshold: float) -> Tensor:
    """(...) bool: the centres that both corners point to lie in the middle of the box and close together (equation 4).

    boxes, between: (..., 4) xyxy in pixels, the box and what lies between the two centres. threshold: the most that
    lies between them, as a share of the box's central region.
    """
    size = boxes[..., 2:] - boxes[..., :2]
    large = (size.prod(dim=-1).abs() > LARGE_AREA)[..., None]
    half = torch.where(large, 1 / 2.1, 1 / 2.4) * size / 2
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    low, high = centre - half, centre + half
    inside = (between > torch.cat((low, low), dim=-1)) & (between < torch.cat((high, high), dim=-1))
    share = (between[..., 2:] - between[..., :2]).prod(dim=-1).abs() / (high - low).prod(dim=-1).abs()
    return inside.all(dim=-1) & (share <= threshold)


def centripetalnet(num_classes: int, *, backbone: Callable[[], HourglassNet]) -> SingleStageDetector:
    """CentripetalNet on stacked hourglasses."""
    body = backbone()
    head = CentripetalHead(num_classes=num_classes, levels=len(body.out_channels), channels=body.out_channels[0])
    return SingleStageDetector(backbone=body, neck=nn.Identity(), bbox_head=head, test=CornerTest())
