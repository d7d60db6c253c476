"""D-FINE: Peng et al., "D-FINE: Redefine Regression Task in DETRs as Fine-grained Distribution Refinement".

RT-DETR whose decoder layers refine, for each side of a first box, a distribution over distances, layer by layer; the
distributions also tell how good a box is. The early layers learn from the last one's distributions.

Shape letters: B images, S places of all levels, D decoder layers, Q queries, P queries with an object, C channels,
K classes, N values of a distribution, L levels, M heads.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.overlaps import elementwise_iou
from ..assigners.base import BACKGROUND
from ..assigners.hungarian import HungarianMatcher, focal_cost
from ..backbones.hgnet import HGNetV2
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
from ..distributed import mean_count
from ..layers import BN, ConvModule
from ..losses.set_prediction import Pairs, SetLoss, layer_prefixes, matched_pairs, varifocal_set_loss
from ..necks.hybrid_encoder import CSPBlock, HybridEncoder, normalized_conv
from ..settings import SetTest
from ..structures import Detections, ImageBatch, Targets
from ..transformer.attention import Attention, Memory, single_or_double, weighted_samples
from ..transformer.branches import box_branch, class_branch, position_branch
from ..transformer.denoising import Denoising, NoisyObjects, NoisyQueries
from ..transformer.layers import FeedForward
from ..transformer.references import flattened, shifted

BINS = 33
"""Values of a distribution."""
REACH = 0.5
"""The largest refinement of a side, as a share of the box's side, of the inner bins."""
BEST_BINS = 4
"""So many largest probabilities of a side tell how sure it is."""
TEMPERATURE = 5.0
"""Of the distributions that are learnt from the last layer's."""
LOCAL_WEIGHT, DISTILLATION_WEIGHT = 0.15, 1.5


