"""Transforms that change colours only."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..sample import Sample


@dataclass(frozen=True)
class PhotometricDistortion:
    """SSD's colour distortion (section 2.2, https://arxiv.org/abs/1512.02325, after Howard, 2013).

    In turn, each half of the time: adds up to ``brightness`` to all values, multiplies by ``contrast``, multiplies the
    saturation, turns the hue by up to ``hue`` degrees, shuffles the channels. Contrast comes after the hue instead half
    of the time. Computed in float32; values are kept within 0..255 before colours are turned and at the end.
    """

    brightness: float = 32
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: float = 18

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        brightness, contrast, contrast_first, saturation, hue, channels = rng.random(6) < 0.5
        image = sample.image.astype(np.float32)
        if brightness:
            image += np.float32(rng.uniform(-self.brightness, self.brightness))
        factor = np.float32(rng.uniform(*self.contrast)) if contrast else np.float32(1)
        if contrast_first:
            image *= factor
        if saturation or hue:
            hsv = cv2.cvtColor(np.clip(image, 0, 255, out=image), cv2.COLOR_RGB2HSV)
            if saturation:
                hsv[..., 1] *= np.float32(rng.uniform(*self.saturation))
            if hue:
                turned = hsv[..., 0] + np.float32(rng.uniform(-self.hue, self.hue))
                turned[turned >= 360] -= 360
                turned[turned < 0] += 360
                hsv[..., 0] = turned
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        if not contrast_first:
            image *= factor
        if channels:
            image = image[..., rng.permutation(3)]
        return replace(sample, image=np.ascontiguousarray(np.rint(np.clip(image, 0, 255)).astype(np.uint8)))
