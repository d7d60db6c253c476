"""Views of an image: boxes and masks come back to where they belong, are merged once, and masks are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from sdk.models.boxes import to_batch_frame, to_output_frame
from sdk.models.detectors.base import Candidates
from sdk.models.roi.masks import RegionMasks
from sdk.models.settings import CornerTest, DenseTest, RoITest, SetTest, SoftNMS, without_suppression
from sdk.models.structures import Detections, ImageBatch
from sdk.models.tta import TTA, predict_views
from sdk.ops.paste_masks import paste_masks

SIZES = [(20, 30), (16, 24)]
# In each image, objects as x1, y1, x2, y2. An object's class is its channel; its mask is the brighter quarter of it.
OBJECTS = [[(2, 3, 8, 7), (15, 10, 29, 18)], [(1, 1, 7, 13)]]
BRIGHT, DARK = (0.8, 1.0), 0.5
ALL_FLIPS = ["horizontal", "vertical", "diagonal"]


def painted(scale: int = 1, offset: tuple[int, int] = (0, 0), quarter: tuple[int, int] = (0, 0)) -> ImageBatch:
    """Two images of rectangles, enlarged by a whole factor, padded to 64 x 64.

    quarter: the brighter one of each, (0, 0) for the upper left, (0, 1) for the upper right.
    """
    left, top = offset
    pixels = torch.zeros(2, 3, 64, 64)
    for image, objects in enumerate(OBJECTS):
        for label, (x1, y1, x2, y2) in enumerate(objects):
            own = pixels[image, label, top + y1 * scale : top + y2 * scale, left + x1 * scale : left + x2 * scale]
            own[:] = DARK
            own.unflatten(0, (2, -1)).unflatten(2, (2, -1))[quarter[0], :, quarter[1]] = BRIGHT[label]
    sizes = [(h * scale, w * scale) for h, w in SIZES]
    return ImageBatch(pixels, sizes, SIZES, [(scale, scale)] * 2, [offset] * 2)


def rectangles(images: ImageBatch, index: int) -> Detections:
    """The rectangle of each channel in which something is painted."""
    boxes, scores, labels = [], [], []
    for label, channel in enumerate(images.pixels[index]):
        rows, columns = channel.sum(1).nonzero()[:, 0], channel.sum(0).nonzero()[:, 0]
        if len(rows):
            boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            scores.append(float(channel.max()))
            labels.append(label)
    found = to_output_frame(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), images, index)
    return Detections(found, torch.tensor(scores), torch.tensor(labels))[torch.tensor(scores).argsort(descending=True)]


class Rectangles(nn.Module):
    """Finds rectangles and their masks at once."""

    def predict(self, images: ImageBatch) -> list[Detections]:
        result = []
        for index, (height, width) in enumerate(images.sizes):
            (left, top), step = images.offset(index), int(images.scale(index)[0])
            seen = images.pixels[index, :, top : top + height : step, left : left + width : step]
            found = rectangles(images, index)
            result.append(replace(found, masks=seen[found.labels] > DARK))
        return result

    @staticmethod
    def mask(box: tuple[int, ...], size: tuple[int, int]) -> Tensor:
        """Of the object: the upper left quarter."""
        x1, y1, x2, y2 = box
        mask = torch.zeros(size, dtype=torch.bool)
        mask[y1 : (y1 + y2) // 2, x1 : (x1 + x2) // 2] = True
        return mask


class TwoSteps(nn.Module):
    """Finds every rectangle twice, then says of the quarters of a box which are bright."""

    test = RoITest(nms_threshold=0.5, mask_threshold=0.4)

    def candidates(self, images: ImageBatch) -> Candidates:
        found = []
        for index in range(len(images)):
            one = rectangles(images, index)
            worse = replace(one, boxes=one.boxes + 0.25, scores=one.scores - 0.2)
            found.append(Detections(*(torch.cat(pair) for pair in zip(parts(one), parts(worse), strict=True))))

        def masks(detections: Sequence[Detections]) -> RegionMasks:
            said = []
            for index, own in enumerate(detections):
                for box, label in zip(to_batch_frame(own.boxes, images, index).int().tolist(), own.labels):
                    x1, y1, x2, y2 = box
                    cut = images.pixels[index, label, y1:y2, x1:x2].unflatten(0, (2, -1)).unflatten(2, (2, -1))
                    said.append((cut.mean(dim=(1, 3)) > DARK).float()[None])
            return RegionMasks(torch.stack(said))

        return Candidates(found, masks)

    @staticmethod
    def mask(box: tuple[int, ...], size: tuple[int, int]) -> Tensor:
        """Of the object: what the upper left of four probabilities becomes when it is pasted."""
        return paste_masks(torch.tensor([[[1.0, 0], [0, 0]]]), torch.tensor([box]).float(), size, 0.4)[0]


def parts(found: Detections) -> tuple[Tensor, Tensor, Tensor]:
    return found.boxes, found.scores, found.labels


@pytest.mark.parametrize("model", [Rectangles(), TwoSteps()])
@pytest.mark.parametrize("offset", [(0, 0), (3, 1)])
@pytest.mark.parametrize("flips", [[], ["horizontal"], ["vertical"], ALL_FLIPS])
def test_every_view_comes_back_to_the_image(model: nn.Module, offset: tuple[int, int], flips: list[str]) -> None:
    for index, found in enumerate(predict_views(model, [painted(1, offset), painted(2, offset)], flips)):
        assert found.masks is not None
        assert sorted(found.labels.tolist()) == list(range(len(OBJECTS[index])))
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        for box, mask, label in zip(found.boxes.tolist(), found.masks, found.labels.tolist()):
            assert box == list(map(float, OBJECTS[index][label]))
            assert torch.equal(mask, model.mask(OBJECTS[index][label], SIZES[index]))


def test_masks_are_averaged_over_the_views() -> None:
    """Where two views see different quarters, each is half certain."""
    found = predict_views(TwoSteps(), [painted(), painted(quarter=(0, 1))])[0]
    assert found.masks is not None
    upper_half = torch.tensor([[[0.5, 0.5], [0, 0]]])
    for box, mask, label in zip(found.boxes.tolist(), found.masks, found.labels.tolist()):
        assert box == list(map(float, OBJECTS[0][label]))
        assert torch.equal(mask, paste_masks(upper_half, torch.tensor([box]), SIZES[0], 0.4)[0])


def test_one_view_is_prediction_itself() -> None:
    images = painted()
    for found, plain in zip(predict_views(Rectangles(), [images]), Rectangles().predict(images), strict=True):
        assert all(torch.equal(one, other) for one, other in zip(parts(found), parts(plain)))


class Sets(nn.Module):
    """A detector whose boxes depend on the view, and which suppresses nothing."""

    test = SetTest(max_per_image=3)

    def predict(self, images: ImageBatch) -> list[Detections]:
        generator = torch.Generator().manual_seed(int(images.sizes[0][0]))
        low = torch.rand(6, 2, generator=generator) * 10
        boxes = torch.cat((low, low + 8), dim=1)
        scores = torch.rand(6, generator=generator).sort(descending=True).values
        return [Detections(boxes, scores, torch.arange(6) % 2)]


def test_sets_are_suppressed_together() -> None:
    batches = [ImageBatch(torch.zeros(1, 3, 64, 64), [(h, h)], [(20, 20)], [(h / 20, h / 20)]) for h in (20, 40)]
    each = [Sets().predict(batch)[0] for batch in batches]
    boxes, scores, labels = (torch.cat(pair) for pair in zip(*map(parts, each), strict=True))
    kept: list[int] = []
    for place in scores.argsort(descending=True).tolist():
        same = [k for k in kept if labels[k] == labels[place]]
        if not same or box_iou(boxes[place][None], boxes[same]).max() <= 0.5:
            kept.append(place)
    found = predict_views(Sets(), batches)[0]
    assert len(kept) >= 3
    assert torch.equal(found.boxes, boxes[kept[:3]])
    assert torch.equal(found.scores, scores[kept[:3]])


def test_proposals_are_mirrored_too() -> None:
    seen: list[Tensor] = []

    class Reader(nn.Module):
        def predict(self, images: ImageBatch, proposals: list[Tensor]) -> list[Detections]:
            seen.append(proposals[0])
            nothing = torch.zeros(0, 4)
            return [Detections(nothing, nothing[:, 0], nothing[:, 0].long())] * 2

    given = [torch.tensor([[1.0, 2, 5, 9]]), torch.zeros(0, 4)]
    predict_views(Reader(), [painted()], ALL_FLIPS, [given])
    expected = [[1, 2, 5, 9], [25, 2, 29, 9], [1, 11, 5, 18], [25, 11, 29, 18]]
    assert torch.cat(seen).tolist() == expected


def test_padding_stays_where_it_is() -> None:
    seen: list[np.ndarray] = []

    class Camera(nn.Module):
        def predict(self, images: ImageBatch) -> list[Detections]:
            seen.append(images.pixels[0, 0].numpy())
            nothing = torch.zeros(0, 4)
            return [Detections(nothing, nothing[:, 0], nothing[:, 0].long())]

    pixels = torch.zeros(1, 3, 4, 6)
    pixels[0, :, 1:3, 1:4] = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    predict_views(Camera(), [ImageBatch(pixels, [(2, 3)], offsets=[(1, 1)])], ["horizontal", "vertical"])
    assert seen[1].tolist() == [[0] * 6, [0, 3, 2, 1, 0, 0], [0, 6, 5, 4, 0, 0], [0] * 6]
    assert seen[2].tolist() == [[0] * 6, [0, 4, 5, 6, 0, 0], [0, 1, 2, 3, 0, 0], [0] * 6]


def test_views_in_different_frames_are_an_error() -> None:
    with pytest.raises(ValueError, match="same original_sizes"):
        predict_views(Rectangles(), [painted(1), replace(painted(2), original_sizes=None, scales=None)])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"scales": ()}, "positive factors"),
        ({"scales": (1.0, 0.0)}, "positive factors"),
        ({"scales": (float("inf"),)}, "positive factors"),
        ({"flips": ("sideways",)}, "horizontal, vertical, diagonal"),
        ({"flips": "horizontal"}, "horizontal, vertical, diagonal"),
    ],
)
def test_wrong_views(wrong: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        TTA(**wrong)


@pytest.mark.parametrize("test", [DenseTest(), RoITest(soft_nms=SoftNMS()), CornerTest(), SetTest()])
def test_settings_without_suppression(test: object) -> None:
    off = without_suppression(test)
    assert type(off) is type(test)
    assert getattr(off, "soft_nms", None) is None
    assert off.max_per_image > 10**9
    assert getattr(off, "score_threshold", None) == getattr(test, "score_threshold", None)
