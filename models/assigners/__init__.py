"""Rules that say which prior is responsible for which object."""

from .atss import ATSSAssigner
from .base import BACKGROUND, IGNORED, Assignment
from .center_region import CenterRegionAssigner
from .max_iou import MaxIoUAssigner
from .point import PointAssigner

__all__ = [
    "BACKGROUND",
    "IGNORED",
    "ATSSAssigner",
    "Assignment",
    "CenterRegionAssigner",
    "MaxIoUAssigner",
    "PointAssigner",
]
