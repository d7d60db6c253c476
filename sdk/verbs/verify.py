"""Whether an exported file still finds what its detector does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..datasets.adapter import OnFault
from ..deployment.certificate import Certificate, certify, file_hash, read_certificate, write_certificate
from ..errors import RunError
from ..opening import scored_split
from ..reports.progress import say
from ..results.exported import load_exported
from ..results.run import load, require_fitting


def verify(
    file: str | os.PathLike,
    dataset: Any,
    *,
    model: Any = None,
    split: str | None = None,
    on_fault: OnFault = "raise",
    images: int = 50,
) -> Certificate:
    """Repeats the certificate of an exported file: compares it with its detector, image by image and by the protocol.

    Args:
        file: what ``sdk.export`` wrote.
        dataset: a path or a dataset, as of ``sdk.open``; where it carries splits, ``val`` is taken.
        model: the detector that the file was made from, as of ``sdk.export``: a certificate is written beside the
            file, in place of an earlier one. Without it the file is compared with what the certificate beside it
            says of the detector, on the same data, and nothing is written.
        split, on_fault: as in ``sdk.evaluate``.
        images: how many images are compared detection by detection.

    Returns: the certificate; ``passed`` says whether all of it is within the limits.

    Raises:
        RunError: when the file cannot be read, or there is neither ``model`` nor a certificate.
        SdkError: when the certificate is of other data.
    """
    path = Path(file)
    kept = read_certificate(path)
    if model is None and kept is None:
        raise RunError(f"{path}: has no certificate beside it; give the detector that it was made from, with model=")
    try:
        exported = load_exported(path)
    except RunError as error:
        if kept is not None and path.is_file() and file_hash(path) != kept["file"]["sha256"]:
            error.add_note("it is not the file that was certified: its SHA-256 is another")
        raise
    scored_on = scored_split(dataset, split, on_fault)
    require_fitting(exported, scored_on.classes)
    made = certify(path, exported, scored_on, load(model) if kept is None or model is not None else kept, images)
    if model is not None:
        say(f"the certificate is {write_certificate(made, path)}")
    return made
