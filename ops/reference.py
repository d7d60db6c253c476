"""The pure-PyTorch version of every op: what runs where no native kernel is built, and what the kernels must equal.

Half precision is computed in float32 and rounded once at the end. Contracts (shapes, units, errors) stand with the
public functions of the same names, one file an op.

Shape letters: B images, C channels, H x W pixels, N and M boxes, K regions or classes, and those named in a function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from .checks import check_floating, check_integer, check_numbers, check_positive, check_shape, check_values

# Pasting goes by slices of masks whose float values fill at most this many elements.
PASTE_ELEMENTS = 2**26


def widened(tensor: Tensor) -> Tensor:
    """Half precision as float32; anything else as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


# ---------------------------------------------------------------------------------------------------------------------
# Boxes
# ---------------------------------------------------------------------------------------------------------------------


def _check_boxes_to_suppress(boxes: Tensor, scores: Tensor, groups: Tensor) -> None:
    check_shape("boxes", boxes, None, 4)
    check_shape("scores", scores, len(boxes))
    check_shape("groups", groups, len(boxes))
    check_floating(boxes=boxes, scores=scores)
    check_integer("groups", groups, like=boxes)
    check_values("boxes", ~boxes.isnan(), "no NaN")
    check_values("scores", ~scores.isnan(), "no NaN")


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> tuple[Tensor, Tensor]:
    """Order (N,) of descending scores, and whether (N,) the box at each place of that order is kept."""
    _check_boxes_to_suppress(boxes, scores, groups)
    check_numbers(iou_threshold=iou_threshold)
    boxes, scores = widened(boxes), widened(scores).to(boxes.device)
    kept = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for group in groups.unique():
        members = (groups == group).nonzero().squeeze(1)
        chosen = torchvision.ops.nms(boxes[members], scores[members].to(boxes.dtype), iou_threshold)
        kept[members[chosen]] = True
    order = scores.argsort(stable=True, descending=True)
    return order, kept[order]


def _one_to_many_iou(box: Tensor, boxes: Tensor) -> Tensor:
    """(N,) IoU of one box (4,) with boxes (N, 4), zero where it is not defined (two boxes without area)."""
    sizes = (torch.minimum(box[2:], boxes[:, 2:]) - torch.maximum(box[:2], boxes[:, :2])).clamp(min=0)
    overlap = sizes[:, 0] * sizes[:, 1]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    iou = overlap / ((box[2] - box[0]) * (box[3] - box[1]) + areas - overlap)
    return iou.masked_fill(iou.isnan(), 0)


def batched_soft_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
) -> tuple[Tensor, Tensor]:
    """Decayed scores (N,), 0 of dropped boxes, and whether (N,) each is kept; method 0 hard, 1 linear, 2 Gaussian."""
    _check_boxes_to_suppress(boxes, scores, groups)
    check_positive(sigma=sigma)
    check_numbers(iou_threshold=iou_threshold, min_score=min_score)
    dtype = scores.dtype
    boxes = widened(boxes)
    decayed = widened(scores).to(boxes.dtype)
    kept = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    left = torch.ones_like(kept)
    for turn in range(len(boxes)):
        best = decayed.masked_fill(~left, -math.inf).argmax()
        if not left[best] or (turn > 0 and decayed[best] < min_score):
            break
        kept[best] = True
        left[best] = False
        iou = _one_to_many_iou(boxes[best], boxes)
        if method == 0:
            weight = torch.where(iou >= iou_threshold, 0.0, 1.0)
        elif method == 1:
            weight = torch.where(iou >= iou_threshold, 1 - iou, 1.0)
        else:
            weight = torch.exp(-(iou * iou) / sigma)
        decayed = torch.where(left & (groups == groups[best]), decayed * weight, decayed)
        left &= decayed >= min_score
    return decayed.masked_fill(~kept, 0).to(dtype), kept


def _ratio(a: Tensor, b: Tensor, kind: str, eps: float) -> Tensor:
    """IoU, IoF or GIoU of boxes (..., 4) that broadcast against each other."""
    area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    sizes = F.relu(torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2]))
    overlap = sizes[..., 0] * sizes[..., 1]
    union = area_a.expand_as(overlap) if kind == "iof" else area_a + area_b - overlap
    union = union.clamp(min=eps)
    iou = overlap / union
    if kind != "giou":
        return iou
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    enclosing = (hull[..., 0] * hull[..., 1]).clamp(min=eps)
    return iou - (enclosing - union) / enclosing


def _check_overlaps(a: Tensor, b: Tensor, kind: str, eps: float) -> None:
    check_shape("a", a, None, 4)
    check_shape("b", b, None, 4)
    check_floating(a=a, b=b)
    check_positive(eps=eps)
    if kind not in ("iou", "iof", "giou"):
        raise ValueError(f"kind: expected 'iou', 'iof' or 'giou', found {kind!r}")
    check_values("a", ~a.isnan(), "no NaN")
    check_values("b", ~b.isnan(), "no NaN")


