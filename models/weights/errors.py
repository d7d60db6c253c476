"""The error of this folder."""


class WeightsError(ValueError):
    """Weights cannot be had, read, or do not belong to the model; the text names the file or address."""
