"""Global context blocks in the backbone: the rows of "GCNet for Object Detection"."""

from __future__ import annotations

from dataclasses import replace

from ..methods.cascade_rcnn import cascade_mask_rcnn
from ..methods.mask_rcnn import mask_rcnn
from ..recipe import Recipe
from .common import COCO, CONTEXT_R4, CONTEXT_R16, DCN, R50, R101, X101_32X4D, Body, row

BASE = replace(COCO, needs_masks=True)
# Statistics of batch normalization are learnt on, over all devices.
SYNC = replace(BASE, sync_batch_norm=True)


def with_contexts(name: str, method, body: Body, base: Recipe, plain: bool = True) -> list[Recipe]:
    """The rows without a context block (where ``plain``) and with either size of it; {} in ``name`` is its mark."""
    rows = [row(name.format(""), method, body, base)] if plain else []
    for mark, plugin in (("_r16_gcb_c3-c5", CONTEXT_R16), ("_r4_gcb_c3-c5", CONTEXT_R4)):
        rows.append(row(name.format(mark), method, body.built_with(plugins=(plugin,)), base))
    return rows


RECIPES = []
for body_name, body in (("r50", R50), ("r101", R101), ("x101_32x4d", X101_32X4D)):
    if body is not X101_32X4D:
        RECIPES += with_contexts(f"mask_rcnn_{body_name}_fpn{{}}_1x_coco", mask_rcnn, body, BASE, plain=False)
    synced = body.built_with(norm_eval=False)
    RECIPES += with_contexts(f"mask_rcnn_{body_name}_fpn_syncbn-backbone{{}}_1x_coco", mask_rcnn, synced, SYNC)
CASCADE_BODY = X101_32X4D.built_with(norm_eval=False)
CASCADE = "cascade_mask_rcnn_x101_32x4d_fpn_syncbn-backbone"
RECIPES += with_contexts(f"{CASCADE}{{}}_1x_coco", cascade_mask_rcnn, CASCADE_BODY, SYNC)
RECIPES += with_contexts(
    f"{CASCADE}_dconv_c3-c5{{}}_1x_coco", cascade_mask_rcnn, CASCADE_BODY.built_with(deform=DCN), SYNC
)
