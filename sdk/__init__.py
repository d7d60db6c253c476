"""Object detection and instance segmentation, centred on your dataset."""
