"""Names of Hugging Face's ``transformers`` in ours, by explicit tables.

A ``model.safetensors`` of that library holds queries, keys and values of an attention as three layers, ours as one.

Shape letters: C channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

PARTS = {"q": 0, "k": 1, "v": 2}

RULES: tuple[tuple[str, str], ...] = (
    (r"^(class_embed|bbox_embed)\.", r"model.decoder.\1."),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.mlp\.fc(\d)\.", r".fc\1."),
    (r"\.mlp\.layers\.0\.", ".fc1."),
    (r"\.mlp\.layers\.1\.", ".fc2."),
    (r"^model\.encoder\.(?:encoder|aifi)\.0\.layers\.(\d+)\.", r"neck.encoder.layers.\1."),
    (r"^model\.decoder\.layers\.(\d+)\.", r"bbox_head.decoder.\1."),
    # Layers of the transformer.
    (r"\.self_attn\.o_proj\.", ".attentions.0.attn.out_proj."),
    (r"\.self_attn\.in_proj_", ".attentions.0.attn.in_proj_"),
    (r"\.encoder_attn\.", ".attentions.1."),
    (r"\.self_attn_layer_norm\.", ".norms.0."),
    (r"\.encoder_attn_layer_norm\.", ".norms.1."),
    (r"(decoder\.\d+)\.final_layer_norm\.", r"\1.norms.2."),
    (r"(encoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norms.1."),
    (r"\.fc1\.", ".ffns.0.layers.0.0."),
    (r"\.fc2\.", ".ffns.0.layers.1."),
    # The backbone: three convolutions of the stem; stages of blocks of convolutions; shortcuts, pooled before or not.
    (r"^model\.backbone\.model\.embedder\.embedder\.0\.convolution\.", "backbone.stem.0."),
    (r"^model\.backbone\.model\.embedder\.embedder\.0\.normalization\.", "backbone.stem.1."),
    (r"^model\.backbone\.model\.embedder\.embedder\.1\.convolution\.", "backbone.stem.3."),
    (r"^model\.backbone\.model\.embedder\.embedder\.1\.normalization\.", "backbone.stem.4."),
    (r"^model\.backbone\.model\.embedder\.embedder\.2\.convolution\.", "backbone.stem.6."),
    (r"^model\.backbone\.model\.embedder\.embedder\.2\.normalization\.", "backbone.stem.7."),
    (r"\.shortcut\.(?:1\.)?convolution\.", ".downsample.1."),
    (r"\.shortcut\.(?:1\.)?normalization\.", ".downsample.2."),
    (r"\.layer\.0\.convolution\.", ".conv1."),
    (r"\.layer\.1\.convolution\.", ".conv2."),
    (r"\.layer\.2\.convolution\.", ".conv3."),
    (r"\.layer\.0\.normalization\.", ".bn1."),
    (r"\.layer\.1\.normalization\.", ".bn2."),
    (r"\.layer\.2\.normalization\.", ".bn3."),
    (r"^model\.backbone\.model\.encoder\.stages\.0\.layers\.", "backbone.layer1."),
    (r"^model\.backbone\.model\.encoder\.stages\.1\.layers\.", "backbone.layer2."),
    (r"^model\.backbone\.model\.encoder\.stages\.2\.layers\.", "backbone.layer3."),
    (r"^model\.backbone\.model\.encoder\.stages\.3\.layers\.", "backbone.layer4."),
    (r"^model\.backbone\.model\.embedder\.(stem\d[ab]?)\.", r"backbone.stem.\1."),
    (r"^model\.backbone\.model\.encoder\.stages\.0\.", "backbone.layer1."),
    (r"^model\.backbone\.model\.encoder\.stages\.1\.", "backbone.layer2."),
    (r"^model\.backbone\.model\.encoder\.stages\.2\.", "backbone.layer3."),
    (r"^model\.backbone\.model\.encoder\.stages\.3\.", "backbone.layer4."),
    (r"(blocks\.\d+\.layers\.\d+)\.conv1\.", r"\1.0."),
    (r"(blocks\.\d+\.layers\.\d+)\.conv2\.", r"\1.1."),
    (r"\.convolution\.", ".conv."),
    (r"\.normalization\.", ".bn."),
    (r"\.lab\.", ".activation.1."),
    # Encoder and head.
    (r"^model\.encoder_input_proj\.(\d+)\.0\.", r"neck.input_convs.\1.conv."),
    (r"^model\.encoder_input_proj\.(\d+)\.1\.", r"neck.input_convs.\1.bn."),
    (r"^model\.decoder_input_proj\.(\d+)\.0\.", r"bbox_head.input_convs.\1.conv."),
    (r"^model\.decoder_input_proj\.(\d+)\.1\.", r"bbox_head.input_convs.\1.bn."),
    (r"^model\.encoder\.", "neck."),
    (r"\.bottlenecks\.", ".blocks."),
    (r"\.csp_rep(\d)\.", r".csp\1."),
    (r"\.gateway\.", ".norms.1."),
    (r"(?<!norms\.1)\.norm\.(?=weight|bias|running|num_)", ".bn."),
    (r"^model\.decoder\.pre_bbox_head\.", "bbox_head.first_branch."),
    (r"^model\.decoder\.lqe_layers\.(\d+)\.reg_conf\.", r"bbox_head.quality_branches.\1."),
    (r"^model\.decoder\.class_embed\.", "bbox_head.cls_branches."),
    (r"^model\.decoder\.bbox_embed\.", "bbox_head.reg_branches."),
    (r"^model\.decoder\.query_pos_head\.", "bbox_head.query_pos."),
    (r"^model\.enc_score_head\.", "bbox_head.proposals.cls_branch."),
    (r"^model\.enc_bbox_head\.", "bbox_head.proposals.reg_branch."),
    (r"^model\.enc_output\.", "bbox_head.proposals.output."),
    (r"^model\.denoising_class_embed\.", "bbox_head.noise.classes."),
    # Activations have places of their own in our sequences of linear layers.
    (r"(reg_branches\.\d+|reg_branch|query_pos|first_branch|quality_branches\.\d+)\.layers\.0\.", r"\1.0."),
    (r"(reg_branches\.\d+|reg_branch|query_pos|first_branch|quality_branches\.\d+)\.layers\.1\.", r"\1.2."),
    (r"(reg_branches\.\d+|reg_branch|query_pos|first_branch|quality_branches\.\d+)\.layers\.2\.", r"\1.4."),
)
"""Applied one after another, each to what the one before made of the name."""

CONSTANTS = re.compile(r"points_scale$|^model\.decoder\.(?:up|reg_scale)$")
"""What that library keeps in a state although it is no weight."""


def from_huggingface(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state under our names where its names are of that library, else as it is."""
    if not any(key.startswith("model.backbone.") for key in state):
        return dict(state)
    renamed: dict[str, Tensor] = {}
    for key, value in joined_projections(state).items():
        if CONSTANTS.search(key):
            continue
        for pattern, replacement in RULES:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def joined_projections(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with queries, keys and values (each C x C) of self-attention as one layer of 3 C x C."""
    result: dict[str, Tensor] = {}
    parts: dict[str, list[Tensor | None]] = {}
    for key, value in state.items():
        found = re.fullmatch(r"(.+\.self_attn\.)([qkv])_proj\.(weight|bias)", key)
        if found:
            parts.setdefault(f"{found[1]}in_proj_{found[3]}", [None] * 3)[PARTS[found[2]]] = value
        else:
            result[key] = value
    for key, three in parts.items():
        result[key] = torch.cat([one for one in three if one is not None])
    return result
