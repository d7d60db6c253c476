"""Names and shapes of older files, by explicit tables.

A rule applies to a name that the model does not have, where it gives one that the model has; so a current file passes
unchanged.

Shape letters: A anchors of a location, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

RULES: tuple[tuple[str, str], ...] = (
    # SSD, when the extra layers and the normalization were the backbone's, and a level's prediction one convolution.
    (r"^backbone\.l2_norm\.", "neck.l2_norm."),
    (r"^(bbox_head\.(?:cls|reg)_convs\.\d+)\.(weight|bias)$", r"\1.0.\2"),
    # DETR, when the parts of a transformer layer had names of their own.
    (r"\.self_attn\.", ".attentions.0."),
    (r"\.multihead_attn\.", ".attentions.1."),
    (r"\.ffn\.", ".ffns.0."),
    (r"\.decoder\.norm\.", ".decoder.post_norm."),
    # YOLACT, with the semantic branch and the prototypes inside other heads.
    (r"^(?:bbox_head\.segm_head|bbox_head|mask_head\.segm_branch)\.segm_conv\.", "segm_head.segm_conv."),
    (r"^(?:bbox_head\.)?protonet\.", "mask_head.protonet."),
    # Anchor-free heads, when each named its predictors after itself.
    (r"^bbox_head\.(?:\w+_)?cls\.", "bbox_head.conv_cls."),
    (r"^bbox_head\.(?:\w+_)?reg\.", "bbox_head.conv_reg."),
    (r"^bbox_head\.(?:\w+_)?centerness\.", "bbox_head.conv_centerness."),
    (r"^bbox_head\.centerness\.", "bbox_head.atss_centerness."),
    # RetinaNet before 0.6, when the towers were plain convolutions.
    (r"^(bbox_head\.(?:cls|reg)_convs\.\d+)\.(weight|bias)$", r"\1.conv.\2"),
    # Two-stage detectors of 1.x, when the heads of regions stood at the top.
    (r"^((?:bbox|mask|semantic|grid|mask_iou|shared)_head\.)", r"roi_head.\1"),
    # Deformable convolutions, when their offsets were predicted by a layer beside them.
    (r"_offset\.(weight|bias)$", r".conv_offset.\1"),
    # A proposal network's own file for a two-stage detector, and the reverse.
    (r"^rpn_head\.", "bbox_head."),
    (r"^bbox_head\.", "rpn_head."),
)


def to_current(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], version: str | None = None
) -> dict[str, Tensor]:
    """The state under the names of ``expected``, with today's class order; what no rule fits keeps its name.

    expected: the model's own state. version: of the library that wrote the file, where it is known.
    """
    renamed = {current_name(key, expected): value for key, value in state.items()}
    heads_at_top = any(key.startswith(("bbox_head.", "mask_head.")) for key in state)
    two_stage = any(key.startswith("roi_head.") for key in expected)
    # Where the heads of regions stand tells more than the version: converted files keep the version they had.
    if heads_at_top and (two_stage or (version is not None and re.match(r"[01]\.", version))):
        renamed = background_last(renamed)
    return renamed


def current_name(key: str, expected: Collection[str]) -> str:
    """The name that the model has for an older one, or the name itself."""
    if key in expected:
        return key
    extra = re.match(r"^backbone\.extra\.(\d+)\.(weight|bias)$", key)
    if extra:
        # A level is two convolutions, a narrow and a wide one.
        level, layer = divmod(int(extra[1]), 2)
        return f"neck.extra_layers.{level}.{layer}.conv.{extra[2]}"
    for pattern, replacement in RULES:
        new = re.sub(pattern, replacement, key)
        if new in expected:
            return new
    return key


def background_last(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state of 1.x, where the background was class 0, with it as the last class.

    Softmax classifiers (K + 1 or A x (K + 1) rows) are reordered; what is predicted for each class (boxes, masks and
    their quality) loses the rows of the background.
    """
    result = dict(state)
    for key, value in state.items():
        head, _, layer = key.rpartition(".fc_cls.")
        if head:
            result[key] = torch.cat([value[1:], value[:1]])
            boxes = f"{head}.fc_reg.{layer}"
            if boxes in state and len(state[boxes]) == 4 * len(value):
                result[boxes] = state[boxes][4:]
        elif re.search(r"mask_head\.(\d+\.)?conv_logits\.|mask_iou_head\.fc_mask_iou\.", key) and len(value) > 1:
            result[key] = value[1:]
        elif re.fullmatch(r"bbox_head\.cls_convs\.\d+\.0\.(weight|bias)", key):
            anchors = len(state[key.replace("cls_convs", "reg_convs")]) // 4
            grouped = value.unflatten(0, (anchors, -1))
            result[key] = torch.cat([grouped[:, 1:], grouped[:, :1]], dim=1).flatten(0, 1)
    return result
