"""Distillation, and the teacher's place beside the student."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from sdk.models.backbones.resnet import ResNet
from sdk.models.methods.gfl import gfl
from sdk.models.methods.ld import distillation_loss, ld
from sdk.models.recipe import Recipe
from sdk.models.structures import ImageBatch, Targets


def student():
    recipe = replace(Recipe(name="teacher", build=partial(gfl, backbone=partial(ResNet, 18))), num_classes=5)
    return ld(2, backbone=partial(ResNet, 18), teacher_recipe=lambda: recipe)


def test_loss_is_the_divergence_of_softened_distributions():
    torch.manual_seed(0)
    ours, theirs = torch.randn(3, 17, dtype=torch.float64), torch.randn(3, 17, dtype=torch.float64)
    p, q = (theirs / 10).exp(), (ours / 10).exp()
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    wanted = (p * (p / q).log()).sum(1) / 17 * 100
    torch.testing.assert_close(distillation_loss(ours, theirs, 10.0), wanted)
    torch.testing.assert_close(distillation_loss(theirs, theirs, 10.0), torch.zeros(3, dtype=torch.float64))


def test_teacher_is_no_part_of_the_student():
    model = student()
    before = set(model.state_dict()), sum(1 for _ in model.parameters())
    assert not model._teacher
    teacher = model.teacher
    assert teacher.num_classes == 5
    assert (set(model.state_dict()), sum(1 for _ in model.parameters())) == before
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    model.train()
    assert not teacher.training
    model.double()
    assert next(teacher.parameters()).dtype == torch.float64


def test_teacher_teaches():
    torch.manual_seed(0)
    model = student().train()
    images = ImageBatch(torch.randn(1, 3, 64, 64), [(64, 64)])
    targets = [Targets(torch.tensor([[8.0, 8.0, 50.0, 44.0]]), torch.tensor([1]))]
    own = model(images, targets)
    assert float(own["loss_ld"].detach()) > 0
    model.teacher.neck.load_state_dict(model.neck.state_dict())
    model.teacher.backbone.load_state_dict(model.backbone.state_dict())
    head = {k: v for k, v in model.bbox_head.state_dict().items() if not k.startswith("gfl_cls")}
    model.teacher.bbox_head.load_state_dict(head, strict=False)
    torch.testing.assert_close(model(images, targets)["loss_ld"], torch.tensor(0.0), rtol=0, atol=1e-5)
