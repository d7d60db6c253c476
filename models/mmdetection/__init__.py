"""Checkpoints and configurations of MMDetection 2.x and 3.x, read as data and built from the parts of this project."""
