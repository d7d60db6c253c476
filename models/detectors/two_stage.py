"""Detectors that look twice: proposals first, then each of them closely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn
from torch.profiler import record_function

from ..roi.masks import MaskBranch, paste_detections
from ..settings import ProposalSettings, RoITest, without_suppression
from ..structures import Detections, ImageBatch, Proposals, Targets
from .base import Candidates, Detector


class ProposalHead(Protocol):
    """A first stage; ``test_proposals`` are its test-time settings."""

    test_proposals: ProposalSettings

    def outputs(self, features: Sequence[Tensor], images: ImageBatch) -> tuple[list[Tensor], ...]:
        """Raw outputs, in float32: for each kind of output one list with a tensor a level."""
        ...

    def loss(
        self, outputs: tuple[list[Tensor], ...], images: ImageBatch, targets: Sequence[Targets]
    ) -> dict[str, Tensor]: ...

    def propose(self, outputs: tuple[list[Tensor], ...], images: ImageBatch) -> list[Proposals]: ...


class RoIHead(nn.Module):
    """The contract of a second stage."""

    num_classes: int

    def loss(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        images: ImageBatch,
        targets: Sequence[Targets],
    ) -> dict[str, Tensor]:
        """Loss terms on (P, 4) proposals of each image, in batch pixels."""
        raise NotImplementedError

    def predict_boxes(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], images: ImageBatch, test: RoITest
    ) -> tuple[list[Detections], MaskBranch | None]:
        """Detections of each image from its (P, 4) proposals, without masks, and the mask branch where there is one."""
        raise NotImplementedError

    def predict(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], images: ImageBatch, test: RoITest
    ) -> list[Detections]:
        """Detections of each image from its (P, 4) proposals, with masks where there is a mask branch."""
        detections, masks = self.predict_boxes(features, proposals, images, test)
        if masks is None:
            return detections
        return paste_detections(masks(detections), detections, images, test.mask_threshold)


class TwoStageDetector(Detector):
    """Backbone, neck, a proposal head and a RoI head.

    Without ``rpn_head`` the proposals are given from outside (Fast R-CNN), as an argument or in the targets.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        neck: nn.Module | None,
        rpn_head: ProposalHead | None,
        roi_head: RoIHead,
        test: RoITest | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.rpn_head, self.roi_head = backbone, neck, rpn_head, roi_head
        self.test = test or RoITest()
        self.num_classes = roi_head.num_classes

    def features(self, images: ImageBatch) -> Sequence[Tensor]:
        """The pyramid that both stages read."""
        features = self.backbone(images.pixels)
        return features if self.neck is None else self.neck(features)

    def forward(
        self, images: ImageBatch, targets: Sequence[Targets], proposals: Sequence[Tensor] | None = None
    ) -> dict[str, Tensor]:
        return self.losses(self.features(images), images, targets, proposals)

    def losses(
        self,
        features: Sequence[Tensor],
        images: ImageBatch,
        targets: Sequence[Targets],
        proposals: Sequence[Tensor] | None,
    ) -> dict[str, Tensor]:
        """Loss terms of both stages on the features of a batch."""
        losses: dict[str, Tensor] = {}
        if self.rpn_head is not None:
            outputs = self.rpn_head.outputs(features, images)
            with record_function("losses"):
                losses.update(self.rpn_head.loss(outputs, images, targets))
            proposals = [p.boxes for p in self.rpn_head.propose(outputs, images)]
        elif proposals is None:
            proposals = [_required(target.proposals) for target in targets]
        losses.update(self.roi_head.loss(features, proposals, images, targets))
        return losses

    def predict(self, images: ImageBatch, proposals: Sequence[Tensor] | None = None) -> list[Detections]:
        features = self.features(images)
        return self.roi_head.predict(features, self.test_proposals(features, images, proposals), images, self.test)

    def candidates(self, images: ImageBatch, proposals: Sequence[Tensor] | None = None) -> Candidates:
        """What is found before suppression; arguments as of ``predict``."""
        features = self.features(images)
        proposals = self.test_proposals(features, images, proposals)
        return Candidates(*self.roi_head.predict_boxes(features, proposals, images, without_suppression(self.test)))

    def test_proposals(
        self, features: Sequence[Tensor], images: ImageBatch, given: Sequence[Tensor] | None
    ) -> Sequence[Tensor]:
        """(P, 4) proposals of each image, from the proposal head or as given from outside."""
        if self.rpn_head is not None:
            return [p.boxes for p in self.rpn_head.propose(self.rpn_head.outputs(features, images), images)]
        if given is None:
            raise ValueError("this detector has no proposal head: pass proposals=[(P, 4) boxes of each image]")
        return given


def _required(proposals: Tensor | None) -> Tensor:
    if proposals is None:
        raise ValueError("Targets.proposals: this detector has no proposal head, so each image needs proposals")
    return proposals
