"""RT-DETR: Zhao et al., "DETRs Beat YOLOs on Real-time Object Detection", and RT-DETRv2: Lv et al., "RT-DETRv2:
Improved Baseline with Bag-of-Freebies for Real-Time Detection Transformer".

Deformable DETR's two stages made fast: a hybrid encoder (``necks/hybrid_encoder.py``) in place of attention over all
maps, queries that start from the encoder's best-scored places, positions of queries computed from their boxes in every
decoder layer, a class loss that asks for the box's IoU, and noisy objects beside the queries in training. The second
version differs in training and, as an option, in reading single places of a map (``discrete``).

Padding counts as part of the picture, as in the published models, which see images stretched to a square.

Shape letters: B images, S places of all levels, D decoder layers, Q queries, T noisy queries, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..assigners.hungarian import HungarianMatcher, focal_cost
from ..backbones.resnet import ResNet
from ..boxes import xyxy_to_cxcywh
from ..detectors.query_proposals import QueryProposals
from ..detectors.set_prediction import (
    DenoisingDetector,
    DenoisingHead,
    SetOutputs,
    best_answers,
    boxes_in_pixels,
    frame_factors,
)
from ..layers import BN, ConvModule
from ..losses.set_prediction import SetLoss, layer_prefixes, varifocal_set_loss
from ..necks.hybrid_encoder import HybridEncoder
from ..settings import SetTest
from ..structures import Detections, ImageBatch, Targets
from ..transformer.attention import DeformableAttention, Memory, single_or_double
from ..transformer.branches import box_branch, class_branch, position_branch
from ..transformer.denoising import Denoising, NoisyObjects, NoisyQueries
from ..transformer.layers import DecoderLayer
from ..transformer.references import flattened, shifted


class RTDETRHead(DenoisingHead):
    """Decoder on the encoder's maps. Outputs are the decoder's sets, the encoder's proposals that became queries and,
    in training, what the decoder made of noisy objects.

    in_channels: of each map. points: sampled places of a map. answer_layer: the decoder layer that answers in
    prediction; those behind it only serve training. discrete: as of ``DeformableAttention``.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: Sequence[int] = (256, 256, 256),
        channels: int = 256,
        queries: int = 300,
        heads: int = 8,
        layers: int = 6,
        points: int = 4,
        hidden: int = 1024,
        answer_layer: int | None = None,
        discrete: bool = False,
        denoising: Denoising | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.answer_layer = layers - 1 if answer_layer is None else answer_layer
        self.denoising = denoising or Denoising()
        self.input_convs = nn.ModuleList(ConvModule(c, channels, 1, norm=BN) for c in in_channels)
        self.proposals = QueryProposals(num_classes, channels, queries)
        self.noise = NoisyQueries(num_classes, channels)
        self.query_pos = position_branch(channels)
        attend = partial(DeformableAttention, channels, heads, len(in_channels), points, dropout=0.0, discrete=discrete)
        self.decoder = nn.ModuleList(
            DecoderLayer(attend(), channels=channels, heads=heads, hidden=hidden, dropout=0.0) for _ in range(layers)
        )
        self.cls_branches = nn.ModuleList(class_branch(channels, num_classes) for _ in range(layers))
        self.reg_branches = nn.ModuleList(box_branch(channels, from_boxes=True) for _ in range(layers))
        matcher = HungarianMatcher(focal_cost, xyxy_to_cxcywh)
        self.set_loss = SetLoss(matcher, varifocal_set_loss, num_classes)

    def forward(
        self, features: Sequence[Tensor], padding: Tensor, noisy: NoisyObjects | None = None
    ) -> tuple[SetOutputs, ...]:
        memory, places = flattened([conv(x) for conv, x in zip(self.input_convs, features, strict=True)])
        query, reference, proposed = self.proposals(memory, places)
        query, reference, hidden = self.noise(query, reference, noisy)
        found = self.decode(query, memory, reference, hidden)
        if noisy is None:
            return found, proposed
        repaired, found = found.parted(noisy.labels.shape[1])
        return found, proposed, repaired

    def decode(self, query: Tensor, memory: Memory, reference: Tensor, hidden: Tensor | None = None) -> SetOutputs:
        """(B, Q, C) queries and their boxes to what every decoder layer predicts; outside training, the last only.

        hidden: (Q, Q) bool, true where a query may not see another.
        """
        logits, boxes = [], []
        layers = list(zip(self.decoder, self.cls_branches, self.reg_branches, strict=True))
        for layer, classify, regress in layers if self.training else layers[: self.answer_layer + 1]:
            query = layer(query, self.query_pos(reference.to(query.dtype)), memory, reference, hidden)
            logits.append(classify(query))
            boxes.append(shifted(single_or_double(regress(query)), reference))
            reference = boxes[-1].detach()
        return SetOutputs(torch.stack(logits), torch.stack(boxes))

    def loss(
        self,
        outputs: tuple[SetOutputs, ...],
        images: ImageBatch,
        targets: Sequence[Targets],
        noisy: NoisyObjects | None = None,
    ) -> dict[str, Tensor]:
        sizes = frame_factors(images)
        each = [(out.logits, boxes_in_pixels(out.boxes, sizes), sizes, targets) for out in outputs]
        names = layer_prefixes(len(outputs[0].logits))
        losses = self.set_loss(*each[0], names) | self.set_loss(*each[1], ["enc_"])
        if noisy is not None:
            losses |= self.set_loss(*each[2], [f"dn_{name}" for name in names], noisy.objects)
        return losses

    def predict(self, outputs: tuple[SetOutputs, ...], images: ImageBatch, test: SetTest) -> list[Detections]:
        return best_answers(outputs[0], images, test, frame_factors(images))


def rt_detr(
    num_classes: int,
    *,
    backbone: Callable[[], ResNet],
    encoder: Callable[[Sequence[int]], HybridEncoder] = HybridEncoder,
    head: Callable[..., RTDETRHead] = RTDETRHead,
) -> DenoisingDetector:
    """RT-DETR on a backbone whose last three maps are read.

    encoder: from the channels of these maps. head: from ``num_classes`` and ``in_channels``.
    """
    body = backbone()
    neck = encoder(body.out_channels[-3:])
    return DenoisingDetector(
        backbone=body,
        neck=neck,
        bbox_head=head(num_classes=num_classes, in_channels=neck.out_channels),
        test=SetTest(max_per_image=300),
    )
