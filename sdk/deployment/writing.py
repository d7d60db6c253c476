"""Writing a detector in an exported format."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch.export import Dim, ExportedProgram

from ..errors import SdkError
from ..results.exported import EXPORTED, FURTHER, OPENVINO_METADATA, OUTPUTS
from ..results.files import replacing
from ..results.weights import Trained
from ..runtime import METADATA
from ..version import __version__
from .network import Inside, Outside, suppress_by_onnx, suppress_by_torchvision
from .resizing import least_blocks

Where = Literal["inside", "outside"]
OPSET, DEFORMABLE_OPSET = 18, 19
"""Version of ONNX's operators, and the first that has deformable convolution."""


def write(trained: Trained, path: Path, preprocess: Where, data: str | None = None) -> None:
    """Writes a detector to ``path``, by the format that its suffix names; data: fingerprint of what it learnt from.

    Raises:
        SdkError: when the format is unknown, its packages are missing, or it cannot hold the detector.
    """
    if path.suffix not in EXPORTED:
        raise SdkError(f"{path}: expected a file that ends in {', '.join(EXPORTED)}")
    if trained.recipe.needs_proposals:
        raise SdkError(f"{trained.recipe.name}: reads proposals, which an exported file cannot make")
    metadata = json.dumps(about(trained, preprocess, data))
    if path.suffix == ".pt2":
        with quiet():
            made = program(trained, preprocess, suppress_by_torchvision)
        with replacing(path) as file:
            torch.export.save(made, file, extra_files={METADATA: metadata})
    elif path.suffix == ".onnx":
        write_onnx(trained, path, preprocess, metadata)
    else:
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "model.onnx"
            write_onnx(trained, whole, preprocess, metadata)
            write_openvino(whole, path, metadata)


def write_onnx(trained: Trained, path: Path, preprocess: Where, metadata: str) -> None:
    """Writes an ONNX file that says of itself what ``metadata`` does, JSON; errors as of ``write``."""
    try:
        from onnxscript.values import Opset
    except ImportError as error:
        raise SdkError(f"{path}: ONNX needs further packages: pip install 'detection-sdk[export]'") from error
    op = Opset("", OPSET)

    def non_max_suppression(boxes: Any, scores: Any, overlap: float, most: int) -> Any:
        return op.NonMaxSuppression(
            boxes,
            scores,
            op.Constant(value_ints=[most]),
            op.Constant(value_floats=[overlap]),
            op.Constant(value_floats=[0.0]),
        )

    with quiet():
        exported = program(trained, preprocess, suppress_by_onnx)
        try:
            made = torch.onnx.export(
                exported,
                dynamo=True,
                opset_version=DEFORMABLE_OPSET if deformable(exported) else OPSET,
                output_names=[*OUTPUTS, *FURTHER][: outputs_of(exported)],
                custom_translation_table={torch.ops.sdk_export.non_max_suppression.default: non_max_suppression},
                verbose=False,
            )
        except Exception as error:
            raise SdkError(f"{trained.recipe.name}: cannot be written as ONNX: {reason_of(error)}") from error
    if made is None:
        raise SdkError(f"{path}: the exporter gave no program")
    made.model.metadata_props[METADATA] = metadata
    with replacing(path) as file:
        file.write(made.model_proto.SerializeToString())


def write_openvino(whole: Path, path: Path, metadata: str) -> None:
    """Makes of an ONNX file OpenVINO's two: the network, ``path``, and its weights beside it, which end in ``.bin``."""
    try:
        import openvino
    except ImportError as error:
        raise SdkError(f"{path}: OpenVINO needs a further package: pip install 'detection-sdk[openvino]'") from error
    made = openvino.convert_model(whole)
    made.set_rt_info(metadata, list(OPENVINO_METADATA))
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "model.xml"
        openvino.save_model(made, temporary, compress_to_fp16=False)
        # The weights come first: the network without them would be half a file.
        for suffix in (".bin", ".xml"):
            with replacing(path.with_suffix(suffix)) as file:
                file.write(temporary.with_suffix(suffix).read_bytes())


@contextmanager
def quiet() -> Iterator[None]:
    """Without what exporter and quantizer say of their own workings, which nobody who exports can change."""
    loggers = [logging.getLogger(name) for name in ("", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def about(trained: Trained, preprocess: Where, data: str | None) -> dict[str, Any]:
    """What a file says of itself."""
    return {
        "version": __version__,
        "model": trained.recipe.name,
        "num_classes": int(trained.model.num_classes),  # type: ignore[arg-type]
        "classes": None if trained.classes is None else list(trained.classes),
        "category_ids": None if trained.category_ids is None else list(trained.category_ids),
        "test": asdict(trained.model.test),  # type: ignore[arg-type]
        "data": data,
        "precision": "float32",
        "preprocess": preprocess,
        "preprocessing": asdict(trained.recipe.preprocessing),
    }


def program(trained: Trained, preprocess: Where, suppress: Any) -> ExportedProgram:
    """The detector as a program of ``torch.export``, whose images may have any number and size."""
    batch = Dim.DYNAMIC
    if preprocess == "inside":
        network: Any = Inside(trained.model, suppress, trained.recipe.preprocessing)
        given: tuple[torch.Tensor, ...] = (torch.zeros(2, 3, 150, 200, dtype=torch.uint8),)
        dynamic: Any = ({0: batch, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    else:
        network = Outside(trained.model, suppress)
        preparing = trained.recipe.preprocessing
        divisor, fixed = preparing.divisor, preparing.fixed_size
        if fixed is not None:
            (height, width), edges = preparing.padded_size(fixed), {}
        else:
            # More than one place even on the coarsest maps: a program treats one as a case of its own.
            height, width = (divisor * (-(-blocks * 64 // divisor)) for blocks in (5, 7))
            least = least_blocks(divisor)
            edges = {2: divisor * Dim("rows", min=least), 3: divisor * Dim("columns", min=least)}
        given = (torch.zeros(2, 3, height, width), torch.ones(2, 2), torch.ones(2, 2))
        dynamic = ({0: batch, **edges}, {0: batch}, {0: batch})
    try:
        return torch.export.export(network.eval(), given, dynamic_shapes=dynamic, strict=False)
    except Exception as error:
        raise SdkError(f"{trained.recipe.name}: cannot be exported: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """In one line what the exporter, which has an exception of its own for everything, could not do."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def deformable(exported: ExportedProgram) -> bool:
    """Whether a program has deformable convolutions."""
    return any(node.target is torch.ops.torchvision.deform_conv2d.default for node in exported.graph.nodes)


def outputs_of(exported: ExportedProgram) -> int:
    """How many tensors a program gives."""
    return len(exported.graph_signature.user_outputs)
