"""Attention terms in the last two stages: the rows of "An Empirical Study of Spatial Attention Mechanisms in Deep
Networks"."""

from __future__ import annotations

from functools import partial

from ..backbones.resnet import Plugin
from ..layers.generalized_attention import GeneralizedAttention
from ..methods.faster_rcnn import faster_rcnn
from .common import COCO, DCN, R50, row


def attention(terms: str) -> Plugin:
    """Attention of the given terms behind the 3 x 3 convolutions of stages three and four."""
    return Plugin(
        "gen_attention_block",
        partial(GeneralizedAttention, terms=terms),
        after="conv2",
        stages=(False, False, True, True),
    )


RECIPES = []
for terms in ("1111", "0010"):
    body = R50.built_with(plugins=(attention(terms),))
    RECIPES += [
        row(f"faster_rcnn_r50_fpn_attention_{terms}_1x_coco", faster_rcnn, body, COCO),
        row(f"faster_rcnn_r50_fpn_attention_{terms}_dcn_1x_coco", faster_rcnn, body.built_with(deform=DCN), COCO),
    ]
