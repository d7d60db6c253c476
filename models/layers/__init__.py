"""Layers that several backbones, necks and heads share."""

from .conv import ConvModule
from .deform import DeformConv2d, ModulatedDeformConv2d
from .norm import BN, FROZEN_BN, GN, Norm
from .scale import Scale

__all__ = ["BN", "FROZEN_BN", "GN", "ConvModule", "DeformConv2d", "ModulatedDeformConv2d", "Norm", "Scale"]
