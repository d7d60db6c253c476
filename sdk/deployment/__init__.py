"""Detectors as files that run without this package, and how far they differ."""
