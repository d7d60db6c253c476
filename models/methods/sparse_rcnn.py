"""Sparse R-CNN: Sun et al., "Sparse R-CNN: End-to-End Object Detection with Learnable Proposals".

A fixed number of learnt boxes, each with a learnt feature, replaces dense proposals. Six stages in a row look at each
box's region through a small convolution made from its feature, and refine both. As in DETR objects are assigned to
boxes one to one, and nothing is suppressed afterwards.

Shape letters: B images, D stages, Q proposals of an image, R = B Q regions, C channels, F channels between the two
dynamic convolutions, S size of a region, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..assigners.hungarian import HungarianMatcher, focal_cost
from ..backbones.resnet import ResNet
from ..boxes import cxcywh_to_xyxy
from ..coders import BoxCoder, DeltaCoder
from ..dense.postprocess import best_pairs
from ..detectors.base import Detector, full_precision
from ..detectors.set_prediction import set_detections, size_factors
from ..layers.init import bias_for_prior
from ..losses.set_prediction import SetLoss, focal_set_loss
from ..necks.fpn import FPN
from ..roi.extractor import roi_align_extractor
from ..roi.rois import to_rois
from ..settings import SetTest
from ..structures import Detections, ImageBatch, Targets
from ..transformer.attention import Attention, Memory
from ..transformer.layers import FeedForward, init_transformer


class EmbeddingProposals(nn.Module):
    """Learnt boxes, as centre and size in 0..1 of the image, and learnt features (section 3.2)."""

    def __init__(self, proposals: int, channels: int) -> None:
        super().__init__()
        self.init_proposal_bboxes = nn.Embedding(proposals, 4)
        self.init_proposal_features = nn.Embedding(proposals, channels)
        # Every box is the whole image at first.
        with torch.no_grad():
            self.init_proposal_bboxes.weight.copy_(torch.tensor((0.5, 0.5, 1.0, 1.0)))

    def forward(self, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 4) width, height, width, height to (B, Q, 4) xyxy boxes in pixels and (B, Q, C) features."""
        boxes = cxcywh_to_xyxy(self.init_proposal_bboxes.weight) * sizes[:, None]
        return boxes, self.init_proposal_features.weight.expand(sizes.shape[0], -1, -1)


