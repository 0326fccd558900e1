"""``latent-ebm score``: the energy terms of data at inferred latents."""

import argparse

from latent_ebm.cli.commands.options import (
    Commands,
    add_checkpoint_command,
    add_reading,
    add_size,
    make_reader,
)


def add(commands: Commands) -> None:
    text = "anomaly scores from a trained model: the terms of the energy, high is unusual"
    command = add_checkpoint_command(commands, "score", text)
    command.add_argument(
        "data",
        metavar="DATA",
        help="a file (.csv, .tsv, .npz, .npy, .parquet) or a folder of images, with the shape, "
        "units and columns of the training data; or one of train, val, test, the parts of the "
        "data set that the checkpoint was trained with",
    )
    command.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="a .csv with the columns index, reconstruction, tilt, base, joint; the index is the "
        "id of a row, else its line in the file, else its number from 0",
    )
    add_size(command)
    add_reading(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from latent_ebm.cli.inference import score

    reader = make_reader(args)
    score(
        args.checkpoint, args.data, args.out, reader, args.size, seed=args.seed, trust=args.trust
    )
