"""What is said when a dataset is not as it should be."""

from __future__ import annotations


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