def pairwise_iou(a: Tensor, b: Tensor, kind: str, eps: float) -> Tensor:
    """(N, M) overlaps of a (N, 4) and b (M, 4)."""
    _check_overlaps(a, b, kind, eps)
    return _ratio(widened(a)[:, None], widened(b)[None], kind, eps).to(a.dtype)


def elementwise_iou(a: Tensor, b: Tensor, kind: str, eps: float) -> Tensor:
    """(N,) overlaps of a (N, 4) and b (N, 4)."""
    _check_overlaps(a, b, kind, eps)
    check_shape("b", b, len(a), 4)
    return _ratio(widened(a), widened(b), kind, eps).to(a.dtype)


# ---------------------------------------------------------------------------------------------------------------------
# Masks
# ---------------------------------------------------------------------------------------------------------------------


def paste_masks(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    """(N, H, W) bool."""
    check_shape("masks", masks, None, None, None)
    check_shape("boxes", boxes, len(masks), 4)
    check_floating(masks=masks, boxes=boxes)
    check_positive(threshold=threshold)
    if height < 0 or width < 0:
        raise ValueError(f"size: expected numbers of at least 0, found ({height}, {width})")
    if masks.numel() == 0 and len(masks) > 0:
        raise ValueError(f"masks: expected at least one pixel a mask, found {tuple(masks.shape)}")
    check_values("boxes", boxes.isfinite(), "finite numbers")
    masks, boxes = widened(masks), widened(boxes).to(widened(masks).dtype)
    pasted = torch.zeros(len(masks), height, width, dtype=torch.bool, device=masks.device)
    if pasted.numel() == 0:
        return pasted
    x0, y0, x1, y1 = boxes.unbind(1)
    xs = torch.arange(width, device=boxes.device, dtype=boxes.dtype) + 0.5
    ys = torch.arange(height, device=boxes.device, dtype=boxes.dtype) + 0.5
    xs = _mask_coordinates(xs, x0[:, None], x1[:, None])
    ys = _mask_coordinates(ys, y0[:, None], y1[:, None])
    step = max(1, PASTE_ELEMENTS // (height * width))
    for start in range(0, len(masks), step):
        part = slice(start, start + step)
        grid = torch.stack(
            (
                xs[part, None, :].expand(-1, height, width),
                ys[part, :, None].expand(-1, height, width),
            ),
            dim=3,
        )
        pasted[part] = F.grid_sample(masks[part, None], grid, align_corners=False)[:, 0] >= threshold
    return pasted


def _mask_coordinates(pixels: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Pixel centres (P,) as coordinates -1..1 of masks between low and high (N, 1): (N, P).

    A box without extent is pasted on the pixels around it, with the middle of the mask; negative extents on none.
    """
    far = 3.0
    around = (pixels > low.floor() - 1) & (pixels < high.ceil() + 1)
    inside = (pixels - low) / (high - low) * 2 - 1
    flat = torch.where(around, torch.zeros_like(inside), torch.full_like(inside, far))
    inside = torch.where(high == low, flat, inside)
    return torch.where(high < low, torch.full_like(inside, far), inside)


def paste_and_encode(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> list[dict]:
    """A COCO run-length dictionary a mask."""
    from pycocotools.mask import encode

    found = []
    for i in range(len(masks)):
        pasted = paste_masks(masks[i : i + 1], boxes[i : i + 1], height, width, threshold)
        found.extend(encode(pasted.permute(1, 2, 0).cpu().numpy().astype("uint8", order="F")))
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Features
# ---------------------------------------------------------------------------------------------------------------------


def _bilinear(features: Tensor, batch: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """(K, S, C) values of features (B, H, W, C) at points (K, S) of images ``batch`` (K, 1).

    Points are clamped into the map; those more than one pixel outside count 0.
    """
    height, width = features.shape[1:3]
    outside = (y < -1) | (y > height) | (x < -1) | (x > width)
    # Written with where, as the gradient of clamp at its ends differs between versions of PyTorch.
    y = torch.where((y > 0) & (y < height - 1), y, y.detach().clamp(0, height - 1))
    x = torch.where((x > 0) & (x < width - 1), x, x.detach().clamp(0, width - 1))
    top, left = y.detach().floor().long(), x.detach().floor().long()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    dy, dx = (y - top).unsqueeze(2), (x - left).unsqueeze(2)
    value = (
        features[batch, top, left] * ((1 - dy) * (1 - dx))
        + features[batch, top, right] * ((1 - dy) * dx)
        + features[batch, bottom, left] * (dy * (1 - dx))
        + features[batch, bottom, right] * (dy * dx)
    )
    return value.masked_fill(outside.unsqueeze(2), 0)


def deform_roi_pool(
    input: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    output_height: int,
    output_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> Tensor:
    """(K, C, output_height, output_width)."""
    check_shape("input", input, None, None, None, None)
    check_shape("rois", rois, None, 5)
    check_floating(input=input, rois=rois, offset=offset)
    check_positive(output_height=output_height, output_width=output_width, spatial_scale=spatial_scale)
    check_numbers(gamma=gamma)
    if offset is not None:
        check_shape("offset", offset, len(rois), 2, output_height, output_width)
    if input.numel() == 0 and len(rois) > 0:
        raise ValueError(f"input: expected at least one value to pool, found {tuple(input.shape)}")
    check_values("rois", rois.isfinite(), "finite numbers")
    check_values("rois", (rois[:, 0] >= 0) & (rois[:, 0] < len(input)), f"image indices below {len(input)}")
    dtype = input.dtype
    features = widened(input).permute(0, 2, 3, 1)
    rois = widened(rois).to(features.dtype)
    batch = rois[:, :1].long()
    start = rois[:, [2, 1]] * spatial_scale - 0.5
    extent = rois[:, [4, 3]] * spatial_scale - 0.5 - start
    size = torch.tensor([output_height, output_width], dtype=rois.dtype, device=rois.device)
    bins = extent / size
    if sampling_ratio > 0:
        samples = torch.full_like(batch.expand(-1, 2), sampling_ratio)
    else:
        samples = bins.detach().ceil().long().clamp(min=0)

    # Corner (K, 2, oh, ow) of every bin, rows first.
    rows = torch.arange(output_height, dtype=rois.dtype, device=rois.device)
    columns = torch.arange(output_width, dtype=rois.dtype, device=rois.device)
    cells = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    corners = start[:, :, None, None] + cells * bins[:, :, None, None]
    if offset is not None:
        corners = corners + gamma * extent[:, :, None, None] * widened(offset).to(rois.dtype).flip(1)

    pooled = features.new_zeros(len(rois), output_height * output_width, input.shape[1])
    for grid in samples.unique(dim=0).tolist():
        if min(grid) == 0:
            continue
        members = (samples == samples.new_tensor(grid)).all(1).nonzero().squeeze(1)
        inner_y = (torch.arange(grid[0], dtype=rois.dtype, device=rois.device) + 0.5) / grid[0]
        inner_x = (torch.arange(grid[1], dtype=rois.dtype, device=rois.device) + 0.5) / grid[1]
        corner, cell = corners[members].flatten(2), bins[members]
        y = corner[:, 0, :, None] + (cell[:, :1] * inner_y)[:, None]
        x = corner[:, 1, :, None] + (cell[:, 1:] * inner_x)[:, None]
        y, x = torch.broadcast_tensors(y[:, :, :, None], x[:, :, None, :])
        values = _bilinear(features, batch[members], y.flatten(1), x.flatten(1))
        means = values.reshape(len(members), output_height * output_width, -1, values.shape[2]).mean(2)
        pooled = pooled.index_copy(0, members, means)
    pooled = pooled.transpose(1, 2).reshape(len(rois), input.shape[1], output_height, output_width)
    return pooled.to(dtype)


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """(B, Q, M * D); here M is heads and D channels of a head."""
    check_shape("value", value, None, None, None, None)
    batch, total, heads, _channels = value.shape
    check_shape("spatial_shapes", spatial_shapes, None, 2)
    levels = len(spatial_shapes)
    check_shape("level_start_index", level_start_index, levels)
    check_shape("sampling_locations", sampling_locations, batch, None, heads, levels, None, 2)
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    check_shape("attention_weights", attention_weights, batch, queries, heads, levels, points)
    check_floating(value=value, sampling_locations=sampling_locations, attention_weights=attention_weights)
    check_integer("spatial_shapes", spatial_shapes, like=value)
    check_integer("level_start_index", level_start_index, like=value)
    sizes, starts = spatial_shapes.tolist(), level_start_index.tolist()
    for level, ((height, width), start) in enumerate(zip(sizes, starts)):
        if height < 1 or width < 1 or start < 0 or start + height * width > total:
            raise ValueError(
                f"spatial_shapes: level {level} of {height} x {width} from {start} leaves the {total} values"
            )
    return sampled_levels(value, sizes, starts, sampling_locations, attention_weights)


def sampled_levels(
    value: Tensor,
    sizes: Sequence[tuple[int, int]],
    starts: Sequence[int],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """``ms_deform_attn`` where the (height, width) and the first value of each level are numbers."""
    batch, _, heads, channels = value.shape
    queries, levels, points = sampling_locations.shape[1], len(sizes), sampling_locations.shape[4]
    dtype = value.dtype
    value, weights = widened(value), widened(attention_weights)
    grids = 2 * widened(sampling_locations) - 1
    sampled = []
    for level, ((height, width), start) in enumerate(zip(sizes, starts)):
        part = value[:, start : start + height * width].permute(0, 2, 3, 1)
        part = part.reshape(batch * heads, channels, height, width)
        grid = grids[:, :, :, level].transpose(1, 2).reshape(batch * heads, queries, points, 2)
        sampled.append(F.grid_sample(part, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    if not sampled:
        return value.new_zeros(batch, queries, heads * channels, dtype=dtype)
    gathered = torch.stack(sampled, dim=3).flatten(3)
    weights = weights.permute(0, 2, 1, 3, 4).reshape(batch * heads, 1, queries, levels * points)
    output = (gathered * weights).sum(3).reshape(batch, heads * channels, queries)
    return output.transpose(1, 2).contiguous().to(dtype)


def carafe(features: Tensor, masks: Tensor, kernel_size: int, groups: int, scale_factor: int) -> Tensor:
    """(B, C, H * scale, W * scale)."""
    check_shape("features", features, None, None, None, None)
    check_positive(kernel_size=kernel_size, groups=groups, scale_factor=scale_factor)
    batch, channels, height, width = features.shape
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size: expected an odd number, found {kernel_size}")
    if channels % groups:
        raise ValueError(f"features: expected channels in {groups} equal groups, found {channels}")
    taps = kernel_size * kernel_size
    check_shape("masks", masks, batch, taps * groups, height * scale_factor, width * scale_factor)
    check_floating(features=features, masks=masks)
    if features.numel() == 0:
        return features.new_zeros(batch, channels, height * scale_factor, width * scale_factor)
    windows = F.unfold(widened(features), kernel_size, padding=kernel_size // 2)
    windows = windows.view(batch, groups, channels // groups, taps, height, width)
    kernels = widened(masks).view(batch, groups, taps, height, scale_factor, width, scale_factor)
    output = torch.einsum("bgckhw,bgkhiwj->bgchiwj", windows, kernels)
    return output.reshape(batch, channels, height * scale_factor, width * scale_factor).to(features.dtype)


def masked_conv2d(
    x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], stride: tuple[int, int]
) -> Tensor:
    """(B, O, OH, OW), zero where the bool mask (B or 1, OH, OW) is false."""
    check_shape("x", x, None, None, None, None)
    check_shape("weight", weight, None, x.shape[1], None, None)
    check_floating(x=x, weight=weight, bias=bias)
    if bias is not None:
        check_shape("bias", bias, len(weight))
    if min(padding) < 0 or min(stride) < 1:
        raise ValueError(f"padding and stride: expected at least 0 and 1, found {padding} and {stride}")
    if mask.dtype != torch.bool:
        raise ValueError(f"mask: expected bool, found {mask.dtype}")
    output = F.conv2d(x, weight, bias, stride=stride, padding=padding)
    check_shape("mask", mask, x.shape[0] if mask.shape[0] != 1 else 1, *output.shape[2:])
    return output.masked_fill(~mask.unsqueeze(1), 0)


def corner_pool(x: Tensor, direction: str) -> Tensor:
    """(B, C, H, W) running maximum."""
    check_shape("x", x, None, None, None, None)
    check_floating(x=x)
    if direction not in ("top", "bottom", "left", "right"):
        raise ValueError(f"direction: expected 'top', 'bottom', 'left' or 'right', found {direction!r}")
    if x.numel() == 0:
        return x.clone()
    axis = 2 if direction in ("top", "bottom") else 3
    if direction in ("bottom", "right"):
        return x.cummax(axis).values
    return x.flip(axis).cummax(axis).values.flip(axis)


def sigmoid_focal_loss(logits: Tensor, labels: Tensor, gamma: float, alpha: float, weight: Tensor | None) -> Tensor:
    """(N, K)."""
    check_shape("logits", logits, None, None)
    check_shape("labels", labels, len(logits))
    check_floating(logits=logits, weight=weight)
    check_integer("labels", labels, like=logits)
    check_numbers(alpha=alpha)
    if not gamma >= 0:
        raise ValueError(f"gamma: expected at least 0, found {gamma}")
    if weight is not None:
        check_shape("weight", weight, len(logits))
    classes = logits.shape[1]
    check_values("labels", (labels >= 0) & (labels <= classes), f"values from 0 to {classes}")
    x = widened(logits)
    positive = labels[:, None] == torch.arange(classes, device=labels.device)
    # log p of what should have been said, and the probability given to its contrary.
    log_right = F.logsigmoid(torch.where(positive, x, -x))
    wrong = torch.sigmoid(torch.where(positive, -x, x))
    balance = torch.where(positive, alpha, 1 - alpha)
    loss = -balance * wrong**gamma * log_right
    if weight is not None:
        loss = loss * widened(weight)[:, None]
    return loss.to(logits.dtype)
