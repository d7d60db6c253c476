"""DETR: Carion et al., "End-to-End Object Detection with Transformers".

A transformer reads the last map of the backbone. A fixed number of learnt queries ask it for objects, each answers with
one object or none, and training assigns objects to answers one to one; nothing is suppressed afterwards.

Shape letters: B images, H x W places of the map, S = H W, D decoder layers, Q queries, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..assigners.hungarian import HungarianMatcher, softmax_cost
from ..backbones.resnet import ResNet
from ..boxes import xyxy_to_cxcywh
from ..detectors.set_prediction import (
    SetDetector,
    SetHead,
    SetOutputs,
    answers,
    boxes_in_pixels,
    size_factors,
)
from ..losses import CrossEntropy
from ..losses.set_prediction import SetLoss, layer_prefixes
from ..settings import SetTest
from ..structures import Detections, ImageBatch, Targets
from ..transformer.attention import Attention, Memory
from ..transformer.layers import DecoderLayer, Encoder, EncoderLayer, FeedForward, init_transformer
from ..transformer.positions import resized_mask, sine_positions


class Decoder(nn.Module):
    """Decoder layers one after another; each layer's answer is normalized."""

    def __init__(self, layers: Sequence[DecoderLayer], channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.post_norm = nn.LayerNorm(channels)

    def forward(self, query: Tensor, query_pos: Tensor, memory: Memory) -> Tensor:
        """(B, Q, C) queries and their positions to (D, B, Q, C)."""
        answers = []
        for layer in self.layers:
            query = layer(query, query_pos, memory)
            answers.append(self.post_norm(query))
        return torch.stack(answers)


class Transformer(nn.Module):
    """Encoder of a map and decoder of queries."""

    def __init__(
        self, *, channels: int, heads: int, layers: int, decoder_layers: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        attend = partial(Attention, channels, heads, dropout)
        encode = partial(EncoderLayer, channels=channels, hidden=hidden, dropout=dropout)
        decode = partial(DecoderLayer, channels=channels, heads=heads, hidden=hidden, dropout=dropout)
        self.encoder = Encoder([encode(attend()) for _ in range(layers)])
        self.decoder = Decoder([decode(attend()) for _ in range(decoder_layers)], channels)
        init_transformer(self)

    def forward(self, features: Tensor, padding: Tensor, queries: Tensor) -> Tensor:
        """(B, C, H, W) map, (B, H, W) bool padding and (Q, C) positions of the queries to (D, B, Q, C) answers."""
        positions = sine_positions(padding, features.shape[1] // 2)
        memory = self.encoder(
            Memory(features.flatten(2).transpose(1, 2), positions.flatten(2).transpose(1, 2), padding.flatten(1))
        )
        query_pos = queries.expand(features.shape[0], -1, -1)
        return self.decoder(torch.zeros_like(query_pos), query_pos, memory)


@dataclass(frozen=True)
class NoObjectCrossEntropy:
    """Mean cross-entropy of (N, K + 1) logits and (N,) labels in 0..K, in which no object, K, weighs little (section 4,
    "Technical details"); all times ``weight``."""

    no_object: float = 0.1
    weight: float = 1.0

    def __call__(self, logits: Tensor, labels: Tensor, quality: Tensor) -> Tensor:
        weight = torch.where(labels == logits.shape[1] - 1, self.no_object, 1.0)
        return CrossEntropy(self.weight)(logits, labels, weight, weight.sum().clamp(min=1))


class DETRHead(SetHead):
    """Projection of the last map, transformer, and what its answers say: class logits (the last for no object) and
    boxes. decoder_layers: as many as ``layers`` of the encoder where not given. set_loss: how the set is trained."""

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 2048,
        channels: int = 256,
        queries: int = 100,
        heads: int = 8,
        layers: int = 6,
        decoder_layers: int | None = None,
        hidden: int = 2048,
        dropout: float = 0.1,
        set_loss: SetLoss | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.input_proj = nn.Conv2d(in_channels, channels, 1)
        self.transformer = Transformer(
            channels=channels,
            heads=heads,
            layers=layers,
            decoder_layers=decoder_layers or layers,
            hidden=hidden,
            dropout=dropout,
        )
        self.query_embedding = nn.Embedding(queries, channels)
        self.fc_cls = nn.Linear(channels, num_classes + 1)
        self.reg_ffn = FeedForward(channels, channels)
        self.fc_reg = nn.Linear(channels, 4)
        matcher = HungarianMatcher(softmax_cost, xyxy_to_cxcywh, class_weight=1.0)
        self.set_loss = set_loss or SetLoss(matcher, NoObjectCrossEntropy(), num_classes)

    def forward(self, features: Sequence[Tensor], padding: Tensor) -> tuple[SetOutputs]:
        x = self.input_proj(features[-1])
        answers = self.transformer(x, resized_mask(padding, x), self.query_embedding.weight)
        boxes = self.fc_reg(F.relu(self.reg_ffn(answers))).sigmoid()
        return (SetOutputs(self.fc_cls(answers), boxes),)

    def loss(
        self, outputs: tuple[SetOutputs, ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        logits, boxes = outputs[0][:2]
        sizes = size_factors(images)
        return self.set_loss(logits, boxes_in_pixels(boxes, sizes), sizes, targets, layer_prefixes(len(logits)))

    def predict(self, outputs: tuple[SetOutputs, ...], images: ImageBatch, test: SetTest) -> list[Detections]:
        scores, labels = outputs[0].logits[-1].softmax(dim=-1)[..., :-1].max(dim=-1)
        scores, query = scores.topk(min(test.max_per_image, scores.shape[1]), dim=1)
        return answers(outputs[0].boxes[-1], query, scores, labels.gather(1, query), images, test)


def detr(
    num_classes: int,
    *,
    backbone: Callable[[], ResNet],
    queries: int = 100,
    layers: int = 6,
    dropout: float = 0.1,
) -> SetDetector:
    """DETR on a backbone whose last map is read; as many decoder as encoder ``layers``."""
    body = backbone()
    head = DETRHead(
        num_classes=num_classes, in_channels=body.out_channels[-1], queries=queries, layers=layers, dropout=dropout
    )
    return SetDetector(backbone=body, neck=None, bbox_head=head, test=SetTest())