class DynamicConv(nn.Module):
    """Two 1 x 1 convolutions of a region, whose weights are made from the proposal's feature (section 3.2, "Dynamic
    instance interactive head"): (R, C) features and (R, C, S, S) regions to (R, C)."""

    def __init__(self, channels: int, hidden: int, roi_size: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.dynamic_layer = nn.Linear(channels, 2 * channels * hidden)
        self.norm_in = nn.LayerNorm(hidden)
        self.norm_out = nn.LayerNorm(channels)
        self.fc_layer = nn.Linear(channels * roi_size**2, channels)
        self.fc_norm = nn.LayerNorm(channels)

    def forward(self, queries: Tensor, regions: Tensor) -> Tensor:
        weights_in, weights_out = self.dynamic_layer(queries).chunk(2, dim=1)
        x = regions.flatten(2).transpose(1, 2)
        x = F.relu(self.norm_in(x @ weights_in.unflatten(1, (-1, self.hidden))))
        x = F.relu(self.norm_out(x @ weights_out.unflatten(1, (self.hidden, -1))))
        return F.relu(self.fc_norm(self.fc_layer(x.flatten(1))))


def normalized_layers(channels: int, depth: int) -> nn.Sequential:
    """``depth`` linear layers, each normalized and with a ReLU."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class DynamicHead(nn.Module):
    """One stage: features attend to each other, then each to its own region; what comes out says class and box."""

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int,
        roi_size: int,
        heads: int = 8,
        dynamic_channels: int = 64,
        hidden: int = 2048,
        class_layers: int = 1,
        box_layers: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = Attention(channels, heads, dropout)
        self.attention_norm = nn.LayerNorm(channels)
        self.instance_interactive_conv = DynamicConv(channels, dynamic_channels, roi_size)
        self.instance_interactive_conv_norm = nn.LayerNorm(channels)
        self.ffn = FeedForward(channels, hidden, dropout)
        self.ffn_norm = nn.LayerNorm(channels)
        self.cls_fcs = normalized_layers(channels, class_layers)
        self.fc_cls = nn.Linear(channels, num_classes)
        self.reg_fcs = normalized_layers(channels, box_layers)
        self.fc_reg = nn.Linear(channels, 4)
        init_transformer(self)
        nn.init.constant_(self.fc_cls.bias, bias_for_prior(0.01))

    def forward(self, queries: Tensor, regions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, Q, C) features and (R, C, S, S) regions to (B, Q, K) logits, (B, Q, 4) codes and new features."""
        x = self.attention_norm(queries + self.attention(queries, None, Memory(queries)))
        interaction = self.instance_interactive_conv(x.flatten(0, 1), regions)
        x = self.instance_interactive_conv_norm(x + interaction.reshape(x.shape))
        x = self.ffn_norm(x + self.ffn(x))
        return self.fc_cls(self.cls_fcs(x)), self.fc_reg(self.reg_fcs(x)), x


def corners(boxes: Tensor) -> Tensor:
    """xyxy boxes as they are: what matching and the L1 loss compare."""
    return boxes


class SparseRoIHead(nn.Module):
    """Stages one after another, each on the boxes and features of the one before.

    head: the arguments of ``DynamicHead`` but for the class count. set_loss: how the set is trained.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        stages: int = 6,
        bbox_roi_extractor: nn.Module | None = None,
        coder: BoxCoder | None = None,
        set_loss: SetLoss | None = None,
        **head: Any,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        head = {"channels": 256, "roi_size": 7, **head}
        self.bbox_roi_extractor = bbox_roi_extractor or roi_align_extractor(head["roi_size"], sampling_ratio=2)
        self.bbox_head = nn.ModuleList(DynamicHead(num_classes=num_classes, **head) for _ in range(stages))
        self.coder = coder or DeltaCoder(stds=(0.5, 0.5, 1.0, 1.0), clip=False)
        self.set_loss = set_loss or SetLoss(HungarianMatcher(focal_cost, corners), focal_set_loss, num_classes)

    def forward(self, features: Sequence[Tensor], boxes: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """(B, Q, 4) boxes in pixels and (B, Q, C) features to (D, B, Q, K) logits and (D, B, Q, 4) boxes."""
        logits, refined = [], []
        for head in self.bbox_head:
            regions = self.bbox_roi_extractor(features, to_rois([boxes]))
            scores, codes, queries = head(queries, regions)
            logits.append(full_precision(scores))
            refined.append(self.coder.decode(boxes, full_precision(codes)))
            boxes = refined[-1].detach()
        return torch.stack(logits), torch.stack(refined)


class SparseRCNN(Detector):
    """Backbone, neck, learnt proposals and the stages that refine them."""

    def __init__(
        self,
        *,
        backbone: nn.Module,
        neck: nn.Module,
        rpn_head: EmbeddingProposals,
        roi_head: SparseRoIHead,
        test: SetTest,
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.rpn_head, self.roi_head, self.test = backbone, neck, rpn_head, roi_head, test
        self.num_classes = roi_head.num_classes

    def outputs(self, images: ImageBatch) -> tuple[Tensor, Tensor]:
        """Logits and boxes of every stage."""
        features = self.neck(self.backbone(images.pixels))
        boxes, queries = self.rpn_head(size_factors(images))
        return self.roi_head(features, boxes, queries)

    def forward(self, images: ImageBatch, targets: Sequence[Targets]) -> dict[str, Tensor]:
        logits, boxes = self.outputs(images)
        prefixes = [f"stage{stage}_" for stage in range(len(logits))]
        return self.roi_head.set_loss(logits, boxes, size_factors(images), targets, prefixes)

    def predict(self, images: ImageBatch) -> list[Detections]:
        logits, boxes = self.outputs(images)
        scores, labels, query = best_pairs(logits[-1].sigmoid(), self.test.max_per_image)
        boxes = boxes[-1].gather(1, query[..., None].expand(-1, -1, 4))
        return set_detections(boxes, scores, labels, images, self.test)


def sparse_rcnn(num_classes: int, *, backbone: Callable[[], ResNet], proposals: int = 100) -> SparseRCNN:
    """Sparse R-CNN on a backbone with four stages; as many detections as ``proposals``."""
    body = backbone()
    return SparseRCNN(
        backbone=body,
        neck=FPN(body.out_channels, num_outs=4),
        rpn_head=EmbeddingProposals(proposals, 256),
        roi_head=SparseRoIHead(num_classes=num_classes),
        test=SetTest(max_per_image=proposals),
    )
