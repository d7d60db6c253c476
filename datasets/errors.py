"""What is said when a dataset is not as it should be."""

from __future__ import annotations

from dataclasses import dataclass


class DatasetError(ValueError):
    """A fault in a dataset: which file, which annotation or image, which field, what was found and expected."""

    def __init__(
        self,
        problem: str,
        *,
        file: object = None,
        where: object = None,
        field: str | None = None,
        found: object = None,
        expected: object = None,
    ) -> None:
        self.problem, self.file, self.where, self.field = problem, file, where, field
        self.found, self.expected = found, expected
        parts = [] if file is None else [str(file)]
        if where is not None:
            parts.append(str(where))
        if field is not None:
            parts.append(f"field {field!r}")
        text = (": ".join([", ".join(parts), problem])) if parts else problem
        if found is not None:
            text += f"; found {found!r:.200}"
        if expected is not None:
            text += f"; expected {expected}"
        super().__init__(text)


class DatasetWarning(UserWarning):
    """Something in a dataset was left out or repaired in memory; training can go on."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, as data: kind is a short fixed phrase (``box without area``, ``unknown category``).

    level: ``error`` for what training or scoring cannot use, ``warning`` for what is used but looks wrong, ``note`` for
    what is only worth knowing.
    """

    kind: str
    file: str | None = None
    where: str | None = None
    field: str | None = None
    found: str | None = None
    expected: str | None = None
    level: str = "error"

    def error(self) -> DatasetError:
        """The fault as an error."""
        return DatasetError(
            self.kind, file=self.file, where=self.where, field=self.field, found=self.found, expected=self.expected
        )
