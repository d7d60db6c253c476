"""Every recipe trains as its published row did; transforms and preprocessing are compared beside the transforms."""

import json

from sdk.models.zoo import recipes

DATASETS = {
    "CocoDataset": "coco",
    "LVISV1Dataset": "lvis_v1",
    "LVISV05Dataset": "lvis_v0.5",
    "CityscapesDataset": "cityscapes",
    "VOCDataset": "voc0712",
    "DeepFashionDataset": "deepfashion",
    "WIDERFaceDataset": "wider_face",
}
CLASS_COUNTS = {
    "coco": 80,
    "lvis_v1": 1203,
    "lvis_v0.5": 1230,
    "cityscapes": 8,
    "voc0712": 20,
    "deepfashion": 15,
    "wider_face": 1,
}


def published(row):
    """A published row's settings in our terms."""
    optimizer, lr = row["optimizer"], row["lr"]
    per_parameter = optimizer.get("paramwise_cfg", {})
    wrappers = {w["type"]: w for w in row.get("wrappers", [])}
    dataset = DATASETS[row["dataset"]]
    classes = tuple(row["classes"]) if "classes" in row else None
    masks = any(isinstance(step, str) and "with_mask" in step for step in row["train"])
    return {
        "kind": optimizer["type"].lower(),
        "lr": optimizer["lr"],
        "momentum": optimizer.get("momentum"),
        "weight_decay": optimizer.get("weight_decay", 0.0),
        "norm_decay_factor": per_parameter.get("norm_decay_mult", 1.0),
        "bias_lr_factor": per_parameter.get("bias_lr_mult", 1.0),
        "bias_decay_factor": per_parameter.get("bias_decay_mult", 1.0),
        "rules": {
            pattern: (rule.get("lr_mult", 1.0), rule.get("decay_mult", 1.0))
            for pattern, rule in per_parameter.get("custom_keys", {}).items()
        },
        "clip_norm": row["grad_clip"]["max_norm"] if row.get("grad_clip") else None,
        "epochs": row["runner"]["max_epochs"],
        "drops": tuple(lr["step"]),
        "warmup": (lr["warmup"], lr["warmup_iters"], lr["warmup_ratio"]) if lr.get("warmup") else None,
        "images_per_device": row.get("images_per_gpu", 2),
        "half": "fp16" in row,
        "dataset": dataset,
        "classes": classes,
        "num_classes": CLASS_COUNTS[dataset] if classes is None else len(classes),
        "repeats": wrappers.get("RepeatDataset", {}).get("times", 1),
        "repeat_factor": wrappers.get("ClassBalancedDataset", {}).get("oversample_thr"),
        "start_from": row.get("load_from"),
        "backbone_weights": row.get("pretrained"),
        "needs_proposals": any(isinstance(s, dict) and s["step"] == "LoadProposals" for s in row["train"]),
        "needs_masks": masks,
    }


def ours(recipe):
    """A recipe's settings in the same terms."""
    optimizer, schedule = recipe.optimizer, recipe.schedule
    return {
        "kind": optimizer.kind,
        "lr": optimizer.lr,
        "momentum": optimizer.momentum if optimizer.kind == "sgd" else None,
        "weight_decay": optimizer.weight_decay,
        "norm_decay_factor": optimizer.norm_decay_factor,
        "bias_lr_factor": optimizer.bias_lr_factor,
        "bias_decay_factor": optimizer.bias_decay_factor,
        "rules": {rule.pattern: (rule.lr_factor, rule.decay_factor) for rule in optimizer.rules},
        "clip_norm": optimizer.clip_norm,
        "epochs": schedule.epochs,
        "drops": schedule.drops,
        "warmup": (schedule.warmup, schedule.warmup_steps, schedule.warmup_factor) if schedule.warmup_steps else None,
        "images_per_device": recipe.images_per_device,
        "half": recipe.precision != "32",
        "dataset": recipe.dataset,
        "classes": recipe.classes,
        "num_classes": recipe.num_classes,
        "repeats": recipe.sampling.repeats,
        "repeat_factor": recipe.sampling.repeat_factor,
        "start_from": recipe.start_from,
        "backbone_weights": recipe.backbone_weights,
        "needs_proposals": recipe.needs_proposals,
        "needs_masks": recipe.needs_masks,
    }


def test_every_recipe_trains_as_published(shared):
    lines = (shared / "zoo" / "training.jsonl").read_text().splitlines()
    rows = {row["name"]: row for row in map(json.loads, lines)}
    known = recipes()
    differences = {}
    for name in sorted(rows.keys() & known.keys()):
        theirs, mine = published(rows[name]), ours(known[name])
        if mine["needs_masks"] is False and theirs["needs_masks"]:
            # Masks that were loaded for a detector without masks.
            theirs["needs_masks"] = False
        off = {key: (mine[key], theirs[key]) for key in theirs if mine[key] != theirs[key]}
        if off:
            differences[name] = off
    assert not differences, json.dumps(differences, indent=1, default=str)
