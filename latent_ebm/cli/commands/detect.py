"""``latent-ebm detect``: unusual rows among new ones, given normal rows."""

import argparse

from latent_ebm.cli.commands.options import (
    Commands,
    add_command,
    add_reading,
    add_seed,
    add_size,
    fraction,
    make_reader,
    positive,
)

FILES = "a .csv, .tsv, .npz, .npy or .parquet file, or a folder of images"


def add(commands: Commands) -> None:
    text = "find unusual rows or images, given normal ones"
    command = add_command(commands, "detect", text, "Needs no trained model.")
    command.add_argument(
        "train", metavar="TRAIN", help=f"normal rows: {FILES}; or a folder that --save wrote"
    )
    command.add_argument(
        "--score",
        required=True,
        metavar="NEW",
        help=f"the rows to judge: {FILES}",
    )
    add_results(command)
    add_fitting(command)
    add_size(command)
    add_reading(command)
    add_seed(command)
    command.set_defaults(run=run)


def add_results(command: argparse.ArgumentParser) -> None:
    """What is written, and what counts as unusual."""
    command.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="a .csv with the columns row (its id, else its line in the file, else its number "
        "from 0), score (low is unusual), p_value, outlier, selected",
    )
    command.add_argument(
        "--report",
        metavar="FILE",
        help="a page (.html) that shows the most unusual rows and explains why they are unusual",
    )
    command.add_argument("--save", metavar="DIR", help="folder to keep the detector in")
    command.add_argument(
        "--alpha",
        type=fraction,
        default=0.1,
        help="the part of normal rows that may be called outliers, and the expected part of "
        "false alarms among the selected rows (default: 0.1)",
    )


def add_fitting(command: argparse.ArgumentParser) -> None:
    """How the detector is fitted."""
    command.add_argument(
        "--energy",
        choices=("joint", "reconstruction", "prior", "elbo"),
        help="what the score is made of (default: joint)",
    )
    command.add_argument(
        "--folds",
        type=positive,
        metavar="K",
        help="hold out every normal row once: fit K times, each time without one of K parts of "
        "the rows. The default is to fit once and hold out up to half. Folds find more when "
        "normal rows are few, but promise less about false alarms (the report says what)",
    )
    command.add_argument(
        "--image-shape",
        type=positive,
        nargs=3,
        metavar=("C", "H", "W"),
        help="the rows are flattened images of this shape",
    )
    command.add_argument(
        "--max-steps",
        type=positive,
        metavar="N",
        help="for images: learn features for at most N steps (default: 1000)",
    )
    command.add_argument(
        "--encoder",
        metavar="CKPT",
        help="for images: use the encoder of this checkpoint for the features, and learn none",
    )


def run(args: argparse.Namespace) -> None:
    from latent_ebm.cli.calibrated import Fitting
    from latent_ebm.cli.detect import Job, run_detect

    fitting = Fitting(args.energy, args.folds, args.max_steps, args.encoder)
    run_detect(
        Job(
            train=args.train,
            score=args.score,
            out=args.out,
            report=args.report,
            save=args.save,
            alpha=args.alpha,
            seed=args.seed,
            reader=make_reader(args),
            image_shape=args.image_shape and tuple(args.image_shape),
            size=args.size,
            fitting=fitting,
        )
    )
