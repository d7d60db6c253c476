"""RepPoints: the rows of "RepPoints: Point Set Representation for Object Detection"."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..backbones.resnet import Deform
from ..layers import GN
from ..methods.reppoints import SquareAssigner, reppoints
from ..recipe import Optimizer
from .common import COCO, R50, R101, TWO_X, X101_32X4D, row

BASE = replace(COCO, optimizer=Optimizer(lr=0.01))
LONG = replace(BASE, schedule=TWO_X)

normalized = partial(reppoints, norm=GN)
from_center = partial(normalized, box_from="minmax", grid=True)
from_square = partial(from_center, assign_first=SquareAssigner())

DEFORMED_R101, DEFORMED_X101 = (body.built_with(deform=Deform()) for body in (R101, X101_32X4D))

RECIPES = [
    row("bbox_r50_grid_fpn_gn-neck+head_1x_coco", from_square, R50, BASE),
    row("bbox_r50_grid_center_fpn_gn-neck+Bhead_1x_coco", from_center, R50, BASE),
    row("reppoints_moment_r50_fpn_1x_coco", reppoints, R50, BASE),
    row("reppoints_moment_r50_fpn_gn-neck+head_1x_coco", normalized, R50, BASE),
    row("reppoints_moment_r50_fpn_gn-neck+head_2x_coco", normalized, R50, LONG),
    row("reppoints_moment_r101_fpn_gn-neck+head_2x_coco", normalized, R101, LONG),
    row("reppoints_moment_r101_fpn_dconv_c3-c5_gn-neck+head_2x_coco", normalized, DEFORMED_R101, LONG),
    row("reppoints_moment_x101_fpn_dconv_c3-c5_gn-neck+head_2x_coco", normalized, DEFORMED_X101, LONG),
]
