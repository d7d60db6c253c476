"""Looking at ground truth and predictions in the FiftyOne App."""

from __future__ import annotations

from typing import Any

from ..fiftyone.app import open_app
from ..opening import scored_split


def explore(
    dataset: Any,
    what: Any = None,
    *,
    split: str | None = None,
    protocol: str | None = None,
    name: str | None = None,
    batch_size: int = 1,
    workers: int | None = None,
    device: str | None = None,
    address: str = "127.0.0.1",
    port: int = 5151,
    launch: bool = True,
    wait: bool = False,
) -> Any:
    """Opens the FiftyOne App on a dataset and what detectors find in it.

    Every object is marked by the official matching: a detection's ``eval`` is ``tp``, ``fp`` or ``ignored``, a ground
    truth's ``tp``, ``fn`` or ``ignored``. ``eval_error`` says what is wrong with a false detection, ``eval_mistake``
    which annotations are probably wrong. The Model Evaluation panel shows the official figures; the saved views lead to
    the worst images, confident false positives, missed objects, localization errors, class confusions, duplicates ...

    The same dataset opens at once the next time, with its tags; so do the predictions of the same weights or file.

    Args:
        dataset: a path or a dataset, as of ``sdk.open``; where it carries splits, ``val`` is shown, or ``split``.
        what: a Run or its folder, a detector, a weights file, a name of the zoo, a COCO results file (for every
            protocol), a folder of the protocol's own text files (Pascal VOC, WIDER FACE, Cityscapes), or the
            Detections of all images; none shows the ground truth alone. A mapping from names to these compares several:
            each is a field of that name.
        protocol: ``coco``, ``voc``, ``lvis`` ... instead of the dataset's own.
        name: of the FiftyOne dataset.
        batch_size, workers, device: as in ``sdk.evaluate``.
        address, port: where the App listens; nobody else's machine can reach the default.
        launch: without it the FiftyOne dataset is returned instead of the App's session.
        wait: return only when the App is closed.

    Raises:
        ClassMismatch: when a detector's classes are not the dataset's.
        ImportError: when FiftyOne is not installed.
        SdkError: when its database cannot be reached, or a name is no field name.
    """
    return open_app(
        scored_split(dataset, split),
        what,
        protocol=protocol,
        name=name,
        batch_size=batch_size,
        workers=workers,
        device=device,
        address=address,
        port=port,
        launch=launch,
        wait=wait,
    )
