"""Transforms on samples: geometry, photometry, crops, and bridges to other libraries."""

from .base import Transform
from .preprocessing import Preprocessing

__all__ = ["Preprocessing", "Transform"]
