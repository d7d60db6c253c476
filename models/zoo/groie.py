"""GRoIE: the rows of its document, with the plain row of Grid R-CNN that it is compared with."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..methods.faster_rcnn import faster_rcnn
from ..methods.grid_rcnn import grid_rcnn
from ..methods.groie import GenericRoIExtractor
from ..methods.mask_rcnn import mask_rcnn
from .common import COCO, CONTEXT_R4, R50, R101, row

REGIONS_7, REGIONS_14 = partial(GenericRoIExtractor, 7), partial(GenericRoIExtractor, 14)
FASTER = partial(faster_rcnn, bbox_roi_extractor=REGIONS_7)
GRID = partial(grid_rcnn, bbox_roi_extractor=REGIONS_7, grid_roi_extractor=REGIONS_14)
MASK = partial(mask_rcnn, bbox_roi_extractor=REGIONS_7, mask_roi_extractor=REGIONS_14)
MASKS = replace(COCO, needs_masks=True)
SYNCED = replace(MASKS, sync_batch_norm=True)
CONTEXT = {"norm_eval": False, "plugins": (CONTEXT_R4,)}

RECIPES = [
    row("faster_rcnn_r50_fpn_groie_1x_coco", FASTER, R50, COCO),
    row("grid_rcnn_r50_fpn_gn-head_1x_coco", grid_rcnn, R50, COCO),
    row("grid_rcnn_r50_fpn_gn-head_groie_1x_coco", GRID, R50, COCO),
    row("mask_rcnn_r50_fpn_groie_1x_coco", MASK, R50, MASKS),
    row(
        "mask_rcnn_r50_fpn_syncbn-backbone_r4_gcb_c3-c5_groie_1x_coco",
        MASK,
        R50.built_with(**CONTEXT),
        SYNCED,
    ),
    row(
        "mask_rcnn_r101_fpn_syncbn-backbone_r4_gcb_c3-c5_groie_1x_coco",
        MASK,
        R101.built_with(**CONTEXT),
        SYNCED,
    ),
]
