"""Which evaluator scores a dataset."""

from __future__ import annotations

from typing import Any

from ..datasets.errors import DatasetError
from ..datasets.index import columns_of
from .base import Evaluator, ScoringProtocol
from .cityscapes import Cityscapes
from .coco import Coco
from .lvis import Lvis
from .voc import Voc
from .wider_face import WiderFace

NamedProtocol = str | ScoringProtocol
"""A protocol, or the name of an official one."""
PROTOCOLS = {"coco": Coco, "lvis": Lvis, "voc": Voc, "cityscapes": Cityscapes, "wider_face": WiderFace}


def protocol_of(protocol: NamedProtocol) -> ScoringProtocol:
    """The official protocol of a name; a protocol is itself.

    Raises:
        DatasetError: when there is no such protocol.
    """
    if not isinstance(protocol, str):
        if not isinstance(protocol, ScoringProtocol):
            expected = "a name, or such as sdk.evaluators.Coco(max_detections=(1, 10, 300))"
            raise DatasetError("not a protocol", found=protocol, expected=expected)
        return protocol
    if protocol not in PROTOCOLS:
        raise DatasetError("no such protocol", found=protocol, expected="coco, lvis, voc, cityscapes or wider_face")
    return PROTOCOLS[protocol]()


def evaluator_for(dataset: Any, protocol: NamedProtocol | None = None) -> Evaluator:
    """The evaluator of a protocol, or of its name, for a dataset, by default of the dataset's own.

    Masks are scored where the protocol has them and the dataset any.

    Raises:
        DatasetError: when there is no such protocol.
    """
    if protocol is None:
        return dataset.evaluator()
    return protocol_of(protocol).evaluator(dataset, masks=columns_of(dataset).segments is not None)
