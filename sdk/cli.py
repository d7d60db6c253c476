"""The verbs on the command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from .errors import nearest
from .training.options import devices_from, grouped_options, sampling_from


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; the exit status: 0 when it is done, 1 for a fault in what was given, 130 when stopped."""
    options = parser().parse_args(arguments)
    from .errors import DatasetError, SdkError

    try:
        return options.run(options)
    except (SdkError, DatasetError, ValueError, FileNotFoundError) as error:
        if options.traceback:
            raise
        print(f"sdk {options.verb}: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has seen enough; nothing is left to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """The command line: one subcommand a verb."""
    top = argparse.ArgumentParser("sdk", description="Train, score and look at detectors on your dataset.")
    top.add_argument("--traceback", action="store_true", help="show where an error comes from")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="verb", parser_class=_Verb)
    dataset = "a folder or annotation file in any layout, or kind:path (coco, yolo, voc ...); shapes needs no folder"
    trained = "a run folder, a .safetensors file, an exported file, or a name of the zoo"
    predicted = (
        "what was predicted: COCO results (.json), a .parquet file of predict, or a folder of the protocol's text files"
    )

    fit = _verb(verbs, "fit", _fit, "train a detector")
    fit.add_argument("dataset", nargs="?", help=dataset)
    fit.add_argument("model", nargs="?", help="a name of the zoo (`sdk zoo` lists them), or a run folder to start from")
    fit.add_argument("--replay", metavar="RUN", help="run the step again at which a run met NaN; say where it begins")
    _training(fit)

    evaluate = _verb(verbs, "evaluate", _evaluate, "score a detector by the dataset's own protocol")
    evaluate.add_argument("dataset", help=dataset)
    evaluate.add_argument("what", help=f"{trained}, or {predicted}")
    _scoring(evaluate)
    _faults(evaluate)
    _views(evaluate)
    evaluate.add_argument("--out", help="folder for the report with pictures")

    compare = _verb(verbs, "compare", _compare, "tell whether one detector is better than another, or only lucky")
    compare.add_argument("a", help=f"{trained}, or {predicted}")
    compare.add_argument("b", help="the same, which may be better")
    compare.add_argument("--dataset", required=True, help=dataset)
    _scoring(compare)
    _faults(compare)
    compare.add_argument("--resamples", type=int, default=2000, help="how often all images are drawn (default: 2000)")
    compare.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    compare.add_argument(
        "--fail-if-worse", metavar="FIGURE", help="such as bbox/AP: exit status 2 where it is lower in b"
    )
    compare.add_argument("--out", help="folder for comparison.html with the images that changed most")
    compare.add_argument("--by", type=float, default=0.0, help="by more than this (default: 0)")

    predict = _verb(verbs, "predict", _predict, "find objects in images")
    images = "files, folders, and patterns such as 'photos/*/*.jpg'; without --model the last one is the model"
    predict.add_argument("images", nargs="+", help=images)
    predict.add_argument("--model", help=trained)
    predict.add_argument(
        "--out",
        help="a new file: COCO results (.json), an image a line (.jsonl), an object a row (.csv, .parquet); "
        "yolo:FOLDER for text files; a film (.mp4); else a folder for pictures with the detections",
    )
    predict.add_argument("--recursive", action="store_true", help="look into the folders inside a folder too")
    predict.add_argument(
        "--on-fault", choices=("raise", "skip"), help="what a bad image does (default: skip in folders, raise if named)"
    )
    predict.add_argument(
        "--score-threshold", type=float, help="default: 0.3; into a file or text files, the detector's own"
    )
    predict.add_argument("--classes", nargs="+", metavar="NAME", help="keep these classes alone")
    predict.add_argument("--batch-size", type=int, default=1)
    predict.add_argument("--threads", type=int, default=2, help="that read the next images (default: 2)")
    predict.add_argument("--device")
    predict.add_argument(
        "--devices", type=devices_from, help="how many, or which as 0,1: a process each; goes on where it was killed"
    )
    predict.add_argument("--track", action="store_true", help="give every object of a film a number")
    predict.add_argument(
        "--tiles",
        type=float,
        nargs="+",
        metavar=("SIZE", "OVERLAP"),
        help="cut images into tiles of so many pixels a side, which overlap by this share (default: 0.2)",
    )
    predict.add_argument("--profile", metavar="FOLDER", help="write where the time of an image goes to this folder")
    _views(predict)

    explore = _verb(verbs, "explore", _explore, "look at ground truth and predictions in the FiftyOne App")
    explore.add_argument("dataset", help=dataset)
    explore.add_argument(
        "what",
        nargs="*",
        metavar="[NAME=]what",
        help=f"{trained}, or {predicted}; several stand side by side, under these names or those of their files",
    )
    _scoring(explore)
    explore.add_argument("--name", help="of the FiftyOne dataset (default: made from the dataset)")
    explore.add_argument("--address", default="127.0.0.1", help="where the App listens (default: this machine alone)")
    explore.add_argument("--port", type=int, default=5151)

    export = _verb(verbs, "export", _export, "write a detector as a file that runs without this package")
    export.add_argument("model", help=trained)
    export.add_argument("out", help="the file; its name ends in .onnx, .pt2, or .xml (OpenVINO)")
    export.add_argument("--data", dest="dataset", help=f"what the certificate compares on: {dataset}")
    _compared(export)
    export.add_argument(
        "--precision", choices=("float32", "float16", "int8"), default="float32", help="default: float32"
    )
    export.add_argument("--preprocess", choices=("inside", "outside"), default="inside", help="default: inside")

    verify = _verb(verbs, "verify", _verify, "tell whether an exported file finds what its detector does")
    verify.add_argument("file", help="what export wrote")
    verify.add_argument("dataset", help=dataset)
    verify.add_argument("--model", help=f"the detector (default: what the certificate says of it): {trained}")
    _compared(verify)

    check = _verb(verbs, "check", _check, "look for faults in a dataset; changes nothing")
    check.add_argument("dataset", help=dataset)
    check.add_argument("--decode", action="store_true", help="also decode every image")
    check.add_argument("--leaks", action="store_true", help="also look for near duplicates within and between splits")
    check.add_argument(
        "--sampling", dest="sampler", type=_told(sampling_from), help="say how often each class is seen with it"
    )
    check.add_argument("--out", help="folder for check.html and pictures of the pairs that are the same")

    review = _verb(verbs, "review", _review, "rank annotations that are probably wrong; changes nothing")
    review.add_argument("dataset", help=f"{dataset}; or a queue.csv with decisions, whose changes --amendments writes")
    review.add_argument("what", nargs="?", help=f"{trained}, or {predicted}")
    review.add_argument("--out", help="folder for queue.csv, where decisions can be written")
    review.add_argument("--amendments", metavar="FILE", help="write the accepted suggestions of the queue to this file")
    review.add_argument("--folds", type=int, help="train so many detectors, each judging images that it never saw")
    review.add_argument("--epochs", type=int, help="of each fold's training (default: the recipe's)")
    review.add_argument("--split", choices=("train", "val", "test"), help="default: val")
    review.add_argument("--batch-size", type=int, default=1)
    review.add_argument("--workers", type=int)
    review.add_argument("--device")

    diff = _verb(verbs, "diff", _diff, "compare two versions of the annotations of the same images")
    diff.add_argument("first", help=dataset)
    diff.add_argument("second", help="the later version")
    diff.add_argument("--split", choices=("train", "val", "test"), help="of both (default: as they open)")
    diff.add_argument("--out", help="file for the changes that make the second of the first")
    diff.add_argument("--rows", action="store_true", help="every difference, not the counts alone")

    zoo = _verb(verbs, "zoo", _zoo, "list the models, show one, or export its weights")
    zoo.add_argument("what", nargs="*", metavar="pattern | export NAME FILE", help="such as 'retinanet*'; "
                     "a full name shows its recipe; export writes its weights as a .safetensors file")  # fmt: skip
    zoo.add_argument("--method", help="such as faster_rcnn or '*rcnn'")
    zoo.add_argument("--dataset", help="such as coco or 'lvis*'")
    zoo.add_argument("--backbone", help="part of its name, such as resnet50")
    zoo.add_argument("--min-ap", type=float, help="smallest published box AP, in percent")
    zoo.add_argument("--max-parameters", type=float, help="largest number of parameters, in millions")
    zoo.add_argument("--card", action="store_true", help="the model card of one name, as Markdown")
    zoo.add_argument(
        "--run",
        dest="runs",
        action="append",
        default=[],
        metavar="FOLDER",
        help="a run folder whose evaluation the card shows too",
    )
    zoo.add_argument("--markdown", action="store_true", help="the table of the whole zoo, as Markdown")
    zoo.add_argument("--weights", default="published", help="what export reads: published, or a checkpoint file")

    other = _verb(verbs, "convert", _convert, "write a dataset in another layout")
    other.add_argument("source", help=dataset)
    other.add_argument("target", help="a new folder")
    other.add_argument("--to", choices=("coco", "voc", "yolo", "parquet"), default="coco", help="default: coco")
    _faults(other)

    convert = _verb(verbs, "convert-mmdetection", _convert_mmdetection, "read a checkpoint that MMDetection trained")
    convert.add_argument("checkpoint", help="the .pth file")
    convert.add_argument("out", help="a new folder for weights, recipe and report")
    convert.add_argument("--config", help="the configuration, where the checkpoint does not carry it")

    doctor = _verb(verbs, "doctor", _doctor, "versions, devices, ops, and what does not work")
    doctor.add_argument("--no-database", action="store_true", help="do not start the FiftyOne database")
    return top


class _Verb(argparse.ArgumentParser):
    """A parser whose error for an unknown flag names the nearest one."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = super().parse_known_args(args, namespace)
        for text in unknown:
            self.error(f"unknown: {text}{nearest(text.partition('=')[0], list(self._option_string_actions))}")
        return options, unknown


def _verb(verbs: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    made = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    made.set_defaults(run=run)
    return made


def _faults(verb: argparse.ArgumentParser) -> None:
    choices = ("raise", "skip", "repair")
    verb.add_argument("--on-fault", choices=choices, default="raise", help="what a broken annotation does")


def _compared(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--split", choices=("train", "val", "test"), help="default: val")
    verb.add_argument("--images", type=int, default=50, help="compared detection by detection (default: 50)")
    _faults(verb)


def _scoring(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--split", choices=("train", "val", "test"), help="default: val")
    verb.add_argument("--protocol", help="coco, voc, lvis ... (default: the dataset's own)")
    verb.add_argument("--batch-size", type=int, default=1)
    verb.add_argument("--workers", type=int)
    verb.add_argument("--device")


def _views(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--scales", type=float, nargs="+", help="factors of the test size to see every image at")
    verb.add_argument("--flips", nargs="+", help="also see it mirrored: horizontal, vertical, diagonal")


def _tta(options: argparse.Namespace) -> Any:
    from .models import TTA

    if options.scales is None and options.flips is None:
        return None
    return TTA(tuple(options.scales or (1.0,)), tuple(options.flips or ()))


def _training(verb: argparse.ArgumentParser) -> None:
    """Every option of a training as a flag; one that is not given is left out of the result."""
    for group, options in grouped_options().items():
        section = verb.add_argument_group(group)
        for option in options:
            told, parse = option.metadata, option.metadata["parse"]
            how: dict[str, Any] = {"help": told["help"], "default": argparse.SUPPRESS}
            if option.default not in (None, False):
                how["help"] += f" (default: {option.default})"
            if "const" in told:
                how |= {"action": "store_const", "const": told["const"]}
            elif parse is bool:
                how |= {"action": "store_true"}
            else:
                how |= {"type": _told(parse), "choices": told.get("choices")}
            if parse is not None:
                section.add_argument("--" + option.name.replace("_", "-"), **how)


def _told(parse: Any) -> Any:
    """``parse`` such that the parser shows the text of its errors."""
    if isinstance(parse, type):
        return parse

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


def _fit(options: argparse.Namespace) -> int:
    from pathlib import Path

    from . import Run, fit
    from .errors import SdkError

    if options.replay:
        from .training.failures import replay

        print(replay(options.replay))
        return 0
    if options.model is None and not (hasattr(options, "config") or hasattr(options, "from_manifest")):
        raise SdkError("expected a dataset and a model: sdk fit DATASET MODEL")
    model = Run(options.model) if options.model is not None and Path(options.model).is_dir() else options.model
    names = [option.name for group in grouped_options().values() for option in group]
    fit(options.dataset, model, **{name: value for name, value in vars(options).items() if name in names})
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from . import evaluate
    from .reports.text import as_text

    report = evaluate(
        options.dataset,
        options.what,
        **_scored(options),
        tta=_tta(options),
        out=options.out,
    )
    print(as_text(report))
    return 0


def _scored(options: argparse.Namespace) -> dict[str, Any]:
    """What the flags of ``_scoring`` and ``_faults`` say, as keywords of a verb."""
    names = ("split", "on_fault", "protocol", "batch_size", "workers", "device")
    return {name: getattr(options, name) for name in names}


def _compare(options: argparse.Namespace) -> int:
    from . import compare
    from .errors import SdkError

    comparison = compare(
        options.a,
        options.b,
        dataset=options.dataset,
        **_scored(options),
        resamples=options.resamples,
        seed=options.seed,
        out=options.out,
    )
    print(comparison)
    if options.fail_if_worse is None:
        return 0
    if options.fail_if_worse not in comparison.figures:
        raise SdkError(f"--fail-if-worse {options.fail_if_worse}: expected one of {', '.join(comparison.figures)}")
    row = comparison[options.fail_if_worse]
    if row.difference >= -options.by:
        return 0
    print(f"sdk compare: {row.figure} is {-row.difference:.4f} lower, more than {options.by:g}", file=sys.stderr)
    return 2


def _predict(options: argparse.Namespace) -> int:
    from . import predict
    from .errors import SdkError
    from .inference.writing import kind_of

    if options.model is None:
        *options.images, options.model = options.images
        if not options.images:
            raise SdkError("expected images and a model: sdk predict IMAGES ... MODEL")

    # What is looked at is cut; what is scored or read by programs is not.
    looked_at = options.out is None or kind_of(options.out).draws
    shown = 0.3 if options.score_threshold is None else options.score_threshold
    found: Any = predict(
        options.images,
        options.model,
        stream=True,
        on_fault=options.on_fault,
        recursive=options.recursive,
        score_threshold=shown if looked_at else options.score_threshold,
        classes=options.classes,
        batch_size=options.batch_size,
        threads=options.threads,
        device=options.device,
        devices=options.devices,
        tta=_tta(options),
        tiles=None if options.tiles is None else tuple([*options.tiles, 0.2][:2]),
        track=options.track,
        out=options.out,
        draw_threshold=shown,
        profile=options.profile,
    )
    for prediction in found:
        if not looked_at:
            continue
        print(prediction.image_id if options.track else prediction.path, flush=True)
        numbers = prediction.tracks() or [None] * len(prediction)
        objects = zip(prediction.names, prediction.scores.tolist(), prediction.boxes.tolist(), numbers)
        for name, score, box, number in objects:
            shown = name if number is None else f"{name} #{number}"
            print(f"  {shown} {score:.3f}  {' '.join(f'{value:.1f}' for value in box)}")
    return 0


def _explore(options: argparse.Namespace) -> int:
    from . import explore

    session = explore(
        options.dataset,
        _models(options.what),
        split=options.split,
        protocol=options.protocol,
        name=options.name,
        batch_size=options.batch_size,
        workers=options.workers,
        device=options.device,
        address=options.address,
        port=options.port,
    )
    session.wait(-1)
    return 0


def _export(options: argparse.Namespace) -> int:
    from . import export

    taken = ("verb", "run", "traceback", "model", "out")
    print(export(options.model, options.out, **{k: v for k, v in vars(options).items() if k not in taken}))
    return 0


def _verify(options: argparse.Namespace) -> int:
    from . import verify

    taken = ("verb", "run", "traceback", "file", "dataset")
    made = verify(options.file, options.dataset, **{k: v for k, v in vars(options).items() if k not in taken})
    print(made)
    return 0 if made.passed else 2


def _models(given: list[str]) -> dict[str, str] | str | None:
    """What was predicted, by the name that was given before a ``=`` or that of the file or folder."""
    from pathlib import Path

    from .errors import SdkError

    if not given:
        return None
    if len(given) == 1 and (Path(given[0]).exists() or "=" not in given[0]):
        return given[0]
    models = {}
    for text in given:
        name, equals, what = text.partition("=")
        if not equals or Path(text).exists():
            name, what = Path(text).stem, text
        if name in models:
            raise SdkError(f"{name}: names {models[name]} and {what}; give each a name of its own, as NAME={what}")
        models[name] = what
    return models


def _check(options: argparse.Namespace) -> int:
    from . import check

    report = check(
        options.dataset, decode=options.decode, leaks=options.leaks, out=options.out, sampler=options.sampler
    )
    print(report)
    return 0 if report.ok else 1


def _review(options: argparse.Namespace) -> int:
    from . import Review, review
    from .errors import SdkError

    if options.dataset.endswith(".csv"):
        if options.amendments is None or options.what is not None:
            raise SdkError("expected: sdk review queue.csv --amendments FILE, or sdk review DATASET WHAT --out FOLDER")
        decided = Review.read(options.dataset)
        print(f"{len(decided.accepted)} changes are in {decided.amendments().save(options.amendments)}")
        return 0
    if options.what is None or options.amendments is not None:
        raise SdkError("expected: sdk review DATASET WHAT --out FOLDER; then sdk review queue.csv --amendments FILE")
    found = review(
        options.dataset,
        options.what,
        split=options.split,
        folds=options.folds,
        training=None if options.epochs is None else {"epochs": options.epochs},
        batch_size=options.batch_size,
        workers=options.workers,
        device=options.device,
        out=options.out,
    )
    print(found)
    return 0


def _diff(options: argparse.Namespace) -> int:
    from . import diff

    found = diff(options.first, options.second, split=options.split, out=options.out)
    print(found)
    for row in found.rows if options.rows else ():
        box = " ".join(f"{value:.1f}" for value in row.new_box or row.box)
        print(f"{row.kind} {row.image_id} {row.annotation_id}: {row.new_class or row.class_name} {box}")
    return 0


def _zoo(options: argparse.Namespace) -> int:
    from .errors import SdkError
    from .evaluators.text import table
    from .models.zoo.index import index
    from .verbs import zoo

    if options.what[:1] == ["export"]:
        if len(options.what) != 3:
            raise SdkError("expected: sdk zoo export NAME FILE.safetensors")
        print(zoo.export(options.what[1], options.what[2], options.weights))
        return 0
    if len(options.what) > 1:
        raise SdkError(f"expected one pattern, found {' '.join(options.what)}")
    pattern = options.what[0] if options.what else "*"
    if options.markdown:
        print(zoo.page(), end="")
    elif options.card:
        from . import Run

        print(zoo.card(pattern, [Run(folder) for folder in options.runs]), end="")
    elif pattern in index():
        print(zoo.description(pattern))
    else:
        found = zoo.entries(
            pattern,
            method=options.method,
            dataset=options.dataset,
            backbone=options.backbone,
            min_ap=options.min_ap,
            max_parameters=options.max_parameters,
        )
        print("\n".join(table(zoo.rows(found))))
    return 0


def _convert(options: argparse.Namespace) -> int:
    from . import convert

    print(convert(options.source, options.target, to=options.to, on_fault=options.on_fault))
    return 0


def _convert_mmdetection(options: argparse.Namespace) -> int:
    from .verbs.convert_mmdetection import convert_mmdetection

    print(convert_mmdetection(options.checkpoint, options.out, config=options.config))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from . import doctor

    doctor(database=not options.no_database)
    return 0


if __name__ == "__main__":
    sys.exit(main())
