"""Encoder and decoder layers (Carion et al., "End-to-End Object Detection with Transformers", appendix A.3).

Part names are the published checkpoint keys. Shape letters: B images, Q queries, S places of a memory, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from .attention import Attention, Memory

Activation = Callable[[], nn.Module]
"""Makes an activation."""
RELU: Activation = partial(nn.ReLU, inplace=True)


class FeedForward(nn.Module):
    """Two linear layers, an activation between, at every query alone: (..., C) to (..., C), without the shortcut."""

    def __init__(self, channels: int, hidden: int, dropout: float = 0.0, activation: Activation = RELU) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Sequential(nn.Linear(channels, hidden), activation(), nn.Dropout(dropout)),
            nn.Linear(hidden, channels),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class EncoderLayer(nn.Module):
    """Attention of a memory to itself, then a feed-forward network, each with shortcut and normalization after."""

    def __init__(
        self,
        attention: nn.Module,
        *,
        channels: int = 256,
        hidden: int = 2048,
        dropout: float = 0.1,
        activation: Activation = RELU,
    ) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([attention])
        self.ffns = nn.ModuleList([FeedForward(channels, hidden, dropout, activation)])
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))

    def forward(self, memory: Memory, reference: Tensor | None = None) -> Tensor:
        """The memory's new values (B, S, C); ``reference``: (B, S, 2) where each place lies."""
        x = memory.values
        x = self.norms[0](x + self.attentions[0](x, memory.positions, memory, reference))
        return self.norms[1](x + self.ffns[0](x))


class DecoderLayer(nn.Module):
    """Attention of queries to each other and to a memory, then a feed-forward network, each with shortcut and
    normalization after. ``attention`` is the one to the memory."""

    def __init__(
        self, attention: nn.Module, *, channels: int = 256, heads: int = 8, hidden: int = 2048, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels, heads, dropout), attention])
        self.ffns = nn.ModuleList([FeedForward(channels, hidden, dropout)])
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        memory: Memory,
        reference: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """(B, Q, C) queries, their positions and references to (B, Q, C).

        hidden: (Q, Q) bool, true where a query (row) may not see another (column).
        """
        x = query
        x = self.norms[0](x + self.attentions[0](x, query_pos, Memory(x, query_pos, hidden=hidden)))
        x = self.norms[1](x + self.attentions[1](x, query_pos, memory, reference))
        return self.norms[2](x + self.ffns[0](x))


class Encoder(nn.Module):
    """Encoder layers one after another."""

    def __init__(self, layers: Sequence[EncoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, memory: Memory, reference: Tensor | None = None) -> Memory:
        """The memory with its values (B, S, C) encoded; ``reference``: (B, S, 2) where each place lies."""
        for layer in self.layers:
            memory = replace(memory, values=layer(memory, reference))
        return memory


def init_transformer(root: nn.Module) -> None:
    """Xavier uniform weights in everything that multiplies."""
    for parameter in root.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
