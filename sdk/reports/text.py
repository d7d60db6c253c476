"""Reports and tables as plain text, written where reports are, so that printing one needs nothing from above."""

from ..evaluators.base import as_text, class_rows, headline
from ..evaluators.text import table

__all__ = ["as_text", "class_rows", "headline", "table"]
