"""Exported ONNX files whose network computes in fewer bits; post-processing stays in float32.

Shape letters: H x W pixels of an image.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..results.files import replacing
from ..runtime import METADATA
from .writing import quiet

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators of the network alone: what computes in fewer bits."""


def to_float16(path: Path) -> None:
    """Rewrites a file of float32 so that its layers compute in float16, and hold their weights in it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    graph = model.graph
    weights = {one.name: one for one in graph.initializer if one.data_type == TensorProto.FLOAT}
    layers = [node for node in graph.node if node.op_type in LAYERS]
    readers = Counter(name for node in graph.node for name in node.input)
    read_as_weight = Counter(name for node in layers for name in node.input[1:])
    narrow = {name for name in weights if 0 < readers[name] == read_as_weight[name]}
    # A layer some of whose weights are computed, or read elsewhere too, stays as it is, with all of them.
    while (
        whole := {name for node in layers if not narrow.issuperset(_weights(node)) for name in _weights(node)} & narrow
    ):
        narrow -= whole
    for name in narrow:
        weights[name].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights[name]).astype(np.float16), name))
    nodes = []
    for node in graph.node:
        if node.op_type not in LAYERS or not narrow.issuperset(_weights(node)):
            nodes.append(node)
            continue
        source, target = node.input[0], node.output[0]
        node.input[0], node.output[0] = f"{target}/narrow", f"{target}/result"
        nodes += [
            helper.make_node("Cast", [source], [node.input[0]], to=TensorProto.FLOAT16),
            node,
            helper.make_node("Cast", [node.output[0]], [target], to=TensorProto.FLOAT),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    _write(model, path, "float16")


def to_int8(path: Path, images: Sequence[np.ndarray]) -> None:
    """Rewrites a file of float32 so that its layers compute on int8 weights and uint8 activations.

    images: (H, W, 3) uint8 RGB, by which the ranges of the activations are found.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[np.ndarray] = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
            image = next(self.left, None)
            return None if image is None else {"images": np.ascontiguousarray(image.transpose(2, 0, 1)[None])}

    target = path.with_name(f".{path.name}.int8")
    try:
        with quiet():
            quantize_static(
                path,
                target,
                Images(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(LAYERS),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        _write(onnx.load(target), path, "int8")
    finally:
        target.unlink(missing_ok=True)


def _weights(node: Any) -> list[str]:
    # An input that is left out has no name.
    return [name for name in node.input[1:] if name]


def _write(model: Any, path: Path, precision: str) -> None:
    (entry,) = (one for one in model.metadata_props if one.key == METADATA)
    entry.value = json.dumps({**json.loads(entry.value), "precision": precision})
    with replacing(path) as file:
        file.write(model.SerializeToString())
