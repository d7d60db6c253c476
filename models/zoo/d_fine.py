"""D-FINE: the rows of "D-FINE: Redefine Regression Task in DETRs as Fine-grained Distribution Refinement".

Settings are those of the authors' repository, with the two differences that stand in ``rt_detr.py``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..backbones.hgnet import HGNetV2
from ..layers import FROZEN_BN
from ..methods.d_fine import DFINEHead, d_fine, fine_encoder
from ..recipe import ParameterRule, Recipe
from .common import row
from .rt_detr import BASE as RT_DETR
from .rt_detr import UNIT

whole = partial(HGNetV2, affine=True)
frozen = partial(HGNetV2, frozen_stages=0, norm=FROZEN_BN, norm_eval=True)
B0, B2, B4, B5 = (
    replace(UNIT, build=partial(build, size))
    for build, size in ((whole, "b0"), (whole, "b2"), (frozen, "b4"), (frozen, "b5"))
)
B0_COARSE = B0.built_with(out_stages=(2, 3))


def trained(epochs: int, lr: float, backbone_lr: float, *, images: int = 32, decay: float = 1e-4) -> Recipe:
    """AdamW for so many epochs, with a learning rate of its own for the backbone."""
    rules = (ParameterRule("backbone", lr_factor=backbone_lr / lr),)
    return replace(
        RT_DETR,
        images_per_device=images // RT_DETR.devices,
        optimizer=replace(RT_DETR.optimizer, lr=lr, weight_decay=decay, rules=rules),
        schedule=replace(RT_DETR.schedule, epochs=epochs, warmup_steps=500, warmup_factor=0.0),
        precision="16",
    )


NANO = partial(
    d_fine,
    levels=2,
    encoder=partial(fine_encoder, channels=128, hidden=512, expansion=0.34, blocks=2),
    head=partial(DFINEHead, channels=128, hidden=512, layers=3, points=(6, 6)),
)
SMALL = partial(d_fine, encoder=partial(fine_encoder, expansion=0.5, blocks=1), head=partial(DFINEHead, layers=3))
MIDDLE = partial(d_fine, encoder=partial(fine_encoder, blocks=2), head=partial(DFINEHead, layers=4))
EXTRA = partial(d_fine, encoder=partial(fine_encoder, channels=384, hidden=2048), head=partial(DFINEHead, scale=8.0))

RECIPES = [
    row("dfine_hgnetv2_n_coco", NANO, B0_COARSE, trained(160, 8e-4, 4e-4, images=128)),
    row("dfine_hgnetv2_s_coco", SMALL, B0, trained(132, 2e-4, 1e-4)),
    row("dfine_hgnetv2_m_coco", MIDDLE, B2, trained(132, 2e-4, 2e-5)),
    row("dfine_hgnetv2_l_coco", d_fine, B4, trained(80, 2.5e-4, 1.25e-5, decay=1.25e-4)),
    row("dfine_hgnetv2_x_coco", EXTRA, B5, trained(80, 2.5e-4, 2.5e-6, decay=1.25e-4)),
]
