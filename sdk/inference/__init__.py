"""Detectors at work: what holds an image, batches, detections, scores."""
