"""`python -m trellis2_training`: train, evaluate, export, draw examples and results."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from .config import CONFIGS


def _settings_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir", "--resume", type=Path, required=True, help="state, weights and logs live here"
    )
    parser.add_argument("--config", choices=sorted(CONFIGS), default="mini")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the bank's first object")
    parser.add_argument("--objects", type=int, default=49_152, help="objects in the bank")
    parser.add_argument("--latent-objects", type=int, default=10_000, help="most objects in the latent set")
    parser.add_argument("--views", type=int, default=4, help="pictures an object in the latent set")
    parser.add_argument(
        "--workers", type=int, default=min(os.cpu_count() or 1, 16), help="processes that write object tables"
    )
    parser.add_argument("--max-steps", type=int, help="end stages after this many steps")
    parser.add_argument("--batch", type=int, help="size of batches, as a multiple of a small one")
    parser.add_argument(
        "--no-decay", action="store_true", help="keep the learning rate: another phase follows"
    )
    parser.add_argument(
        "--rate", type=float, default=1.0, help="scales learning rates: less than 1 for weights that are good"
    )
    parser.add_argument("--profile", action="store_true", help="write where the time of a step goes")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trellis2_training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    train = commands.add_parser("train", help="stages one after another, as a TOML file says")
    train.add_argument("--config", type=Path, required=True, help="such as training/configs/mini.toml")

    stages = commands.add_parser(
        "stages", help="stages NAME:4000steps or NAME:SECONDS one after another in this process"
    )
    stages.add_argument("stages", nargs="+")
    stages.add_argument(
        "--import", dest="resume", type=Path, help="slim weights or a package to unpack first"
    )
    _settings_options(stages)

    plan = commands.add_parser("schedule", help="one phase of the whole training, by the clock")
    plan.add_argument("--phase", type=int, choices=(0, 1, 2, 3), required=True)
    plan.add_argument("--seconds", type=float, required=True, help="wall clock of this command")
    plan.add_argument("--export", type=Path, help="folder for slim weights and the log")
    plan.add_argument(
        "--import",
        dest="resume",
        type=Path,
        action="append",
        default=[],
        help="slim weights of an earlier phase, or a package; several: the first that has a network counts",
    )
    plan.add_argument("--evaluate", type=int, default=0, help="held-out objects to evaluate at the end")
    _settings_options(plan)

    export = commands.add_parser("export", help="write the pipeline folder from a working folder")
    export.add_argument("target", type=Path)
    export.add_argument("--workdir", type=Path, required=True)
    export.add_argument("--import", dest="resume", type=Path, help="slim weights to unpack first")
    export.add_argument("--config", choices=sorted(CONFIGS), default="mini")

    evaluate = commands.add_parser("evaluate", help="measure a pipeline folder on held-out objects")
    evaluate.add_argument("weights", type=Path)
    evaluate.add_argument("--objects", type=int, default=128)
    evaluate.add_argument("--device", default="auto")
    evaluate.add_argument(
        "--out", type=Path, required=True, help="JSON file; a table for the model card is beside it"
    )
    evaluate.add_argument("--skip-autoencoders", action="store_true")
    evaluate.add_argument("--structure-guidance", type=float, help="replace the structure guidance strength")
    evaluate.add_argument("--seconds", type=float, help="start no object after this time")
    evaluate.add_argument(
        "--exported", action="store_true", help="measure assets as exported for the web, too (needs Warp)"
    )
    evaluate.add_argument(
        "--patterned", action="store_true", help="put patterns on every second held-out object"
    )
    evaluate.add_argument(
        "--held-out",
        choices=("old", "all"),
        default="old",
        help="old: objects from 1,000,000,000 on, of the first 51 families, as all figures so far; "
        "all: from 2,000,000,000 on, of all families and with all patterns",
    )
    evaluate.add_argument("--processes", type=int, default=1, help="processes that share the objects")
    evaluate.add_argument("--sheet", type=Path, help="write a contact sheet of inputs and results (PNG)")

    texture = commands.add_parser("texture", help="measure colours and patterns on true held-out shapes")
    texture.add_argument("before", type=Path, help="pipeline folder to compare with")
    texture.add_argument("--workdir", type=Path, required=True, help="holds the weights to measure")
    texture.add_argument("--config", choices=sorted(CONFIGS), default="mini")
    texture.add_argument("--objects", type=int, default=32)
    texture.add_argument("--device", default="auto")
    texture.add_argument("--out", type=Path, required=True, help="JSON file")
    texture.add_argument("--seconds", type=float, help="start no object after this time")
    texture.add_argument("--sheet", type=Path, help="write a contact sheet (PNG)")

    matting = commands.add_parser(
        "matting", help="measure background removers on held-out objects over textured backgrounds"
    )
    matting.add_argument("weights", type=Path)
    matting.add_argument("--objects", type=int, default=64)
    matting.add_argument("--size", type=int, default=384, help="side of the pictures")
    matting.add_argument("--device", default="cpu", help="draws the pictures: cpu or cuda")
    matting.add_argument("--out", type=Path, required=True, help="JSON file")
    matting.add_argument("--pictures", type=Path, help="folder that keeps the pictures, for the next time")
    matting.add_argument("--photos", type=Path, help="folder of photos: backgrounds of every eighth picture")
    matting.add_argument("--sheet", type=Path, help="write the pictures and what is left of them (PNG)")

    color = commands.add_parser("base-color", help="measure the base colour network on held-out pictures")
    color.add_argument("--workdir", type=Path, required=True, help="holds the weights to measure")
    color.add_argument("--config", choices=sorted(CONFIGS), default="mini")
    color.add_argument("--objects", type=int, default=64)
    color.add_argument("--device", default="auto")
    color.add_argument("--out", type=Path, required=True, help="JSON file")
    color.add_argument("--sheet", type=Path, help="write pictures, results and truths (PNG)")

    structure = commands.add_parser("structure", help="structures found, by settings of the sampler")
    structure.add_argument("weights", type=Path, help="pipeline folder")
    structure.add_argument("--objects", type=int, default=64)
    structure.add_argument("--device", default="auto")
    structure.add_argument("--out", type=Path, required=True, help="JSON file")
    structure.add_argument("--seconds", type=float, default=float("inf"), help="start no object after this")

    sheet = commands.add_parser("sheet", help="contact sheet: example pictures and results from four sides")
    sheet.add_argument("weights", type=Path)
    sheet.add_argument("out", type=Path, help="picture to write (WebP, PNG, JPEG)")
    sheet.add_argument("--pictures", type=Path, default=Path("assets/example_image"), help="folder")
    sheet.add_argument("--size", type=int, default=144, help="side of a tile in pixels")
    sheet.add_argument("--device", default="cpu", help="cpu, cuda")

    examples = commands.add_parser("examples", help="draw held-out example pictures")
    examples.add_argument("folder", type=Path)
    examples.add_argument("--size", type=int, default=512)
    examples.add_argument(
        "--count", type=int, default=14, help="pictures of the first 51 families, beside those chosen"
    )
    examples.add_argument("--device", default="auto")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if options.command == "train":
        from .train import train_by

        train_by(options.config)
        return 0
    if options.command in ("stages", "schedule"):
        return _train(options)
    if options.command == "export":
        from .export import export_package, import_weights

        if options.resume is not None:
            import_weights(options.resume, options.workdir)
        export_package(CONFIGS[options.config], options.workdir, options.target)
    elif options.command == "evaluate":
        from .evaluation.evaluate import Plan, evaluate_package

        plan = Plan(
            options.weights,
            options.device,
            autoencoders=not options.skip_autoencoders,
            structure_guidance=options.structure_guidance,
            deadline=None if options.seconds is None else time.time() + options.seconds,
            tiles=48 if options.sheet else 0,
            processes=options.processes,
            exported=options.exported,
            patterned=options.patterned,
            all_families=options.held_out == "all",
        )
        evaluate_package(plan, options.objects, options.out, options.sheet)
    elif options.command == "texture":
        from .evaluation.texture import measure_texture

        config, limit = CONFIGS[options.config], options.seconds or float("inf")
        measure_texture(
            options.before,
            options.workdir,
            config,
            options.device,
            options.objects,
            options.out,
            limit,
            options.sheet,
        )
    elif options.command == "base-color":
        from .evaluation.base_color import measure_base_color

        config = CONFIGS[options.config]
        measure_base_color(
            options.workdir, config, options.device, options.objects, options.out, options.sheet
        )
    elif options.command == "matting":
        from .evaluation.matting import log_table, measure_matting

        log_table(
            measure_matting(
                options.weights,
                options.objects,
                options.out,
                options.size,
                options.device,
                options.pictures,
                options.photos,
                options.sheet,
            )
        )
    elif options.command == "structure":
        from .evaluation.structure import measure_structure

        measure_structure(options.weights, options.objects, options.device, options.out, options.seconds)
    elif options.command == "sheet":
        from .evaluation.sheet import write_sheet

        pictures = sorted(p for p in options.pictures.iterdir() if p.suffix in (".png", ".jpg", ".webp"))
        write_sheet(options.weights, pictures, options.out, options.size, device=options.device)
    else:
        from .evaluation.examples import draw_examples

        draw_examples(options.folder, options.count, options.size, options.device)
    return 0


def _train(options: argparse.Namespace) -> int:
    from .schedule import run_schedule
    from .stage_runner import Settings, run_stages

    settings = Settings(
        folder=options.workdir,
        config=options.config,
        device=options.device,
        seed=options.seed,
        first=options.first,
        objects=options.objects,
        latent_objects=options.latent_objects,
        views=options.views,
        workers=options.workers,
        decay=not options.no_decay,
        rate=options.rate,
        profile=options.profile,
        max_steps=options.max_steps,
        batch=options.batch,
    )
    if options.command == "stages":
        if options.resume is not None:
            from .export import import_weights

            import_weights(options.resume, options.workdir)
        run_stages(options.stages, settings)
        return 0
    good = run_schedule(
        options.phase, options.seconds, settings, options.export, options.resume, options.evaluate
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
