"""Detectors: structures, parts, methods and the zoo."""
