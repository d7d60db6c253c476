"""Bridge to InstaBoost (Fang et al., ICCV 2019, https://arxiv.org/abs/1908.07801)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InstaBoost:
    """Moves objects within their image to places that look alike."""

    probability: float = 0.5
    actions: tuple[str, ...] = ("normal", "horizontal", "skip")
    action_probabilities: tuple[float, ...] = (1, 0, 0)
    scale: tuple[float, float] = (0.8, 1.2)
    dx: float = 15
    dy: float = 15
    theta: tuple[float, float] = (-1, 1)
    color_probability: float = 0.5
    heatmap: bool = False