class ELANBlock(nn.Module):
    """Fuses two concatenated maps, keeping what every step makes: (B, 2 C, H, W) to (B, C, H, W) (figure 5)."""

    def __init__(self, channels: int, expansion: float = 1.0, blocks: int = 3) -> None:
        super().__init__()
        inner = round(expansion * channels // 2)
        conv = partial(normalized_conv, activation=nn.SiLU())
        self.conv1 = conv(2 * channels, 2 * channels, 1)
        self.csp1 = CSPBlock(channels, inner, blocks=blocks)
        self.conv2 = conv(inner, inner, 3, padding=1)
        self.csp2 = CSPBlock(inner, inner, blocks=blocks)
        self.conv3 = conv(inner, inner, 3, padding=1)
        self.conv4 = conv(2 * (channels + inner), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = self.conv1(x)
        first = self.conv2(self.csp1(both.chunk(2, dim=1)[1]))
        return self.conv4(torch.cat((both, first, self.conv3(self.csp2(first))), dim=1))


def plain_lateral(channels: int) -> ConvModule:
    """A 1 x 1 convolution without activation."""
    return normalized_conv(channels, channels, 1)


def depthwise_downsampling(channels: int) -> nn.Sequential:
    """Halves a map, channel by channel."""
    first = normalized_conv(channels, channels, 1)
    second = normalized_conv(channels, channels, 3, stride=2, padding=1, groups=channels)
    return nn.Sequential(OrderedDict(conv1=first, conv2=second))


def fine_encoder(
    in_channels: Sequence[int], *, channels: int = 256, hidden: int = 1024, expansion: float = 1.0, blocks: int = 3
) -> HybridEncoder:
    """RT-DETR's encoder with lighter parts; ``expansion`` and ``blocks`` as of ``ELANBlock``."""
    return HybridEncoder(
        in_channels,
        channels=channels,
        hidden=hidden,
        fusion=partial(ELANBlock, expansion=expansion, blocks=blocks),
        lateral=plain_lateral,
        downsampling=depthwise_downsampling,
    )


class PointAttention(nn.Module):
    """Deformable attention to the memory itself, with as many points of each level as ``points`` says (section 4.4)."""

    def __init__(self, channels: int, heads: int, points: Sequence[int]) -> None:
        super().__init__()
        self.heads, self.points = heads, tuple(points)
        self.sampling_offsets = nn.Linear(channels, heads * sum(points) * 2)
        self.attention_weights = nn.Linear(channels, heads * sum(points))
        angles = torch.arange(heads) * (2 * torch.pi / heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=1)
        directions = directions / directions.abs().amax(dim=1, keepdim=True)
        steps = torch.cat([torch.arange(1, count + 1) for count in points])
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((directions[:, None] * steps[:, None]).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)

    def forward(self, query: Tensor, memory: Memory, reference: Tensor) -> Tensor:
        """(B, Q, C) queries and their (B, Q, 4) boxes to (B, Q, C)."""
        assert memory.levels is not None
        total, most, device = sum(self.points), max(self.points), query.device
        shape = (*query.shape[:2], self.heads, total)
        weights = self.attention_weights(query).reshape(shape).softmax(dim=-1)
        offsets = single_or_double(self.sampling_offsets(query).reshape(*shape, 2))
        share = torch.cat([offsets.new_full((count, 1), 1 / count) for count in self.points])
        box = reference[:, :, None, None]
        locations = box[..., :2] + offsets * share * box[..., 2:] * 0.5
        # The kernel has equally many points of every level; those that are left over weigh nothing.
        places = [level * most + torch.arange(count, device=device) for level, count in enumerate(self.points)]
        slots, size = torch.cat(places), len(self.points) * most
        weights = weights.new_zeros(*shape[:3], size).index_copy(3, slots, weights)
        locations = locations.new_zeros(*shape[:3], size, 2).index_copy(3, slots, locations)
        value = memory.values.unflatten(2, (self.heads, -1))
        shape = (len(self.points), most)
        return weighted_samples(value, memory.levels, locations.unflatten(3, shape), weights.unflatten(3, shape))


class Gate(nn.Module):
    """Chooses between what a query was and what it found (section 4.4, "Target Gating Layer")."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * channels, 2 * channels)
        self.norm = nn.LayerNorm(channels)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, before: Tensor, found: Tensor) -> Tensor:
        one, other = self.gate(torch.cat((before, found), dim=-1)).sigmoid().chunk(2, dim=-1)
        return self.norm(one * before + other * found)


class FineDecoderLayer(nn.Module):
    """A decoder layer with a gate in place of the shortcut around attention to the memory."""

    def __init__(self, channels: int, heads: int, hidden: int, points: Sequence[int]) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels, heads), PointAttention(channels, heads, points)])
        self.ffns = nn.ModuleList([FeedForward(channels, hidden)])
        self.norms = nn.ModuleList([nn.LayerNorm(channels), Gate(channels), nn.LayerNorm(channels)])

    def forward(
        self, query: Tensor, query_pos: Tensor, memory: Memory, reference: Tensor, hidden: Tensor | None
    ) -> Tensor:
        """(B, Q, C) queries, their positions and boxes to (B, Q, C); ``hidden`` as of ``DecoderLayer``."""
        x = self.norms[0](query + self.attentions[0](query, query_pos, Memory(query, query_pos, hidden=hidden)))
        x = self.norms[1](x, self.attentions[1](x + query_pos, memory, reference))
        return self.norms[2](x + self.ffns[0](x))


def bin_distances(scale: float) -> Tensor:
    """(N,) distances that the bins of a distribution stand for, dense around zero (equation 3), in float64.

    scale: how many of them are a side of the box.
    """
    reach, half = REACH * scale, BINS // 2
    step = (reach + 1) ** (1 / (half - 1))
    right = step ** torch.arange(1, half, dtype=torch.float64) - 1
    ends = torch.tensor([2 * reach], dtype=torch.float64)
    return torch.cat((-ends, -right.flip(0), torch.zeros(1, dtype=torch.float64), right, ends))


def moved_sides(start: Tensor, distances: Tensor, scale: float) -> Tensor:
    """(..., 4) boxes as centre and size, with sides moved outwards by (..., 4) distances, to the same."""
    unit = start[..., 2:] / scale
    low = start[..., :2] - (0.5 * scale + distances[..., :2]) * unit
    high = start[..., :2] + (0.5 * scale + distances[..., 2:]) * unit
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def side_distances(start: Tensor, boxes: Tensor, scale: float) -> Tensor:
    """(P, 4) distances by which the sides of (P, 4) boxes, as centre and size, move to those of xyxy ``boxes``."""
    unit = start[:, 2:] / scale + 1e-16
    low, high = (start[:, :2] - boxes[:, :2]) / unit, (boxes[:, 2:] - start[:, :2]) / unit
    return torch.cat((low, high), dim=1) - 0.5 * scale


class DFINEHead(DenoisingHead):
    """Outputs are the decoder's sets, the encoder's proposals, the first boxes and, in training, what the decoder made
    of noisy objects: its sets, and the first boxes.

    in_channels: of each map. points: sampled places of each map. scale: as of ``bin_distances``.
    """

    bins: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: Sequence[int] = (256, 256, 256),
        channels: int = 256,
        queries: int = 300,
        heads: int = 8,
        layers: int = 6,
        points: Sequence[int] = (3, 6, 3),
        hidden: int = 1024,
        scale: float = 4.0,
        denoising: Denoising | None = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.scale, self.denoising = num_classes, scale, denoising or Denoising()
        self.input_convs = nn.ModuleList(
            nn.Identity() if c == channels else ConvModule(c, channels, 1, norm=BN) for c in in_channels
        )
        self.proposals = QueryProposals(num_classes, channels, queries)
        self.noise = NoisyQueries(num_classes, channels)
        self.query_pos = position_branch(channels)
        self.decoder = nn.ModuleList(FineDecoderLayer(channels, heads, hidden, points) for _ in range(layers))
        self.first_branch = box_branch(channels, from_boxes=True)
        self.cls_branches = nn.ModuleList(class_branch(channels, num_classes) for _ in range(layers))
        self.reg_branches = nn.ModuleList(box_branch(channels, True, 4 * BINS) for _ in range(layers))
        self.quality_branches = nn.ModuleList(quality_branch() for _ in range(layers))
        self.register_buffer("bins", bin_distances(scale), persistent=False)
        matcher = HungarianMatcher(focal_cost, xyxy_to_cxcywh)
        self.set_loss = SetLoss(matcher, varifocal_set_loss, num_classes)

    def forward(
        self, features: Sequence[Tensor], padding: Tensor, noisy: NoisyObjects | None = None
    ) -> tuple[SetOutputs, ...]:
        memory, places = flattened([conv(x) for conv, x in zip(self.input_convs, features, strict=True)])
        query, reference, proposed = self.proposals(memory, places)
        query, reference, hidden = self.noise(query, reference, noisy)
        found, first = self.decode(query, memory, reference, hidden)
        if noisy is None:
            return found, proposed, first
        count = noisy.labels.shape[1]
        (repaired, found), (repaired_first, first) = found.parted(count), first.parted(count)
        return found, proposed, first, repaired, repaired_first

    def decode(
        self, query: Tensor, memory: Memory, reference: Tensor, hidden: Tensor | None
    ) -> tuple[SetOutputs, SetOutputs]:
        """(B, Q, C) queries and their boxes to what every decoder layer predicts, and to the first boxes."""
        logits, boxes, corners = [], [], []
        first, start = None, reference
        before: Tensor | float = 0.0
        for layer, classify, regress, rate in zip(
            self.decoder, self.cls_branches, self.reg_branches, self.quality_branches, strict=True
        ):
            position = self.query_pos(reference.to(query.dtype)).clamp(-10, 10)
            query = layer(query, position, memory, reference, hidden)
            scores = classify(query)
            if first is None:
                first = SetOutputs(scores[None], shifted(single_or_double(self.first_branch(query)), reference)[None])
                start = first.boxes[0].detach()
            change = single_or_double(regress(query + before))
            corners.append(corners[-1] + change if corners else change)
            chances = corners[-1].unflatten(-1, (4, BINS)).softmax(dim=-1)
            logits.append(scores + rate(surest(chances).to(scores.dtype)))
            boxes.append(moved_sides(start, chances @ self.bins.to(chances.dtype), self.scale))
            reference, before = boxes[-1].detach(), query.detach()
        assert first is not None
        found = SetOutputs(torch.stack(logits), torch.stack(boxes), torch.stack(corners), start[None])
        return found, first

    def loss(
        self,
        outputs: tuple[SetOutputs, ...],
        images: ImageBatch,
        targets: Sequence[Targets],
        noisy: NoisyObjects | None = None,
    ) -> dict[str, Tensor]:
        sizes = frame_factors(images)
        found, proposed, first, *repaired = outputs
        losses = self.terms([found, first, proposed], sizes, targets, ["", "pre_", "enc_"])
        if noisy is not None:
            losses |= self.terms(repaired, sizes, targets, ["dn_", "dn_pre_"], noisy.objects)
        return losses

    def terms(
        self,
        outputs: Sequence[SetOutputs],
        sizes: Tensor,
        targets: Sequence[Targets],
        names: Sequence[str],
        known: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses of several outputs with prefixes; the first are the decoder's. known: as of ``SetLoss``."""
        depths = len(outputs[0].logits)
        logits = torch.cat([out.logits for out in outputs])
        boxes = boxes_in_pixels(torch.cat([out.boxes for out in outputs]), sizes)
        prefixes = [names[0] + layer for layer in layer_prefixes(depths)] + list(names[1:])
        if known is None:
            matched = self.set_loss.matcher(logits, boxes, sizes, targets)
            pairs, own = matched_pairs(agreed(matched), targets), [matched_pairs(one, targets) for one in matched]
        else:
            pairs = matched_pairs(known, targets)
            own = [pairs] * len(prefixes)
        losses = {}
        for index, prefix in enumerate(prefixes):
            terms = {"loss_cls": self.set_loss.class_term(logits[index], boxes[index], own[index])}
            terms |= self.set_loss.box_terms(boxes[index], sizes, pairs)
            if index < depths:
                terms |= self.local_terms(outputs[0], index, boxes[index], sizes, pairs)
            losses.update({prefix + name: value for name, value in terms.items()})
        return losses

    def local_terms(
        self, found: SetOutputs, depth: int, boxes: Tensor, sizes: Tensor, pairs: Pairs
    ) -> dict[str, Tensor]:
        """Losses of one layer's distributions: that of the distances that are wanted (section 4.1, "Fine-Grained
        Localization Loss") and, but for the last layer, that of its being another than the last one's (section 4.2).

        boxes: (B, Q, 4) xyxy in pixels.
        """
        assert found.corners is not None
        assert found.start is not None
        quality = elementwise_iou(boxes[pairs.where].detach(), pairs.boxes)
        wanted = side_distances(found.start[0][pairs.where], pairs.boxes / sizes[pairs.where[0]], self.scale)
        corners = found.corners.unflatten(-1, (4, BINS))
        each = between_bins(corners[depth][pairs.where].flatten(0, 1), wanted.flatten(), self.bins.to(wanted.dtype))
        count = mean_count(len(wanted), boxes.device)
        terms = {"loss_fgl": LOCAL_WEIGHT * (each * quality.repeat_interleave(4)).sum() / count}
        if depth < len(corners) - 1:
            weight = found.logits[-1].detach().sigmoid().amax(dim=-1)
            weight[pairs.where] = quality.to(weight.dtype)
            matched = torch.zeros_like(weight, dtype=torch.bool)
            matched[pairs.where] = True
            terms["loss_ddf"] = DISTILLATION_WEIGHT * distilled(corners[depth], corners[-1].detach(), weight, matched)
        return terms

    def predict(self, outputs: tuple[SetOutputs, ...], images: ImageBatch, test: SetTest) -> list[Detections]:
        return best_answers(outputs[0], images, test, frame_factors(images))


def surest(chances: Tensor) -> Tensor:
    """(B, Q, 4, N) probabilities to (B, Q, 20): the largest of each side, and their mean (GFL v2, section 3.2)."""
    best = chances.topk(BEST_BINS, dim=-1).values
    return torch.cat((best, best.mean(dim=-1, keepdim=True)), dim=-1).flatten(2)


def quality_branch(hidden: int = 64) -> nn.Sequential:
    """(..., 20) of ``surest`` to (..., 1), what is added to a query's logits; nothing at first."""
    last = nn.Linear(hidden, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(4 * (BEST_BINS + 1), hidden), nn.ReLU(), last)


def agreed(matched: Tensor) -> Tensor:
    """(D, B, Q) indices of objects by several predictions to (B, Q): the object that most give a query, if any does
    (section 4.3, the union of all layers' matches)."""
    votes = F.one_hot(matched - BACKGROUND).sum(dim=0)[..., 1:]
    if votes.shape[-1] == 0:
        return matched[0]
    most, objects = votes.max(dim=-1)
    return torch.where(most > 0, objects, BACKGROUND)


def between_bins(logits: Tensor, wanted: Tensor, bins: Tensor) -> Tensor:
    """(P,) cross-entropy of (P, N) logits with the two bins around each wanted distance, the nearer the heavier."""
    left = (torch.searchsorted(bins, wanted, right=True) - 1).clamp(0, len(bins) - 2)
    right_share = ((wanted - bins[left]) / (bins[left + 1] - bins[left])).clamp(0, 1).to(logits.dtype)
    chances = logits.log_softmax(dim=-1)
    at_left, at_right = (chances.gather(1, index[:, None])[:, 0] for index in (left, left + 1))
    return -at_left * (1 - right_share) - at_right * right_share


def distilled(logits: Tensor, teacher: Tensor, weight: Tensor, matched: Tensor) -> Tensor:
    """Divergence of (B, Q, 4, N) logits from the teacher's, by weight (B, Q); the mean over queries with an object and
    that over those without count by the roots of their numbers (equation 6)."""
    student = (logits / TEMPERATURE).log_softmax(dim=-1)
    apart = F.kl_div(student, (teacher / TEMPERATURE).softmax(dim=-1), reduction="none").sum(dim=-1)
    apart = apart * weight[..., None] * TEMPERATURE**2
    total = apart.new_zeros(())
    roots = apart.new_zeros(())
    for chosen in (matched, ~matched):
        count = chosen.sum() * 4
        total = total + (apart * chosen[..., None]).sum() / count.clamp(min=1) * count.sqrt()
        roots = roots + count.sqrt()
    return total / roots


def d_fine(
    num_classes: int,
    *,
    backbone: Callable[[], HGNetV2 | ResNet],
    encoder: Callable[[Sequence[int]], HybridEncoder] = fine_encoder,
    head: Callable[..., DFINEHead] = DFINEHead,
    levels: int = 3,
) -> DenoisingDetector:
    """D-FINE on a backbone whose last ``levels`` maps are read; ``encoder`` and ``head`` as of ``rt_detr``."""
    body = backbone()
    neck = encoder(body.out_channels[-levels:])
    return DenoisingDetector(
        backbone=body,
        neck=neck,
        bbox_head=head(num_classes=num_classes, in_channels=neck.out_channels),
        test=SetTest(max_per_image=300),
    )
