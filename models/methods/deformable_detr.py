"""Deformable DETR: Zhu et al., "Deformable DETR: Deformable Transformers for End-to-End Object Detection".

DETR (``detr.py``) in which attention to the image looks at a few places around a reference point, so that maps of
several resolutions can be read and training takes a tenth of the time. Classes are scored by sigmoid under the focal
loss. Two options: every decoder layer refines the boxes of the one before (section 4.2, "Iterative Bounding Box
Refinement"), and the encoder proposes the queries ("Two-Stage Deformable DETR").

Shape letters: B images, L levels, H x W places of a level, S places of all levels, D decoder layers, Q queries,
C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from ..assigners.hungarian import HungarianMatcher, focal_cost
from ..backbones.resnet import ResNet
from ..boxes import xyxy_to_cxcywh
from ..detectors.set_prediction import (
    SetDetector,
    SetHead,
    SetOutputs,
    best_answers,
    boxes_in_pixels,
    size_factors,
)
from ..layers import GN
from ..losses.set_prediction import SetLoss, focal_set_loss, layer_prefixes
from ..necks.channel_mapper import ChannelMapper
from ..settings import SetTest
from ..structures import Detections, ImageBatch, Targets
from ..transformer.attention import DeformableAttention, Memory
from ..transformer.branches import box_branch, class_branch
from ..transformer.layers import DecoderLayer, Encoder, EncoderLayer, init_transformer
from ..transformer.positions import resized_mask, sine_embedding, sine_positions
from ..transformer.references import lay_out, proposal_boxes, shifted


class DeformableTransformer(nn.Module):
    """Encoder of several maps, layers of the decoder, and what queries start from.

    two_stage: queries come from proposals of the encoder, else from learnt embeddings.
    """

    def __init__(
        self,
        *,
        channels: int,
        heads: int,
        layers: int,
        decoder_layers: int,
        levels: int,
        points: int,
        hidden: int,
        dropout: float,
        two_stage: bool,
    ) -> None:
        super().__init__()
        attend = partial(DeformableAttention, channels, heads, levels, points, dropout=dropout)
        encode = partial(EncoderLayer, channels=channels, hidden=hidden, dropout=dropout)
        decode = partial(DecoderLayer, channels=channels, heads=heads, hidden=hidden, dropout=dropout)
        self.encoder = Encoder([encode(attend()) for _ in range(layers)])
        self.decoder = nn.ModuleDict({"layers": nn.ModuleList(decode(attend()) for _ in range(decoder_layers))})
        self.level_embeds = nn.Parameter(torch.empty(levels, channels))
        if two_stage:
            self.enc_output = nn.Linear(channels, channels)
            self.enc_output_norm = nn.LayerNorm(channels)
            self.pos_trans = nn.Linear(channels * 2, channels * 2)
            self.pos_trans_norm = nn.LayerNorm(channels * 2)
        else:
            self.reference_points = nn.Linear(channels, 2)
        self.init_weights()

    def init_weights(self) -> None:
        """As in DETR, but sampling starts around the reference."""
        init_transformer(self)
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.init_weights()
        nn.init.normal_(self.level_embeds)

    @property
    def decoder_layers(self) -> nn.ModuleList:
        """The layers of the decoder."""
        return cast(nn.ModuleList, self.decoder["layers"])

    def encode(self, features: Sequence[Tensor], masks: Sequence[Tensor]) -> tuple[Memory, Tensor]:
        """(B, C, H, W) maps and their (B, H, W) padding to the encoded memory, and (B, S, 2) where its places lie."""
        levels, places = lay_out(masks)
        positions = [
            sine_positions(mask, features[0].shape[1] // 2, offset=-0.5) + embedding[:, None, None]
            for mask, embedding in zip(masks, self.level_embeds)
        ]
        memory = Memory(
            torch.cat([x.flatten(2) for x in features], dim=2).transpose(1, 2),
            torch.cat([x.flatten(2) for x in positions], dim=2).transpose(1, 2),
            torch.cat([mask.flatten(1) for mask in masks], dim=1),
            levels,
        )
        return self.encoder(memory, places), places

    def proposals(self, memory: Memory, places: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder says of an object at each place: (B, S, C) features, and the (B, S, 4) logits of a box
        there whose size grows with the level; infinite where the place is padding or too close to an edge."""
        if memory.levels is None:
            raise ValueError("proposals: the memory needs levels")
        anchors, usable = proposal_boxes(memory.levels, places, memory.padding)
        return self.enc_output_norm(self.enc_output(memory.values.masked_fill(~usable, 0))), anchors

    def queries_at(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """(B, Q, 4) boxes in 0..1 to the positions and contents of their queries, both (B, Q, C)."""
        embedding = sine_embedding(boxes * (2 * torch.pi), self.level_embeds.shape[1] // 2).flatten(2)
        position, content = self.pos_trans_norm(self.pos_trans(embedding)).chunk(2, dim=-1)
        return position, content


class DeformableDETRHead(SetHead):
    """Transformer on several maps and, for each decoder layer, what its answers say: class logits and boxes.

    refine: each layer starts from the boxes of the one before, and has its own branches (else all share one).
    two_stage: the best of the encoder's proposals become the queries; their scores are a second output.
    decoder_layers: as many as ``layers`` of the encoder where not given. points: places of each level that attention
    looks at. set_loss: how the set is trained.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int = 256,
        queries: int = 300,
        heads: int = 8,
        layers: int = 6,
        decoder_layers: int | None = None,
        levels: int = 4,
        points: int = 4,
        hidden: int = 1024,
        dropout: float = 0.1,
        refine: bool = False,
        two_stage: bool = False,
        set_loss: SetLoss | None = None,
    ) -> None:
        super().__init__()
        decoder_layers = decoder_layers or layers
        self.num_classes, self.queries, self.refine, self.two_stage = num_classes, queries, refine, two_stage
        self.transformer = DeformableTransformer(
            channels=channels,
            heads=heads,
            layers=layers,
            decoder_layers=decoder_layers,
            levels=levels,
            points=points,
            hidden=hidden,
            dropout=dropout,
            two_stage=two_stage,
        )
        predictions = decoder_layers + two_stage
        branches = [class_branch(channels, num_classes) for _ in range(predictions if refine else 1)]
        self.cls_branches = nn.ModuleList(branches[i % len(branches)] for i in range(predictions))
        branches = [box_branch(channels, two_stage) for _ in range(predictions if refine else 1)]
        self.reg_branches = nn.ModuleList(branches[i % len(branches)] for i in range(predictions))
        if not refine:
            self.register_load_state_dict_pre_hook(fill_shared_branches)
        if not two_stage:
            self.query_embedding = nn.Embedding(queries, channels * 2)
        matcher = HungarianMatcher(focal_cost, xyxy_to_cxcywh)
        self.set_loss = set_loss or SetLoss(matcher, focal_set_loss, num_classes)

    def forward(self, features: Sequence[Tensor], padding: Tensor) -> tuple[SetOutputs, ...]:
        masks = [resized_mask(padding, x) for x in features]
        memory, places = self.transformer.encode(features, masks)
        if self.two_stage:
            proposed = self.propose(memory, places)
            best = proposed.logits[0, ..., 0].topk(min(self.queries, places.shape[1]), dim=1).indices
            reference = proposed.boxes[0].detach().gather(1, best[..., None].expand(-1, -1, 4))
            query_pos, query = self.transformer.queries_at(reference)
            return self.decode(query, query_pos, memory, reference), proposed
        position, content = self.query_embedding.weight.expand(padding.shape[0], -1, -1).chunk(2, dim=-1)
        reference = self.transformer.reference_points(position).float().sigmoid()
        return (self.decode(content, position, memory, reference),)

    def propose(self, memory: Memory, places: Tensor) -> SetOutputs:
        """The encoder's proposals, one at every place: logits (1, B, S, K) and boxes (1, B, S, 4)."""
        features, anchors = self.transformer.proposals(memory, places)
        boxes = (self.reg_branches[-1](features).float() + anchors).sigmoid()
        return SetOutputs(self.cls_branches[-1](features)[None], boxes[None])

    def decode(self, query: Tensor, query_pos: Tensor, memory: Memory, reference: Tensor) -> SetOutputs:
        """(B, Q, C) queries, their positions and references to what every decoder layer predicts."""
        logits, boxes = [], []
        layers = self.transformer.decoder_layers
        for layer, classify, regress in zip(layers, self.cls_branches, self.reg_branches):
            query = layer(query, query_pos, memory, reference)
            logits.append(classify(query))
            boxes.append(shifted(regress(query).float(), reference))
            if self.refine:
                reference = boxes[-1].detach()
        return SetOutputs(torch.stack(logits), torch.stack(boxes))

    def loss(
        self, outputs: tuple[SetOutputs, ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]:
        logits, boxes = outputs[0][:2]
        sizes = size_factors(images)
        losses = self.set_loss(logits, boxes_in_pixels(boxes, sizes), sizes, targets, layer_prefixes(len(logits)))
        if self.two_stage:
            # A proposal only says that there is an object: all are of the first class.
            objects = [replace(target, labels=torch.zeros_like(target.labels)) for target in targets]
            logits, boxes = outputs[1][:2]
            losses.update(self.set_loss(logits, boxes_in_pixels(boxes, sizes), sizes, objects, ["enc_"]))
        return losses

    def predict(self, outputs: tuple[SetOutputs, ...], images: ImageBatch, test: SetTest) -> list[Detections]:
        return best_answers(outputs[0], images, test)


def fill_shared_branches(head: DeformableDETRHead, state: dict[str, Tensor], prefix: str, *_) -> None:
    """Before loading: branches that all layers share are wanted under every layer's name, but one name is enough.

    The first layer's values count; ``state`` is the loader's own copy.
    """
    for name in ("cls_branches", "reg_branches"):
        first = f"{prefix}{name}.0."
        values = {key.removeprefix(first): value for key, value in state.items() if key.startswith(first)}
        for layer in range(1, len(getattr(head, name))):
            state.update({f"{prefix}{name}.{layer}.{key}": value for key, value in values.items()})


def deformable_detr(
    num_classes: int,
    *,
    backbone: Callable[[], ResNet],
    queries: int = 300,
    layers: int = 6,
    dropout: float = 0.1,
    refine: bool = False,
    two_stage: bool = False,
) -> SetDetector:
    """Deformable DETR on a backbone whose maps are all read, with one more level; options as of the head."""
    body = backbone()
    head = DeformableDETRHead(
        num_classes=num_classes,
        queries=queries,
        layers=layers,
        levels=len(body.out_channels) + 1,
        dropout=dropout,
        refine=refine,
        two_stage=two_stage,
    )
    neck = ChannelMapper(body.out_channels, num_outs=len(body.out_channels) + 1, norm=GN)
    return SetDetector(backbone=body, neck=neck, bbox_head=head, test=SetTest())
