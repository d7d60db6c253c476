"""What is behind the figures: read from matched detections, without running a model."""
