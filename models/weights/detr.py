"""DETR files from before its transformer was built of general layers.

Then attentions and the feed-forward network of a layer had names of their own (``self_attn``, ``multihead_attn``,
``ffn``) where now they are numbered, and the decoder's last normalization was ``norm``.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

RENAMES = {
    ".self_attn.": ".attentions.0.",
    ".multihead_attn.": ".attentions.1.",
    ".ffn.": ".ffns.0.",
    ".decoder.norm.": ".decoder.post_norm.",
}


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state under today's names; names of the transformer's today are left as they are."""
    renamed = {}
    for key, value in state.items():
        if ".transformer." in key:
            for old, new in RENAMES.items():
                key = key.replace(old, new)
        renamed[key] = value
    return renamed
