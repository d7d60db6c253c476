"""Transforms on samples: geometry, photometry, crops, and bridges to other libraries."""

from .albumentations import Albumentations
from .annotations import BoxesFromMasks, DropSmallBoxes, TopProposals
from .base import Transform
from .choice import OneOf
from .crops import CenterCropPad, MinIoUCrop, RandomCrop
from .geometry import Expand, Flip, PadTo, PadToMultiple, Resize, ScaleJitter, Shift
from .instaboost import InstaBoost
from .mosaic import Mosaic
from .photometric import PhotometricDistortion
from .preprocessing import Preprocessing

__all__ = [
    "Albumentations",
    "BoxesFromMasks",
    "CenterCropPad",
    "DropSmallBoxes",
    "Expand",
    "Flip",
    "InstaBoost",
    "MinIoUCrop",
    "Mosaic",
    "OneOf",
    "PadTo",
    "PadToMultiple",
    "PhotometricDistortion",
    "Preprocessing",
    "RandomCrop",
    "Resize",
    "ScaleJitter",
    "Shift",
    "TopProposals",
    "Transform",
]
