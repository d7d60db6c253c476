"""Queries that start from the encoder's best-scored places (RT-DETR, section 4.3).

Shape letters: B images, S places of all levels, Q queries, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..transformer.attention import Memory, single_or_double
from ..transformer.branches import box_branch, class_branch, init_linear
from ..transformer.references import proposal_boxes
from .set_prediction import SetOutputs


class QueryProposals(nn.Module):
    """The encoder's best-scored places as queries: their contents and boxes."""

    def __init__(self, num_classes: int, channels: int, queries: int) -> None:
        super().__init__()
        self.queries = queries
        self.output = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels))
        self.cls_branch = class_branch(channels, num_classes)
        self.reg_branch = box_branch(channels, from_boxes=True)
        init_linear(self.output)

    def forward(self, memory: Memory, places: Tensor) -> tuple[Tensor, Tensor, SetOutputs]:
        """(B, Q, C) contents, (B, Q, 4) boxes in 0..1, both without gradient, and the same as a predicted set."""
        assert memory.levels is not None
        anchors, usable = proposal_boxes(memory.levels, places)
        features = self.output(memory.values * usable)
        logits = self.cls_branch(features)
        best = logits.amax(dim=2).topk(min(self.queries, logits.shape[1]), dim=1).indices[..., None]
        features, logits, anchors = (
            x.expand(best.shape[0], -1, -1).gather(1, best.expand(-1, -1, x.shape[2]))
            for x in (features, logits, anchors)
        )
        boxes = (single_or_double(self.reg_branch(features)) + anchors).sigmoid()
        return features.detach(), boxes.detach(), SetOutputs(logits[None], boxes[None])
