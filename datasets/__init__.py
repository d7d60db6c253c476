"""Datasets: adapters, sampling, transforms, checks. Knows nothing of models."""
